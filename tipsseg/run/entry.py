"""The records of labelled images, and of those that failed: lines of manifest.jsonl and errors.jsonl."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from tipsseg.errors import ImageError, RecordError
from tipsseg.folder.mask import envelope
from tipsseg.images.access import absolute, exists
from tipsseg.regions.objects import LabelledObject
from tipsseg.run.summary import ImageNumbers, read_summary
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import Fingerprint, actual_name, actual_path, is_folder, is_inside
from tipsseg.util.json import json_bytes, parse, read_value
from tipsseg.util.text import shell_word

MANIFEST_FILE = "manifest.jsonl"

#: It has a line for each failed image, and exists only if there are any.
ERRORS_FILE = "errors.jsonl"

#: An object and its score: label id, area in pixels, box (y, x, h, w) in pixels, and score, 0..1.
ObjectScore = tuple[int, int, int, int, int, int, float]

#: Recorded instead of a digest for an image's rows in a file for the whole run.
ROWS = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A file of an image, or of the whole run.

    Attributes:
        place: The path relative to the output folder.
        name: The key of its format (see `Format`); "<format>/:picture" for a copy of the image.
        digest: The sha256 of the content that tipsseg wrote; ROWS for rows in a file for the whole run.
        size: Its size in bytes.
        mtime_ns: Its time of modification.
        shows: The labels that it shows (see `Deriver.shows`); "" for the labels themselves.
        taken: The sha256 of a person's file that `tipsseg correct` took in, at the same place.
        pending: The sha256 of the content that a process was about to put there.
    """

    place: str
    name: str
    digest: str | None
    size: int = 0
    mtime_ns: int = 0
    shows: str = ""
    taken: str | None = None
    pending: str | None = None

    @property
    def is_file(self) -> bool:
        """Return True for a file of a format: neither a copy of the image, nor a mere note."""
        return self.digest != ROWS and not self.name.endswith(":picture")

    def stamped(self, found: Fingerprint) -> FileRow:
        """Return the record of the file with this content."""
        return replace(self, digest=found.sha256, size=found.size, mtime_ns=found.mtime_ns, taken=None, pending=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The source of labels that a person corrected.

    Attributes:
        source: The file that `tipsseg correct` took them from; "" if the mask was changed in place, or was accepted as it is.
        format: The format of that file.
        content: The sha256 of the correction's content.
        before: The digest of the label files that it was made on.
        undone: True if the next run labels the image again.
        accepted: True if a person looked at the labels as they are, and said that they are right.
        saved: Of a page's file: the browser that saved it, and when, in milliseconds: "k3b 1760000000000".
    """

    source: str = ""
    format: str = ""
    content: str = ""
    before: str = ""
    undone: bool = False
    accepted: bool = False
    saved: str = ""

    def text(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if value})


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about labels beside their pixels.

    Attributes:
        summary: See `summary.label_summary`.
        objects: All objects, whatever the file options, with their scores.
    """

    summary: Mapping[str, Any]
    objects: tuple[ObjectScore, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One labelled image.

    Attributes:
        image: Its name (see `ImageRef.name`).
        path: The absolute path of the input.
        input: The fingerprint of the input when it was labelled.
        given: The sha256 of the regions and labels that the run was given for this image; None without both.
        version: A digest of the labels and their facts: what files made from them show.
        formats: The formats that the image is in.
        correction_text: The correction as JSON; None for labels of the model.
        coming: The correction that a killed process was about to record.
        seconds: The time from opening the input to writing the last file.
        packed: The facts, compressed.
        sealed: What the mask says of itself (see `folder.mask.envelope`); empty for a raster.
        home: The folder of the record, for hints.
    """

    image: str
    path: str
    input: Fingerprint
    given: str | None = None
    version: str = ""
    formats: tuple[str, ...] = ()
    correction_text: str | None = None
    coming: str | None = None
    seconds: float = 0.0
    packed: bytes
    sealed: bytes = b""
    home: str = field(default="OUT", compare=False)

    @cached_property
    def facts(self) -> Facts:
        with self._reading():
            summary, objects = json.loads(zlib.decompress(self.packed))
            return Facts(summary, tuple(map(tuple, objects)))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (zlib.error, ValueError, TypeError, AttributeError) as error:
            hint = f"Rebuild the record of its folder: tipsseg check {shell_word(self.home)} --restore"
            raise RecordError(Path(self.image), f"its record is damaged ({error})", hint) from error

    @property
    def summary(self) -> Mapping[str, object]:
        return self.facts.summary

    @property
    def numbers(self) -> ImageNumbers:
        """Return the parsed summary."""
        with self._reading():
            return read_summary(self.facts.summary)

    @property
    def correction(self) -> Correction | None:
        with self._reading():
            return None if self.correction_text is None else Correction(**json.loads(self.correction_text))

    @property
    def corrected(self) -> bool:
        """Return True if the labels are a person's, until the correction is undone."""
        return self.correction_text is not None and not self.undone

    @property
    def undone(self) -> bool:
        return self.correction is not None and self.correction.undone

    def with_labels(self, mask: bytes, row: FileRow, facts: Facts, correction: Correction) -> Entry:
        """Return the entry of other labels: the content of the mask (empty for a raster), and its record."""
        version, packed = _pack(facts, str(row.digest))
        sealed = envelope(mask) if mask else b""
        return replace(
            self, version=version, packed=packed, sealed=sealed, correction_text=correction.text(), coming=None
        )

    def with_correction(self, correction: Correction) -> Entry:
        return replace(self, correction_text=correction.text(), coming=None)

    def record(self, files: Mapping[str, FileRow]) -> dict[str, object]:
        """Return the line of manifest.jsonl. `files` are the image's, by place."""
        size = {key: self.summary[key] for key in ("height", "width")}
        rest = {key: value for key, value in self.summary.items() if key not in size}
        return {
            "image": self.image,
            "path": self.path,
            "size": self.input.size,
            "mtime_ns": self.input.mtime_ns,
            "sha256": self.input.sha256,
            **({} if self.given is None else {"given": self.given}),
            **size,
            "version": self.version,
            "formats": list(self.formats),
            "files": {file.name: file.place for file in files.values() if file.is_file},
            "written": [asdict(file) for file in files.values()],
            **rest,
            "objects": [list(each) for each in self.facts.objects],
            "seconds": self.seconds,
            **({} if self.correction is None else {"corrected": asdict(self.correction)}),
        }


def make_entry(
    ref: ImageRef, fingerprint: Fingerprint, facts: Facts, digest: str, formats: Sequence[str], **more: Any
) -> Entry:
    """Return the entry of an image that the model labelled; `digest` is the digest of its mask."""
    version, packed = _pack(facts, digest)
    more |= {"version": version, "formats": tuple(formats), "packed": packed}
    entry = Entry(image=ref.name, path=input_path(ref), input=fingerprint, **more)
    entry.__dict__["facts"] = facts
    return entry


def input_path(ref: ImageRef) -> str:
    """Return the path of an input as entries record it: absolute, without resolving links."""
    return printable_path(absolute(ref.path))


def recorded_ref(record: Entry | Failure) -> ImageRef:
    """Return the image of a record at its recorded address."""
    return ImageRef(actual_path(Path(), record.path), PurePosixPath(actual_name(record.image)))


def object_scores(objects: Iterable[LabelledObject]) -> tuple[ObjectScore, ...]:
    """Return objects as entries record them."""
    return tuple((each.region.class_id, each.region.area, *each.region.box, each.score) for each in objects)


def _pack(facts: Facts, digest: str) -> tuple[str, bytes]:
    """Return the version of labels, and their packed facts."""
    data = json_bytes([facts.summary, facts.objects])
    return sha256(digest.encode() + data).hexdigest()[:32], zlib.compress(data, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An image that cannot be labelled, or a folder that cannot be listed.

    Attributes:
        image: The name of the image.
        path: The path of the image or folder.
        reason: Why it failed.
        hint: Advice to the user.
    """

    image: str
    path: str
    reason: str
    hint: str

    @classmethod
    def of(cls, ref: ImageRef, error: ImageError) -> Failure:
        return cls(image=ref.name, path=ref.address, reason=error.reason, hint=error.hint)

    @property
    def ref(self) -> ImageRef:
        """Return the image to retry."""
        return recorded_ref(self)

    @property
    def may_last(self) -> bool:
        """Return True if the failure may persist: the path exists and is not a folder that can be listed now."""
        path = self.ref.path
        if is_folder(path):
            return not os.access(path, os.R_OK | os.X_OK)
        return path.exists() or exists(path)

    def line(self) -> bytes:
        return json_bytes(asdict(self))


def read_failure(line: bytes) -> Failure | None:
    """Parse a line; return None if it is invalid or its name leads outside the output folder."""
    with suppress(ValueError):
        failure: Failure = read_value(Failure, parse(line), "")
        if is_inside(actual_name(failure.image)) and "\0" not in failure.path:
            return failure
    return None
