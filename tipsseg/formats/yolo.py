"""YOLO: a text file per image, a copy of the image, and data.yaml; polygons, upright boxes, or oriented boxes.

    yolo/images/train/<image>, yolo/labels/train/<image>.txt    and yolo/images/val, yolo/labels/val with a `val_fraction`

To find the text file of an image, readers replace the last folder "images" in its path with "labels". Folders of that name below
yolo/images therefore get an underscore.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, encode_text
from tipsseg.formats.records import ClassNames, Objects, Size, SourceImage, image_errors, read_objects
from tipsseg.formats.source import TRIED, Source
from tipsseg.options.records import FileOptions
from tipsseg.regions.components import Region
from tipsseg.regions.objects import LabelledObject
from tipsseg.regions.shapes import NoPixelsError, Shape, shape_from_polygons
from tipsseg.types import printable_path

_IMAGES, LABELS = "images", "labels"
TRAINING, VALIDATING = "train", "val"
_SPLITS = [TRAINING], [VALIDATING], ["valid"], ["test"]

#: Size limits in bytes: for data.yaml, which takes seconds per megabyte to parse, and for the text file of an image.
_YAML_MAX = 1 << 20
_TEXT_MAX = 256 << 20

#: The file that lists the classes in data sets without a YAML file, as Label Studio and LabelImg write it.
CLASS_LIST = "classes.txt"

_BOX_CORNERS = 4

#: Names of image lists. A listed image without a text file has no objects.
_LISTS = frozenset({"train", "val", "valid", "validation", "test"})

#: The decimals of corners, as fractions of the image size.
_DECIMALS = 6

#: Folder names that get an underscore. "images_" gets another one, so that names stay unique.
_RESERVED = re.compile(rf"{_IMAGES}_*")


class YoloLayout(Format):
    """The base class of YOLO's formats: their folders, and data.yaml."""

    suffix = ".txt"
    needs = frozenset({"objects"})

    def __init_subclass__(cls) -> None:
        cls.folder, cls.picture_folder = f"{cls.name}/{LABELS}", f"{cls.name}/{_IMAGES}"
        cls.files = (f"{cls.name}/data.yaml",)

    def split(self, image: PurePosixPath, options: FileOptions) -> str:
        return VALIDATING if is_for_validation(printable_path(image), options.val_fraction or 0.0) else TRAINING

    def parent(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath:
        folders = (f"{name}_" if _RESERVED.fullmatch(name) else name for name in image.parent.parts)  # see `image_name`
        return PurePosixPath(self.split(image, options), *folders)

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        """Yield data.yaml: the image folders, relative to this file, the number of classes, and their names."""
        splits = {self.split(PurePosixPath(image), run.files) for image in images} or {TRAINING}
        for split in (TRAINING, VALIDATING):  # a split without images has no folder
            yield f"{split}: {_IMAGES}/{split if split in splits else min(splits)}\n".encode()
        yield f"nc: {len(run.classes)}\nnames:\n".encode()
        for number, entry in enumerate(run.classes):
            # JSON strings are valid YAML.
            yield encode_text(f"  {number}: {json.dumps(entry.name, ensure_ascii=False)}\n")


class Yolo(YoloLayout):
    """Polygons: the class number, from 0, then x and y of each corner as fractions of the image size."""

    name = "yolo"
    description = (
        "YOLO segmentation: yolo/data.yaml, yolo/labels/train/<image>.txt, "
        "copies of the images in yolo/images/train/; val beside train"
    )
    multi_part_objects = False

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        """Return a line per object part."""
        height, width = image.size
        return b"".join(
            _line(entry, [side for y, x in ring.tolist() for side in (x / width, y / height)])
            for entry in image.objects
            for ring in entry.outline.rings
        )

    def detect(self, source: Source) -> bool:
        """Return True if a YAML file lists classes, or a list of classes is beside a folder of labels.

        Raise ImageError if none can be read.
        """
        classes, faults = _class_lists(source)
        if faults and not classes:
            raise faults[0]
        folders = {part for name in source.names for part in PurePosixPath(name).parts[:-1]}
        return bool(classes) or (bool(source.find_name(CLASS_LIST)) and LABELS in folders)

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield the images with text files in `labels` folders below the folder of the file that lists the classes.

        This is a YAML file, or else classes.txt. Raise ImageError unless exactly one file lists classes.
        """
        classes, faults = _class_lists(source)
        for name in () if classes else source.find_name(CLASS_LIST):
            classes[name] = {number - 1: line for number, line in source.lines(name)}
        if not classes and faults:
            raise faults[0]
        if len(classes) != 1:
            reason = f"both {' and '.join(list(classes)[:2])} list classes" if classes else "no file lists the classes"
            raise ImageError(source.path, reason, f"Pass the folder that contains data.yaml or {CLASS_LIST}.")
        ((listing, numbered),) = classes.items()
        names.declare(numbered[number] for number in sorted(numbered))
        top = PurePosixPath(listing).parent
        if PurePosixPath(listing).name == CLASS_LIST and top.name == LABELS:  # LabelImg writes it beside the labels
            top = top.parent
        # Label Studio writes an empty file for an image that nobody submitted.
        submitted = not source.has(str(top / "notes.json"))
        lists = []
        for name in source.find_suffix(".txt"):
            path = PurePosixPath(name)
            if not path.is_relative_to(top):
                continue
            path = path.relative_to(top)
            if LABELS in path.parts[:-1]:
                image = image_name(path.with_suffix(""), LABELS)
                read = partial(_read_objects, source, name, numbered, names)
                other = partial(_without_split, image)  # some tools put the images of all folders into a split
                yield SourceImage(image, source.display_path(name), read, submitted, other_name=other)
            elif path.stem.lower() in _LISTS:
                lists.append(name)
        nothing = Objects((), self.name)
        for name in lists:
            for _, line in source.lines(name):
                image = image_name(PurePosixPath(line.replace("\\", "/")), _IMAGES)
                yield SourceImage(image, source.display_path(name), lambda _: nothing, submitted, by_list=True)

    def round_ring(self, ring: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
        return np.round(ring / size[::-1], _DECIMALS) * size[::-1]


class YoloBoxes(YoloLayout):
    """Boxes with x and y of the centre, width and height, all as fractions of the image size."""

    name = "yolo-boxes"
    description = "YOLO detection, an upright box per object: yolo-boxes/data.yaml, labels and images as in yolo"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        height, width = image.size
        lines = []
        for entry in image.objects:
            y, x, h, w = entry.region.box
            sides = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
            lines.append(_line(entry, sides))
        return b"".join(lines)


class YoloObb(Yolo):
    """Boxes with x and y of their four corners. A box covers the pixels of its object to their outer edges."""

    name = "yolo-obb"
    description = "YOLO oriented boxes, the smallest rectangle around each object: yolo-obb/data.yaml, labels and images as in yolo"
    multi_part_objects = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        lines = []
        for entry in image.objects:
            corners = oriented_box(entry.region, image.size) / image.size  # [4, 2]
            lines.append(_line(entry, corners[:, ::-1].ravel().tolist()))
        return b"".join(lines)

    def reread_shapes(self, objects: Iterable[LabelledObject], size: tuple[int, int]) -> list[Shape]:
        regions = [entry.region for entry in objects]
        boxes = [self.round_ring(oriented_box(region, size)[:, ::-1], size) for region in regions]
        return [shape_from_polygons(region.class_id, [box], size) for region, box in zip(regions, boxes, strict=True)]


def oriented_box(region: Region, size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the corners (y, x) of the smallest rectangle in an image around a region, [4, 2], clockwise from the topmost.

    Readers reject corners outside the image. A side of the smallest rectangle lies on an edge of the convex hull.
    """
    # The outer corners of the first and the last pixel of each row span the convex hull of all pixels.
    rows = np.flatnonzero(region.mask.any(1))
    first = region.mask[rows].argmax(1)
    last = region.mask.shape[1] - region.mask[rows, ::-1].argmax(1)
    points = np.concatenate(
        [np.stack([rows + lower, side], 1) for side in (first, last) for lower in (0, 1)]
    )  # [4 R, 2]
    hull = cv2.convexHull(points.astype(np.int32))[:, 0].astype(np.float64) + region.box[:2]  # [K, 2]
    edges = np.concatenate([[[0.0, 1.0]], np.roll(hull, -1, 0) - hull])  # the upright box is always inside the image
    along = edges / np.linalg.norm(edges, axis=1, keepdims=True)  # [K + 1, 2]
    axes = np.stack([along, along[:, ::-1] * (1, -1)], 1)  # [K + 1, 2, 2]
    places = hull @ axes.transpose(0, 2, 1)  # [K + 1, K, 2]
    low, high = places.min(1), places.max(1)
    ends = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], 1)
    corners = (ends @ axes).round(3)  # [K + 1, 4, 2]
    inside = ((corners >= 0) & (corners <= size)).all((1, 2))
    corners = corners[inside][np.prod(high - low, 1)[inside].argmin()]
    # With y down, growing angles turn clockwise.
    corners = corners[np.argsort(np.arctan2(*(corners - corners.mean(0)).T))]
    return np.roll(corners, -int(np.lexsort((corners[:, 1], corners[:, 0]))[0]), 0)


