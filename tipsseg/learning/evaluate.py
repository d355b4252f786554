"""`tipsseg eval`: compare labels in files with ground-truth masks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg._version import __version__
from tipsseg.errors import ImageError, InputError, LabelIdError, UsageError, VocabularyError, Words
from tipsseg.folder.find import Ignored, find_alone, is_output
from tipsseg.folder.job import Job
from tipsseg.folder.labels import Labels
from tipsseg.folder.read import Run, RunImage, find_run
from tipsseg.formats import FORMATS, refuse_parts
from tipsseg.formats.classes_file import CLASSES_FILE, names_by_id
from tipsseg.formats.npz import read_confidence
from tipsseg.images.decoding import ImageReader
from tipsseg.images.finding import Listed
from tipsseg.learning import metrics
from tipsseg.learning.metrics import NO_LABEL_NAME, Confusion, ImageScore, Kept, Scores
from tipsseg.learning.truth import (
    Layout,
    Pair,
    get_layout,
    in_other_order,
    layout_of,
    mask_folder,
    pair_truths,
    read_predicted,
    read_truth,
)
from tipsseg.options.records import ReadingOptions, TruthOptions
from tipsseg.say import Progress, Silence
from tipsseg.types import Failed, ImageRef, LabelArray, LabelClass, name_order
from tipsseg.util.files import is_file, is_folder, read_regular
from tipsseg.util.json import parse, take
from tipsseg.util.text import join_first, pluralize
from tipsseg.util.threads import map_in_order
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.vocabulary import ClassSpec, make_vocabulary

#: The folder of masks in an output folder.
_MASKS = FORMATS["png"].folder or ""

_MASKS_HINT = "Pass a folder of masks, or an output folder of tipsseg label."

_RUN_CLASSES = Words("Leave out {classes} and {vocab} to use the run's classes.")


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        facts: The settings of the evaluation, as JSON values.
        scored: The number of scored images.
        failed: The number of images that failed and were left out.
        without_truth: The number of masks without ground truth, which were left out.
        confusion: The confusion matrix, in pixels.
        scores: Mean IoU, IoU per class and accuracies from the confusion matrix, all 0..1.
        classes: The classes, by id 1..N.
        images: The pixel counts of each image, ordered by image name.
        kept: The precision by confidence; None if the labels have no stored confidences (format npz).
    """

    facts: Mapping[str, object]
    scored: int
    failed: int
    without_truth: int
    confusion: Confusion
    scores: Scores
    classes: tuple[LabelClass, ...]
    images: tuple[ImageScore, ...]
    kept: Kept | None

    def __repr__(self) -> str:
        return f"Evaluation(mean IoU {self.scores.mean_iou:.3f} over {self.scored} images, {self.failed} failed)"

    def table(self) -> str:
        """Return the scores in percent as a text table, and with stored confidences the precision by confidence."""
        return metrics.table(self.scores) + ("" if self.kept is None else f"\n{self.kept.table()}")

    def record(self) -> dict[str, object]:
        """Return the result as JSON values."""
        return {
            **self.facts,
            "images": self.scored,
            "failed": self.failed,
            "without_truth": self.without_truth,
            **metrics.record(self.scores),
            "confusion": {
                "columns": [*self.scores.names, NO_LABEL_NAME],
                "counts": self.confusion.counts.tolist(),
            },
            "confidence": None if self.kept is None else self.kept.record(),
            "image_scores": [asdict(score) for score in self.images],
        }


