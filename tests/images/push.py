"""The part of the distribution API that a push needs, over plain HTTP."""

import http.client
import urllib.parse
from concurrent.futures import ThreadPoolExecutor


class Client:
    """One registry, by its base URL (http://host:port)."""

    def __init__(self, url):
        self._base = urllib.parse.urlsplit(url)

    def _call(self, method, target, body=None, headers=None, accept=(200,)):
        connection = http.client.HTTPConnection(self._base.hostname, self._base.port, timeout=60)
        try:
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status not in accept:
                raise RuntimeError(f"{method} {target}: {answer.status} {text[:500]!r}")
            return answer
        finally:
            connection.close()

    def has_manifest(self, tagged, digest):
        """Whether the tag leads to the digest."""
        name, tag = tagged.rsplit(":", 1)
        answer = self._call("HEAD", f"/v2/{name}/manifests/{tag}", accept=(200, 404), headers={
            "Accept": "application/vnd.oci.image.index.v1+json,"
                      "application/vnd.oci.image.manifest.v1+json,"
                      "application/vnd.docker.distribution.manifest.list.v2+json,"
                      "application/vnd.docker.distribution.manifest.v2+json"})
        return answer.status == 200 and answer.headers["Docker-Content-Digest"] == digest

    def _push_blob(self, name, digest, data):
        if self._call("HEAD", f"/v2/{name}/blobs/{digest}", accept=(200, 404)).status == 200:
            return
        upload = self._call("POST", f"/v2/{name}/blobs/uploads/", accept=(202,),
                            headers={"Content-Length": "0"})
        location = urllib.parse.urlsplit(upload.headers["Location"])
        query = f"{location.query}&" if location.query else ""
        self._call("PUT", f"{location.path}?{query}digest={urllib.parse.quote(digest)}", data,
                   {"Content-Type": "application/octet-stream"}, (201,))

    def _push_manifest(self, store, name, digest, reference):
        media_type, data = store.manifests[digest]
        self._call("PUT", f"/v2/{name}/manifests/{reference}", data,
                   {"Content-Type": media_type}, (201,))

    def push(self, store):
        """Pushes all tagged images of the store: blobs, then manifests, then indexes.

        One repository's tags go one after the other: the registry's files of a repository are
        not written atomically.
        """
        repositories = {}
        for tagged, digest in store.tags.items():
            name, tag = tagged.rsplit(":", 1)
            repositories.setdefault(name, []).append((tag, digest))

        def push_repository(item):
            name, tags = item
            for tag, digest in tags:
                self._push_image(store, name, tag, digest)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(push_repository, repositories.items()))

    def _push_image(self, store, name, tag, digest):
        for child in store.children(digest):
            for blob in store.blobs_of(child):
                self._push_blob(name, blob, store.blobs[blob])
            if child != digest:
                self._push_manifest(store, name, child, child)
        self._push_manifest(store, name, digest, tag)
