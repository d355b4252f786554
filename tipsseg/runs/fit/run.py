"""`tipsseg fit`: fit class vectors to images with masks, and write them to a file."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.evaluation.metrics import BACKGROUND_NAME
from tipsseg.run.plan import plan_run
from tipsseg.run.spec import RunSpec
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine.local import LoadedModel, load_for
from tipsseg.runs.fit.learning import learn, run_noting_damage
from tipsseg.runs.fit.masked import Masks, Minimum, draw_masks, require_masks
from tipsseg.types import Failed, ImageRef
from tipsseg.util.files import cache_folder
from tipsseg.util.text import format_duration, join_first, pluralize, text_table
from tipsseg.vocabulary.fitted import FittedVocabulary

if TYPE_CHECKING:
    from torch import Tensor

#: A fit is validated on held-out images, so it needs at least two.
_MINIMUM = Minimum(2, "a fit needs")


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The result of a fit.

    Attributes:
        fitted: The fitted vocabulary.
        images: The number of images used.
        failed: The number of images that failed and were left out.
    """

    fitted: FittedVocabulary
    images: int
    failed: int

    def record(self) -> dict[str, object]:
        """Return the scores as JSON values."""
        fitted = self.fitted
        first = len(fitted.vocabulary.classes) + 1 - len(fitted.scores)  # 0 if the background has a score
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
        """Return a text table of the scores, with IoU in per cent and "-" for unknown values."""
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
            rows += [
                [],
                ["mean IoU", _percent(text), _percent(fitted), "", "each image scored by a fit without it"],
            ]
        return text_table(["in %", "text", "fitted", "images", "made from"], rows, left=(0, 4))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def fit_masks(spec: RunSpec, masks: Masks, target: Path | None, progress: Progress, *, quiet: bool = False) -> Fit:
    """Fit class vectors to masks, and write them to a file.

    Args:
        spec: Model, classes, encoding options and feature store; output and formats are ignored.
        masks: The images and their masks.
        target: The file to write, or None to write no file.
        progress: Prints progress and notes.
        quiet: Hide the progress of a model download.

    Raises:
        TipssegError: If the run cannot continue. Images that cannot be read are reported and left out instead.
    """
    from tipsseg.fitting.fit import fit_windows
    from tipsseg.labelling.classifier import make_classifier

    require_masks(masks, len(masks.refs), (), _MINIMUM)
    masks = draw_masks(masks, progress, classes=len(spec.vocabulary.classes), jobs=spec.jobs)
    loaded = load_for(plan_run(spec), progress.note, quiet=quiet, images=masks.refs)
    classifier = make_classifier(loaded.model.backbone, spec.vocabulary, cache_folder() if spec.use_cache else None)
    images, failed = learn(loaded, masks, classifier, _MINIMUM, progress)
    unlabelled = _unlabelled_patches(loaded, masks.others, progress)
    began = time.monotonic()
    progress.note(
        f"Fitting {pluralize(len(spec.vocabulary.classes), 'class', 'classes')} to {pluralize(len(images), 'image')}."
    )

    def step(done: int, most: int) -> None:
        progress.still(f"{done} of at most {most} fitting steps in {format_duration(round(time.monotonic() - began))}.")

    fitted = fit_windows(loaded.model, loaded.view, classifier, images, unlabelled, step)
    _note_classes(fitted, progress)
    if target is not None:
        fitted.save(target)
        progress.note(f"Wrote {target} in {format_duration(round(time.monotonic() - began))}.")
    return Fit(fitted, len(images), len(failed))


def _unlabelled_patches(loaded: LoadedModel, refs: Sequence[ImageRef], progress: Progress) -> list[Tensor]:
    """Return some patches of each image without a mask, and note images that cannot be read."""
    from tipsseg.runs.fit.task import draw_patches, source_at_scale_one

    if not refs:
        return []
    number = pluralize(len(refs), "image")
    progress.begin(f"Sampling patches of {number} without masks.", len(refs))
    results = run_noting_damage(
        source_at_scale_one(loaded), itemgetter(0), draw_patches, refs, loaded.info.spec.jobs, progress
    )
    patches = [result.value for result in results if not isinstance(result, Failed)]
    if missing := len(refs) - len(patches):
        progress.note(f"Could not read {missing} of the {number} without masks; the fit ignores them.")
    return patches


def _note_classes(fitted: FittedVocabulary, progress: Progress) -> None:
    absent = [score.name for score in fitted.scores if score.name and not score.images]
    if absent:
        progress.note(
            f"The masks have no pixels of {join_first(absent, 10)}: classes without pixels keep their text vectors."
        )
