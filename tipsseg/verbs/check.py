"""Check an output folder, or a feature folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.address import as_address
from tipsseg.ask import Ask, verb
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.fields import take_options
from tipsseg.options.records import ReadingOptions
from tipsseg.util.text import Problem
from tipsseg.verbs.shared import Labelled, Moved

if TYPE_CHECKING:
    from tipsseg.say import Verbosity

_EPILOG = """\b
Examples:
  tipsseg check labels/
  tipsseg check labels/ --images /mnt/photos
  tipsseg check feats/  (a feature folder)

\b
Prints one line per problem on stdout: the file and what is wrong with it.
Prints the number of missing images on stderr.
Exit code: 0 no problems, 1 problems, 2 wrong usage.
"""


@verb("check", _EPILOG)
def check_folder(
    ask: Ask,
    folder: Labelled,
    *,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    images: Moved = None,
    verbose: Verbosity = None,
) -> Iterator[Problem]:
    """Verify an output folder (files, sizes, ids, areas, annotations, unchanged images) or a feature folder.

        for problem in tipsseg.review.check_folder("labels"):
            print(problem.path, problem.what)

    Args:
        folder: The folder.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Yields:
        The problems, sorted by image name.

    Raises:
        UsageError: `images` is not a folder.
        OtherSchemaError: The record is from another version of tipsseg.
    """
    from tipsseg.folder.check import check_labels, check_store, is_store
    from tipsseg.say import progress_for

    top, reading = Path(folder), take_options(ReadingOptions, ask.values)
    with progress_for(verbose) as progress:
        if is_store(top):
            yield from check_store(top, reading.jobs, progress)
        else:
            yield from check_labels(top, None if images is None else as_address(images), reading, progress)
