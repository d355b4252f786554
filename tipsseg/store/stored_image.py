"""Read back a labelled image: its mask, edited or not, its labels, confidence and object scores."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, mask_formats
from tipsseg.formats.base import Format, Rows, StoredImage
from tipsseg.formats.instances import read_instances
from tipsseg.formats.png import count_faults, label_faults
from tipsseg.images.sources.address import below
from tipsseg.options import FileOptions
from tipsseg.regions.components import Region, count_labels
from tipsseg.regions.layers import Layer, paint_layers
from tipsseg.regions.objects import LabelledObject, follow_correction, object_regions
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, ObjectScore
from tipsseg.store.ownership import digest_of
from tipsseg.store.spec import check_hint
from tipsseg.store.writing import RunContext, run_files
from tipsseg.types import BACKGROUND, ImageRef, LabelArray, TopClasses, ignore_id
from tipsseg.util.files import file_size
from tipsseg.util.problem import UNREADABLE, class_text, describe_unreadable, size_text
from tipsseg.util.record_paths import actual_path

if TYPE_CHECKING:
    from tipsseg.store.open_run import Run

#: Labels as a format stores them.
_Labels = TypeVar("_Labels")

_LABEL_AGAIN = "Move the file away and label the image again."
_LEFT_OUT = (
    "This format omits ignored pixels and objects smaller than argument `min_area`; label with argument `formats`="
)
_BACK = "Correct the mask, or run the original command with argument `replace_edited` to label the image again."

#: Values of `Format.labels` for formats that hold the label ids of all pixels.
_ALL_PIXELS = ("mask", "archive")


@dataclass(frozen=True, slots=True)
class Mask:
    """An index mask of an image.

    Attributes:
        name: The name of its format.
        path: The file.
        digest: The sha256 of its content.
    """

    name: str
    path: Path
    digest: str


@dataclass(frozen=True, eq=False)
class RunImage:
    """A labelled image of a run. Thread-safe.

    Attributes:
        entry: Its manifest entry.
        run: The run, which must be open to read labels from files for the whole run.
    """

    entry: ManifestEntry
    run: Run

    @property
    def context(self) -> RunContext:
        return self.run.context

    @cached_property
    def stored(self) -> StoredImage:
        """Return the numbers to check the image's files against. Raises ImageError if the entry has impossible numbers."""
        names = {each.id: each.name for each in self.context.classes}
        try:
            return stored_image(self.entry, names, self.context.files, self.run.max_pixels, self.run.info.digest)
        except ValueError as error:
            place, name = self.context.state / MANIFEST_FILE, self.entry.image
            reason = f"{name}: invalid entry: {error}"
            raise ImageError(place, reason, check_hint(self.context.output)) from error

    def path(self, images: Path | None) -> Path:
        """Return the path of the image in the folder `images`, or the recorded path if `images` is None."""
        return actual_path(Path(), self.entry.path) if images is None else below(images, self.entry.image)

    def ref(self, images: Path | None) -> ImageRef:
        """Return the image as an input; see `path`."""
        return ImageRef(self.path(images), PurePosixPath(self.entry.image))

    # ---- masks ----

    @property
    def masks(self) -> dict[str, Path]:
        return {name: path for name in mask_formats() if (path := self.file(name)) is not None}

    def file(self, name: str) -> Path | None:
        file = self.entry.files.get(name)
        return None if file is None else actual_path(self.context.output, file)

    def correction(self) -> Mask | None:
        """Return the edited mask, recognised by its content; None if no mask was edited.

        Raises ImageError if two masks were edited differently.
        """
        found: list[Mask] = []
        for name, path in self.masks.items():
            if path.is_symlink():
                raise ImageError(path, "the mask is a symbolic link", "Replace the link with the file itself.")
            digest = digest_of(path)
            if digest and digest != self.entry.written[name].sha256 and not self.context.ownership.is_pending(path):
                found.append(Mask(name, path, digest))
        taken = self.entry.taken
        if taken is not None:
            # An imported correction replaces several masks. Ignore a mask that it has not replaced yet and, if one of them was
            # edited since, its other copies.
            found = [each for each in found if each.digest != taken.before] or found
            found = found[:1] + [each for each in found[1:] if each.digest != taken.mask]
        if len(found) > 1 and found[0].digest != found[1].digest:
            raise ImageError(
                found[0].path,
                f"this mask and {found[1].path} were edited differently",
                "Remove the wrong one.",
            )
        return found[0] if found else None

    def mask(self) -> Mask:
        """Return the first existing mask of the image. Raises ImageError if all are missing."""
        for name, path in self.masks.items():
            if digest := digest_of(path):
                return Mask(name, path, digest)
        corrected = self.entry.corrected is not None
        raise ImageError(
            self.context.output,
            f"the {'corrected ' * corrected}mask of {self.entry.image} is missing",
            _BACK if corrected else check_hint(self.context.output),
        )

    def is_corrected(self, correction: Mask | None) -> bool:
        """Return True if a person corrected the labels, in the edited mask `correction` or before."""
        return correction is not None or self.entry.corrected is not None

    def persons_mask(self, correction: Mask | None) -> Mask | None:
        """Return the corrected mask; None if the labels are the run's own.

        It is `correction`, if there is one. Once other formats are corrected, a mask with the run's content is a correction too.
        """
        return correction or (None if self.entry.corrected is None else self.mask())

    def read_mask(self, mask: Mask) -> LabelArray:
        """Return the label ids [H, W] of a mask that may have been edited.

        Raises ImageError if the mask's size or mode differs from what the run wrote, or if an id is not a class, background or
        ignored.
        """
        classes = self.stored.classes
        try:
            labels = FORMATS[mask.name].read_labels(self.stored, mask.path)
        except ImageError as error:
            raise ImageError(mask.path, f"changed by hand: {error.reason}", _BACK) from error
        known = {BACKGROUND, *classes, ignore_id(len(classes))}
        unknown = [label_id for label_id in np.flatnonzero(count_labels(labels)).tolist() if label_id not in known]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise ImageError(mask.path, f"changed by hand: unknown ids: {unknown[0]}{more}", _BACK)
        return labels

    def instances(self, labels: LabelArray, *, corrected: bool) -> NDArray[np.int32] | None:
        """Return the instances of a run with regions or labels.

        Args:
            labels: [H, W], the labels of the image.
            corrected: True if a person corrected them.

        Returns:
            [H, W] int32, 0 for none; None for a run without regions and labels.

        Raises:
            ImageError: The instance mask is missing or damaged.
        """
        if self.entry.given is None:
            return None
        path = self.file("instances")
        if path is None or not path.exists():
            output = self.context.output
            raise ImageError(output, f"the instance mask of {self.entry.image} is missing", check_hint(output))
        instances = read_instances(path, self.stored.size)
        return follow_correction(instances, labels, len(self.context.classes)) if corrected else instances

    def objects_digest(self, mask_digest: str) -> str:
        """Return a sha256 that changes with the objects of an image whose mask has the sha256 `mask_digest`."""
        path = None if self.entry.given is None else self.file("instances")
        if path is None:
            return mask_digest
        return hashlib.sha256(f"{mask_digest} {digest_of(path)}".encode()).hexdigest()

    # ---- labels and confidence of the run ----

    def labels(self) -> LabelArray:
        """Return the label ids [H, W] that the run wrote, from the first existing format that stores them.

        If classes overlap, they are those that `paint_layers` shows.

        Raises ImageError if no labels are left, or if a file was changed; no other file is tried, because its labels may be older.
        """
        if (layers := self.layers()) is not None:
            return paint_layers(layers, self.stored.size, len(self.context.classes))

        def read(form: Format, path: Path | None, rows: Rows) -> LabelArray:
            return (
                form.read_labels_from_rows(self.stored, rows) if path is None else form.read_labels(self.stored, path)
            )

        return self._read_back(label_sources(), read, lambda labels: label_faults(labels, self.stored))

    def layers(self) -> list[Layer] | None:
        """Return the pixels of each class that the run wrote, from the first existing format that stores them.

        None if its classes do not overlap. Raises like `labels`.
        """
        if not self.run.info.spec.options.overlap:
            return None

        def read(form: Format, path: Path | None, rows: Rows) -> list[Layer]:
            return (
                form.read_layers_from_rows(self.stored, rows) if path is None else form.read_layers(self.stored, path)
            )

        sources = [name for name in label_sources() if FORMATS[name].overlaps]
        return self._read_back(sources, read, self._layer_faults)

    def _layer_faults(self, layers: Sequence[Layer]) -> Iterator[str]:
        areas = {layer.region.class_id: layer.region.area for layer in layers}
        names = {class_id: class_text(self.stored.classes, class_id) for class_id in self.stored.classes}
        return count_faults(areas, names, self.stored)

    def _read_back(
        self,
        sources: Iterable[str],
        read: Callable[[Format, Path | None, Rows], _Labels],
        faults: Callable[[_Labels], Iterator[str]],
    ) -> _Labels:
        """Read the labels from the first existing format of `sources`: from its per-image file, or from rows if it has none."""
        for name in sources:
            if name not in self.entry.formats:
                continue
            form, path = FORMATS[name], self._existing(name)
            rows = self.run.records.rows(name, self.entry.image) if form.folder is None else None
            if path is None and not rows:
                continue
            try:
                labels = read(form, path, rows or ())
            except UNREADABLE as error:
                raise self._failure(name, describe_unreadable(error)) from error
            if wrong := next(faults(labels), "") or self._other_content(name):
                raise self._failure(name, wrong)
            return labels
        output = self.context.output
        raise ImageError(output, f"no labels of {self.entry.image} are left", check_hint(output))

    def scores(self) -> tuple[NDArray[np.float32], TopClasses]:
        """Return the confidence [H, W], 0..1, and the best classes of each patch. Raises ImageError if no archive has them."""
        for name in archives():
            path = self._existing(name)
            if path is not None:
                try:
                    return FORMATS[name].read_scores(self.stored, path)
                except UNREADABLE as error:
                    raise self._failure(name, describe_unreadable(error)) from error
        output = self.context.output
        raise ImageError(output, f"no confidence of {self.entry.image} is left", check_hint(output))

    def _existing(self, name: str) -> Path | None:
        path = self.file(name)
        return path if path is not None and path.exists() else None

    def _other_content(self, name: str) -> str:
        """Describe how a file differs from what was written; "" if it does not differ."""
        path = self.file(name)
        if path is None:
            return ""
        known, size = self.entry.written[name], file_size(path)
        if size != known.size:
            return f"{size} bytes, but the manifest says {known.size}"
        return "" if known.same_bytes(path) else "changed since it was written"

    def _failure(self, name: str, reason: str) -> ImageError:
        path = self.file(name)
        if path is not None:
            return ImageError(path, reason, _LABEL_AGAIN)
        whole = "npz" if self.run.info.spec.options.overlap else "png"
        path = run_files(name, self.context)[0].path
        return ImageError(path, f"{self.entry.image}: {reason}", f"{_LEFT_OUT}{whole}.")


