"""A virtual machine made by `build`: QEMU's command line, freezing, thawing, running a job.

The machine has no network and no KVM. Host and guest talk over virtio-serial; the words are
described in guest/agent.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMORY_MIB = 768
CPUS = 2
# Without KVM, an old processor is emulated fastest, and without cmpxchg16b correctly.
CPU = "Nehalem,cx16=off"
JOB_DISK_BYTES = 512 << 20
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off no_timer_check tsc=reliable "
    "random.trust_cpu=1 systemd.unified_cgroup_hierarchy=1 systemd.show_status=0")
NO_RESULT = 125


class MachineError(Exception):
    """The machine could not be started, frozen or reached."""


def _qemu(folder):
    """QEMU's program and environment: unpacked beside the machine, or this host's."""
    unpacked = folder / "qemu"
    program = unpacked / "usr/bin/qemu-system-x86_64"
    if not program.exists():
        program = shutil.which("qemu-system-x86_64")
        if program is None:
            raise MachineError(f"qemu-system-x86_64 is neither in {unpacked} nor in PATH")
        return [program], dict(os.environ)
    libraries = unpacked / "usr/lib/x86_64-linux-gnu"
    environment = dict(os.environ, QEMU_MODULE_DIR=str(libraries / "qemu"),
                       LD_LIBRARY_PATH=f"{libraries}:{unpacked}/lib/x86_64-linux-gnu")
    return [program, "-L", unpacked / "usr/share/qemu",
            "-L", unpacked / "usr/share/seabios"], environment


class Running:
    """One QEMU process with its sockets and files in a folder of its own."""

    def __init__(self, folder, work, image, *, keep_writes, threads="multi", arguments="",
                 extra=()):
        self.work = work
        program, environment = _qemu(folder)
        for name in ("log", "files"):
            (work / name).touch()
        command = [
            *program, "-machine", "q35", "-accel", f"tcg,thread={threads},tb-size=256",
            "-cpu", CPU, "-smp", CPUS, "-m", MEMORY_MIB,
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", folder / "vmlinuz", "-initrd", folder / "initrd",
            "-append", f"{KERNEL_ARGUMENTS} {arguments}",
            "-serial", f"file:{work}/console",
            "-drive", f"if=none,id=root,file={image},format=raw,cache=unsafe,discard=unmap,"
                      f"snapshot={'off' if keep_writes else 'on'}",
            "-device", "virtio-blk-pci,drive=root,serial=root",
            "-drive", f"if=none,id=job,file={work}/job,format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=job,serial=job",
            "-object", "rng-random,id=random,filename=/dev/urandom",
            "-device", "virtio-rng-pci,rng=random",
            "-device", "virtio-serial-pci",
            "-qmp", f"unix:{work}/qmp,server=on,wait=off",
            "-chardev", f"socket,id=control,path={work}/control,server=on,wait=off",
            "-device", "virtserialport,chardev=control,name=control",
        ]
        for name in ("log", "files"):
            command += ["-chardev", f"file,id={name},path={work}/{name}",
                        "-device", f"virtserialport,chardev={name},name={name}"]
        self.process = subprocess.Popen(
            [str(part) for part in [*command, *extra]], stdin=subprocess.DEVNULL,
            env=dict(environment, TMPDIR=str(work)))
        self._words = b""
        self._control = None

    def connect(self, name, seconds=60):
        """A connection to one of QEMU's sockets, which appears soon after its start."""
        deadline = time.monotonic() + seconds
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.work / name))
                return connection
            except OSError as error:
                connection.close()
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise MachineError(f"QEMU's socket '{name}' cannot be reached: {error}") \
                        from error
                time.sleep(0.02)

    @property
    def control(self):
        if self._control is None:
            self._control = self.connect("control")
        return self._control

    def say(self, line):
        self.control.sendall(f"{line}\n".encode())

    def hear(self, word, seconds):
        """What follows the guest's word; None if it does not come in time, or QEMU ends."""
        self.control.settimeout(max(seconds, 0.001))
        try:
            while b"\n" not in self._words:
                received = self.control.recv(4096)
                if not received:  # QEMU has closed it: about to end
                    time.sleep(0.05)
                    return None
                self._words += received
        except (TimeoutError, ConnectionError):
            return None
        line, self._words = self._words.split(b"\n", 1)
        said, _, rest = line.decode().partition(" ")
        if said != word:
            raise MachineError(f"the guest said '{line.decode()}' instead of '{word}'")
        return rest

    def console(self):
        with contextlib.suppress(OSError):
            return (self.work / "console").read_text(errors="replace")[-3000:]
        return ""

    def migrate(self, target):
        """Writes the machine's memory and devices to a file."""
        with self.connect("qmp").makefile("rw") as monitor:
            monitor.readline()

            def execute(command, **arguments):
                monitor.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                monitor.flush()
                while True:
                    answer = json.loads(monitor.readline())
                    if "error" in answer:
                        raise MachineError(f"{command}: {answer['error']['desc']}")
                    if "return" in answer:
                        return answer["return"]

            execute("qmp_capabilities")
            execute("migrate", uri=f"exec:cat >'{target}'")
            while (status := execute("query-migrate").get("status")) != "completed":
                if status in ("failed", "cancelled"):
                    raise MachineError("QEMU could not write the machine's state")
                time.sleep(0.1)

    def end(self):
        if self._control is not None:
            self._control.close()
        self.process.kill()
        self.process.wait()