class _Scorer:
    """A confusion matrix over all images, and the pixel counts of each image."""

    def __init__(self, layout: Layout, classes: Sequence[LabelClass], reader: ImageReader) -> None:
        """Create an empty matrix for the classes 1..N; `reader` decodes the ground-truth masks."""
        self._confusion = Confusion(layout.classes, layout.background)
        self._classes, self._reader = classes, reader
        self._images: list[ImageScore] = []
        self._kept = np.zeros((3, layout.classes + 2, len(metrics.CONFIDENCES) + 1), np.int64)
        self._with_confidences = 0
        self._lock = threading.Lock()

    def add(
        self,
        pair: Pair,
        labels: LabelArray,
        confidence: NDArray[np.float32] | None = None,
    ) -> None:
        """Compare labels [H, W] with their ground truth. Thread-safe.

        Raise ImageError if the ground truth cannot be used.
        """
        truth = read_truth(pair.truth, pair.kind.ids, self._reader)
        kept = None
        if confidence is not None and truth.shape == labels.shape:
            kept = metrics.count_kept(truth, labels, confidence, self._classes, self._confusion.ids[0])
        with self._lock:
            try:
                self._images.append(ImageScore(pair.ref.name, *self._confusion.add(truth, labels)))
            except InputError as error:
                raise ImageError(pair.ref.path, error.message + f" ({pair.truth})", error.hint) from None
            if kept is not None:
                self._kept += kept
                self._with_confidences += 1

    def evaluation(self, facts: Mapping[str, object], job: Job, without_truth: int) -> Evaluation:
        """Return the scores of all images. Raise InputError if all images failed."""
        job.require(len(self._images), "scored")
        scores, number = metrics.scores(self._confusion, self._classes), self._with_confidences
        return Evaluation(
            {"tool": "tipsseg", "version": __version__, **facts},
            len(self._images),
            job.failed,
            without_truth,
            self._confusion,
            scores,
            tuple(self._classes),
            tuple(sorted(self._images, key=lambda score: name_order(score.image))),
            metrics.kept(self._kept, number, scores) if number else None,
        )


def score_labels(
    predicted: Path | Listed,
    truths: Path,
    given: Sequence[LabelClass] | None,
    truth: TruthOptions,
    reading: ReadingOptions,
    progress: Progress,
) -> Evaluation:
    """Score labels against ground-truth masks. See `verbs.eval.score_masks`."""
    place = "a list" if isinstance(predicted, Listed) else str(predicted)
    reader = ImageReader(reading.max_pixels)
    if given is None and truth.layout is not None:
        given = read_vocabulary(get_layout(truth.layout).name).classes
    with _open_run(predicted, truths) as run:
        known = _classes_of(predicted, run, given)
        layout = layout_of(truth, [entry.name for entry in known], truths)
        refs = _find_masks(predicted) if run is None else [image.ref(None) for image in run.images()]
        if not refs:
            raise InputError(f"{place}: no labelled images", _MASKS_HINT)
        pairs = pair_truths(refs, truths, layout)
        if without := [ref.name for ref in pairs.missing]:
            progress.note(
                "masks_without_truth",
                number=len(without),
                masks=pluralize(len(refs), "mask"),
                names=join_first(without, 3),
            )
        if pairs.unused:
            progress.note("truth_without_labels", masks=pluralize(pairs.unused, "ground-truth mask"))
        progress.begin(
            "scoring", len(pairs.pairs), masks=pluralize(len(pairs.pairs), "mask"), place=place, truths=truths
        )
        job, scorer = Job(progress), _Scorer(layout, known, reader)
        score = partial(_score_file, run, scorer, layout.classes, reader)
        for _ in job.each(map_in_order(reading.jobs, score, pairs.pairs)):
            pass
        return scorer.evaluation({"pred": place, "gt": str(truths), "layout": layout.name}, job, len(without))


def note_doubts(evaluation: Evaluation, progress: Progress) -> None:
    """Note what scores may not show: ids that mean something else, and masks that were left out."""
    if swapped := metrics.find_swapped_classes(evaluation.confusion, evaluation.classes):
        first, taken = (evaluation.scores.names[row] for row in swapped[0])
        progress.note(
            "classes_swapped",
            first=repr(first),
            taken=repr(taken),
            more=pluralize(len(swapped) - 1, "more class", "more classes"),
        )
    if not evaluation.scores.truth_pixels[[number > 0 for number in evaluation.scores.ids]].any():
        progress.note("truth_without_classes")
    if evaluation.kept is None:
        progress.note("no_confidences")
    failed, without = evaluation.failed, evaluation.without_truth
    left_out = [pluralize(failed, "failed image")] * bool(failed)
    left_out += [f"{pluralize(without, 'mask')} without ground truth"] * bool(without)
    if left_out:
        progress.note("scores_lack", left_out=" and ".join(left_out))


def _score_file(run: Run | None, scorer: _Scorer, classes: int, reader: ImageReader, pair: Pair) -> Failed | None:
    """Score the labels of an image, unless it fails. Thread-safe. Raise LabelIdError for other classes' ids."""
    try:
        if run is None:
            scorer.add(pair, read_predicted(pair.ref.path, classes, reader))
        else:
            image = run.image(pair.ref.name)
            labels = image.labels()
            scorer.add(pair, labels.labels, _confidence(image, labels))
    except LabelIdError:
        raise
    except ImageError as error:
        return Failed(pair.ref, error)
    return None


