"""The `tipsseg eval` command: score labels against truth masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import stdin, values
from tipsseg.cli.parameters import add_command, given_options
from tipsseg.cli.progress import open_progress
from tipsseg.errors import UsageError
from tipsseg.options import FileOptions, LabelOptions, split_names
from tipsseg.options.fields import FILES, IMAGES, TRUTH, option
from tipsseg.options.run import ComputeOptions, RegionOptions, TruthOptions

if TYPE_CHECKING:
    from tipsseg.run.spec import RunSpec
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.evaluate.run import Evaluation

EPILOG = """\b
Examples:
  tipsseg eval photos/ --gt masks/ --classes "panda leg,tree"
  tipsseg eval --pred labels/ --gt masks/
  tipsseg eval ADEChallengeData2016/images/validation \\
      --gt ADEChallengeData2016/annotations/validation --layout ade20k

\b
Truth masks hold ids: 0 background (scored as a class), 1..N the classes in
the order given, 255 ignored. For other ids see --ignore-index, --layout and,
in --help-all, --reduce-zero-label and --zero-based. A truth mask is named
after its image: the same relative path, or the same file name. One confusion
matrix counts all pixels, at the size of the truth.
Exit code: 0 success; 1 an error, or an image failed; 2 usage error.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    # fmt: off
    gt: Path = option(MISSING, metavar="DIR", group=TRUTH, help="Folder of the truth masks.")
    pred: Path | None = option(None, metavar="DIR", group=TRUTH,
        help="Folder of masks to score, or an output folder of tipsseg label.")
    as_json: bool = option(False, flag="json", group=FILES, help="Print the scores as one JSON object.")
    output: Path | None = option(None, metavar="DIR", short="o", group=FILES,
        help="Folder for eval.json, confusion.csv and the labels of --format.")
    report: bool = option(False, group=FILES,
        help="Also write the HTML page of tipsseg report, with the confusion matrix and the worst images.")
    formats: tuple[str, ...] | None = option(None, metavar="NAMES", flag="format", short="f", group=FILES, choices="formats",
        read=split_names,
        help="Also write the labels. " + opt.FORMAT_HELP)
    null: bool = option(False, short="0", group=IMAGES, rare=True,
        help="Separate the list on stdin with NUL instead of newlines.")
    quiet: bool = option(False, short="q", help=opt.QUIET_HELP)
    # fmt: on


@add_command(app, EPILOG, name="eval")
def evaluate(
    context: typer.Context,
    scoring: Scoring,
    truth: TruthOptions,
    question: opt.Asked,
    regions: RegionOptions,
    compute: ComputeOptions,
    options: LabelOptions,
    files: FileOptions,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="Images, folders, or - for a list on stdin; not with --pred."),
    ] = None,
) -> None:
    """Score labels against ground-truth masks: mean IoU, IoU per class, confusion matrix."""
    from tipsseg.run.spec import RunSpec
    from tipsseg.runs.evaluate.truth_options import preset_of

    values.refuse_split_lists(paths or (), question.classes, scoring.formats)
    _refuse_together(context, scoring)
    if scoring.report:
        _refuse_report(scoring, paths)
    if truth.layout is not None and not question.classes and question.vocab is None:
        question = replace(question, vocab=preset_of(truth))
    with open_progress(scoring.quiet, results=False) as progress:
        if scoring.pred is not None:
            evaluation = _evaluate_masks(scoring, scoring.pred, truth, question, compute, progress)
        else:
            asked = values.parse_question(question)
            spec = RunSpec(
                **vars(compute),
                **vars(regions),
                output=scoring.output or Path(),
                formats=scoring.formats or (),
                resume=False,
                vocabulary=asked.vocabulary,
                fitted=asked.fitted,
                options=options,
                files=files,
            )
            evaluation = _evaluate_model(scoring, spec, truth, question, paths or (), progress)
        _report(evaluation, scoring.output, scoring.as_json, progress)
        shown = not scoring.report or scoring.output is None or _make_page(scoring.output, compute, progress)
    if evaluation.failed or not shown:
        raise typer.Exit(1)


def _evaluate_masks(
    scoring: Scoring,
    pred: Path,
    truth: TruthOptions,
    question: opt.Asked,
    compute: ComputeOptions,
    progress: Progress,
) -> Evaluation:
    from tipsseg.runs.evaluate.predictions import masks_folder, names_of
    from tipsseg.runs.evaluate.run import check_output, evaluate_masks
    from tipsseg.runs.evaluate.truth_options import layout_of

    masks = masks_folder(pred)
    named = None
    if question.classes or question.vocab is not None:
        plain = replace(question, background=None)
        named = [entry.name for entry in values.parse_question(plain).vocabulary.classes]
    names = names_of(pred, named)
    layout = layout_of(truth, names)
    if scoring.output is not None:
        check_output(scoring.output, (scoring.gt, masks), labels=False)
    return evaluate_masks(pred, scoring.gt, layout, names, compute.jobs, progress, compute.max_pixels)


