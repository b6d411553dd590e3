"""What kubectl streams: logs, exec, attach, port-forward, cp, debug."""

import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import tempfile
import termios
import threading
import time
import urllib.request
from pathlib import Path

from kube import AGNHOST, NGINX, container, eventually, expect, pod

MIB = 1 << 20


def logs_follow_until_the_end(cluster, space):
    lines = 40
    space.create(pod("talker", container(command=(
        f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); sleep 0.05; done; "
        "echo last >&2")), restartPolicy="Never"))
    eventually("the container has started",
               lambda: "running" in space.container_status("talker").get("state", {})
               or space.status("talker").get("phase") == "Succeeded")
    followed = space.kubectl("logs", "--follow", "talker").splitlines()
    wanted = [f"line {number}" for number in range(lines)]
    expect(sorted(followed) == sorted([*wanted, "last"]) and followed[:lines] == wanted,
           f"logs --follow printed {followed}")
    expect(space.kubectl("logs", "--tail=2", "talker").splitlines()[0] == f"line {lines - 1}",
           "logs --tail=2")
    stamped = space.kubectl("logs", "--timestamps", "--tail=1", "talker")
    expect(stamped.startswith("20") and stamped.endswith("last\n"), f"--timestamps: {stamped!r}")


def logs_of_the_container_before(cluster, space):
    space.create(pod("again", container(command=(
        "if [ -e /data/second ]; then echo second; exec sleep 1000; fi; "
        "touch /data/second; echo first; exit 3"),
        volumeMounts=[{"name": "data", "mountPath": "/data"}]),
        volumes=[{"name": "data", "emptyDir": {}}]))
    eventually("the container has started again",
               lambda: space.container_status("again").get("restartCount") == 1)
    eventually("its log", lambda: space.kubectl("logs", "again") == "second\n")
    expect(space.kubectl("logs", "--previous", "again") == "first\n", "logs --previous")
    last = space.container_status("again")["lastState"]["terminated"]
    expect(last["exitCode"] == 3 and last["reason"] == "Error", f"the state before: {last}")


def exec_carries_bytes_and_exit_codes(cluster, space):
    space.run(pod("worker"))
    expect(space.try_kubectl("exec", "worker", "--", "sh", "-c", "exit 7").returncode == 7,
           "the exit code of exec")
    data = os.urandom(8 * MIB)
    came = space.try_kubectl("exec", "--stdin", "worker", "--", "cat", data=data).stdout
    expect(came == data, f"{len(came)} of {len(data)} bytes came back through exec")
    done = space.try_kubectl("exec", "worker", "--", "sh", "-c", "echo out; echo err >&2")
    expect((done.stdout, done.stderr) == (b"out\n", b"err\n"), f"stdout and stderr: {done}")
    missing = space.try_kubectl("exec", "worker", "--", "/no/such/program")
    expect(missing.returncode != 0 and b"no such file" in missing.stderr.lower(),
           f"exec of a missing program: {missing.stderr}")


class Terminal:
    """A kubectl that believes to be at a terminal."""

    def __init__(self, space, *args):
        self._master, slave = pty.openpty()
        self.resize(31, 97)
        self._process = space.spawn(*args, stdin=slave, stdout=slave, stderr=slave,
                                    start_new_session=True)
        os.close(slave)
        self._seen = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def window_changed(self):
        self._process.send_signal(signal.SIGWINCH)

    def type(self, text):
        os.write(self._master, text.encode())

    def shows(self, text, seconds=30):
        until = time.monotonic() + seconds
        while text.encode() not in self._seen:
            left = until - time.monotonic()
            expect(left > 0 and select.select([self._master], [], [], left)[0],
                   f"the terminal shows {self._seen!r}, not {text!r}")
            try:
                self._seen += os.read(self._master, 4096)
            except OSError:
                raise AssertionError(f"ended with {self._seen!r}") from None

    def end(self):
        code = self._process.wait(timeout=30)
        os.close(self._master)
        return code


