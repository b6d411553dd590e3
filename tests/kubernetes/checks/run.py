"""run.py [NAME...]: runs the checks (all, or those whose names contain a NAME) on $CLUSTER_DIR.

Prints "ok NAME (seconds)" or "FAIL NAME: why", and ends with "kubernetes: N passed, N failed".
"""

import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import kube
import resources
import restarts
import static_pods
import streams
import workloads

TOGETHER = [*streams.CHECKS, *workloads.CHECKS, *resources.CHECKS, *static_pods.CHECKS]
ALONE = restarts.CHECKS
AT_ONCE = 4


def run(cluster, check):
    """Whether the check held, in a namespace that is deleted afterwards."""
    name = check.__name__.replace("_", "-")
    space = cluster.namespace(name)
    began, problem = time.monotonic(), ""
    try:
        space.make()
        check(cluster, space)
    except kube.Failed as failed:
        problem = str(failed)
    except Exception:  # whatever it is, the others go on
        problem = traceback.format_exc()
    took = time.monotonic() - began
    space.try_kubectl("delete", "namespace", name, "--wait=false")
    print(f"FAIL {name} ({took:.1f} s): {problem}" if problem else f"ok   {name} ({took:.1f} s)",
          flush=True)
    return not problem


def everything_is_gone(cluster, names):
    """The checks' namespaces end, so all their pods do."""
    space = cluster.namespace("default")

    def left():
        found = {one["metadata"]["name"] for one in space.get("namespaces")["items"]}
        return found & names
    kube.eventually("all namespaces are gone", lambda: not left())
    for node in cluster.nodes:
        kube.eventually(f"no container is left on {node}",
                        lambda: not cluster.crictl(node, "ps", "--all", "--quiet").strip())


def main():
    cluster, wanted = kube.Cluster(), sys.argv[1:]

    def chosen(checks):
        return [check for check in checks
                if not wanted or any(word in check.__name__ for word in wanted)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda check: run(cluster, check), chosen(TOGETHER)))
    results += [run(cluster, check) for check in chosen(ALONE)]
    names = {check.__name__.replace("_", "-") for check in chosen([*TOGETHER, *ALONE])}
    try:
        everything_is_gone(cluster, names)
        results.append(True)
    except kube.Failed as failed:
        print(f"FAIL everything-is-gone: {failed}")
        results.append(False)
    print(f"kubernetes: {sum(results)} passed, {len(results) - sum(results)} failed, 0 skipped")
    return 0 if all(results) and len(results) > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
