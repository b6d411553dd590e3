# Sourced by cluster.sh: keys and the processes of the control plane, and kube-proxy.

cluster_certificate() { # NAME SUBJECT [SUBJECT-ALTERNATIVE-NAMES]
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 365 \
        -CA ca.crt -CAkey ca.key -subj "$2" ${3:+-addext "subjectAltName=$3"} \
        -addext basicConstraints=critical,CA:FALSE -keyout "$1.key" -out "$1.crt" 2>/dev/null
}

# A certificate authority, what the API server shows and uses, and a token with a kubeconfig for
# everyone who calls it.
cluster_keys() { # NODES
    local number
    mkdir -m 700 "$CLUSTER_DIR/pki"
    (
        cd "$CLUSTER_DIR/pki"
        umask 077
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 365 \
            -subj /CN=joey-kubernetes -keyout ca.key -out ca.crt 2>/dev/null
        cluster_certificate apiserver /CN=kube-apiserver \
            "IP:192.0.2.1,IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
        cluster_certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
        cluster_certificate front-proxy /CN=front-proxy-client
        openssl ecparam -name prime256v1 -genkey -noout -out service-accounts.key
        : >tokens.csv
    )
    cluster_user "$CLUSTER_DIR/kubeconfig" admin system:masters
    cluster_user "$CLUSTER_DIR/kube-scheduler.kubeconfig" system:kube-scheduler
    cluster_user "$CLUSTER_DIR/kube-controller-manager.kubeconfig" system:kube-controller-manager
    cluster_user "$CLUSTER_DIR/kube-proxy.kubeconfig" system:kube-proxy
    cluster_user "$CLUSTER_DIR/coredns.kubeconfig" coredns system:masters
    cluster_user "$CLUSTER_DIR/metrics-server.kubeconfig" metrics-server system:masters
    for number in $(seq "$1"); do
        cluster_user "$CLUSTER_DIR/node$number.kubeconfig" "system:node:node$number" system:nodes
    done
}

cluster_user() { # KUBECONFIG USER [GROUP]
    local token
    token=$(openssl rand -hex 16)
    echo "$token,$2,$2,${3:-}" >>"$CLUSTER_DIR/pki/tokens.csv"
    (
        umask 077
        cat >"$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: joey, cluster: {server: "$CLUSTER_API", certificate-authority: $CLUSTER_DIR/pki/ca.crt}}]
users: [{name: "$2", user: {token: $token}}]
contexts: [{name: joey, context: {cluster: joey, user: "$2"}}]
current-context: joey
YAML
    )
}

cluster_control_plane_start() {
    local pki=$CLUSTER_DIR/pki
    # A cluster that is gone when its machine is needs no flush to the disk.
    cluster_spawn etcd "$(cluster_tool etcd etcd)" --data-dir "$NODE_DATA/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --log-level warn
    cluster_spawn apiserver "$(cluster_tool kubernetes kube-apiserver)" \
        --etcd-servers http://127.0.0.1:2379 --advertise-address 192.0.2.1 --secure-port 6443 \
        --service-cluster-ip-range "$CLUSTER_SERVICES" --allow-privileged \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
        --client-ca-file "$pki/ca.crt" --token-auth-file "$pki/tokens.csv" \
        --kubelet-client-certificate "$pki/kubelet-client.crt" \
        --kubelet-client-key "$pki/kubelet-client.key" --kubelet-preferred-address-types InternalIP \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-signing-key-file "$pki/service-accounts.key" \
        --service-account-key-file "$pki/service-accounts.key" \
        --proxy-client-cert-file "$pki/front-proxy.crt" --proxy-client-key-file "$pki/front-proxy.key" \
        --requestheader-client-ca-file "$pki/ca.crt" --requestheader-allowed-names front-proxy-client \
        --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
        --requestheader-extra-headers-prefix X-Remote-Extra- --enable-aggregator-routing
}

cluster_control_plane_await() {
    local pki=$CLUSTER_DIR/pki
    cluster_await "the API server did not become ready" "$(<"$CLUSTER_DIR/pids/apiserver")" 60 \
        cluster_kubectl get --raw /readyz
    cluster_on node1
    cluster_spawn controller-manager "$(cluster_tool kubernetes kube-controller-manager)" \
        --kubeconfig "$CLUSTER_DIR/kube-controller-manager.kubeconfig" --leader-elect=false \
        --use-service-account-credentials --root-ca-file "$pki/ca.crt" \
        --service-account-private-key-file "$pki/service-accounts.key" \
        --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
        --authentication-kubeconfig "$CLUSTER_DIR/kube-controller-manager.kubeconfig" \
        --authorization-kubeconfig "$CLUSTER_DIR/kube-controller-manager.kubeconfig"
    cluster_spawn scheduler "$(cluster_tool kubernetes kube-scheduler)" \
        --kubeconfig "$CLUSTER_DIR/kube-scheduler.kubeconfig" --leader-elect=false \
        --authentication-kubeconfig "$CLUSTER_DIR/kube-scheduler.kubeconfig" \
        --authorization-kubeconfig "$CLUSTER_DIR/kube-scheduler.kubeconfig"
    cluster_name_server_start
}

# At the first node's address, for the names of Services and pods; no others.
cluster_name_server_start() {
    cat >"$CLUSTER_DIR/Corefile" <<EOF
.:53 {
    bind $CLUSTER_DNS
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $CLUSTER_DIR/coredns.kubeconfig joey
        pods insecure
    }
    loadbalance
}
EOF
    cluster_spawn coredns "$(cluster_tool coredns coredns)" -conf "$CLUSTER_DIR/Corefile"
}

cluster_proxy_start() { # NODE
    # The limits of connection tracking belong to the machine, not to a network namespace.
    cluster_spawn "$1-kube-proxy" "$(cluster_tool kubernetes kube-proxy)" \
        --kubeconfig "$CLUSTER_DIR/kube-proxy.kubeconfig" --hostname-override "$1" \
        --proxy-mode "${CLUSTER_PROXY_MODE:-iptables}" --cluster-cidr "$CLUSTER_PODS" \
        --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 \
        --conntrack-tcp-timeout-close-wait 0
}

# What answers `kubectl top`; it asks the kubelets every ten seconds.
cluster_metrics_server_start() {
    cluster_on node1
    cluster_spawn metrics-server "$(cluster_tool metrics-server metrics-server)" --secure-port 4443 \
        --kubeconfig "$CLUSTER_DIR/metrics-server.kubeconfig" \
        --authentication-kubeconfig "$CLUSTER_DIR/metrics-server.kubeconfig" \
        --authorization-kubeconfig "$CLUSTER_DIR/metrics-server.kubeconfig" \
        --cert-dir "$NODE_DIR/tmp/metrics-server" --metric-resolution 10s --kubelet-request-timeout 5s \
        --kubelet-insecure-tls --kubelet-preferred-address-types InternalIP
    cluster_kubectl create -f - >/dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {ports: [{port: 443, targetPort: 4443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
endpoints: [{addresses: ["192.0.2.1"]}]
ports: [{port: 4443}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  service: {name: metrics-server, namespace: kube-system}
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
YAML
}
