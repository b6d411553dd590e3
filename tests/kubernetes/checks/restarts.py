"""Kubelet and runtime restarted and killed in the middle of things. Each of these runs alone."""

import json
import threading
import time

from kube import container, eventually, expect, pod


def here(name, *containers, **spec):
    return pod(name, *containers, nodeName="node1", **spec)


def identity(space, name):
    status = space.container_status(name)
    return status.get("containerID"), status.get("restartCount")


def still_the_same(cluster, space, restart):
    """Pods outlive a restart of what runs them: same containers, and they can be worked with."""
    space.run(here("keeps", container(command="i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done")))
    before = identity(space, "keeps")
    count = int(space.kubectl("logs", "--tail=1", "keeps"))
    restart()
    eventually("exec works again", lambda: space.try_kubectl(
        "exec", "keeps", "--", "true").returncode == 0)
    space.run(here("fresh"))
    expect(identity(space, "keeps") == before, f"{identity(space, 'keeps')} was {before}")
    lines = [int(line) for line in space.kubectl("logs", "keeps").split()]
    expect(lines == list(range(len(lines))) and lines[-1] > count,
           f"of the log's lines up to {lines[-1]} there are {len(lines)}")
    space.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")


def kubelet_is_restarted(cluster, space):
    still_the_same(cluster, space, lambda: cluster.restart("node1", "kubelet"))


def kubelet_is_killed(cluster, space):
    still_the_same(cluster, space, lambda: cluster.restart("node1", "kubelet", "--kill"))


def runtime_is_restarted(cluster, space):
    still_the_same(cluster, space, lambda: cluster.restart("node1", "runtime"))


def runtime_is_killed(cluster, space):
    still_the_same(cluster, space, lambda: cluster.restart("node1", "runtime", "--kill"))


def sandboxes(cluster, space):
    pods = json.loads(cluster.crictl("node1", "pods", "--namespace", space.name, "--state", "ready",
                                     "--output", "json"))["items"]
    return sorted(one["metadata"]["name"] for one in pods)


def killed_while_pods_start_and_end(cluster, space):
    """Both are killed while ten pods start, and again while they end."""
    names = [f"many-{number}" for number in range(10)]
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    made = [here(name, container(readinessProbe=probe)) for name in names]
    creating = threading.Thread(target=space.create, args=made)
    creating.start()
    time.sleep(0.6)
    cluster.restart("node1", "runtime", "--kill")
    time.sleep(0.5)
    cluster.restart("node1", "kubelet", "--kill")
    creating.join()
    space.wait_ready(*names)
    expect(sandboxes(cluster, space) == names, f"pods of the runtime: {sandboxes(cluster, space)}")

    space.kubectl("delete", "pod", "--all", "--wait=false")
    time.sleep(0.3)
    cluster.restart("node1", "runtime", "--kill")
    cluster.restart("node1", "kubelet", "--kill")
    eventually("all pods are gone", lambda: not space.pods())
    eventually("nothing is left in the runtime", lambda: not sandboxes(cluster, space))


def container_ends_while_the_runtime_is_away(cluster, space):
    space.run(here("ends", container(command="sleep 4; exit 9"), restartPolicy="Never"))
    cluster.restart("node1", "runtime", "--kill", "--stop")
    time.sleep(5)
    cluster.restart("node1", "runtime")
    space.wait_phase("ends", "Failed")
    ended = space.container_status("ends")["state"]["terminated"]
    expect(ended["exitCode"] == 9, f"it ended as {ended}")


CHECKS = [kubelet_is_restarted, kubelet_is_killed, runtime_is_restarted, runtime_is_killed,
          killed_while_pods_start_and_end, container_ends_while_the_runtime_is_away]
