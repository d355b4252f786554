"""Objects of images, read back from the files of formats that list them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tipsseg.formats import Rows, RowsFile
from tipsseg.regions.rle import Runs, area, box, decode_runs
from tipsseg.types import name_order
from tipsseg.util.files import reason_of
from tipsseg.util.json_values import parse, short, take, take_share


@dataclass(frozen=True, slots=True, eq=False)
class StoredObject:
    """An object as a file lists it.

    area   pixels
    box    [x, y, w, h]
    score  0..1
    runs   its pixels, where the file has them
    """

    class_id: int
    area: int
    box: tuple[int, ...]
    score: float
    runs: Runs | None = None


class RowStream:
    """The records in the file of a format, image after image.

    file   that
    fault  why it cannot be read, or not further; "" where it can
    """

    def __init__(self, file: RowsFile, images: Sequence[str]) -> None:
        """`images` are those that it was written with."""
        self.file = file
        self.fault = ""
        self._records = iter(file.read(images))
        self._next: tuple[str, Rows] | None = ("", ())  # before all images

    def of(self, image: str) -> Rows:
        """The records of an image; none where the file does not have it. To be asked for images in the order of their names."""
        while self._next is not None and name_order(self._next[0]) < name_order(image):
            self._advance()
        return self._next[1] if self._next is not None and self._next[0] == image else ()

    def _advance(self) -> None:
        try:
            self._next = next(self._records, None)
        except (OSError, ValueError) as error:
            self._next = None
            self.fault = reason_of(error)


def stored_objects(name: str, records: Rows, size: tuple[int, int]) -> list[StoredObject]:
    """The objects in the records of an image of `size` (height, width) in one of LISTS, in their order.

    Raises ValueError for what is no such record.
    """
    return LISTS[name](records, size)


def _coded(records: Rows, size: tuple[int, int]) -> list[StoredObject]:
    return [_with_code(parse(record), size) for record in records[1:]]


def _results(records: Rows, size: tuple[int, int]) -> list[StoredObject]:
    return [_with_code(parse(record), size) for record in records]


def _polygons(records: Rows, size: tuple[int, int]) -> list[StoredObject]:
    return [_with_box(parse(record)) for record in records[1:]]


def _segments(records: Rows, size: tuple[int, int]) -> list[StoredObject]:
    return [_with_box(segment) for each in records[1:] for segment in take(parse(each), "segments_info", list)]


#: The formats that list objects with their scores; those that have all pixels first.
LISTS: Mapping[str, Callable[[Rows, tuple[int, int]], list[StoredObject]]] = {
    "coco": _coded,
    "coco-results": _results,
    "coco-polygon": _polygons,
    "panoptic": _segments,
}


def _with_code(record: object, size: tuple[int, int]) -> StoredObject:
    code = take(record, "segmentation", dict)
    if take(code, "size", list) != list(size):
        raise ValueError(f"`size` is {short(code['size'])}, that of the image {list(size)}")
    runs = decode_runs(take(code, "counts", str), size)
    return StoredObject(
        take(record, "category_id", int), area(runs), tuple(box(runs, size[0])), take_share(record, "score"), runs
    )


def _with_box(record: object) -> StoredObject:
    corner_and_size = take(record, "bbox", list)
    if len(corner_and_size) != 4 or not all(isinstance(each, int) for each in corner_and_size):
        raise ValueError(f"`bbox` is {short(corner_and_size)}")
    return StoredObject(
        take(record, "category_id", int), take(record, "area", int), tuple(corner_and_size), take_share(record, "score")
    )
