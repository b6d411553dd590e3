# Sourced: a node of its own for a test, which vanishes with it.
#
#   node_start joey|joey-cni|containerd
#                                network, IPC and mount namespaces, a registry with the test
#                                images, and the runtime; sets the NODE_* variables. joey-cni
#                                has containerd's CNI conf instead of Joey's own network. With
#                                NODE_GROUPED=1 the runtime gets a cgroup of its own beside its
#                                pods': whatever a node spends on CPU is counted in NODE_GROUP.
#                                With NODE_DISK=SIZE the runtime's data is on an ext4 of its own,
#                                which only the node sees
#   in_node COMMAND...           runs a command in the node's namespaces
#   node_cgroup_root             makes the group below which the node's pods are in every
#                                hierarchy, for a kubelet, and prints it
#   node_save                    prints the node's variables as shell text, to be read by eval
#   node_crictl ARGS...          crictl against the runtime
#   node_clean                   removes all pods, containers and images of the runtime
#   node_host_check save|compare FILE
#                                leak-check on the host, for what a node must not leave there
#   node_stop                    ends every process of the node and removes its folders
#
# Set before node_start where several nodes make a network: NODE_ADDRESS, NODE_POD_NETWORK (all pods'
# addresses), NODE_POD_SUBNET (this node's), and NODE_SWITCH, a process in a network namespace with the
# bridge `switch` that the nodes are joined to. NODE_REGISTRY is where the node's registry listens,
# NODE_IMAGES which sets of images it has.
#
# The host is not touched but for cgroups and the folders /run/joey-test.* and
# /var/lib/joey-test.*. Joey's programs come from $JOEY_BIN (default $JOEY_CACHE/bin).

TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export JOEY_CACHE=${JOEY_CACHE:-/var/cache/joey}
JOEY_BIN=${JOEY_BIN:-$JOEY_CACHE/bin}
NODE_REGISTRY=${NODE_REGISTRY:-http://127.0.0.1:5000}
NODE_IMAGES=${NODE_IMAGES:-conformance}
NODE_ADDRESS=${NODE_ADDRESS:-192.0.2.1}
NODE_POD_NETWORK=${NODE_POD_NETWORK:-}
NODE_POD_SUBNET=${NODE_POD_SUBNET:-10.88.0.0/16}
NODE_SWITCH=${NODE_SWITCH:-}

NODE_HOLDER='' NODE_RUNTIME_PID='' NODE_DIR='' NODE_DATA='' NODE_SOCKET='' NODE_GROUP=''
# The ends of the names of all nodes that this shell started.
STARTED_NODES=''

in_node() {
    nsenter --target "$NODE_HOLDER" --net --ipc --mount --wd="$PWD" -- "$@"
}

node_save() {
    declare -p "${!NODE_@}" | sed 's/^declare -[^ ]*/declare -g/'
}

node_cgroup_root() {
    local mount group controller
    for mount in $(awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/mounts); do
        if [ -e "$mount/cgroup.subtree_control" ]; then
            for controller in cpuset cpu memory hugetlb pids; do
                echo "+$controller" >"$mount/cgroup.subtree_control" 2>/dev/null || true
            done
        fi
        group=$mount/$NODE_GROUP
        mkdir -p "$group"
        # A new cpuset has no CPUs until it is told.
        if [ -e "$mount/cpuset.cpus" ] && [ ! -s "$group/cpuset.cpus" ]; then
            cat "$mount/cpuset.cpus" >"$group/cpuset.cpus" 2>/dev/null || true
            cat "$mount/cpuset.mems" >"$group/cpuset.mems" 2>/dev/null || true
        fi
    done
    echo "/$NODE_GROUP"
}

node_crictl() {
    in_node "$NODE_CRICTL" --config "$NODE_DIR/crictl.yaml" "$@"
}

node_start() {
    local runtime=$1 tools set
    tools=$("$TESTS/conformance/build-tools" critest)
    NODE_CRICTL=$tools/crictl
    NODE_DIR=$(mktemp -d /run/joey-test.XXXXXX)
    NODE_DATA=/var/lib/joey-test.${NODE_DIR##*.}
    NODE_GROUP=${NODE_DIR##*/}
    STARTED_NODES=${STARTED_NODES:+$STARTED_NODES|}${NODE_DIR##*.}
    mkdir -p "$NODE_DATA" "$NODE_DIR/tmp" "$NODE_DIR/certs.d"
    # The root of a user namespace must be able to pass through.
    chmod 711 "$NODE_DIR"

    # The namespace has no way out: what images are made from is fetched before.
    for set in $NODE_IMAGES; do
        "$TESTS/images/images" build --set "$set"
    done

    # `/` is shared, as systemd has it, but only within this mount namespace. Pinned network namespaces
    # of a runtime that was killed would stay on the host as files.
    mkdir -p /run/netns
    unshare --net --ipc --mount --propagation private -- \
        setsid sh -c 'mount --make-rshared / && mount -t tmpfs tmpfs /run/netns && echo ready &&
            exec sleep infinity' \
        >"$NODE_DIR/holder" 2>&1 </dev/null &
    NODE_HOLDER=$!
    until grep -qs ready "$NODE_DIR/holder"; do
        kill -0 "$NODE_HOLDER" 2>/dev/null || { cat "$NODE_DIR/holder" >&2; return 1; }
        sleep 0.02
    done
    if [ -n "$NODE_SWITCH" ]; then
        in_node ip link add up0 type veth peer name "to${NODE_DIR##*.}" netns "$NODE_SWITCH"
        nsenter --target "$NODE_SWITCH" --net -- ip link set "to${NODE_DIR##*.}" master switch up
    else
        in_node ip link add up0 type bridge
    fi
    in_node sh -e <<EOF
ip link set lo up
ip address add $NODE_ADDRESS/24 dev up0
ip link set up0 up
ip route add default via 192.0.2.254
EOF

    if [ -n "${NODE_DISK:-}" ]; then
        truncate --size "$NODE_DISK" "$NODE_DIR/disk"
        mkfs.ext4 -q -F "$NODE_DIR/disk"
        in_node mount -o loop "$NODE_DIR/disk" "$NODE_DATA"
    fi

    (
        [ -z "${NODE_GROUPED:-}" ] || enter_group "$NODE_GROUP.registry"
        in_node "$TESTS/tools/registry" start "$NODE_DIR/registry" "${NODE_REGISTRY##*:}" >/dev/null
    )
    for set in $NODE_IMAGES; do
        in_node "$TESTS/images/images" push --registry "$NODE_REGISTRY" --set "$set"
    done
    "$TESTS/images/images" mirrors "$NODE_DIR/certs.d" --registry "$NODE_REGISTRY"
    case $runtime in
        joey) node_start_joey builtin ;;
        joey-cni) node_start_joey cni ;;
        containerd) node_start_containerd ;;
        *) echo "node_start: unknown runtime '$runtime'" >&2; return 2 ;;
    esac
    printf 'runtime-endpoint: unix://%s\nimage-endpoint: unix://%s\ntimeout: 60\n' \
        "$NODE_SOCKET" "$NODE_SOCKET" >"$NODE_DIR/crictl.yaml"
    node_wait "$runtime"
}

