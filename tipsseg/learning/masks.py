"""Images with masks to learn from: masks that a person edited in the output folder of a run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np

from tipsseg.errors import ImageError, InputError, Words
from tipsseg.folder.find import check_image_root
from tipsseg.folder.job import Job
from tipsseg.folder.labels import is_same_picture
from tipsseg.folder.read import Run, open_run
from tipsseg.images.access import exists
from tipsseg.labelling.features import Features
from tipsseg.labelling.local import LoadedModel
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.labelling.stages import run_stages
from tipsseg.regions.components import count_labels
from tipsseg.say import Progress
from tipsseg.types import ImageRef, LabelArray
from tipsseg.util.text import pluralize, shell_word
from tipsseg.util.threads import map_in_order

_Value = TypeVar("_Value")

#: The maximum number of images without a mask that a fit uses.
MOST_UNLABELLED = 32

#: A fit is validated on held-out images, so it needs at least two.
_MINIMUM = 2

#: The maximum number of masks to read, which bounds memory and time.
_MOST = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class EditedMasks:
    """The masks in a run's output folder that a person edited.

    Attributes:
        run: The run, which is open while the masks are read.
        refs: The images.
        others: Some images without an edited mask, drawn at random with a fixed seed.
    """

    run: Run
    refs: tuple[ImageRef, ...]
    others: tuple[ImageRef, ...]

    def read(self, ref: ImageRef) -> LabelArray:
        """Read the mask [H, W] of an image: 0 is background, 1..N are classes, other ids are ignored.

        Raise ImageError if the mask cannot be used.
        """
        if not exists(ref.path):
            raise ImageError(ref.path, "no such file", Words("Set the folder of the images with {images}."))
        image = self.run.image(ref.name)
        if not is_same_picture(image.entry, ref.path, self.run.reader):
            raise ImageError(ref.path, f"changed since it was labelled, so its mask {image.mask} is out of date")
        return image.labels().labels


@contextmanager
def edited_masks(output: Path, images: Path | None) -> Iterator[EditedMasks]:
    """Find the masks of a run that a person edited.

    Args:
        output: The output folder.
        images: The folder of the images, if they have moved.

    Raises:
        UsageError: If `images` is not a folder.
        InputError: If the folder does not contain a finished run, or no mask was edited.
    """
    check_image_root(images)
    refs, others = list[ImageRef](), list[ImageRef]()
    with open_run(output) as run:
        for image in run.images():
            (refs if image.corrected or image.entry.place in run.faults else others).append(image.ref(images))
        if not refs:
            raise InputError(
                f"{output}: nothing to learn from: no mask was edited",
                "Correct some masks. To import masks from other tools, see: "
                f"tipsseg correct {shell_word(str(output))} --help",
            )
        yield EditedMasks(run=run, refs=tuple(refs), others=tuple(draw(others, MOST_UNLABELLED)))


def draw(items: Sequence[_Value], most: int) -> list[_Value]:
    """Draw at most so many of some items at random with a fixed seed, and keep their order."""
    drawn = random.Random(0).sample(range(len(items)), min(len(items), most))
    return [items[index] for index in sorted(drawn)]


def draw_masks(masks: EditedMasks, progress: Progress, jobs: int) -> EditedMasks:
    """Draw at most `_MOST` masks at random with a fixed seed, and prefer rare classes.

    Each of N classes is in 1/N of the drawn masks, or fewer if fewer masks contain it. All masks are read, by `jobs` threads, if
    there are more. Note the masks that are left out.
    """
    refs = masks.refs
    if len(refs) <= _MOST:
        return masks
    order = random.Random(0).sample(range(len(refs)), len(refs))
    order = _rare_classes_first(masks, order, jobs)
    progress.note("masks_drawn", most=_MOST, masks=pluralize(len(refs), "corrected mask"))
    return replace(masks, refs=tuple(refs[index] for index in sorted(order[:_MOST])))


def _rare_classes_first(masks: EditedMasks, order: Sequence[int], jobs: int) -> list[int]:
    classes = len(masks.run.classes)

    def classes_in(ref: ImageRef) -> list[int]:
        try:
            return np.flatnonzero(count_labels(masks.read(ref))[1 : classes + 1]).tolist()
        except ImageError:
            return []  # reported when the mask is used

    classes_of = list(map_in_order(jobs, classes_in, masks.refs))
    images_with = Counter(class_index for in_image in classes_of for class_index in in_image)
    drawn: Counter[int] = Counter()
    first: dict[int, None] = {}
    for rare, _ in reversed(images_with.most_common()):
        for index in order:
            if drawn[rare] >= max(_MOST // classes, 1):
                break
            if rare in classes_of[index] and index not in first:
                drawn.update(classes_of[index])
                first[index] = None
    return [*first, *(index for index in order if index not in first)]


def require_masks(masks: EditedMasks, usable: int, job: Job | None = None) -> None:
    """Raise InputError if fewer masks than `_MINIMUM` can be used; `job` has the failures of the others."""
    if usable >= _MINIMUM:
        return
    number = pluralize(len(masks.refs), "corrected mask")
    if usable < len(masks.refs):
        number = f"{usable} of {number} can be used"
    elif usable == 1:
        number = f"only {number}"
    if job is not None and job.first is not None:
        more = f" {pluralize(job.failed - 1, 'more image')} failed." if job.failed > 1 else ""
        hint = "Fix this first: " + job.first.message + "." + more
    else:
        lacking = _MINIMUM - usable
        what = "the mask of one more image" if lacking == 1 else f"the masks of {lacking} more images"
        hint = f"Correct {what}: the result is validated on held-out images. Pixels with id 255 are ignored."
    raise InputError(f"{masks.run.output}: {number}; {_MINIMUM} or more are required", hint)


def learn_from(
    refs: Sequence[ImageRef],
    loaded: LoadedModel,
    source: FeatureSource[Features],
    learn: Callable[[Loaded[Features], Features], _Value],
    progress: Progress,
    *,
    masked: bool,
) -> tuple[list[_Value], Job]:
    """Learn from images in the stages of `run_stages`.

    Return what `learn` returns for each image in order, and the count of failures. Errors of images with masks are printed.
    """

    def finish(image: Loaded[Features], features: Features) -> tuple[_Value, str]:
        return learn(image, features), image.damaged

    masks, info = "with masks" if masked else "without masks", loaded.info
    progress.begin(
        "learning",
        len(refs),
        images=pluralize(len(refs), "image"),
        masks=masks,
        model=info.model["id"],
        place=info.place,
    )
    values, job = list[_Value](), Job(progress, names_failures=masked)
    for value, damaged in job.each(run_stages(refs, source, itemgetter(0), finish, info.spec.jobs)):
        values.append(value)
        if damaged:
            progress.note("encoded_again", what=damaged)
    return values, job
