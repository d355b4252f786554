"""The `tipsseg eval` command: score labels against ground-truth masks."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import stdin, values
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import open_progress
from tipsseg.errors import UsageError
from tipsseg.options.fields import FILES, IMAGES, TRUTH, keywords_of, option
from tipsseg.options.run import ReadingOptions, TruthOptions

if TYPE_CHECKING:
    from tipsseg.commands.evaluate import Evaluation
    from tipsseg.util.progress import Progress

EPILOG = """\b
Examples:
  tipsseg label photos/ -c "panda leg,tree" -f png && tipsseg eval labels/ --gt masks/
  tipsseg eval other/ --gt masks/ --classes "panda leg,tree"
  tipsseg label ADEChallengeData2016/images/validation --vocab ade20k -f png -o ade
  tipsseg eval ade --gt ADEChallengeData2016/annotations/validation --layout ade20k

\b
Ground-truth masks hold ids: 0 background (scored as a class), 1..N the classes in
the order given, 255 ignored. For other ids see --ignore-index, --layout,
--reduce-zero-label and --zero-based. A ground-truth mask is named after its image:
the same relative path, or the same file name. Labels without one are left out and
counted. One confusion matrix counts all pixels, at the size of the ground truth.
With labels in the format npz, a second table has the precision of the labels with
at least a confidence, and the share of the labels kept.
For a page, see tipsseg report --gt.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    # fmt: off
    gt: Path = option(MISSING, metavar="DIR", group=TRUTH,
        help="Folder of the ground-truth masks, or an output folder of tipsseg label.")
    as_json: bool = option(False, flag="json", group=FILES,
        help="Print the scores, the confusion matrix and the counts of each image as one JSON object.")
    null: bool = option(False, short="0", group=IMAGES, rare=True,
        help="Separate the list on stdin with NUL instead of newlines.")
    quiet: bool = option(False, short="q", help=opt.QUIET_HELP)
    # fmt: on


@command(EPILOG)
def evaluate(
    scoring: Scoring,
    truth: TruthOptions,
    question: Annotated[opt.Question, Only("classes", "vocab")],
    reading: ReadingOptions,
    labels: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="The output folder of tipsseg label, any folder of index masks, or - for a list of masks on stdin.",
        ),
    ],
) -> int:
    """Score labels against ground-truth masks: mean IoU, IoU per class, confusion matrix."""
    from tipsseg.commands.evaluate import score_masks
    from tipsseg.images.finding import Listed
    from tipsseg.util.files import local_path

    if scoring.null and labels != "-":
        raise UsageError("-0 is for a list on stdin", "Write - in place of the folder.")
    named = bool(question.classes) or question.vocab is not None
    with open_progress(scoring.quiet, results=False) as progress:
        classes = values.parse_question(question)[0] if named else None
        predicted = Listed(stdin.entries(scoring.null)) if labels == "-" else local_path("the labels", labels)
        keywords = {**keywords_of(truth), **keywords_of(reading)}
        evaluation = score_masks(predicted, scoring.gt, classes, verbose=progress, **keywords)
        _print(evaluation, scoring.as_json, progress)
    return evaluation.failed


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
    if not evaluation.scores.truth_pixels[[number > 0 for number in evaluation.scores.ids]].any():
        progress.note(
            "The ground truth has no pixels of these classes. If its ids mean something else, see --ignore-index, --zero-based "
            "and --layout."
        )
    if evaluation.kept is None:
        progress.note("The precision by confidence requires labels with --format npz.")
    failed, without = evaluation.failed, evaluation.without_truth
    left_out = [pluralize(failed, "failed image")] * bool(failed)
    left_out += [f"{pluralize(without, 'mask')} without ground truth"] * bool(without)
    if left_out:
        progress.note(f"The scores do not include {' and '.join(left_out)}.")
    progress.end()
    text = table(evaluation.scores) + ("" if evaluation.kept is None else f"\n{evaluation.kept.table()}")
    progress.text(json_bytes(evaluation.record()).decode() + "\n" if as_json else text)