def _evaluate_model(
    scoring: Scoring,
    spec: RunSpec,
    truth: TruthOptions,
    question: opt.Asked,
    paths: Sequence[str],
    progress: Progress,
) -> Evaluation:
    from tipsseg.runs.common.inputs import Ignored, found_images, note_inputs
    from tipsseg.runs.evaluate.run import check_output, evaluate_model
    from tipsseg.runs.evaluate.truth_options import layout_of

    layout = layout_of(truth, [entry.name for entry in spec.vocabulary.classes])
    spec.check()
    if scoring.output is not None:
        check_output(scoring.output, (scoring.gt,), labels=bool(spec.formats))
    sources = stdin.sources(paths, scoring.null)
    ignored = Ignored(scoring.output, scoring.gt)
    found = found_images(sources.get("paths", ()), sources.get("entries"), ignored)
    values.note_vocabulary(progress, question.classes, spec.vocabulary)
    note_inputs(progress, found, ignored)
    return evaluate_model(spec, found, scoring.gt, layout, progress, quiet=scoring.quiet)


def _refuse_together(context: typer.Context, scoring: Scoring) -> None:
    images, pred = bool(context.params["paths"]), scoring.pred is not None
    if images == pred:
        raise UsageError(
            "images and --pred exclude each other" if pred else "nothing to score: no images and no --pred",
            "Name images to label and score, or a folder of masks with --pred.",
        )
    if images and scoring.null and list(map(str, context.params["paths"])) != ["-"]:
        raise UsageError("-0 is for a list on stdin, but the paths are arguments", "Write - as the only path.")
    writing = list(given_options(context, FileOptions))
    if pred:
        labelling = [
            flag for record in (LabelOptions, RegionOptions, ComputeOptions) for flag in given_options(context, record)
        ]
        labelling += [flag for flag in given_options(context, opt.Question) if flag == "--background"]
        labelling += ["--null"] * scoring.null + writing
        for flag in labelling:
            if flag not in ("--jobs", "--max-pixels"):
                raise UsageError(f"{flag} is for labelling, but --pred scores existing masks")
    if scoring.formats is None:
        for flag in writing:
            raise UsageError(
                f"{flag} is for the labels that --format writes", "Add --format coco, and set a folder with -o."
            )
    elif pred or scoring.output is None:
        raise UsageError(
            "--format needs images to label and an output folder", "Name images, and set a folder with -o."
        )


def _refuse_report(scoring: Scoring, paths: Sequence[str] | None) -> None:
    """Raise UsageError if the page would have no labels to show."""
    from tipsseg.run.record import RUN_FILE

    if scoring.output is None:
        raise UsageError("--report needs a folder for the page", "Add -o FOLDER.")
    if paths and not scoring.formats:
        raise UsageError("--report shows the labels that --format writes", "Add --format png.")
    if scoring.pred is not None and not (scoring.output / RUN_FILE).exists():
        raise UsageError(
            f"--report shows the labels of a run, but {scoring.output} has no labels",
            "Name the output folder of tipsseg label with -o.",
        )


def _make_page(output: Path, compute: ComputeOptions, progress: Progress) -> bool:
    """Write the page of tipsseg report; return True if no image failed."""
    from tipsseg.runs.report.make import make_report

    return not make_report(output, None, None, compute.jobs, progress, compute.max_pixels, compute.features)


def _report(evaluation: Evaluation, output: Path | None, as_json: bool, progress: Progress) -> None:
    from tipsseg.evaluation.metrics import find_swapped_classes, row_names, table
    from tipsseg.runs.evaluate.run import write_reports
    from tipsseg.util.files import json_bytes
    from tipsseg.util.printable import pluralize

    if output is not None:
        written = write_reports(evaluation, output)
        progress.note(f"Written: {', '.join(map(str, written))}")
    if swapped := find_swapped_classes(evaluation.confusion):
        names = row_names(evaluation.confusion, evaluation.names)
        first, taken = swapped[0]
        progress.note(
            f"Most pixels of {names[first]!r} in the truth are labelled {names[taken]!r}, and likewise for "
            f"{pluralize(len(swapped) - 1, 'more class', 'more classes')}. Check that the classes are in the order of the truth's "
            "ids; if the ids do not begin at 1, see --zero-based and --layout."
        )
    if evaluation.failed:
        progress.note(f"The scores do not include {pluralize(evaluation.failed, 'failed image')}.")
    if not evaluation.scores.truth_pixels[[number > 0 for number in evaluation.scores.ids]].any():
        progress.note(
            "The truth has no pixels of these classes. If its ids mean something else, see --ignore-index, --zero-based "
            "and --layout."
        )
    progress.end()
    progress.text(json_bytes(evaluation.record()).decode() + "\n" if as_json else table(evaluation.scores))
