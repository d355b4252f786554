"""`tipsseg eval`: compare labels with truth masks. The labels come from the model, or from files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tipsseg._version import __version__
from tipsseg.address import address_text
from tipsseg.engine.local import LocalEngine, check_device, load_for
from tipsseg.engine.notes import ImageNotes, Reporter, note_begin, note_end
from tipsseg.engine.stages import run_stages
from tipsseg.errors import ImageError, InputError, LabelIdError, UsageError, VocabularyError
from tipsseg.formats import FORMATS, refuse_parts
from tipsseg.formats.classes_file import CLASSES_FILE, names_by_id
from tipsseg.images.decoding import ImageReader
from tipsseg.images.finding import Found, Paths, as_paths
from tipsseg.learning import metrics
from tipsseg.learning.metrics import NO_LABEL_NAME, Confusion, ImageScore, Scores
from tipsseg.learning.truth import (
    Layout,
    Pair,
    Pairs,
    find_truths,
    in_other_order,
    layout_of,
    mask_folder,
    pair_truths,
    preset_of,
    read_predicted,
    read_truth,
)
from tipsseg.options import MAX_PIXELS, LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import EvaluateKeywords, ScoreMasksKeywords, with_keywords
from tipsseg.options.run import ComputeOptions, RegionOptions, TruthOptions
from tipsseg.regions.objects import Layer
from tipsseg.run import inputs
from tipsseg.run.inputs import Ignored, Images, found_images, is_output
from tipsseg.run.plan import plan_run
from tipsseg.run.read import Run, find_run, refuse_raster
from tipsseg.run.record import run_context
from tipsseg.run.results import Labelled
from tipsseg.run.spec import Counts, RunSpec
from tipsseg.types import Failed, ImageRef, LabelArray, LabelClass, name_order
from tipsseg.util.files import is_file, is_folder, read_regular
from tipsseg.util.json import parse, take
from tipsseg.util.progress import Progress, progress_for
from tipsseg.util.text import join_first, pluralize
from tipsseg.util.threads import map_in_order
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import Classes, as_vocabulary
from tipsseg.vocabulary.vocabulary import ClassSpec, make_vocabulary

if TYPE_CHECKING:
    from tipsseg.labelling.labeller import Patches, Scored
    from tipsseg.labelling.source import Loaded

#: The folder of masks in an output folder.
_MASKS = FORMATS["png"].folder or ""

_PRED = "Set argument `predicted` to a folder of masks, or to an output folder of tipsseg label."

_RUN_CLASSES = "Leave out argument `classes` and argument `vocabulary` to use the run's classes."


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        facts: The settings of the evaluation, as JSON values.
        scored: The number of scored images.
        failed: The number of images that failed and were left out.
        confusion: The confusion matrix, in pixels.
        scores: Mean IoU, IoU per class and accuracies from the confusion matrix, all 0..1.
        classes: The classes, by id 1..N.
        images: The pixel counts of each image, ordered by image name.
    """

    facts: Mapping[str, object]
    scored: int
    failed: int
    confusion: Confusion
    scores: Scores
    classes: tuple[LabelClass, ...]
    images: tuple[ImageScore, ...] = ()

    def __repr__(self) -> str:
        return f"Evaluation(mean IoU {self.scores.mean_iou:.3f} over {self.scored} images, {self.failed} failed)"

    def record(self) -> dict[str, object]:
        """Return the result as JSON values."""
        return {
            **self.facts,
            "images": self.scored,
            "failed": self.failed,
            **metrics.record(self.scores),
            "confusion": {
                "columns": [*self.scores.names, NO_LABEL_NAME],
                "counts": self.confusion.counts.tolist(),
            },
            "image_scores": [asdict(score) for score in self.images],
        }