def _confidence(image: RunImage, labels: Labels) -> NDArray[np.float32] | None:
    """Return the model's confidence [H, W] in its labels, 0..1; None if it is not stored, or a person corrected the labels.

    Raise ImageError if the archive cannot be read.
    """
    if image.corrected or (path := image.file("npz")) is None:
        return None
    try:
        return read_confidence(path, image.entry.mask.size)
    except (OSError, ValueError) as error:
        raise ImageError(path, f"it cannot be read: {error}", image.run.hint) from error


@contextmanager
def _open_run(folder: Path | Listed, truths: Path) -> Iterator[Run | None]:
    """Open the run whose output folder, or whose folder of masks, is given; yield None for other folders and for a list.

    Raises:
        InputError: There is no such folder, or its masks are written block by block.
        UsageError: The masks are the ground-truth masks.
    """
    if isinstance(folder, Listed):
        yield None
        return
    if not is_folder(folder):
        raise InputError(f"{folder}: {'not a folder' if is_file(folder) else 'no such folder'}", _MASKS_HINT)
    refuse_parts(folder)
    is_masks = folder.absolute().name == _MASKS and is_output(folder.absolute().parent)
    output = folder.absolute().parent if is_masks else folder
    with find_run(output, ended=False) as run:
        if os.path.realpath(folder if run is None else mask_folder(output)) == os.path.realpath(mask_folder(truths)):
            raise UsageError(
                f"{folder} holds both the labels and the ground truth",
                Words("Set {truths} to the folder of the ground-truth masks."),
            )
        yield run


def _find_masks(masks: Path | Listed) -> Sequence[ImageRef]:
    """Find the masks in a folder or a list. Raise InputError if there are none."""
    try:
        return find_alone(masks, Ignored(None), Silence()).refs
    except InputError as error:
        raise InputError(error.message.replace("no images", "no masks", 1), _MASKS_HINT) from None


def _classes_of(folder: Path | Listed, run: Run | None, given: Sequence[LabelClass] | None) -> Sequence[LabelClass]:
    """Return the given classes, or the classes of the run or of classes.json beside the masks.

    Raises:
        UsageError: No names are known, or the given names differ from the others in number or order, so that ids would mean
            different classes.
        InputError: No names are given, and classes.json cannot be read.
    """
    try:
        known = _classes_beside(folder) if run is None else run.classes
    except (UsageError, InputError):
        if given is None:
            raise
        return given  # masks of another tool
    if given is None:
        return known
    names, given_names = ([entry.name for entry in classes] for classes in (known, given))
    if len(given) != len(known):
        raise UsageError(
            f"got {pluralize(len(given), 'class', 'classes')}, but the masks in {folder} have {len(known)}: "
            f"{join_first(names, 6)}",
            _RUN_CLASSES + Words(" To score with {layout}, label with the vocabulary of that name."),
        )
    if in_other_order(given_names, names):
        raise UsageError(
            f"the masks in {folder} have the classes in a different order: {', '.join(names)}",
            _RUN_CLASSES + " The ground truth must have the same order.",
        )
    return [replace(entry, part_of=own.part_of) for entry, own in zip(given, known, strict=True)]


def _classes_beside(folder: Path | Listed) -> Sequence[LabelClass]:
    """Read the classes from classes.json in a folder, or beside the folder if it is called masks.

    Raise UsageError if the file is missing, InputError if it is invalid.
    """
    # A file beside any other folder describes other masks.
    folders = list[Path]() if isinstance(folder, Listed) else [folder]
    folders += [each.absolute().parent for each in folders if each.absolute().name == _MASKS]
    path = next((place / CLASSES_FILE for place in folders if (place / CLASSES_FILE).is_file()), None)
    if path is None:
        raise UsageError(
            f"the masks in {'a list' if isinstance(folder, Listed) else folder} have no {CLASSES_FILE} that names their ids",
            Words("Set the classes with {classes}, {vocab} or {layout}."),
        )
    try:
        record = parse(read_regular(path))
        wholes = [take(entry, "part_of", str) if "part_of" in entry else "" for entry in take(record, "classes", list)]
        names = [name for _, name in names_by_id(record)]
        specs = [ClassSpec(name, part_of=whole) for name, whole in zip(names, wholes, strict=True)]
        return make_vocabulary(specs, "none").classes
    except (OSError, ValueError, TypeError, VocabularyError) as error:
        raise InputError(
            f"{path}: not a {CLASSES_FILE} of tipsseg",
            Words("Set the classes with {classes} or {vocab}."),
        ) from error
