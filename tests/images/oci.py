"""Layers, configurations, manifests and indexes, made byte for byte the same every time."""

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile

DOCKER = {
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
OCI = {
    "index": "application/vnd.oci.image.index.v1+json",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
}


def digest(data):
    """The OCI digest of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def encode(value):
    """Canonical JSON."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


class Layer:
    """A layer being put together; every entry belongs to root, with a fixed time."""

    def __init__(self):
        self._raw = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._raw, mode="w", format=tarfile.PAX_FORMAT)
        self._folders = set()

    def _entry(self, path, kind, mode, uid=0, gid=0):
        info = tarfile.TarInfo(path.strip("/"))
        info.type, info.mode, info.uid, info.gid = kind, mode, uid, gid
        info.uname = info.gname = ""
        return info

    def folder(self, path, mode=0o755, uid=0, gid=0):
        path = path.strip("/")
        if path and path not in self._folders:
            self.folder(os.path.dirname(path))
            self._folders.add(path)
            self._tar.addfile(self._entry(path, tarfile.DIRTYPE, mode, uid, gid))
        return self

    def file(self, path, data, mode=0o644, uid=0, gid=0):
        self.folder(os.path.dirname(path.strip("/")))
        data = data.encode() if isinstance(data, str) else data
        info = self._entry(path, tarfile.REGTYPE, mode, uid, gid)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def symlink(self, path, target):
        self.folder(os.path.dirname(path.strip("/")))
        info = self._entry(path, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        self._tar.addfile(info)
        return self

    def hardlink(self, path, target):
        self.folder(os.path.dirname(path.strip("/")))
        info = self._entry(path, tarfile.LNKTYPE, 0o755)
        info.linkname = target.strip("/")
        self._tar.addfile(info)
        return self

    def copy(self, source, path):
        """A file, symlink or whole folder of this machine, under the path."""
        status = os.lstat(source)
        if stat.S_ISLNK(status.st_mode):
            self.symlink(path, os.readlink(source))
        elif stat.S_ISDIR(status.st_mode):
            self.folder(path, stat.S_IMODE(status.st_mode))
            for name in sorted(os.listdir(source)):
                self.copy(os.path.join(source, name), f"{path}/{name}")
        else:
            with open(source, "rb") as file:
                self.file(path, file.read(), stat.S_IMODE(status.st_mode))
        return self

    def finish(self, level=6):
        """(compressed bytes, digest of the uncompressed tar)."""
        self._tar.close()
        raw = self._raw.getvalue()
        return gzip.compress(raw, level, mtime=0), digest(raw)


class Store:
    """Blobs and tagged manifests, as they will be pushed."""

    def __init__(self):
        self.blobs = {}
        self.manifests = {}
        self.tags = {}

    def blob(self, data):
        self.blobs[digest(data)] = data
        return digest(data)

    def manifest(self, types, arch, config, layers):
        """A manifest of finished layers; returns its descriptor."""
        config_data = encode({
            "architecture": arch, "os": "linux", "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
            "history": [{"created": "1970-01-01T00:00:00Z"} for _ in layers],
        })
        data = encode({
            "schemaVersion": 2, "mediaType": types["manifest"],
            "config": {"mediaType": types["config"], "size": len(config_data),
                       "digest": self.blob(config_data)},
            "layers": [{"mediaType": types["layer"], "size": len(blob), "digest": self.blob(blob)}
                       for blob, _ in layers],
        })
        self.manifests[digest(data)] = (types["manifest"], data)
        return {"mediaType": types["manifest"], "digest": digest(data), "size": len(data)}

    def index(self, types, descriptors):
        """An index of (arch, descriptor) pairs; returns its descriptor."""
        data = encode({
            "schemaVersion": 2, "mediaType": types["index"],
            "manifests": [{**descriptor, "platform": {"architecture": arch, "os": "linux"}}
                          for arch, descriptor in descriptors],
        })
        self.manifests[digest(data)] = (types["index"], data)
        return {"mediaType": types["index"], "digest": digest(data), "size": len(data)}

    def tag(self, name, descriptor):
        """Names the descriptor: name is a repository path with a tag."""
        self.tags[name] = descriptor["digest"]

    def children(self, target):
        """The manifests an index names; for a manifest itself, only that."""
        found = json.loads(self.manifests[target][1])
        return [child["digest"] for child in found.get("manifests", [{"digest": target}])]

    def blobs_of(self, manifest):
        """The blobs a manifest names."""
        found = json.loads(self.manifests[manifest][1])
        return [found["config"]["digest"], *(layer["digest"] for layer in found["layers"])]
