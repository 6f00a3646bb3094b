"""A local server that speaks as much of the Hub as a writer needs, git-LFS uploads included."""

import base64
import hashlib
import json
import threading
from urllib.parse import unquote, urlsplit

from support.servers import HubServer

TOKEN = "hf_good"


class _Handler(HubServer.handler):
    owner: "WritableHub"

    def do_GET(self):
        hub, path = self.owner, urlsplit(self.path).path
        if path == "/api/whoami-v2":
            if self.allowed():
                self.reply_json({"name": "someone", "type": "user"})
        elif not hub.exists:
            self.reply(404, headers={"X-Error-Code": "RepoNotFound"})
        else:
            super().do_GET()

    def allowed(self) -> bool:
        """Whether the request has a token that is known; the reply is written if not."""
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.refuse(401, "Invalid credentials in Authorization header")
        return False

    def refuse(self, status: int, message: str):
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        self.reply(status, json.dumps({"error": message}).encode(), headers)

    def content(self) -> bytes:
        """The body of the request, also one in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        hub, path = self.owner, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, None))
        body = self.content()
        last = path.rpartition("/")[0].rpartition("/")[2]  # of .../preupload/main
        if path in hub.cut or last in hub.cut:
            self.close_connection = True
        elif not self.allowed():
            pass
        elif path == "/api/validate-yaml":
            self.reply_json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif not hub.may_write:
            self.refuse(403, "no right to write")
        elif path == f"/api/models/{hub.repo}/preupload/main":
            self.reply_json({"files": [hub.mode(file) for file in json.loads(body)["files"]]})
        elif path == f"/{hub.repo}.git/info/lfs/objects/batch":
            self.reply_json({"objects": [hub.upload(one) for one in json.loads(body)["objects"]]})
        elif path == f"/api/models/{hub.repo}/commit/main":
            self.commit([json.loads(line) for line in body.splitlines()])
        else:
            self.reply(404)

    def create(self, asked: dict):
        hub = self.owner
        if f"{asked['organization']}/{asked['name']}" != hub.repo:
            self.refuse(403, "You don't have the rights to create a model under this namespace")
        elif hub.exists:
            body = json.dumps({"url": f"{hub.url}/{hub.repo}", "error": "exists"}).encode()
            self.reply(409, body, {"Content-Type": "application/json"})
        else:
            hub.exists, hub.private = True, asked.get("visibility") == "private"
            hub.files = {".gitattributes": b"*.safetensors filter=lfs\n"}
            self.reply_json({"url": f"{hub.url}/{hub.repo}"})

    def commit(self, lines: list[dict]):
        """All operations or none: an object that was not uploaded refuses them."""
        hub, files = self.owner, dict(self.owner.files)
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    if value.get("parentCommit", hub.commit) != hub.commit:
                        return self.refuse(412, "a commit has happened since")
                    hub.messages.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in hub.objects:
                        return self.refuse(400, f"{value['path']} was not uploaded")
                    files[value["path"]] = hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        hub.files, hub.commit = files, hashlib.sha1(repr(lines).encode()).hexdigest()
        url = f"{hub.url}/{hub.repo}/commit/{hub.commit}"
        self.reply_json({"commitUrl": url, "commitOid": hub.commit})

    def do_PUT(self):
        hub, oid = self.owner, self.path.rpartition("/")[2]
        hub.requests.append((self.command, self.path, None))
        if "lfs" in hub.cut:
            self.rfile.read(100)
            self.close_connection = True
            return
        if hub.hold is not None:
            hub.held.set()
            hub.hold.wait(60)
        content = self.content()
        assert hashlib.sha256(content).hexdigest() == oid
        hub.objects[oid] = content
        self.reply(200)


class WritableHub(HubServer):
    """A repository that may be made and written, by whoever has `TOKEN`.

    `exists`: it is there. `may_write`: the token may write to it. `cut`: requests after which the
    connection ends without a reply: a path, "preupload", "commit", or "lfs" for uploads. `hold`:
    uploads wait for it, and `held` tells that one does. `objects`: what was uploaded, by its
    SHA-256. `messages`: the summaries of the commits. Files called *.safetensors are of git LFS.
    """

    handler = _Handler

    def __init__(self, repo: str, files: dict[str, bytes] | None = None):
        super().__init__(repo, files or {})
        self.exists, self.private, self.may_write = files is not None, False, True
        self.cut: set[str] = set()
        self.hold: threading.Event | None = None
        self.held = threading.Event()
        self.objects: dict[str, bytes] = {}
        self.messages: list[str] = []

    def info(self) -> dict:
        return super().info() | {"private": self.private}

    def mode(self, file: dict) -> dict:
        """How a file is to be sent, and the digest of the one that is there."""
        name, lfs = file["path"], file["path"].endswith(".safetensors")
        known = self.files.get(name)
        oid = None
        if known is not None and lfs:
            oid = hashlib.sha256(known).hexdigest()
        elif known is not None:
            oid = hashlib.sha1(b"blob %d\0" % len(known) + known).hexdigest()
        mode = "lfs" if lfs else "regular"
        return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def upload(self, asked: dict) -> dict:
        """Where an object of git LFS is to be sent; nowhere if it is there."""
        if asked["oid"] in self.objects:
            return asked
        return asked | {"actions": {"upload": {"href": f"{self.url}/lfs/{asked['oid']}"}}}
