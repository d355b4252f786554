"""Read images in other files: members of tar and zip archives, frames of videos."""

from __future__ import annotations

import re
import stat
import tarfile
import threading
import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Generic, TypeVar

from tipsseg.options.values import Every

#: Maximum size of an image in an archive or a table, in bytes. It protects memory against archives that expand without end.
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Stamp:
    """The version of an image: equal stamps mean equal content.

    Attributes:
        size: The size in bytes; None if only reading tells it.
        mtime_ns: The modification time of the file, or of the container, in nanoseconds since 1970; for a URL, a number from
            its ETag.
        inode: Distinguishes files of the same time; 0 for URLs.
    """

    size: int | None
    mtime_ns: int
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a container, or a part of it that cannot be read.

    Attributes:
        name: The name in the container: a relative path without "..".
        fault: The reason why it cannot be read; "" for an image.
    """

    name: str
    fault: str = ""


class Container:
    """A file with images in it, closed once nobody uses it.

    All methods are thread-safe, and raise OSError with a reason if the file cannot be read.

    Attributes:
        has_files: True if the members are files, which have suffixes, may be no images, and can be removed.
    """

    has_files: ClassVar[bool] = True

    def __init__(self, path: Path) -> None:
        """Open a file."""

    def members(self, every: Every | None) -> Iterator[Member]:
        """Yield all members in order, images or not; of a video, the frames at an interval."""
        raise NotImplementedError

    def size(self, name: str) -> int | None:
        """Return the size of a member in bytes; None if only reading tells it. Raise FileNotFoundError if it is missing."""
        return None

    def open(self, name: str) -> BytesIO:
        """Read a member. Raise FileNotFoundError if it is missing."""
        raise NotImplementedError


# ---- archives ----


_Entry = TypeVar("_Entry")

_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"(\xb5/\xfd", "zstd"))


class _Archive(Container, Generic[_Entry]):
    """The members of an archive by their safe names; `_faults` has those that cannot be read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._faults: list[Member] = []

    def members(self, every: Every | None) -> Iterator[Member]:
        yield from map(Member, self._entries)
        yield from self._faults

    def _add(self, name: str, entry: _Entry, fault: str = "") -> None:
        """Add a member under its safe name; the last one of a name counts, as for other tools. Ignore hidden members."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        plain = "/".join(part for part in parts if part != "..").replace("\0", "") or "member"
        if ".." in parts or "\0" in name or name.startswith("/") or PureWindowsPath(name).drive:
            fault = "its name leads out of the archive, or is invalid"
        if any(part.startswith(".") and part != ".." for part in parts) or parts[:1] == ["__MACOSX"]:
            return
        if fault:
            self._faults.append(Member(plain, fault))
        else:
            self._entries[plain] = entry

    def _find(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise FileNotFoundError("no such member of the archive") from None


class TarArchive(_Archive[tuple[int, int]]):
    """An uncompressed tar file, such as a shard of a webdataset. Its entries are offset and size in bytes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        head = self._file.read(6)
        for magic, name in _COMPRESSED:
            if head.startswith(magic):
                raise OSError(f"a tar compressed with {name}, which cannot be read in any order; decompress it first")
        length = self._file.seek(0, 2)
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    if info.isfile() and not info.issparse():
                        fault = size_fault(info.size)
                        if info.offset_data + info.size > length:
                            fault = "the archive is truncated in it"
                        self._add(info.name, (info.offset_data, info.size), fault)
                    elif not info.isdir() and PurePosixPath(info.name).suffix:
                        self._add(info.name, (0, 0), "a link or a special file in the archive")
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header
        except Exception as error:  # hostile headers raise MemoryError, RecursionError and more
            if not self._entries and not self._faults:
                raise OSError(f"not a readable tar file ({error})") from error
            if not any("truncated" in fault.fault for fault in self._faults):
                self._faults.append(Member("(end)", f"the archive is broken after its last readable member ({error})"))

    def size(self, name: str) -> int:
        return self._find(name)[1]

    def open(self, name: str) -> BytesIO:
        offset, size = self._find(name)
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) < size:
            raise OSError("the archive is truncated")
        return BytesIO(data)


#: A member of a zip may unpack to this many bytes, or to this multiple of its size. Zip bombs unpack to a thousand times theirs.
_UNPACKED_MAX, _RATIO_MAX = 64 << 20, 200


