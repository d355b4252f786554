"""One `tipsseg eval` run: labels against truth, made on the spot or read from files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tipsseg._version import __version__
from tipsseg.errors import ImageError, InputError, LabelIdError, OutputError, UsageError
from tipsseg.evaluation import metrics
from tipsseg.evaluation.metrics import Confusion, ImageScore, Scores
from tipsseg.evaluation.pairing import Pair, Pairs, find_truths, pair_truths
from tipsseg.evaluation.truth import Layout, read_labels, read_truth
from tipsseg.formats import CONFUSION_PICTURE, image_folders
from tipsseg.label_map import LabelMap
from tipsseg.options import MAX_PIXELS
from tipsseg.runs.common import inputs
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.inputs import Found
from tipsseg.runs.common.notes import ImageNotes, note_begin, note_end, note_folder, note_formats
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.common.reporting import Reporter
from tipsseg.runs.engine.engine import LocalEngine
from tipsseg.runs.engine.loading import check_device
from tipsseg.runs.evaluate.predictions import find_masks, masks_folder
from tipsseg.runs.label.run import as_items, begin
from tipsseg.store.file_names import OutputNames, RunNames, name_key
from tipsseg.store.folder import OutputFolder
from tipsseg.store.results import Failed, ImageResult, Labelled, Unchanged
from tipsseg.store.run_record import parse_files, plan_run, run_context
from tipsseg.store.spec import Counts, RunInfo, RunSpec, check_folder
from tipsseg.types import ImageRef, LabelArray, name_order
from tipsseg.util.files import atomic_write, json_bytes, read_regular
from tipsseg.util.json_values import parse, take
from tipsseg.util.ownership import Ownership
from tipsseg.util.printable import counted, listed
from tipsseg.util.threads import in_order

SCORES_FILE = "eval.json"
CSV_FILE = "confusion.csv"

#: How many pixels of each image are right, a line of JSON each.
IMAGES_FILE = "eval-images.jsonl"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        facts: What was evaluated, as JSON values.
        scored: How many images the scores are of.
        failed: How many images failed; the scores leave them out.
        confusion: How many pixels of each truth class were labelled as each class.
        scores: The scores from the confusion matrix: mean IoU, IoU per class, accuracies, all 0..1.
        names: The names of the classes 1..N.
        images: How many pixels of each image are right, in the order of the names.
    """

    facts: Mapping[str, object]
    scored: int
    failed: int
    confusion: Confusion
    scores: Scores
    names: tuple[str, ...]
    images: tuple[ImageScore, ...] = ()

    def record(self) -> dict[str, object]:
        """Return the result as JSON values."""
        return {**self.facts, "images": self.scored, "failed": self.failed, **metrics.record(self.scores)}


def evaluate_model(
    spec: RunSpec, found: Found, truths: Path, layout: Layout, progress: Progress, *, quiet: bool = False
) -> Evaluation:
    """Label images and score the labels; if the spec has formats, the labels are written too.

    Scores need all labels, so that nothing is taken over from an earlier run. With `quiet`, a download of the model shows no
    progress. Raises TipssegError for what ends the run, before any work if truths are missing or hold ids that are no class. An
    image that cannot be read, or that has another size than its truth, is reported and left out.
    """
    inputs.check_listed(found)
    pairs = pair_truths(found.refs, truths, layout)
    if spec.formats:
        inputs.check_collisions(found.refs, OutputNames(name_key(spec.state), spec.files.names, spec.formats))
        inputs.check_not_outputs(found.refs, spec.output)
        RunNames(spec.state).check(found.refs, spec.output)
    if spec.features is None:  # else the store says what computes
        check_device(spec, spec.dtype)
    _check_truths(pairs, spec.jobs, progress, spec.max_pixels)
    info = plan_run(spec)
    confusion = Confusion(layout.classes, layout.background)
    by_ref = {pair.ref: pair for pair in pairs.pairs}
    scored: list[ImageScore] = []

    counting = threading.Lock()

    def count(ref: ImageRef, label_map: LabelMap) -> None:
        with counting:
            scored.append(_score(confusion, by_ref[ref], label_map.labels, spec.max_pixels))

    engine = LocalEngine(info, inspect=count, note=progress.note, quiet=quiet)
    images = Images(found.refs, found.root)
    with ExitStack() as stack:
        folder = None
        if spec.formats:
            folder = stack.enter_context(OutputFolder(info, found.refs))
            images = replace(images, refs=_to_be_labelled(found.refs, folder))
        started = engine.start(run_context(info), found.refs) if folder is None else begin(engine, images, folder)
        note_begin(started, images, Counts(), progress)
        if folder is not None:
            note_folder(folder, progress)
            note_formats(spec.formats, spec.files, spec.vocabulary.classes, progress)
        counts, first = _label(info, images, engine, folder, progress)
    _require_some(counts.labelled, counts.failed, first)
    facts = {
        "tool": "tipsseg",
        "version": __version__,
        "image_root": str(found.root),
        "gt": str(truths),
        "labels": info.spec.command(),
        "device": started.device,
        "dtype": started.dtype,
        "layout": layout.name,
    }
    names = [entry.name for entry in spec.vocabulary.classes]
    return _evaluation(facts, confusion, names, scored, counts.failed)


