"""One image of `tipsseg convert`: read back what a run wrote of it, and write it in other formats as the run would have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.fidelity import Fidelity
from tipsseg.files import file_size, is_file
from tipsseg.image_labels import ImageLabels
from tipsseg.images import open_shown
from tipsseg.labelled_image import labelled_image
from tipsseg.manifest import MANIFEST_FILE, Entry
from tipsseg.outcome import Failed, Unchanged
from tipsseg.parts import check_hint
from tipsseg.record_values import actual_path
from tipsseg.records import ImageRef, LabelMap
from tipsseg.stored_labels import StoredImage, read_confidence, read_labels, unknown_confidence
from tipsseg.stored_records import StoredObject
from tipsseg.stored_scores import ObjectScores
from tipsseg.writers import FORMATS, Records, RunContext, Writer, run_files
from tipsseg.writing import write_labels


@dataclass(frozen=True, slots=True)
class Item:
    """An image to be converted.

    formats  that it is not in yet
    records  in one format of `stored_records.LISTS` that it is in, where there is one
    """

    ref: ImageRef
    entry: Entry
    formats: tuple[str, ...]
    records: Mapping[str, Records]


@dataclass(frozen=True, slots=True)
class Converted:
    """It was converted; its own files are in place.

    entry     with its new formats
    records   for the files of the whole run, by format
    fidelity  of the polygons that were made
    rough     objects whose score was written as the mean of their class, for want of anything better
    """

    ref: ImageRef
    entry: Entry
    records: Mapping[str, Records]
    fidelity: Fidelity
    rough: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """Converts images.

    context  of the run
    writers  by format
    """

    context: RunContext
    writers: Mapping[str, Writer]

    def convert(self, item: Item) -> Converted | Unchanged | Failed:
        """Convert one image; may be called from several threads. Raises OutputError for what ends the run."""
        if not item.formats:
            return Unchanged(item.ref, item.entry)
        try:
            return self._convert(item)
        except ImageError as error:
            return Failed(item.ref, error)

    def _convert(self, item: Item) -> Converted:
        output, ref, entry = self.context.output, item.ref, item.entry
        unseen = [name for name in item.formats if FORMATS[name].image]
        if unseen:
            _refuse_other_image(ref, entry, unseen)
        for name in item.formats:
            _refuse_changed(name, entry, output)
        stored = self._stored(item)
        scored = any(FORMATS[name].scores for name in item.formats)
        listed = self._listed(item, stored) if scored else []
        scores = ObjectScores(listed, stored.labelled.means, self.context.files)
        labels = ImageLabels(ref, lambda: open_shown(ref.path), self._label_map(stored, item.formats), scores.objects)
        writers = {name: self.writers[name] for name in item.formats}
        files, records = write_labels(labels, writers, output)
        sizes = {name: actual_path(output, file).stat().st_size for name, file in files.items()}
        with_these = replace(
            entry,
            formats=tuple(dict.fromkeys((*entry.formats, *item.formats))),
            files={**entry.files, **files},
            sizes={**entry.sizes, **sizes},
        )
        return Converted(ref, with_these, records, labels.fidelity, scores.rough if scored else 0)

    def _stored(self, item: Item) -> StoredImage:
        try:
            number = len(self.context.classes)
            return StoredImage(labelled_image(item.entry, number), item.records, number)
        except ValueError as error:
            raise self._wrong(self.context.records / MANIFEST_FILE, item, error) from error

    def _listed(self, item: Item, stored: StoredImage) -> list[StoredObject]:
        try:
            return list(chain.from_iterable(stored.objects.values()))
        except ValueError as error:
            (name,) = item.records
            raise self._wrong(run_files(name, self.context)[0].path, item, error) from error

    def _wrong(self, path: Path, item: Item, error: ValueError) -> ImageError:
        return ImageError(path, f"{item.ref.name}: not as tipsseg writes it: {error}", check_hint(self.context.output))

    def _label_map(self, stored: StoredImage, formats: tuple[str, ...]) -> LabelMap:
        labels = read_labels(stored, self.context)
        confidence, top = unknown_confidence(stored.labelled.size), None
        if any(form.scores or form.confidence or form.top for form in map(FORMATS.__getitem__, formats)):
            confidence, top = read_confidence(stored, self.context)
        return LabelMap(labels, confidence, self.context.classes, top)


def _refuse_changed(name: str, entry: Entry, output: Path) -> None:
    """Raise ImageError where a file would be replaced that somebody may have worked on."""
    file = entry.files.get(name)
    path = None if file is None else actual_path(output, file)
    if path is not None and path.exists() and file_size(path) != entry.sizes.get(name):
        raise ImageError(path, "changed since it was written", "Move it away to have it written again.")


def _refuse_other_image(ref: ImageRef, entry: Entry, formats: list[str]) -> None:
    """Raise ImageError where an image is not the one that was labelled."""
    if not entry.fingerprint.matches(ref.path):
        without = f"or leave out {' and '.join(formats)}."
        if is_file(ref.path):
            raise ImageError(ref.path, "changed since it was labelled", f"Label it again, {without}")
        raise ImageError(ref.path, "no such file", f"Give the folder that has it with --images, {without}")
