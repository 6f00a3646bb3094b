"""Local servers that speak as much of the Hub and of Google Cloud Storage as a reader needs."""

import hashlib
import json
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def reply(self, status: int, body: bytes = b"", headers: dict | None = None):
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value, status: int = 200):
        self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def byte_range(self, size: int) -> tuple[int, int] | None:
        """(start, stop) of the Range header within `size` bytes; None without one."""
        if (header := self.headers.get("Range")) is None:
            return None
        first, last = header.removeprefix("bytes=").split("-")
        if not first:
            return max(0, size - int(last)), size
        return int(first), min(int(last) + 1, size) if last else size


class _Threads(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Say nothing of a client that has gone; gcsfs asks twice and takes the first reply."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Server:
    """A server on a free port of this machine, for as long as its `with` lasts."""

    handler: type[_Handler]

    def __enter__(self):
        handler = type("Handler", (self.handler,), {"owner": self})
        self._server = _Threads(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()


class _HubHandler(_Handler):
    owner: "HubServer"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.owner
        path = unquote(urlsplit(self.path).path)
        api = f"/api/models/{hub.repo}"
        hub.requests.append((self.command, path, self.headers.get("Range")))
        name = path.rpartition(f"/resolve/{hub.commit}/")[2]
        status, code = hub.refused.get("api" if path.startswith("/api/") else name, (0, None))
        if status and (self.command == "GET" or status < 500):
            self.reply(status, headers={"X-Error-Code": code} if code else {})
        elif not path.startswith((api, f"/{hub.repo}/")):
            self.reply(404, headers={"X-Error-Code": "RepoNotFound"})
        elif path == api or path.startswith(f"{api}/revision/"):
            if path.rpartition("/revision/")[2] in (api, "main", hub.commit):
                self.reply_json(hub.info())
            else:
                self.reply(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif path == f"{api}/tree/{hub.commit}":
            self.reply_json(hub.tree())
        elif name in hub.files:
            self.send_file(name)
        else:
            self.reply(404, headers={"X-Error-Code": "EntryNotFound"})

    def send_file(self, name: str):
        hub = self.owner
        content = hub.files[name]
        headers = {"X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        status, span = 200, self.byte_range(len(content))
        if span is not None:
            status, (start, stop) = 206, span
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content = content[start:stop]
        if self.command == "GET" and (drop := hub.drop.pop(name, None)) is not None:
            headers["Content-Length"] = str(len(content))
            self.reply(status, content[:drop], headers)
            self.close_connection = True
            return
        if self.command == "GET" and (wait := hub.wait.pop(name, None)) is not None:
            wait.wait(30)
        self.reply(status, content, headers)


class HubServer(_Server):
    """One model repository: `files` at `commit`, the head of main.

    `drop[name]`: the next GET of that file ends after so many bytes. `wait[name]`: the next GET of
    it waits for that event. `refused[name]`: (status, X-Error-Code) instead of that file, or, with
    "api" as the name, of every question about the repository; a status from 500 on is of GET alone.
    `requests`: (method, path, Range).
    """

    handler = _HubHandler
    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, repo: str, files: dict[str, bytes]):
        self.repo, self.files = repo, dict(files)
        self.sizes: dict[str, int] = {}  # what is said of a file's size, where that is not true
        self.drop: dict[str, int] = {}
        self.wait: dict[str, threading.Event] = {}
        self.refused: dict[str, tuple[int, str | None]] = {}
        self.requests: list[tuple[str, str, str | None]] = []

    def size(self, name: str) -> int:
        return self.sizes.get(name, len(self.files[name]))

    def info(self) -> dict:
        siblings = [{"rfilename": name, "size": self.size(name)} for name in self.files]
        return {"id": self.repo, "sha": self.commit, "siblings": siblings}

    def tree(self) -> list[dict]:
        return [
            {"type": "file", "path": name, "size": self.size(name), "oid": _sha1(content)}
            for name, content in self.files.items()
        ]

    def fetched(self) -> list[str]:
        """The files whose content was asked for, in order, once for each request."""
        mark = f"/resolve/{self.commit}/"
        return [
            path.rpartition(mark)[2]
            for how, path, _ in self.requests
            if how == "GET" and mark in path
        ]

    def ranges(self, name: str) -> list[str | None]:
        """The Range headers of the requests for a file's content."""
        return [r for how, path, r in self.requests if how == "GET" and path.endswith(f"/{name}")]


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


class _BucketHandler(_Handler):
    owner: "BucketServer"

    def answer(self):
        """Reply to a request of any method."""
        bucket = self.owner
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        bucket.authorization.append(self.headers.get("Authorization"))
        root = f"/b/{bucket.name}"
        path = url.path.removeprefix("/download").removeprefix("/upload")
        path = path.removeprefix("/storage/v1")
        status = bucket.answers.pop(0) if self.command == "POST" and bucket.answers else None
        bucket.asked += 1
        if bucket.asked - 1 in bucket.refused:
            status = 403
        if (status := status or bucket.status) is not None:
            self.refuse(status)
        elif path == root:
            self.reply_json({"kind": "storage#bucket", "name": bucket.name})
        elif url.path.startswith("/upload/") and path == f"{root}/o":
            self.upload(query, body)
        elif path == f"{root}/o":
            self.reply_json(bucket.page(query))
        elif path.startswith(f"{root}/o/"):
            self.of_object(path.removeprefix(f"{root}/o/"), query)
        else:
            self.refuse(404)

    do_GET = do_POST = do_DELETE = answer

    def refuse(self, status: int):
        message = {401: "denied", 403: "denied", 404: "Not Found"}.get(status, "refused")
        self.reply_json({"error": {"code": status, "message": message}}, status)

    def of_object(self, path: str, query: dict[str, str]):
        name, _, target = path.partition("/moveTo/o/")
        name = unquote(name)
        with self.owner.changing:
            if name not in self.owner.files or not self.owner.matches(name, query):
                self.refuse(404 if name not in self.owner.files else 412)
            elif self.command == "GET":
                self.send_object(name, query)
            elif self.command == "DELETE":
                del self.owner.files[name]
                self.reply(204)
            else:
                self.owner.files[unquote(target)] = self.owner.files.pop(name)
                self.reply_json(self.owner.metadata(unquote(target)))

    def send_object(self, name: str, query: dict[str, str]):
        content = self.owner.files[name]
        if query.get("alt") != "media":
            self.owner.looks.append(name)
            self.reply_json(self.owner.metadata(name))
            return
        start, stop = self.byte_range(len(content)) or (0, len(content))
        if "Range" in self.headers and start >= len(content):
            self.owner.reads.append((name, start, start))
            self.reply(416, headers={"Content-Range": f"bytes */{len(content)}"})
            return
        self.owner.reads.append((name, start, stop))
        headers = {"x-goog-generation": self.owner.generation(name)}
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        status = 206 if "Range" in self.headers else 200
        self.reply(status, content[start:stop], headers)

    def upload(self, query: dict[str, str], body: bytes):
        """Of a whole object, or of a part of one after the request that names it."""
        kind = query["uploadType"]
        if kind == "media":
            self.store(query["name"], body, query)
        elif kind == "multipart":
            boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
            _, described, content, _ = body.split(b"--" + boundary)
            name = json.loads(described.partition(b"\n\n")[2])["name"]
            self.store(name, content.partition(b"\n\n")[2].removesuffix(b"\n"), query)
        elif "upload_id" not in query:
            self.owner.parts[query["name"]] = b""
            self.reply(200, headers={"Location": f"{self.owner.url}{self.path}&upload_id=1"})
        else:
            parts, name = self.owner.parts, query["name"]
            parts[name] += body
            if self.headers["Content-Range"].endswith("/*"):
                self.reply(308, headers={"Range": f"bytes=0-{len(parts[name]) - 1}"})
            else:
                self.store(name, parts.pop(name), query)

    def store(self, name: str, content: bytes, query: dict[str, str]):
        with self.owner.changing:
            if not self.owner.matches(name, query):
                self.refuse(412)
                return
            self.owner.files[name] = content
            self.owner.writes.append(name)
            if self.owner.lost:
                self.owner.lost -= 1
                self.refuse(503)
            else:
                self.reply_json(self.owner.metadata(name))


class BucketServer(_Server):
    """The JSON API of one bucket, as far as tensorstore, gcsfs and Google's own client use it.

    Listings have a few names a page. `status`: what every request is answered with, if not None.
    `refused`: which requests are answered with 403, where `asked` counts them. `answers`: as
    `status` for the next uploads, one each. `lost`: so many uploads are stored and
    answered with 503. `reads`: (name, start, stop) of each media read. `writes`: the names stored.
    `looks`: the names whose metadata was asked for. `authorization`: the Authorization header of
    each request, None without one. An object's generation follows from its content.
    """

    handler = _BucketHandler

    def __init__(self, name: str, files: dict[str, bytes], page_size: int = 3):
        self.name, self.files, self.page_size = name, dict(files), page_size
        self.status: int | None = None
        self.answers: list[int] = []
        self.asked, self.refused = 0, range(0)
        self.lost = 0
        self.reads: list[tuple[str, int, int]] = []
        self.writes: list[str] = []
        self.looks: list[str] = []
        self.authorization: list[str | None] = []
        self.parts: dict[str, bytes] = {}  # of uploads that are not complete
        self.changing = threading.Lock()

    def generation(self, name: str) -> str:
        return str(1 + zlib.crc32(self.files[name]))

    def matches(self, name: str, query: dict[str, str]) -> bool:
        """Whether an object, or its absence, is what a request is conditional on."""
        here = self.generation(name) if name in self.files else "0"
        same = query.get("ifGenerationMatch", here) == here
        return same and query.get("ifGenerationNotMatch") != here

    def metadata(self, name: str) -> dict[str, str]:
        size = str(len(self.files[name]))
        generation = self.generation(name)
        return {"name": name, "bucket": self.name, "size": size, "generation": generation}

    def page(self, query: dict[str, str]) -> dict:
        first, last = query.get("startOffset", ""), query.get("endOffset", "\x7f")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        names = sorted(n for n in self.files.copy() if n.startswith(prefix) and first <= n < last)
        if delimiter:  # what lies in folders of this one stands for them
            ends = {n: n.find(delimiter, len(prefix)) + 1 or len(n) for n in names}
            names = sorted({name[: ends[name]] for name in names})
        start = int(query.get("pageToken", 0))
        stop = start + min(self.page_size, int(query.get("maxResults", self.page_size)))
        shown = names[start:stop]
        items = [self.metadata(name) for name in shown if name in self.files]
        found = {"kind": "storage#objects", "items": items}
        found["prefixes"] = [name for name in shown if name not in self.files]
        return found | ({"nextPageToken": str(stop)} if stop < len(names) else {})
