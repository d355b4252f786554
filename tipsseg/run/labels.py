"""The labels of an image: its mask, and how it is written and read back.

png          masks/<image>.png    the label of each pixel, and with regions or labels to keep the number of the object there
geotiff      masks/<image>.tif    the label of each pixel of a raster
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.folder.mask import MaskFacts, PictureFacts, SealedMask, label_digest, open_envelope, read_sealed, seal
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Need, RunFacts
from tipsseg.formats.png import encode_mask, read_mask, read_painted_mask
from tipsseg.formats.raster import count_mask
from tipsseg.regions.components import count_labels
from tipsseg.regions.objects import LabelledObject, follow_correction, object_regions
from tipsseg.run.entry import Correction, Entry, Facts, FileRow, ObjectScore, object_scores
from tipsseg.run.state import STATE_FOLDER
from tipsseg.run.summary import CERTAIN, corrected_summary
from tipsseg.types import BACKGROUND, ImageRef, LabelArray, LabelClass, ignore_id
from tipsseg.util.files import RECORD_LIMIT, actual_path, atomic_write, describe_error, read_regular, stamp
from tipsseg.util.json import json_bytes
from tipsseg.util.text import join_first, shell_word

#: The formats of masks.
PNG, GEOTIFF = "png", "geotiff"

#: The folder in the hidden one of masks as a person saved them, which were written again in the mode of the folder.
REPLACED = "replaced"

#: The size limit of a mask in bytes.
_MASK_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext(RunFacts):
    """The facts that all images of a run share, and its folder.

    Attributes:
        output: The folder.
        formats: The formats of the folder.
        mask_format: The format of the masks.
        question: The digest of the question that the labels answer (see `RunInfo.digest`).
    """

    output: Path
    formats: tuple[str, ...] = ()
    mask_format: str = PNG
    question: str = ""

    def need(self, attribute: Need) -> bool:
        """Return True if a format of the folder needs an attribute of `ImageLabels`."""
        return any(attribute in FORMATS[name].needs for name in self.formats)

    def mask_path(self, ref: ImageRef) -> Path:
        """Return the path of the mask of an image."""
        place = FORMATS[self.mask_format].relative_path(ref.relative, self.files)
        assert place is not None
        return self.output / place


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """The labels of an image.

    Attributes:
        labels: [H, W], the label ids.
        instances: [H, W] int32, the number of the object at each pixel; None without regions and labels to keep.
    """

    labels: LabelArray
    instances: NDArray[np.int32] | None = None


def make_facts(
    image: str, labels: Labels, facts: Facts, picture: PictureFacts, *, question: str, given: str = ""
) -> MaskFacts:
    """Return what the mask of an image says of itself."""
    shares = [(BACKGROUND, facts.summary["background"]), *((each["id"], each) for each in facts.summary["classes"])]
    present = facts.summary.get("present")
    return MaskFacts(
        image=image,
        question=question,
        given=given,
        names={each["id"]: each["name"] for each in facts.summary["classes"]},
        picture=picture,
        labels=label_digest(labels.labels),
        confidence={each: share["confidence"] for each, share in shares if share["confidence"] is not None},
        present=None if present is None else tuple(present),
    )


def label_bulk(labels: Labels, objects: Iterable[ObjectScore]) -> dict[str, bytes]:
    """Return what a mask has beside its facts: the scores of its objects, and the number of the object at each pixel if kept."""
    bulk = {"scores": json_bytes([each[-1] for each in objects])}
    if labels.instances is not None:
        bulk["objects"] = np.ascontiguousarray(labels.instances, "<i4").tobytes()
    return bulk


def seal_correction(
    png: bytes,
    before: SealedMask,
    model: bytes | None,
    entry: Entry,
    labels: Labels,
    facts: Facts,
    correction: Correction,
) -> bytes:
    """Return a mask that a person made, with what the mask `before` said, and with the `model`'s mask inside, if it is known."""
    kept = before.facts
    if kept is None or kept.by == "person":
        model = before.unpack("model", RECORD_LIMIT)
    picture = PictureFacts(bytes=entry.input.size, sha256=entry.input.sha256 or "")
    new = make_facts(entry.image, labels, facts, picture, question="", given=entry.given or "")
    if kept is not None:
        new = replace(new, formerly=kept.formerly, question=kept.question, given=kept.given, picture=kept.picture)
    new = replace(new, by="person", source=correction.format, accepted=correction.accepted)
    bulk = label_bulk(labels, facts.objects)
    return seal(png, new, bulk if model is None else {**bulk, "model": model})


