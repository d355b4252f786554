"""Rank the images of a run in the order in which a person reviews them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tipsseg.errors import ImageError, InputError
from tipsseg.options import check_whole_number
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.progress import Progress, Silence
from tipsseg.runs.convert.only import find_only
from tipsseg.runs.rank.candidates import Candidates, without_features
from tipsseg.runs.rank.expected import Reason, mean_confidence, reasons
from tipsseg.store.open_run import open_runs, refuse_other_settings
from tipsseg.store.stored_image import RunImage
from tipsseg.types import printable_path
from tipsseg.util.printable import counted


@dataclass(frozen=True, slots=True)
class Ranked:
    """An image in the order of review.

    Attributes:
        path: Where the image is.
        image: Its name in the run.
        score: Its expected error, 0..1: the share of its pixels whose label is expected to be wrong.
        confidence: The mean confidence, 0..1, of the pixels that have a label; None where no pixel has one.
        reasons: What the score is made of, the largest part first.
    """

    path: Path
    image: str
    score: float
    confidence: float | None
    reasons: tuple[Reason, ...]

    def record(self) -> dict[str, object]:
        return {
            "path": printable_path(self.path),
            "image": self.image,
            "score": self.score,
            "confidence": self.confidence,
            "reasons": [reason.record() for reason in self.reasons],
        }


def rank(
    output: str | Path,
    *,
    features: str | Path | None = None,
    only: Iterable[str | Path] | None = None,
    images: str | Path | None = None,
    limit: int | None = None,
) -> list[Ranked]:
    """Put the images of a run into the order in which a person reviews them, as `tipsseg rank` does.

    Images come first whose labels are expected to have the most wrong pixels. One that is like an image before it comes later, and
    one with a class that no image before it shows comes earlier. Images whose mask a person corrected are left out. The same run
    gives the same order.

    Args:
        output: The output folder, of a run that ended or not.
        features: The folder of a feature store: how alike images are is by their class tokens then, else by their labels.
        only: Paths of images; the others are left out. None: all.
        images: The folder that the images' names begin at, in place of where the images were.
        limit: Only the first images, so many of them.

    Returns:
        The images, those first that are to be reviewed first.

    Raises:
        UsageError: For a limit below 1, or where `images` is no folder.
        InputError: For what is no output folder, or no feature store; where one of `only` is not labelled.
        OutputError: For a manifest that cannot be read.
    """
    found, unknown = rank_folder(
        Path(output),
        None if features is None else Path(features),
        None if only is None else [Path(path) for path in only],
        None if images is None else Path(images),
        limit,
        Silence(),
    )
    if unknown:
        raise InputError(f"{unknown[0]}: not labelled in {output}", "Leave it out of argument `only`.")
    return found


def rank_folder(
    output: Path,
    features: Path | None,
    only: Iterable[Path] | None,
    images: Path | None,
    limit: int | None,
    progress: Progress,
) -> tuple[list[Ranked], list[Path]]:
    """See `rank`; also return the paths of `only` that are not labelled. `progress` is told what is left out."""
    if limit is not None:
        check_whole_number("argument `limit`", limit)
    check_image_root(images)
    candidates, found, corrected = Candidates(), dict[str, Ranked](), 0
    names, unknown = None, list[Path]()
    with open_runs(output, ended=False) as runs:
        refuse_other_settings(runs)
        if only is not None:
            names, unknown = find_only((entry for run in runs for entry in run.entries()), only, images)
        for image in (image for run in runs for image in run.images()):
            entry = image.entry
            if names is not None and entry.image not in names:
                continue
            if _is_corrected(image):
                corrected += 1
                continue
            error = candidates.add(entry)
            found[entry.image] = Ranked(image.path(images), entry.image, error, mean_confidence(entry), reasons(entry))
    vectors, missing = candidates.vectors(features)
    if corrected:
        progress.note(f"{counted(corrected, 'corrected image')} left out.")
    if missing:
        progress.note(without_features(missing, features))
    return [found[image] for image in candidates.order(vectors)[:limit]], unknown


def _is_corrected(image: RunImage) -> bool:
    """Return whether the mask of an image is not as the run wrote it, and so a person's."""
    try:
        return image.correction() is not None
    except ImageError:  # two masks, each changed in its own way
        return True