class _Scorer:
    """A confusion matrix over all images, the pixel counts of each image, and the first failure."""

    def __init__(self, layout: Layout, reader: ImageReader) -> None:
        """Create an empty matrix; `reader` decodes the truth masks."""
        self._confusion = Confusion(layout.classes, layout.background)
        self._reader = reader
        self._images: list[ImageScore] = []
        self._lock = threading.Lock()
        self.failed = 0
        self._first: ImageError | None = None

    def add(self, pair: Pair, labels: LabelArray, layers: Sequence[Layer] | None) -> None:
        """Compare labels [H, W] with their truth; `layers` are the classes if they overlap. Thread-safe.

        Raises ImageError if the truth cannot be used.
        """
        truth = read_truth(pair.truth, pair.kind.ids, self._reader)
        with self._lock:
            try:
                self._images.append(ImageScore(pair.ref.name, *self._confusion.add(truth, labels, layers)))
            except InputError as error:
                raise ImageError(pair.ref.path, f"{error.message} ({pair.truth})", error.hint) from error

    def fail(self, error: ImageError) -> None:
        """Count an image that is left out."""
        self.failed += 1
        self._first = self._first or error

    def evaluation(self, facts: Mapping[str, object], classes: Sequence[LabelClass]) -> Evaluation:
        """Return the scores of all images; `classes` are those with the ids 1..N. Raises InputError if all images failed."""
        if not self._images and self._first is not None:
            raise InputError(f"no image was scored; the first failure: {self._first.message}", self._first.hint)
        return Evaluation(
            {"tool": "tipsseg", "version": __version__, **facts},
            len(self._images),
            self.failed,
            self._confusion,
            metrics.scores(self._confusion, classes),
            tuple(classes),
            tuple(sorted(self._images, key=lambda score: name_order(score.image))),
        )


def _check_truths(pairs: Pairs, jobs: int, progress: Progress, reader: ImageReader) -> None:
    """Read all truths once, because unknown ids reveal a wrong vocabulary or layout before an hour of labelling."""
    if pairs.unused:
        progress.note(f"Ignored {pluralize(pairs.unused, 'truth mask')} without an image.")
    progress.note(f"Checking {pluralize(len(pairs.pairs), 'truth mask')}.")

    def check(pair: Pair) -> None:  # returns nothing, because results would stay in memory
        read_truth(pair.truth, pair.kind.ids, reader)

    for _ in map_in_order(jobs, check, pairs.pairs):
        pass


# ---- labels of the model ----


def evaluate_images(
    spec: RunSpec, found: Found, truths: Path, layout: Layout, progress: Progress, *, quiet: bool = False
) -> Evaluation:
    """Label images as `tipsseg label` does, and score the labels instead of writing them.

    An image that cannot be read, or whose truth has a different size, is reported and left out.

    Args:
        spec: The run; it writes no formats.
        found: The images.
        truths: The folder of the truth masks.
        layout: Their layout, see `layout_of`.
        progress: Prints notes and errors.
        quiet: Hide the progress of a model download.

    Raises:
        TipssegError: The run cannot continue. Missing truths and unknown ids are detected before any image is labelled.
    """
    began = time.monotonic()
    inputs.check_listed(found)
    pairs = pair_truths(found.refs, truths, layout)
    if spec.features is None:  # with a store, `load_for` chooses the device
        check_device(spec, spec.dtype)
    _check_truths(pairs, spec.jobs, progress, spec.reader)
    info = plan_run(spec)
    if info.spec.given is not None:
        info.spec.given.expect(found.refs)
    engine = LocalEngine(
        load_for(info, progress.note, quiet=quiet, images=found.refs), run_context(info), progress.note
    )
    note_begin(engine.info, Images(found.refs, found.root), Counts(), progress)
    notes, reporter, scorer = ImageNotes(info.model, progress), Reporter(progress), _Scorer(layout, spec.reader)
    finish = partial(_label_and_score, engine, {pair.ref: pair for pair in pairs.pairs}, scorer)
    with closing(run_stages(found.refs, engine.source, engine.score, finish, spec.jobs)) as results:
        for result in results:
            if isinstance(result, Failed):
                scorer.fail(result.error)
            else:
                notes.add(result)
            reporter.report(result)
    notes.end()
    note_end(progress, reporter.counts, time.monotonic() - began, "")
    facts = {
        "image_root": address_text(found.root),
        "gt": str(truths),
        "labels": info.spec.question(info.spec.model),
        "device": engine.info.device,
        "dtype": engine.info.dtype,
        "layout": layout.name,
    }
    return scorer.evaluation(facts, spec.vocabulary.classes)


