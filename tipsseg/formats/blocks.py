"""Formats that are written block by block, for pictures and masks that may be larger than memory. Plugins bring them.

A run with such formats alone reads its pictures in parts, and labels them in blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tipsseg.formats.base import Format, Grid, Need, RunFacts
from tipsseg.types import BlockPlace, ignore_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.images.decoding import ImageReader
    from tipsseg.options.records import LabelOptions, PictureOptions
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.types import LabelArray, LabelClass

#: Side of a block in pixels: a multiple of the tiles in which labels are computed.
BLOCK = 2048


class PictureSettings(Protocol):
    """The settings by which a run reads pictures.

    Attributes:
        reader: The reader of whole images, with `max_pixels` and `stretch`.
        options: The options for labelling, of which `scales` has one factor from a picture's pixels to the pixels of its labels.
        picture: The options for pictures that are read in parts.
    """

    @property
    def reader(self) -> ImageReader: ...

    @property
    def options(self) -> LabelOptions: ...

    @property
    def picture(self) -> PictureOptions: ...


class Picture(Protocol):
    """A picture that is read in parts.

    Attributes:
        size: (height, width) in pixels of its labels.
        grid: Where they lie.
        about: What the note about its size says of its pixels, such as " of 0.5 metre"; "" for nothing.
        remarks: Properties of the picture that make its labels doubtful.
    """

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def grid(self) -> Grid: ...

    @property
    def about(self) -> str: ...

    @property
    def remarks(self) -> Sequence[str]: ...

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a part, [h, w, 3] uint8 RGB. Raise ImageError if the file is broken."""

    def valid(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_]:
        """Return where a part has data, [h, w]; [1, 1] of False for a part that the file leaves out. Raise as `read` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBlock:
    """The labels of a part of a picture.

    Attributes:
        place: Its place.
        labels: [h, w], the label ids; [1, 1] for a block without data.
        objects: Its objects of any area. They are found when they are read, which is possible once.
    """

    place: BlockPlace
    labels: LabelArray
    objects: Iterable[LabelledObject] = ()


#: A function that reads all blocks again, from top to bottom, then from left to right.
Blocks = Callable[[], Iterable[LabelBlock]]


class BlockFormat(Format):
    """A format that is written block by block.

    Its `mask` is the name of the `BlockMask` that holds the labels of a run with such formats alone.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"grid"})

    def write(self, path: Path, grid: Any, blocks: Blocks, run: RunFacts) -> None:
        """Write the file of an image with a grid of this plugin. Raise OSError if that fails."""
        raise NotImplementedError(f"the format {self.name} is not written block by block")

    def read_grid(self, path: Path, size: tuple[int, int], classes: int, reader: ImageReader) -> Grid:
        """Return the grid of an image that was labelled whole, at `size` (height, width), with a number of classes."""
        raise NotImplementedError(f"the format {self.name} has no grid")


class BlockMask(BlockFormat):
    """A format of masks that are written and read block by block.

    Attributes:
        claim: What is said of an image that is labelled in this format unless the user names formats: "is georeferenced".
        setting: The key of the options for its pictures in run.json.
    """

    claim: ClassVar[str]
    setting: ClassVar[str]

    def open_picture(self, path: Path, how: PictureSettings, classes: int) -> AbstractContextManager[Picture]:
        """Open a local image, to be labelled with a number of classes. Raise ImageError."""
        raise NotImplementedError

    def write_mask(
        self, path: Path, grid: Any, blocks: Blocks, run: RunFacts, facts: str, scores: NDArray[np.float64]
    ) -> None:
        """Write a mask with what it says of itself, JSON, and the scores of the objects in its blocks. Raise OSError."""
        raise NotImplementedError

    def copy_mask(self, path: Path, target: Path, facts: str, *, scored: bool = True) -> None:
        """Copy a mask that says other things of itself, with its scores or without them. Raise OSError."""
        raise NotImplementedError

    def read_facts(self, path: Path) -> str:
        """Return what a mask says of itself, JSON; "" for nothing. Raise ImageError."""
        raise NotImplementedError

    def read_mask_grid(self, path: Path, classes: int) -> Grid:
        """Return the grid of a mask with a number of classes. Raise ImageError."""
        raise NotImplementedError

    def read_blocks(self, path: Path, run: RunFacts) -> Iterator[LabelBlock]:
        """Yield the blocks of a mask, to be read in order. Raise ImageError."""
        raise NotImplementedError

    def check_mask(self, path: Path, classes: int, size: tuple[int, int], facts: Mapping[str, object]) -> None:
        """Raise ImageError if a mask, which another program may have written, lacks this size or the facts of its grid."""
        raise NotImplementedError


def block_places(size: tuple[int, int]) -> Iterator[BlockPlace]:
    """Yield the places of the blocks in a picture of `size` (height, width)."""
    corners = product(range(0, size[0], BLOCK), range(0, size[1], BLOCK))
    for number, (top, left) in enumerate(corners):
        yield BlockPlace(number, top, left, min(BLOCK, size[0] - top), min(BLOCK, size[1] - left))


def block_objects(
    labels: LabelArray, classes: Sequence[LabelClass], scores: Iterator[float]
) -> Iterator[LabelledObject]:
    """Yield the connected objects in a block, of any area: other blocks may continue them. Without a score, it is NaN."""
    from tipsseg.regions.objects import LabelledObject, object_regions

    for region in object_regions(labels, classes):
        yield LabelledObject(region, float(next(scores, math.nan)))


def digest_blocks(blocks: Iterable[LabelBlock], size: tuple[int, int]) -> str:
    """Return a digest of the size (height, width) and the ids of labels, from all their blocks."""
    digest = sha256(b"%d %d\n" % size)
    for block in blocks:
        place, labels = block.place, block.labels
        if labels.shape != (place.height, place.width):  # a block without data
            labels = labels.repeat(place.height, 0).repeat(place.width, 1)
        digest.update(labels.astype("u1" if labels.dtype.itemsize == 1 else "<u2").tobytes())
    return digest.hexdigest()[:32]


def count_blocks(blocks: Iterable[LabelBlock], classes: int) -> NDArray[np.int64]:
    """Count the pixels of each id in the blocks of a mask: 256 counts, or 65536 for uint16."""
    import numpy as np

    from tipsseg.regions.components import count_labels

    counts = np.zeros(ignore_id(classes) + 1, np.int64)
    for block in blocks:
        counts += count_labels(block.labels)
    return counts
