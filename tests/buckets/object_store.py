"""An object store that speaks as much of Cloud Storage's JSON API as gcsfs, google-cloud-storage and TensorStore use.

Ours, because gcp-storage-emulator (2026.7.19) says no generation of an object that is read, and overwrites what a write
with `ifGenerationMatch` must leave alone: TensorStore's checkpoints rest on both. Buckets are flat, objects are in
memory, and tests read and damage them in `Store.buckets`.
"""

import contextlib
import email.parser
import email.policy
import http.server
import itertools
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

OBJECT = r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)"


class Stored(NamedTuple):
    """The bytes of an object, and which write of the store they came by."""

    content: bytes
    generation: int


class Store(http.server.ThreadingHTTPServer):
    """Serves `buckets`, `{name: {object's name: Stored}}`; `asked` are all requests so far, as "METHOD path"."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets: dict[str, dict[str, Stored]] = {}
        self.asked: list[str] = []
        self.refused: set[str] = set()  # buckets that nobody may look at
        self.lock, self.uploads = threading.Lock(), {}
        self._numbers = itertools.count(1_000_000)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """By which the clients find it; no storage layout is asked for, which is gRPC."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "anyone",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def put(self, bucket: str, name: str, content: bytes) -> Stored:
        self.buckets[bucket][name] = stored = Stored(content, next(self._numbers))
        return stored

    def number(self) -> int:
        return next(self._numbers)

    def handle_error(self, request, client_address) -> None:
        """Nothing, for clients that were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving() -> Iterator[Store]:
    """A store, on a free port of this machine, with the bucket `bucket`."""
    with Store() as store:
        store.buckets["bucket"] = {}
        thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield store
        store.shutdown()
        thread.join()


class _Refused(Exception):
    """An answer that is an error: its status."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is one packet
    server: Store

    def log_message(self, *arguments: Any) -> None:
        """Nothing: `Store.asked` has the requests."""

    def do_GET(self) -> None:
        self._answer(self._read)

    def do_POST(self) -> None:
        self._answer(self._write)

    do_PUT = do_POST

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, act) -> None:
        url = urllib.parse.urlsplit(self.path)
        self._query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"{self.command} {urllib.parse.unquote(url.path)}")
        try:
            with self.server.lock:
                status, headers, body = act(url.path)
        except _Refused as refused:
            (status,), headers = refused.args, {"Content-Type": "application/json"}
            body = json.dumps({"error": {"code": status, "message": f"refused: {self.path}"}}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _bucket(self, name: str) -> dict[str, Stored]:
        if name in self.server.refused:
            raise _Refused(403)
        if name not in self.server.buckets:
            raise _Refused(404)
        return self.server.buckets[name]

    def _object(self, bucket: str, name: str) -> Stored:
        """An object, if it is of the generation that is asked for."""
        objects = self._bucket(bucket)
        self._check(objects.get(name))
        if name not in objects:
            raise _Refused(404)
        return objects[name]

    def _check(self, stored: Stored | None) -> None:
        generation = str(stored.generation) if stored else "0"
        if self._query.get("ifGenerationMatch", generation) != generation:
            raise _Refused(412)
        if self._query.get("ifGenerationNotMatch") == generation:
            raise _Refused(304)

    def _read(self, path: str):
        if match := re.fullmatch(OBJECT, path):
            bucket, name = map(urllib.parse.unquote, match.groups())
            stored = self._object(bucket, name)
            return self._media(stored) if self._query.get("alt") == "media" else _json(_described(bucket, name, stored))
        if match := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            return _json(self._list(match[1]))
        if match := re.fullmatch(r"/storage/v1/b/([^/]+)", path):
            self._bucket(match[1])
            return _json({"kind": "storage#bucket", "id": match[1], "name": match[1]})
        raise _Refused(501)

    def _media(self, stored: Stored):
        headers = {"Content-Type": "application/octet-stream", "x-goog-generation": str(stored.generation)}
        if not (match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))):
            return 200, headers, stored.content
        size = len(stored.content)
        first, last = (int(match[1]), int(match[2] or size - 1)) if match[1] else (size - int(match[2]), size - 1)
        if first >= size:
            raise _Refused(416)
        part = stored.content[first : last + 1]
        return 206, headers | {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{size}"}, part

    def _list(self, bucket: str) -> dict[str, Any]:
        prefix, delimiter = self._query.get("prefix", ""), self._query.get("delimiter")
        start, end = self._query.get("startOffset", ""), self._query.get("endOffset")
        start = max(start, self._query.get("pageToken", ""))
        items, prefixes = [], set()
        for name, stored in sorted(self._bucket(bucket).items()):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            if len(items) == int(self._query.get("maxResults", 1000)):
                return {"items": items, "prefixes": sorted(prefixes), "nextPageToken": name}
            folder, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if found:
                prefixes.add(prefix + folder + found)
            else:
                items.append(_described(bucket, name, stored))
        return {"items": items, "prefixes": sorted(prefixes)}

    def _write(self, path: str):
        if match := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
            return self._upload(match[1])
        if match := re.fullmatch(OBJECT + r"/rewriteTo/b/([^/]+)/o/([^/]+)", path):
            bucket, name, to_bucket, to = map(urllib.parse.unquote, match.groups())
            stored = self.server.put(to_bucket, to, self._object(bucket, name).content)
            return _json({"done": True, "resource": _described(to_bucket, to, stored)})
        if match := re.fullmatch(OBJECT + r"/moveTo/o/([^/]+)", path):
            bucket, name, to = map(urllib.parse.unquote, match.groups())
            stored = self.server.put(bucket, to, self._object(bucket, name).content)
            del self._bucket(bucket)[name]
            return _json(_described(bucket, to, stored))
        raise _Refused(501)

    def _upload(self, bucket: str):
        kind, objects = self._query.get("uploadType"), self._bucket(bucket)
        if "upload_id" in self._query:
            return self._chunk(bucket, self._query["upload_id"])
        if kind == "resumable":
            name = self._query.get("name") or json.loads(self._body)["name"]
            number = str(self.server.number())
            self.server.uploads[number] = (name, bytearray())
            location = f"{self.server.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
            return 200, {"Location": location}, b""
        if kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + self._body).get_payload()
            name = json.loads(parts[0].get_content())["name"]
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            # The parser takes carriage returns for its own: the bytes are cut out of the body as they came.
            last = self._body.split(b"--" + boundary)[2]
            content = re.split(rb"\r?\n\r?\n", last, maxsplit=1)[1]
            content = content[:-2] if content.endswith(b"\r\n") else content[:-1]
        else:
            name, content = self._query["name"], self._body
        self._check(objects.get(name))
        return _json(_described(bucket, name, self.server.put(bucket, name, content)))

    def _chunk(self, bucket: str, number: str):
        name, content = self.server.uploads[number]
        content += self._body
        if self.headers.get("Content-Range", "").endswith("/*"):
            return 308, {"Range": f"bytes=0-{len(content) - 1}"}, b""
        return _json(_described(bucket, name, self.server.put(bucket, name, bytes(content))))

    def _delete(self, path: str):
        if match := re.fullmatch(OBJECT, path):
            bucket, name = map(urllib.parse.unquote, match.groups())
            self._object(bucket, name)
            del self._bucket(bucket)[name]
            return 204, {}, b""
        raise _Refused(501)


def _json(found: Any):
    return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()


def _described(bucket: str, name: str, stored: Stored) -> dict[str, Any]:
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "size": str(len(stored.content)),
        "generation": str(stored.generation),
        "metageneration": "1",
        "updated": "2026-01-01T00:00:00.000Z",
        "timeCreated": "2026-01-01T00:00:00.000Z",
    }
