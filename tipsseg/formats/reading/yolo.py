"""Read YOLO segmentation: a text file per image, with the class and the relative corners of one object per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.records import Objects, Size, SourceImage, image_errors, read_objects
from tipsseg.formats.reading.source import Source
from tipsseg.formats.yolo import IMAGES, LABELS, image_name
from tipsseg.regions.shapes import Shape, shape_from_polygons

#: Size limits in bytes: for data.yaml, which takes seconds per megabyte to parse, and for the text file of an image.
_YAML_MAX = 1 << 20
_TEXT_MAX = 256 << 20

#: The maximum number of YAML files that are opened.
_TRIED = 20

#: The file that lists the classes in data sets without a YAML file, as Label Studio and LabelImg write it.
CLASS_LIST = "classes.txt"

_BOX_CORNERS = 4

#: Names of image lists. A listed image without a text file has no objects.
_LISTS = frozenset({"train", "val", "valid", "validation", "test"})


def yaml_files(source: Source) -> list[str]:
    return source.find_suffix(".yaml", ".yml")[:_TRIED]


def read_yolo(source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield the images with text files in `labels` folders below the folder of the file that lists the classes.

    This is a YAML file, or else classes.txt. Raises ImageError unless exactly one file lists classes.
    """
    classes: dict[str, Mapping[int, str]] = {}
    for name in yaml_files(source):
        with suppress(ImageError):
            classes[name] = read_class_names(source, name)
    for name in () if classes else source.find_name(CLASS_LIST):
        classes[name] = {number - 1: line for number, line in source.lines(name)}
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
            yield SourceImage(
                image, source.display_path(name), partial(_read_objects, source, name, numbered, names), submitted
            )
        elif path.stem.lower() in _LISTS:
            lists.append(name)
    for name in lists:
        for _, line in source.lines(name):
            image = image_name(PurePosixPath(line.replace("\\", "/")), IMAGES)
            yield SourceImage(
                image, source.display_path(name), lambda size: Objects((), "yolo"), submitted, by_list=True
            )


def read_class_names(source: Source, name: str) -> Mapping[int, str]:
    """Return the class names in a YAML file by number. Raises ImageError if it has none."""
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
    read = partial(_read_shape, numbered=numbered, names=names, size=size)
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


def _read_shape(line: str, numbered: Mapping[int, str], names: ClassNames, size: Size) -> Shape | None:
    if not line.strip():
        return None
    first, *rest = line.split()
    if not first.isdecimal() or int(first) not in numbered:
        raise ValueError(f"unknown class number {first[:20]}")
    if len(rest) == 4:
        raise ValueError("a box does not define pixels")
    if len(rest) % 2:
        raise ValueError("odd number of coordinates")
    corners = np.array([float(value) for value in rest]).reshape(-1, 2) * size[::-1]
    return shape_from_polygons(names.id_of(numbered[int(first)]), [corners], size)
