"""The `tipsseg rank` command: list the images to review first."""

from __future__ import annotations

from dataclasses import dataclass

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import command
from tipsseg.cli.stdin import read_only
from tipsseg.cli.wording import open_progress
from tipsseg.errors import ImageError, UsageError
from tipsseg.options.fields import option

EPILOG = """\b
Examples:
  tipsseg rank labels/ -n 20
  tipsseg rank labels/ -n 9 | tipsseg convert labels/ --only - -f labelme
  tipsseg rank labels/ --jsonl | jq -r 'select(.confidence < 0.6).path'

\b
Sorts images by their mean confidence, the lowest first. An image with nearly
the same labels at the same places as one before it comes last. Leaves out
images with corrected masks, and failed images.
Exit code: 0 success, 1 an error or an image in --only without labels, 2 wrong
usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    # fmt: off
    limit: int | None = option(None, short="n", metavar="N", help="Print only the first N images.")
    jsonl: bool = option(False, help="Print one JSON object per image, with its confidence, instead of paths.")
    # fmt: on


@command(EPILOG)
def rank(
    output: opt.Folder,
    ranking: Ranking,
    selected: opt.Selected,
    moved: opt.Moved,
    printing: opt.Quiet,
) -> int:
    """List the images of an output folder in review order."""
    from tipsseg.commands.rank import iter_ranked
    from tipsseg.util.json import json_bytes

    if selected.null and ranking.jsonl and str(selected.only) != "-":
        raise UsageError("-0 separates paths, but --jsonl prints no paths", "Remove -0.")
    with open_progress(printing.quiet, null=selected.null) as progress:
        paths = read_only(selected.only, selected.null, "rank", output)
        failed = False
        ranked = iter_ranked(output, only=paths, images=moved.images, limit=ranking.limit, verbose=progress)
        for result in ranked:
            if isinstance(result, ImageError):
                failed = True
                progress.error(result)
            elif ranking.jsonl:
                progress.text(json_bytes(result.record()).decode() + "\n")
            else:
                progress.path(result.path)
    return failed