def _label_and_score(
    engine: LocalEngine, pairs: Mapping[ImageRef, Pair], scorer: _Scorer, loaded: Loaded[Patches], scored: Scored
) -> Labelled:
    """Label an image, and score the labels. Thread-safe."""
    began = time.monotonic()
    with engine.alone(loaded):
        label_map = engine.label(loaded, scored)
        scorer.add(pairs[loaded.ref], label_map.labels, label_map.layers)
        return engine.write(loaded, label_map, began)  # its entry; without formats, nothing is written


# ---- labels in files ----


def evaluate_masks(
    predicted: Path,
    truths: Path,
    truth: TruthOptions,
    classes: Sequence[LabelClass] | None,
    progress: Progress,
    *,
    jobs: int,
    max_pixels: int = MAX_PIXELS,
) -> Evaluation:
    """Score the labels of a run, or the masks in a folder.

    Masks without a truth are counted and left out. A predicted mask that cannot be read is reported and left out.

    Args:
        predicted: The output folder of a run, its folder of masks, or any folder of index masks.
        truths: The folder of the truth masks.
        truth: How to read them.
        classes: The classes of the masks. None: those of the layout, of the run, or of classes.json beside the masks.
        progress: Prints notes and errors.
        jobs: The number of threads.
        max_pixels: Masks with more pixels are rejected.

    Raises:
        UsageError: Both folders are the same, no names are known, or they differ from those of the run or the layout.
        InputError: The folder has no masks, or no mask has a truth.
        ImageError: A truth cannot be read, or a mask has unknown ids.
    """
    reader = ImageReader(max_pixels)
    if classes is None and truth.layout is not None:
        classes = read_vocabulary(truth.layout).classes
    with _open_run(predicted, truths) as run:
        classes = _classes_of(predicted, run, classes)
        layout = layout_of(truth, [entry.name for entry in classes], truths)
        refs = _find_masks(predicted) if run is None else [image.ref(None) for image in run.images()]
        pairs = find_truths(refs, truths, layout)
        if not pairs.pairs:
            pairs = pair_truths(refs, truths, layout)  # raises the error for missing truths
        if without := [ref.name for ref in pairs.missing]:
            progress.note(
                f"Ignored {len(without)} of {pluralize(len(refs), 'mask')} without a truth: {join_first(without, 3)}."
            )
        _check_truths(pairs, jobs, progress, reader)
        progress.begin(
            f"Scoring {pluralize(len(pairs.pairs), 'mask')} of {predicted} against {truths}.", len(pairs.pairs)
        )
        scorer = _Scorer(layout, reader)
        score = partial(_score_file, run, scorer, layout.classes, reader)
        with closing(map_in_order(jobs, score, pairs.pairs)) as errors:
            for error in errors:
                if error is not None:
                    scorer.fail(error)
                    progress.error(error)
                progress.advance()
        progress.end()
        facts = {"pred": str(predicted), "gt": str(truths), "layout": layout.name, "without_truth": len(without)}
        return scorer.evaluation(facts, classes)


def _score_file(run: Run | None, scorer: _Scorer, classes: int, reader: ImageReader, pair: Pair) -> ImageError | None:
    """Score the labels of an image, and return its error or None. Thread-safe. Raises LabelIdError for other classes' ids."""
    try:
        if run is None:
            scorer.add(pair, read_predicted(pair.ref.path, classes, reader), None)
        else:
            labels = run.image(pair.ref.name).current().labels
            scorer.add(pair, labels.labels, labels.layers)
    except LabelIdError:
        raise
    except ImageError as error:
        return error
    return None


@contextmanager
def _open_run(folder: Path, truths: Path) -> Iterator[Run | None]:
    """Open the run whose output folder, or whose folder of masks, is given; yield None for other folders.

    Raises:
        InputError: There is no such folder, or its run is of rasters.
        UsageError: The masks are the truths.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: {'not a folder' if is_file(folder) else 'no such folder'}", _PRED)
    refuse_parts(folder)
    is_masks = folder.absolute().name == _MASKS and is_output(folder.absolute().parent)
    output = folder.absolute().parent if is_masks else folder
    with find_run(output, ended=False) as run:
        if os.path.realpath(folder if run is None else mask_folder(output)) == os.path.realpath(mask_folder(truths)):
            raise UsageError(
                "argument `predicted` and argument `truths` are the same folder",
                "Set argument `truths` to the folder of the truth masks.",
            )
        if run is not None:
            refuse_raster(run.info)
        yield run


def _find_masks(folder: Path) -> Sequence[ImageRef]:
    """Find the masks in a folder. Raises InputError if it has no masks."""
    try:
        found = inputs.found_images([folder], None, inputs.Ignored(None))
    except InputError as error:
        raise InputError(error.message.replace("no images", "no masks", 1), _PRED) from error
    inputs.check_listed(found)
    return found.refs


def _classes_of(folder: Path, run: Run | None, given: Sequence[LabelClass] | None) -> Sequence[LabelClass]:
    """Return the given classes, or those of the run or of classes.json beside the masks.

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
            f"{_RUN_CLASSES} To score with argument `layout`, label with the vocabulary of that name.",
        )
    if in_other_order(given_names, names):
        raise UsageError(
            f"the masks in {folder} have the classes in a different order: {', '.join(names)}",
            f"{_RUN_CLASSES} The truth must have the same order.",
        )
    return [replace(entry, part_of=own.part_of) for entry, own in zip(given, known, strict=True)]