def stored_image(
    entry: ManifestEntry, classes: Mapping[int, str], options: FileOptions, max_pixels: int, digest: str
) -> StoredImage:
    """Return the numbers to check an image's files against.

    Args:
        entry: Its manifest entry.
        classes: The names of the run's classes by id, 1..N.
        options: The file options of the run.
        max_pixels: Refuse images with more pixels.
        digest: The digest of the run, see `RunInfo.digest`.

    Raises:
        ValueError: The entry has impossible numbers.
    """
    numbers = entry.numbers
    size = numbers.size
    if size[0] * size[1] > max_pixels:
        raise ValueError(f"{size_text(size)} pixels, but argument `max_pixels` allows {max_pixels:,}")
    pixels = {BACKGROUND: numbers.background, ignore_id(len(classes)): numbers.ignored}
    for each in numbers.classes:
        if each.id in pixels:
            raise ValueError(f"id {each.id} is listed twice")
        pixels[each.id] = each.pixels
    return StoredImage(entry.image, size, pixels, classes, options, entry.digest == digest)


def label_sources() -> tuple[str, ...]:
    """Return the formats that label ids can be read from; those that store all pixels come first."""
    whole = (name for name, form in FORMATS.items() if form.labels in _ALL_PIXELS)
    return (*whole, *(name for name, form in FORMATS.items() if form.labels == "objects"))