node_cni_conf() {
    local masquerade=true
    # Pods of several nodes see each other's own addresses.
    [ -z "$NODE_POD_NETWORK" ] || masquerade=false
    mkdir -p "$NODE_DIR/cni"
    cat >"$NODE_DIR/cni/10-bridge.conflist" <<EOF
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": $masquerade, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$NODE_DIR/addresses", "ranges": [[{"subnet": "$NODE_POD_SUBNET"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
}

node_start_joey() { # NETWORK-MODE
    local except=''
    NODE_SOCKET=$NODE_DIR/joey.sock
    [ "$1" != cni ] || node_cni_conf
    [ -z "$NODE_POD_NETWORK" ] || except="\"$NODE_POD_NETWORK\""
    cat >"$NODE_DIR/config.toml" <<EOF
[registry]
config_path = "$NODE_DIR/certs.d"

[network]
mode = "$1"
masquerade_except = [$except]
cni_conf_dir = "$NODE_DIR/cni"
cni_bin_dirs = ["/usr/lib/cni"]

[cgroup]
driver = "cgroupfs"
default_parent = "/$NODE_GROUP"

# As the other runtime's handler is called, for a RuntimeClass.
[runtime.handlers.runc]
EOF
    NODE_RUNTIME_CMD=("$JOEY_BIN/joeyd" --config "$NODE_DIR/config.toml"
        --root "$NODE_DATA/root" --state "$NODE_DIR/state" --listen "unix://$NODE_SOCKET")
    node_spawn_runtime
}

node_start_containerd() {
    local containerd runc
    containerd=$("$TESTS/conformance/build-tools" containerd)
    runc=$("$TESTS/conformance/build-tools" runc)
    NODE_SOCKET=$NODE_DIR/containerd.sock
    node_cni_conf
    cat >"$NODE_DIR/config.toml" <<EOF
version = 3
root = "$NODE_DATA/root"
state = "$NODE_DIR/state"

[grpc]
address = "$NODE_SOCKET"

[ttrpc]
address = "$NODE_SOCKET.ttrpc"

[plugins.'io.containerd.nri.v1.nri']
disable = true

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "$NODE_DIR/certs.d"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "registry.k8s.io/pause:3.10"

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "$NODE_DIR/cni"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "$runc/runc"
Root = "$NODE_DIR/runc"
SystemdCgroup = false
EOF
    NODE_RUNTIME_CMD=(env "PATH=$containerd:$PATH" "$containerd/containerd"
        --config "$NODE_DIR/config.toml")
    node_spawn_runtime
}

# Starts NODE_RUNTIME_CMD in the node; also used to start it again after it was stopped.
node_spawn_runtime() {
    # Not through in_node: a function in the background would be a shell, not the runtime itself.
    (
        [ -z "${NODE_GROUPED:-}" ] || enter_group "$NODE_GROUP/runtime"
        exec nsenter --target "$NODE_HOLDER" --net --ipc --mount -- \
            setsid "${NODE_RUNTIME_CMD[@]}" >>"$NODE_DIR/runtime.log" 2>&1 </dev/null
    ) &
    NODE_RUNTIME_PID=$!
}

# Moves this shell to a group of its own below the root, in the hierarchies that count and share out
# CPU time. The group goes before other programs of the machine, so that they disturb less.
enter_group() { # GROUP
    local root top=${1%%/*} found=''
    for root in /sys/fs/cgroup/cpu /sys/fs/cgroup/cpuacct; do
        [ -d "$root" ] || continue
        found=1
        mkdir -p "$root/$1"
        [ ! -e "$root/$top/cpu.shares" ] || echo 262144 >"$root/$top/cpu.shares"
        echo "$BASHPID" >"$root/$1/cgroup.procs"
    done
    [ -z "$found" ] || return 0
    root=/sys/fs/cgroup
    echo +cpu >"$root/cgroup.subtree_control"
    mkdir -p "$root/$1"
    echo 10000 >"$root/$top/cpu.weight"
    echo "$BASHPID" >"$root/$1/cgroup.procs"
}

node_wait() {
    local attempt
    for attempt in $(seq 150); do
        if node_crictl --timeout 2s info 2>/dev/null | python3 -c '
import json, sys
status = json.load(sys.stdin)["status"]["conditions"]
sys.exit(not all(condition["status"] for condition in status
                 if condition["type"] in ("RuntimeReady", "NetworkReady")))' 2>/dev/null; then
            return 0
        fi
        kill -0 "$NODE_RUNTIME_PID" 2>/dev/null || break
        sleep 0.2
    done
    echo "$1 did not become ready:" >&2
    tail -n 30 "$NODE_DIR/runtime.log" >&2
    return 1
}

node_clean() {
    [ -S "$NODE_SOCKET" ] || return 0
    node_crictl rmp --all --force >/dev/null 2>>"$NODE_DIR/clean.log" || true
    node_crictl rmi --all >/dev/null 2>>"$NODE_DIR/clean.log" || true
}

# On the host the node's processes end with it; what else stays behind counts. Other tests may run
# beside: the cgroups of their nodes and daemons are theirs.
node_host_check() {
    local ignore=(--ignore '/joey-(shim-test-|[A-Za-z0-9]{6})')
    # Other programs of the machine come and go with groups of theirs, which bear no such name.
    ignore+=(--ignore '^/sys/fs/cgroup/(?!.*(joey|kube|pod|containerd|runc|\())')
    # Known once nodes have started: only to compare.
    [ -z "$STARTED_NODES" ] || ignore+=(--ignore "/joey-test\.(?!$STARTED_NODES)")
    "$TESTS/tools/leak-check" "$1" "$2" --only mounts,netns,links,cgroups,nft,ipc "${ignore[@]}"
}

# Whether a process is there and in a namespace that is not ours. A pid on file may have been given to
# another program since, after a restart of the machine even to one that it needs.
is_apart() { # PID mnt|net
    local home
    home=$(readlink "/proc/$1/ns/$2" 2>/dev/null) && [ "$home" != "$(readlink "/proc/self/ns/$2")" ]
}

# Whether a process is there and in the node, also for a caller who is there.
node_has() { # PID
    local home
    home=$(readlink "/proc/$1/ns/mnt" 2>/dev/null) && [ "$home" = "$(readlink "/proc/$NODE_HOLDER/ns/mnt")" ]
}

node_end_process() { # PID: asks, waits 10 s, kills
    local attempt
    is_apart "$1" mnt || return 0
    kill "$1" 2>/dev/null || return 0
    for attempt in $(seq 100); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
}

# Everything the node started still lives in its mount namespace, or descends from what does.
node_processes() {
    python3 - "$NODE_HOLDER" <<'EOF'
import os, sys
def mnt(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None
home, parents = mnt(sys.argv[1]), {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            parents[pid] = file.read().rpartition(")")[2].split()[1]
    except OSError:
        pass
def of_node(pid):
    while pid in parents:
        if mnt(pid) == home:
            return True
        pid = parents[pid]
    return False
print(*(pid for pid in parents if home and pid != sys.argv[1] and of_node(pid)), sep="\n")
EOF
}

# Removes a cgroup below the root and those in it, deepest first. Processes that were killed just now
# may be in them for a moment.
remove_group() { # GROUP
    local mount attempt
    for mount in $(awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/mounts); do
        for attempt in $(seq 40); do
            [ -d "$mount/$1" ] || break
            find "$mount/$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
        done
    done
}

node_stop() {
    [ -n "$NODE_HOLDER" ] || return 0
    local pid
    [ -z "$NODE_RUNTIME_PID" ] || node_end_process "$NODE_RUNTIME_PID"
    "$TESTS/tools/registry" stop "$NODE_DIR/registry"
    if is_apart "$NODE_HOLDER" mnt; then
        for pid in $(node_processes) "$NODE_HOLDER"; do
            kill -KILL "$pid" 2>/dev/null || true
        done
    fi
    wait "$NODE_HOLDER" 2>/dev/null || true
    NODE_HOLDER='' NODE_RUNTIME_PID=''
    remove_group "$NODE_GROUP"
    remove_group "$NODE_GROUP.registry"
    rm -rf --one-file-system "$NODE_DIR" "$NODE_DATA"
}
