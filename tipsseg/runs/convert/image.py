"""Convert one image: read its labels back from the files of a run, and write them in other formats."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, model_only_formats
from tipsseg.formats.base import ImageLabels, Rows
from tipsseg.images.decoding import open_pixels, open_thumbnail
from tipsseg.images.sources.access import absence, exists, matches
from tipsseg.regions.layers import Layer, paint_layers
from tipsseg.regions.objects import LabelledObject
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.ownership import StagedFile, digest_of
from tipsseg.store.results import Failed, Unchanged
from tipsseg.store.stored_image import Mask, ObjectScores, RunImage, object_scores
from tipsseg.store.summary import CERTAIN, corrected_summary
from tipsseg.store.writing import RunContext, finish_image
from tipsseg.types import ImageRef, LabelArray, TopClasses


@dataclass(frozen=True, slots=True)
class Item:
    """An image to convert, and the requested formats that it is missing from."""

    ref: ImageRef
    image: RunImage
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A converted image.

    Attributes:
        ref: The image.
        staged: Its per-image files, under temporary names.
        before: Its old manifest entry.
        entry: Its new manifest entry.
        rows: Its rows for files of the whole run, by format.
        polygon_quality: The fit of the new polygons.
        rough: The number of objects whose score is only the mean of their class.
        corrected: True if the labels come from a mask that a person corrected.
        edited: Files that a person edited, which are not overwritten.
        dropped: Formats that no longer contain the image, because they need the picture, and it is missing or has changed.
        formats: The written formats.
    """

    ref: ImageRef
    staged: tuple[StagedFile, ...]
    before: ManifestEntry
    entry: ManifestEntry
    rows: Mapping[str, Rows]
    polygon_quality: PolygonQuality
    rough: int
    corrected: bool
    edited: tuple[Path, ...]
    dropped: tuple[str, ...]
    formats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    """The formats to write and to drop for an image, and edited files, which are not overwritten."""

    write: tuple[str, ...]
    edited: tuple[Path, ...]
    drop: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """The labels of an image, read back.

    Attributes:
        labels: [H, W], the label ids.
        confidence: [H, W], 0..1; None if no format needs it.
        top: The best classes of each patch; None if no format needs them.
        summary: The summary of the labels, see `summary.label_summary`.
        scores: The scores of the objects.
        corrected: True if the labels come from a mask that a person corrected, or restored after a correction.
        layers: The pixels of each class; None if classes do not overlap.
    """

    labels: LabelArray
    confidence: NDArray[np.float32] | None
    top: TopClasses | None
    summary: Mapping[str, object]
    scores: ObjectScores
    corrected: bool
    layers: list[Layer] | None


