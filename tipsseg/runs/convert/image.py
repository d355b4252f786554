"""One image of `tipsseg convert`: read back what a run wrote of it, and write it in other formats as the run would have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, of_the_model
from tipsseg.formats.base import ImageLabels, Rows
from tipsseg.images.decoding import open_thumbnail
from tipsseg.regions.objects import LabelledObject
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.results import Failed, Unchanged
from tipsseg.store.stored_image import Mask, ObjectScores, RunImage, object_scores
from tipsseg.store.summary import CERTAIN, corrected_summary
from tipsseg.store.writing import RunContext, finish_image
from tipsseg.types import ImageRef, LabelArray, TopClasses
from tipsseg.util.files import is_file
from tipsseg.util.ownership import StagedFile, digest_of


@dataclass(frozen=True, slots=True)
class Item:
    """An image to be converted.

    Attributes:
        ref: The image.
        image: What the run has of it.
        missing: The formats of the conversion that it is not in yet.
    """

    ref: ImageRef
    image: RunImage
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The image was converted.

    Attributes:
        ref: The image.
        staged: Its per-image files, until they are put in place.
        before: What the records say of it.
        entry: What they are to say, with its new formats.
        rows: Its rows for the files of the whole run, by format.
        polygon_quality: How well the new polygons fit.
        rough: How many objects have the mean of their class as their score, because nothing closer is known.
        corrected: Whether the labels are from a mask that a person corrected.
        kept: Files of formats that the image should be in, which were changed by hand, and stay.
        left: Formats that the image is in no more: they need the image, which is gone or was changed.
        formats: The formats that were written.
    """

    ref: ImageRef
    staged: tuple[StagedFile, ...]
    before: ManifestEntry
    entry: ManifestEntry
    rows: Mapping[str, Rows]
    polygon_quality: PolygonQuality
    rough: int
    corrected: bool
    kept: tuple[Path, ...]
    left: tuple[str, ...]
    formats: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """The labels of an image, read back.

    Attributes:
        labels: [H, W], the label ids.
        confidence: [H, W], 0..1; None if no format needs it.
        top: The best classes of each patch; None if no format needs them.
        summary: What the labels hold, see `summary.label_summary`.
        scores: The scores of the objects.
        corrected: Whether the labels are from a mask that a person corrected, or corrected back.
    """

    labels: LabelArray
    confidence: NDArray[np.float32] | None
    top: TopClasses | None
    summary: Mapping[str, object]
    scores: ObjectScores
    corrected: bool


