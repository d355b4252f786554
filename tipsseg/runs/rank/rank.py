"""`tipsseg rank`: order the images of a run for review."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from tipsseg.errors import ImageError, InputError
from tipsseg.options import check_whole_number
from tipsseg.run.read import open_runs, refuse_other_settings
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.only import find_only, unlabelled_error
from tipsseg.runs.common.progress import Progress, Silence
from tipsseg.runs.rank.order import ReviewOrder, mean_confidence
from tipsseg.types import printable_path
from tipsseg.util.text import pluralize


@dataclass(frozen=True, slots=True)
class Ranked:
    """An image in review order.

    Attributes:
        path: The path of the image.
        image: The name of the image in the run.
        confidence: The mean confidence, 0..1, of labelled pixels; None if no pixel is labelled.
    """

    path: Path
    image: str
    confidence: float | None

    def record(self) -> dict[str, object]:
        return {"path": printable_path(self.path), "image": self.image, "confidence": self.confidence}


def rank(
    output: str | Path,
    *,
    only: Iterable[str | Path] | None = None,
    images: str | Path | None = None,
    limit: int | None = None,
) -> list[Ranked]:
    """Order the images of a run for review, as `tipsseg rank` does.

    The images with the lowest mean confidence come first. Images with nearly the same labels at the same places as an earlier image
    come last. Corrected images are left out. The order is deterministic.

    Args:
        output: The output folder of a run, finished or not.
        only: The paths of the images to rank. None ranks all images.
        images: The folder of the images, if they have moved.
        limit: Return at most this many images.

    Returns:
        The images in review order.

    Raises:
        UsageError: If the limit is below 1, or `images` is not a folder.
        InputError: If the output folder does not exist, or an image in `only` is not labelled.
        OutputError: If the manifest cannot be read.
    """
    ranked = []
    for result in rank_folder(
        Path(output),
        None if only is None else [Path(path) for path in only],
        None if images is None else Path(images),
        limit,
        Silence(),
    ):
        if isinstance(result, ImageError):
            raise InputError(result.message, result.hint)
        ranked.append(result)
    return ranked


def rank_folder(
    output: Path,
    only: Iterable[Path] | None,
    images: Path | None,
    limit: int | None,
    progress: Progress,
) -> Generator[Ranked | ImageError, None, None]:
    """Yield an error for each path in `only` that is not labelled, then the images in review order, see `rank`."""
    if limit is not None:
        check_whole_number("argument `limit`", limit)
    check_image_root(images)
    order, corrected, names = ReviewOrder(), 0, None
    with open_runs(output, ended=False) as runs:
        refuse_other_settings(runs)
        if only is not None:
            names, unknown = find_only((entry for run in runs for entry in run.state.entries()), only, images)
            yield from (unlabelled_error(path, output) for path in unknown)
        for image in (image for run in runs for image in run.images()):
            if names is not None and image.entry.image not in names:
                continue
            if image.corrected:
                corrected += 1
            else:
                order.add(image.entry)
        if corrected:
            progress.note(f"Left out {pluralize(corrected, 'corrected image')}.")
        for name in order.names()[:limit]:
            image = next(run.image(name) for run in runs if name in run)
            yield Ranked(image.path(images), name, mean_confidence(image.entry))
