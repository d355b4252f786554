"""The results of functions that label or encode a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tipsseg.address import as_address
from tipsseg.commands.progress import Progress, Silence
from tipsseg.errors import ImageError, UsageError
from tipsseg.images.remote import check_address
from tipsseg.types import ImageRef
from tipsseg.util.text import quote

Paths = str | Path | Iterable[str | Path]


#: The outcome of an image. "unchanged" means that an earlier call completed it.
Status = Literal["labelled", "encoded", "unchanged", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderImage:
    """One image of a folder run.

    Attributes:
        path: The image.
        status: "labelled" or "encoded" by this call, "unchanged" since an earlier one, or "failed".
        files: The image's files: label files by format ("png"), feature files by scale ("1").
        classes: The classes in the image, each with its share of the pixels, 0..1.
        error: The reason for a failure, else None.
    """

    path: Path
    status: Status
    files: Mapping[str, Path] = field(default_factory=dict)
    classes: Mapping[str, float] = field(default_factory=dict)
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The part of a FolderImage that a summary keeps in memory.

    Attributes:
        ref: The image.
        status: See FolderImage.
        files: The feature files of an encoded image, in the order of the scales.
        error: The reason for a failure.
    """

    ref: ImageRef
    status: Status
    files: tuple[Path, ...] = ()
    error: ImageError | None = None


class FolderSummary:
    """The result of `label_folder` or `encode_folder`.

        run = tipsseg.label_folder("photos/", ["car", "road"])
        print(run)                                      # FolderSummary('labels': 11 labelled, 1 failed)
        for image in run:                               # reads one image after the other from the folder
            print(image.path, image.classes, image.error)

    Attributes:
        output: The folder.
    """

    def __init__(self, output: Path, images: list[Done], read: Callable[[list[Done]], Iterator[FolderImage]]) -> None:
        self.output = output
        self._images = images
        self._read = read

    def count(self, status: Status) -> int:
        """Return the number of images with this status."""
        return sum(image.status == status for image in self._images)

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[FolderImage]:
        return self._read(self._images)

    def __repr__(self) -> str:
        statuses: tuple[Status, ...] = ("labelled", "encoded", "unchanged", "failed")
        counts = [f"{number} {status}" for status in statuses if (number := self.count(status))]
        return f"FolderSummary({str(self.output)!r}: {', '.join(counts) or 'no images'})"


def as_paths(images: Paths) -> tuple[Path, ...]:
    """Return one path or several as a tuple. Raise UsageError for other values."""
    if not isinstance(images, Iterable | Path):
        raise UsageError(f"images must be paths, not {quote(images)}", 'For example: "photos/", or a list of files.')
    paths = (images,) if isinstance(images, str | Path) else tuple(images)
    for path in paths:
        if not isinstance(path, str | Path):
            raise UsageError(f"images must be paths, not {quote(path)}", "Use Model.label for an image in memory.")
    addresses = tuple(map(as_address, paths))
    for address in addresses:
        check_address(address)
    return addresses


def progress_for(verbose: bool | None) -> Progress:
    """Return a Progress that prints on stderr if `verbose`; nothing if it is False; and if it is None, only a bar."""
    return Progress(quiet=False, results=False) if verbose else Silence(bar=verbose is None)
