"""The images of Kubernetes' own tests, with what upstream's Dockerfiles put into them."""

from pathlib import Path

import debian
from catalog import NGINX, Catalog, busybox_layer, file_layer, nginx_layer, pause_image
from catalog import GROUPS, USERS
from oci import Layer

TESTS = Path(__file__).resolve().parent.parent
MODULE = TESTS / "kubernetes" / "modules" / "kubernetes"
E2E = "e2e-test-images/"

# What agnhost's Dockerfile installs, by Debian's names.
AGNHOST_PACKAGES = ["bash", "bind9-dnsutils", "curl", "iperf", "iproute2", "netcat-openbsd",
                    "libc-bin", "util-linux"]
# Nothing reads it.
LEFT_OUT = ("usr/share/doc/", "usr/share/locale/", "usr/share/man/", "usr/share/bash-completion/")


def sources():
    """The folder of the sources of upstream's test images."""
    module = debian.run("go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes",
                        cwd=MODULE)
    return Path(module.strip()) / "test" / "images"


def agnhost_program():
    """The path of agnhost, built once."""
    folder = debian.run(TESTS / "conformance" / "build-tools", "agnhost").splitlines()[-1]
    return Path(folder) / "agnhost"


def agnhost_packages_layer(cache):
    """The programs that specs run in agnhost's containers, with their libraries."""
    root = debian.unpack(cache, AGNHOST_PACKAGES, dependencies=True)
    layer = Layer()
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if not name.startswith(LEFT_OUT) and (path.is_symlink() or path.is_file()):
            layer.copy(path, name)
    # busybox has one as well, of other options.
    layer.symlink("usr/local/bin/nc", "/bin/nc.openbsd")
    layer.symlink("usr/local/bin/iperf", "/usr/bin/iperf")
    layer.file("etc/passwd", USERS + "user-defined-in-image:x:1000:1000::/home:/bin/sh\n")
    layer.file("etc/group", GROUPS + "user-defined-in-image:x:1000:\n"
               "group-defined-in-image:x:50000:user-defined-in-image\n")
    return layer.finish()


def fake_registry(layer, store, name, tag, index):
    """Adds an image as agnhost's fake-registry-server keeps it."""
    def path(kind, digest):
        algorithm, _, value = digest.partition(":")
        return f"var/registry/{name}/{kind}/{algorithm}/{value[:2]}/{value}/data"

    layer.file(f"var/registry/{name}/manifests/{tag}", index["digest"])
    for manifest in (index["digest"], *store.children(index["digest"])):
        layer.file(path("manifests", manifest), store.manifests[manifest][1])
    for manifest in store.children(index["digest"]):
        for blob in store.blobs_of(manifest):
            layer.file(path("blobs", blob), store.blobs[blob])


def agnhost_layer(store, pause):
    """agnhost itself, its files, and the image that its registry serves."""
    layer = Layer()
    layer.file("agnhost", agnhost_program().read_bytes(), 0o755)
    layer.symlink("agnhost-2", "agnhost")
    for name in ("localhost.crt", "localhost.key"):
        layer.copy(sources() / "agnhost" / "porter" / name, name)
    layer.folder("uploads")
    fake_registry(layer, store, "pause", "testing", pause)
    return layer.finish()


def kitten_layer():
    """What specs look for in an image that is mounted as a volume."""
    html = sources() / "kitten" / "html"
    layer = Layer()
    for name in ("kitten.jpg", "data.json"):
        layer.copy(html / name, name)
    # Upstream's is made from Alpine, and a spec looks for the name.
    layer.file("etc/os-release", 'NAME="Alpine Linux"\nID=alpine\n')
    return layer.finish()


def images(store, cache):
    """Those that node, network and apps specs of Kubernetes 1.36 pull, and pause for containerd."""
    catalog = Catalog(store)
    base = busybox_layer(debian.busybox(cache), all_in_bin=True)
    shell = {"Cmd": ["sh"]}
    pause = pause_image(catalog, cache, "3.10.2")
    catalog.tag(pause, "pause:3.10.2", "pause:3.10")
    catalog.tag(catalog.multi(shell, [base]), E2E + "busybox:1.37.0-1", E2E + "busybox:1.36.1-1",
                "library/busybox:latest")
    catalog.tag(catalog.multi({**shell, "User": "1234"}, [base]), E2E + "nonroot:1.5")
    nnp = file_layer("usr/local/bin/nnp", debian.compile_static(cache, "nnp.c").read_bytes(), 0o6755)
    catalog.tag(catalog.multi({"Cmd": ["nnp"]}, [base, nnp]), E2E + "nonewprivs:1.4")

    # Specs update from one version to the other: they must not be one image.
    nginx = nginx_layer(cache, 80)
    for version in ("1.15-4", "1.27-0"):
        config = {**NGINX, "ExposedPorts": {"80/tcp": {}}, "Labels": {"version": version}}
        catalog.tag(catalog.multi(config, [base, nginx]), f"{E2E}nginx:{version}")

    packages = agnhost_packages_layer(cache)
    catalog.tag(catalog.multi(shell, [base, packages]), E2E + "ipc-utils:1.4",
                E2E + "glibc-dns-testing:2.0.0")
    agnhost = agnhost_layer(store, pause)
    entry = {"Entrypoint": ["/agnhost"], "WorkingDir": "/",
             "ExposedPorts": {f"{port}/tcp": {} for port in (80, 5000, 8080, 8081, 9376)}}
    for version in ("2.63.0", "2.55"):
        config = {**entry, "Cmd": ["pause"], "Labels": {"version": version}}
        catalog.tag(catalog.multi(config, [base, packages, agnhost]), f"{E2E}agnhost:{version}")
    catalog.tag(catalog.multi({**entry, "Cmd": ["test-webserver"]},
                              [base, packages, agnhost, kitten_layer()]), E2E + "kitten:1.8")
