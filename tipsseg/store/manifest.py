"""manifest.jsonl: which images are labelled, from which input, into which files, with which result.

A line is added only after an image's files are in place under their final names, so what it says is true however the run ends. Of
several lines of one image the last one counts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath

from tipsseg.formats import FORMATS
from tipsseg.options import FileOptions
from tipsseg.store.summary import ImageNumbers, read_summary
from tipsseg.types import ImageRef, name_order, printable_path
from tipsseg.util.append_log import AppendLog, lines_of, whole_lines
from tipsseg.util.files import atomic_path, json_bytes, read_error
from tipsseg.util.fingerprint import Fingerprint, file_record, parse_file
from tipsseg.util.json_values import parse, short
from tipsseg.util.ownership import LINK
from tipsseg.util.record_paths import is_inside

MANIFEST_FILE = "manifest.jsonl"

#: What of a manifest could not be read, kept beside it.
UNREADABLE_ENTRIES = "manifest-unreadable.jsonl"


#: An object and its score: the label id, the area in pixels, y, x, h and w of its box in pixels, and the score, 0..1.
ObjectScore = tuple[int, int, int, int, int, int, float]

_SIX_NUMBERS = (int,) * 6


@dataclass(frozen=True, slots=True)
class TakenFrom:
    """Where the mask of an image came from, if a correction by another program was taken in.

    Attributes:
        source: The file that the correction was in, absolute.
        format: The format of that file.
        content: sha256 of what the correction says.
        mask: sha256 of the mask that came of it. A mask with another content was changed since.
        before: sha256 of the mask that was there before.
    """

    source: str
    format: str
    content: str
    mask: str
    before: str


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One labelled image.

    Attributes:
        image: Its name, see ImageRef.name.
        path: Where the input was, absolute, when it was labelled.
        fingerprint: Of the input then.
        digest: Of all that decided the labels, see `RunInfo.digest`.
        summary: What the labels hold, see `summary.label_summary`: height, width, classes, background, ignored.
        files: Its per-image file in each format that has one, relative to the output folder, posix.
        formats: All formats that hold the image.
        seconds: From opening the input to the last file.
        written: What those files were when they were written. A file that is different now was edited.
        objects: The objects that the labels show, whether or not a format lists them. None: an earlier version did not keep them.
        corrected: sha256 of the edited mask that the labels are of. None: the labels are the run's own.
        taken: Where the edited mask came from. None: nobody took a correction in, or a person changed the mask in its place.
    """

    image: str
    path: str
    fingerprint: Fingerprint
    digest: str
    summary: Mapping[str, object]
    files: Mapping[str, str]
    formats: tuple[str, ...]
    seconds: float
    written: Mapping[str, Fingerprint]
    objects: tuple[ObjectScore, ...] | None = ()
    corrected: str | None = None
    taken: TakenFrom | None = None

    def record(self) -> dict[str, object]:
        """The entry as a line's JSON value."""
        size = {key: self.summary[key] for key in ("height", "width")}
        rest = {key: value for key, value in self.summary.items() if key not in size}
        return {
            "image": self.image,
            "path": self.path,
            "size": self.fingerprint.size,
            "mtime_ns": self.fingerprint.mtime_ns,
            "sha256": self.fingerprint.sha256,
            "digest": self.digest,
            **size,
            "files": dict(self.files),
            "written": {name: file_record(file) for name, file in self.written.items()},
            "formats": list(self.formats),
            **rest,
            **({} if self.objects is None else {"objects": [list(each) for each in self.objects]}),
            "seconds": self.seconds,
            **({} if self.corrected is None else {"corrected": self.corrected}),
            **({} if self.taken is None else {"taken": asdict(self.taken)}),
        }

    @property
    def numbers(self) -> ImageNumbers:
        """The numbers of its summary. Of an entry that was read, they can be had without an error."""
        return read_summary(self.summary)

    def without(self, formats: Collection[str]) -> ManifestEntry:
        """The entry of the image in fewer formats."""
        return replace(
            self,
            formats=tuple(name for name in self.formats if name not in formats),
            files={name: file for name, file in self.files.items() if name not in formats},
            written={name: file for name, file in self.written.items() if name not in formats},
        )

    @property
    def replaceable(self) -> frozenset[tuple[str, str]]:
        """Its files and the sha256 that they were written with. A file with the content of another format was changed."""
        return frozenset(
            (self.files[name], file.sha256) for name, file in self.written.items() if file.sha256 is not None
        )


def expected_files(image: str, formats: Iterable[str], options: FileOptions) -> dict[str, str]:
    """The per-image file of an image in each of these formats that has one, relative to the output folder.

    Args:
        image: The name of the image.
        formats: The formats.
        options: How labels become files.
    """
    paths = {name: FORMATS[name].relative_path(PurePosixPath(image), options) for name in formats}
    return {name: str(path) for name, path in paths.items() if path is not None}


