# Sourced: a Kubernetes cluster on this machine, whose nodes are network, IPC and mount namespaces
# (tools/node.sh). The control plane's processes are in the first node's.
#
#   cluster_start RUNTIME NODES      brings up the cluster of $CLUSTER_DIR, all nodes Ready
#   cluster_metrics_server_start     adds what `kubectl top` asks
#   cluster_leaks                    ends everything but the runtimes, tells them to remove all, and
#                                    prints what pods have left in the nodes; fails if there is any
#   cluster_stop                     ends it and removes what it left
#   cluster_on NODE                  makes NODE (node1, ...) the one that the node_* functions mean
#   cluster_kubectl ARGS...          kubectl as the cluster's administrator
#   cluster_kubelet_start NODE       starts the node's kubelet
#   cluster_names                    prints the nodes' names
#
# $CLUSTER_DIR (default /run/joey-kubernetes) holds the keys, the configuration, log/ and pids/.

KUBERNETES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CLUSTER_DIR=$(realpath -m "${CLUSTER_DIR:-/run/joey-kubernetes}")
CLUSTER_PODS=10.244.0.0/16
CLUSTER_SERVICES=10.96.0.0/16
CLUSTER_API=https://192.0.2.1:6443
CLUSTER_DNS=192.0.2.1
CLUSTER_STARTING=''

# 5000 is the port of a registry in one of upstream's specs.
NODE_REGISTRY=http://127.0.0.1:5001
NODE_IMAGES=kubernetes
NODE_POD_NETWORK=$CLUSTER_PODS
# Virtual machines get a copy of the tests' registry: these images are not for that one.
export REGISTRY_DATA=${JOEY_CACHE:-/var/cache/joey}/registry-kubernetes
# shellcheck source=../tools/node.sh
source "$KUBERNETES/../tools/node.sh"
# shellcheck source=control-plane.sh
source "$KUBERNETES/control-plane.sh"

cluster_names() {
    ls -v "$CLUSTER_DIR/nodes" 2>/dev/null
}

cluster_on() {
    eval "$(<"$CLUSTER_DIR/nodes/$1")"
}

cluster_kubectl() {
    cluster_on node1
    in_node "$(cluster_tool kubernetes kubectl)" --kubeconfig "$CLUSTER_DIR/kubeconfig" "$@"
}

# The path of a program; it was built by cluster_start.
cluster_tool() { # SET PROGRAM
    echo "$(<"$CLUSTER_DIR/tools/$1")/$2"
}

# Runs a program in the node, for as long as the node is there.
cluster_spawn() { # NAME COMMAND...
    local name=$1
    shift
    nsenter --target "$NODE_HOLDER" --net --ipc --mount -- setsid "$@" \
        >>"$CLUSTER_DIR/log/$name.log" 2>&1 </dev/null &
    echo $! >"$CLUSTER_DIR/pids/$name"
    # Bash would tell of its end.
    disown
}

# Waits until a command succeeds, for as long as a process is there.
cluster_await() { # WHAT PID SECONDS COMMAND...
    local what=$1 pid=$2 until=$((SECONDS + $3))
    shift 3
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$until" ]; then
            echo "cluster: $what; logs are in $CLUSTER_DIR/log" >&2
            return 1
        fi
        sleep 0.1
    done
}

cluster_node_start() { # NUMBER RUNTIME
    NODE_HOLDER='' NODE_RUNTIME_PID='' NODE_SOCKET='' CLUSTER_STARTING=node$1
    NODE_ADDRESS=192.0.2.$1 NODE_POD_SUBNET=10.244.$1.0/24
    node_start "$2"
    ln -s "$NODE_DIR/runtime.log" "$CLUSTER_DIR/log/node$1-runtime.log"

    # No name is asked for outside, and no answer is waited for.
    : >"$NODE_DIR/resolv.conf"
    in_node mount --bind "$NODE_DIR/resolv.conf" "$(realpath /etc/resolv.conf)"
    # Device plugins and volumes of specs know no other folder.
    mkdir -p "$NODE_DATA/kubelet" /var/lib/kubelet
    in_node mount --bind "$NODE_DATA/kubelet" /var/lib/kubelet
    # Volumes are the kubelet's. The runtime may be started again, and keeps the gateway's device, the
    # range of pods' addresses and a folder of its own for images.
    in_node "$TESTS/tools/leak-check" save "$NODE_DIR/before.json" --node "$NODE_HOLDER" \
        --only processes,mounts,netns,links,files --dir "$NODE_DATA/root" --dir "$NODE_DIR/state" \
        --ignore '/kubelet/' --ignore '^[0-9]+ joeyd ' --ignore '^joey0$' \
        --ignore '/network/pod-cidr$' --ignore '/images/staging/[0-9a-f]+$'
}

# Tells this node where the others' pods are, and them where its own are.
cluster_node_join() { # NUMBER
    local number=$1 other
    node_save >"$CLUSTER_DIR/nodes/node$number"
    CLUSTER_STARTING=''
    for other in $(seq $((number - 1))); do
        in_node ip route add "10.244.$other.0/24" via "192.0.2.$other"
        cluster_on "node$other"
        in_node ip route add "10.244.$number.0/24" via "192.0.2.$number"
        cluster_on "node$number"
    done
}

