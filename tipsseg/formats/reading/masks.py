"""Formats that say the label of every pixel: index masks, CVAT's colour masks, folders as of the format hf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError
from tipsseg.formats.png import read_picture, stored_ids
from tipsseg.formats.reading.found import Found, Objects, Size, Whole
from tipsseg.formats.reading.ids import ClassNames, MaskIds
from tipsseg.formats.reading.source import LIST_MAX, Source
from tipsseg.images.decoding import as_image_error
from tipsseg.types import BACKGROUND, label_dtype
from tipsseg.util.json_values import parse

_LABEL_MAP = "labelmap.txt"
_METADATA = "metadata.jsonl"


# ---- index masks ----


def index_masks(source: Source, names: ClassNames) -> Iterator[Found]:
    """Yield the images of PNGs with label ids, in grey or with a palette, which are named as the images."""
    ids = MaskIds(source, names)
    for name in source.names:
        if name.lower().endswith(".png"):
            yield Found(name[: -len(".png")], source.shown(name), partial(_index_mask, source, name, names.known, ids))


def named_masks(places: Mapping[str, str], source: Source, names: ClassNames) -> Iterator[Found]:
    """Yield the images of a run; `places` has the mask of each."""
    ids = MaskIds(source, names)
    for image, name in places.items():
        yield Found(image, source.shown(name), partial(_index_mask, source, name, names.known, ids))


def hugging_face(source: Source, names: ClassNames) -> Iterator[Found]:
    """Yield the images that metadata.jsonl names, each with its mask. Raises ImageError."""
    ids = MaskIds(source, names)
    for listing in [name for name in source.names if PurePosixPath(name).name == _METADATA]:
        folder = PurePosixPath(listing).parent
        where = source.shown(listing)
        for number, line in enumerate(source.read(listing, LIST_MAX).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = parse(line)
                image, mask = (_text(record, key) for key in ("file_name", "mask_file_name"))
            except ValueError as error:
                raise ImageError(where, f"line {number}: {error}") from error
            name = str(folder / mask)
            if not source.has(name):
                raise ImageError(where, f"line {number}: {mask!r} is not there")
            read = partial(_index_mask, source, name, names.known, ids)
            yield Found(image.removeprefix("images/"), source.shown(name), read)


def _text(record: object, key: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value:
        raise ValueError(f"no `{key}`")
    return value


def _index_mask(source: Source, name: str, classes: int, ids: MaskIds, size: Size) -> Whole | Objects:
    picture = _picture(source, name, size)
    with as_image_error(source.shown(name)):
        stored = stored_ids(picture)
    labels = ids.as_in_run(name, source.shown(name), stored)
    return Whole(labels.astype(np.uint8) if label_dtype(classes) is np.uint8 else labels, ignores=True)


def _picture(source: Source, name: str, size: Size) -> Image.Image:
    with source.file(name) as path:
        try:
            return read_picture(path, size)
        except ImageError as error:
            raise ImageError(source.shown(name), error.reason, error.hint) from error


# ---- CVAT, PASCAL VOC ----


def colour_masks(source: Source, names: ClassNames) -> Iterator[Found]:
    """SegmentationClass/<image>.png beside a labelmap.txt that says what the colours mean. Raises ImageError.

    CVAT writes no mask for an image without objects, and lists it in ImageSets/Segmentation.
    """
    for listing in [name for name in source.names if PurePosixPath(name).name == _LABEL_MAP]:
        top = PurePosixPath(listing).parent
        folder = f"{top / 'SegmentationClass'}/"
        colours = _colours(source, listing)
        masks = [name for name in source.names if name.startswith(folder) and name.lower().endswith(".png")]
        for name in masks:
            read = partial(_colour_mask, source, name, colours, names.id_of)
            yield Found(name[len(folder) : -len(".png")], source.shown(name), read)
        for name in source.names:
            if PurePosixPath(name).parent == top / "ImageSets" / "Segmentation" and name.lower().endswith(".txt"):
                for _, image in source.lines(name):
                    # Without a single mask it may be an export of boxes.
                    yield Found(image.strip('"'), source.shown(name), _nothing, submitted=bool(masks), by_list=True)


def _nothing(size: Size) -> Whole:
    return Whole(np.zeros(size, np.uint8), ignores=False)


def _colours(source: Source, listing: str) -> Mapping[int, str]:
    """Return the name of each colour, which is a number of 24 bits."""
    where = source.shown(listing)
    found: dict[int, str] = {}
    for number, line in source.lines(listing):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        parts = rest.split(":")[0].split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
            raise ImageError(where, f"line {number}: not as in `name:red,green,blue::`")
        red, green, blue = map(int, parts)
        colour = red << 16 | green << 8 | blue
        if colour in found and found[colour] != name:
            raise ImageError(where, f"line {number}: {name!r} has the colour of {found[colour]!r}")
        found[colour] = name
    return found


def _colour_mask(
    source: Source, name: str, colours: Mapping[int, str], id_of: Callable[[object], int], size: Size
) -> Whole | Objects:
    picture = _picture(source, name, size)
    if picture.mode not in ("RGB", "RGBA", "P"):
        raise ImageError(source.shown(name), f"a picture of mode {picture.mode}, not of colours")
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.uint32), -1, 0)
    values, inverse = _unique(red << 16 | green << 8 | blue)
    ids = []
    for value in values.tolist():
        if value == 0:  # black is what nobody painted, whatever its name
            ids.append(BACKGROUND)
        elif value in colours:
            ids.append(id_of(colours[value]))
        else:
            rgb = ",".join(map(str, (value >> 16, value >> 8 & 255, value & 255)))
            raise ImageError(source.shown(name), f"the colour {rgb} is not in {_LABEL_MAP}")
    return Whole(np.array(ids, np.uint16)[inverse].reshape(size), ignores=False)


def _unique(values: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    found, inverse = np.unique(values.reshape(-1), return_inverse=True)
    return found, inverse
