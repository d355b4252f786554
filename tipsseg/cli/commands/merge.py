"""The `tipsseg merge` command: join shards or runs."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import command, path_of
from tipsseg.cli.wording import open_progress, prints_paths
from tipsseg.options.fields import FILES, option

EPILOG = """\b
Examples:
  tipsseg merge labels/ -o labels/        (join the shards in a folder)
  tipsseg merge node1/ node2/ -o labels/  (join shards, or runs)
  tipsseg merge ann/ bob/ -o labels/      (join two corrected copies)

\b
Files are copied; files of shards in the output folder are moved. All runs must
have the same settings. An image in two runs is taken from the run in which it was
corrected.
Run the same command again to resume an interrupted merge. Paths of files for
the whole run go to stdout unless it is a terminal, everything else to stderr.
Exit code: 0 success, 1 error, 2 wrong usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merging:
    # fmt: off
    output: Path = option(MISSING, short="o", metavar="DIR", group=FILES, help="A new folder, or one of OUT.")
    # fmt: on


@command(EPILOG)
def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="OUT", parser=path_of("a folder"), help="Output folders of tipsseg label.")
    ],
    merging: Merging,
    results: opt.Results,
    printing: opt.Quiet,
) -> int:
    """Join the shards of a run, or several runs, into one output folder."""
    from tipsseg.commands.merge import merge_folders

    prints = prints_paths(results.null)
    with open_progress(printing.quiet, results=prints, null=results.null) as progress:
        return merge_folders(folders, merging.output, verbose=progress)
