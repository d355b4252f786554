"""Existing labels: their classes, and the labels of each image, in any format that `tipsseg correct` reads."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import InputError, UsageError
from tipsseg.formats import FORMATS, detect_format, refuse_parts
from tipsseg.formats.classes_file import read_relations
from tipsseg.formats.png import read_named_masks
from tipsseg.formats.records import ClassNames, Objects, PixelLabels, Size, SourceImage, image_errors, index_images
from tipsseg.formats.source import Source
from tipsseg.masks.names import SourceNames
from tipsseg.regions.naming import NamedRegions
from tipsseg.regions.objects import ancestors, follow_correction
from tipsseg.types import BACKGROUND, ImageRef, LabelArray, LabelClass, ignore_id, label_dtype
from tipsseg.util.files import is_folder
from tipsseg.util.text import fold
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, listed_classes, make_vocabulary


class _AllNames(ClassNames):
    """Collects the classes of a source."""

    collects = True

    def __init__(self) -> None:
        super().__init__((), add=True)

    def declare(self, names: Iterable[object]) -> None:
        for name in names:
            if isinstance(name, str) and name.strip():  # a blank name is an error of its image
                self.id_of(name)


class _KnownNames(ClassNames):
    """The classes of a run. An unknown name is an error of its image."""

    def __init__(self, classes: Sequence[LabelClass]) -> None:
        super().__init__(classes, add=True)

    def id_of(self, name: object) -> int:
        found = super().id_of(name)
        if found > self.count:
            raise ValueError(f"the class {name!r} was not in the source when the run began")
        return found


def class_names(path: Path) -> tuple[str, ...]:
    """Return the names of all classes in a source, in its order; none for index masks without a list of classes.

    Raises:
        InputError, ImageError: The source cannot be read, or has no labels.
    """
    names = _AllNames()
    with Source(path) as source:
        if not sum(1 for _ in _read_source(source, names)):
            raise InputError(f"{path}: no labels", "In Label Studio, submit the annotations: predictions do not count.")
    return names.added


def _read_source(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield the images in a source. An output folder of tipsseg is read from its masks, corrected or not."""
    refuse_parts(source.path)
    folder = f"{FORMATS['png'].folder}/"
    masks = [name for name in source.find_suffix(".png") if name.startswith(folder)]
    if source.is_output and masks:
        pairs = ((str(PurePosixPath(name[len(folder) :]).with_suffix("")), name) for name in masks)
        return read_named_masks(pairs, source, names)
    try:
        return detect_format(source).read(source, names)
    except InputError as error:
        raise InputError(
            error.message,
            "Pass the files of one format that tipsseg correct reads, for example OUT/annotations.json or OUT/labelme.",
        ) from None


class LabelSource:
    """The labels of all images in a source. Thread-safe.

    Attributes:
        names: Finds the labels of an image.
        skipped: The kinds of shapes without pixels that were skipped, such as lines, each with its number.
    """

    def __init__(self, path: Path, classes: Sequence[LabelClass]) -> None:
        """List the images; `classes` are the run's, with the classes of the source. Raise InputError or ImageError."""
        self.skipped = Counter[str]()
        source = Source(path)
        weakref.finalize(self, source.close)
        self._images = index_images(_read_source(source, _KnownNames(classes)))
        self.names = SourceNames(self._images)

    def read(self, ref: ImageRef, size: Size) -> PixelLabels | Objects | None:
        """Return the labels of an image of `size`; None if it has none. See `SourceNames` for names.

        Raises:
            ImageError: The labels cannot be read, or could belong to several images.
        """
        name = self.names.find(ref)
        if name is None:
            return None
        image = self._images[name]
        with image_errors(image.where):
            return image.read(size)


def paint_objects(
    given: PixelLabels | Objects, size: Size, classes: Sequence[LabelClass]
) -> tuple[LabelArray, NDArray[np.int32]]:
    """Return the label ids [H, W] of labels, and their instances [H, W]: 1, 2, ... for objects, 0 for labels of pixels.

    Parts are above wholes, and have the instance of the whole that they are in.
    """
    dtype = label_dtype(len(classes))
    instances = np.zeros(size, np.int32)
    if isinstance(given, PixelLabels):
        assert given.labels is not None  # only `correct` reads objects alone
        own = instances if given.instances is None else follow_correction(given.instances, given.labels, classes)
        return cast(LabelArray, given.labels.astype(dtype)), own
    labels = cast(LabelArray, np.zeros(size, dtype))
    depths = [0, *(len(chain) - 1 for chain in ancestors(classes))]
    for number, shape in sorted(enumerate(given.shapes, start=1), key=lambda pair: depths[pair[1].class_id]):  # stable
        alone = shape.mask & (instances[shape.place] == 0) if depths[shape.class_id] else shape.mask
        labels[shape.place][shape.mask] = shape.class_id
        instances[shape.place][alone] = number
    return labels, instances


