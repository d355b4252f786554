"""Read "CVAT for images 1.1": an XML file with the polygons, boxes, ellipses and masks of all images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.records import Objects, Size, SourceImage, check_size, image_errors, read_objects
from tipsseg.formats.reading.source import Source
from tipsseg.regions.shapes import (
    NoPixelsError,
    Shape,
    clip_mask,
    ellipse_corners,
    rectangle_corners,
    shape_from_polygons,
)
from tipsseg.util.json_values import short

#: Elements with a location, but without pixels.
_WITHOUT_PIXELS = frozenset({"points", "polyline", "cuboid", "skeleton"})

#: An element of an image: its tag, and its attributes.
_Element = tuple[str, Mapping[str, str]]


def root_of(source: Source, name: str) -> str:
    """Return the name of the first element of an XML file; "" if there is none, or if it is preceded by a document type."""
    head = source.read(name)[: 1 << 16].decode("utf-8", "replace")
    before, _, after = head.partition("<?xml")
    text = (after.partition("?>")[2] if after else before).lstrip()
    while text.startswith("<!--"):
        text = text.partition("-->")[2].lstrip()
    root = text.removeprefix("<").replace(">", " ").split()
    return root[0] if text.startswith("<") and root and not root[0].startswith("!") else ""


def read_cvat_xml(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield the images in all XML files with the element `annotations`. Raises ImageError if a file is invalid."""
    for name in source.find_suffix(".xml"):
        if root_of(source, name) == "annotations":
            yield from _read_images(source.read(name), source.display_path(name), names)


def _read_images(data: bytes, where: Path, names: ClassNames) -> Iterator[SourceImage]:
    with image_errors(where):
        try:
            for _, element in ElementTree.iterparse(io.BytesIO(data)):
                if element.tag == "track":
                    raise ValueError("a video annotation; export it as CVAT for images 1.1")
                if element.tag == "image":
                    elements: list[_Element] = [
                        (child.tag, dict(child.attrib)) for child in element if child.tag != "tag"
                    ]
                    elements.sort(key=lambda pair: _number(pair[1], "z_order", "0"))  # stable
                    attributes = dict(element.attrib)
                    name = attributes.get("name", "")
                    if not name:
                        raise ValueError("an image has no name")
                    yield SourceImage(name, where, partial(_read_objects, elements, attributes, names, where))
                    element.clear()
        except ElementTree.ParseError as error:
            raise ValueError(f"not XML: {error}") from error


def _read_objects(
    elements: Sequence[_Element], attributes: Mapping[str, str], names: ClassNames, where: Path, size: Size
) -> Objects:
    image = f"image {short(attributes['name'])}"
    with image_errors(where, image):
        check_size(int(_number(attributes, "height")), int(_number(attributes, "width")), size)
    polygons = any(tag != "mask" for tag, _ in elements)
    read = partial(_read_shape, names=names, size=size)
    return read_objects(
        where,
        elements,
        lambda number, element: f"{image}, {element[0]} {number}",
        read,
        "coco-polygon" if polygons else "coco",
        image,
    )


def _read_shape(element: _Element, names: ClassNames, size: Size) -> Shape:
    tag, attributes = element
    if tag in _WITHOUT_PIXELS:
        raise NoPixelsError(tag)
    number = partial(_number, attributes)
    class_id = names.id_of(attributes.get("label"))
    if tag == "polygon":
        pairs = [pair.split(",") for pair in attributes.get("points", "").split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("`points` must be pairs of x and y")
        return shape_from_polygons(class_id, [np.array(pairs, np.float64)], size)
    angle = number("rotation", "0")
    if tag == "box":
        left, top, right, bottom = map(number, ("xtl", "ytl", "xbr", "ybr"))
        centre = (left + right) / 2, (top + bottom) / 2
        corners = rectangle_corners(centre, (left, top), (right - left, bottom - top), angle)
    elif tag == "ellipse":
        corners = ellipse_corners((number("cx"), number("cy")), (number("rx"), number("ry")), angle)
    elif tag == "mask":
        return _read_mask(class_id, attributes, size)
    else:
        raise ValueError(f"unsupported element {short(tag)}")
    return shape_from_polygons(class_id, [corners], size)


def _read_mask(class_id: int, attributes: Mapping[str, str], size: Size) -> Shape:
    """Read a mask: numbers of pixels outside and inside the object, alternating, row by row in its box."""
    x, y, w, h = (int(_number(attributes, name)) for name in ("left", "top", "width", "height"))
    if not (0 <= w <= size[1] and 0 <= h <= size[0]):
        raise ValueError(f"the mask, {h} x {w}, is larger than the image")
    if abs(x) > 2 * size[1] or abs(y) > 2 * size[0]:
        raise ValueError("the mask is far outside the image")
    counts = np.array([int(count) for count in attributes.get("rle", "").split(",") if count.strip()], np.int64)
    if (counts < 0).any() or counts.sum() != h * w:
        raise ValueError(f"the RLE of a mask has {counts.sum()} pixels, but its box has {h * w}")
    mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(h, w)
    return clip_mask(class_id, mask, y, x, size)


def _number(attributes: Mapping[str, str], name: str, default: str = "") -> float:
    text = attributes.get(name, default)
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"`{name}` is not a number: {short(text)}") from error
    if not np.isfinite(value):
        raise ValueError(f"`{name}` is not a finite number: {short(text)}")
    return value
