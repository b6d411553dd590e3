"""What every test image holds."""

import debian
from oci import DOCKER, OCI, Layer

OTHER_ARCH = {"amd64": "arm64", "arm64": "amd64"}[debian.ARCH]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUPS = """\
root:x:0:
daemon:x:1:
bin:x:2:
mail:x:8:
www-data:x:33:
nobody:x:65534:
"""

# Debian 12's packages of the web server and of the libraries it loads.
NGINX_PACKAGES = ["nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"]
NGINX = {"Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT"}
NGINX_CONF = """\
user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /var/log/nginx/error.log warn;
events { worker_connections 64; }
http {
    types { text/html html; }
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    server {
        listen %d;
        location / { root /usr/share/nginx/html; index index.html; }
    }
}
"""


def busybox_layer(program, users=USERS, groups=GROUPS, all_in_bin=False):
    """A root file system of a static busybox and its applets, as hard links.

    critest masks /bin/ls; were that a symbolic link, busybox itself would be masked. The public
    busybox image has all applets in /bin.
    """
    layer = Layer()
    for folder in ("bin", "etc", "proc", "sys", "dev", "usr", "var", "home"):
        layer.folder(folder)
    layer.folder("root", 0o700).folder("tmp", 0o1777).folder("var/spool/mail")
    layer.file("bin/busybox", program.read_bytes(), 0o755)
    paths = set(debian.applets(program))
    if all_in_bin:
        paths |= {f"bin/{path.rpartition('/')[2]}" for path in paths}
    for path in sorted(paths - {"bin/busybox"}):
        layer.hardlink(path, "bin/busybox")
    layer.file("etc/passwd", users).file("etc/group", groups)
    layer.file("etc/shadow", "root:*:::::::\n", 0o640)
    layer.file("etc/os-release", "NAME=busybox\nID=busybox\n")
    return layer.finish()


def nginx_layer(cache, port):
    """Debian's nginx with its libraries and one page, listening on the port."""
    root = debian.unpack(cache, NGINX_PACKAGES)
    layer = Layer()
    layer.copy(root / "usr/sbin/nginx", "usr/sbin/nginx")
    for library in sorted(root.rglob("*.so*")):
        if "/gconv/" not in str(library) and "/engines" not in str(library):
            layer.copy(library, str(library.relative_to(root)))
    layer.file("etc/nginx/nginx.conf", NGINX_CONF % port)
    layer.file("usr/share/nginx/html/index.html", "<h1>Welcome to nginx!</h1>\n")
    layer.folder("var/lib/nginx", uid=33).folder("run").symlink("var/run", "/run")
    layer.symlink("var/log/nginx/access.log", "/dev/stdout")
    layer.symlink("var/log/nginx/error.log", "/dev/stderr")
    return layer.finish()


def file_layer(path, data, mode=0o644):
    return Layer().file(path, data, mode).finish()


class Catalog:
    """Puts images into a store, each as an index for two architectures or as one manifest."""

    def __init__(self, store):
        self.store = store
        # Never run: it stands where a client must choose between platforms.
        self.stand_in = file_layer("stand-in", f"no programs for {OTHER_ARCH}\n")

    def single(self, config, layers, types=DOCKER):
        config = {"Env": [PATH], **config}
        return self.store.manifest(types, debian.ARCH, config, layers)

    def multi(self, config, layers, types=DOCKER):
        other = self.store.manifest(types, OTHER_ARCH, {"Env": [PATH], **config}, [self.stand_in])
        pairs = [(debian.ARCH, self.single(config, layers, types)), (OTHER_ARCH, other)]
        return self.store.index(types, sorted(pairs, key=lambda pair: pair[0]))

    def tag(self, descriptor, *names):
        for name in names:
            self.store.tag(name, descriptor)


def pause_image(catalog, cache, version):
    """The descriptor of a pause image; labels make versions differ."""
    program = debian.compile_static(cache, "pause.c").read_bytes()
    config = {"Entrypoint": ["/pause"], "User": "65535:65535", "Labels": {"version": version}}
    return catalog.multi(config, [file_layer("pause", program, 0o755)])


def tour(store, cache):
    """The image of the README's first command; more shell than test."""
    page = file_layer("etc/motd", "Hello from a pod that Joey runs.\n")
    base = busybox_layer(debian.unpack(cache, ["busybox-static"]) / "bin/busybox")
    config = {"Cmd": ["sh", "-c", "cat /etc/motd; exec sleep infinity"], "WorkingDir": "/"}
    catalog = Catalog(store)
    catalog.tag(catalog.multi(config, [base, page], OCI), "joey/hello:latest")


def conformance(store, cache):
    """Every image that critest 1.36 and the kubelet smoke test pull."""
    catalog = Catalog(store)
    program = debian.busybox(cache)
    base = busybox_layer(program)
    shell = {"Cmd": ["sh"]}

    e2e = "e2e-test-images/"
    catalog.tag(catalog.multi(shell, [base]), e2e + "busybox:1.29-2")
    catalog.tag(catalog.multi(shell, [base], OCI),
                "docker/library/busybox:1.35.0-glibc", "library/busybox:latest")
    catalog.tag(catalog.multi({**NGINX, "ExposedPorts": {"80/tcp": {}}},
                              [base, nginx_layer(cache, 80)]), e2e + "nginx:1.14-2")
    # The spec looks for the server's name in its log.
    httpd = {"Cmd": ["sh", "-c", "echo httpd: serving on port 80; exec httpd -f -p 80 -h /www"],
             "ExposedPorts": {"80/tcp": {}}}
    page = file_layer("www/index.html", "<html><body><h1>It works!</h1></body></html>\n")
    catalog.tag(catalog.multi(httpd, [base, page]), e2e + "httpd:2.4.39-4")
    nnp = debian.compile_static(cache, "nnp.c").read_bytes()
    catalog.tag(catalog.multi({"Entrypoint": ["/nnp"]},
                              [base, file_layer("nnp", nnp, 0o4755)]), e2e + "nonewprivs:1.3")
    for version in ("3.9", "3.10"):
        catalog.tag(pause_image(catalog, cache, version), f"pause:{version}")

    own = "k8s-staging-cri-tools/"
    for name in ("1", "2", "3", "latest", "digest"):
        catalog.tag(catalog.multi(shell, [base, file_layer(f"test-image-{name}", name)]),
                    f"{own}test-image-{name}:latest")
    for name in ("test", "all"):
        catalog.tag(catalog.multi(shell, [base, file_layer(f"test-image-tag-{name}", name)], OCI),
                    f"{own}test-image-tag:{name}")
    catalog.tag(catalog.multi(shell, [base, file_layer("test-image-tags", "tags")], OCI),
                *(f"{own}test-image-tags:{tag}" for tag in (1, 2, 3)))
    for name, user in (("uid", "1002"), ("username", "www-data"), ("uid-group", "1003:users"),
                       ("username-group", "www-data:100")):
        catalog.tag(catalog.single({**shell, "User": user}, [base]),
                    f"{own}test-image-user-{name}:latest")
    grouped = busybox_layer(
        program,
        USERS + "default-user:x:1000:1000::/home/default-user:/bin/sh\n",
        GROUPS + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
    catalog.tag(catalog.multi({**shell, "User": "1000"}, [grouped]),
                f"{own}test-image-predefined-group:latest")
    catalog.tag(catalog.single({**NGINX, "ExposedPorts": {"12003/tcp": {}}},
                               [base, nginx_layer(cache, 12003)]),
                f"{own}hostnet-nginx-{debian.ARCH}:latest")
