"""Limits, and what a pod is told of itself."""

import json

from kube import AGNHOST, container, eventually, expect, pod

MIB = 1 << 20


def limits_of(space, name):
    """CPU quota in thousandths and memory in MiB, as the container's cgroup has them."""
    text = space.shell(name, """
        cd /sys/fs/cgroup
        if [ -e cgroup.controllers ]; then
            read quota period <cpu.max; read memory <memory.max
        else
            read quota <cpu/cpu.cfs_quota_us; read period <cpu/cpu.cfs_period_us
            read memory <memory/memory.limit_in_bytes
        fi
        echo $((quota * 1000 / period)) $((memory / 1048576))""")
    return tuple(map(int, text.split()))


def resize_in_place(cluster, space):
    def sized(cpu, memory):
        both = {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}
        return {"requests": both, "limits": both}
    space.run(pod("sized", container(resources=sized(100, 64))))
    expect(limits_of(space, "sized") == (100, 64), f"at first {limits_of(space, 'sized')}")
    first = space.container_status("sized")
    for cpu, memory in ((200, 128), (150, 96)):
        patch = {"spec": {"containers": [{"name": "main", "resources": sized(cpu, memory)}]}}
        space.kubectl("patch", "pod", "sized", "--subresource=resize", "--patch",
                      str(patch).replace("'", '"'))
        eventually(f"the cgroup has {cpu} and {memory}",
                   lambda: limits_of(space, "sized") == (cpu, memory))
        eventually("the status tells them", lambda: space.container_status("sized").get(
            "resources", {}).get("limits") == {"cpu": f"{cpu}m", "memory": f"{memory}Mi"})
    last = space.container_status("sized")
    expect((last["containerID"], last["restartCount"]) == (first["containerID"], 0),
           "the container was restarted by the resize")


def memory_hog_is_oom_killed(cluster, space):
    space.create(pod("hog", container(command=["dd", "if=/dev/zero", "of=/dev/null", "bs=200M"],
                                         resources={"limits": {"memory": "32Mi"}}),
                     restartPolicy="Never"))
    space.wait_phase("hog", "Failed")
    ended = space.container_status("hog")["state"]["terminated"]
    expect((ended["reason"], ended["exitCode"]) == ("OOMKilled", 137), f"it ended as {ended}")


def usage_of(space, node):
    """What the node's summary says of the namespace's first pod; None as long as it has none."""
    done = space.try_kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary")
    if done.returncode != 0:
        return None
    return next((found for found in json.loads(done.stdout)["pods"]
                 if found["podRef"]["namespace"] == space.name and found.get("containers")), None)


def usage_is_reported(cluster, space):
    space.run(pod("busy", container(command="while :; do :; done",
                                    resources={"limits": {"cpu": "100m"}})))
    node = space.get("pod", "busy")["spec"]["nodeName"]

    def used():
        found = usage_of(space, node)
        one = found["containers"][0] if found else {}
        return one.get("memory", {}).get("workingSetBytes") and one["cpu"].get("usageNanoCores")
    cores = eventually("the summary has the pod", used) / 1e6
    expect(cores < 130, f"of 100 thousandths of a CPU it uses {cores}")
    eventually("the metrics have the container", lambda: f'namespace="{space.name}"' in
               space.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource"))

    def on_top():
        done = space.try_kubectl("top", "pod", "--no-headers")
        found = done.stdout.decode().split()
        # "busy 100m 1Mi", from two looks at least
        return found and found[0] == "busy" and int(found[1].removesuffix("m")) > 50
    eventually("kubectl top shows it at work", on_top)


def pod_knows_itself(cluster, space):
    def field(name, path):
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
    space.run(pod("self", container(
        env=[field("NAME", "metadata.name"), field("ADDRESS", "status.podIP"),
             field("NODE", "spec.nodeName"),
             {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}],
        resources={"limits": {"memory": "48Mi"}},
        volumeMounts=[{"name": "about", "mountPath": "/about"}]),
        hostname="chosen", volumes=[{"name": "about", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]))
    status = space.get("pod", "self")
    seen = space.shell("self", "echo $NAME $ADDRESS $NODE $LIMIT $(hostname); cat /about/labels")
    wanted = f"self {status['status']['podIP']} {status['spec']['nodeName']} {48 * MIB} chosen"
    expect(seen.splitlines() == [wanted, 'app="self"'], f"it knows {seen}")
    space.kubectl("label", "pod", "self", "round=two")
    eventually("the labels' file follows",
               lambda: 'round="two"' in space.shell("self", "cat /about/labels"), 120)


def mounts_and_identities(cluster, space):
    space.run(pod("mounts", container(
        image=AGNHOST, command=["/agnhost", "pause"],
        securityContext={"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
                         "capabilities": {"drop": ["ALL"]}},
        volumeMounts=[{"name": "scratch", "mountPath": "/scratch"},
                      {"name": "image", "mountPath": "/image"},
                      {"name": "scratch", "mountPath": "/part", "subPath": "deep"}]),
        securityContext={"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456,
                         "supplementalGroups": [4567]},
        volumes=[{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
                 {"name": "image", "image": {"reference":
                                             "registry.k8s.io/e2e-test-images/kitten:1.8"}}]))
    seen = space.shell("mounts", """
        id -u; id -g; id -G; touch /here 2>/dev/null || echo read-only
        touch /image/here 2>/dev/null || echo read-only; test -e /image/kitten.jpg && echo kitten
        echo text >/part/file; cat /scratch/deep/file; stat -c %g /scratch/deep/file
        grep -c CapEff:.0000000000000000 /proc/self/status""").split("\n")
    groups = set(seen[2].split())
    expect(seen[:2] == ["1234", "2345"] and {"2345", "3456", "4567"} == groups, f"ids: {seen[:3]}")
    expect(seen[3:] == ["read-only", "read-only", "kitten", "text", "3456", "1"], f"{seen[3:]}")


def user_namespace_of_a_pod(cluster, space):
    # Its token would be on a tmpfs, which no kernel before Linux 6.3 maps.
    space.run(pod("mapped", container(volumeMounts=[{"name": "data", "mountPath": "/data"}]),
                  hostUsers=False, automountServiceAccountToken=False, volumes=[{"name": "data", "emptyDir": {}}]))
    first = space.shell("mapped", "touch /data/file; stat -c %u /data/file; cat /proc/self/uid_map")
    owner, line = first.split("\n")
    inside, outside, _ = map(int, line.split())
    expect(owner == "0" and inside == 0 and outside >= 65536, f"the mapping: {first}")


CHECKS = [resize_in_place, memory_hog_is_oom_killed, usage_is_reported, pod_knows_itself,
          mounts_and_identities, user_namespace_of_a_pod]
