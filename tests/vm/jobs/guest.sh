# Sourced by jobs, in the guest: a node in a machine of its own. Run from the job's folder.
#
#   guest_network               an address and a default route, as a node has them
#   guest_registry              serves the test images; hosts.toml files lead to it
#   guest_runtime joey|containerd    starts it under systemd; sets SOCKET and UNIT
#   guest_crictl ARGS...        crictl against it
#   guest_daemon_pid            its process
#   guest_warm_up               one pod and container through their whole life, then all removed
#   guest_state                 its log, processes, groups and mounts, into $OUT
#   guest_clean                 removes all pods, containers and images

JOB=$PWD
export JOEY_CACHE=$JOB/cache PATH=$JOB/bin:$PATH
REGISTRY=http://127.0.0.1:5000
BUSYBOX=registry.k8s.io/e2e-test-images/busybox:1.29-2
SOCKET='' UNIT=''

guest_network() {
    ip link set lo up
    ip link add up0 type bridge
    ip address add 192.0.2.1/24 dev up0
    ip link set up0 up
    ip route add default via 192.0.2.254
}

guest_registry() {
    # In a unit of its own: it is no part of the job's group.
    systemd-run --quiet --unit test-registry --setenv JOEY_CACHE="$JOEY_CACHE" \
        --property RemainAfterExit=yes "$JOB/registry" start /run/test-registry 5000
    local attempt
    for attempt in $(seq 300); do
        [ ! -s /run/test-registry/url ] || return 0
        sleep 0.2
    done
    journalctl --no-pager -u test-registry | tail -n 20
    return 1
}

guest_runtime() {
    UNIT=$1
    "guest_start_$1" || { guest_journal 60; return 1; }
    cat >/etc/crictl.yaml <<YAML
runtime-endpoint: unix://$SOCKET
image-endpoint: unix://$SOCKET
timeout: 120
YAML
    local attempt
    for attempt in $(seq 300); do
        # Both conditions that the kubelet reads.
        if [ "$(guest_crictl info 2>/dev/null | grep -A 4 -E '"type": "(Runtime|Network)Ready"|"status": true' \
            | grep -c '"status": true')" -ge 2 ]; then
            return 0
        fi
        systemctl is-active --quiet "$UNIT" || break
        sleep 0.3
    done
    echo "$1 did not become ready:"
    guest_journal 60
    return 1
}

# With the unit, the paths and the settings that an installation has.
guest_start_joey() {
    UNIT=joeyd
    SOCKET=/run/joey/joey.sock
    install -m 755 bin/joeyd bin/joey bin/joey-shim /usr/bin/
    install -m 644 joeyd.service /etc/systemd/system/
    mkdir -p /etc/joey
    cp -r certs.d /etc/joey/
    systemctl daemon-reload
    systemctl start joeyd
}

guest_start_containerd() {
    SOCKET=/run/containerd/containerd.sock
    mkdir -p /etc/containerd /etc/cni/net.d
    cp -r certs.d /etc/containerd/
    cat >/etc/cni/net.d/10-bridge.conflist <<'JSON'
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
    cat >/etc/containerd/config.toml <<TOML
version = 3

[plugins.'io.containerd.nri.v1.nri']
disable = true

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "/etc/containerd/certs.d"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "registry.k8s.io/pause:3.10"

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "$JOB/bin/runc"
SystemdCgroup = true
TOML
    systemd-run --quiet --unit containerd --property Type=notify --property Delegate=yes \
        --property KillMode=process --property Restart=always --setenv PATH="$PATH" "$JOB/bin/containerd"
}

guest_crictl() {
    crictl "$@"
}

guest_daemon_pid() {
    systemctl show --property MainPID --value "$UNIT"
}

guest_journal() { # LINES
    journalctl --no-pager --output cat --unit "$UNIT" --lines "$1"
}

guest_state() {
    guest_journal 100000 >"$OUT/runtime.log" 2>&1
    dmesg >"$OUT/dmesg.log" 2>&1
    ps axfo pid,ppid,stat,wchan:20,cgroup:80,args >"$OUT/processes.log" 2>&1
    systemd-cgls --all --full >"$OUT/cgroups.log" 2>&1
    cp /proc/self/mountinfo "$OUT/mounts.log"
}

guest_warm_up() {
    local dir=/run/test-warm-up
    mkdir -p $dir
    # critest's parent, too; left to be started by a runtime, it would look like a leak.
    systemctl start test.slice
    cat >$dir/pod.json <<'JSON'
{"metadata": {"name": "warm-up", "uid": "warm-up", "namespace": "default", "attempt": 0},
 "log_directory": "", "linux": {"cgroup_parent": "test.slice"}}
JSON
    cat >$dir/container.json <<JSON
{"metadata": {"name": "warm-up", "attempt": 0}, "linux": {}, "command": ["sleep", "600"],
 "image": {"image": "$BUSYBOX"}}
JSON
    guest_crictl run --with-pull $dir/container.json $dir/pod.json || return 1
    guest_clean
}

guest_clean() {
    # crictl fails with nothing to remove.
    [ -z "$(guest_crictl pods --quiet)" ] || guest_crictl rmp --all --force || return 1
    [ -z "$(guest_crictl images --quiet)" ] || guest_crictl rmi --all
}
