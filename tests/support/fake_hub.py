"""A small hub on 127.0.0.1 that speaks the endpoints that a download from the Hugging Face hub uses.

HEAD and GET of /{owner}/{name}/resolve/{revision}/{file}, with a redirect of large files to a content server at another
port (so another origin, which must not see the token), byte ranges, and the hub's error codes; and as much of Xet, at the
content server, as brings a file in one piece. It can be told to misbehave, and keeps a list of what it was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

_RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_CHUNK = 1 << 16  # bytes; Xet refuses larger ones than twice that


@dataclass
class Fault:
    """How the answers about one file go wrong; `times` limits how often."""

    times: int | None = None
    methods: tuple[str, ...] = ("HEAD", "GET")
    status: int | None = None
    code: str | None = None  # X-Error-Code
    content: bytes | None = None  # these bytes instead, at the length that they have
    cut: int | None = None  # the connection ends after this byte of the file
    stall: int | None = None  # nothing more comes after this byte of the file
    delay: float = 0.0  # seconds before the answer


@dataclass(frozen=True)
class Request:
    method: str
    name: str
    content_server: bool
    range: str | None
    agent: str | None


@dataclass(frozen=True)
class _File:
    content: bytes
    large: bool
    xet: bool

    @property
    def etag(self) -> str:
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


class FakeHub:
    """`with FakeHub() as hub:` serves; `hub.url` is the endpoint."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: dict[str, Fault] = {}
        self.stalled = threading.Event()  # set when a stalling answer has sent its part
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._files: dict[tuple[str, str, str], _File] = {}
        self._servers = [_Server(("127.0.0.1", 0), _Handler) for _ in range(2)]
        for server in self._servers:
            server.hub = self
        self.url, self.content_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def add(self, repository: str, revision: str, name: str, content: bytes, *, large: bool, xet: bool = False) -> None:
        self._files[repository, revision, name] = _File(content, large, xet)

    def find_xet(self, digest: str) -> tuple[str, _File] | None:
        """Name and content of a file that is to be had by Xet; its hash there is its sha256, as any would do."""
        return next(((key[2], file) for key, file in self._files.items() if file.xet and file.etag == digest), None)

    def find(self, repository: str, revision: str, name: str) -> _File | tuple[int, str]:
        """The file, or the status and the error code of the hub."""
        if not any(key[0] == repository for key in self._files):
            return 401, "RepoNotFound"
        if not any(key[:2] == (repository, revision) for key in self._files):
            return 404, "RevisionNotFound"
        return self._files.get((repository, revision, name), (404, "EntryNotFound"))

    def take_fault(self, method: str, name: str) -> Fault:
        with self.lock:
            fault = self.faults.get(name)
            if fault is None or method not in fault.methods or fault.times == 0:
                return Fault()
            if fault.times is not None:
                fault.times -= 1
            return fault

    def bodies(self, name: str) -> list[Request]:
        """The requests for the content of one file, at whichever server has it."""
        hub_has_it = not any(file.large for key, file in self._files.items() if key[2] == name)
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.name == name and (hub_has_it or request.content_server)
        ]

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: FakeHub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        """What Xet reports; nobody wants to know."""
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._head(200, {})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _answer(self) -> None:
        hub = self.server.hub
        match = _RESOLVE.fullmatch(self.path)
        if match is None:
            self._answer_of_xet()
            return
        content_server = self.headers["Host"] in hub.content_url
        name = match["name"]
        self._note(name, content_server=content_server)
        file = hub.find(match["repository"], match["revision"], name)
        if isinstance(file, tuple):
            self._head(file[0], {"X-Error-Code": file[1]})
            return
        # The fault belongs to the answer that carries the content, or to the HEAD.
        redirect = file.large and not content_server
        fault = Fault() if redirect and self.command == "GET" else hub.take_fault(self.command, name)
        hub.closing.wait(fault.delay)
        if fault.status is not None:
            self._head(fault.status, {"X-Error-Code": fault.code})
            return
        headers: dict[str, str | None] = {"X-Repo-Commit": match["revision"], "Accept-Ranges": "bytes"}
        if redirect:
            headers["Location"] = hub.content_url + self.path
            headers |= {"X-Linked-Size": str(len(file.content)), "X-Linked-Etag": f'"{file.etag}"'}
            if file.xet:
                headers |= {"X-Xet-Hash": file.etag, "X-Xet-Refresh-Route": f"{hub.url}/xet-token"}
            self._head(302, headers)
            return
        headers["ETag"] = f'"{file.etag}"'
        self._body(file.content if fault.content is None else fault.content, fault, headers)

    def _note(self, name: str, *, content_server: bool) -> None:
        with self.server.hub.lock:
            sent = (self.headers[key] for key in ("Range", "User-Agent"))
            self.server.hub.requests.append(Request(self.command, name, content_server, *sent))

    def _answer_of_xet(self) -> None:
        """Where the content is, how it is made of chunks of stored blocks (here: of one), and the block."""
        hub = self.server.hub
        digest = self.path.rpartition("/")[2]
        if self.path == "/xet-token":
            self._note("xet-token", content_server=False)
            place, secret, expires = f"{hub.content_url}/xet", "xet-secret", int(time.time()) + 3600
            headers = {"X-Xet-Cas-Url": place, "X-Xet-Access-Token": secret, "X-Xet-Token-Expiration": str(expires)}
            self._json({"casUrl": place, "accessToken": secret, "exp": expires}, headers)
            return
        found = hub.find_xet(digest)
        if found is None or "/v2/" in self.path or self.command != "GET":  # the second version need not be there
            self._head(404, {})
            return
        name, file = found
        block = self.path.startswith("/block/")
        fault = hub.take_fault("GET", name) if block else Fault()
        self._note(name if block else "xet-plan", content_server=True)
        content = file.content if fault.content is None else fault.content
        parts = [content[start : start + _CHUNK] for start in range(0, len(content), _CHUNK)]
        # Before each chunk of a block: version, length as stored, kind of compression (none), length.
        stored = b"".join(b"\0%b\0%b%b" % (*[len(part).to_bytes(3, "little")] * 2, part) for part in parts)
        if fault.status is not None:
            self._head(fault.status, {})
        elif block:
            self._head(
                206, {"Content-Length": str(len(stored)), "Content-Range": f"bytes 0-{len(stored) - 1}/{len(stored)}"}
            )
            self.wfile.write(stored)
        else:
            chunks, places = {"start": 0, "end": len(parts)}, {"start": 0, "end": len(stored) - 1}
            where = {"range": chunks, "url": f"{hub.content_url}/block/{digest}", "url_range": places}
            term = {"hash": digest, "unpacked_length": len(content), "range": chunks}
            plan = {"offset_into_first_range": 0, "terms": [term], "fetch_info": {digest: [where]}}
            self._json(plan, {})

    def _body(self, content: bytes, fault: Fault, headers: dict[str, str | None]) -> None:
        start = 0
        status = 200
        if self.headers["Range"]:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            status = 206
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self._head(status, {"Content-Length": str(len(content) - start), **headers})
        if self.command == "HEAD":
            return
        end = min(len(content), *(n for n in (fault.cut, fault.stall) if n is not None), len(content))
        try:
            self.wfile.write(content[start:end])
            self.wfile.flush()
        except OSError:
            return  # the client was killed or had enough
        if fault.stall is not None:
            self.server.hub.stalled.set()
            self.server.hub.closing.wait(30)
        if end < len(content):
            self.close_connection = True

    def _json(self, value: object, headers: dict[str, str]) -> None:
        data = json.dumps(value).encode()
        self._head(200, {**headers, "Content-Type": "application/json", "Content-Length": str(len(data))})
        self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str | None]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": "0", **headers}.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
