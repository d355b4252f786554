"""Images with masks that a person made: those that were edited in the output folder of a run, or truth masks beside images."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import numpy as np

from tipsseg.errors import ImageError, InputError
from tipsseg.evaluation.pairing import Pair, find_truths
from tipsseg.evaluation.truth import Layout, read_truth
from tipsseg.regions.components import count_labels
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.progress import Progress
from tipsseg.store.open_run import Run, open_run
from tipsseg.store.stored_image import Mask, RunImage
from tipsseg.types import ImageRef, LabelArray
from tipsseg.util.printable import counted, shell_word

_Other = TypeVar("_Other")
_Masks = TypeVar("_Masks", bound="Masks")

#: Of more images without a mask so many are looked at.
_OTHERS = 32

#: Of more images with a mask so many are read: memory and time are bounded by it. A fit takes some 256 pieces of them at last.
_MOST = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks(ABC):
    """Images that have a mask, and their masks.

    Attributes:
        folder: The folder that the masks are in.
        refs: The images.
        others: Some of the images that have no mask, drawn at random and always the same.
    """

    noun: ClassVar[str] = "mask"

    folder: Path
    refs: tuple[ImageRef, ...]
    others: tuple[ImageRef, ...]

    @abstractmethod
    def file(self, ref: ImageRef) -> Path:
        """Return the file of the mask of an image."""

    @abstractmethod
    def read(self, ref: ImageRef) -> LabelArray:
        """Return the mask of an image: [H, W], 0 the background, 1..N the classes; other ids do not count. Raises ImageError."""

    def only(self, refs: Iterable[ImageRef]) -> Self:
        """Return the masks of these images alone."""
        return replace(self, refs=tuple(refs))


@dataclass(frozen=True, slots=True, kw_only=True)
class EditedMasks(Masks):
    """The masks in the output folder of a run that a person edited.

    Attributes:
        run: The run, which is closed by now.
        images: The images with their masks, by name.
    """

    noun: ClassVar[str] = "corrected mask"

    run: Run
    images: Mapping[str, tuple[RunImage, Mask]]

    def file(self, ref: ImageRef) -> Path:
        """See Masks."""
        return self.images[ref.name][1].path

    def read(self, ref: ImageRef) -> LabelArray:
        """See Masks. An image that was changed since it was labelled is refused: its mask is of another image."""
        image, mask = self.images[ref.name]
        if not ref.path.exists():
            raise ImageError(ref.path, "no such file", "Say where the images are with argument `images`.")
        if not image.entry.fingerprint.matches(ref.path):
            raise ImageError(ref.path, f"changed since it was labelled, and {mask.path} is of what it was")
        return image.read_mask(mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthMasks(Masks):
    """Truth masks beside images.

    Attributes:
        pairs: The images and their masks, by the name of the image.
        without: How many images have no mask.
        max_pixels: Larger masks are refused.
    """

    pairs: Mapping[str, Pair]
    without: int
    max_pixels: int

    def file(self, ref: ImageRef) -> Path:
        """See Masks."""
        return self.pairs[ref.name].truth

    def read(self, ref: ImageRef) -> LabelArray:
        """See Masks."""
        pair = self.pairs[ref.name]
        return read_truth(pair.truth, pair.kind.ids, self.max_pixels)


def draw_masks(masks: _Masks, progress: Progress, *, classes: int = 0, jobs: int = 1) -> _Masks:
    """Return some of many masks, drawn at random and always the same; all, where they are no more than `_MOST`.

    Args:
        masks: The masks.
        progress: Is told where some are left out.
        classes: N, where rare classes come first: all masks are read then, and each class is in all that have it, or in an Nth of
            those that are drawn. 0: all are drawn alike, as whoever measures shares of right pixels needs them.
        jobs: Threads.
    """
    refs = masks.refs
    if len(refs) <= _MOST:
        return masks
    order = random.Random(0).sample(range(len(refs)), len(refs))
    if classes:

        def classes_of(ref: ImageRef) -> list[int]:
            try:
                return np.flatnonzero(count_labels(masks.read(ref))[1 : classes + 1]).tolist()
            except ImageError:
                return []  # told where it is drawn

        with ThreadPoolExecutor(jobs) as pool:
            found = list(pool.map(classes_of, refs))
        there = Counter(each for of_image in found for each in of_image)
        drawn: Counter[int] = Counter()
        first: dict[int, None] = {}
        for rare, _ in reversed(there.most_common()):
            for at in order:
                if drawn[rare] >= max(_MOST // classes, 1):
                    break
                if rare in found[at] and at not in first:
                    drawn.update(found[at])
                    first[at] = None
        order = [*first, *(at for at in order if at not in first)]
    progress.note(
        f"{_MOST} of {counted(len(refs), masks.noun)} are taken, drawn at random"
        + (", those with rare classes first." if classes else ".")
    )
    return masks.only([refs[at] for at in sorted(order[:_MOST])])


def require_masks(masks: Masks, usable: int, failed: Sequence[ImageError], fewest: int, wish: str) -> None:
    """Raise InputError where fewer masks can be used than a wish takes.

    Args:
        masks: The masks.
        usable: How many of them can be used.
        failed: What is wrong with those that cannot be read, or with their images.
        fewest: How many it takes.
        wish: What takes them, with its verb: "a fit needs".
    """
    if usable >= fewest:
        return
    number = counted(len(masks.refs), masks.noun)
    if usable < len(masks.refs):
        number = f"{usable} of {number} can be used"
    elif usable == 1:
        number = f"only {number}"
    raise InputError(
        f"{masks.folder}: {number}; {wish} {fewest} or more{' images' * (fewest > 2)}",
        _repair(masks, failed[0], len(failed) - 1) if failed else _one_more(masks, fewest - usable),
    )


def _repair(masks: Masks, first: ImageError, others: int) -> str:
    more = f" {counted(others, 'more image')} failed." if others else ""
    if first.path in map(masks.file, masks.refs):
        return f"Repair the mask {first.path}: {first.reason}.{more}"
    return f"Put this right first: {first.message}.{more}"


def _one_more(masks: Masks, lacking: int) -> str:
    verb = "Correct" if isinstance(masks, EditedMasks) else "Make"
    what = "the mask of one more image" if lacking == 1 else f"the masks of {lacking} more images"
    return f"{verb} {what}: the result is tried on images left out. Pixels of 255 do not count."


def of_another_size(ref: ImageRef, size: tuple[int, ...], mask: tuple[int, ...]) -> ImageError:
    """Return the error for an image of `size` (height, width) and a mask of another size."""
    given, there = (" x ".join(map(str, each)) for each in (size, mask))
    return ImageError(
        ref.path,
        f"it has {given} (height x width) pixels, and its mask {there}",
        "The mask must be of the upright image.",
    )


def edited_masks(output: Path, images: Path | None, max_pixels: int) -> EditedMasks:
    """Find the masks of a run that a person edited.

    Args:
        output: The output folder.
        images: The folder that the images' names begin at now; None: the images are where they were.
        max_pixels: Larger images are refused.

    Raises:
        UsageError: Where the folder of the images is not there.
        InputError: For what is no output folder of a run that has ended, and where no mask was edited.
        ImageError: Where it is open which mask of an image counts.
    """
    check_image_root(images)
    found: dict[str, tuple[RunImage, Mask]] = {}
    refs: list[ImageRef] = []
    others: list[str] = []
    with open_run(output, max_pixels=max_pixels) as run:
        for image, mask in run.corrections():
            if mask is None:
                others.append(image.entry.image)
            else:
                refs.append(image.ref(images))
                # Its objects would be most of the memory.
                found[image.entry.image] = run.image(replace(image.entry, objects=())), mask
        some = tuple(run.image(run.entry(name)).ref(images) for name in _some(others))
    if not refs:
        raise InputError(
            f"{output}: no mask in it was edited, so there is nothing to learn from",
            f"Correct some masks; those from other tools come back with: tipsseg correct {shell_word(str(output))} --help",
        )
    return EditedMasks(folder=output, refs=tuple(refs), others=some, run=run, images=found)


def _some(others: Sequence[_Other]) -> list[_Other]:
    """Draw a few of the images without a mask, in their order; always the same."""
    drawn = random.Random(0).sample(range(len(others)), min(len(others), _OTHERS))
    return [others[at] for at in sorted(drawn)]


def truth_masks(refs: Sequence[ImageRef], folder: Path, layout: Layout, max_pixels: int) -> TruthMasks:
    """Find the images that have a truth mask. Raises InputError if none has, see `pairing.pair_truths`."""
    found = find_truths(refs, folder, layout)
    if not found.pairs:
        raise InputError(
            f"none of the images has a mask in {folder}",
            "Masks are found by the path of the image, or by its file name.",
        )
    return TruthMasks(
        folder=folder,
        refs=tuple(pair.ref for pair in found.pairs),
        others=tuple(_some(found.missing)),
        pairs={pair.ref.name: pair for pair in found.pairs},
        without=len(found.missing),
        max_pixels=max_pixels,
    )
