"""`tipsseg eval`: compare labels with truth masks. The labels come from the model, or from files."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg._version import __version__
from tipsseg.address import address_text
from tipsseg.errors import ImageError, InputError, LabelIdError, OutputError
from tipsseg.evaluation import metrics
from tipsseg.evaluation.metrics import Confusion, ImageScore, Scores
from tipsseg.evaluation.pairing import Pair, Pairs, find_truths, pair_truths
from tipsseg.evaluation.truth import Layout, read_truth
from tipsseg.formats import image_folders
from tipsseg.images.finding import Found
from tipsseg.options import MAX_PIXELS
from tipsseg.regions.objects import Layer
from tipsseg.run.files import MOVE, digest_of
from tipsseg.run.folder import OutputFolder, open_folder
from tipsseg.run.names import OutputNames, RunNames, name_key
from tipsseg.run.plan import plan_run
from tipsseg.run.record import run_context
from tipsseg.run.results import ImageResult, Labelled, Unchanged
from tipsseg.run.settle import settle
from tipsseg.run.spec import Counts, RunInfo, RunSpec, check_folder
from tipsseg.runs.common import inputs
from tipsseg.runs.common.inputs import Images
from tipsseg.runs.common.notes import ImageNotes, note_begin, note_end, note_folder, note_formats, note_settled
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.common.reporting import Reporter
from tipsseg.runs.engine.local import LocalEngine, check_device, load_for
from tipsseg.runs.engine.pipeline import run_stages
from tipsseg.runs.evaluate.predictions import Predictions, find_predictions
from tipsseg.runs.label.run import begin
from tipsseg.types import Failed, ImageRef, LabelArray, name_order
from tipsseg.util.files import atomic_write, json_bytes, read_regular
from tipsseg.util.json_values import parse, take
from tipsseg.util.printable import join_first, pluralize
from tipsseg.util.threads import map_in_order

if TYPE_CHECKING:
    from tipsseg.labelling.labeller import Patches, Scored
    from tipsseg.labelling.source import Loaded

SCORES_FILE = "eval.json"
CSV_FILE = "confusion.csv"

#: One JSON line per image: the numbers of scored pixels and of correct pixels.
IMAGES_FILE = "eval-images.jsonl"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        facts: The settings of the evaluation, as JSON values.
        scored: The number of scored images.
        failed: The number of images that failed and were left out.
        confusion: The confusion matrix, in pixels.
        scores: Mean IoU, IoU per class and accuracies from the confusion matrix, all 0..1.
        names: The names of the classes 1..N.
        images: The pixel counts of each image, ordered by image name.
    """

    facts: Mapping[str, object]
    scored: int
    failed: int
    confusion: Confusion
    scores: Scores
    names: tuple[str, ...]
    images: tuple[ImageScore, ...] = ()

    def __repr__(self) -> str:
        return f"Evaluation(mean IoU {self.scores.mean_iou:.3f} over {self.scored} images, {self.failed} failed)"

    def record(self) -> dict[str, object]:
        """Return the result as JSON values."""
        return {**self.facts, "images": self.scored, "failed": self.failed, **metrics.record(self.scores)}


class Scorer:
    """A confusion matrix over all images, and the pixel counts of each image."""

    def __init__(self, layout: Layout, max_pixels: int) -> None:
        """Create an empty matrix. Truth masks with more pixels than `max_pixels` are rejected."""
        self._confusion = Confusion(layout.classes, layout.background)
        self._max_pixels = max_pixels
        self._images: list[ImageScore] = []
        self._lock = threading.Lock()

    @property
    def scored(self) -> int:
        return len(self._images)

    def add(self, pair: Pair, labels: LabelArray, layers: Sequence[Layer] | None = None) -> None:
        """Compare labels [H, W] with their truth; `layers` are the classes if they overlap. Thread-safe.

        Raises ImageError if the truth cannot be used.
        """
        truth = read_truth(pair.truth, pair.kind.ids, self._max_pixels)
        with self._lock:
            try:
                self._images.append(ImageScore(pair.ref.name, *self._confusion.add(truth, labels, layers)))
            except InputError as error:
                raise ImageError(pair.ref.path, f"{error.message} ({pair.truth})", error.hint) from error

    def evaluation(self, facts: Mapping[str, object], names: Sequence[str], failed: int) -> Evaluation:
        """Return the scores of all images; `names` are the classes 1..N, `failed` is the number of images left out."""
        return Evaluation(
            {"tool": "tipsseg", "version": __version__, **facts},
            len(self._images),
            failed,
            self._confusion,
            metrics.scores(self._confusion, names),
            tuple(names),
            tuple(sorted(self._images, key=lambda score: name_order(score.image))),
        )


