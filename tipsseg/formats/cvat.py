"""CVAT: "Segmentation mask 1.1" in the PASCAL VOC layout, and, to read only, the XML of "CVAT for images 1.1".

The first has colour masks, labelmap.txt and an image list.

To upload, zip the contents of cvat/. CVAT does not support ignored pixels, so they become background. The colours come from the VOC
palette, because CVAT needs a different colour for each class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePosixPath
from xml.parsers import expat

import numpy as np
from PIL import Image

from tipsseg.errors import ImageError
from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, encode_text, output_name
from tipsseg.formats.png import encode_picture, read_source_picture
from tipsseg.formats.records import (
    ClassNames,
    Objects,
    PixelLabels,
    Size,
    SourceImage,
    check_size,
    image_errors,
    read_objects,
)
from tipsseg.formats.source import TRIED, Source
from tipsseg.regions.shapes import (
    NoPixelsError,
    Shape,
    clip_mask,
    ellipse_corners,
    rectangle_corners,
    shape_from_box,
    shape_from_polygons,
)
from tipsseg.types import BACKGROUND, LabelClass
from tipsseg.util.json import short
from tipsseg.vocabulary.palette import voc_colour

#: Names for the background, best first.
_BACKGROUND_NAMES = ("background", "unlabelled", "void", "nothing of these")

_HEAD = "# label:color_rgb:parts:actions"

#: The file that maps class names to colours.
LABEL_MAP = "labelmap.txt"

#: Elements with a location, but without pixels.
_WITHOUT_PIXELS = frozenset({"points", "polyline", "cuboid", "skeleton"})

#: The number of bytes in which the first element must begin.
_XML_HEAD = 1 << 16


class Cvat(Format):
    name = "cvat"
    description = "CVAT's Segmentation mask 1.1 (PASCAL VOC): cvat/SegmentationClass/<image>.png and image lists"
    folder = "cvat/SegmentationClass"
    files = ("cvat/labelmap.txt", "cvat/ImageSets/Segmentation/default.txt")
    forbidden_characters = ":#"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        colours = np.zeros((int(np.iinfo(image.labels.dtype).max) + 1, 3), np.uint8)
        for entry in run.classes:
            colours[entry.id] = voc_colour(entry.id)
        return encode_picture(Image.fromarray(colours[image.labels]))

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        """Return labelmap.txt, which maps class names to colours, or the list of image names without suffixes."""
        if name == self.files[0]:
            return (encode_text(label_map_text(run.classes)),)
        return (f"{output_name(PurePosixPath(image), run.files.names)}\n".encode() for image in images)

    def detect(self, source: Source) -> bool:
        folders = {part for name in source.names for part in PurePosixPath(name).parts[:-1]}
        return bool(source.find_name(LABEL_MAP)) and not folders.isdisjoint({"SegmentationClass", "Segmentation"})

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield an image for each SegmentationClass/<image>.png beside a labelmap.txt, which defines the colours.

        CVAT writes no mask for an image without objects, but lists the image in ImageSets/Segmentation. Raise ImageError if a
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
                            image.strip('"'), source.display_path(name), _empty, bool(masks), by_list=True
                        )


class CvatXml(Format):
    """The polygons, boxes, ellipses and masks of all images in an XML file; read only."""

    name = "cvat-xml"
    description = "CVAT for images 1.1"

    def detect(self, source: Source) -> bool:
        """Return True for an XML file of annotations. Raise ImageError for Pascal VOC boxes."""
        roots = {_root_of(source, name): name for name in source.find_suffix(".xml")[:TRIED]}
        if "annotations" in roots:
            return True
        if "annotation" in roots:
            raise ImageError(
                source.display_path(roots["annotation"]),
                "Pascal VOC boxes, or LabelMe 3.0, which cannot be imported",
                "Export it from CVAT as CVAT for images 1.1, or as Segmentation mask 1.1.",
            )
        return False

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield the images in all XML files with the element `annotations`. Raise ImageError if a file is invalid."""
        for name in source.find_suffix(".xml"):
            if _root_of(source, name) == "annotations":
                yield from _read_images(source.read(name), source.display_path(name), names)


def label_map_text(classes: Sequence[LabelClass]) -> str:
    names = {entry.name.casefold() for entry in classes}
    others = (f"background {number}" for number in count(2))
    background = next(name for name in chain(_BACKGROUND_NAMES, others) if name not in names)
    entries = [(background, BACKGROUND), *((entry.name, entry.id) for entry in classes)]
    lines = [f"{name}:{','.join(map(str, voc_colour(label_id)))}::" for name, label_id in entries]
    return "".join(f"{line}\n" for line in (_HEAD, *lines))


# ---- reading masks ----


def _empty(size: Size) -> PixelLabels:
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
    picture = read_source_picture(source, name, size)
    if picture.mode not in ("RGB", "RGBA", "P"):
        raise ImageError(source.display_path(name), f"PNG mode {picture.mode}, expected a colour image")
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.uint32), -1, 0)
    values, inverse = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
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


# ---- reading XML ----

#: An element of an image: its tag, and its attributes.
_Element = tuple[str, Mapping[str, str]]


class _Document:
    """Collects the images of a document, with the elements directly in them. Rejects document types, which may define entities."""

    def __init__(self) -> None:
        self.root = ""
        self.images: list[tuple[Mapping[str, str], list[_Element]]] = []
        self._depth = self._image = 0
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def parse(self, data: bytes, *, whole: bool) -> None:
        """Parse a document, or its beginning. Raise ValueError if it is invalid."""
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


def _root_of(source: Source, name: str) -> str:
    """Return the name of the first element of an XML file; "" if there is none, or if a document type precedes it."""
    document = _Document()
    with suppress(ValueError):
        document.parse(source.read(name)[:_XML_HEAD], whole=False)
    return document.root


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
    written_as = "coco-polygon" if polygons else "coco"
    return read_objects(where, elements, lambda number, own: f"{image}, {own[0]} {number}", read, written_as, image)


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