def keep_labels(
    result: NamedRegions, given: PixelLabels | Objects, added: Sequence[int], classes: Sequence[LabelClass]
) -> NamedRegions:
    """Return the existing labels, and on pixels without one the new classes.

    Args:
        result: The labels of the run, with its instances.
        given: The existing labels.
        added: The ids of the classes to add.
        classes: The classes.
    """
    height, width = result.labels.shape
    kept, instances = paint_objects(given, (height, width), classes)
    exists = kept != BACKGROUND
    new = np.isin(result.labels, [*added, ignore_id(len(classes))]) & ~exists
    last = int(instances.max())
    np.copyto(kept, result.labels, where=new)
    np.copyto(instances, result.instances + last, where=new & (result.instances > 0))
    confidence = result.confidence.copy()
    confidence[exists] = 1
    return NamedRegions(labels=kept, confidence=confidence, instances=instances)


def join_classes(onto: Path, vocabulary: Vocabulary) -> tuple[Vocabulary, tuple[str, ...]]:
    """Return a vocabulary of the classes of existing labels and of new classes, and the names of the classes to add.

    The classes of the labels come first, in their order. A class of both keeps the settings of `vocabulary`. A whole of both is not
    added: its parts are, inside existing wholes.

    Raises:
        UsageError: The vocabulary was fitted, so it has no phrases for the classes of the labels.
        InputError, ImageError: The labels cannot be read.
    """
    specs = _named_classes(onto)
    known, wholes = {fold(spec.name) for spec in specs}, {entry.part_of for entry in vocabulary.classes}
    added = [entry.name for entry in vocabulary.classes if entry.id not in wholes or fold(entry.name) not in known]
    return _join(specs, vocabulary), tuple(added)


def _join(listed: Sequence[ClassSpec], vocabulary: Vocabulary) -> Vocabulary:
    """Return a vocabulary of the listed classes, with the settings of `vocabulary`, then the others of `vocabulary`."""
    if vocabulary.fit:
        raise UsageError(
            "existing labels require phrases for their classes, but the vocabulary is fitted", "Pass class names."
        )
    own = {fold(spec.name): spec for spec in vocabulary.specs if not spec.negative}
    specs = []
    for spec in listed:
        same = own.get(fold(spec.name), spec)
        specs.append(replace(same, part_of=same.part_of or spec.part_of, phrase=same.phrase or spec.phrase))
    taken = {fold(spec.name) for spec in specs}
    others = [spec for spec in vocabulary.specs if spec.negative or fold(spec.name) not in taken]
    background = "auto" if vocabulary.auto else vocabulary.background or "none"
    return make_vocabulary([*specs, *others], background, vocabulary.templates, vocabulary.source)


def classes_of_labels(labels: Path, vocabulary: Vocabulary | None) -> tuple[LabelClass, ...]:
    """Return the classes of existing labels, by the ids in which `LabelSource` reads them.

    Args:
        labels: The labels.
        vocabulary: Classes by name, which add synonyms, or name the ids of index masks; None for the names alone.

    Raises:
        UsageError: The labels name no classes, and `vocabulary` is None.
        InputError, ImageError: The labels cannot be read.
    """
    if vocabulary is None:
        return make_vocabulary(_named_classes(labels), "none").classes
    names = class_names(labels)
    return _join(_listed(labels, names), vocabulary).classes if names else vocabulary.classes


def _listed(labels: Path, names: Sequence[str]) -> list[ClassSpec]:
    """Return the classes with these names in a source, parts with their wholes: as a classes.json says, or by slashes."""
    with Source(labels) as source:
        known = read_relations(source)
    return [known.get(spec.name, spec) for spec in listed_classes(names)]


def _named_classes(labels: Path) -> list[ClassSpec]:
    """Return all classes in a source. Raise UsageError if it names none, and errors of `class_names`."""
    if names := class_names(labels):
        return _listed(labels, names)
    raise UsageError(
        f"{labels} does not name its classes",
        f"{'Write a classes.json into it' if is_folder(labels) else 'Pass a folder that has it, and a classes.json'}: "
        '{"classes": [{"id": 1, "name": "tree"}, {"id": 2, "name": "car"}]}',
    )
