"""Name, open and identify an image by its address: of a file, a URL, or a file and the name of an image in it.

    photos/a.jpg    s3:/bucket/a.jpg    shard-000.tar/a.jpg    train.parquet/000012.jpg    clip.mp4/000120

A Path joins the two slashes of a URL into one; `printable_path` restores them, and `tipsseg.address` keeps the secrets of URLs.
Nothing else in the program knows what kind of place an image is in. The functions are thread-safe, and raise OSError with a reason
if an image cannot be read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from io import BytesIO, FileIO
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from tipsseg.address import is_url, is_web, suffix_of, without_query
from tipsseg.images.containers import Container, Member, Stamp, TarArchive, Video, ZipArchive
from tipsseg.images.remote import Copy, begin_fetch, remote_stamp
from tipsseg.options.values import Every
from tipsseg.plugins import load_plugin, names
from tipsseg.util.files import HASH_LIMIT, Fingerprint, actual_path, open_regular

VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts", ".3gp"})

#: Suffixes of files with images in them, and what reads these; None if a plugin does.
_KINDS: dict[str, type[Container] | None] = {
    **{f".{name}": None for name in names("container")}, ".tar": TarArchive, ".zip": ZipArchive, **dict.fromkeys(VIDEOS, Video),
}  # fmt: skip
CONTAINERS = frozenset(_KINDS)


def kind_of(path: PurePath) -> type[Container]:
    """Return what reads a file with images in it. Raise PluginError if a plugin cannot be loaded."""
    suffix = suffix_of(path)
    kind: type[Container] = _KINDS[suffix] or load_plugin("container", suffix[1:])
    return kind


def absolute(path: Path) -> Path:
    """Return an absolute path without resolving links, which would change names; a URL is returned as it is."""
    return path if is_url(path) else Path(os.path.abspath(path))  # noqa: PTH100


def real_path(path: Path) -> str:
    """Return the path of a file with links resolved; a URL, and a name that no file can have, is returned as it is."""
    return str(path) if is_url(path) or "\0" in str(path) else os.path.realpath(path)


#: A container in the middle of an address.
_INSIDE = re.compile(rf"({'|'.join(map(re.escape, sorted(CONTAINERS)))})[/\\\\]", re.IGNORECASE)


def container_of(path: Path) -> Path | None:
    """Return the file that an image is in, such as an archive; None if the address names a file itself."""
    if _INSIDE.search(str(path)) is None:  # nearly all images, at a fraction of the time
        return None
    for parent in path.parents:
        if parent.suffix.lower() in CONTAINERS and (is_url(parent) or os.path.isfile(parent)):  # noqa: PTH113
            return parent
    return None


def name_below(path: Path, root: Path) -> PurePosixPath | None:
    """Return the name of an image below the folder `root`; None if it is outside.

    The name of a container loses its suffix. The name of a URL loses its query, and its escapes are decoded.
    """
    whole = absolute(path)
    if not whole.is_relative_to(root):
        return None
    inside = container_of(whole)
    if inside is None or not inside.is_relative_to(root) or inside == root:
        return plain_name(whole.relative_to(root), whole)
    outer = plain_name(inside.relative_to(root), whole).with_suffix("")
    return outer / PurePosixPath(*whole.relative_to(inside).parts)


def plain_name(relative: PurePath, address: Path) -> PurePosixPath:
    """Return the end of an address as a name, without the query of a URL. Escapes of the web are decoded, except of separators."""
    if is_web(address):
        return PurePosixPath(*map(_decode, relative.parts))
    return PurePosixPath(without_query(relative.as_posix()) if is_url(address) else relative)


def _decode(part: str) -> str:
    plain = part.split("?", maxsplit=1)[0]
    decoded = unquote(plain)
    return plain if decoded in (".", "..") or {"/", "\\", "\0"} & set(decoded) else decoded


def below(root: Path, name: str, recorded: str = "") -> Path:
    """Return the address of the image called `name` in records, below the folder `root`: the reverse of `name_below`.

    An image that is not there has the address that was `recorded`, unless that does not exist either.
    """
    literal = actual_path(root, name)
    if not is_url(root):
        if os.path.lexists(literal):
            return literal
        for folder in literal.parents:
            if folder == root:
                break
            for suffix in sorted(CONTAINERS):
                if os.path.isfile(container := folder.with_name(folder.name + suffix)):  # noqa: PTH113
                    return container / literal.relative_to(folder)
    noted = actual_path(Path(), recorded)
    return noted if recorded and (is_url(noted) or os.path.lexists(noted) or container_of(noted)) else literal


# ---- opening ----


#: Containers that stay open.
_OPEN = 16


def open_source(path: Path) -> FileIO | BytesIO:
    """Open an image's file, unbuffered, or its bytes in memory. Reject folders, pipes and devices."""
    if isinstance(frame := _HELD.get(str(path)), bytes):
        return BytesIO(frame)
    inside = container_of(path)
    if inside is not None:
        return _open_container(inside).open(_name(path, inside))
    if is_url(path):
        copy = begin_fetch(path).result()
        file = FileIO(copy.path)
        weakref.finalize(file, id, copy)  # keeps the copy as long as the file
        return file
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


