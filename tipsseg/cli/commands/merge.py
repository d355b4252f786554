"""The `tipsseg merge` command: join output folders."""

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
  tipsseg merge node1/ node2/ -o labels/  (join the shards of two machines)
  tipsseg merge labels/ more/ -o labels/  (add more/ to labels/)
  tipsseg merge ann/ bob/ -o labels/      (join two corrected copies)

\b
Files are copied. All folders must have the same settings. A corrected mask
replaces a mask of the model; of two corrections, the newer one stays, and the
other goes to labels/replaced.
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
    """Join output folders of the same settings into one."""
    from tipsseg.commands.merge import merge_folders

    prints = prints_paths(results.null)
    with open_progress(printing.quiet, results=prints, null=results.null) as progress:
        return merge_folders(folders, merging.output, verbose=progress)
