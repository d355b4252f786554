"""Join output folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.ask import Ask, verb
from tipsseg.options.fields import FILES, Opt

if TYPE_CHECKING:
    from tipsseg.say import Verbosity

_EPILOG = """\b
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


_Folders = Annotated[
    Sequence[str | Path],
    Opt(argument=True, typed=list[Path], metavar="OUT", help="Output folders of tipsseg label."),
]
_Output = Annotated[str | Path, Opt(short="o", metavar="DIR", group=FILES, help="A new folder, or one of OUT.")]


@verb("merge", _EPILOG, prints="files")
def merge_folders(ask: Ask, folders: _Folders, output: _Output, *, verbose: Verbosity = None) -> int:
    """Join output folders of the same settings into one.

        tipsseg.review.merge_folders(["labels-a", "labels-b"], "labels")

    An image that several folders have keeps its correction. Of two corrections the newer one stays, and the older one goes to the
    trash of `output`.

    Args:
        folders: Output folders of `tipsseg label`.
        output: The folder of the joined run: a new one, or one of `folders`.
        verbose: See `check_folder`.

    Returns:
        The number of images that could not be joined.

    Raises:
        UsageError: A folder is given twice.
        InputError: The runs cannot be joined.
        OutputError: The target cannot be written.
    """
    from tipsseg.folder.merge import join_folders
    from tipsseg.images.finding import as_paths
    from tipsseg.say import progress_for

    with progress_for(verbose) as progress:
        return join_folders(as_paths(folders), Path(output), progress)