def evaluate_model(
    spec: RunSpec, found: Found, truths: Path, layout: Layout, progress: Progress, *, quiet: bool = False
) -> Evaluation:
    """Label images and score the labels. If the spec has formats, also write the labels.

    All images are labelled again, without reusing results of an earlier run. An image that cannot be read, or whose truth has a
    different size, is reported and left out.

    Raises:
        TipssegError: If the run cannot continue. Missing truths and unknown ids are detected before any image is labelled.
    """
    inputs.check_listed(found)
    pairs = pair_truths(found.refs, truths, layout)
    if spec.formats:
        inputs.check_collisions(found.refs, OutputNames(name_key(spec.folder), spec.files.names, spec.formats))
        inputs.check_not_outputs(found.refs, spec.output)
        RunNames(spec.folder).check(found.refs, spec.output)
    if spec.features is None:  # with a store, `load_for` chooses the device
        check_device(spec, spec.dtype)
    _check_truths(pairs, spec.jobs, progress, spec.max_pixels)
    info = plan_run(spec)
    if info.spec.given is not None:
        info.spec.given.expect(found.refs)
    scorer = Scorer(layout, spec.max_pixels)
    images = Images(found.refs, found.root)
    with ExitStack() as stack:
        folder = None
        if spec.formats:
            folder = stack.enter_context(open_folder(info))
            images = replace(images, refs=_images_to_label(found.refs, folder))
        loaded = load_for(info, progress.note, quiet=quiet, images=found.refs)
        engine = LocalEngine(loaded, run_context(info) if folder is None else folder.context, progress.note)
        started = engine.info if folder is None else begin(engine, images, folder)
        note_begin(started, images, Counts(), progress)
        if folder is not None:
            note_folder(folder, images, progress)
            note_formats(spec.formats, spec.files, spec.vocabulary.classes, progress)
        finish = partial(_label_and_score, engine, {pair.ref: pair for pair in pairs.pairs}, scorer)
        with closing(run_stages(images.refs, engine.source, engine.score, finish, spec.jobs)) as results:
            counts, first = _collect(results, info, folder, engine.batch_size, progress)
    _require_scores(counts.labelled, first)
    facts = {
        "image_root": address_text(found.root),
        "gt": str(truths),
        "labels": info.spec.question(info.spec.model),
        "device": started.device,
        "dtype": started.dtype,
        "layout": layout.name,
    }
    return scorer.evaluation(facts, [entry.name for entry in spec.vocabulary.classes], counts.failed)


def _label_and_score(
    engine: LocalEngine, pairs: Mapping[ImageRef, Pair], scorer: Scorer, loaded: Loaded[Patches], scored: Scored
) -> Labelled:
    """Label an image, score the labels and write them. Thread-safe."""
    began = time.monotonic()
    with engine.alone(loaded):
        label_map = engine.label(loaded, scored)
        scorer.add(pairs[loaded.ref], label_map.labels, label_map.layers)
        return engine.write(loaded, label_map, began)


def _images_to_label(refs: Sequence[ImageRef], folder: OutputFolder) -> tuple[ImageRef | Failed, ...]:
    """Return the images to label. Raises OutputError if a person edited a file, because all images must be labelled."""
    items: list[ImageRef | Failed] = []
    for item in map(folder.triage, refs):
        if isinstance(item, Unchanged):
            raise OutputError(
                folder.path,
                f"files of {item.ref.name} were edited by hand, and this run would overwrite them",
                "Choose another output folder with argument `output`.",
            )
        items.append(item)
    return tuple(items)


def _collect(
    results: Generator[ImageResult, None, None],
    info: RunInfo,
    folder: OutputFolder | None,
    batch_size: int | None,
    progress: Progress,
) -> tuple[Counts, ImageError | None]:
    """Record the results in the folder, unless it is None. Return the counts, and the first failure."""
    began = time.monotonic()
    notes = ImageNotes(info.model, progress)
    first: ImageError | None = None

    reporter = Reporter(progress)
    with closing(results):
        for result in results:
            if folder is not None:
                result = folder.record(result)  # noqa: PLW2901
            match result:
                case Labelled():
                    notes.add(result)
                case Failed():
                    first = first or result.error
                    if folder is not None:
                        folder.fail(replace(result, error=progress.worded(result.error)))
            reporter.report(result)
    if folder is not None:
        note_settled(folder, settle(folder, info.spec.jobs), progress)
        folder.info = replace(folder.info, batch_size=batch_size)
        folder.finish(reporter.counts)
    notes.end()
    note_end(progress, reporter.counts, time.monotonic() - began, "")
    return reporter.counts, first


