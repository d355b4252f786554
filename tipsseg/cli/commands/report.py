"""The `tipsseg report` command: write an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import open_progress
from tipsseg.options import PALETTES, Palette, choose
from tipsseg.options.fields import TRUTH, Option
from tipsseg.options.run import ComputeOptions, TruthOptions

EPILOG = """\b
Examples:
  tipsseg report labels/
  tipsseg report labels/ -o page/ --images /mnt/photos
  tipsseg report labels/ --features feats/    (groups similar images)
  tipsseg report labels/ --labels coco.json --doubts doubts.jsonl
  tipsseg report labels/ --gt masks/          (scores and worst images)

\b
Open report/index.html in a browser; it needs no network and no server. Images
are in the order of tipsseg rank. If labels change, run the same command again:
it redraws only the changed images. The path of the page goes to stdout,
everything else to stderr.
Exit code: 0 success; 1 an error, or an image failed; 2 usage error.
"""


@command(EPILOG)
def report(
    output: opt.Folder,
    compute: Annotated[ComputeOptions, Only("jobs", "max_pixels")],
    truth: TruthOptions,
    target: Annotated[
        Path | None, opt.output_option("Folder for the page.  [default: report/ in the output folder]")
    ] = None,
    images: opt.Images = None,
    features: opt.KeptFeatures = None,
    labels: Annotated[
        Path | None,
        Option(
            help="Other labels to switch to on the page, in any format that tipsseg correct reads.", metavar="DIR|FILE"
        ),
    ] = None,
    doubts: Annotated[
        Path | None, Option(help="Findings to list on the page, from tipsseg audit --jsonl.", metavar="FILE")
    ] = None,
    gt: Annotated[
        Path | None,
        Option(help="Folder of truth masks: show the scores and the worst images.", metavar="DIR", group=TRUTH),
    ] = None,
    palette: Annotated[
        Palette, Option(help="own: the classes' own colours; safe: a colour-blind-safe palette.")
    ] = PALETTES[0],
    null: opt.NullResults = False,
    quiet: opt.Quiet = False,
) -> int:
    """Write an HTML page with the images, labels and class statistics of an output folder."""
    from tipsseg.commands.report.make import make_report

    colours = choose(palette, PALETTES, "palette")
    with open_progress(quiet, null=null) as progress:
        return make_report(
            output,
            target,
            images,
            compute.jobs,
            progress,
            compute.max_pixels,
            features,
            colours,
            labels=labels,
            doubts=doubts,
            truths=gt,
            truth=truth,
        )