def _line(entry: LabelledObject, numbers: Iterable[float]) -> bytes:
    """Return the line of an object: the number of its class, from 0, and the numbers."""
    return f"{entry.region.class_id - 1} {' '.join(f'{number:.6f}' for number in numbers)}\n".encode()


def image_name(file: PurePosixPath, kind: str) -> str:
    """Return the image name from a path in a YOLO data set: the path without the folder `kind` (LABELS or _IMAGES).

    Of several such folders, the first one directly above a split is dropped, or else the last one, as Roboflow places it.
    """
    *folders, name = file.parts or (".",)
    matches = [index for index, folder in enumerate(folders) if folder == kind]
    if matches:
        del folders[next((index for index in matches if folders[index + 1 : index + 2] in _SPLITS), matches[-1])]
    return str(PurePosixPath(*(part[:-1] if _RESERVED.fullmatch(part[:-1]) else part for part in folders), name))


def is_for_validation(image: str, fraction: float) -> bool:
    """Return True if an image is in the validation split, a `fraction` of all images. Depends only on its name."""
    # This hash must differ from the one that selects shards and samples, or a shard could get no validation images at all.
    digest = hashlib.sha256(b"val " + image.encode("utf-8")).digest()
    return int.from_bytes(digest[:6], "big") < fraction * (1 << 48)


