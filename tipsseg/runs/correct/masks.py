"""Formats that say the label of every pixel: index masks, CVAT's colour masks, folders as of the format hf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError, InputError
from tipsseg.images.decoding import as_image_error, decode_stored, opened
from tipsseg.runs.correct.found import Found, Objects, Size, Whole
from tipsseg.runs.correct.mask_ids import MaskIds
from tipsseg.runs.correct.names import ClassNames
from tipsseg.runs.correct.source import LIST_MAX, Source
from tipsseg.types import BACKGROUND, LabelArray, label_dtype
from tipsseg.util.json_values import parse

_LABEL_MAP = "labelmap.txt"
_METADATA = "metadata.jsonl"


# ---- index masks ----


def index_masks(source: Source, names: ClassNames, classes: int) -> Iterator[Found]:
    """PNGs with label ids, in grey or with a palette, named as the images; `classes` is the number of classes."""
    ids = MaskIds(source, names, classes)
    for name in source.names:
        if name.lower().endswith(".png"):
            yield Found(name[: -len(".png")], source.shown(name), partial(_index_mask, source, name, classes, ids))


def named_masks(places: Mapping[str, str], source: Source, names: ClassNames, classes: int) -> Iterator[Found]:
    """Index masks of a run; `places` has the mask of each image."""
    ids = MaskIds(source, names, classes)
    for image, name in places.items():
        yield Found(image, source.shown(name), partial(_index_mask, source, name, classes, ids))


def hugging_face(source: Source, names: ClassNames, classes: int) -> Iterator[Found]:
    """Index masks that metadata.jsonl names, each beside the name of its image. Raises ImageError."""
    ids = MaskIds(source, names, classes)
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
            read = partial(_index_mask, source, name, classes, ids)
            yield Found(image.removeprefix("images/"), source.shown(name), read)


def _text(record: object, key: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value:
        raise ValueError(f"no `{key}`")
    return value


def _index_mask(source: Source, name: str, classes: int, ids: MaskIds, size: Size) -> Whole | Objects:
    picture = _picture(source, name, size)
    with as_image_error(source.shown(name)):
        stored = _ids(picture)
    labels = ids.as_in_run(name, source.shown(name), stored)
    return Whole(labels.astype(np.uint8) if label_dtype(classes) is np.uint8 else labels, ignores=True)


def _ids(picture: Image.Image) -> LabelArray:
    """The numbers in a picture [H, W]. Raises InputError for a picture that has none."""
    if picture.mode in ("L", "P"):
        return np.asarray(picture).astype(np.uint8)
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if int(values.min()) < 0 or int(values.max()) > 65535:
            raise InputError("ids below 0 or above 65535")
        return values.astype(np.uint16)
    raise InputError(
        f"a picture of mode {picture.mode}, not of label ids",
        "Index masks are PNGs in grey, of 8 or 16 bits, or with a palette.",
    )


def _picture(source: Source, name: str, size: Size) -> Image.Image:
    """A PNG of the size of the image. Raises ImageError; more pixels than that are never decoded."""
    most = size[0] * size[1]
    with source.file(name) as path:
        try:
            with opened(path) as image:
                kind, found = image.picture.format, image.size
            if kind == "PNG" and found == size:
                return decode_stored(path, most)
        except ImageError as error:
            raise ImageError(source.shown(name), error.reason, error.hint) from error
    if kind != "PNG":
        raise ImageError(source.shown(name), f"a {kind}, whose pixels need not be exact", "Save masks as PNG.")
    raise ImageError(
        source.shown(name),
        f"{found[0]} x {found[1]} (height x width), where the image is {size[0]} x {size[1]}",
        "Masks have the size of their image, turned upright.",
    )


# ---- CVAT, PASCAL VOC ----


def colour_masks(source: Source, names: ClassNames, classes: int) -> Iterator[Found]:
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
    """The name of each colour, which is a number of 24 bits."""
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
