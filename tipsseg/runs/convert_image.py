"""One image of `tipsseg convert`: read back what a run wrote of it, and write it in other formats as the run would have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, Rows, RunContext, Writer, image_path, run_files
from tipsseg.formats.writing import write_labels
from tipsseg.images.decoding import open_thumbnail
from tipsseg.regions.objects import ImageLabels
from tipsseg.regions.quality import PolygonQuality
from tipsseg.store.corrections import (
    CERTAIN,
    OF_THE_MODEL,
    Correction,
    corrected_summary,
    find_correction,
    read_correction,
    written_mask,
)
from tipsseg.store.labelled_image import labelled_image
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry
from tipsseg.store.reader import check_hint
from tipsseg.store.results import Failed, Unchanged
from tipsseg.store.resume import remove_files
from tipsseg.store.stored_labels import StoredImage, read_confidence, read_labels, unknown_confidence
from tipsseg.store.stored_rows import StoredObject
from tipsseg.store.stored_scores import ObjectScores
from tipsseg.types import ImageRef, LabelMap
from tipsseg.util.files import is_file
from tipsseg.util.ownership import digest_of


@dataclass(frozen=True, slots=True)
class Item:
    """An image to be converted.

    missing  the formats of the conversion that it is not in yet
    records  in one format of `stored_rows.LISTS` that it is in, where there is one
    """

    ref: ImageRef
    entry: ManifestEntry
    missing: tuple[str, ...]
    rows: Mapping[str, Rows]


@dataclass(frozen=True, slots=True)
class Converted:
    """It was converted; its own files are in place.

    entry      with its new formats
    records    for the files of the whole run, by format
    fidelity   of the polygons that were made
    rough      objects whose score was written as the mean of their class, for want of anything better
    corrected  whether its labels are those of a mask that a person corrected
    kept       files of formats that it should be in, which were changed by hand, and stay
    left       formats that it is in no more, as they need the image, which is gone or was changed
    """

    ref: ImageRef
    entry: ManifestEntry
    rows: Mapping[str, Rows]
    fidelity: PolygonQuality
    rough: int
    corrected: bool
    kept: tuple[Path, ...]
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversion:
    """Converts images.

    context  of the run
    formats  of the conversion
    writers  by format; those of the conversion, and of the run for images whose masks were corrected
    """

    context: RunContext
    formats: tuple[str, ...]
    writers: Mapping[str, Writer]

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
            held = (name for name in entry.formats if name not in OF_THE_MODEL)
            wanted = tuple(dict.fromkeys((*self.formats, *held)))
        found: list[str] = []
        kept: list[Path] = []
        for name in wanted:
            path = image_path(name, output, ref.relative, self.context.files.names)
            if name in entry.files and path is not None and self._is_edited(name, path, entry):
                kept += [] if correction is not None and path == correction.path else [path]
            elif name in self.writers:
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
        stored = self._stored(item)
        scored = any(FORMATS[name].scores for name in formats)
        listed = self._listed(item, stored) if scored else []
        # A mask that is the run's again is taken as one that a person corrected, back to what it was.
        source = correction or (None if entry.corrected is None else written_mask(entry, self.context.output))
        if source is None:
            label_map, summary = self._label_map(stored, formats), entry.summary
            scores = ObjectScores(listed, stored.labelled.means, self.context.files)
        else:
            size, classes = stored.labelled.size, self.context.classes
            labels = read_correction(source, size, len(classes), self.context.files)
            label_map = LabelMap(labels, unknown_confidence(size), classes, None)
            summary = corrected_summary(labels, classes, entry.summary)
            scores = ObjectScores(listed, {each.id: CERTAIN for each in classes}, self.context.files)
        image = ImageLabels(ref, lambda: open_thumbnail(ref.path), label_map, scores.objects)
        done = write_labels(image, {name: self.writers[name] for name in formats}, self.context.output)
        remove_files(entry, left, self.context, self.context.files.names)
        entry = entry.without(left)
        with_these = replace(
            entry,
            summary=summary,
            formats=tuple(dict.fromkeys((*entry.formats, *formats))),
            files={**entry.files, **done.files},
            written={**entry.written, **done.written},
            corrected=None if correction is None else correction.digest,
        )
        rough = scores.rough if scored and source is None else 0
        corrected = correction is not None
        return Converted(ref, with_these, done.rows, image.fidelity, rough, corrected, kept, left)

    def _stored(self, item: Item) -> StoredImage:
        try:
            number = len(self.context.classes)
            return StoredImage(labelled_image(item.entry, number), item.rows, number)
        except ValueError as error:
            raise self._wrong(self.context.state / MANIFEST_FILE, item, error) from error

    def _listed(self, item: Item, stored: StoredImage) -> list[StoredObject]:
        try:
            return list(chain.from_iterable(stored.objects.values()))
        except ValueError as error:
            (name,) = item.rows
            raise self._wrong(run_files(name, self.context)[0].path, item, error) from error

    def _wrong(self, path: Path, item: Item, error: ValueError) -> ImageError:
        return ImageError(path, f"{item.ref.name}: not as tipsseg writes it: {error}", check_hint(self.context.output))

    def _label_map(self, stored: StoredImage, formats: tuple[str, ...]) -> LabelMap:
        labels = read_labels(stored, self.context)
        confidence, top = unknown_confidence(stored.labelled.size), None
        if any(form.scores or form.confidence or form.top for form in map(FORMATS.__getitem__, formats)):
            confidence, top = read_confidence(stored, self.context)
        return LabelMap(labels, confidence, self.context.classes, top)


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