def exec_at_a_terminal(cluster, space):
    space.run(pod("shell"))
    terminal = Terminal(space, "exec", "--stdin", "--tty", "shell", "--", "sh")
    terminal.type("stty size; tty\n")
    terminal.shows("31 97")
    terminal.shows("/dev/pts/")
    terminal.resize(20, 60)
    terminal.window_changed()
    time.sleep(0.5)
    terminal.type("stty size\n")
    terminal.shows("20 60")
    # Ctrl-C ends the command, not the shell.
    terminal.type("sleep 1000\n")
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.type("echo after-$((40 + 2)); exit 5\n")
    terminal.shows("after-42")
    expect(terminal.end() == 5, "the shell's exit code at a terminal")


def attach_and_run(cluster, space):
    space.run(pod("echo", container(command="while read line; do echo got $line; done",
                                    stdin=True)))
    attached = space.spawn("attach", "--stdin", "echo", stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    attached.stdin.write(b"one\ntwo\n")
    attached.stdin.flush()
    seen = [attached.stdout.readline(), attached.stdout.readline()]
    attached.kill()
    attached.wait()
    expect(seen == [b"got one\n", b"got two\n"], f"attach showed {seen}")
    ran = space.kubectl("run", "once", "--stdin", "--rm", "--quiet", "--restart=Never",
                        f"--image={NGINX}", "--command", "--", "cat", data=b"through and through\n")
    expect(ran.startswith("through and through\n"), f"run --stdin --rm printed {ran!r}")


def port_forward_many(cluster, space):
    size = 8 * MIB
    space.run(pod("web", container(image=NGINX, command=(
        f"head -c {size} /dev/urandom >/usr/share/nginx/html/big; "
        "sha256sum </usr/share/nginx/html/big; exec nginx -g 'daemon off;'"),
        readinessProbe={"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1})))
    forward = space.spawn("port-forward", "web", ":80", stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    try:
        port = int(forward.stdout.readline().split("127.0.0.1:")[1].split()[0])
        url = f"http://127.0.0.1:{port}/"
        answers = []

        def ask():
            with urllib.request.urlopen(url, timeout=30) as answer:
                answers.append(answer.read())
        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(len(answers) == 20 and all(b"nginx" in answer for answer in answers),
               f"{len(answers)} of 20 requests at once were answered")
        with urllib.request.urlopen(url + "big", timeout=60) as answer:
            came = answer.read()
        wanted = space.kubectl("logs", "web").split()[0]
        expect(hashlib.sha256(came).hexdigest() == wanted, f"{len(came)} of {size} bytes came")
    finally:
        forward.kill()
        forward.wait()


def cp_both_ways(cluster, space):
    space.run(pod("files", container(image=AGNHOST, command=["/agnhost", "pause"])))
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "there"), Path(folder, "back")
        (there / "deep").mkdir(parents=True)
        (there / "deep" / "blob").write_bytes(os.urandom(3 * MIB))
        (there / "text").write_text("short\n")
        space.kubectl("cp", str(there), "files:/uploads")
        space.kubectl("cp", "files:/uploads/there", str(back))
        for name in ("deep/blob", "text"):
            expect((there / name).read_bytes() == (back / name).read_bytes(),
                   f"{name} differs after cp")


def debug_with_an_ephemeral_container(cluster, space):
    space.run(pod("target", container(command=["sleep", "424242"])))
    space.kubectl("debug", "target", f"--image={AGNHOST}", "--target=main", "--container=look",
                  "--profile=general", "--", "sh", "-c", "ps | cat; exec sleep 1000")
    eventually("the ephemeral container runs", lambda: "running" in (
        space.status("target").get("ephemeralContainerStatuses") or [{}])[0].get("state", {}))
    eventually("it sees the target's process",
               lambda: "sleep 424242" in space.kubectl("logs", "target", "--container=look"), 10)


CHECKS = [logs_follow_until_the_end, logs_of_the_container_before,
          exec_carries_bytes_and_exit_codes, exec_at_a_terminal, attach_and_run,
          port_forward_many, cp_both_ways, debug_with_an_ephemeral_container]