# ---- reading ----


def _without_split(image: str) -> str:
    first, _, rest = image.partition("/")
    return rest if [first] in _SPLITS else ""


def _class_lists(source: Source) -> tuple[dict[str, Mapping[int, str]], list[ImageError]]:
    """Return the class names by number in each YAML file, and the faults of those that cannot be read."""
    classes: dict[str, Mapping[int, str]] = {}
    faults: list[ImageError] = []
    for name in source.find_suffix(".yaml", ".yml")[:TRIED]:
        try:
            classes[name] = _read_class_names(source, name)
        except ImageError as error:
            faults.append(error)
    return classes, faults


def _read_class_names(source: Source, name: str) -> Mapping[int, str]:
    """Return the class names in a YAML file by number. Raise ImageError if it has none."""
    import yaml

    with image_errors(source.display_path(name)):
        try:
            # BaseLoader reads all values as text: a class may be called "yes" or "1". It ignores merge keys, which can be slow.
            value = yaml.load(source.read(name, _YAML_MAX), yaml.BaseLoader)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise ValueError(f"not YAML: {type(error).__name__}") from error
        names = value.get("names") if isinstance(value, dict) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        if not isinstance(names, dict) or not names:
            raise ValueError("`names` does not list the classes")
        if not all(isinstance(text, str) for text in names.values()):
            raise ValueError("`names` must map numbers to strings")
        return {int(number): text for number, text in names.items()}


def _read_objects(source: Source, name: str, numbered: Mapping[int, str], names: ClassNames, size: Size) -> Objects:
    where = source.display_path(name)
    with image_errors(where):
        lines = source.read(name, _TEXT_MAX).decode("ascii", "strict").splitlines()
    corners = {len(line.split()) for line in lines if line.strip()}
    read = partial(_read_shape, numbered=numbered, names=names, size=size, boxes=corners == {1 + 4})
    written_as = "yolo-obb" if _are_boxes(lines, size) else "yolo"
    return read_objects(where, lines, lambda number, _: f"line {number}", read, written_as)


def _are_boxes(lines: Sequence[str], size: Size) -> bool:
    """Return True if all lines are rectangles, apart from corners that were moved to the border of the image."""
    with suppress(ValueError):
        numbers = np.array([line.split()[1:] for line in lines if line.strip()], np.float64)
        if numbers.ndim == 2 and numbers.shape[1] == 2 * _BOX_CORNERS:
            corners = numbers.reshape(-1, _BOX_CORNERS, 2)
            cut = ((corners == 0) | (corners == 1)).any((1, 2))
            diagonals = (corners[:, :2] - corners[:, 2:]) * size[::-1]  # [n, 2, 2]
            middles = (corners[:, :2] + corners[:, 2:]) / 2 * size[::-1]
            lengths = np.linalg.norm(diagonals, axis=2)
            even = (np.abs(lengths[:, 0] - lengths[:, 1]) < 1) & (np.abs(middles[:, 0] - middles[:, 1]) < 1).all(1)
            return bool((cut | even).all())
    return False


def _read_shape(line: str, numbered: Mapping[int, str], names: ClassNames, size: Size, boxes: bool) -> Shape | None:
    """Return the pixels of a line; None for a blank line. Four numbers are a box in a file of boxes, else two corners."""
    if not line.strip():
        return None
    first, *rest = line.split()
    if not first.isdecimal() or int(first) not in numbered:
        raise ValueError(f"unknown class number {first[:20]}")
    if len(rest) == 4 and boxes:
        raise ValueError("a box does not define pixels")
    if len(rest) == 4:
        raise NoPixelsError("an object with two corners")
    if len(rest) % 2:
        raise ValueError("an object with an odd number of coordinates")
    corners = np.array([float(value) for value in rest]).reshape(-1, 2) * size[::-1]
    return shape_from_polygons(names.id_of(numbered[int(first)]), [corners], size)
