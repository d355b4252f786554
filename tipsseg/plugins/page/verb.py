"""Write a page to review an output folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.ask import Ask, verb
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.fields import FILES, TRUTH, Opt, take_options
from tipsseg.options.records import ReadingOptions, TruthOptions
from tipsseg.verbs.shared import Labelled, Moved

if TYPE_CHECKING:
    from tipsseg.say import Verbosity

_EPILOG = """\b
Examples:
  tipsseg report labels/
  tipsseg report labels/ -o page/ --images /mnt/photos
  tipsseg report labels/ --features feats/    (groups similar images)
  tipsseg report labels/ --labels coco.json --doubts findings.jsonl
  tipsseg report labels/ --gt masks/          (scores and worst images)

\b
Open report/index.html in a browser; it works offline, without a server. Images
are in the order of tipsseg rank. If labels change, run the same command again:
it redraws only the changed images. The path of the page goes to stdout,
everything else to stderr.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage.
"""

# fmt: off
_Target = Annotated[str | Path | None, Opt(flag="output", short="o", metavar="DIR", group=FILES,
    help="Folder for the page.  [default: report/ in the output folder]")]
_Features = Annotated[str | Path | None, Opt(metavar="DIR",
    help="Feature folder used to detect similar images; see tipsseg encode.")]
_Labels = Annotated[str | Path | None, Opt(metavar="DIR|FILE",
    help="Other labels to compare with on the page, in any format that tipsseg correct reads.")]
_Doubts = Annotated[str | Path | None, Opt(metavar="FILE", help="Findings to list on the page, from tipsseg audit --jsonl.")]
_Truths = Annotated[str | Path | None, Opt(flag="gt", metavar="DIR", group=TRUTH,
    help="Folder of ground-truth masks, or an output folder: show the scores and the worst images.")]
# fmt: on


@verb("report", _EPILOG, prints="paths")
def report_folder(
    ask: Ask,
    output: Labelled,
    target: _Target = None,
    *,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    layout: opt.Layout = None,
    ignore_index: opt.IgnoreIndex = None,
    reduce_zero_label: opt.ReduceZeroLabel = False,
    zero_based: opt.ZeroBased = False,
    features: _Features = None,
    labels: _Labels = None,
    doubts: _Doubts = None,
    truths: _Truths = None,
    images: Moved = None,
    verbose: Verbosity = None,
) -> int:
    """Write an HTML page with the images, labels and class statistics of an output folder.

    Files that show the present labels stay. Memory use grows by a few hundred bytes per image, plus the pixels of `jobs` images.

    Args:
        output: The run's output folder, finished or not.
        verbose: See `check_folder`.

    Returns:
        The number of images that cannot be read or scored.

    Raises:
        UsageError: If `images` is not a folder.
        InputError: If `output` is not an output folder, `features` is not a feature store, or `labels`, `doubts` or `truths` cannot
            be read.
        OutputError: If the folder for the page cannot be written, or contains other files.
    """
    from tipsseg.plugins.page.make import write_page
    from tipsseg.say import progress_for

    truth = take_options(TruthOptions, ask.values)
    reading = take_options(ReadingOptions, ask.values)
    with progress_for(verbose) as progress:
        return write_page(
            Path(output),
            None if target is None else Path(target),
            images=None if images is None else Path(images),
            features=features,
            labels=labels,
            doubts=doubts,
            truths=truths,
            truth=truth,
            reading=reading,
            command=ask.command(anywhere=True),
            progress=progress,
        )
