"""Read images in tar and zip files. A member is read from its offset, so any order costs the same."""

from __future__ import annotations

import stat
import tarfile
import threading
import weakref
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Generic, TypeVar

from tipsseg.images.sources.container import MAX_BYTES, Member

_Entry = TypeVar("_Entry")

_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"(\xb5/\xfd", "zstd"))


class _Archive(Generic[_Entry]):
    """The members of an archive by their safe names; `_faults` has those that cannot be read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._faults: list[Member] = []

    def members(self) -> Iterator[Member]:
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
        self._index()

    def _index(self) -> None:
        head = self._file.read(6)
        for magic, name in _COMPRESSED:
            if head.startswith(magic):
                raise OSError(f"a tar compressed with {name}, which cannot be read in any order; decompress it first")
        self._file.seek(0)
        length = self._file.seek(0, 2)
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    if info.isfile() and not info.issparse():
                        fault = _size_fault(info.size)
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
            fault = _size_fault(info.file_size)
            if stat.S_ISLNK(info.external_attr >> 16):
                fault = "a link in the archive"
            elif info.flag_bits & 1:
                fault = "encrypted in the archive"
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


def _size_fault(size: int) -> str:
    return f"{size:,} bytes, more than the limit of {MAX_BYTES:,}" if size > MAX_BYTES else ""