@dataclass(frozen=True, slots=True)
class Conversion:
    """Converts images.

    Attributes:
        context: What the writers have to know of the run.
        formats: The formats of the conversion.
        followers: Other formats of the run, which follow masks that were corrected.
    """

    context: RunContext
    formats: tuple[str, ...]
    followers: tuple[str, ...]

    def convert(self, item: Item) -> Converted | Unchanged | Failed:
        """Convert one image; any thread may call it. Raises OutputError for what ends the run."""
        try:
            correction = item.image.correction()
            formats, kept, left = self._formats(item, correction)
            if not formats and not kept and not left:
                return Unchanged(item.ref, item.image.entry)
            return self._convert(item, formats, kept, left, correction)
        except ImageError as error:
            return Failed(item.ref, error)

    def _formats(
        self, item: Item, correction: Mask | None
    ) -> tuple[tuple[str, ...], tuple[Path, ...], tuple[str, ...]]:
        """Return formats to write, files in their way that a person changed, and formats that cannot follow the correction."""
        ref, entry = item.ref, item.image.entry
        digest = None if correction is None else correction.digest
        wanted = item.missing
        if digest != entry.corrected:
            # All formats follow the labels, but what only the model can tell.
            held = (name for name in entry.formats if name not in of_the_model())
            wanted = tuple(dict.fromkeys((*self.formats, *held)))
        found: list[str] = []
        kept: list[Path] = []
        left: list[str] = []
        for name in wanted:
            path = self.context.image_path(FORMATS[name], ref)
            if name in entry.files and path is not None and self._is_edited(name, path, entry):
                kept += [] if correction is not None and path == correction.path else [path]
            elif name in self.formats or name in self.followers:
                found.append(name)
            else:
                left.append(name)
        return tuple(found), tuple(kept), tuple(left)

    def _is_edited(self, name: str, path: Path, entry: ManifestEntry) -> bool:
        there = digest_of(path)
        return (
            os.path.lexists(path)
            and there != entry.written[name].sha256
            and not self.context.ownership.is_pending(path)
        )

    def _convert(
        self,
        item: Item,
        formats: tuple[str, ...],
        kept: tuple[Path, ...],
        unfollowing: tuple[str, ...],
        correction: Mask | None,
    ) -> Converted:
        entry = item.image.entry
        ref = item.ref
        formats, without = self._without_image(ref, entry, formats, corrected=correction is not None)
        left = (*without, *unfollowing)
        stored = self._read(item.image, formats, correction)
        needed = [FORMATS[name] for name in formats]
        objects: list[LabelledObject] = []
        if stored.corrected or any(form.needs_objects for form in needed):
            objects = stored.scores.objects(stored.labels, len(self.context.classes))
        shown = any(form.needs_thumbnail for form in needed)
        image = ImageLabels(
            ref=ref,
            labels=stored.labels,
            objects=objects,
            confidence=stored.confidence,
            top=stored.top,
            thumbnail=open_thumbnail(ref.path, item.image.run.max_pixels) if shown else None,
        )
        done = finish_image(image, formats, self.context)
        entry = entry.without(left)
        with_these = replace(
            entry,
            summary=stored.summary,
            formats=tuple(dict.fromkeys((*entry.formats, *formats))),
            files={**entry.files, **done.files},
            written={**entry.written, **done.written},
            objects=object_scores(objects) if stored.corrected else entry.objects,
            corrected=None if correction is None else correction.digest,
        )
        scored = not stored.corrected and any(form.scores_objects for form in needed)
        return Converted(
            ref=ref,
            staged=done.staged,
            before=item.image.entry,
            entry=with_these,
            rows=done.rows,
            polygon_quality=done.polygon_quality,
            rough=stored.scores.rough if scored else 0,
            corrected=correction is not None,
            kept=kept,
            left=left,
            formats=formats,
        )

    def _without_image(
        self, ref: ImageRef, entry: ManifestEntry, formats: tuple[str, ...], *, corrected: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the formats that can be written, and those that the image has to leave, as they need it and it is another.

        Raises ImageError if a format of the conversion needs the image.
        """
        needing = [name for name in formats if FORMATS[name].needs_image]
        if not needing or entry.fingerprint.matches(ref.path):
            return formats, ()
        if asked := [name for name in needing if name in self.formats]:
            raise _other_image(ref, asked, corrected=corrected)
        # What nobody asked for does not keep the rest from following.
        return tuple(name for name in formats if name not in needing), tuple(needing)

    def _read(self, image: RunImage, formats: tuple[str, ...], correction: Mask | None) -> _Stored:
        """Read the labels of an image, and what these formats need beside them. Raises ImageError."""
        entry, classes = image.entry, self.context.classes
        mask = image.persons_mask(correction)
        confidence, top = None, None
        if mask is None:
            labels, summary = image.labels(), entry.summary
            means = {each.id: each.confidence for each in entry.numbers.classes}
            if any(FORMATS[name].needs_confidence or FORMATS[name].needs_top_classes for name in formats):
                confidence, top = image.scores()
        else:
            labels = image.read_mask(mask)
            summary, means = corrected_summary(labels, classes, entry.summary), {each.id: CERTAIN for each in classes}
        scores = ObjectScores(entry.objects or (), means, self.context.files)
        return _Stored(labels, confidence, top, summary, scores, mask is not None)


def _other_image(ref: ImageRef, formats: list[str], *, corrected: bool) -> ImageError:
    """Return the error for an image that is not the one that was labelled; `corrected` tells whether its mask was."""
    without = f"or leave out {' and '.join(formats)}."
    if not is_file(ref.path):
        return ImageError(ref.path, "no such file", f"Give the folder that has it with argument `images`, {without}")
    again = "Label it again,"
    if corrected:
        again = "Put back the image of before, label it again with argument `replace_edited`, which gives the correction up,"
    return ImageError(ref.path, "changed since it was labelled", f"{again} {without}")
