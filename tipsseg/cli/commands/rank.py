"""`tipsseg rank`."""

from __future__ import annotations

from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.arguments.only import read_only
from tipsseg.cli.parameters import command
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.options.fields import Option

EPILOG = """\b
Examples:
  tipsseg rank labels/ -n 20
  tipsseg rank labels/ -n 20 | tipsseg convert labels/ --only - --format labelme
  tipsseg rank labels/ --features feats/ --jsonl | jq -r .reasons[0].class

\b
First come the images whose labels are expected to have the most wrong pixels, by the confidences
and the borders of objects. One that is like an image before it comes later, by --features, or by
the labels without it; one with a class that no image before it shows comes earlier. Images whose
mask was corrected, and images that failed, are left out.
Exit code: 0 done, 1 some of --only are not labelled or an error, 2 wrong usage.
"""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@command(app, EPILOG)
def rank(
    output: opt.Folder,
    limit: Annotated[int | None, Option(help="Only the first N images.", flag="limit", short="n", metavar="N")] = None,
    features: opt.KeptFeatures = None,
    only: opt.Only = None,
    images: opt.Images = None,
    jsonl: Annotated[
        bool, Option(help="Print one JSON object per image, with its score and the reasons, in place of paths.")
    ] = False,
    null: opt.Null = False,
    quiet: opt.Quiet = False,
) -> None:
    """Print the images of an output folder in the order in which to review them."""
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.convert.only import not_labelled
    from tipsseg.runs.rank.rank import rank_folder
    from tipsseg.util.files import json_bytes

    if null and jsonl and str(only) != "-":
        raise UsageError("-0 is for lists of paths, and --jsonl prints records", "Give one of them.")
    with Progress(quiet, null=null, wording=as_typed) as progress:
        paths = read_only(only, null, "rank", output)
        found, unknown = rank_folder(output, features, paths, images, limit, progress)
        for path in unknown:
            progress.error(not_labelled(path, output))
        for each in found:
            if jsonl:
                progress.text(json_bytes(each.record()).decode() + "\n")
            else:
                progress.path(each.path)
    if unknown:
        raise typer.Exit(1)
