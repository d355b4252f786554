"""A small hub on 127.0.0.1 that speaks the endpoints that a download from the Hugging Face hub uses.

HEAD and GET of /{owner}/{name}/resolve/{revision}/{file}, with a redirect of large files to a content server at another
port (so another origin, which must not see the token), byte ranges, and the hub's error codes. It can be told to
misbehave, and keeps a list of what it was asked.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

_RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@dataclass
class Fault:
    """How the answers about one file go wrong; `times` limits how often."""

    times: int | None = None
    methods: tuple[str, ...] = ("HEAD", "GET")
    status: int | None = None
    code: str | None = None  # X-Error-Code
    headers: dict[str, str | None] = field(default_factory=dict)  # replaced, or left out where None
    content: bytes | None = None  # these bytes instead, at the length that they have
    cut: int | None = None  # the connection ends after this byte of the file
    stall: int | None = None  # nothing more comes after this byte of the file
    delay: float = 0.0  # seconds before the answer
    ignore_range: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    name: str
    content_server: bool
    range: str | None
    token: str | None


@dataclass(frozen=True)
class _File:
    content: bytes
    large: bool

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

    def add(self, repository: str, revision: str, name: str, content: bytes, *, large: bool) -> None:
        self._files[repository, revision, name] = _File(content, large)

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

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _answer(self) -> None:
        hub = self.server.hub
        match = _RESOLVE.fullmatch(self.path)
        if match is None:
            self._head(404, {})
            return
        content_server = self.headers["Host"] in hub.content_url
        name = match["name"]
        with hub.lock:
            asked = Request(self.command, name, content_server, self.headers["Range"], self.headers["Authorization"])
            hub.requests.append(asked)
        file = hub.find(match["repository"], match["revision"], name)
        if isinstance(file, tuple):
            self._head(file[0], {"X-Error-Code": file[1]})
            return
        # The fault belongs to the answer that carries the content, or to the HEAD.
        redirect = file.large and not content_server
        fault = Fault() if redirect and self.command == "GET" else hub.take_fault(self.command, name)
        hub.closing.wait(fault.delay)
        if fault.status is not None:
            self._head(fault.status, {"X-Error-Code": fault.code, **fault.headers})
            return
        headers: dict[str, str | None] = {"X-Repo-Commit": match["revision"], "Accept-Ranges": "bytes"}
        if redirect:
            headers["Location"] = hub.content_url + self.path
            headers |= {"X-Linked-Size": str(len(file.content)), "X-Linked-Etag": f'"{file.etag}"'}
            self._head(302, headers | fault.headers)
            return
        headers["ETag"] = f'"{file.etag}"'
        self._body(file.content if fault.content is None else fault.content, fault, headers | fault.headers)

    def _body(self, content: bytes, fault: Fault, headers: dict[str, str | None]) -> None:
        start = 0
        status = 200
        if self.headers["Range"] and not fault.ignore_range:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                self._head(416, {"Content-Range": f"bytes */{len(content)}"})
                return
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

    def _head(self, status: int, headers: dict[str, str | None]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": "0", **headers}.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
