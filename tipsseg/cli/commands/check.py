"""The `tipsseg check` command: verify an output folder or a feature folder."""

from __future__ import annotations

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import command
from tipsseg.cli.wording import as_typed, open_progress
from tipsseg.options.fields import keywords_of
from tipsseg.options.run import ReadingOptions

EPILOG = """\b
Examples:
  tipsseg check labels/
  tipsseg check labels/ --images /mnt/photos
  tipsseg check feats/  (a feature folder)

\b
Prints one line per problem on stdout: the file and what is wrong with it.
Prints the number of missing images on stderr.
Exit code: 0 no problems, 1 problems, 2 wrong usage.
"""


@command(EPILOG)
def check(
    output: opt.Folder,
    reading: ReadingOptions,
    moved: opt.Moved,
    printing: opt.Quiet,
) -> int:
    """Verify an output folder (files, sizes, ids, areas, annotations, unchanged images) or a feature folder."""
    from tipsseg.commands.check import check_folder

    wrong = False
    with open_progress(printing.quiet, results=False) as progress:
        for problem in check_folder(output, images=moved.images, verbose=progress, **keywords_of(reading)):
            wrong = True
            progress.text(f"{as_typed(str(problem))}\n")
    return wrong