def archives() -> tuple[str, ...]:
    """Return the formats that confidence and the best classes of patches can be read from."""
    return tuple(name for name, form in FORMATS.items() if form.labels == "archive")


def suffices(name: str, held: Collection[str]) -> bool:
    """Return True if format `name` can be written from the formats `held` as the run would have written it."""
    form = FORMATS[name]
    if form.needs_top_classes or form.needs_confidence:
        return not form.needs_top_classes and any(each in held for each in archives())
    return any(FORMATS[each].labels in _ALL_PIXELS for each in held)


# ---- scores of objects ----


def object_scores(objects: Iterable[LabelledObject]) -> tuple[ObjectScore, ...]:
    """Return the objects as the manifest records them."""
    return tuple((each.region.class_id, each.region.area, *each.region.box, each.score) for each in objects)


class ObjectScores:
    """Find the objects in labels that were read back, with their recorded scores.

    Attributes:
        rough: Number of objects without a recorded score, which got their class mean.
        instances: See `objects.object_regions`.
    """

    def __init__(
        self,
        known: Iterable[ObjectScore],
        means: Mapping[int, float],
        options: FileOptions,
        instances: NDArray[np.int32] | None = None,
    ) -> None:
        """Set up for one image.

        Args:
            known: The recorded objects.
            means: The confidence of other objects, by class id.
            options: The file options that define objects.
            instances: See `objects.object_regions`.
        """
        self.rough = 0
        # Components of a class never have the same area and box, as they would meet. Regions may; they keep their order.
        self._known: dict[tuple[int, ...], deque[float]] = defaultdict(deque)
        for each in known:
            self._known[each[:-1]].append(each[-1])
        self._means = means
        self._options = options
        self.instances = instances

    def objects(self, labels: LabelArray, classes: int, layers: Iterable[Layer] | None = None) -> list[LabelledObject]:
        """Return the objects in labels [H, W] with this number of classes, or in `layers`, as the run found them."""
        if layers is not None:
            height, width = labels.shape
            return [found for layer in layers for found in self.objects(layer.labels((height, width)), classes)]
        regions = object_regions(labels, classes, self._options, self.instances)
        return [LabelledObject(region, self._score(region), self._options.simplify) for region in regions]

    def _score(self, region: Region) -> float:
        if scores := self._known.get((region.class_id, region.area, *region.box)):
            return scores.popleft()
        self.rough += 1
        return self._means[region.class_id]