def _back_hint(path: Path, context: RunContext, image: str) -> str:
    """Return the hint for a mask that a person damaged."""
    undo = f"tipsseg correct {shell_word(str(context.output))} --undo {shell_word(image or path.stem)}"
    return f"Correct the mask. To give the image back to the model and label it again: {undo}"


def read_labels(
    path: Path, size: tuple[int, int], context: RunContext, *, by_hand: bool, image: str = "", known: bytes = b""
) -> Labels:
    """Read the labels of an image from its mask.

    Args:
        path: The mask.
        size: (height, width) of the image in pixels.
        context: The run.
        by_hand: True if a person may have changed the mask. It is then read as paint programs save it.
        image: The name of the image, for hints.
        known: The `envelope` of the mask before, for a program that left it out.

    Raises:
        ImageError: The file cannot be read, has another size or mode, or has ids that the run does not know.
    """
    classes = len(context.classes)
    hint = _back_hint(path, context, image)
    try:
        if by_hand:
            labels, _ = read_painted_mask(path, size, context.classes)
        else:
            labels = read_mask(path, size, classes)
    except ImageError as error:
        raise ImageError(path, f"changed by hand: {error.reason}" if by_hand else error.reason, hint) from None
    _refuse_unknown_ids(path, count_labels(labels), classes, hint)
    instances = _envelope_of(path, known).objects(size)
    if instances is not None and by_hand:
        instances = follow_correction(instances, labels, context.classes)
    return Labels(labels=labels, instances=instances)


def mask_labels(path: Path, size: tuple[int, int]) -> tuple[str, bytes] | None:
    """Return what `described_labels` returns of the labels in a mask, without decoding; None if its pixels changed.

    Raise ImageError if it cannot be read.
    """
    found = _envelope_of(path, b"")
    if not found.intact or found.facts is None:
        return None
    return found.facts.labels, found.unpack("objects", 4 * prod(size)) or b""


def described_labels(labels: Labels) -> tuple[str, bytes]:
    """Return the digest of labels, and their objects as in a mask, empty without any."""
    return label_digest(labels.labels), label_bulk(labels, ()).get("objects", b"")


def _envelope_of(path: Path, known: bytes) -> SealedMask:
    """Return what a mask says of itself, or else what is known of it. Raise ImageError if it cannot be read."""
    try:
        found = read_sealed(read_regular(path, _MASK_LIMIT))
    except (OSError, ValueError) as error:
        raise ImageError(path, describe_error(error)) from error
    return found if found.facts is not None else open_envelope(known)


def _refuse_unknown_ids(path: Path, counts: NDArray[np.int64], classes: int, hint: str) -> None:
    known = {BACKGROUND, *range(1, classes + 1), ignore_id(classes)}
    if unknown := [str(each) for each in np.flatnonzero(counts).tolist() if each not in known]:
        raise ImageError(path, f"changed by hand: unknown ids: {join_first(unknown, 1)}", hint)


def _count_raster(path: Path, entry: Entry, context: RunContext) -> NDArray[np.int64]:
    """Count the pixels of each id in a raster's mask that a person changed. Raise ImageError as `read_labels` does."""
    numbers, classes, hint = entry.numbers, len(context.classes), _back_hint(path, context, entry.image)
    try:
        counts = count_mask(path, classes, numbers.size, numbers.transform, numbers.epsg)
    except ImageError as error:
        raise ImageError(path, f"changed by hand: {error.reason}", hint) from None
    _refuse_unknown_ids(path, counts, classes, hint)
    return counts


# ---- objects ----


def scored_objects(
    labels: Labels,
    classes: Sequence[LabelClass],
    known: Iterable[ObjectScore],
    others: Mapping[int, float] | None,
    simplify: float | None,
) -> list[LabelledObject]:
    """Return all objects in labels, with their scores.

    Args:
        labels: The labels.
        classes: The classes.
        known: The recorded objects with their scores.
        others: The score of objects that are not recorded, by class id; None for those that a person made.
        simplify: See `FileOptions`.
    """
    # Components of a class never have the same area and box, as they would meet. Regions may; they keep their order.
    scores: dict[tuple[int, ...], deque[float]] = defaultdict(deque)
    for each in known:
        scores[each[:-1]].append(each[-1])
    regions = object_regions(labels.labels, classes, instances=labels.instances)

    objects = []
    for region in regions:
        recorded = scores.get((region.class_id, region.area, *region.box))
        other = CERTAIN if others is None else others[region.class_id]
        objects.append(LabelledObject(region, recorded.popleft() if recorded else other, simplify))
    return objects