def _to_be_labelled(refs: Sequence[ImageRef], folder: OutputFolder) -> tuple[ImageRef | Failed, ...]:
    """Return the images for the engine. Raises OutputError if files of one were changed by hand, as scores need all labels."""
    found: list[ImageRef | Failed] = []
    for item in as_items(refs, folder.resume):
        if isinstance(item, Unchanged):
            raise OutputError(
                folder.path,
                f"files of {item.ref.name} in it were changed by hand, and this run would overwrite them",
                "Choose another output folder with argument `output`.",
            )
        found.append(item)
    return tuple(found)


def _label(
    info: RunInfo, images: Images, engine: LocalEngine, folder: OutputFolder | None, progress: Progress
) -> tuple[Counts, ImageError | None]:
    """Label the images, and keep the labels if there is a folder for them; return the first failure, too."""
    began = time.monotonic()
    notes = ImageNotes(info.model, progress)
    first: ImageError | None = None

    def record(result: ImageResult) -> Mapping[str, Path]:
        nonlocal first
        match result:
            case Labelled():
                notes.take(result)
                if folder is not None:
                    folder.add(result)
            case Failed():
                first = first or result.error
                if folder is not None:
                    folder.fail(replace(result, error=progress.worded(result.error)))
        return {}

    reporter: Reporter[ImageResult] = Reporter(progress, record)
    results = engine.results(images.refs)
    for _ in reporter.each(results if folder is None else folder.placed(results)):
        pass
    if folder is not None:
        folder.finish(reporter.counts, engine.batch_size())
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
    """Score masks that are there already, in the folder `predicted`, see `find_masks`, against the truths in another.

    Masks without a truth are counted and left out. A predicted mask that cannot be read is reported and left out.

    Raises:
        UsageError: Both are one folder.
        InputError: Masks are missing, or no mask has a truth.
        ImageError: A truth cannot be read, or has ids that are no class.
    """
    if os.path.realpath(masks_folder(predicted)) == os.path.realpath(truths):
        raise UsageError(
            "argument `predicted` and argument `truths` are one folder",
            "Give the folder of the truth masks as argument `truths`.",
        )
    found = find_masks(predicted)
    pairs = find_truths(found.refs, truths, layout)
    if not pairs.pairs:
        pairs = pair_truths(found.refs, truths, layout)  # raises what is missing
    if without := [ref.name for ref in pairs.missing]:
        progress.note(
            f"No truth for {len(without)} of {counted(len(found.refs), 'mask')}, which the scores leave out: {listed(without, 3)}."
        )
    _check_truths(pairs, jobs, progress, max_pixels)
    _check_labels(pairs, layout.classes, jobs, max_pixels)
    confusion = Confusion(layout.classes, layout.background)
    progress.begin(f"{counted(len(pairs.pairs), 'mask')} of {predicted} against {truths}.", len(pairs.pairs))
    failed, first = 0, None
    scored = []
    for pair in pairs.pairs:
        try:
            labels = read_labels(pair.ref.path, layout.classes, max_pixels)
            scored.append(_score(confusion, pair, labels, max_pixels))
        except ImageError as error:
            failed, first = failed + 1, first or error
            progress.error(error)
        progress.advance()
    _require_some(len(scored), failed, first)
    facts = {
        "tool": "tipsseg",
        "version": __version__,
        "pred": str(predicted),
        "gt": str(truths),
        "layout": layout.name,
        "without_truth": len(without),
    }
    return _evaluation(facts, confusion, names, scored, failed)


