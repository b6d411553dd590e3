"""What controllers, the scheduler and kube-proxy make of pods, on two nodes."""

from kube import AGNHOST, PAUSE, container, eventually, expect, pod

SERVER = container("server", AGNHOST, ["/agnhost", "netexec", "--http-port=8080"],
                   readinessProbe={"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1})


def on(node, made):
    made["spec"]["nodeName"] = node
    return made


def workload(kind, name, replicas, containers, group="apps/v1", **spec):
    labels = {"app": name}
    spec = {"selector": {"matchLabels": labels}, **spec, "template": {
        "metadata": {"labels": labels},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 1}}}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}


def service(name, port=80, target=8080, **spec):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}],
                     **spec}}


def fetch(space, source, address, path="/hostname"):
    done = space.try_kubectl("exec", source, "--", "curl", "--silent", "--show-error",
                             "--max-time", "3", f"http://{address}{path}")
    return done.stdout.decode() if done.returncode == 0 else ""


def pods_of_two_nodes_reach_each_other(cluster, space):
    space.run(on("node1", pod("here", SERVER)), on("node2", pod("there", SERVER)))
    address = {name: space.status(name)["podIP"] for name in ("here", "there")}
    for source, target in (("here", "there"), ("there", "here")):
        expect(fetch(space, source, f"{address[target]}:8080") == target,
               f"{source} does not reach {target}")
        seen = fetch(space, source, f"{address[target]}:8080", "/clientip").rpartition(":")[0]
        expect(seen == address[source], f"{target} sees {source} as {seen}")


def deployment_rolls_behind_a_service(cluster, space):
    space.create(workload("Deployment", "web", 4, [SERVER]),
                 service("web", type="NodePort"))
    space.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    space.run(pod("client", SERVER))
    address = space.get("service", "web")["spec"]
    names = {one["metadata"]["name"] for one in space.pods("app=web")}
    seen = set()

    def all_seen():
        seen.add(fetch(space, "client", address["clusterIP"]))
        return names <= seen
    eventually("every pod answers behind the Service", all_seen)
    for name in ("web", f"web.{space.name}.svc.cluster.local"):
        expect(fetch(space, "client", name) in names, f"the Service by the name {name}")
    # Through any node, also when the way leads back to where it came from.
    port = address["ports"][0]["nodePort"]
    for node in cluster.nodes:
        through = f"192.0.2.{node.removeprefix('node')}:{port}"
        answers = [fetch(space, "client", through) for _ in range(8)]
        expect(set(answers) <= names, f"the node port of {node} answers {answers}")
    # A pod behind the Service reaches itself through it, too.
    one = sorted(names)[0]
    eventually("a pod reaches itself", lambda: fetch(space, one, address["clusterIP"]) == one)

    space.kubectl("set", "env", "deployment/web", "ROUND=two")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    eventually("only new pods are left", lambda: len(space.pods("app=web")) == 4)
    names = {one["metadata"]["name"] for one in space.pods("app=web")}
    eventually("new pods answer", lambda: fetch(space, "client", address["clusterIP"]) in names)


def statefulset_keeps_names_and_order(cluster, space):
    space.create(service("db", clusterIP="None"),
                 workload("StatefulSet", "db", 3, [SERVER], serviceName="db"))
    space.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
    eventually("a pod is found by its name",
               lambda: fetch(space, "db-0", "db-2.db:8080") == "db-2")
    started = [space.status(f"db-{number}")["startTime"] for number in range(3)]
    expect(started == sorted(started), f"started at {started}")
    expect(space.shell("db-1", "hostname", "server") == "db-1", "the hostname")
    before = space.get("pod", "db-1")["metadata"]["uid"]
    space.delete("pod", "db-1")
    eventually("the pod is made again", lambda: space.try_kubectl(
        "get", "pod", "db-1", "-o", "jsonpath={.metadata.uid}").stdout.decode() not in ("", before))
    space.wait_ready("db-1")


def daemonset_is_on_every_node(cluster, space):
    space.create(workload("DaemonSet", "agent", None, [container(image=PAUSE, command=["/pause"])]))
    space.kubectl("rollout", "status", "daemonset/agent", "--timeout=90s")
    nodes = sorted(one["spec"]["nodeName"] for one in space.pods("app=agent"))
    expect(nodes == cluster.nodes, f"it is on {nodes}")


def jobs_complete_and_give_up(cluster, space):
    def job(name, command, **spec):
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                "spec": {**spec, "template": {"metadata": {"labels": {"app": name}}, "spec": {
                    "restartPolicy": "Never", "containers": [container(command=command)]}}}}
    space.create(job("sums", "echo $((6 * 7))", completions=6, parallelism=3),
                 job("never", "exit 3", backoffLimit=1))
    space.kubectl("wait", "--for=condition=Complete", "job/sums", "--timeout=90s")
    for one in space.pods("app=sums"):
        expect(space.kubectl("logs", one["metadata"]["name"]) == "42\n", "a job's output")
    space.kubectl("wait", "--for=condition=Failed", "job/never", "--timeout=90s")
    codes = [one["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
             for one in space.pods("app=never")]
    expect(codes == [3, 3], f"the exit codes of the failed job: {codes}")


def important_pod_displaces_another(cluster, space):
    # Two of these do not fit in a node, one does.
    processors = int(space.get("nodes")["items"][0]["status"]["allocatable"]["cpu"])

    def needs(name, **spec):
        return pod(name, container(resources={"requests": {"cpu": f"{600 * processors}m"}}), **spec)
    names = [f"{space.name}-low", f"{space.name}-high"]
    space.create(*({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                    "metadata": {"name": name}, "value": 1000 * value}
                   for value, name in enumerate(names)))
    try:
        space.run(*(needs(f"low-{node}", priorityClassName=names[0]) for node in cluster.nodes))
        space.run(needs("high", priorityClassName=names[1]))
        eventually("one of the others is gone", lambda: len(space.pods()) == len(cluster.nodes))
        expect("running" in space.container_status("high")["state"], "the important pod runs")
    finally:
        space.kubectl("delete", "priorityclass", *names)


def runtime_class_chooses_a_handler(cluster, space):
    names = {"known": f"{space.name}-known", "unknown": f"{space.name}-unknown"}
    handlers = {"known": "runc", "unknown": "no-such-handler"}
    space.create(*({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
                    "metadata": {"name": names[key]}, "handler": handlers[key]} for key in names))
    try:
        space.run(pod("known", runtimeClassName=names["known"]))
        space.create(pod("unknown", runtimeClassName=names["unknown"]))
        space.wait_event("FailedCreatePodSandBox", "no-such-handler")
    finally:
        space.kubectl("delete", "runtimeclass", *names.values())


CHECKS = [pods_of_two_nodes_reach_each_other, deployment_rolls_behind_a_service,
          statefulset_keeps_names_and_order, daemonset_is_on_every_node,
          jobs_complete_and_give_up, important_pod_displaces_another,
          runtime_class_chooses_a_handler]
