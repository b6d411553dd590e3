"""A cluster as its user sees it: kubectl, objects, waiting."""

import json
import os
import subprocess
import time
from pathlib import Path

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
NGINX = "registry.k8s.io/e2e-test-images/nginx:1.27-0"
PAUSE = "registry.k8s.io/pause:3.10.2"
# Generous: the machine may be busy with other tests.
PATIENCE_SECONDS = 90


class Failed(Exception):
    """A check did not hold; the text says what was seen."""


def expect(holds, what):
    if not holds:
        raise Failed(what)


def eventually(what, test, seconds=PATIENCE_SECONDS):
    """The first true result of the test; its last one is in the failure's text."""
    until = time.monotonic() + seconds
    while not (found := test()):
        if time.monotonic() > until:
            raise Failed(f"not within {seconds} s: {what} (last: {found!r})")
        time.sleep(0.1)
    return found


def container(name="main", image=BUSYBOX, command=None, **more):
    command = command or ["sleep", "100000"]
    command = ["sh", "-c", command] if isinstance(command, str) else command
    made = {"name": name, "image": image, "command": command, **more}
    return {key: value for key, value in made.items() if value is not None}


def pod(name, *containers, labels=None, **spec):
    """A pod that ends at once when it is deleted."""
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name, **(labels or {})}},
            "spec": {"terminationGracePeriodSeconds": 1,
                     "containers": list(containers) or [container()], **spec}}


class Namespace:
    """kubectl in a namespace of a check's own."""

    def __init__(self, kubectl, config, name):
        self._kubectl, self._config, self.name = kubectl, config, name

    def command(self, *args):
        return [self._kubectl, "--kubeconfig", self._config, "--namespace", self.name, *args]

    def try_kubectl(self, *args, data=None, seconds=PATIENCE_SECONDS):
        """The finished process, whatever its exit code."""
        return subprocess.run(self.command(*args), input=data, capture_output=True,
                              timeout=seconds, check=False)

    def kubectl(self, *args, data=None, seconds=PATIENCE_SECONDS):
        done = self.try_kubectl(*args, data=data, seconds=seconds)
        expect(done.returncode == 0,
               f"kubectl {' '.join(args)} ended with {done.returncode}: "
               f"{done.stderr.decode(errors='replace')[-600:]}")
        return done.stdout.decode(errors="replace")

    def spawn(self, *args, **options):
        return subprocess.Popen(self.command(*args), **options)

    def make(self):
        self.kubectl("create", "namespace", self.name)
        # Pods are refused until it is there.
        eventually("the namespace's service account",
                   lambda: self.try_kubectl("get", "serviceaccount", "default").returncode == 0)

    def create(self, *objects):
        everything = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("create", "--filename", "-", data=json.dumps(everything).encode())

    def get(self, *args):
        return json.loads(self.kubectl("get", *args, "--output", "json"))

    def pods(self, selector=""):
        return self.get("pods", "--selector", selector)["items"]

    def status(self, name):
        return self.get("pod", name)["status"]

    def container_status(self, name, index=0):
        return (self.status(name).get("containerStatuses") or [{}] * (index + 1))[index]

    def wait_ready(self, *names, seconds=PATIENCE_SECONDS):
        try:
            self.kubectl("wait", "--for=condition=Ready", f"--timeout={seconds}s",
                         *(f"pod/{name}" for name in names), seconds=seconds + 10)
        except Failed as failed:
            raise Failed(f"{failed}; {self.events()}") from None

    def wait_phase(self, name, phase, seconds=PATIENCE_SECONDS):
        eventually(f"pod {name} is {phase}",
                   lambda: self.status(name).get("phase") == phase or None, seconds)

    def run(self, *pods):
        """Creates pods and waits until they are ready."""
        self.create(*pods)
        self.wait_ready(*(one["metadata"]["name"] for one in pods))

    def delete(self, *args):
        self.kubectl("delete", *args, "--wait=true")

    def exec(self, name, *command, container_name=None, data=None):
        more = ["--container", container_name] if container_name else []
        more += ["--stdin"] if data is not None else []
        return self.kubectl("exec", name, *more, "--", *command, data=data)

    def shell(self, name, script, container_name=None):
        return self.exec(name, "sh", "-c", script, container_name=container_name).strip()

    def events(self):
        found = self.get("events")["items"][-8:]
        return "; ".join(f"{event['reason']}: {event.get('message', '')[:200]}" for event in found
                         if event["type"] != "Normal") or "no warnings"

    def wait_event(self, reason, text):
        def seen():
            return any(event["reason"] == reason and text in event.get("message", "")
                       for event in self.get("events")["items"])
        eventually(f"an event {reason} with {text!r}", seen)


class Cluster:
    """The cluster in $CLUSTER_DIR; checks run in its first node's namespaces."""

    def __init__(self):
        self.dir = Path(os.environ["CLUSTER_DIR"])
        self.here = Path(__file__).resolve().parent.parent
        self.kubectl = os.environ["KUBECTL"]
        self.nodes = sorted(path.name for path in (self.dir / "nodes").iterdir())

    def namespace(self, name):
        return Namespace(self.kubectl, str(self.dir / "kubeconfig"), name)

    def restart(self, node, what, *flags):
        """Ends the node's "kubelet" or "runtime" and starts it again."""
        subprocess.run([self.here / "restart", *flags, node, what], check=True, timeout=60)

    def node_variable(self, node, name):
        for line in (self.dir / "nodes" / node).read_text().splitlines():
            if line.startswith(f"declare -g {name}="):
                return line.partition("=")[2].strip('"')
        raise Failed(f"{node} has no {name}")

    def node_dir(self, node):
        return Path(self.node_variable(node, "NODE_DIR"))

    def crictl(self, node, *args):
        """crictl of any node: their sockets are in the machine's one file system."""
        done = subprocess.run(
            [self.node_variable(node, "NODE_CRICTL"), "--config",
             str(self.node_dir(node) / "crictl.yaml"), *args],
            capture_output=True, text=True, timeout=60, check=False)
        expect(done.returncode == 0, f"crictl {' '.join(args)}: {done.stderr[-400:]}")
        return done.stdout