def is_gone(path: Path) -> bool:
    """Return True if an image was removed. Return False on any error but its absence, and for rows and frames of a file."""
    try:
        inside = container_of(path)
        if inside is not None and not kind_of(inside).has_files:
            return False
        if inside is not None or is_url(path):
            stamp_source(path)
        else:
            path.lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        pass
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
    """Return True if a file has this size and time, or this content with a different time, for example after copying."""
    try:
        now = stamp_source(path)
        if now.size not in (None, known.size):
            return False
        if now.mtime_ns == known.mtime_ns:
            return True
        return known.sha256 is not None and identify(path, any_size=True)[1] == known.sha256
    except (OSError, ValueError):
        return False


def is_plain(path: Path) -> bool:
    """Return True for an image that is a file of its own on this machine."""
    return not is_url(path) and container_of(path) is None


def list_members(path: Path, every: Every | None) -> Iterator[Member]:
    """Yield the members of a container, in order. `every` is the interval of frames, which a video needs."""
    return _open_container(path).members(every)


@contextmanager
def local_file(path: Path) -> Iterator[Path]:
    """Yield an image's file on this machine, fetched if it is behind a URL. Raise OSError for a member of another file."""
    if container_of(path) is not None:
        raise OSError("inside another file, where it cannot be read by windows; unpack it")
    copy = begin_fetch(path).result() if is_url(path) else None
    yield path if copy is None else copy.path


# ---- reading ahead ----

#: Images kept on disk: frames as files, and the files behind URLs that are fetched.
_HELD: dict[str, bytes | Future[Copy]] = {}


def needs_hold(path: Path) -> bool:
    """Return True if reading takes long, so that `hold` should read ahead."""
    return is_url(path) or _is_frame(path)


def hold(path: Path) -> None:
    """Begin to fetch an image, or read it now if it is slow to read out of order, and keep it on disk until `release`.

    Errors are raised by `open_source`.
    """
    if not _is_frame(path):
        _HELD[str(path)] = begin_fetch(container_of(path) or path)
        return
    with suppress(OSError, ValueError), open_source(path) as frame:
        _HELD[str(path)] = frame.read()


def release(path: Path) -> None:
    """End `hold`."""
    _HELD.pop(str(path), None)


def _is_frame(path: Path) -> bool:
    inside = container_of(path)
    return inside is not None and suffix_of(inside) in VIDEOS


# ---- containers ----

_lock = threading.Lock()
_containers: OrderedDict[tuple[str, Stamp], Container] = OrderedDict()


def _name(path: Path, inside: Path) -> str:
    return path.relative_to(inside).as_posix()


def _open_container(path: Path) -> Container:
    """Return an open container; recently used ones stay open until nobody uses them."""
    key = str(path), stamp_source(path)
    with _lock:
        container = _containers.get(key)
        if container is None:
            copy = begin_fetch(path).result() if is_url(path) else None
            container = _containers[key] = kind_of(path)(path if copy is None else copy.path)
            weakref.finalize(container, id, copy)  # keeps the copy as long as the container
            if len(_containers) > _OPEN:
                _containers.popitem(last=False)
        _containers.move_to_end(key)
        return container