def evaluate_masks(
    predicted: Path,
    truths: Path,
    layout: Layout,
    names: Sequence[str],
    jobs: int,
    progress: Progress,
    max_pixels: int = MAX_PIXELS,
) -> Evaluation:
    """Score the masks in the folder `predicted`, see `find_predictions`, against the truth masks in the folder `truths`.

    Masks without a truth are counted and left out. A predicted mask that cannot be read is reported and left out.

    Raises:
        UsageError: If both folders are the same.
        InputError: If the folder has no masks, or no mask has a truth.
        ImageError: If a truth cannot be read, or has unknown ids.
    """
    with find_predictions(predicted, truths, max_pixels) as predictions:
        refs = predictions.refs
        pairs = find_truths(refs, truths, layout)
        if not pairs.pairs:
            pairs = pair_truths(refs, truths, layout)  # raises the error for missing truths
        if without := [ref.name for ref in pairs.missing]:
            progress.note(
                f"Ignored {len(without)} of {pluralize(len(refs), 'mask')} without a truth: {join_first(without, 3)}."
            )
        _check_truths(pairs, jobs, progress, max_pixels)
        _check_labels(pairs, predictions, layout.classes, jobs)
        scorer = Scorer(layout, max_pixels)
        progress.begin(
            f"Scoring {pluralize(len(pairs.pairs), 'mask')} of {predicted} against {truths}.", len(pairs.pairs)
        )
        failed, first = 0, None
        for pair in pairs.pairs:
            try:
                scorer.add(pair, *predictions.read(pair.ref, layout.classes))
            except ImageError as error:
                failed, first = failed + 1, first or error
                progress.error(error)
            progress.advance()
        _require_scores(scorer.scored, first)
        facts = {
            "pred": str(predicted),
            "gt": str(truths),
            "layout": layout.name,
            "without_truth": len(without),
        }
        return scorer.evaluation(facts, names, failed)


def check_output(output: Path, masks: Sequence[Path], *, labels: bool) -> None:
    """Raise OutputError if the output folder cannot be created, or overlaps a folder of masks.

    Args:
        output: The output folder.
        masks: The folders of masks.
        labels: True if the evaluation also writes labels.
    """
    check_folder(output)
    _refuse_others(output)
    place = Path(os.path.realpath(output))
    for folder in masks:
        real = Path(os.path.realpath(folder))
        if place.is_relative_to(real) or (
            labels and any(real.is_relative_to(place / name) for name in image_folders())
        ):
            raise OutputError(
                output,
                f"the results would be written among the masks in {folder}",
                "Choose another output folder with argument `output`.",
            )


def write_reports(evaluation: Evaluation, output: Path) -> list[Path]:
    """Write eval.json, eval-images.jsonl and confusion.csv, and return their paths. Raises OutputError if one cannot be written."""
    confusion, names = evaluation.confusion, evaluation.names
    contents = {
        IMAGES_FILE: b"".join(json_bytes(asdict(score)) + b"\n" for score in evaluation.images),
        CSV_FILE: metrics.confusion_csv(confusion, names).encode("utf-8"),
    }
    _refuse_others(output)
    for name, data in contents.items():
        atomic_write(output / name, data)
    scores = output / SCORES_FILE
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    atomic_write(scores, json_bytes({**evaluation.record(), "files": files}, indent=2) + b"\n")
    return [scores, *(output / name for name in contents)]


def _refuse_others(output: Path) -> None:
    """Raise OutputError if the results would replace files that an evaluation did not write."""
    path = output / SCORES_FILE
    try:
        record = parse(read_regular(path)) if os.path.lexists(path) else {"tool": "tipsseg", "layout": "", "files": {}}
        if take(record, "tool", str) != "tipsseg":
            raise ValueError("written by another tool")
        take(record, "layout", str)
        written = take(record, "files", dict)
    except (OSError, ValueError) as error:
        raise OutputError(
            path,
            "the existing file is not a result of tipsseg eval",
            "Move it away, or choose another folder with argument `output`.",
        ) from error
    for place in (output / name for name in (IMAGES_FILE, CSV_FILE)):
        if os.path.lexists(place) and digest_of(place) != written.get(place.name):
            raise OutputError(place, "tipsseg did not write this file, or it was changed since", MOVE)


def _check_truths(pairs: Pairs, jobs: int, progress: Progress, max_pixels: int) -> None:
    """Read all truths once, because unknown ids reveal a wrong vocabulary or layout before an hour of labelling."""
    if pairs.unused:
        progress.note(f"Ignored {pluralize(pairs.unused, 'truth mask')} without an image.")
    progress.note(f"Checking {pluralize(len(pairs.pairs), 'truth mask')}.")

    def check(pair: Pair) -> None:  # returns nothing, because results would stay in memory
        read_truth(pair.truth, pair.kind.ids, max_pixels)

    for _ in map_in_order(jobs, check, pairs.pairs):
        pass


def _check_labels(pairs: Pairs, predictions: Predictions, classes: int, jobs: int) -> None:
    """Read all predicted masks once to find unknown ids. Other faults are reported later, one for each image."""

    def check(pair: Pair) -> None:
        try:
            predictions.read(pair.ref, classes)
        except LabelIdError:
            raise
        except ImageError:
            pass

    for _ in map_in_order(jobs, check, pairs.pairs):
        pass


def _require_scores(scored: int, first: ImageError | None) -> None:
    """Raise InputError with the first failure if all images failed, because the library prints no failures."""
    if not scored and first is not None:
        raise InputError(f"no image was scored; the first failure: {first.message}", first.hint)