# Between the nodes, and none of them: what a node redirects to where it came from would not leave a
# bridge of its own again.
cluster_switch_start() {
    unshare --net -- setsid sh -c 'ip link add switch type bridge && ip link set switch up && echo ready &&
        exec sleep infinity' >"$CLUSTER_DIR/log/switch.log" 2>&1 </dev/null &
    NODE_SWITCH=$!
    disown
    echo "$NODE_SWITCH" >"$CLUSTER_DIR/switch"
    cluster_await "no network between nodes" "$NODE_SWITCH" 10 grep ready "$CLUSTER_DIR/log/switch.log"
}

cluster_kubelet_start() { # NODE
    cluster_on "$1"
    cluster_spawn "$1-kubelet" "$(cluster_tool kubelet kubelet)" --config "$NODE_DIR/kubelet.yaml" \
        --kubeconfig "$CLUSTER_DIR/$1.kubeconfig" --hostname-override "$1" --node-ip "$NODE_ADDRESS" -v=2
}

cluster_kubelet_config() {
    mkdir -p "$NODE_DATA/pod-logs" "$NODE_DIR/manifests"
    cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$NODE_SOCKET
staticPodPath: $NODE_DIR/manifests
podLogsDir: $NODE_DATA/pod-logs
resolvConf: $NODE_DIR/resolv.conf
clusterDomain: cluster.local
clusterDNS: [$CLUSTER_DNS]
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $CLUSTER_DIR/pki/ca.crt}}
authorization: {mode: Webhook}
# Of a node that is a part of a machine.
cgroupDriver: cgroupfs
cgroupRoot: $(node_cgroup_root)
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
evictionHard: {memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
containerLogMaxFiles: 10
containerLogMonitorInterval: 3s
# Of a cluster that starts in seconds.
nodeStatusUpdateFrequency: 2s
fileCheckFrequency: 1s
YAML
}

cluster_node_json() { # NAME NUMBER
    cat <<JSON
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "$1", "labels": {"kubernetes.io/hostname": "$1"}},
 "spec": {"podCIDR": "10.244.$2.0/24", "podCIDRs": ["10.244.$2.0/24"]}}
JSON
}

cluster_start() { # RUNTIME NODES
    local runtime=$1 nodes=$2 number set tool
    [ ! -e "$CLUSTER_DIR" ] || { echo "cluster: $CLUSTER_DIR exists: there is one already" >&2; return 1; }
    mkdir -p "$CLUSTER_DIR"/{nodes,pids,log,tools}
    for set in etcd coredns metrics-server kubelet kubernetes; do
        tool=$("$TESTS/conformance/build-tools" "$set")
        echo "$tool" >"$CLUSTER_DIR/tools/$set"
    done
    cluster_keys "$nodes"
    cluster_switch_start

    cluster_node_start 1 "$runtime"
    cluster_node_join 1
    cluster_control_plane_start
    for number in $(seq 2 "$nodes"); do
        cluster_node_start "$number" "$runtime"
        cluster_node_join "$number"
    done
    cluster_control_plane_await
    for number in $(seq "$nodes"); do
        cluster_node_json "node$number" "$number"
    done | cluster_kubectl create -f - >/dev/null
    for number in $(seq "$nodes"); do
        cluster_on "node$number"
        cluster_kubelet_config >"$NODE_DIR/kubelet.yaml"
        cluster_kubelet_start "node$number"
        cluster_proxy_start "node$number"
    done
    cluster_kubectl wait --for=condition=Ready --timeout=60s node --all >/dev/null
    cluster_await "no service account in the default namespace" "$(<"$CLUSTER_DIR/pids/apiserver")" 30 \
        cluster_kubectl get serviceaccount default
}

# Kubelets among them, so that none starts again what is taken away. Nothing of theirs is kept.
cluster_processes_end() {
    local name
    for name in "$CLUSTER_DIR"/pids/*; do
        [ -e "$name" ] || continue
        if is_apart "$(<"$name")" mnt; then
            kill -KILL "$(<"$name")" 2>/dev/null || true
        fi
        rm -f "$name"
    done
}

cluster_leaks() {
    local name code=0
    cluster_processes_end
    for name in $(cluster_names); do
        cluster_on "$name"
        node_clean
        echo "$name:"
        in_node "$TESTS/tools/leak-check" compare "$NODE_DIR/before.json" --settle 10 || code=1
    done
    return "$code"
}

# Pods go while their runtime is there; the first node last, which has the control plane.
cluster_stop() {
    local name
    [ -z "$CLUSTER_STARTING" ] || node_save >"$CLUSTER_DIR/nodes/$CLUSTER_STARTING"
    cluster_processes_end
    for name in $(cluster_names | tac); do
        cluster_on "$name"
        node_clean
        node_stop
    done
    if [ -e "$CLUSTER_DIR/switch" ] && is_apart "$(<"$CLUSTER_DIR/switch")" net; then
        kill -KILL "$(<"$CLUSTER_DIR/switch")" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$CLUSTER_DIR"
}
