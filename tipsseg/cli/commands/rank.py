"""The `tipsseg rank` command: list the images to review first."""

from __future__ import annotations

from typing import Annotated

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import command
from tipsseg.cli.stdin import read_only
from tipsseg.cli.wording import open_progress
from tipsseg.errors import ImageError, UsageError
from tipsseg.options.fields import Option

EPILOG = """\b
Examples:
  tipsseg rank labels/ -n 20
  tipsseg rank labels/ -n 9 | tipsseg convert labels/ --only - -f labelme
  tipsseg rank labels/ --jsonl | jq -r 'select(.confidence < 0.6).path'

\b
Sorts images by their mean confidence, the lowest first. An image with nearly
the same labels at the same places as one before it comes last. Leaves out
images with corrected masks, and failed images.
Exit code: 0 success; 1 an error, or an image in --only is not labelled;
2 usage error.
"""


@command(EPILOG)
def rank(
    output: opt.Folder,
    limit: Annotated[
        int | None, Option(help="Print only the first N images.", flag="limit", short="n", metavar="N")
    ] = None,
    only: opt.Only = None,
    images: opt.Images = None,
    jsonl: Annotated[
        bool, Option(help="Print one JSON object per image, with its confidence, instead of paths.")
    ] = False,
    null: opt.Null = False,
    quiet: opt.Quiet = False,
) -> int:
    """List the images of an output folder in review order."""
    from tipsseg.commands.rank import rank_folder
    from tipsseg.util.json import json_bytes

    if null and jsonl and str(only) != "-":
        raise UsageError("-0 separates paths, but --jsonl prints no paths", "Remove -0.")
    with open_progress(quiet, null=null) as progress:
        paths = read_only(only, null, "rank", output)
        failed = False
        for result in rank_folder(output, paths, images, limit, progress):
            if isinstance(result, ImageError):
                failed = True
                progress.error(result)
            elif jsonl:
                progress.text(json_bytes(result.record()).decode() + "\n")
            else:
                progress.path(result.path)
    return failed
