"""The results of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.run.derive import Derived
from tipsseg.run.entry import Entry
from tipsseg.run.files import StagedFile
from tipsseg.types import ImageRef, Remark


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image that this run labelled.

    Attributes:
        ref: The image.
        entry: Its record.
        labels: Its label files, under temporary names.
        derived: Its other files.
        remarks: Differences between the file and what the model saw.
        damaged: The fault of its feature file, which was written again; "" if the file was intact.
        reason: Why it was labelled; set once it is recorded.
        files: Its files by format; set once it is recorded.
    """

    ref: ImageRef
    entry: Entry
    labels: tuple[StagedFile, ...]
    derived: Derived
    remarks: tuple[Remark, ...] = ()
    damaged: str = ""
    reason: str = field(default="", kw_only=True)
    files: Mapping[str, Path] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An image whose labels stay, with the reason, and its files by format once it is recorded."""

    ref: ImageRef
    entry: Entry
    reason: str = "done"
    files: Mapping[str, Path] = field(default_factory=dict, kw_only=True)

    @property
    def edited(self) -> bool:
        return self.reason != "done"


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that cannot be labelled, or a folder that cannot be listed.

    Attributes:
        ref: The image.
        error: The reason.
    """

    ref: ImageRef
    error: ImageError

    @property
    def name(self) -> str:
        return self.ref.name


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image whose features are in the feature store.

    Attributes:
        ref: The image.
        file: Its feature file; with several scales, that of the coarsest.
        size: (height, width) of the upright image in pixels.
        windows: Number of windows; 1 for a whole image.
        bytes: Size of the features in bytes.
        made: True if this run computed features at one scale or more.
        damaged: See Labelled.
        finer: The feature files at larger scales, in ascending order.
        remarks: See Labelled; empty if this run did not encode the image.
    """

    ref: ImageRef
    file: Path
    size: tuple[int, int]
    windows: int
    bytes: int
    made: bool
    damaged: str = ""
    finer: tuple[Path, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the feature files, one per scale."""
        return (self.file, *self.finer)


ImageResult = Labelled | Unchanged | Failed

#: An image to be labelled, or its result.
Left = ImageRef | Unchanged | Failed
