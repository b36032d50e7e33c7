"""A small server on loopback that speaks enough of the Hub's protocol, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40
BLOCK = 65_536


class FakeHub:
    """Serves one repository, `owner/name`; set `fault` to make it misbehave."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.announced = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self.fault = ""
        self.replies: dict[str, tuple[int, bytes, dict[str, str]]] = {}  # end of a path -> answer
        self.token: str | None = None  # asked for if set
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, range
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append((request.command, path, request.headers.get("Range")))
        for end, (status, body, headers) in self.replies.items():
            if path.endswith(end):
                return self.send(request, status, body, headers)
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self.send(request, 401, b"{}", {"X-Error-Code": "GatedRepo"})
        if self.fault in ("401", "403", "429", "500"):
            return self.send(request, int(self.fault), b"{}", {})
        if self.fault == "gated":
            return self.send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/models/owner/name"):
            return self.describe(request, path)
        for name in self.files:
            if path.endswith(f"/{name}") and path.startswith("/owner/name/resolve/"):
                return self.serve(request, name)
        code = {"X-Error-Code": "RepoNotFound" if "owner/name" not in path else "EntryNotFound"}
        return self.send(request, 404, b"{}", code)

    def describe(self, request, path: str) -> None:
        revision = path.partition("/revision/")[2].partition("/")[0]
        if revision not in ("", "main", COMMIT):
            return self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if self.fault == "nonsense":
            return self.send(request, 200, b"<html>", {"Content-Type": "text/html"})
        rows = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in self.files.items()
        ]
        siblings = [
            {"rfilename": row["path"], "size": row["size"], "blobId": row["oid"]}
            | (
                {"lfs": {"sha256": self.announced[row["path"]], "size": row["size"], "pointerSize": 1}}
                if row["path"].endswith(".safetensors")
                else {}
            )
            for row in rows
        ]
        info = {"id": "owner/name", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}}
        body = rows if "/tree/" in path else info
        return self.send(request, 200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def serve(self, request, name: str) -> None:
        content = self.files[name]
        headers = {"ETag": f'"{self.announced[name]}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = request.headers.get("Range")
        first = int(asked.split("=")[1].split("-")[0]) if asked else 0
        if request.command == "HEAD":
            return self.head(request, len(content), headers)
        body = content[first:]
        if asked:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        large = name.endswith(".safetensors")
        if large and self.fault in ("truncated", "reset"):
            request.send_response(206 if asked else 200)
            for key, value in headers.items():
                request.send_header(key, value)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body[: max(1, len(body) // 2)])
            request.wfile.flush()
            request.close_connection = True
            request.connection.close()
            return None
        if large and self.fault == "slow":
            headers["X-Slow"] = "yes"
        return self.send(request, 206 if asked else 200, body, headers, slow=large and self.fault == "slow")

    def head(self, request, length: int, headers: dict[str, str]) -> None:
        request.send_response(200)
        for key, value in headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(length))
        request.end_headers()

    def send(self, request, status: int, body: bytes, headers: dict[str, str], slow: bool = False) -> None:
        self.head_of(request, status, len(body), headers)
        if request.command == "HEAD":
            return
        try:
            for start in range(0, len(body), BLOCK):
                request.wfile.write(body[start : start + BLOCK])
                if slow:
                    request.wfile.flush()
                    time.sleep(0.02)
        except OSError:  # the client has left
            request.close_connection = True

    def head_of(self, request, status: int, length: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(length))
        request.end_headers()
