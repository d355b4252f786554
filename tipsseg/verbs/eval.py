"""Score labels against ground-truth masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.ask import Ask, verb
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.fields import TRUTH, Opt, take_options
from tipsseg.options.records import ReadingOptions, TruthOptions
from tipsseg.verbs.shared import Named, Vocab

if TYPE_CHECKING:
    from tipsseg.images.finding import Listed
    from tipsseg.learning.evaluate import Evaluation
    from tipsseg.say import Verbosity

_EPILOG = """\b
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

# fmt: off
_Predicted = Annotated["str | Path | Listed", Opt(argument=True, metavar="OUT", typed=str, stdin="path", check=lambda place: place,
    help="The output folder of tipsseg label, any folder of index masks, or - for a list of masks on stdin.")]
_Truths = Annotated[str | Path, Opt(flag="gt", metavar="DIR", group=TRUTH,
    help="Folder of the ground-truth masks, or an output folder of tipsseg label.")]
# fmt: on


@verb("eval", _EPILOG, json="Print the scores, the confusion matrix and the counts of each image as one JSON object.")
def score_masks(
    ask: Ask,
    predicted: _Predicted,
    truths: _Truths,
    classes: Named = None,
    *,
    vocab: Vocab = None,
    layout: opt.Layout = None,
    ignore_index: opt.IgnoreIndex = None,
    reduce_zero_label: opt.ReduceZeroLabel = False,
    zero_based: opt.ZeroBased = False,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    verbose: Verbosity = None,
) -> Evaluation:
    """Score labels against ground-truth masks: mean IoU, IoU per class, confusion matrix.

    Masks without ground truth, and pairs with a file that cannot be read, are counted and left out.

        tipsseg.label_folder("photos/", ["car", "road"], output="labels")
        print(tipsseg.review.score_masks("labels", "masks/").scores.mean_iou)

    Args:
        predicted: The output folder of a run, its folder of masks, any folder of index masks, or a list of these.
        truths: The folder with the ground-truth masks, laid out like the labels.
        classes: The classes of the masks. None: the classes of `layout`, of the run, or of classes.json beside the masks.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The scores: `scores.mean_iou` (0..1), `scores.iou` per class, `confusion`, the pixel counts of `images`, the precision by
        confidence in `kept`, the numbers of images `scored`, `failed` and `without_truth`, and `record()`, all of them as JSON
        values.

    Raises:
        UsageError: Both folders are the same, no names are known, or they differ from the run's or the layout's.
        InputError: The folder has no masks, or no mask has ground truth.
        LabelIdError: A mask has unknown ids.
    """
    from tipsseg.images.finding import Listed
    from tipsseg.learning.evaluate import note_doubts, score_labels
    from tipsseg.say import progress_for
    from tipsseg.util.files import local_path
    from tipsseg.vocabulary.asked import asked_vocabulary

    given = None if classes is None and vocab is None else asked_vocabulary(classes, vocab)[0].classes
    truth = take_options(TruthOptions, ask.values)
    place = predicted if isinstance(predicted, Listed) else local_path("the labels", predicted)
    reading = take_options(ReadingOptions, ask.values)
    with progress_for(verbose) as progress:
        evaluation = score_labels(place, Path(truths), given, truth, reading, progress)
        note_doubts(evaluation, progress)
        return evaluation