def check_output(output: Path, masks: Sequence[Path], *, labels: bool) -> None:
    """Raise OutputError if the folder of the results cannot be made, or the results would come among `masks` that are read.

    `labels`: the labels are written too.
    """
    check_folder(output)
    ownership = _reports(output)
    for name in (IMAGES_FILE, CSV_FILE):
        ownership.refuse_changed(output / name)
    place = Path(os.path.realpath(output))
    for folder in masks:
        real = Path(os.path.realpath(folder))
        if place.is_relative_to(real) or (
            labels and any(real.is_relative_to(place / name) for name in image_folders())
        ):
            raise OutputError(
                output,
                f"the results would come among the masks in {folder}",
                "Choose another output folder with argument `output`.",
            )


def write_reports(evaluation: Evaluation, output: Path) -> list[Path]:
    """Write eval.json, eval-images.jsonl and confusion.csv, and return their paths. Raises OutputError."""
    confusion, names = evaluation.confusion, evaluation.names
    contents = {
        IMAGES_FILE: b"".join(json_bytes(asdict(score)) + b"\n" for score in evaluation.images),
        CSV_FILE: metrics.confusion_csv(confusion, names).encode("utf-8"),
    }
    ownership = _reports(output)
    ownership.remove_run_file(output / CONFUSION_PICTURE)  # it shows other numbers
    for name, data in contents.items():
        ownership.write_run_file(output / name, data)
    scores = output / SCORES_FILE
    ownership.refuse_outside(scores)
    atomic_write(scores, json_bytes({**evaluation.record(), "files": ownership.record()}, indent=2) + b"\n")
    return [scores, *(output / name for name in contents)]


def _reports(output: Path) -> Ownership:
    """Load the reports of an earlier evaluation in a folder. Raises OutputError if eval.json is not by this program."""
    path = output / SCORES_FILE
    try:
        record = parse(read_regular(path)) if os.path.lexists(path) else {"tool": "tipsseg", "layout": "", "files": {}}
        if take(record, "tool", str) != "tipsseg":
            raise ValueError("of another tool")
        take(record, "layout", str)
        written = parse_files(take(record, "files", dict))
    except (OSError, ValueError) as error:
        raise OutputError(
            path,
            "the file that is there is no result of tipsseg eval",
            "Move it away, or choose another folder with argument `output`.",
        ) from error
    ownership = Ownership(output)
    ownership.load(written)
    return ownership


def _score(confusion: Confusion, pair: Pair, labels: LabelArray, max_pixels: int) -> ImageScore:
    truth = read_truth(pair.truth, pair.kind.ids, max_pixels)
    try:
        return ImageScore(pair.ref.name, *confusion.add(truth, labels))
    except InputError as error:
        raise ImageError(pair.ref.path, f"{error.message} ({pair.truth})", error.hint) from error


def _check_truths(pairs: Pairs, jobs: int, progress: Progress, max_pixels: int) -> None:
    """Read all truths once: ids that are no class mean a wrong vocabulary or layout, which is better known now than in an hour."""
    if pairs.unused:
        progress.note(f"{counted(pairs.unused, 'truth mask')} without an image.")
    progress.note(f"Checking {counted(len(pairs.pairs), 'truth mask')}.")

    def check(pair: Pair) -> None:  # returns nothing, as results would stay in memory
        read_truth(pair.truth, pair.kind.ids, max_pixels)

    for _ in in_order(jobs, check, pairs.pairs):
        pass


def _check_labels(pairs: Pairs, classes: int, jobs: int, max_pixels: int) -> None:
    """Read all predicted masks once, for ids that are no class; other faults cost a line each, later."""

    def check(pair: Pair) -> None:
        try:
            read_labels(pair.ref.path, classes, max_pixels)
        except LabelIdError:
            raise
        except ImageError:
            pass

    for _ in in_order(jobs, check, pairs.pairs):
        pass


def _require_some(scored: int, failed: int, first: ImageError | None) -> None:
    """Raise InputError if nothing was scored, with the first failure, as the library prints no lines of their own."""
    if not scored and first is not None:
        raise InputError(f"nothing was scored: {failed} of {failed} failed; the first: {first.message}", first.hint)


def _evaluation(
    facts: Mapping[str, object], confusion: Confusion, names: Sequence[str], scored: list[ImageScore], failed: int
) -> Evaluation:
    images = tuple(sorted(scored, key=lambda each: name_order(each.image)))
    return Evaluation(facts, len(scored), failed, confusion, metrics.scores(confusion, names), tuple(names), images)
