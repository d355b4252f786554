"""The `tipsseg report` command: write an HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import command
from tipsseg.cli.wording import open_progress
from tipsseg.options.fields import FILES, TRUTH, keywords_of, option
from tipsseg.options.run import ReadingOptions, TruthOptions

EPILOG = """\b
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    # fmt: off
    target: Path | None = option(None, flag="output", short="o", metavar="DIR", group=FILES,
        help="Folder for the page.  [default: report/ in the output folder]")
    features: Path | None = option(None, metavar="DIR",
        help="Feature folder used to detect similar images; see tipsseg encode.")
    labels: Path | None = option(None, metavar="DIR|FILE",
        help="Other labels to compare with on the page, in any format that tipsseg correct reads.")
    doubts: Path | None = option(None, metavar="FILE", help="Findings to list on the page, from tipsseg audit --jsonl.")
    gt: Path | None = option(None, metavar="DIR", group=TRUTH,
        help="Folder of ground-truth masks, or an output folder: show the scores and the worst images.")
    null: bool = option(False, short="0", help=opt.NULL_RESULTS_HELP)
    # fmt: on


@command(EPILOG)
def report(
    output: opt.Folder,
    reading: ReadingOptions,
    truth: TruthOptions,
    reporting: Reporting,
    moved: opt.Moved,
    printing: opt.Quiet,
) -> int:
    """Write an HTML page with the images, labels and class statistics of an output folder."""
    from tipsseg.commands.report.make import report_folder

    with open_progress(printing.quiet, null=reporting.null) as progress:
        return report_folder(
            output,
            reporting.target,
            images=moved.images,
            features=reporting.features,
            labels=reporting.labels,
            doubts=reporting.doubts,
            truths=reporting.gt,
            verbose=progress,
            **keywords_of(truth),
            **keywords_of(reading),
        )
