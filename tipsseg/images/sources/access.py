"""Open and identify an image by its address. Nothing else in the program knows what kind of place an image is in.

The functions are thread-safe, and raise OSError with a reason if an image cannot be read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from io import BytesIO, FileIO
from pathlib import Path

from tipsseg.address import is_url
from tipsseg.images.sources.address import VIDEOS, container_of, suffix_of
from tipsseg.images.sources.archives import TarArchive, ZipArchive
from tipsseg.images.sources.container import Container, Member, Stamp
from tipsseg.images.sources.remote import FileCache, remote_stamp
from tipsseg.images.sources.tables import ParquetTable
from tipsseg.images.sources.video import Video
from tipsseg.options.every import Every
from tipsseg.util.files import open_regular
from tipsseg.util.fingerprint import HASH_LIMIT, Fingerprint

#: Containers that stay open.
_OPEN = 16

_KINDS: dict[str, Callable[[Path], Container]] = {
    ".tar": TarArchive, ".zip": ZipArchive, ".parquet": ParquetTable, **dict.fromkeys(VIDEOS, Video),
}  # fmt: skip

_FETCHED = FileCache()


def open_source(path: Path) -> FileIO | BytesIO:
    """Open an image's file, unbuffered, or its bytes in memory. Refuse folders, pipes and devices."""
    if (data := _HELD.get(str(path))) is not None:
        return BytesIO(data)
    inside = container_of(path)
    if inside is not None:
        return _open_container(inside).open(_name(path, inside))
    if is_url(path):
        with _local(path) as place:
            return FileIO(place)
    return open_regular(path).detach()  # type: ignore[return-value]  # it detaches a FileIO


def stamp_source(path: Path) -> Stamp:
    """Return the version of an image, without reading it."""
    inside = container_of(path)
    if inside is not None:
        outer = stamp_source(inside)
        return Stamp(_open_container(inside).size(_name(path, inside)), outer.mtime_ns, outer.inode)
    if is_url(path):
        return remote_stamp(path)
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def absence(path: Path) -> str:
    """Return the reason why a recorded image does not exist."""
    return "not found; the password of its URL, if it has one, is not recorded" if is_url(path) else "no such file"


def exists(path: Path) -> bool:
    """Return True if an image exists. Return False on any error."""
    try:
        if is_url(path) or container_of(path) is not None:
            stamp_source(path)
            return True
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def identify(path: Path, *, any_size: bool = False) -> tuple[Fingerprint, str]:
    """Return the fingerprint of an image, and its sha256; "" above HASH_LIMIT unless `any_size`."""
    before = stamp_source(path)
    with open_source(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest() if any_size or size <= HASH_LIMIT else ""
    return Fingerprint(size, before.mtime_ns, sha256 if size <= HASH_LIMIT else None), sha256


def matches(known: Fingerprint, path: Path) -> bool:
    """Return True if an image has this size and time, or this content with a different time, for example after copying."""
    try:
        now = stamp_source(path)
        if now.size not in (None, known.size):
            return False
        return now.mtime_ns == known.mtime_ns or (known.sha256 is not None and identify(path)[1] == known.sha256)
    except (OSError, ValueError):
        return False


def is_plain(path: Path) -> bool:
    """Return True for an image that is a file of its own on this machine."""
    return not is_url(path) and container_of(path) is None


def list_members(path: Path, every: Every | None) -> Iterator[Member]:
    """Yield the members of a container, in order. `every` is the interval of frames, which a video needs."""
    container = _open_container(path)
    if isinstance(container, Video) and every is not None:
        return container.every(every)
    return container.members()


@contextmanager
def local_file(path: Path) -> Iterator[Path]:
    """Yield an image's file on this machine, fetched if it is behind a URL. Raise OSError for a member of another file."""
    if container_of(path) is not None:
        raise OSError("inside another file, where it cannot be read by windows; unpack it")
    with _local(path) as file:
        yield file


# ---- reading ahead ----

_HELD: dict[str, bytes] = {}


def needs_order(path: Path) -> bool:
    """Return True if `hold` is slow out of order."""
    inside = container_of(path)
    return inside is not None and suffix_of(inside) in VIDEOS


def needs_hold(path: Path) -> bool:
    """Return True if reading takes long, so that `hold` should read ahead."""
    return is_url(path) or needs_order(path)


def hold(path: Path) -> None:
    """Begin to read an image, or read it now if order matters, and keep it at hand until `release`.

    Errors are raised by `open_source`.
    """
    if not needs_order(path):
        _FETCHED.begin(container_of(path) or path)
        return
    with suppress(OSError, ValueError), closing(open_source(path)) as frame:
        _HELD[str(path)] = frame.read()


def abandon(path: Path) -> None:
    """End the waiting for a held image."""
    _FETCHED.abandon(container_of(path) or path)


def release(path: Path) -> None:
    """End `hold`."""
    if needs_order(path):
        _HELD.pop(str(path), None)
    else:
        _FETCHED.release(container_of(path) or path)


# ---- containers ----

_lock = threading.Lock()
_containers: OrderedDict[tuple[str, Stamp], Container] = OrderedDict()


def _name(path: Path, inside: Path) -> str:
    return path.relative_to(inside).as_posix()


def _open_container(path: Path) -> Container:
    """Return an open container; recently used ones stay open until nobody uses them."""
    key = str(path), stamp_source(path)
    with _local(path) as file, _lock:
        container = _containers.get(key)
        if container is None:
            container = _containers[key] = _KINDS[suffix_of(path)](file)
            if is_url(path):
                _FETCHED.hold(path)
                weakref.finalize(container, _FETCHED.release, path)
            if len(_containers) > _OPEN:
                _containers.popitem(last=False)
        _containers.move_to_end(key)
        return container


@contextmanager
def _local(path: Path) -> Iterator[Path]:
    """Yield a local copy of a file, or the file itself."""
    if not is_url(path):
        yield path
        return
    try:
        yield _FETCHED.hold(path)
    finally:
        _FETCHED.release(path)
