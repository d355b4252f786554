"""The results of functions that label or encode a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Literal, ParamSpec, get_args

from tipsseg.errors import ImageError

_P = ParamSpec("_P")

#: The outcome of an image. "unchanged" means that an earlier call completed it, "planned" that a dry run would label or encode it.
Status = Literal["labelled", "encoded", "planned", "unchanged", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderImage:
    """One image of a folder run.

    Attributes:
        path: The image.
        name: The name of the image in the folder.
        status: "labelled" or "encoded" by this call, "unchanged" since an earlier one, "failed", or in a dry run "planned".
        files: The image's files: label files by format ("png"), feature files by scale ("1").
        classes: The classes in the image, each with its share of the pixels, 0..1.
        error: The reason for a failure, else None.
    """

    path: Path
    name: str
    status: Status
    files: Mapping[str, Path] = field(default_factory=dict)
    classes: Mapping[str, float] = field(default_factory=dict)
    error: ImageError | None = None


#: Yields images of a folder whole, as they are there now.
ReadAgain = Callable[[Path, list[FolderImage]], Iterator[FolderImage]]


class FolderSummary:
    """The result of `label_folder` or `encode_folder`.

        run = tipsseg.label_folder("photos/", ["car", "road"])
        print(run)                                      # FolderSummary('labels': 11 labelled, 1 failed)
        for image in run:                               # reads one image after the other from the folder
            print(image.path, image.classes, image.error)

    Attributes:
        output: The folder.
    """

    def __init__(self, output: Path, images: list[FolderImage], read: ReadAgain | None) -> None:
        """Keep the images; `read` yields whole images if their files and classes are left out."""
        self.output = output
        self._images = images
        self._read = read

    def count(self, status: Status) -> int:
        """Return the number of images with this status."""
        return sum(image.status == status for image in self._images)

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[FolderImage]:
        return iter(self._images) if self._read is None else self._read(self.output, self._images)

    def __repr__(self) -> str:
        statuses: tuple[Status, ...] = get_args(Status)
        counts = [f"{number} {status}" for status in statuses if (number := self.count(status))]
        return f"FolderSummary({str(self.output)!r}: {', '.join(counts) or 'no images'})"


def summed(
    function: Callable[_P, Iterator[FolderImage]], doc: str, read: ReadAgain | None = None
) -> Callable[_P, FolderSummary]:
    """Return a function that takes what `function` takes, and returns the summary of what it yields.

    Args:
        function: A verb that yields images.
        doc: The docstring, to which the options of the verb are added.
        read: Reads the images of a folder again, so that a summary holds little of each. None: the summary holds them whole.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: _P.args, **keywords: _P.kwargs) -> FolderSummary:
        whole = function(*args, **keywords)
        images = list(whole) if read is None else [replace(image, files={}, classes={}) for image in whole]
        bound = signature.bind(*args, **keywords)
        bound.apply_defaults()
        return FolderSummary(Path(bound.arguments["output"]), images, read)

    call.__signature__ = signature.replace(return_annotation="FolderSummary")  # type: ignore[attr-defined]  # for help()
    call.__name__ = call.__qualname__ = function.__name__.removeprefix("iter_")
    call.__doc__ = f"{doc.rstrip()}\n\n    Keyword Args:{(function.__doc__ or '').partition('    Keyword Args:')[2]}"
    return call
