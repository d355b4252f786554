"""Objects in text files of YOLO segmentation: a line for each, its class and its corners as shares of the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats.reading.found import Found, Objects, Size, check_number, faults_of
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.source import Source
from tipsseg.formats.yolo import IMAGES, LABELS, image_name
from tipsseg.regions.shapes import Shape, shape_from_polygons

#: Bytes of data.yaml, which takes seconds for each million, and of the text file of an image.
_YAML_MAX = 1 << 20
_TEXT_MAX = 256 << 20

#: YAML files that are looked into.
_TRIED = 20

#: Lists of images: a listed image without a text file has no objects.
_LISTS = frozenset({"train", "val", "valid", "validation", "test"})


def descriptions(source: Source) -> list[str]:
    """Return the YAML files of a source, as many as are looked into."""
    return [name for name in source.names if PurePosixPath(name).suffix.lower() in (".yaml", ".yml")][:_TRIED]


def yolo(source: Source, names: ClassNames) -> Iterator[Found]:
    """Yield the images by text files in folders `labels`, below the one YAML file that names the classes. Raises ImageError."""
    found: dict[str, Mapping[int, str]] = {}
    for name in descriptions(source):
        with suppress(ImageError):
            found[name] = class_names(source, name)
    if len(found) != 1:
        what = f"{' and '.join(list(found)[:2])} both name" if found else "no YAML file names"
        raise ImageError(source.path, f"{what} the classes", "Give the folder that has data.yaml.")
    ((listing, known),) = found.items()
    top = PurePosixPath(listing).parent
    # Label Studio writes a file without a line for what nobody submitted.
    submitted = not source.has(str(top / "notes.json"))
    lists = []
    for name in source.names:
        path = PurePosixPath(name)
        if path.suffix.lower() != ".txt" or not path.is_relative_to(top):
            continue
        path = path.relative_to(top)
        if LABELS in path.parts[:-1]:
            image = image_name(path.with_suffix(""), LABELS)
            yield Found(image, source.shown(name), partial(_objects, source, name, known, names), submitted)
        elif path.stem.lower() in _LISTS:
            lists.append(name)
    for name in lists:
        for _, line in source.lines(name):
            image = image_name(PurePosixPath(line.replace("\\", "/")), IMAGES)
            yield Found(image, source.shown(name), lambda size: Objects((), "yolo"), submitted, by_list=True)


def class_names(source: Source, name: str) -> Mapping[int, str]:
    """Return the names of the classes in a YAML file by their numbers. Raises ImageError if it names none."""
    import yaml

    where = source.shown(name)
    with faults_of(where):
        try:
            # All values as texts: a class may be called "yes" or "1", and merged keys and numbers to base 60 cost nothing.
            value = yaml.load(source.read(name, _YAML_MAX), yaml.BaseLoader)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise ValueError(f"not YAML: {type(error).__name__}") from error
        found = value.get("names") if isinstance(value, dict) else None
        if isinstance(found, list):
            found = dict(enumerate(found))
        if not isinstance(found, dict) or not found:
            raise ValueError("no `names` of classes")
        if not all(isinstance(each, str) for each in found.values()):
            raise ValueError("`names` are not texts by number")
        return {int(number): each for number, each in found.items()}


def _objects(source: Source, name: str, known: Mapping[int, str], names: ClassNames, size: Size) -> Objects:
    with faults_of(source.shown(name)):
        lines = source.read(name, _TEXT_MAX).decode("ascii", "strict").splitlines()
        check_number(lines)
    shapes = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with faults_of(source.shown(name), f"line {number}"):
                shapes.append(_shape(line, known, names, size))
    return Objects(tuple(shapes), "yolo")


def _shape(line: str, known: Mapping[int, str], names: ClassNames, size: Size) -> Shape:
    first, *rest = line.split()
    if not first.isdecimal() or int(first) not in known:
        raise ValueError(f"no class has the number {first[:20]}")
    if len(rest) == 4:
        raise ValueError("a box, which says nothing of pixels")
    if len(rest) % 2:
        raise ValueError("an x without a y")
    corners = np.array([float(each) for each in rest]).reshape(-1, 2) * size[::-1]
    return shape_from_polygons(names.id_of(known[int(first)]), [corners], size)
