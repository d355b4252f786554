"""The `tipsseg merge` command: join shards or runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import command, path_of
from tipsseg.cli.wording import open_progress

EPILOG = """\b
Examples:
  tipsseg merge labels/ -o labels/        (join the shards in a folder)
  tipsseg merge node1/ node2/ -o labels/  (join shards, or runs)
  tipsseg merge ann/ bob/ -o labels/      (join two corrected copies)

\b
-o names a new folder, or one of OUT. Files are copied; those of shards in the
output folder are moved. All runs need the same settings. An image in two runs
is taken from the one in which it was corrected.
Run the same command again to resume an interrupted merge. Paths of files for
the whole run go to stdout, everything else to stderr.
Exit code: 0 success, 1 error, 2 usage error.
"""


@command(EPILOG)
def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="OUT", parser=path_of("a folder"), help="Output folders of tipsseg label.")
    ],
    output: Annotated[Path, opt.output_option("A new folder, or one of OUT.")],
    null: opt.NullResults = False,
    quiet: opt.Quiet = False,
) -> int:
    """Join the shards of a run, or several runs, into one output folder."""
    from tipsseg.commands.merge import merge_folders

    with open_progress(quiet, null=null) as progress:
        return merge_folders(folders, output, progress)
