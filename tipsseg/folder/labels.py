"""The labels of an image: its mask, how it is read back, and what it is.

png          masks/<image>.png    the label of each pixel, and with regions or labels to keep the number of the object there
or the file of a `BlockMask`, of images that are labelled in blocks
"""

from __future__ import annotations

import io
import os
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError
from tipsseg.folder.entry import (
    EDITED,
    LOOSE,
    MANIFEST_FILE,
    SEALED,
    Correction,
    Entry,
    ObjectScore,
    object_scores,
    pack_objects,
)
from tipsseg.folder.summary import CERTAIN, corrected_facts
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Need, RunFacts
from tipsseg.formats.blocks import BlockMask, count_blocks, digest_blocks
from tipsseg.formats.mask import (
    MaskFacts,
    PictureFacts,
    envelope,
    label_digest,
    labels_digest,
    make_envelope,
    open_envelope,
    read_facts,
    read_facts_text,
    read_sealed,
)
from tipsseg.formats.npz import DAMAGE, encode_arrays
from tipsseg.formats.png import read_painted_mask
from tipsseg.images.access import identify, matches
from tipsseg.images.decoding import ImageReader
from tipsseg.images.upright import pixel_digest
from tipsseg.regions.components import count_labels
from tipsseg.regions.objects import LabelledObject, follow_correction, object_regions
from tipsseg.types import BACKGROUND, ImageRef, LabelArray, LabelClass, ignore_id, label_dtype
from tipsseg.util.files import RECORD_LIMIT, Fingerprint, actual_path, describe_error, open_regular
from tipsseg.util.json import json_bytes, parse, take
from tipsseg.util.text import join_first, shell_word

#: The format of the masks of images that are labelled whole.
PNG = "png"


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

    @property
    def block_mask(self) -> BlockMask | None:
        """Return the format of masks that are written block by block; None for images that are labelled whole."""
        form = FORMATS[self.mask_format]
        return form if isinstance(form, BlockMask) else None

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


# ---- what a mask says ----


def unknown_labels(image: str, size: tuple[int, int], picture: PictureFacts, **more: Any) -> MaskFacts:
    """Return the facts of an image whose mask says nothing."""
    return MaskFacts(image=image, size=size, picture=picture, labels="", names={}, counts={}, confidence={}, **more)


def label_bulk(labels: Labels, objects: Iterable[ObjectScore]) -> dict[str, bytes]:
    """Return what a mask has beside its facts: the scores of its objects, and the number of the object at each pixel if kept."""
    bulk = {"scores": json_bytes([each[-1] for each in objects])}
    if labels.instances is not None:
        bulk["objects"] = np.ascontiguousarray(labels.instances, "<i4").tobytes()
    return bulk


def corrected_mask(
    before: Entry,
    labels: Labels,
    known: Iterable[ObjectScore],
    classes: tuple[LabelClass, ...],
    correction: Correction,
    *,
    model: bytes | None,
    saved: str,
) -> tuple[MaskFacts, dict[str, bytes], tuple[ObjectScore, ...]]:
    """Return what the mask of labels that a person made says of itself, its bulk, and the objects with their scores.

    `known` are the objects that were there before, and `model` is the content of the model's mask, if it is known.
    """
    objects = object_scores(scored_objects(labels, classes, known, None, None))
    facts = replace(
        before.mask,
        by="person",
        source=correction.format,
        saved=saved,
        accepted=correction.accepted,
        labels=label_digest(labels.labels),
        **corrected_facts(count_labels(labels.labels), classes, before.mask.confidence),
    )
    bulk = {**label_bulk(labels, objects), "origin": correction.text()}
    return facts, bulk if model is None else {**bulk, "model": model}, objects


