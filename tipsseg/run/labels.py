"""The labels of an image: their files, and how they are written and read back.

    png          masks/<image>.png                 the label of each pixel
    instances    instances/<image>.png             the number of the object at each pixel, in a run with regions or labels to keep
    geotiff      masks/<image>.tif                 the label of each pixel of a raster

Labels that no format shows are in the hidden folder. Their names keep the suffix of the image, so that no two images share a file.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.folder.mask import MaskFacts, PictureFacts, label_digest, read_sealed, seal
from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels, Need, RunFacts
from tipsseg.formats.instances import read_instances
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

#: The names of label files.
PNG, INSTANCES, GEOTIFF = "png", "instances", "geotiff"

#: The folder in the hidden one of masks as a person saved them, which were written again in the mode of the folder.
REPLACED = "replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext(RunFacts):
    """The facts that all images of a run share, and its folder.

    Attributes:
        output: The folder.
        formats: The formats of the folder.
        labels: The names of an image's label files.
        question: The digest of the question that the labels answer (see `RunInfo.digest`).
    """

    output: Path
    formats: tuple[str, ...] = ()
    labels: tuple[str, ...] = (PNG,)
    question: str = ""

    def need(self, attribute: Need) -> bool:
        """Return True if a format of the folder needs an attribute of `ImageLabels`."""
        return any(attribute in FORMATS[name].needs for name in self.formats)

    def label_path(self, name: str, ref: ImageRef) -> Path:
        """Return the path of a label file."""
        image = ref.relative
        if name in self.formats or name == INSTANCES:
            place = FORMATS[name].relative_path(image, self.files)
            assert place is not None
            return self.output / place
        return self.output / STATE_FOLDER / "masks" / image.parent / (image.name + FORMATS[name].suffix)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """The labels of an image.

    Attributes:
        labels: [H, W], the label ids.
        instances: [H, W] int32, the number of the object at each pixel; None without regions and labels to keep.
    """

    labels: LabelArray
    instances: NDArray[np.int32] | None = None


def encode_labels(image: ImageLabels, context: RunContext) -> dict[str, bytes]:
    """Return the content of an image's label files by name. `image.objects` are all objects."""
    found = {}
    for name in context.labels:
        if name == PNG:
            found[name] = encode_mask(image.labels, context.classes)
        else:
            found[name] = FORMATS[name].encode(image, context)
    return found


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
    png: bytes, before: bytes, entry: Entry, labels: Labels, facts: Facts, correction: Correction
) -> bytes:
    """Return the mask of labels that a person corrected, with the facts of the mask `before`, and the model's mask inside."""
    old = read_sealed(before)
    kept, model = old.facts, before
    if kept is None or kept.by == "person":
        model = old.unpack("model", RECORD_LIMIT) or b""
    picture = PictureFacts(bytes=entry.input.size, sha256=entry.input.sha256 or "")
    new = make_facts(entry.image, labels, facts, picture, question="", given=entry.given or "")
    if kept is not None:
        new = replace(new, formerly=kept.formerly, question=kept.question, given=kept.given, picture=kept.picture)
    new = replace(new, by="person", source=correction.format, accepted=correction.accepted)
    bulk = label_bulk(labels, facts.objects)
    return seal(png, new, {**bulk, "model": model} if model else bulk)


def _back_hint(path: Path, context: RunContext, image: str) -> str:
    """Return the hint for a mask that a person damaged."""
    undo = f"tipsseg correct {shell_word(str(context.output))} --undo {shell_word(image or path.stem)}"
    return f"Correct the mask. To give the image back to the model and label it again: {undo}"


