"""Settings of the kubelet that change what it asks of the runtime. Each of these runs alone."""

import contextlib
import json
import re
import time

from kube import AGNHOST, container, eventually, expect, pod
from resources import usage_of

NODE = "node2"


@contextlib.contextmanager
def feature_gates(cluster, **gates):
    """The node's kubelet with these gates, for as long as the block lasts."""
    config = cluster.node_dir(NODE) / "kubelet.yaml"
    before = config.read_text()
    config.write_text(f"{before}\nfeatureGates: {json.dumps(gates)}\n")
    cluster.restart(NODE, "kubelet")
    try:
        yield
    finally:
        config.write_text(before)
        cluster.restart(NODE, "kubelet")


def statistics_of_the_runtime_agree(cluster, space):
    """With PodAndContainerStatsFromCRI the figures are the runtime's: the same, and the network's."""
    space.run(pod("steady", container(command=(
        "head -c 24000000 /dev/zero >/dev/shm/held; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; "
        "touch /tmp/done; exec sleep 100000")), nodeName=NODE))
    eventually("its work is done", lambda: space.try_kubectl(
        "exec", "steady", "--", "test", "-e", "/tmp/done").returncode == 0)

    def figures(wanted):
        def look():
            found = usage_of(space, NODE)
            if not found or (wanted and not found.get("network")):
                return None
            one = found["containers"][0]
            ready = (one.get("cpu", {}).get("usageCoreNanoSeconds") and one.get("memory")
                     and one.get("rootfs", {}).get("usedBytes"))
            return found if ready else None
        found = eventually("the summary has the pod", look)
        one = found["containers"][0]
        return {"cpu": one["cpu"]["usageCoreNanoSeconds"], "memory": one["memory"]["workingSetBytes"],
                "rootfs": one["rootfs"]["usedBytes"]}, found.get("network")
    cadvisor, _ = figures(wanted=False)
    with feature_gates(cluster, PodAndContainerStatsFromCRI=True):
        own, network = figures(wanted=True)
        expect(network.get("name") == "eth0" and "rxBytes" in network, f"its network: {network}")
        eventually("metrics of containers have the pod's labels", lambda: any(
            f'namespace="{space.name}"' in line and 'container="main"' in line
            for line in space.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/metrics/cadvisor")
            .splitlines() if line.startswith("container_cpu_usage_seconds_total")))
    for what, value in own.items():
        expect(abs(value - cadvisor[what]) <= 0.2 * value + 100_000,
               f"{what}: the runtime says {value}, cAdvisor {cadvisor[what]}")


def evented_pleg(cluster, space):
    """The kubelet is told of starts and ends by events, and looks by itself only seldom."""
    with feature_gates(cluster, EventedPLEG=True):
        space.run(*(pod(f"many-{number}", nodeName=NODE) for number in range(5)))
        began = time.monotonic()
        space.create(pod("short", container(command="exit 0"), nodeName=NODE, restartPolicy="Never"))
        space.wait_phase("short", "Succeeded", 30)
        took = time.monotonic() - began
        expect(took < 15, f"that a container has ended was noticed after {took:.0f} s")
        # Without a stream of events it would look by itself, as without the gate.
        metrics = space.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/metrics")
        expect(re.search(r"^kubelet_evented_pleg_connection_latency_seconds_count [1-9]", metrics, re.M),
               "the kubelet gets no events")
        space.delete("pod", "--all")


def private_image_needs_its_secret(cluster, space):
    """An image that is on the node already is not for pods that could not have pulled it."""
    space.run(pod("registry", container(
        image=AGNHOST, command=["/agnhost", "fake-registry-server", "--private"],
        readinessProbe={"tcpSocket": {"port": 5000}, "periodSeconds": 1}),
        hostNetwork=True, nodeName=NODE))
    space.kubectl("create", "secret", "docker-registry", "pull", "--docker-server=localhost:5000",
                  "--docker-username=user", "--docker-password=password")
    private = container(image="localhost:5000/pause:testing", command=["/pause"],
                        imagePullPolicy="IfNotPresent")
    space.run(pod("allowed", private, nodeName=NODE, imagePullSecrets=[{"name": "pull"}]))
    space.create(pod("refused", private, nodeName=NODE))
    eventually("the pod without the secret is refused", lambda: space.container_status(
        "refused").get("state", {}).get("waiting", {}).get("reason") in
        ("ErrImagePull", "ImagePullBackOff"))


def lost_node(cluster, space):
    """Pods of a node whose kubelet is gone are made again on the other one."""
    short = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute",
              "tolerationSeconds": 1} for key in ("unreachable", "not-ready")]
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container()], "tolerations": short}
    space.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "moves"},
                  "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "moves"}}, "template": {
                      "metadata": {"labels": {"app": "moves"}}, "spec": spec}}})
    space.kubectl("rollout", "status", "deployment/moves", "--timeout=90s")
    cluster.restart(NODE, "kubelet", "--kill", "--stop")
    try:
        eventually("four pods run on the other node", lambda: sum(
            one["spec"]["nodeName"] != NODE and one["status"]["phase"] == "Running"
            for one in space.pods("app=moves")) == 4, 180)
    finally:
        cluster.restart(NODE, "kubelet")
    space.kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=60s")
    eventually("what was left on the lost node is gone",
               lambda: len(space.pods("app=moves")) == 4)


CHECKS = [statistics_of_the_runtime_agree, evented_pleg, private_image_needs_its_secret]
# Kubernetes waits for almost a minute before it gives a node up.
SLOW = [lost_node]
