"""The record of a labelled image: its input, its files, its result. manifest.jsonl has one line per image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import PurePosixPath

from tipsseg.formats import FORMATS, file_path, format_name, possible_paths
from tipsseg.images.sources.address import absolute
from tipsseg.options import FileOptions
from tipsseg.store.ownership import Former
from tipsseg.store.summary import ImageNumbers, read_summary
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.fingerprint import Fingerprint, file_record, parse_file
from tipsseg.util.json_values import parse, short
from tipsseg.util.record_paths import is_inside

MANIFEST_FILE = "manifest.jsonl"


#: An object and its score: label id, area in pixels, box (y, x, h, w) in pixels, and score, 0..1.
ObjectScore = tuple[int, int, int, int, int, int, float]

_SIX_NUMBERS = (int,) * 6


@dataclass(frozen=True, slots=True)
class TakenFrom:
    """The source of a mask that `tipsseg correct` imported.

    Attributes:
        source: Absolute path of the file with the correction.
        format: The format of that file.
        content: sha256 of the correction's content.
        mask: sha256 of the mask that was written. A mask with a different sha256 was edited since.
        before: sha256 of the mask that was replaced.
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
        path: Absolute path of the input when it was labelled.
        fingerprint: Fingerprint of the input at that time.
        digest: Digest of all settings that affect the labels, see `RunInfo.digest`.
        summary: Summary of the labels, see `summary.label_summary`: height, width, classes, background, ignored.
        files: Its per-image files by key, see `formats.base.Format`: POSIX paths relative to the output folder.
        formats: All formats that include the image.
        seconds: Time from opening the input to writing the last file.
        written: Fingerprints of these files when they were written. A file that differs now was edited.
        objects: The objects in the labels, whether or not a format lists them.
        corrected: sha256 of the edited mask that the labels come from; None if they are the run's own.
        taken: Source of an imported mask; None if no correction was imported, or the mask was edited in place.
        given: sha256 of the regions and labels that the run was given for this image; None without both.
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
    objects: tuple[ObjectScore, ...] = ()
    corrected: str | None = None
    taken: TakenFrom | None = None
    given: str | None = None

    def record(self) -> dict[str, object]:
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
            "objects": [list(each) for each in self.objects],
            "seconds": self.seconds,
            **({} if self.corrected is None else {"corrected": self.corrected}),
            **({} if self.taken is None else {"taken": asdict(self.taken)}),
            **({} if self.given is None else {"given": self.given}),
        }

    @property
    def numbers(self) -> ImageNumbers:
        """Return the parsed summary, which is valid in every entry that was read from a file."""
        return read_summary(self.summary)

    def without(self, formats: Collection[str]) -> ManifestEntry:
        return replace(
            self,
            formats=tuple(name for name in self.formats if name not in formats),
            files={key: file for key, file in self.files.items() if format_name(key) not in formats},
            written={key: file for key, file in self.written.items() if format_name(key) not in formats},
        )

    def keys(self, name: str) -> list[str]:
        """Return the keys of the image's files in a format."""
        return [key for key in self.files if format_name(key) == name]

    @property
    def former(self) -> Former:
        """Return the files of this entry that a new entry may replace."""
        return Former(replaceable=self.replaceable, formats=self.formats, content=self.fingerprint.sha256)

    @property
    def replaceable(self) -> frozenset[tuple[str, str]]:
        """Return pairs of file and recorded sha256, because a file with the content of another format was edited."""
        return frozenset(
            (self.files[key], file.sha256) for key, file in self.written.items() if file.sha256 is not None
        )


def expected_files(entry: ManifestEntry, formats: Iterable[str], options: FileOptions) -> dict[str, str]:
    """Return the per-image files of an image, by key, relative to the output folder.

    Args:
        entry: The image.
        formats: The formats; those without per-image files are ignored.
        options: The file options.
    """
    keys = (key for name in formats for key in (entry.keys(name) if FORMATS[name].has_parts else (name,)))
    paths = {key: file_path(key, PurePosixPath(entry.image), options) for key in keys}
    return {key: str(path) for key, path in paths.items() if path is not None}


def input_path(ref: ImageRef) -> str:
    """Return the path of an input as entries record it: absolute, without resolving links."""
    return printable_path(absolute(ref.path))


def read_entry(line: bytes) -> ManifestEntry:
    """Parse a line of manifest.jsonl. Raises ValueError if the line is invalid."""
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
            tuple(map(_read_object, record["objects"])),
            None if record.get("corrected") is None else str(record["corrected"]),
            None if record.get("taken") is None else _read_taken(record["taken"]),
            None if record.get("given") is None else str(record["given"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("fields are missing or invalid") from error
    _check_names(entry)
    read_summary(entry.summary)
    return entry


def is_placed(entry: ManifestEntry, options: FileOptions) -> bool:
    """Return True if an image's files are where tipsseg puts them."""
    if any(part in ("", ".", "..") for part in entry.image.split("/")) or not FORMATS.keys() >= set(entry.formats):
        return False
    keys = expected_files(entry, entry.formats, options).keys()
    return entry.files.keys() == keys and all(
        file in possible_paths(key, PurePosixPath(entry.image), options) for key, file in entry.files.items()
    )


def _read_taken(record: Mapping[str, object]) -> TakenFrom:
    return TakenFrom(**{each.name: str(record[each.name]) for each in fields(TakenFrom)})


def _read_object(record: list[object]) -> ObjectScore:
    class_id, area, y, x, h, w, score = record
    numbers = (class_id, area, y, x, h, w)
    # JSON's true becomes a bool, which is an int in Python.
    if tuple(map(type, numbers)) != _SIX_NUMBERS or type(score) not in (int, float) or not 0 <= score <= 1:  # type: ignore[operator]
        raise ValueError("an object has invalid numbers")
    return (*numbers, float(score))  # type: ignore[return-value, arg-type]


def _check_names(entry: ManifestEntry) -> None:
    """Raise ValueError for names outside the output folder, and for files without a fingerprint."""
    for what, name in (("image", entry.image), *((f"files.{key}", file) for key, file in entry.files.items())):
        if not is_inside(name):
            raise ValueError(f"`{what}` is {short(name)}")
    if not FORMATS.keys() >= {*entry.formats, *map(format_name, entry.files)}:
        raise ValueError(f"`formats` is {short(list(entry.formats))}")
    if entry.files.keys() != entry.written.keys():
        raise ValueError("`written` does not match `files`")
