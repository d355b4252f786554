"""The records of labelled images, as their masks have them, and of those that failed: lines of manifest.jsonl and errors.jsonl."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from tipsseg.errors import ImageError
from tipsseg.folder.lock import is_locked
from tipsseg.folder.summary import summary_of
from tipsseg.formats.mask import BASE_LENGTH, MaskFacts, SealedMask, labels_digest, open_envelope
from tipsseg.images.access import absolute, exists
from tipsseg.options.values import Shard
from tipsseg.regions.objects import LabelledObject
from tipsseg.types import ImageRef, name_order, printable_path
from tipsseg.util.files import (
    Fingerprint,
    actual_name,
    actual_path,
    atomic_write,
    is_folder,
    is_inside,
    open_regular,
    remove_file,
)
from tipsseg.util.json import json_bytes, parse, read_value, take

MANIFEST_FILE = "manifest.jsonl"

#: It has a line for each failed image, and exists only if there are any.
ERRORS_FILE = "errors.jsonl"

#: An object and its score: label id, area in pixels, box (y, x, h, w) in pixels, and score, 0..1.
ObjectScore = tuple[int, int, int, int, int, int, float]

#: The states of a mask: as tipsseg wrote it; written in another way by a program; changed by a person.
SEALED, LOOSE, EDITED = 0, 1, 2

#: Noted instead of a digest for an image's rows in a file for the whole run.
ROWS = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A file that is derived from masks: of an image, or of the whole run.

    Attributes:
        place: The path relative to the output folder.
        name: The key of its format (see `Format`); "<format>/:picture" for a copy of the image.
        digest: The sha256 of the content that tipsseg wrote; of a file for the whole run that is being replaced, of both contents,
            with a space between them; ROWS for rows in such a file.
        size: Its size in bytes.
        mtime_ns: Its time of modification.
        shows: The labels that it shows (see `Deriver.shows`).
    """

    place: str
    name: str
    digest: str
    size: int = 0
    mtime_ns: int = 0
    shows: str = ""

    @property
    def is_file(self) -> bool:
        """Return True for a file of a format: neither a copy of the image, nor a mere note."""
        return self.digest != ROWS and not self.name.endswith(":picture")

    @property
    def digests(self) -> list[str]:
        """The contents that tipsseg wrote."""
        return self.digest.split()

    def shows_labels(self, shows: str) -> bool:
        """Return True if a file shows the same labels, or the same picture, whatever the options."""
        return self.shows.partition(" ")[0] == shows.partition(" ")[0]

    def stamped(self, found: Fingerprint) -> FileRow:
        """Return the record of the file with this content."""
        return replace(self, digest=str(found.sha256), size=found.size, mtime_ns=found.mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The source of labels that a person made, which a mask has as `origin`.

    Attributes:
        source: The file that `tipsseg correct` took them from; "" if the mask was changed in place, or was accepted as it is.
        format: The format of that file.
        content: The sha256 of the correction's content.
        before: The digest of the labels that it was made on.
        accepted: True if a person looked at the labels as they are, and said that they are right.
        saved: Of a page's file: the browser that saved it, and when, in milliseconds: "k3b 1760000000000".
    """

    source: str = ""
    format: str = ""
    content: str = ""
    before: str = ""
    accepted: bool = False
    saved: str = ""

    def text(self) -> bytes:
        return json_bytes({key: value for key, value in asdict(self).items() if value})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One labelled image.

    Attributes:
        mask: What its mask says of itself; of an edited mask, what it will say.
        place: The place of the mask in the output folder.
        stamp: The mask's file.
        sealed: The mask without its pixels (see `folder.mask.envelope`).
        state: SEALED, LOOSE or EDITED.
        packed: The objects, compressed; empty if they were not looked for.
        path: The absolute address of the picture.
        input_mtime_ns: The time of the picture's file when it was last compared; 0 if it was not.
    """

    mask: MaskFacts
    place: str
    stamp: Fingerprint
    sealed: bytes
    state: int = SEALED
    packed: bytes = b""
    path: str = ""
    input_mtime_ns: int = 0

    @classmethod
    def of(cls, sealed: bytes, **more: Any) -> Entry:
        """Return the entry of a mask from its `envelope`. Raise ValueError if that lacks facts."""
        bulk = open_envelope(sealed)
        if bulk.facts is None:
            raise ValueError("the mask says nothing of itself")
        entry = cls(mask=bulk.facts, sealed=sealed, **more)
        entry.__dict__["bulk"] = bulk
        return entry

    @property
    def image(self) -> str:
        return self.mask.image

    @property
    def input(self) -> Fingerprint:
        """The picture's file when it was labelled."""
        picture = self.mask.picture
        return Fingerprint(picture.bytes, self.input_mtime_ns, picture.sha256 or None)

    def is_of(self, status: os.stat_result) -> bool:
        """Return True if the mask's file has this size and time."""
        return (self.stamp.size, self.stamp.mtime_ns) == (status.st_size, status.st_mtime_ns)

    @cached_property
    def bulk(self) -> SealedMask:
        """The bulk of the mask, apart from its pixels."""
        return open_envelope(self.sealed)

    @property
    def scores(self) -> list[float]:
        """The scores of the objects, in their order; empty if the mask does not have them."""
        with suppress(ValueError):
            found: list[float] = take({"scores": parse(self.bulk.unpack("scores", 16 << 20) or b"[]")}, "scores", list)
            return [each for each in found if isinstance(each, int | float)]
        return []

    @property
    def edited(self) -> bool:
        """Return True if a person changed the mask, and no command has written that into it yet."""
        return self.state == EDITED

    @property
    def corrected(self) -> bool:
        """Return True if the labels are a person's."""
        return self.mask.by_person

    @cached_property
    def correction(self) -> Correction | None:
        """The source of a person's labels; None for the model's."""
        if not self.mask.by_person:
            return None
        with suppress(ValueError):
            found: Correction = read_value(Correction, parse(self.bulk.unpack("origin", 1 << 20) or b"{}"), "")
            return replace(found, accepted=self.mask.accepted)
        return Correction(format=self.mask.source, accepted=self.mask.accepted)

    @cached_property
    def base(self) -> str:
        """A digest of the labels, and of the objects that touch: what a correction is made on."""
        return labels_digest(self.mask, self.bulk)

    @cached_property
    def version(self) -> str:
        """The base, and a digest of what is known of the labels: what files made from them show."""
        facts = self.mask
        known = [sorted(facts.counts.items()), sorted(facts.confidence.items()), facts.present]
        digest = sha256(json.dumps(known).encode())
        digest.update(self.bulk.bulk.get("scores", b"-"))
        return self.base + digest.hexdigest()[:BASE_LENGTH]

    @property
    def objects(self) -> tuple[ObjectScore, ...] | None:
        """All objects with their scores, whatever the file options; None if they were not looked for."""
        with suppress(zlib.error, ValueError):
            return tuple(map(tuple, json.loads(zlib.decompress(self.packed)))) if self.packed else None
        return None

    def record(self, mask_format: str, files: Mapping[str, FileRow]) -> dict[str, object]:
        """Return the line of manifest.jsonl. `files` are the image's derived files, by place."""
        facts, correction = self.mask, self.correction
        return {
            "image": self.image,
            **({"formerly": list(facts.formerly)} if facts.formerly else {}),
            "path": self.path,
            "size": facts.picture.bytes,
            "sha256": facts.picture.sha256 or None,
            **({"given": facts.given} if facts.given else {}),
            "files": {mask_format: self.place, **{file.name: file.place for file in files.values() if file.is_file}},
            **summary_of(facts),
            **({} if correction is None else {"corrected": asdict(correction)}),
        }


def pack_objects(objects: Iterable[ObjectScore]) -> bytes:
    """Return objects as entries keep them."""
    return zlib.compress(json_bytes(list(objects)), 1)


def input_path(ref: ImageRef) -> str:
    """Return the path of an input as entries record it: absolute, without resolving links."""
    return printable_path(absolute(ref.path))


def recorded_ref(record: Entry | Failure) -> ImageRef:
    """Return the image of a record at its recorded address."""
    return ImageRef(actual_path(Path(), record.path), PurePosixPath(actual_name(record.image)))


def object_scores(objects: Iterable[LabelledObject]) -> tuple[ObjectScore, ...]:
    """Return objects as entries record them."""
    return tuple((each.region.class_id, each.region.area, *each.region.box, each.score) for each in objects)


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
        return os.path.exists(path) or exists(path)  # noqa: PTH110  Path.exists raises for a name that is too long

    def line(self) -> bytes:
        return json_bytes(asdict(self))


def read_failure(line: bytes) -> Failure | None:
    """Parse a line; return None if it is invalid or its name leads outside the output folder."""
    with suppress(ValueError):
        failure: Failure = read_value(Failure, parse(line), "")
        if is_inside(actual_name(failure.image)) and "\0" not in failure.path:
            return failure
    return None


class Failures:
    """The failures of a folder, by image.

    Attributes:
        changed: True once this process has changed them.
    """

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self._folder = folder
        self._path = folder / (ERRORS_FILE if shard is None else f"errors-{shard.folder}.jsonl")
        self._found, self.changed = _read(self._path), False
        self._new = set[str]()  # of this run

    def __len__(self) -> int:
        return len(self._found)

    def all(self) -> list[Failure]:
        """Return the failures, sorted by image name."""
        return [self._found[name] for name in sorted(self._found, key=name_order)]

    def add(self, failure: Failure) -> None:
        self._found[failure.image] = failure
        self._new.add(failure.image)
        self.changed = True

    def mend(self, image: str) -> None:
        """Remove the failure of an image, if it has one."""
        self.changed |= self._found.pop(image, None) is not None

    def join(self) -> None:
        """Take over the failures of the shards that have ended, and remove their files.

        On a file system without locks, all must have ended.
        """
        for path in sorted(self._folder.glob("errors-*-of-*.jsonl")):
            if not is_locked(self._folder, path.stem.removeprefix("errors-")):
                found = _read(path)
                self._found |= found
                self._new |= found.keys()
                self.write()
                remove_file(path)

    def forget_old(self) -> None:
        """Remove the failures of earlier runs that no longer apply (see `Failure.may_last`)."""
        old = [failure for name, failure in self._found.items() if name not in self._new]
        for name in [failure.image for failure in old if not failure.may_last]:
            self.mend(name)

    def write(self) -> None:
        """Write the file, or remove it if no image failed. Raise OutputError if that fails."""
        if self._found:
            atomic_write(self._path, b"".join(failure.line() + b"\n" for failure in self.all()))
        else:
            remove_file(self._path)
        self.changed = False


def _read(path: Path) -> dict[str, Failure]:
    """Return the failures in a file by image; lines that are invalid are left out."""
    lines = list[bytes]()
    with suppress(FileNotFoundError), open_regular(path) as file:
        lines = list(file)
    return {failure.image: failure for line in lines if (failure := read_failure(line)) is not None}
