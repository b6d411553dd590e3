# Sourced: the configuration of a kubelet without an API server.
#
#   kubelet_config SOCKET MANIFESTS    prints what every node of the tests needs; more may follow
kubelet_config() {
    cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
readOnlyPort: 10255
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$1
staticPodPath: $2
fileCheckFrequency: 1s
syncFrequency: 5s
failSwapOn: false
makeIPTablesUtilChains: false
evictionHard: {memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%"}
YAML
}