@dataclass(frozen=True, slots=True)
class Conversion:
    """Convert images into the requested `formats`, and update `followers`, the run's other formats, from corrected masks."""

    context: RunContext
    formats: tuple[str, ...]
    followers: tuple[str, ...]

    def convert(self, item: Item) -> Converted | Unchanged | Failed:
        """Convert one image. Thread-safe. Raises OutputError if a file cannot be written."""
        try:
            correction = item.image.correction()
            choice = self._choose_formats(item, correction)
            if not (choice.write or choice.edited or choice.drop):
                return Unchanged(item.ref, item.image.entry)
            return self._convert(item, choice, correction)
        except ImageError as error:
            return Failed(item.ref, error)

    def _choose_formats(self, item: Item, correction: Mask | None) -> _Choice:
        """Choose the formats to write. Raises ImageError if a requested format needs the picture, but it has changed."""
        ref, entry = item.ref, item.image.entry
        digest = None if correction is None else correction.digest
        wanted = item.missing
        if digest != entry.corrected:
            # Update all formats from the mask, except those that only the model can write.
            current = (name for name in entry.formats if name not in model_only_formats())
            wanted = tuple(dict.fromkeys((*self.formats, *current)))
        formats, edited, outdated = list[str](), list[Path](), list[str]()
        for name in wanted:
            changed = [path for key in entry.keys(name) if (path := self._edited(key, ref, entry)) is not None]
            edited += [path for path in changed if correction is None or path != correction.path]
            if changed and not FORMATS[name].has_parts:
                continue
            if name in self.formats or name in self.followers:
                formats.append(name)
            elif not changed:
                outdated.append(name)
        needing = [name for name in formats if FORMATS[name].needs_image]
        if not needing or matches(entry.fingerprint, ref.path):
            return _Choice(tuple(formats), tuple(edited), tuple(outdated))
        if requested := [name for name in needing if name in self.formats]:
            raise _changed_image(ref, requested, corrected=correction is not None)
        return _Choice(tuple(name for name in formats if name not in needing), tuple(edited), (*needing, *outdated))

    def _edited(self, key: str, ref: ImageRef, entry: ManifestEntry) -> Path | None:
        """Return the path of a file that was edited; None if it was not."""
        path = self.context.image_path(key, ref)
        if path is None or not os.path.lexists(path) or self.context.ownership.is_pending(path):
            return None
        return path if digest_of(path) != entry.written[key].sha256 else None

    def _convert(self, item: Item, choice: _Choice, correction: Mask | None) -> Converted:
        ref, formats = item.ref, choice.write
        stored = self._read(item.image, formats, correction)
        needed = [FORMATS[name] for name in formats]
        objects: list[LabelledObject] = []
        if stored.corrected or any(form.needs_objects for form in needed):
            objects = stored.scores.objects(stored.labels, len(self.context.classes), stored.layers)
        with_thumbnail = any(form.needs_thumbnail for form in needed)
        with_pixels = any(form.needs_pixels for form in needed)
        run = item.image.run
        reading = run.max_pixels, run.info.spec.options.stretch
        image = ImageLabels(
            ref=ref,
            labels=stored.labels,
            objects=objects,
            confidence=stored.confidence,
            top=stored.top,
            thumbnail=open_thumbnail(ref.path, *reading) if with_thumbnail else None,
            instances=stored.scores.instances,
            layers=stored.layers,
            pixels=open_pixels(ref.path, stored.labels.shape, *reading) if with_pixels else None,
        )
        done = finish_image(image, formats, self.context, choice.edited)
        left = item.image.entry.without(choice.drop)
        kept = {key for key in left.files if self.context.image_path(key, ref) in choice.edited}
        entry = left.without(formats)
        entry = replace(
            entry,
            summary=stored.summary,
            formats=tuple(dict.fromkeys((*left.formats, *formats))),
            files={**entry.files, **{key: left.files[key] for key in kept}, **done.files},
            written={**entry.written, **{key: left.written[key] for key in kept}, **done.written},
            objects=object_scores(objects) if stored.corrected else entry.objects,
            corrected=None if correction is None else correction.digest,
        )
        scored = not stored.corrected and any(form.scores_objects for form in needed)
        return Converted(
            ref=ref,
            staged=done.staged,
            before=item.image.entry,
            entry=entry,
            rows=done.rows,
            polygon_quality=done.polygon_quality,
            rough=stored.scores.rough if scored else 0,
            corrected=correction is not None,
            edited=choice.edited,
            dropped=choice.drop,
            formats=formats,
        )

    def _read(self, image: RunImage, formats: tuple[str, ...], correction: Mask | None) -> _Stored:
        """Read an image's labels, and the confidences that the formats need. Raises ImageError if a file cannot be read."""
        entry, classes = image.entry, self.context.classes
        mask = image.persons_mask(correction)
        confidence, top, layers = None, None, None
        if mask is None:
            layers, summary = image.layers(), entry.summary
            labels = image.labels() if layers is None else paint_layers(layers, image.stored.size, len(classes))
            means = {numbers.id: numbers.confidence for numbers in entry.numbers.classes}
            if any(FORMATS[name].needs_confidence or FORMATS[name].needs_top_classes for name in formats):
                confidence, top = image.scores()
        else:
            labels = image.read_mask(mask)
            summary = corrected_summary(labels, classes, entry.summary)
            means = dict.fromkeys((label_class.id for label_class in classes), CERTAIN)
        instances = image.instances(labels, corrected=mask is not None)
        scores = ObjectScores(entry.objects, means, self.context.files, instances)
        return _Stored(labels, confidence, top, summary, scores, mask is not None, layers)


def _changed_image(ref: ImageRef, formats: list[str], *, corrected: bool) -> ImageError:
    """Return the error for a missing or changed picture; `corrected` is True if a person corrected its mask."""
    without = f"or leave out {' and '.join(formats)}."
    if not exists(ref.path):
        return ImageError(
            ref.path, absence(ref.path), f"Set the folder of the images with argument `images`, {without}"
        )
    again = "Label it again,"
    if corrected:
        again = "Restore the image; label it again with argument `replace_edited`, which discards the correction;"
    return ImageError(ref.path, "changed since it was labelled", f"{again} {without}")
