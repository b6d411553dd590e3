"""Pods from files in the kubelet's manifest folder, which no controller or scheduler has seen."""

import gzip
import json
import socket
import tempfile
import time
import urllib.request
from pathlib import Path

from kube import AGNHOST, container, eventually, expect, pod

NODE = "node1"
ADDRESS = "192.0.2.1"


class StaticPod:
    """A manifest, for as long as the block lasts; the API server shows its mirror."""

    def __init__(self, cluster, space, made):
        made["metadata"]["namespace"] = space.name
        self.name = f"{made['metadata']['name']}-{NODE}"
        self._space, self._made = space, made
        folder = cluster.node_dir(NODE) / "manifests"
        self._file = folder / f"{space.name}-{made['metadata']['name']}.json"

    def __enter__(self):
        # The kubelet may look at any moment, and skips names with a dot before.
        part = self._file.with_name(f".{self._file.name}")
        part.write_text(json.dumps(self._made))
        part.rename(self._file)
        eventually("the mirror pod is there", lambda: self._space.try_kubectl(
            "get", "pod", self.name).returncode == 0)
        return self

    def __exit__(self, *_):
        self._file.unlink(missing_ok=True)

    def remove(self):
        self._file.unlink()
        eventually("the static pod is gone", lambda: self._space.try_kubectl(
            "get", "pod", self.name).returncode != 0)


def all_parts_of_a_pod(cluster, space):
    """Init container, sidecar, all kinds of probes, hooks, volumes, a host port, a graceful end."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told")
        shared = [{"name": "data", "mountPath": "/data"}, {"name": "host", "mountPath": "/host"}]
        every = {"periodSeconds": 1, "failureThreshold": 60}
        server = container(
            "server", AGNHOST, ["/agnhost", "netexec", "--http-port=8090"],
            ports=[{"containerPort": 8090, "hostPort": 18080}], volumeMounts=shared,
            startupProbe={"exec": {"command": ["cat", "/data/from-init"]}, **every},
            readinessProbe={"httpGet": {"path": "/healthz", "port": 8090}, **every},
            livenessProbe={"tcpSocket": {"port": 8090}, **every})
        health = container("health", AGNHOST, ["/agnhost", "grpc-health-checking", "--port=5001"],
                           readinessProbe={"grpc": {"port": 5001}, **every})
        graceful = container(
            "graceful", command=("trap 'sleep 1; echo term >>/host/told; exit 0' TERM; "
                                 "while :; do sleep 0.1; done"), volumeMounts=shared,
            lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "echo start >>/host/told"]}},
                       "preStop": {"exec": {"command": ["sh", "-c", "echo stop >>/host/told"]}}})
        made = pod("parts", server, health, graceful, terminationGracePeriodSeconds=20,
                   initContainers=[
                       container("sidecar", command=("trap 'exit 0' TERM; touch /data/sidecar; "
                                                    "while :; do sleep 0.1; done"),
                                 restartPolicy="Always", volumeMounts=shared,
                                 startupProbe={"exec": {"command": ["cat", "/data/sidecar"]}, **every}),
                       container("init", command="cat /data/sidecar && echo made >/data/from-init",
                                 volumeMounts=shared)],
                   volumes=[{"name": "data", "emptyDir": {}},
                            {"name": "host", "hostPath": {"path": folder}}])
        with StaticPod(cluster, space, made) as static:
            space.wait_ready(static.name)
            with urllib.request.urlopen(f"http://{ADDRESS}:18080/hostname", timeout=5) as answer:
                expect(answer.read().decode() == static.name, "what answers on the host port")
            restarts = [one["restartCount"] for one in space.status(static.name)["containerStatuses"]]
            expect(restarts == [0, 0, 0], f"restarts {restarts}")
            began = time.monotonic()
            static.remove()
            took = time.monotonic() - began
        expect(told.read_text().split() == ["start", "stop", "term"], f"{told.read_text()!r}")
        expect(took < 15, f"a pod that ends by itself took {took:.0f} s")


def host_network_and_back_off(cluster, space):
    failing = container("failing", command="exit 4")
    with StaticPod(cluster, space, pod("failing", failing)) as static:
        eventually("it is started again", lambda: space.container_status(
            static.name).get("restartCount", 0) >= 2)
        # The status may stay that of the last end until the next synchronization.
        space.wait_event("BackOff", "restarting failed container failing")
    server = container("server", AGNHOST, ["/agnhost", "netexec", "--http-port=18081"])
    with StaticPod(cluster, space, pod("onhost", server, hostNetwork=True)) as static:
        space.wait_ready(static.name)
        expect(space.status(static.name)["podIP"] == ADDRESS, "the address of a pod on the host")

        def answers():
            try:
                with urllib.request.urlopen(f"http://{ADDRESS}:18081/hostname", timeout=5) as answer:
                    return answer.read().decode() == socket.gethostname()
            except OSError:
                return False
        eventually("it answers with the machine's name", answers)
        static.remove()


def rotated_logs_lose_nothing(cluster, space):
    """More than the kubelet's containerLogMaxSize is written; every line is in one of the files."""
    lines = 250000
    talker = container(command=(
        f"i=0; while [ $i -lt {lines} ]; do echo line $i of a container that writes much; "
        "i=$((i+1)); done; echo last; exec sleep 100000"))
    space.run(pod("talker", talker, nodeName=NODE))
    uid = space.get("pod", "talker")["metadata"]["uid"]
    folder = next(Path(cluster.node_variable(NODE, "NODE_DATA")).glob(f"pod-logs/*_{uid}/main"))

    def seen():
        text = ""
        for path in sorted(folder.iterdir(), key=lambda one: (one.name == "0.log", one.name)):
            # The kubelet compresses all but the last two.
            with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as file:
                for line in file:
                    _, _, tag, content = line.split(" ", 3)
                    # A line may be told in parts.
                    text += content.removesuffix("\n") if tag == "P" else content
        return text.splitlines()
    eventually("all is written",
               lambda: space.kubectl("logs", "--tail=1", "talker") == "last\n")
    eventually("the log was rotated", lambda: len(list(folder.iterdir())) > 1)
    wanted = [f"line {number} of a container that writes much" for number in range(lines)]
    expect(seen() == [*wanted, "last"], f"{len(seen())} of {lines + 1} lines")


CHECKS = [all_parts_of_a_pod, host_network_and_back_off, rotated_logs_lose_nothing]