def input_path(ref: ImageRef) -> str:
    """Where an input is, as entries have it: absolute, links kept as they were given."""
    return printable_path(Path(os.path.abspath(ref.path)))  # noqa: PTH100  Path.resolve follows links


def parse_entry(line: bytes) -> ManifestEntry | None:
    """The entry in a line of manifest.jsonl; None for a line that cannot be read as an entry."""
    try:
        return read_entry(line)
    except ValueError:
        return None


def read_entry(line: bytes) -> ManifestEntry:
    """The entry in a line of manifest.jsonl. Raises ValueError for a line that is not as it is written."""
    try:
        record = parse(line)
        entry = ManifestEntry(
            str(record["image"]),
            str(record["path"]),
            Fingerprint(int(record["size"]), int(record["mtime_ns"]), record["sha256"]),
            str(record["digest"]),
            {key: record[key] for key in ("height", "width", "classes", "background", "ignored")},
            {str(name): str(path) for name, path in record["files"].items()},
            tuple(map(str, record["formats"])),
            float(record["seconds"]),
            {str(name): parse_file(file) for name, file in record["written"].items()},
            tuple(map(_read_object, record["objects"])) if "objects" in record else None,
            None if record.get("corrected") is None else str(record["corrected"]),
            None if record.get("taken") is None else _read_taken(record["taken"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("not all that belongs to an image") from error
    _check_names(entry)
    read_summary(entry.summary)
    return entry


def _is_placed(entry: ManifestEntry, options: FileOptions) -> bool:
    """Whether its files are where this version or an earlier one puts files of that image."""
    if any(part in ("", ".", "..") for part in entry.image.split("/")) or not FORMATS.keys() >= set(entry.formats):
        return False
    places = {name: FORMATS[name].places(PurePosixPath(entry.image), options) for name in entry.formats}
    return entry.files.keys() == {name for name, known in places.items() if known} and all(
        file in places[name] for name, file in entry.files.items()
    )


def _read_taken(record: Mapping[str, object]) -> TakenFrom:
    return TakenFrom(**{each.name: str(record[each.name]) for each in fields(TakenFrom)})


def _read_object(record: list[object]) -> ObjectScore:
    class_id, area, y, x, h, w, score = record
    numbers = (class_id, area, y, x, h, w)
    # JSON's true is an int to Python.
    if tuple(map(type, numbers)) != _SIX_NUMBERS or type(score) not in (int, float) or not 0 <= score <= 1:  # type: ignore[operator]
        raise ValueError("an object without its numbers")
    return (*numbers, float(score))  # type: ignore[return-value, arg-type]


def _check_names(entry: ManifestEntry) -> None:
    """Raise ValueError for names that are not of files below an output folder, and for files without their record."""
    for what, name in (("image", entry.image), *((f"files.{form}", file) for form, file in entry.files.items())):
        if not is_inside(name):
            raise ValueError(f"`{what}` is {short(name)}")
    if not FORMATS.keys() >= set(entry.formats):
        raise ValueError(f"`formats` is {short(list(entry.formats))}")
    if entry.files.keys() != entry.written.keys():
        raise ValueError("`written` is not of the files")


class Manifest:
    """The manifest of a state folder, read and added to. Memory holds a name and two numbers per image.

    Any thread may ask `get`, `in` and `is_elsewhere` while one thread adds to it.

    Attributes:
        unreadable: How many lines could not be read as entries when it was opened.
        first_unreadable: The number of the first of these lines; 0: there are none.
    """

    def __init__(self, folder: Path, files: FileOptions | None = None) -> None:
        """Open the manifest in `folder`, or begin one; lines that cannot be read are passed over. Raises OutputError.

        Where `files` are given, entries with files that no version puts there cannot be read either.
        """
        self._path = folder / MANIFEST_FILE
        self._files = files
        self.unreadable = self.first_unreadable = 0
        self._open()

    def _open(self) -> None:
        self._log = AppendLog(self._path)
        self._lines = 0
        self._offsets: dict[str, int] = {}
        self._digests: dict[str, str] = {}
        self._paths: dict[str, int] = {}  # hashes: the texts would be most of the memory
        self._formats: dict[str, tuple[str, ...]] = {}
        self._opened_at = 0  # where the lines of this process begin
        self._known_formats: dict[tuple[str, ...], tuple[str, ...]] = {}
        for offset, entry in _entries(self._path):
            self._lines += 1
            if entry is not None and (self._files is None or _is_placed(entry, self._files)):
                self._place(entry, offset)
            else:
                self.unreadable += 1
                self.first_unreadable = self.first_unreadable or self._lines
        with suppress(OSError):
            self._opened_at = whole_lines(self._path)

    def _place(self, entry: ManifestEntry, offset: int) -> None:
        self._offsets[entry.image] = offset
        self._digests[entry.image] = sys.intern(entry.digest)
        self._paths[entry.image] = hash(entry.path)
        # One tuple for all images of the same formats.
        self._formats[entry.image] = self._known_formats.setdefault(entry.formats, entry.formats)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, image: object) -> bool:
        return image in self._offsets

    def get(self, image: str) -> ManifestEntry | None:
        """The entry of an image. Raises OutputError where the file cannot be read."""
        offset = self._offsets.get(image)
        return None if offset is None else parse_entry(self._log.read(offset))

    def records(self, image: str, place: str, digest: str) -> bool:
        """Return whether an image has a file of that digest at that place, or a link; see `Ownership.load`."""
        entry = self.get(image)
        return entry is not None and (digest == LINK or (place, digest) in entry.replaceable)

    def is_elsewhere(self, image: str, path: str) -> bool:
        """Whether an image of that name is there, and was labelled from another path."""
        return image in self._paths and self._paths[image] != hash(path)

    def formats_of(self, image: str) -> tuple[str, ...]:
        """The formats that an image is in; empty where the manifest does not have it."""
        return self._formats.get(image, ())

    def others(self, digest: str) -> list[str]:
        """The images whose labels were decided by something else."""
        return [image for image, own in self._digests.items() if own != digest]

    def entries(self) -> Iterator[ManifestEntry]:
        """The entries in the order of their names."""
        for image in self._order():
            entry = self.get(image)
            if entry is not None:
                yield entry

    def formats(self) -> set[tuple[str, ...]]:
        """Return the different groups of formats that images are in."""
        return set(self._formats.values())

    def files(self) -> Iterator[str]:
        """The files of all images, relative to the output folder."""
        for entry in self.entries():
            yield from entry.files.values()

    def holding(self, name: str) -> list[str]:
        """The images that the files of a format hold, in the order of their names."""
        return [image for image in self._order() if name in self._formats[image]]

    def add(self, entry: ManifestEntry) -> None:
        """Add an image, or say again what became of it. Raises OutputError."""
        self._place(entry, self._log.append(json_bytes(entry.record())))
        self._lines += 1

    def added_files(self) -> Iterator[str]:
        """The files of the images that were added since it was opened, relative to the output folder."""
        for image, offset in list(self._offsets.items()):
            if offset >= self._opened_at:
                files = self._unchecked(image).get("files")
                yield from map(str, files.values() if isinstance(files, dict) else ())

    def summaries(self) -> Iterator[Mapping[str, object]]:
        """The summary of each image as its line has it, with other keys; `total` checks it."""
        yield from map(self._unchecked, list(self._offsets))

    def _unchecked(self, image: str) -> Mapping[str, object]:
        """What the line of an image says, which was checked when it was read, or is of this process; nothing where it is gone."""
        with suppress(ValueError):
            record = parse(self._log.read(self._offsets[image]))
            return record if isinstance(record, dict) else {}
        return {}

    def is_removed(self) -> bool:
        """Whether the file that was added to is not there any more."""
        return self._log.is_removed()

    def set_aside(self) -> Path | None:
        """Move lines that cannot be read into UNREADABLE_ENTRIES, and return its path; None where all can be read.

        Raises OutputError.
        """
        if not self.unreadable:
            return None
        aside = self._path.with_name(UNREADABLE_ENTRIES)
        with closing(AppendLog(aside)) as log:
            for _, line in _lines(self._path):
                if parse_entry(line) is None:
                    log.append(line)
        self._rewrite()
        self.unreadable = 0
        return aside

    def tidy(self) -> None:
        """Rewrite the file with one line per image in the order of names, where it is not so already. Raises OutputError."""
        order = self._order()
        if self._lines == len(order) and order == list(self._offsets):
            self._log.trim()
        else:
            self._rewrite()

    def _rewrite(self) -> None:
        with atomic_path(self._path) as temporary, temporary.open("wb") as file:
            for image in self._order():
                file.write(self._log.read(self._offsets[image]) + b"\n")
        self._log.close()
        self._open()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._log.close()

    def _order(self) -> list[str]:
        return sorted(self._offsets, key=name_order)


def read_entries(folder: Path) -> dict[str, ManifestEntry]:
    """The entries of the manifest in `folder` by image, in the order of names, for reading only. Raises OutputError."""
    found = {entry.image: entry for _, entry in _entries(folder / MANIFEST_FILE) if entry is not None}
    return {image: found[image] for image in sorted(found, key=name_order)}


def _entries(path: Path) -> Iterator[tuple[int, ManifestEntry | None]]:
    for offset, line in _lines(path):
        yield offset, parse_entry(line)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        yield from lines_of(path)
    except OSError as error:
        raise read_error(path, error) from error