def saved_at(mtime_ns: int) -> str:
    """Return the time of a file as masks have it, in UTC."""
    return datetime.fromtimestamp(mtime_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")


# ---- what a mask is ----


def read_entry(
    context: RunContext, place: str, known: Entry | None, new: Callable[[], Entry | None] = lambda: None
) -> Entry:
    """Read what a mask says of itself, and judge who made it.

    Args:
        context: The run.
        place: The place of the mask.
        known: What was last known of the mask at this place.
        new: Returns what is known of the image of a mask that says nothing, and of which nothing is known.

    Returns:
        The entry. It is LOOSE if a program wrote the same labels in another way, and EDITED if a person changed them.

    Raises:
        ImageError: The mask cannot be read, has ids without a class, or says nothing, and its image is unknown.
    """
    path, classes = actual_path(context.output, place), context.classes
    if (mask := context.block_mask) is not None:
        return _read_block_entry(context, mask, path, place, known or new())
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            data = file.read()
        found = read_sealed(data)
    except (OSError, ValueError) as error:
        raise ImageError(path, f"cannot be read: {describe_error(error)}", _DAMAGED) from error
    stamp = Fingerprint(status.st_size, status.st_mtime_ns, sha256(data).hexdigest())
    more: dict[str, Any] = {"place": place, "stamp": stamp}
    if known is not None:
        more |= {"path": known.path, "input_mtime_ns": known.input_mtime_ns}
    before = known
    if found.facts is not None:
        same = known is not None and (known.image, known.mask.labels) == (found.facts.image, found.facts.labels)
        is_stripped = same and known is not None and bool(known.bulk.bulk) and not found.bulk
        if not is_stripped:
            packed = known.packed if same and known is not None else b""
            before = Entry.of(envelope(data), packed=packed, **more)
            if (before.corrected or not found.intact) and (foreign := _foreign_names(before, context)) is not None:
                raise foreign
            if found.intact and found.depth == 8 * label_dtype(len(classes))().itemsize:
                return before
    before = before or new()
    if before is None:
        raise ImageError(path, "says nothing of its image, which is unknown", _UNKNOWN)
    if found.facts is None and found.bulk and not before.bulk.bulk:
        before = replace(before, sealed=make_envelope(before.mask, found.unpacked()))
    said = before.mask.labels
    try:
        labels, _ = read_painted_mask(path, before.mask.size, classes, lambda ids: label_digest(ids) == said)
    except ImageError as error:
        raise ImageError(path, "changed by hand: " + error.reason, _back_hint(context, before.image)) from None
    if label_digest(labels) == said:
        if before.mask.ignored and not (labels == ignore_id(len(classes))).any():
            raise _foreign_error(context, before, "its id of ignored pixels is a class here")
        return replace(before, state=LOOSE, **more)
    _refuse_unknown_ids(path, count_labels(labels), len(classes), _back_hint(context, before.image))
    return _edited_entry(before, labels, classes, more)


def _edited_entry(before: Entry, labels: LabelArray, classes: tuple[LabelClass, ...], more: Mapping[str, Any]) -> Entry:
    """Return the entry of a mask that a person changed in place; `more` are its place and its file."""
    instances = before.bulk.objects(before.mask.size)
    if instances is not None:
        instances = follow_correction(instances, labels, classes)
    facts, kept, objects = corrected_mask(
        before,
        Labels(labels=labels, instances=instances),
        before.objects or (),
        classes,
        Correction(),
        model=before.bulk.unpack("model", RECORD_LIMIT),
        saved=saved_at(more["stamp"].mtime_ns),
    )
    return Entry.of(make_envelope(facts, kept), packed=pack_objects(objects), state=EDITED, **more)


_DAMAGED = "Restore the mask, or delete it: the image is then labelled again."
_UNKNOWN = "Run the command again that labelled the folder, or move the mask elsewhere."
_UNKNOWN_BLOCKS = "Move the mask elsewhere, label the image again, and move the mask back."


def _read_block_entry(context: RunContext, mask: BlockMask, path: Path, place: str, known: Entry | None) -> Entry:
    """Return the entry of a mask that is written block by block (see `read_entry`)."""
    try:
        status = path.stat()
        text = mask.read_facts(path)
    except OSError as error:
        raise ImageError(path, f"cannot be read: {describe_error(error)}", _DAMAGED) from error
    except ImageError as error:
        raise ImageError(path, error.reason, _DAMAGED) from error
    more: dict[str, Any] = {"place": place, "stamp": Fingerprint(status.st_size, status.st_mtime_ns, None)}
    if known is not None:
        more |= {"path": known.path, "input_mtime_ns": known.input_mtime_ns}
    facts = None
    with suppress(ValueError):
        facts = read_facts_text(text) if text else None
    before = known if facts is None else Entry.of(make_envelope(facts), **more)
    if before is None:
        raise ImageError(path, "says nothing of its image, which is unknown", _UNKNOWN_BLOCKS)
    old, number, hint = before.mask, len(context.classes), _back_hint(context, before.image)
    try:
        mask.check_mask(path, number, old.size, old.grid)
    except ImageError as error:
        raise ImageError(path, "changed by hand: " + error.reason, hint) from None
    digest = digest_blocks(mask.read_blocks(path, context), old.size)
    if digest == old.labels:
        return replace(before, state=LOOSE if facts is None else SEALED, **more)
    counts = count_blocks(mask.read_blocks(path, context), number)
    _refuse_unknown_ids(path, counts, number, hint)
    new = replace(
        old,
        by="person",
        source="",
        saved=saved_at(status.st_mtime_ns),
        accepted=False,
        labels=digest,
        **corrected_facts(counts, context.classes, old.confidence),
    )
    return Entry.of(make_envelope(new, {"origin": Correction().text()}), state=EDITED, **more)


def _foreign_names(entry: Entry, context: RunContext) -> ImageError | None:
    """Return the error of a person's mask whose ids have other names in the folder; else None."""
    names = {each.id: each.name for each in context.classes}
    others = [f"{each} is {name}" for each, name in entry.mask.names.items() if names.get(each) != name]
    return _foreign_error(context, entry, join_first(others, 3)) if others else None


def _foreign_error(context: RunContext, entry: Entry, what: str) -> ImageError:
    correct = f"tipsseg correct {shell_word(str(context.output))} --from FOLDER"
    hint = f"Move it elsewhere, run the same command again, and import the mask by class names: {correct}"
    return ImageError(context.output / entry.place, f"the mask has classes of another folder: {what}", hint)


def _back_hint(context: RunContext, image: str) -> str:
    """Return the hint for a mask that a person damaged."""
    undo = f"tipsseg correct {shell_word(str(context.output))} --undo {shell_word(image)}"
    return f"Correct the mask. To give the image back to the model and label it again: {undo}"


def _refuse_unknown_ids(path: Path, counts: NDArray[np.int64], classes: int, hint: str) -> None:
    known = {BACKGROUND, *range(1, classes + 1), ignore_id(classes)}
    if unknown := [str(each) for each in np.flatnonzero(counts).tolist() if each not in known]:
        raise ImageError(path, f"changed by hand: unknown ids: {join_first(unknown, 1)}", hint)


def listed_entries(context: RunContext, places: Container[str]) -> Iterator[Entry]:
    """Yield what manifest.jsonl says of the images whose masks are at these places."""
    with suppress(OSError), open_regular(context.output / MANIFEST_FILE) as file:
        for line in file:
            with suppress(ValueError, TypeError, KeyError):
                record = parse(line)
                place = record["files"][context.mask_format]
                if place in places:
                    picture = PictureFacts(bytes=record["size"], sha256=record["sha256"] or "")
                    facts = unknown_labels(
                        record["image"],
                        (record["height"], record["width"]),
                        picture,
                        question=context.question,
                        given=record.get("given", ""),
                        formerly=tuple(record.get("formerly", ())),
                    )
                    sealed = make_envelope(read_facts(facts.record()))
                    yield Entry.of(sealed, place=place, stamp=Fingerprint(0, 0, None), path=take(record, "path", str))


# ---- as they are on disk ----


def read_labels(context: RunContext, entry: Entry) -> Labels:
    """Read the labels of an image labelled whole. Raise ImageError if its mask is missing, or changed since it was judged."""
    path, said = actual_path(context.output, entry.place), entry.mask.labels
    labels, _ = read_painted_mask(path, entry.mask.size, context.classes, lambda ids: label_digest(ids) == said)
    if label_digest(labels) != said:
        raise ImageError(path, "changed while the command ran", "Run the same command again.")
    return Labels(labels=labels, instances=entry.bulk.objects(entry.mask.size))


def is_same_picture(entry: Entry, path: Path, reader: ImageReader) -> bool:
    """Return True if an image has the content that was labelled, or other bytes with the same upright pixels.

    A file that cannot be read counts as the same: that is reported when it is read.
    """
    if matches(entry.input, path):
        return True
    with suppress(OSError, ValueError):
        identify(path)
        with suppress(ImageError):
            pixels = entry.mask.picture.pixels
            return bool(pixels) and pixels == pixel_digest(reader.upright(path))
        return False
    return True


def read_picture_facts(path: Path, reader: ImageReader) -> PictureFacts:
    """Read what masks say of a picture. Raise ImageError, OSError or ValueError if that fails."""
    found = identify(path)[0]
    return PictureFacts(bytes=found.size, sha256=found.sha256 or "", pixels=pixel_digest(reader.upright(path)))


# ---- labels that an image had before ----

#: The size limit of unpacked labels that a mask keeps, in bytes: 6 for each pixel.
_KEPT_LIMIT = 6 << 30


def encode_labels(labels: Labels) -> bytes:
    """Return labels as masks keep them (see `read_kept`)."""
    arrays = {"labels": labels.labels, **({} if labels.instances is None else {"instances": labels.instances})}
    return encode_arrays(**arrays)


def read_kept(entry: Entry, classes: int, base: str) -> tuple[Labels, bool] | None:
    """Return labels that a mask keeps, and True if a person made them; None if they are missing or damaged.

    A corrected mask keeps the model's labels, and a person's that its source showed.

    Args:
        entry: The image.
        classes: The number of classes.
        base: The digest of the labels (see `Entry.base`).
    """
    bulk, size, correction = entry.bulk, entry.mask.size, entry.correction
    with suppress(OSError, ValueError, *DAMAGE):
        by_person = correction is not None and correction.before == base and "base" in bulk.bulk
        if by_person:
            with np.load(io.BytesIO(bulk.unpack("base", _KEPT_LIMIT) or b"")) as stored:
                labels, instances = stored["labels"], stored.get("instances")
        else:
            said = open_envelope(data := bulk.unpack("model", RECORD_LIMIT) or b"")
            if said.facts is None or labels_digest(said.facts, said) != base:
                return None
            with Image.open(io.BytesIO(data)) as picture:
                labels = np.array(picture).astype(label_dtype(classes))
            instances = said.objects(size)
        known = [BACKGROUND, *range(1, classes + 1), ignore_id(classes)]
        if labels.dtype == label_dtype(classes) and labels.shape == size and not np.setdiff1d(labels, known).size:
            return Labels(labels=labels, instances=instances), by_person
    return None


# ---- objects ----


def known_objects(entry: Entry, labels: Labels, classes: Sequence[LabelClass]) -> tuple[ObjectScore, ...]:
    """Return the objects of a mask with their scores: as they are known, or found again in the order of the scores inside."""
    if (known := entry.objects) is not None:
        return known
    scores = entry.scores
    regions = object_regions(labels.labels, classes, instances=labels.instances)
    if len(scores) != len(regions):
        scores = [entry.mask.confidence.get(region.class_id, CERTAIN) for region in regions]
    return tuple((each.class_id, each.area, *each.box, score) for each, score in zip(regions, scores, strict=True))


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
