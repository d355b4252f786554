"""Read formats that label every pixel: index masks, CVAT's colour masks, and data sets in the layout of the hf format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS
from tipsseg.formats.classes_file import CLASSES_FILE
from tipsseg.formats.png import read_ids, read_picture
from tipsseg.formats.reading.ids import ClassNames, MaskIds
from tipsseg.formats.reading.records import Objects, PixelLabels, Size, SourceImage
from tipsseg.formats.reading.source import LIST_MAX, Source
from tipsseg.images.decoding import as_image_error
from tipsseg.types import BACKGROUND, label_dtype
from tipsseg.util.json_values import parse

LABEL_MAP = "labelmap.txt"
METADATA = "metadata.jsonl"


# ---- index masks ----


def read_index_masks(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield an image for each greyscale or palette PNG with label ids. A PNG is named after its image.

    Raises ImageError for the instance masks of tipsseg, whose values are no class ids.
    """
    for folder in (source.path, *source.path.absolute().parents):
        if folder.name == FORMATS["instances"].folder and (folder.parent / CLASSES_FILE).is_file():
            raise ImageError(
                source.path, "instance masks: their values number the objects", "Edit the index masks instead."
            )
    return read_named_masks([(name[: -len(".png")], name) for name in source.find_suffix(".png")], source, names)


def read_named_masks(masks: Iterable[tuple[str, str]], source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield an image for each pair of an image name and the path of its mask in the source."""
    ids = MaskIds(source, names)
    for image, name in masks:
        yield SourceImage(image, source.display_path(name), partial(_read_index_mask, source, name, names.count, ids))


def read_hugging_face(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield the images that metadata.jsonl lists with their masks. Raises ImageError if a line is invalid."""
    ids = MaskIds(source, names)
    for listing in source.find_name(METADATA):
        folder = PurePosixPath(listing).parent
        where = source.display_path(listing)
        for number, line in enumerate(source.read(listing, LIST_MAX).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = parse(line)
                image, mask = (_take_text(record, key) for key in ("file_name", "mask_file_name"))
            except ValueError as error:
                raise ImageError(where, f"line {number}: {error}") from error
            name = str(folder / mask)
            if not source.has(name):
                raise ImageError(where, f"line {number}: mask {mask!r} not found")
            read = partial(_read_index_mask, source, name, names.count, ids)
            yield SourceImage(image.removeprefix("images/"), source.display_path(name), read)


def _take_text(record: object, key: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value:
        raise ValueError(f"no `{key}`")
    return value


def _read_index_mask(source: Source, name: str, classes: int, ids: MaskIds, size: Size) -> PixelLabels | Objects:
    picture = _read_png(source, name, size)
    with as_image_error(source.display_path(name)):
        stored = read_ids(picture)
    labels = ids.to_run_ids(name, source.display_path(name), stored)
    return PixelLabels(labels.astype(np.uint8) if label_dtype(classes) is np.uint8 else labels, ignores=True)


def _read_png(source: Source, name: str, size: Size) -> Image.Image:
    with source.file(name) as path:
        try:
            return read_picture(path, size)
        except ImageError as error:
            raise ImageError(source.display_path(name), error.reason, error.hint) from error


# ---- CVAT, PASCAL VOC ----


def read_colour_masks(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield an image for each SegmentationClass/<image>.png beside a labelmap.txt, which defines the colours.

    CVAT writes no mask for an image without objects, but lists the image in ImageSets/Segmentation. Raises ImageError if a
    labelmap.txt is invalid.
    """
    for listing in source.find_name(LABEL_MAP):
        top = PurePosixPath(listing).parent
        folder = f"{top / 'SegmentationClass'}/"
        colours = _read_colours(source, listing)
        names.declare(name for colour, name in colours.items() if colour)
        masks = [name for name in source.find_suffix(".png") if name.startswith(folder)]
        for name in masks:
            read = partial(_read_colour_mask, source, name, colours, names.id_of)
            yield SourceImage(name[len(folder) : -len(".png")], source.display_path(name), read)
        for name in source.find_suffix(".txt"):
            if PurePosixPath(name).parent == top / "ImageSets" / "Segmentation":
                for _, image in source.lines(name):
                    # Without masks, this may be an export of boxes.
                    yield SourceImage(
                        image.strip('"'), source.display_path(name), _empty_labels, bool(masks), by_list=True
                    )


def _empty_labels(size: Size) -> PixelLabels:
    return PixelLabels(np.zeros(size, np.uint8), ignores=False)


def _read_colours(source: Source, listing: str) -> Mapping[int, str]:
    """Return the class names by 24-bit colour."""
    where = source.display_path(listing)
    names: dict[int, str] = {}
    for number, line in source.lines(listing):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        parts = rest.split(":")[0].split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
            raise ImageError(where, f"line {number}: expected `name:red,green,blue::`")
        red, green, blue = map(int, parts)
        colour = red << 16 | green << 8 | blue
        if colour in names and names[colour] != name:
            raise ImageError(where, f"line {number}: {name!r} and {names[colour]!r} have the same colour")
        names[colour] = name
    return names


def _read_colour_mask(
    source: Source, name: str, colours: Mapping[int, str], id_of: Callable[[object], int], size: Size
) -> PixelLabels | Objects:
    picture = _read_png(source, name, size)
    if picture.mode not in ("RGB", "RGBA", "P"):
        raise ImageError(source.display_path(name), f"PNG mode {picture.mode}, expected a colour image")
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.uint32), -1, 0)
    values, inverse = _unique(red << 16 | green << 8 | blue)
    ids = []
    for value in values.tolist():
        if value == 0:  # black means unlabelled, whatever its name
            ids.append(BACKGROUND)
        elif value in colours:
            ids.append(id_of(colours[value]))
        else:
            rgb = ",".join(map(str, (value >> 16, value >> 8 & 255, value & 255)))
            raise ImageError(source.display_path(name), f"the colour {rgb} is not in {LABEL_MAP}")
    return PixelLabels(np.array(ids, np.uint16)[inverse].reshape(size), ignores=False)


def _unique(values: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    unique, inverse = np.unique(values.reshape(-1), return_inverse=True)
    return unique, inverse