class Machine:
    """The folder that `build` made."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.frozen = self.folder / "frozen"
        if not (self.folder / "root.img").exists():
            raise MachineError(f"no machine in {self.folder}: build it first")

    @contextlib.contextmanager
    def _started(self, fill_job, *arguments, **options):
        """A running machine in a working folder that vanishes with it."""
        (self.folder / "tmp").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder / "tmp") as name:
            work = Path(name)
            fill_job(work / "job")
            size = (work / "job").stat().st_size
            if size > JOB_DISK_BYTES:
                raise MachineError(f"the job is too large: {size >> 20} MiB of "
                                   f"{JOB_DISK_BYTES >> 20}")
            os.truncate(work / "job", JOB_DISK_BYTES)
            running = Running(self.folder, work, *arguments, **options)
            try:
                yield running
            finally:
                running.end()

    def freeze(self, seconds):
        """Boots until systemd is idle and keeps that state. Returns the seconds it took inside."""
        shutil.rmtree(self.frozen, ignore_errors=True)
        self.frozen.mkdir()
        image = self.frozen / "root.img"
        subprocess.run(["cp", "--sparse=always", self.folder / "root.img", image], check=True)
        # While one CPU sets up PCI devices, another's access to a device can end QEMU (assertion
        # in iotlb_to_section). A thawed copy has that behind it.
        with self._started(Path.touch, image, keep_writes=True, threads="single",
                           arguments="vm.freeze") as running:
            took = running.hear("ready", seconds)
            if took is None:
                raise MachineError(f"it did not come up; its console:\n{running.console()}")
            running.migrate(self.frozen / "state")
        (self.frozen / "ready").touch()
        return float(took)

    def run(self, job, out, seconds):
        """Runs a job in a thawed copy; returns its exit code, NO_RESULT if none came."""
        if not (self.frozen / "ready").exists():
            raise MachineError(f"{self.folder} is not frozen: use snap first")

        def fill(disk):
            subprocess.run(["tar", "-C", job, "--dereference", "-cf", disk, "."], check=True)

        with self._started(
                fill, self.frozen / "root.img", keep_writes=False, arguments="vm.freeze",
                extra=["-incoming", f"exec:cat '{self.frozen / 'state'}'"]) as running:
            running.say(f"go {time.time():.0f} {os.urandom(32).hex()}")
            code = self._follow(running, seconds)
            if out and (running.work / "files").stat().st_size:
                Path(out).mkdir(parents=True, exist_ok=True)
                subprocess.run(["tar", "-C", out, "-xf", running.work / "files"], check=False)
            return code

    @staticmethod
    def _follow(running, seconds):
        """Copies the job's output to ours until it ends."""
        deadline = time.monotonic() + seconds
        with open(running.work / "log", "rb") as log:
            while True:
                code = running.hear("exit", 0.05)
                sys.stdout.buffer.write(log.read())
                sys.stdout.flush()
                if code is not None:
                    return int(code)
                ended = running.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    print(f"no exit code came back: {'QEMU ended' if ended else 'out of time'}; "
                          f"the console:\n{running.console()}", file=sys.stderr)
                    return NO_RESULT
