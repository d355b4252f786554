"""List the images of an output folder in review order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.address import as_address
from tipsseg.ask import Ask, verb
from tipsseg.errors import ImageError, InputError
from tipsseg.options.fields import Opt
from tipsseg.verbs.shared import Chosen, Labelled, Moved

if TYPE_CHECKING:
    from tipsseg.folder.rank import Ranked
    from tipsseg.say import Verbosity

_EPILOG = """\b
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


@verb("rank", _EPILOG, prints="paths", jsonl="Print one JSON object per image, with its confidence, instead of paths.")
def iter_ranked(
    ask: Ask,
    output: Labelled,
    *,
    limit: Annotated[int | None, Opt(short="n", metavar="N", min=1, help="Print only the first N images.")] = None,
    only: Chosen = None,
    images: Moved = None,
    verbose: Verbosity = None,
) -> Iterator[Ranked | ImageError]:
    """List the images of an output folder in review order.

    The images with the lowest mean confidence come first. Images with nearly the same labels at the same places as an earlier image
    come last. Corrected images are left out. The order is deterministic.

    Args:
        output: The output folder of a run, finished or not.
        only: The paths of the images to rank. None ranks all images.
        images: The folder of the images, if they have moved.
        verbose: See `check_folder`.

    Yields:
        An error for each path in `only` that is not labelled, then the images.

    Raises:
        UsageError: If the limit is below 1, or `images` is not a folder.
        InputError: If the output folder does not exist.
        OutputError: If the manifest cannot be read.
    """
    from tipsseg.folder.rank import ranked_images
    from tipsseg.say import progress_for

    root = None if images is None else as_address(images)
    return ranked_images(Path(output), only, root, limit, progress_for(verbose))


def rank(
    output: Labelled,
    *,
    only: Iterable[str | Path] | None = None,
    images: str | Path | None = None,
    limit: int | None = None,
) -> list[Ranked]:
    """Return what `iter_ranked` yields. Raise InputError for an image in `only` that is not labelled."""
    ranked = []
    for result in iter_ranked(output, only=only, images=images, limit=limit, verbose=False):
        if isinstance(result, ImageError):
            raise InputError(result.message, result.hint)
        ranked.append(result)
    return ranked