def read_labels(
    paths: Mapping[str, Path], size: tuple[int, int], context: RunContext, *, by_hand: bool, image: str = ""
) -> Labels:
    """Read the labels of an image from its label files.

    Args:
        paths: The label files by name.
        size: (height, width) of the image in pixels.
        context: The run.
        by_hand: True if a person may have changed the mask or the instances. The mask is then read as paint programs save it.
        image: The name of the image, for hints.

    Raises:
        ImageError: A file cannot be read, has another size or mode, or has ids that the run does not know.
    """
    classes = len(context.classes)
    path = paths[PNG]
    hint = _back_hint(path, context, image)
    try:
        if by_hand:
            labels, _ = read_painted_mask(path, size, context.classes)
        else:
            labels = read_mask(path, size, classes)
    except ImageError as error:
        raise ImageError(path, f"changed by hand: {error.reason}" if by_hand else error.reason, hint) from None
    _refuse_unknown_ids(path, count_labels(labels), classes, hint)
    if INSTANCES not in paths:
        return Labels(labels=labels)
    instances = read_instances(paths[INSTANCES], size)
    return Labels(
        labels=labels, instances=follow_correction(instances, labels, context.classes) if by_hand else instances
    )


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
    """Return the records of an image's label files, the mask first; `rows` are all its files by place."""
    return [row for name in context.labels for row in rows.values() if row.name == name]


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


def tidy_mask(context: RunContext, entry: Entry, rows: Mapping[str, FileRow]) -> None:
    """Write a mask that a paint program saved in another mode again in the folder's mode, and keep the person's file.

    Raises:
        ImageError: The mask cannot be read.
        OutputError: It cannot be written.
    """
    row = next((row for row in label_rows(rows, context) if row.name == PNG), None)
    path = None if row is None else actual_path(context.output, row.place)
    if row is None or path is None or not path.is_file():
        return
    try:
        labels, is_plain = read_painted_mask(path, entry.numbers.size, context.classes)
    except ImageError:
        return  # reported when the labels are read
    if not is_plain:
        kept, number = actual_path(context.output / STATE_FOLDER / REPLACED, row.place), 1
        while os.path.lexists(kept):
            number += 1
            kept = kept.with_name(f"{path.stem}.{number}{path.suffix}")
        atomic_write(kept, read_regular(path))
        atomic_write(path, encode_mask(labels, context.classes))


def read_current(context: RunContext, entry: Entry, rows: Mapping[str, FileRow], *, edited: bool) -> Current:
    """Read the labels of an image; `edited` if its label files differ from their records.

    Raises:
        ImageError: A label file is missing or invalid.
    """
    own = label_rows(rows, context)
    paths = {row.name: actual_path(context.output, row.place) for row in own}
    if missing := [name for name in context.labels if name not in paths]:
        raise ImageError(
            context.output, f"{entry.image}: its labels are not recorded ({', '.join(missing)})", "Label it again."
        )
    by_hand = edited or entry.correction_text is not None
    now = tuple(stamped(row, context.output) if edited else row for row in own)
    labels = (
        None
        if GEOTIFF in paths
        else read_labels(paths, entry.numbers.size, context, by_hand=by_hand, image=entry.image)
    )
    if not edited:
        return Current(entry, now, labels)
    if labels is None:
        counts, objects = _count_raster(paths[GEOTIFF], entry, context), list[LabelledObject]()
    else:
        counts = count_labels(labels.labels)
        objects = scored_objects(labels, context.classes, entry.facts.objects, None, None)
    if any(stamped(row, context.output) != row for row in now):
        raise ImageError(paths[own[0].name], "changed while it was read", "Run the same command again.")
    facts = Facts(corrected_summary(counts, context.classes, entry.summary), object_scores(objects))
    arrived = any(row.pending is not None and row.pending == new.digest for row, new in zip(own, now, strict=True))
    correction = Correction(**json.loads(entry.coming if arrived and entry.coming else "{}"))  # else a person's edit
    return Current(entry.with_labels([str(row.digest) for row in now], facts, correction), now, labels)


def stamped(row: FileRow, output: Path) -> FileRow:
    """Return the record of a label file as it is on disk. Raise ImageError if it cannot be read."""
    path = actual_path(output, row.place)
    try:
        return row.stamped(stamp(path))
    except OSError as error:
        raise ImageError(path, describe_error(error)) from error
