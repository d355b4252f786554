"""One `tipsseg fit` run: images with masks ─► features, of the store or of the model ─► the fit ─► its file."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError, OutputError, UsageError
from tipsseg.evaluation.metrics import BACKGROUND_NAME
from tipsseg.options import ONE_SCALE, LabelOptions
from tipsseg.options.run import ComputeOptions
from tipsseg.runs.common.notes import note_damaged
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine.loading import LoadedModel, load_for
from tipsseg.runs.fit.masked import EditedMasks, Masks, draw_masks, require_masks
from tipsseg.store.results import Failed
from tipsseg.store.run_record import plan_run
from tipsseg.store.spec import RunSpec, check_folder, model_identity
from tipsseg.types import ImageRef
from tipsseg.util.files import cache_folder, is_folder
from tipsseg.util.printable import clock, counted, listed
from tipsseg.util.table import text_table
from tipsseg.vocabulary.fitted import FIT_SUFFIX, FittedVocabulary, is_fit
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    from torch import Tensor

    from tipsseg.fitting.maths import Window
    from tipsseg.labelling.features import Features
    from tipsseg.runs.engine.pipeline import Task
    from tipsseg.runs.fit.task import Seen, Taught

_Learnt = TypeVar("_Learnt", "Taught", "Seen")

#: The fewest images that can be fitted to with one of them left out.
_FEWEST = 2

_WISH = "a fit needs"


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What a fit came to.

    Attributes:
        fitted: The fitted vocabulary.
        images: How many images it was fitted to.
        failed: How many images failed, and were left out.
    """

    fitted: FittedVocabulary
    images: int
    failed: int

    def record(self) -> dict[str, object]:
        """The scores as JSON values."""
        fitted = self.fitted
        first = len(fitted.vocabulary.classes) + 1 - len(fitted.scores)  # 0 where the background has a line
        return {
            "images": self.images,
            "failed": self.failed,
            "model": fitted.model_id,
            "digest": fitted.vocabulary.fit,
            "classes": [
                {
                    "id": label_id,
                    "name": score.name or BACKGROUND_NAME,
                    "images": score.images,
                    "text_iou": None if score.text_iou is None else round(score.text_iou, 6),
                    "iou": None if score.iou is None else round(score.iou, 6),
                    "source": score.source,
                }
                for label_id, score in enumerate(fitted.scores, start=first)
            ],
        }

    def table(self) -> str:
        """Lay out the scores for a terminal, IoU in per cent; "-": not known."""
        scores = self.fitted.scores
        rows = [
            [
                score.name or BACKGROUND_NAME,
                _percent(score.text_iou),
                _percent(score.iou),
                str(score.images),
                score.source,
            ]
            for score in scores
        ]
        known = [
            (score.text_iou, score.iou) for score in scores if score.text_iou is not None and score.iou is not None
        ]
        if known:
            text, fitted = (math.fsum(values) / len(known) for values in zip(*known, strict=True))
            rows += [[], ["mean IoU", _percent(text), _percent(fitted), "", "each image labelled by a fit without it"]]
        return text_table(["in %", "text", "fitted", "images", "made from"], rows, left=(0, 4))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise an error where the file of a fit cannot be meant, or is there already.

    Raises:
        UsageError: It does not end with .fit.
        OutputError: It is there already, or its folder cannot be made.
    """
    if not is_fit(target):
        raise UsageError(
            f"argument `output`={target}: a fit is a file that ends with {FIT_SUFFIX}", f"Give {target}{FIT_SUFFIX}"
        )
    check_file(target, overwrite=overwrite)


def check_file(target: Path, *, overwrite: bool) -> None:
    """Raise OutputError where a file cannot be made, or is there already and not to be replaced."""
    if is_folder(target):
        raise OutputError(target, "a folder has this name", "Choose another file with argument `output`.")
    if os.path.lexists(target) and not overwrite:
        raise OutputError(
            target,
            "it is there already",
            "Choose another file with argument `output`, or replace it with argument `overwrite`.",
        )
    check_folder(target.absolute().parent)


def spec_of_run(masks: EditedMasks, compute: ComputeOptions) -> RunSpec:
    """Return how the images of a run are seen again: as the run saw them.

    Args:
        masks: The edited masks.
        compute: Device, dtype, threads and feature store; the model is that of the run.

    Raises:
        InputError: The model that the run was made with has other files now.
    """
    info = masks.run.info
    asked = info.spec
    compute = replace(compute, model=asked.model, dtype=info.dtype if compute.dtype == "auto" else compute.dtype)
    if model_identity(find_model(asked.model).facts(keep_stamps=compute.use_cache)) != model_identity(info.model):
        raise InputError(
            f"{masks.run.output}: the model {asked.model} of this run has other files now",
            "Put the model back, or label the images again.",
        )
    return spec_of_truths(asked.vocabulary, asked.options, compute)


def spec_of_truths(vocabulary: Vocabulary, options: LabelOptions, compute: ComputeOptions) -> RunSpec:
    """Return how images are seen for a fit: at one scale; each fit starts from the words."""
    return RunSpec(
        **vars(compute),
        vocabulary=replace(vocabulary, fit=""),
        options=LabelOptions(mode=options.mode, short_side=options.short_side),
        formats=(),
        output=Path(),
        resume=False,
    )


def note_left_out(masks: EditedMasks, what: str, progress: Progress) -> None:
    """Say that a fit, or a temperature, is made at scale 1 if the run has other scales."""
    options = masks.run.info.spec.options
    if options.scales != ONE_SCALE:
        some = "scales" if len(options.scales) > 1 else "scale"
        progress.note(
            f"{what} at scale 1 alone; the run has {some} {', '.join(f'{each:g}' for each in options.scales)}."
        )


def fit_masks(spec: RunSpec, masks: Masks, target: Path | None, progress: Progress, *, quiet: bool = False) -> Fit:
    """Fit class vectors to masks, and write them.

    Args:
        spec: Model, classes, how images are seen, and the feature store; its output and formats are of no use.
        masks: The images and their masks.
        target: The file of the fit; None: it is written nowhere.
        progress: Says what happens.
        quiet: Whether a download of the model shows no progress.

    Raises:
        TipssegError: For what ends the run. An image that cannot be read is reported and left out.
    """
    from tipsseg.fitting.fit import counting_groups, fit_windows
    from tipsseg.labelling.classifier import make_classifier

    require_masks(masks, len(masks.refs), (), _FEWEST, _WISH)
    masks = draw_masks(masks, progress, classes=len(spec.vocabulary.classes), jobs=spec.jobs)
    loaded = load_for(plan_run(spec), progress.note, quiet=quiet, images=masks.refs)
    classifier = make_classifier(loaded.model.backbone, spec.vocabulary, cache_folder() if spec.use_cache else None)
    taught, failed = learn(loaded, masks, counting_groups(classifier.vocabulary), progress)
    windows = [each for each in taught if each]
    require_masks(masks, len(windows), failed, _FEWEST, _WISH)
    others = look_at(loaded, masks.others, progress)
    began = time.monotonic()
    progress.note(
        f"Fitting {counted(len(spec.vocabulary.classes), 'class', 'classes')} to {counted(len(windows), 'image')}."
    )

    def step(done: int, most: int) -> None:
        progress.still(f"{done} of at most {most} steps of the fit in {clock(round(time.monotonic() - began))}.")

    fitted = fit_windows(loaded.model, loaded.view, classifier, windows, others, step)
    _note_classes(fitted, progress)
    if target is not None:
        fitted.save(target)
        progress.note(f"Written: {target}, in {clock(round(time.monotonic() - began))}.")
    return Fit(fitted, len(windows), len(failed))


def learn(
    loaded: LoadedModel, masks: Masks, groups: NDArray[np.int64], progress: Progress
) -> tuple[list[list[Window]], list[ImageError]]:
    """Return what the windows of each image teach, and what is wrong with images that failed; see `FitTask`."""
    from tipsseg.runs.fit.task import FitTask, at_scale_one

    info = loaded.info
    progress.begin(
        f"{counted(len(masks.refs), 'image')} with masks, model {info.model['id']} on {info.device} ({info.dtype}).",
        len(masks.refs),
    )
    failed: list[ImageError] = []
    taught: list[list[Window]] = []
    for result in _results(FitTask(at_scale_one(loaded), masks, groups), masks.refs, info.spec.jobs, progress):
        if isinstance(result, Failed):
            failed.append(result.error)
            progress.error(result.error)
        else:
            taught.append(result.windows)
    return taught, failed


def look_at(loaded: LoadedModel, refs: Sequence[ImageRef], progress: Progress) -> list[Tensor]:
    """Return some patches of each image without a mask. A fit does without those that cannot be read: a note counts them."""
    from tipsseg.runs.fit.task import UnlabelledTask, at_scale_one

    if not refs:
        return []
    number = counted(len(refs), "image")
    progress.begin(f"Looking at {number} without masks.", len(refs))
    results = _results(UnlabelledTask(at_scale_one(loaded)), refs, loaded.info.spec.jobs, progress)
    found = [result.patches for result in results if not isinstance(result, Failed)]
    if missing := len(refs) - len(found):
        progress.note(f"{missing} of the {number} without masks cannot be read, and are left out.")
    return found


def _results(
    task: Task[Features, _Learnt], refs: Sequence[ImageRef], jobs: int, progress: Progress
) -> Iterator[_Learnt | Failed]:
    from tipsseg.runs.engine.pipeline import run_tasks

    with closing(run_tasks(refs, task, jobs)) as results:
        for result in results:
            if not isinstance(result, Failed) and result.damaged:
                note_damaged(result.damaged, progress)
            yield result
            progress.advance()
    progress.end()


def _note_classes(fitted: FittedVocabulary, progress: Progress) -> None:
    never = [score.name for score in fitted.scores if score.name and not score.images]
    if never:
        progress.note(f"No pixel in the masks of {listed(never, 10)}: the text alone stands for what has none.")
