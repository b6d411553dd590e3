"""Files from Debian: packages unpacked, busybox built from its source package."""

import hashlib
import os
import platform
import subprocess
from pathlib import Path

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

# Under which applets critest's specs run; a build without one of them is refused.
NEEDED_APPLETS = {
    "sh", "ls", "top", "pgrep", "pidof", "ipcs", "id", "ping", "brctl", "netstat", "httpd",
    "hostname", "grep", "touch", "mount", "chmod", "sleep", "cat", "nc", "wget",
}

# What differs from busybox's default configuration.
BUSYBOX_CONFIG = [
    ("# CONFIG_STATIC is not set", "CONFIG_STATIC=y"),
    # Does not compile against newer kernel headers.
    ("CONFIG_TC=y", "# CONFIG_TC is not set"),
    # Debian's shell drops variables such as a-b unless told otherwise; upstream's passes them on.
    ("# CONFIG_FEATURE_DI_ENV_HACK is not set", "CONFIG_FEATURE_DI_ENV_HACK=y"),
]


def run(*argv, cwd=None, log=None, **kwargs):
    """Runs a command; its output goes to the log file, and to the error when it fails."""
    done = subprocess.run(argv, cwd=cwd, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, **kwargs)
    if log:
        log.write(done.stdout)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n"
                           f"{done.stdout[-4000:]}")
    return done.stdout


def _source_lists(folder):
    """An apt set-up of our own for source packages, from the same mirrors as the system's.

    The system's own lists often have no deb-src lines, and are not ours to change.
    """
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)",
         "Created-By: Packages"], text=True, stdout=subprocess.PIPE, check=True).stdout
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    lines = sorted({f"deb-src [signed-by={keyring}] {uri} {suite} {component}\n"
                    for uri, suite, component, origin in
                    (line.split(maxsplit=3) for line in targets.splitlines())
                    if origin == "Debian"})
    if not lines:
        raise RuntimeError("apt knows no Debian mirror (run apt-get update)")
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text("".join(lines))
    return ["-o", f"Dir::Etc::sourcelist={folder}/sources.list", "-o", "Dir::Etc::sourceparts=-",
            "-o", f"Dir::State::lists={folder}/lists", "-o", "APT::Sandbox::User=root",
            "-o", "Dir::Cache::srcpkgcache=", "-o", "Dir::Cache::pkgcache="]


def busybox(cache):
    """The path of a static busybox with every default applet, built once.

    Debian's busybox-static lacks applets that critest runs (pgrep, ipcs, brctl).
    """
    state = hashlib.sha256(repr(BUSYBOX_CONFIG).encode()).hexdigest()[:8]
    out = cache / f"busybox-{state}"
    if (out / "busybox").exists():
        return out / "busybox"
    run("rm", "-rf", *cache.glob("busybox*"))
    out.mkdir(parents=True)
    work = out / "work"
    work.mkdir()
    with open(out / "build.log", "w", encoding="utf-8") as log:
        apt = _source_lists(work / "apt")
        run("apt-get", *apt, "update", log=log)
        run("apt-get", *apt, "source", "busybox", cwd=work, log=log)
        source = next(path for path in work.glob("busybox-*") if path.is_dir())
        run("make", "defconfig", cwd=source, log=log)
        config = (source / ".config").read_text()
        for old, new in BUSYBOX_CONFIG:
            config = config.replace(old, new)
        (source / ".config").write_text(config)
        run("make", "oldconfig", cwd=source, log=log, input="\n" * 50)
        run("nice", "make", f"-j{os.cpu_count()}", cwd=source, log=log)
        applets = set(run(source / "busybox", "--list").split())
        if "a-b=1" not in run("env", "a-b=1", source / "busybox", "sh", "-c", "env"):
            raise RuntimeError("busybox's shell drops variables")
        if missing := NEEDED_APPLETS - applets:
            raise RuntimeError(f"busybox was built without {sorted(missing)}")
        os.rename(source / "busybox", out / "busybox")
    run("rm", "-rf", work)
    return out / "busybox"


def applets(busybox_path):
    """The paths, without the leading slash, under which busybox's applets are installed."""
    return sorted(path.lstrip("/") for path in run(busybox_path, "--list-full").split())


def unpack(cache, packages, dependencies=False):
    """Downloads the packages and unpacks them over each other; returns that folder.

    With dependencies, as well what they depend on, as if nothing were installed.
    """
    folder = cache / "debs" / "-".join(packages)
    root = folder / "root"
    if (folder / "done").exists():
        return root
    run("rm", "-rf", folder)
    root.mkdir(parents=True)
    (folder / "partial").mkdir()
    get = ["apt-get", "-o", "APT::Sandbox::User=root"]
    if dependencies:
        get += ["-o", "Dir::State::status=/dev/null", "-o", f"Dir::Cache::archives={folder}",
                "-o", "Dir::Cache::srcpkgcache=", "-o", "Dir::Cache::pkgcache=",
                "--download-only", "--no-install-recommends", "--yes", "install", *packages]
    else:
        get += ["download", *packages]
    try:
        run(*get, cwd=folder)
    except RuntimeError:
        # The package lists are absent or older than the archive.
        run("apt-get", "update")
        run(*get, cwd=folder)
    for package in sorted(folder.glob("*.deb")):
        run("dpkg-deb", "--extract", package, root)
    (folder / "done").touch()
    return root


def compile_static(cache, source):
    """Compiles one C file of src/ into a static program; returns its path."""
    program = cache / "bin" / Path(source).stem
    program.parent.mkdir(parents=True, exist_ok=True)
    run("cc", "-static", "-Os", "-s", "-Wall", "-Werror", "-o", program,
        Path(__file__).parent / "src" / source)
    return program
