"""Run the agent of CVAT's command line with `tipsseg.plugins.serve.cvat`, and compare its masks with tipsseg's labels.

    pip install cvat-cli && python tests/readers/cvat_agent.py
    python tests/readers/cvat_agent.py /tmp/cvat/bin/cvat-cli   # installed elsewhere, for the same version of Python

The programs are real: `cvat-cli function create-native` and `cvat-cli function run-agent --burst`. The server is a stand-in on
127.0.0.1. It answers what the source of these programs asks for; anything else is an error. It requests the masks of a task,
of one image, and of one image above a threshold. The labels are of type "mask" and "any".

Not tested, for lack of a CVAT server: that it accepts the function and the masks, and shows them; how it converts uploaded images;
the requests that it really sends. Also not tested: HTTPS, organizations, an agent that waits for requests, reports of progress
(after 30 s), failed requests, polygons, regions of interest, and videos.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import site
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import numpy as np
from cvat_sdk.masks import decode_mask

import tipsseg

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
FRAMES = ("meadow/two-pandas.png", "lake/grey.png", "beach/holiday.jpg", "meadow/panda-and-tree.jpg")
CHUNK = 3  # frames in a zip file
CLASSES = ("panda", "tree", "sky")
LABELS = {101: ("bear", "mask"), 102: ("tree", "any"), 103: ("sky", "mask")}  # of the task: id, name and type, by class
FUNCTION = ["--function-module", "tipsseg.plugins.serve.cvat", "-p", f"classes=str:{','.join(CLASSES)}"]
FUNCTION += ["-p", "model=str:tiny", "-p", "device=str:cpu"]
SECRET = "0123456789abcdef"
DATE = "2026-01-01T00:00:00Z"


@dataclass
class Request:
    """A request to annotate a frame, or all; the agent that took it; and the shapes that it submitted."""

    frame: int | None = None
    threshold: float | None = None
    agent: str | None = None
    shapes: list[dict[str, Any]] | None = None

    @property
    def params(self) -> dict[str, Any]:
        kind = {"type": "annotate_task"} if self.frame is None else {"type": "annotate_frame", "frame": self.frame}
        mapping = {name: {"name": label} for name, (label, _) in zip(CLASSES, LABELS.values(), strict=True)}
        return {**kind, "task": 1, "threshold": self.threshold, "mapping": mapping, "conv_mask_to_poly": False}

    def compare(self) -> str:
        """Compare the shapes with the labels of the frames. Return a summary; raise ValueError if they differ."""
        frames, shapes = range(len(FRAMES)) if self.frame is None else [self.frame], self.shapes or []
        if any(shape["type"] != "mask" or shape["frame"] not in frames for shape in shapes):
            raise ValueError("shapes that are not masks, or of other frames")
        pixels = differ = 0
        for frame in frames:
            result = tipsseg.label(SCENES / FRAMES[frame], CLASSES, model="tiny", device="cpu")
            wanted, ids = result.labels.copy(), np.zeros_like(result.labels)
            for found in result.find_objects():
                if found.score < (self.threshold or 0):
                    wanted[found.mask] = 0
            for shape in (shape for shape in shapes if shape["frame"] == frame):
                mask = decode_mask(shape["points"], image_height=ids.shape[0], image_width=ids.shape[1])
                differ += int(ids[mask].astype(bool).sum())  # shapes do not overlap
                ids[mask] = list(LABELS).index(shape["label_id"]) + 1
            pixels += ids.size
            differ += int((ids != wanted).sum())
        kind, images = self.params["type"], len(frames)
        summary = f"{kind}: {images} frames, {len(shapes)} masks, {differ} of {pixels} pixels differ"
        if differ or not shapes:
            raise ValueError(summary)
        return summary


class Server(ThreadingHTTPServer):
    """The stand-in for CVAT's server. `answers` are bytes, or values for JSON, by method, path and sorted query."""

    def __init__(self, version: str, requests: list[Request]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = requests
        self.errors: list[str] = []
        about = dict.fromkeys(("name", "description", "subtitle", "logo_url"), "stand-in")
        chunks = {"size": len(FRAMES), "data_chunk_size": CHUNK, "data_original_chunk_type": "imageset"}
        task = {"jobs": {"completed": 0, "validation": 0}, "labels": {}, "organization": None, "updated_date": DATE}
        frames = [{"name": name, "related_files": 0} for name in FRAMES]
        labels = [
            {"id": number, "name": name, "type": kind, "attributes": [], "sublabels": []}
            for number, (name, kind) in LABELS.items()
        ]
        self.answers = {
            "GET server/about?": {**about, "version": version},
            "POST auth/login?": {"key": SECRET},
            "GET tasks/1?": {"id": 1, **task, **chunks},
            "GET tasks/1/data/meta?": {"chunks_updated_date": DATE, "deleted_frames": [], "frames": frames},
            "GET labels?page=1&task_id=1": {"count": len(labels), "next": None, "previous": None, "results": labels},
        }
        data = "GET tasks/1/data?number=%d&quality=original&type=%s"
        for number, name in enumerate(FRAMES):
            self.answers[data % (number, "frame")] = (SCENES / name).read_bytes()
        for start in range(0, len(FRAMES), CHUNK):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                for name in FRAMES[start : start + CHUNK]:
                    archive.write(SCENES / name, name)
            self.answers[data % (start // CHUNK, "chunk")] = file.getvalue()

    def find(self, key: str, body: Any) -> Any:
        """Return the answer to a request."""
        path = key.removeprefix("POST functions/queues/function:1/requests/").split("/")
        if key == "POST functions?":
            self.answers["GET functions/1?"] = {"id": 1, **body}
            return self.answers["GET functions/1?"]
        if path == ["acquire?"]:
            for number, request in enumerate(self.requests):
                category = "batch" if request.frame is None else "interactive"
                if (request.agent, category) == (None, body["request_category"]):
                    request.agent = body["agent_id"]
                    return {"ar_assignment": {"ar_id": str(number), "ar_params": request.params}}
            return {"ar_assignment": None}
        if path[1:] == ["complete?"]:
            request = self.requests[int(path[0])]
            if (request.agent, request.shapes) != (body["agent_id"], None):
                raise ValueError("another agent took it, or it is complete")
            request.shapes = body["annotations"]["shapes"]
            return {}
        return {} if path[1:] == ["update?"] else self.answers[key]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path).removeprefix("/api/").rstrip("/"), urlencode(sorted(parse_qsl(url.query)))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        known = SECRET in self.headers.get("Cookie", "") + self.headers.get("Authorization", "")
        try:
            if not known and path not in ("server/about", "auth/login"):
                raise PermissionError("not logged in")
            found, status = self.server.find(f"{self.command} {path}?{query}", json.loads(body or "null")), 200
        except Exception as error:
            self.server.errors.append(f"{self.command} {self.path} {body[:1000]!r}: {error!r}")
            found, status = {"detail": repr(error)}, 400
        data = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if data is found else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name in ("sessionid", "csrftoken") if path == "auth/login" else ():
            self.send_header("Set-Cookie", f"{name}={SECRET}; Path=/")
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def run(command: list[str], log: Path, **variables: str) -> str:
    """Run a program with the packages of this one, and return what it prints. End all processes that it started."""
    packages = [str(Path(tipsseg.__file__).parents[1]), *site.getsitepackages(), os.environ.get("PYTHONPATH", "")]
    variables |= dict.fromkeys(("TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(log.parent))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(packages).strip(os.pathsep), **variables}
    pipe = subprocess.PIPE
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=file, start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-5000:]}")
    return printed.decode().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the agent of cvat-cli with a stand-in for CVAT's server.")
    parser.add_argument("program", nargs="*", default=[sys.executable, "-m", "cvat_cli"], help="the program cvat-cli")
    program = parser.parse_args().program
    requests = [Request(), Request(frame=1), Request(frame=0, threshold=0.5)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.txt")
        version = run([*program, "--version"], log)
        with Server(version, requests) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            command = [*program, "--server-host", f"http://127.0.0.1:{server.server_port}"]
            try:
                create = [*command, "--auth", "tester", "function", "create-native", "tipsseg", *FUNCTION]
                number = run(create, log, PASS=SECRET)
                agent = [*command, "function", "run-agent", number, "--burst", *FUNCTION]
                run(agent, log, CVAT_ACCESS_TOKEN=SECRET)
            finally:
                server.shutdown()
        done = sum(request.shapes is not None for request in requests)
        seconds = time.monotonic() - began
        print(f"cvat-cli {version}: {done} of {len(requests)} requests completed in {seconds:.1f} s")
        if server.errors or done < len(requests):
            raise SystemExit("\n".join([log.read_text()[-5000:], *server.errors]))
    print(*(request.compare() for request in requests), sep="\n")


if __name__ == "__main__":
    main()