# ---- as they are on disk ----


def label_rows(rows: Mapping[str, FileRow], context: RunContext) -> list[FileRow]:
    """Return the record of an image's mask, if it has one; `rows` are all its files by place."""
    return [row for row in rows.values() if row.name == context.mask_format]


@dataclass(frozen=True, slots=True, eq=False)
class Current:
    """The labels of an image as they are on disk.

    Attributes:
        entry: The record that fits them: the record of a correction if a person changed the mask in place.
        rows: The records of the label files.
        found: The labels; None for a raster, whose labels may be larger than memory.
    """

    entry: Entry
    rows: tuple[FileRow, ...]
    found: Labels | None

    @property
    def labels(self) -> Labels:
        """The labels of an image that is no raster; commands that need them reject rasters."""
        assert self.found is not None
        return self.found


def adopt_mask(context: RunContext, entry: Entry, rows: Mapping[str, FileRow]) -> Current:
    """Read a mask that a person changed in place, and write into it that it is a person's.

    A mask in another mode is written again in the mode of the folder, and the person's file is kept.

    Raises:
        ImageError: The mask is missing or invalid.
        OutputError: It cannot be written.
    """
    current = read_current(context, entry, rows, edited=True)
    if current.found is None:
        return current
    path, labels = actual_path(context.output, current.rows[0].place), current.labels
    data = read_regular(path, _MASK_LIMIT)
    _, is_plain = read_painted_mask(path, entry.numbers.size, context.classes)
    now = read_sealed(data)
    if now.intact and now.facts is not None and now.facts.by == "person" and is_plain:
        return current
    if not is_plain:
        kept, number = actual_path(context.output / STATE_FOLDER / REPLACED, current.rows[0].place), 1
        while os.path.lexists(kept):
            number += 1
            kept = kept.with_name(f"{path.stem}.{number}{path.suffix}")
        atomic_write(kept, data)
    correction = current.entry.correction or Correction()
    before = now if now.facts is not None else open_envelope(entry.sealed)
    png = data if is_plain else encode_mask(labels.labels, context.classes)
    sealed = seal_correction(png, before, None, entry, labels, current.entry.facts, correction)
    atomic_write(path, sealed)
    row = stamped(current.rows[0], context.output)
    return Current(current.entry.with_labels(sealed, row, current.entry.facts, correction), (row,), labels)


def read_current(context: RunContext, entry: Entry, rows: Mapping[str, FileRow], *, edited: bool) -> Current:
    """Read the labels of an image; `edited` if its label files differ from their records.

    Raises:
        ImageError: A label file is missing or invalid.
    """
    own, is_raster = label_rows(rows, context), context.mask_format == GEOTIFF
    if not own:
        raise ImageError(context.output, f"{entry.image}: its mask is not recorded", "Label it again.")
    path, size = actual_path(context.output, own[0].place), entry.numbers.size
    by_hand = edited or entry.correction_text is not None
    now = tuple(stamped(row, context.output) if edited else row for row in own)
    labels = None
    if not is_raster:
        labels = read_labels(path, size, context, by_hand=by_hand, image=entry.image, known=entry.sealed)
    if not edited:
        return Current(entry, now, labels)
    if labels is None:
        counts, objects = _count_raster(path, entry, context), list[LabelledObject]()
    else:
        counts = count_labels(labels.labels)
        objects = scored_objects(labels, context.classes, entry.facts.objects, None, None)
    if any(stamped(row, context.output) != row for row in now):
        raise ImageError(path, "changed while it was read", "Run the same command again.")
    facts = Facts(corrected_summary(counts, context.classes, entry.summary), object_scores(objects))
    arrived = any(row.pending is not None and row.pending == new.digest for row, new in zip(own, now, strict=True))
    correction = Correction(**json.loads(entry.coming if arrived and entry.coming else "{}"))  # else a person's edit
    sealed = b"" if is_raster else read_regular(path, _MASK_LIMIT)
    return Current(entry.with_labels(sealed, now[0], facts, correction), now, labels)


def stamped(row: FileRow, output: Path) -> FileRow:
    """Return the record of a label file as it is on disk. Raise ImageError if it cannot be read."""
    path = actual_path(output, row.place)
    try:
        return row.stamped(stamp(path))
    except OSError as error:
        raise ImageError(path, describe_error(error)) from error
