"""Pictures in other places than files: archives, tables, videos, and an HTTP server that misbehaves."""

from __future__ import annotations

import io
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest
from PIL import Image

from tipsseg.images import remote
from tipsseg.plugins.cloud import fetching


def picture(shade: int, size: tuple[int, int] = (64, 96)) -> bytes:
    """A PNG of one shade, with a square in it."""
    pixels = np.full((*size, 3), shade, np.uint8)
    pixels[8:40, 16:60] = 255 - shade
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_parquet(path: Path, rows: Sequence[Any], column: str = "image", group: int = 2) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({column: rows, "label": list(range(len(rows)))}), path, row_group_size=group)
    return path


def write_video(
    path: Path, frames: int, rate: float = 10, size: tuple[int, int] = (64, 96), codec: str = "mp4v"
) -> Path:
    """A video whose frame n has the shade 2 * n, with a square that moves."""
    import cv2

    height, width = size
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, (width, height))
    assert writer.isOpened()
    for number in range(frames):
        pixels = np.full((height, width, 3), 2 * number, np.uint8)
        pixels[8:40, number : number + 20] = 255
        writer.write(pixels)
    writer.release()
    return path


@dataclass
class Site:
    """What a web server has, and how it answers.

    Attributes:
        files: Content by path, as "/a.png".
        faults: For a path, what happens at each GET in turn: a status, "cut" (half of the file), "drip" (a byte a second) or "".
        gets: How often each path was read.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    gets: Counter[str] = field(default_factory=Counter)
    url: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer(head=False)

        def _answer(self, *, head: bool) -> None:
            path = unquote(self.path.split("?")[0])
            if not head:
                site.gets[path] += 1
            faults = site.faults.get(path, [])
            fault = faults.pop(0) if faults and not head else ""
            data, kind = site.files.get(path), "image/png"
            if path.endswith("/") and any(name.startswith(path) for name in site.files):
                below = (name.removeprefix(path).partition("/") for name in site.files if name.startswith(path))
                names = dict.fromkeys(first + slash for first, slash, _ in below)
                data = "".join(f'<a href="{quote(name)}">{name}</a>' for name in names).encode()
                kind = "text/html"
            elif data is None and any(name.startswith(f"{path}/") for name in site.files):
                self.send_response(301)
                self.send_header("Location", f"{path}/")
                self.end_headers()
                return
            if data is None or isinstance(fault, int):
                self.send_error(404 if data is None else int(fault))
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if path in site.etags:
                self.send_header("ETag", site.etags[path])
            self.end_headers()
            if head:
                return
            if fault == "drip":
                with suppress(OSError):  # until the client leaves
                    for byte in data:
                        self.wfile.write(bytes([byte]))
                        time.sleep(1)
                return
            self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an empty bucket, "bucket", on a server of this machine that s3:// leads to."""
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    variables = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}
    for name, value in {**variables, "ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    S3FileSystem.clear_instance_cache()
    remote._scheme.cache_clear()
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        yield client
    finally:
        server.stop()
        S3FileSystem.clear_instance_cache()
        remote._scheme.cache_clear()


def forget_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process like a new one, which has fetched nothing; and let it not wait between attempts."""
    monkeypatch.setattr(fetching, "PAUSE", 0)
    remote._fetched.clear()
    remote._STAMPS.clear()