def _classes_beside(folder: Path) -> Sequence[LabelClass]:
    """Read the classes from classes.json in a folder, or beside the folder if it is called masks.

    Raises UsageError if the file is missing, InputError if it is invalid.
    """
    # A file beside any other folder describes other masks.
    folders = [folder, folder.absolute().parent] if folder.absolute().name == _MASKS else [folder]
    path = next((place / CLASSES_FILE for place in folders if (place / CLASSES_FILE).is_file()), None)
    if path is None:
        raise UsageError(
            f"the masks in {folder} have no {CLASSES_FILE} that names their ids",
            "Set the classes with argument `classes`, argument `vocabulary` or argument `layout`.",
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
            "Set the classes with argument `classes` or argument `vocabulary`.",
        ) from error


@with_keywords(EvaluateKeywords, TruthOptions, LabelOptions, RegionOptions, ComputeOptions)
def evaluate(
    images: Paths,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    verbose: bool | None = None,
    **keywords: Unpack[EvaluateKeywords],
) -> Evaluation:
    """Label images and score the labels against truth masks, as `tipsseg eval` does. Write nothing.

    To keep the labels, use `label_folder`, then `score_masks`.

        result = tipsseg.review.evaluate("photos/", "masks/", ["car", "road"])
        print(result.scores.mean_iou)

    Args:
        images: Files and folders.
        truths: The folder with the truth masks, laid out like the image folders.
        classes: See `label_folder`. None: the classes of `layout`.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The scores: `scores.mean_iou` (0..1), `scores.iou` per class, `confusion`, the pixel counts of `images`, the numbers of
        images `scored` and `failed`, and `record()`, all of them as JSON values.

    Raises:
        TipssegError: The run cannot start or continue.
    """
    truth = take_options(TruthOptions, keywords)
    vocabulary, fitted = as_vocabulary(read_vocabulary(preset_of(truth)) if classes is None else classes)
    layout = layout_of(truth, [entry.name for entry in vocabulary.classes], Path(truths))
    spec = RunSpec.of(
        take_options(ComputeOptions, keywords),
        take_options(RegionOptions, keywords),
        formats=(),
        vocabulary=vocabulary,
        fitted=fitted,
        options=take_options(LabelOptions, keywords),
    )
    with progress_for(verbose) as progress:
        found = found_images(as_paths(images), None, Ignored(None, Path(truths)))
        return evaluate_images(spec, found, Path(truths), layout, progress, quiet=True)


@with_keywords(ScoreMasksKeywords, TruthOptions, ComputeOptions)
def score_masks(
    predicted: str | Path,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    verbose: bool | None = None,
    **keywords: Unpack[ScoreMasksKeywords],
) -> Evaluation:
    """Score existing masks against truth masks, as `tipsseg eval --pred` does.

    Args:
        predicted: The output folder of a run that wrote index masks, or a folder of index masks.
        truths: See `evaluate`.
        classes: The classes of the masks. None: the classes of `layout`, or of the run.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The scores, see `evaluate`.

    Raises:
        TipssegError: The masks cannot be read or scored.
    """
    truth, compute = take_options(TruthOptions, keywords), take_options(ComputeOptions, keywords)
    given = None if classes is None else as_vocabulary(classes)[0].classes
    with progress_for(verbose) as progress:
        return evaluate_masks(Path(predicted), Path(truths), truth, given, progress, jobs=compute.jobs)
