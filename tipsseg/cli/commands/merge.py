"""`tipsseg merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import command, path_of
from tipsseg.cli.wording import as_typed

EPILOG = """\b
Examples:
  tipsseg merge labels/ -o labels/        the shards in it become one run
  tipsseg merge node1/ node2/ -o labels/  shards, or runs, of several folders

\b
The folder of -o is new; or it is the only OUT and has all shards, and one run takes their place.
Pictures are copied into a new folder, and nothing in it is replaced.
What is joined has to be of one model and one vocabulary, and no image in it twice.
A merge that was stopped goes on when the same command is run again.
Paths of the files that stand for all images go to stdout, all else to stderr.
Exit code: 0 all joined, 1 an error, 2 wrong usage.
"""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@command(app, EPILOG)
def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="OUT", parser=path_of("a folder"), help="Output folders of tipsseg label.")
    ],
    output: Annotated[
        Path, opt.output_option("Where all of it is to be: a new folder, or the only OUT, with all shards.")
    ],
    null: opt.NullResults = False,
    quiet: opt.Quiet = False,
) -> None:
    """Join the shards of a run, or several runs, into one output folder."""
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.merge.folders import merge_folders

    with Progress(quiet, null=null, wording=as_typed) as progress:
        merge_folders(folders, output, progress)
