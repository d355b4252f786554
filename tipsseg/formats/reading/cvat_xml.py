"""Read "CVAT for images 1.1": an XML file with the polygons, boxes, ellipses and masks of all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from xml.parsers import expat

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
    shape_from_box,
    shape_from_polygons,
)
from tipsseg.util.json_values import short

#: Elements with a location, but without pixels.
_WITHOUT_PIXELS = frozenset({"points", "polyline", "cuboid", "skeleton"})

#: The number of bytes in which the first element must begin.
_HEAD = 1 << 16

#: An element of an image: its tag, and its attributes.
_Element = tuple[str, Mapping[str, str]]


class _Document:
    """Collects the images of a document, with the elements directly in them. Refuses document types, which may define entities."""

    def __init__(self) -> None:
        self.root = ""
        self.images: list[tuple[Mapping[str, str], list[_Element]]] = []
        self._depth = self._image = 0
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def parse(self, data: bytes, *, whole: bool) -> None:
        """Parse a document, or its beginning. Raises ValueError if it is invalid."""
        try:
            self._parser.Parse(data, whole)
        except (expat.ExpatError, LookupError) as error:
            raise ValueError(f"not XML: {error}") from error

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type declaration, which may be harmful")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        self.root = self.root or tag
        if tag == "track":
            raise ValueError("a video annotation; export it as CVAT for images 1.1")
        if tag == "image":
            self._image = self._depth
            self.images.append((attributes, []))
        elif self._image and self._depth == self._image + 1 and tag != "tag":
            self.images[-1][1].append((tag, attributes))

    def _end(self, tag: str) -> None:
        if self._depth == self._image:
            self._image = 0
        self._depth -= 1


def root_of(source: Source, name: str) -> str:
    """Return the name of the first element of an XML file; "" if there is none, or if a document type precedes it."""
    document = _Document()
    with suppress(ValueError):
        document.parse(source.read(name)[:_HEAD], whole=False)
    return document.root


def read_cvat_xml(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield the images in all XML files with the element `annotations`. Raises ImageError if a file is invalid."""
    for name in source.find_suffix(".xml"):
        if root_of(source, name) == "annotations":
            yield from _read_images(source.read(name), source.display_path(name), names)


def _read_images(data: bytes, where: Path, names: ClassNames) -> Iterator[SourceImage]:
    document = _Document()
    with image_errors(where):
        document.parse(data, whole=True)
        for attributes, elements in document.images:
            if not attributes.get("name"):
                raise ValueError("an image has no name")
            names.declare(own["label"] for _, own in elements if "label" in own)
            elements.sort(key=lambda pair: _number(pair[1], "z_order", "0"))  # stable
            read = partial(_read_objects, elements, attributes, names, where)
            yield SourceImage(attributes["name"], where, read)


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
        if not angle:
            return shape_from_box(class_id, (left, top, right, bottom), size)
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
    counts = [int(count) for count in attributes.get("rle", "").split(",") if count.strip()]
    if min(counts, default=0) < 0 or sum(counts) != h * w:
        raise ValueError(f"the RLE of a mask has {sum(counts)} pixels, but its box has {h * w}")
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
