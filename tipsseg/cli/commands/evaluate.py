"""The `tipsseg eval` command: score labels against ground-truth masks."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import stdin, values
from tipsseg.cli.parameters import command, given_options
from tipsseg.cli.wording import open_progress
from tipsseg.errors import UsageError
from tipsseg.options import LabelOptions
from tipsseg.options.fields import FILES, IMAGES, TRUTH, keywords_of, option, options_of
from tipsseg.options.run import ComputeOptions, ReadingOptions, RegionOptions, TruthOptions
from tipsseg.util.files import is_file
from tipsseg.util.text import shell_line

if TYPE_CHECKING:
    from tipsseg.commands.evaluate import Evaluation
    from tipsseg.util.progress import Progress

EPILOG = """\b
Examples:
  tipsseg eval photos/ --gt masks/ --classes "panda leg,tree"
  tipsseg eval --pred labels/ --gt masks/
  tipsseg eval ADEChallengeData2016/images/validation \\
      --gt ADEChallengeData2016/annotations/validation --layout ade20k

\b
Ground-truth masks hold ids: 0 background (scored as a class), 1..N the classes in
the order given, 255 ignored. For other ids see --ignore-index, --layout and,
in --help-all, --reduce-zero-label and --zero-based. A ground-truth mask is named
after its image: the same relative path, or the same file name. One confusion
matrix counts all pixels, at the size of the ground truth. Nothing is written: to keep
the labels, use tipsseg label, then --pred; for a page, tipsseg report --gt.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    # fmt: off
    gt: Path = option(MISSING, metavar="DIR", group=TRUTH,
        help="Folder of the ground-truth masks, or an output folder of tipsseg label.")
    pred: Path | None = option(None, metavar="DIR", group=TRUTH,
        help="Folder of masks to score, or an output folder of tipsseg label.")
    as_json: bool = option(False, flag="json", group=FILES,
        help="Print the scores, the confusion matrix and the counts of each image as one JSON object.")
    null: bool = option(False, short="0", group=IMAGES, rare=True,
        help="Separate the list on stdin with NUL instead of newlines.")
    quiet: bool = option(False, short="q", help=opt.QUIET_HELP)
    # fmt: on


@command(EPILOG)
def evaluate(
    context: typer.Context,
    scoring: Scoring,
    truth: TruthOptions,
    question: opt.Question,
    regions: RegionOptions,
    compute: ComputeOptions,
    options: LabelOptions,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="Images, folders, or - for a list on stdin; not with --pred."),
    ] = None,
) -> int:
    """Score labels against ground-truth masks: mean IoU, IoU per class, confusion matrix."""
    from tipsseg.commands.evaluate import evaluate as evaluate_images
    from tipsseg.commands.evaluate import score_masks
    from tipsseg.learning.truth import preset_of

    values.refuse_split_lists(paths or (), question.classes, None)
    _refuse_together(context, scoring)
    named, gt = bool(question.classes) or question.vocab is not None, scoring.gt
    with open_progress(scoring.quiet, results=False) as progress:
        if scoring.pred is not None:
            classes = values.parse_question(question)[0] if named else None
            reading = {**keywords_of(truth), **keywords_of(compute, options_of(ReadingOptions))}
            evaluation = score_masks(scoring.pred, gt, classes, verbose=progress, **reading)
        else:
            if not named and truth.layout is not None:
                question = replace(question, vocab=preset_of(truth))
            vocabulary, fitted = values.parse_question(question)
            images = stdin.images(paths or (), scoring.null)
            records = (truth, regions, compute, options)
            keywords = {name: value for record in records for name, value in keywords_of(record).items()}
            evaluation = evaluate_images(images, gt, fitted or vocabulary, verbose=progress, **keywords)
        _print(evaluation, scoring.as_json, progress)
    return evaluation.failed


def _refuse_together(context: typer.Context, scoring: Scoring) -> None:
    from tipsseg.run.record import RUN_FILE

    images, pred = bool(context.params["paths"]), scoring.pred is not None
    if images == pred:
        raise UsageError(
            "images and --pred exclude each other" if pred else "nothing to score: no images and no --pred",
            "Pass images to label and score, or a folder of masks with --pred.",
        )
    for path in map(str, context.params["paths"] or ()):
        if is_file(Path(path, RUN_FILE)):
            line = shell_line(["tipsseg", "eval", "--pred", path, "--gt", str(scoring.gt)])
            raise UsageError(f"{path} is an output folder of tipsseg, not images", f"To score its labels: {line}")
    if images and scoring.null and list(map(str, context.params["paths"])) != ["-"]:
        raise UsageError("-0 is for a list on stdin, but the paths are arguments", "Write - as the only path.")
    if pred:
        records = (LabelOptions, RegionOptions, ComputeOptions, opt.Question)
        given = [flag for record in records for flag in given_options(context, record)] + ["--null"] * scoring.null
        for flag in given:
            if flag not in ("--jobs", "--max-pixels", "--classes", "--vocab"):
                raise UsageError(f"{flag} is for labelling, but --pred scores existing masks")


def _print(evaluation: Evaluation, as_json: bool, progress: Progress) -> None:
    from tipsseg.learning.metrics import find_swapped_classes, table
    from tipsseg.util.json import json_bytes
    from tipsseg.util.text import pluralize

    if swapped := find_swapped_classes(evaluation.confusion, evaluation.classes):
        first, taken = (evaluation.scores.names[row] for row in swapped[0])
        progress.note(
            f"Most pixels of {first!r} in the ground truth are labelled {taken!r}, and likewise for "
            f"{pluralize(len(swapped) - 1, 'more class', 'more classes')}. Check that the classes are in the order of the masks' "
            "ids; if the ids do not begin at 1, see --zero-based and --layout."
        )
    if evaluation.failed:
        progress.note(f"The scores do not include {pluralize(evaluation.failed, 'failed image')}.")
    if not evaluation.scores.truth_pixels[[number > 0 for number in evaluation.scores.ids]].any():
        progress.note(
            "The ground truth has no pixels of these classes. If its ids mean something else, see --ignore-index, --zero-based "
            "and --layout."
        )
    progress.end()
    progress.text(json_bytes(evaluation.record()).decode() + "\n" if as_json else table(evaluation.scores))
