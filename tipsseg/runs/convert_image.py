"""One image of `tipsseg convert`: read back what a run wrote of it, and write it in other formats as the run would have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, of_the_model, write_labels
from tipsseg.formats.base import ImageLabels, Rows, RunContext
from tipsseg.images.decoding import open_thumbnail
from tipsseg.regions.quality import PolygonQuality
from tipsseg.store.corrections import (
    CERTAIN,
    Correction,
    corrected_summary,
    find_correction,
    read_correction,
    written_mask,
)
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry
from tipsseg.store.reader import check_hint
from tipsseg.store.results import Failed, Unchanged
from tipsseg.store.resume import remove_files
from tipsseg.store.stored_image import (
    LabelledImage,
    ObjectScores,
    labelled_image,
    object_scores,
    read_labels,
    read_scores,
    unknown_confidence,
)
from tipsseg.types import ImageRef, LabelMap
from tipsseg.util.files import is_file
from tipsseg.util.ownership import digest_of


@dataclass(frozen=True, slots=True)
class Item:
    """An image to be converted.

    missing  the formats of the conversion that it is not in yet
    rows     of the image, in the formats that it is in whose labels can be read back from rows alone
    """

    ref: ImageRef
    entry: ManifestEntry
    missing: tuple[str, ...]
    rows: Mapping[str, Rows]


@dataclass(frozen=True, slots=True)
class Converted:
    """It was converted; its own files are in place.

    entry      with its new formats
    rows       for the files of the whole run, by format
    polygon_quality  how well the polygons fit that were made
    rough      objects whose score was written as the mean of their class, for want of anything better
    corrected  whether its labels are those of a mask that a person corrected
    kept       files of formats that it should be in, which were changed by hand, and stay
    left       formats that it is in no more, as they need the image, which is gone or was changed
    """

    ref: ImageRef
    entry: ManifestEntry
    rows: Mapping[str, Rows]
    polygon_quality: PolygonQuality
    rough: int
    corrected: bool
    kept: tuple[Path, ...]
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversion:
    """Converts images.

    context    of the run
    formats    of the conversion
    followers  other formats of the run, which follow masks that were corrected
    """

    context: RunContext
    formats: tuple[str, ...]
    followers: tuple[str, ...]

    def convert(self, item: Item) -> Converted | Unchanged | Failed:
        """Convert one image; may be called from several threads. Raises OutputError for what ends the run."""
        try:
            correction = find_correction(item.entry, self.context.output, self.context.ownership)
            formats, kept = self._formats(item, correction)
            if not formats and not kept:
                return Unchanged(item.ref, item.entry)
            return self._convert(item, formats, kept, correction)
        except ImageError as error:
            return Failed(item.ref, error)

    def _formats(self, item: Item, correction: Correction | None) -> tuple[tuple[str, ...], tuple[Path, ...]]:
        """The formats that are to be written, and the files in their way that a person changed."""
        ref, entry, output = item.ref, item.entry, self.context.output
        digest = None if correction is None else correction.digest
        wanted = item.missing
        if digest != entry.corrected:
            # All formats follow the labels, but what only the model can tell.
            held = (name for name in entry.formats if name not in of_the_model())
            wanted = tuple(dict.fromkeys((*self.formats, *held)))
        found: list[str] = []
        kept: list[Path] = []
        for name in wanted:
            path = FORMATS[name].image_path(output, ref.relative, self.context.files.names)
            if name in entry.files and path is not None and self._is_edited(name, path, entry):
                kept += [] if correction is not None and path == correction.path else [path]
            elif name in self.formats or name in self.followers:
                found.append(name)
        return tuple(found), tuple(kept)

    def _is_edited(self, name: str, path: Path, entry: ManifestEntry) -> bool:
        there = digest_of(path)
        return (
            os.path.lexists(path)
            and there != entry.written[name].sha256
            and not self.context.ownership.is_pending(path)
        )

    def _convert(
        self, item: Item, formats: tuple[str, ...], kept: tuple[Path, ...], correction: Correction | None
    ) -> Converted:
        entry = item.entry
        ref = replace(item.ref, replaceable=entry.replaceable, linked=entry.formats, former=entry.fingerprint.sha256)
        unseen = [name for name in formats if FORMATS[name].image and name in self.formats]
        if unseen:
            _refuse_other_image(ref, entry, unseen, corrected=correction is not None)
        # What nobody asked for does not keep the rest from following.
        left = tuple(name for name in formats if FORMATS[name].image and name not in self.formats)
        if left and entry.fingerprint.matches(ref.path):
            left = ()
        formats = tuple(name for name in formats if name not in left)
        image = self._read(item)
        # A mask that is the run's again is taken as one that a person corrected, back to what it was.
        source = correction or (None if entry.corrected is None else written_mask(entry, self.context.output))
        if source is None:
            label_map, summary, means = self._label_map(item, image, formats), entry.summary, image.means
        else:
            labels, classes = read_correction(source, image.stored), self.context.classes
            label_map = LabelMap(labels, unknown_confidence(image.stored.size), classes, None)
            summary = corrected_summary(labels, classes, entry.summary)
            means = {each.id: CERTAIN for each in classes}
        scores = ObjectScores(entry.objects, means, self.context.files)
        written = ImageLabels(ref, lambda: open_thumbnail(ref.path), label_map, scores.objects)
        done = write_labels(written, formats, self.context)
        remove_files(entry, left, self.context, self.context.files.names)
        entry = entry.without(left)
        with_these = replace(
            entry,
            summary=summary,
            formats=tuple(dict.fromkeys((*entry.formats, *formats))),
            files={**entry.files, **done.files},
            written={**entry.written, **done.written},
            objects=entry.objects if source is None else object_scores(written.objects),
            corrected=None if correction is None else correction.digest,
        )
        scored = source is None and any(FORMATS[name].scores for name in formats)
        return Converted(
            ref,
            with_these,
            done.rows,
            written.polygon_quality,
            scores.rough if scored else 0,
            correction is not None,
            kept,
            left,
        )

    def _read(self, item: Item) -> LabelledImage:
        classes = {each.id: each.name for each in self.context.classes}
        try:
            return labelled_image(item.entry, classes, self.context.files)
        except ValueError as error:
            raise ImageError(
                self.context.state / MANIFEST_FILE,
                f"{item.ref.name}: not as tipsseg writes it: {error}",
                check_hint(self.context.output),
            ) from error

    def _label_map(self, item: Item, image: LabelledImage, formats: tuple[str, ...]) -> LabelMap:
        labels = read_labels(image, item.rows, self.context)
        if any(FORMATS[name].confidence or FORMATS[name].top for name in formats):
            confidence, top = read_scores(image, self.context)
            return LabelMap(labels, confidence, self.context.classes, top)
        return LabelMap(labels, unknown_confidence(image.stored.size), self.context.classes, None)


def _refuse_other_image(ref: ImageRef, entry: ManifestEntry, formats: list[str], *, corrected: bool) -> None:
    """Raise ImageError where an image is not the one that was labelled; `corrected` tells whether its mask was."""
    if not entry.fingerprint.matches(ref.path):
        without = f"or leave out {' and '.join(formats)}."
        if not is_file(ref.path):
            raise ImageError(ref.path, "no such file", f"Give the folder that has it with --images, {without}")
        again = "Label it again,"
        if corrected:
            again = "Put back the image of before, label it anew with --replace-edited, which gives the correction up,"
        raise ImageError(ref.path, "changed since it was labelled", f"{again} {without}")