class ZipArchive(_Archive[zipfile.ZipInfo]):
    """A zip file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            self._file = zipfile.ZipFile(path)
        except Exception as error:  # as for a tar
            raise OSError(f"not a readable zip file ({error})") from error
        weakref.finalize(self, self._file.close)
        for info in self._file.infolist():
            if info.is_dir():
                continue
            fault = size_fault(info.file_size)
            if stat.S_ISLNK(info.external_attr >> 16):
                fault = "a link in the archive"
            elif info.flag_bits & 1:
                fault = "encrypted in the archive"
            elif info.file_size > _UNPACKED_MAX and info.file_size > _RATIO_MAX * info.compress_size:
                fault = f"{info.compress_size:,} bytes would unpack to {info.file_size:,}, too many for an image"
            self._add(info.orig_filename, info, fault)

    def size(self, name: str) -> int:
        return self._find(name).file_size

    def open(self, name: str) -> BytesIO:
        info = self._find(name)
        try:
            with self._lock, self._file.open(info) as member:
                # Not more than it declares: `ZipFile.read` would expand it all.
                return BytesIO(member.read(info.file_size))
        except Exception as error:  # decoders raise zlib.error, LZMAError, NotImplementedError and more
            raise OSError(f"broken in the archive ({type(error).__name__}: {error})") from error


def size_fault(size: int) -> str:
    return f"{size:,} bytes, more than the limit of {MAX_BYTES:,}" if size > MAX_BYTES else ""


# ---- videos ----


class Video(Container):
    """The frames of a video, numbered from 0 in the order of decoding: 000000, 000001, ... A frame is read as a BMP file.

    OpenCV turns frames upright by the video's rotation flag. Frames in ascending order are decoded once; a smaller number than the
    last one starts again at the first frame.
    """

    has_files = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._capture: Any = _open(path)
        self._next = 0  # the number of the next frame
        self._last: tuple[int, bytes] | None = None

    def members(self, every: Every | None) -> Iterator[Member]:
        """Yield the frames at an interval, or all, and a fault if the video ends early. Decodes the whole video."""
        import cv2

        every = every or Every(frames=1)
        capture = _open(self._path)  # released with this generator
        rate, declared = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        count, due, last, gap = 0, 0.0, 0.0, 0.0
        while capture.grab():
            now = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            gap, last = max(gap, now - last), now
            if every.frames is not None:
                taken = count % every.frames == 0
            else:
                assert every.seconds is not None
                # Timestamps, because frames of phones and screens are not evenly spaced; without them, the rate in the header.
                if now <= 0 < count:
                    now = count / rate if rate > 0 else float(count)
                taken = now + _ROUNDING >= due
                if taken:
                    due = (int((now + _ROUNDING) / every.seconds) + 1) * every.seconds
            if taken:
                yield Member(f"{count:06d}")
            count += 1
        if count == 0:
            yield Member("000000", "no frame of the video can be decoded")
        # The number of frames may be an estimate, which is too high if frames are not evenly spaced: the time counts too.
        elif count < declared * _COMPLETE and (rate <= 0 or last + gap < declared / rate * _COMPLETE):
            fault = f"the video ends after {count} of about {declared} frames; it is truncated or broken"
            yield Member(f"{count:06d}", fault)

    def size(self, name: str) -> None:
        number_of(name)

    def open(self, name: str) -> BytesIO:
        number = number_of(name)
        with self._lock:
            if self._last is None or self._last[0] != number:
                self._last = number, self._decode(number)
            return BytesIO(self._last[1])

    def _decode(self, number: int) -> bytes:
        import cv2

        if number < self._next:
            self._capture.release()
            self._capture, self._next = _open(self._path), 0
        while self._next <= number:
            if not self._capture.grab():
                raise FileNotFoundError(f"the video has only {self._next} readable frames")
            self._next += 1
        read, frame = self._capture.retrieve()
        if not read:
            raise OSError("OpenCV cannot decode this frame")
        return cv2.imencode(".bmp", frame)[1].tobytes()


#: How videos begin: MP4 and MOV, Matroska and WebM, AVI, WMV, MPEG program and transport streams.
_CONTENT = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rb"....(ftyp|moov|mdat|free|skip|wide|pnot)", rb"\x1aE\xdf\xa3", rb"RIFF....AVI ", rb"0&\xb2u\x8ef\xcf\x11",
        rb"\0\0\x01[\xb3\xba]", rb"G.{187}G", rb"....G.{191}G",
    )
)  # fmt: skip


def _open(path: Path) -> Any:
    import cv2

    with path.open("rb") as file:
        head = file.read(200)
    # A playlist could name other files and hosts, and so could a relative name, such as http:host.
    known = any(pattern.match(head) for pattern in _CONTENT)
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG) if known else cv2.VideoCapture()
    if not capture.isOpened():
        capture.release()
        raise OSError("not a video that OpenCV can read")
    return capture


#: Timestamps are rounded to milliseconds or coarser.
_ROUNDING = 0.001

#: Headers count a few frames too many.
_COMPLETE = 0.98


def number_of(name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) >= 6):
        raise FileNotFoundError("no such row or frame")
    return int(name)
