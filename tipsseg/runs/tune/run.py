"""One `tipsseg tune` run: edited masks ─► labels and confidences of their images ─► thresholds, a temperature ─► a vocabulary."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import ImageError, UsageError
from tipsseg.evaluation.thresholds import ClassThreshold, Tally, choose_thresholds, tally
from tipsseg.label_map import LabelMap
from tipsseg.options.run import ComputeOptions
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine.engine import LocalEngine
from tipsseg.runs.engine.loading import load_for
from tipsseg.runs.fit.masked import EditedMasks, draw_masks, of_another_size, require_masks
from tipsseg.runs.fit.run import check_file, learn, note_left_out, spec_of_run
from tipsseg.store.results import Failed
from tipsseg.store.run_record import plan_run, run_context
from tipsseg.store.spec import RunSpec
from tipsseg.types import ImageRef
from tipsseg.util.files import atomic_write, cache_folder
from tipsseg.util.printable import counted, listed, quoted
from tipsseg.util.table import text_table
from tipsseg.vocabulary.fitted import FIT_SUFFIX, FittedVocabulary
from tipsseg.vocabulary.toml_file import vocabulary_toml
from tipsseg.vocabulary.vocabulary import Vocabulary, with_min_confidences
from tipsseg.weights.sources import file_hashes, name_of

if TYPE_CHECKING:
    from tipsseg.fitting.temperature import Calibration

_TOML = ".toml"

#: The fewest images of thresholds: a threshold takes two images, and it is tried on one more.
_FEWEST = 3

#: The fewest images of a temperature: one is left out.
_FEWEST_OF_TEMPERATURE = 2

_WISH = "minimum confidences need"


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """What a run was tuned to.

    Attributes:
        vocabulary: The classes with their minimum confidences.
        fitted: The same with its vectors and the temperature; None where neither was fitted.
        precision: What was asked for, 0..1; None where no thresholds were.
        thresholds: Of each class 1..N.
        calibration: The temperature, and the errors before and after; None where it was not asked for.
        images: How many images it was tuned by.
        failed: How many images failed, and were left out.
    """

    vocabulary: Vocabulary
    fitted: FittedVocabulary | None
    precision: float | None
    thresholds: tuple[ClassThreshold, ...]
    calibration: Calibration | None
    images: int
    failed: int

    def save(self, path: str | Path) -> None:
        """Write a vocabulary file: .toml, or .fit where vectors or a temperature belong to it.

        Args:
            path: The file.

        Raises:
            UsageError: The name of the file says otherwise.
            OutputError: It cannot be written.
        """
        check_suffix(Path(path), fitted=self.fitted is not None)
        if self.fitted is not None:
            self.fitted.save(path)
        else:
            atomic_write(Path(path), vocabulary_toml(self.vocabulary).encode())

    def record(self) -> dict[str, object]:
        """The numbers as JSON values."""
        names = [each.name for each in self.vocabulary.classes]
        return {
            "images": self.images,
            "failed": self.failed,
            "precision": self.precision,
            "temperature": None if self.calibration is None else round(self.calibration.temperature, 6),
            "calibration_error": None if self.calibration is None else _rounded(self.calibration.after),
            "calibration_error_before": None if self.calibration is None else _rounded(self.calibration.before),
            "classes": [
                {
                    "id": number,
                    "name": name,
                    "images": each.images,
                    "min_confidence": each.min_confidence,
                    "reached": each.reached,
                    "own": each.own,
                    "precision": _rounded(each.precision),
                    "recall": _rounded(each.recall),
                    "precision_before": _rounded(each.precision_before),
                    "recall_before": _rounded(each.recall_before),
                }
                for number, (name, each) in enumerate(zip(names, self.thresholds, strict=False), start=1)
            ],
        }

    def table(self) -> str:
        """Lay out the numbers for a terminal, shares in per cent; "-": not known."""
        text = ""
        if self.thresholds:
            heads = ["in %", "at least", "precision", "recall", "before", "recall", "images", ""]
            rows = []
            for entry, found in zip(self.vocabulary.classes, self.thresholds, strict=True):
                shares = (found.precision, found.recall, found.precision_before, found.recall_before)
                numbers = [_percent(found.min_confidence, 1), *map(_percent, shares), str(found.images)]
                rows.append([entry.name, *numbers, _remark(found)])
            text = text_table(heads, rows, left=(0, 7))
            text += (
                "\nprecision and recall: of each image with thresholds from the others; before: without thresholds\n"
            )
        if self.calibration is not None:
            text += (
                f"temperature {self.calibration.temperature:.4g}: calibration error {_percent(self.calibration.before)} % "
                f"before, {_percent(self.calibration.after)} % in images that it was not chosen by\n"
            )
        return text


def _remark(threshold: ClassThreshold) -> str:
    if not threshold.reached:
        return "not reached: not labelled"
    return "" if threshold.own else "too few images: that of all classes"


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def check_wish(precision: float | None, *, temperature: bool) -> None:
    """Raise UsageError where nothing is asked for, or a precision that cannot be."""
    if precision is None and not temperature:
        raise UsageError(
            "nothing to tune",
            "Ask for thresholds with argument `precision`, for example 0.95, or for argument `temperature`.",
        )
    if precision is not None and not 0 < precision < 1:
        raise UsageError(
            f"argument `precision`={quoted(precision)} is not between 0 and 1",
            "For example 0.95: 95 of 100 pixels are right.",
        )


def check_suffix(target: Path, *, fitted: bool) -> None:
    """Raise UsageError where the name of a file says that it holds something else."""
    wanted = FIT_SUFFIX if fitted else _TOML
    if target.suffix.lower() != wanted:
        why = "has vectors or a temperature of its own" if fitted else "is words and thresholds"
        raise UsageError(
            f"argument `output`={target}: this vocabulary {why}, and its file ends with {wanted}",
            f"Give {target.with_suffix(wanted)}",
        )


def check_target(target: Path, *, fitted: bool, overwrite: bool) -> None:
    """Raise an error where the file cannot be meant, or is there already; see `check_suffix`."""
    check_suffix(target, fitted=fitted)
    check_file(target, overwrite=overwrite)


def spec_of_tuning(masks: EditedMasks, compute: ComputeOptions, fitted: FittedVocabulary | None) -> RunSpec:
    """How the images of a run are labelled again: as it did, without minimum confidences.

    Raises:
        UsageError: Where the run was made with fitted vectors, and these are not given.
        InputError: See `spec_of_run`.
    """
    asked = masks.run.info.spec
    digest = asked.vocabulary.fit
    if digest != ("" if fitted is None else fitted.vocabulary.fit):
        raise UsageError(
            f"the run in {masks.run.output} was made {'with other vectors' if fitted else 'with a fitted vocabulary'}",
            "Give the fitted vocabulary that it was made with as argument `vocabulary`."
            if digest
            else "Leave out argument `vocabulary`.",
        )
    spec = spec_of_run(masks, compute)
    vocabulary = _without(asked.vocabulary)
    if fitted is not None:
        fitted = replace(fitted, vocabulary=_without(fitted.vocabulary))
        vocabulary = fitted.vocabulary
    return replace(spec, vocabulary=vocabulary, fitted=fitted, options=replace(asked.options, min_confidence=0.0))


def _without(vocabulary: Vocabulary) -> Vocabulary:
    return with_min_confidences(vocabulary, [None] * len(vocabulary.classes))


def tune_run(
    spec: RunSpec,
    masks: EditedMasks,
    precision: float | None,
    progress: Progress,
    *,
    temperature: bool,
    quiet: bool = False,
) -> Tuning:
    """Choose minimum confidences, a temperature, or first the temperature and then the minimum confidences.

    Args:
        spec: As `spec_of_tuning` gives it.
        masks: The edited masks.
        precision: The share of pixels of each class that are to be right, 0..1; None: no minimum confidences.
        progress: Says what happens.
        temperature: Whether the temperature is fitted.
        quiet: Whether a download of the model shows no progress.

    Raises:
        TipssegError: For what ends the run. An image that cannot be read is reported and left out.
    """
    if spec.fitted is not None:
        progress.note(
            "The thresholds are too low where the vectors were fitted to these same images; correct others for them."
        )
    if precision is not None:
        require_masks(masks, len(masks.refs), (), _FEWEST, _WISH)
    masks = draw_masks(masks, progress)
    calibration = None
    images = failed = 0
    if temperature:
        note_left_out(masks, "The temperature is fitted", progress)
        spec, calibration, images, failed = _with_temperature(spec, masks, progress, quiet=quiet)
    thresholds: tuple[ClassThreshold, ...] = ()
    vocabulary = spec.vocabulary
    if precision is not None:
        tallies, faults = _tallies(spec, masks, progress, quiet=quiet)
        images, failed = len(tallies), len(faults)
        require_masks(masks, images, faults, _FEWEST, _WISH)
        thresholds = choose_thresholds(tallies, precision)
        vocabulary = with_min_confidences(vocabulary, [each.min_confidence for each in thresholds])
        _note_thresholds(vocabulary, thresholds, progress)
    fitted = None if spec.fitted is None else replace(spec.fitted, vocabulary=vocabulary)
    return Tuning(vocabulary, fitted, precision, thresholds, calibration, images, failed)


def _note_thresholds(vocabulary: Vocabulary, thresholds: Sequence[ClassThreshold], progress: Progress) -> None:
    lost = [each.name for each, found in zip(vocabulary.classes, thresholds, strict=True) if not found.reached]
    if lost:
        progress.note(
            f"No threshold reaches the precision for {listed(lost, 10)}. The minimum confidence there is 1, so that next to "
            "nothing is labelled so. Lower it in the file where that is not meant."
        )


def _with_temperature(
    spec: RunSpec, masks: EditedMasks, progress: Progress, *, quiet: bool
) -> tuple[RunSpec, Calibration, int, int]:
    """The run with a temperature that suits the masks; how it was chosen, by how many images, and how many failed."""
    import torch

    from tipsseg.backbones.workers import threads_of_torch
    from tipsseg.fitting.fit import counting_groups
    from tipsseg.fitting.temperature import calibrate
    from tipsseg.labelling.classifier import fitted_classifier, make_classifier

    needs = _FEWEST_OF_TEMPERATURE, "a temperature needs"
    require_masks(masks, len(masks.refs), (), *needs)
    loaded = load_for(plan_run(spec), progress.note, quiet=quiet, images=masks.refs)
    backbone = loaded.model.backbone
    if spec.fitted is None:
        classifier = make_classifier(backbone, spec.vocabulary, cache_folder() if spec.use_cache else None)
    else:
        classifier = fitted_classifier(backbone, spec.fitted)
    taught, failed = learn(loaded, masks, counting_groups(classifier.vocabulary), progress)
    windows = [each for each in taught if each]
    require_masks(masks, len(windows), failed, *needs)
    vectors = torch.from_numpy(classifier.vectors)
    biases = torch.zeros(len(vectors)) if classifier.biases is None else torch.from_numpy(classifier.biases)
    group_of = torch.tensor([phrase.label_id for phrase in classifier.vocabulary.phrases])
    before = backbone.temperature if spec.fitted is None else spec.fitted.temperature
    with threads_of_torch(1):  # as a fit: more threads may give other numbers, and mostly wait for each other
        found = calibrate(windows, vectors, biases, group_of, before)
    hashes = file_hashes(backbone.folder)
    fitted = spec.fitted or FittedVocabulary(
        classifier.vocabulary,
        vectors.numpy(),
        biases.numpy(),
        before,
        hashes,
        name_of(backbone.folder, hashes),
        spec.options.mode,
        loaded.view.base,
        (),
    )
    fitted = replace(fitted, temperature=found.temperature)
    return replace(spec, fitted=fitted, vocabulary=fitted.vocabulary), found, len(windows), len(failed)


def _tallies(
    spec: RunSpec, masks: EditedMasks, progress: Progress, *, quiet: bool
) -> tuple[list[Tally], list[ImageError]]:
    """What the labels of each image are worth at every threshold, and what is wrong with images that failed.

    Images where no pixel of the mask counts are left out.
    """
    found: dict[str, Tally] = {}
    counting = threading.Lock()
    classes = len(spec.vocabulary.classes)

    def count(ref: ImageRef, label_map: LabelMap) -> None:
        mask = masks.read(ref)
        if mask.shape != label_map.labels.shape:
            raise of_another_size(ref, label_map.labels.shape, mask.shape)
        if not (mask <= classes).any():
            return  # all of it is ignored, and it says nothing
        tallied = tally(label_map.labels, label_map.confidence, mask, classes)
        with counting:
            found[ref.name] = tallied

    info = plan_run(spec)
    engine = LocalEngine(info, inspect=count, note=progress.note, quiet=quiet)
    started = engine.start(run_context(info), masks.refs)
    number = counted(len(masks.refs), "image")
    progress.begin(
        f"{number} with masks, model {started.model['id']} on {started.device} ({started.dtype}).", len(masks.refs)
    )
    failed: list[ImageError] = []
    with closing(engine.results(masks.refs)) as results:
        for result in results:
            if isinstance(result, Failed):
                failed.append(result.error)
                progress.error(result.error)
            progress.advance()
    progress.end()
    # In the order of the images, whatever thread was first.
    return [found[ref.name] for ref in masks.refs if ref.name in found], failed
