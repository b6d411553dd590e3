"""run.py [--all] [NAME...]: runs the checks, or those whose names contain a NAME, on $CLUSTER_DIR.

Slow ones are run with --all, or when they are named.
Prints "ok NAME (seconds)" or "FAIL NAME: why", and ends with "kubernetes: N passed, N failed".
"""

import collections
import re
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import kube
import resources
import restarts
import settings
import static_pods
import streams
import workloads

TOGETHER = [*streams.CHECKS, *workloads.CHECKS, *resources.CHECKS, *static_pods.CHECKS]
ALONE = [*restarts.CHECKS, *settings.CHECKS]
AT_ONCE = 6


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


def runtime_errors_do_not_repeat(cluster):
    """The kubelets' logs, but for what restarts of the runtime and probes' time-outs explain."""
    seen = collections.Counter()
    for path in cluster.dir.glob("log/*-kubelet.log"):
        for line in path.read_text(errors="replace").splitlines():
            found = re.match(r"E.* remote_(?:runtime|image)\.go:\d+\] (.*)", line)
            if found and not re.search("code = (Unavailable|Canceled|DeadlineExceeded)", line):
                seen[re.sub(r" \(operation \w+\)", "", found[1])] += 1
    for line, count in seen.items():
        # A pod whose handler is unknown is tried again and again.
        kube.expect(count <= 3 or "no-such-handler" in line, f"{count} times: {line[:400]}")


def main():
    cluster = kube.Cluster()
    wanted = [word for word in sys.argv[1:] if word != "--all"]
    alone = ALONE + (settings.SLOW if len(sys.argv) > 1 else [])

    def chosen(checks):
        return [check for check in checks
                if not wanted or any(word in check.__name__ for word in wanted)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda check: run(cluster, check), chosen(TOGETHER)))
    results += [run(cluster, check) for check in chosen(alone)]
    names = {check.__name__.replace("_", "-") for check in chosen([*TOGETHER, *alone])}
    for last in (lambda: everything_is_gone(cluster, names),
                 lambda: runtime_errors_do_not_repeat(cluster)):
        try:
            last()
            results.append(True)
        except kube.Failed as failed:
            print(f"FAIL at the end: {failed}")
            results.append(False)
    print(f"kubernetes: {sum(results)} passed, {len(results) - sum(results)} failed, 0 skipped")
    return 0 if all(results) and names else 1


if __name__ == "__main__":
    sys.exit(main())
