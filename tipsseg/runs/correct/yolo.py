"""Objects in text files of YOLO segmentation: a line for each, its class and its corners as shares of the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.runs.correct.found import Found, Objects, Size, faults_of
from tipsseg.runs.correct.names import ClassNames
from tipsseg.runs.correct.shapes import Shape, of_polygons
from tipsseg.runs.correct.source import Source

#: Bytes of data.yaml, and of the text file of an image.
_YAML_MAX = 16 << 20
_TEXT_MAX = 256 << 20

_LABELS, _IMAGES = "labels", "images"

#: Lists of images: a listed image without a text file has no objects.
_LISTS = frozenset({"train.txt", "val.txt", "valid.txt", "test.txt"})


def descriptions(source: Source) -> list[str]:
    """The YAML files of a source."""
    return [name for name in source.names if PurePosixPath(name).suffix.lower() in (".yaml", ".yml")]


def is_description(source: Source, name: str) -> bool:
    """Whether a YAML file describes a data set."""
    try:
        return bool(_class_names(source, name))
    except ImageError:
        return False


def yolo(source: Source, names: ClassNames, classes: int) -> Iterator[Found]:
    """The images by the text files in folders `labels`, below the one YAML file that names the classes. Raises ImageError."""
    found = [name for name in descriptions(source) if is_description(source, name)]
    if len(found) != 1:
        what = f"{found[0]} and {found[1]} both name" if found else "no YAML file names"
        raise ImageError(source.path, f"{what} the classes", "Give the folder that has data.yaml.")
    known = _class_names(source, found[0])
    top = PurePosixPath(found[0]).parent
    # Label Studio writes a file without a line for what nobody submitted.
    submitted = not source.has(str(top / "notes.json"))
    lists = []
    for name in source.names:
        path = PurePosixPath(name)
        if path.suffix.lower() != ".txt" or not path.is_relative_to(top):
            continue
        path = path.relative_to(top)
        if _LABELS in path.parts[:-1]:
            image = str(_without(path.with_suffix(""), _LABELS))
            yield Found(image, source.shown(name), partial(_objects, source, name, known, names), submitted)
        elif path.name in _LISTS:
            lists.append(name)
    for name in lists:
        for _, line in source.lines(name):
            image = str(_without(PurePosixPath(line.replace("\\", "/")), _IMAGES))
            yield Found(image, source.shown(name), lambda size: Objects((), "yolo"), submitted, by_list=True)


def _without(path: PurePosixPath, folder: str) -> PurePosixPath:
    """Return a path without the last of its folders that has this name."""
    parts = list(path.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == folder:
            del parts[at]
            break
    return PurePosixPath(*parts)


def _class_names(source: Source, name: str) -> Mapping[int, str]:
    """The names of the classes by their numbers. Raises ImageError."""
    import yaml

    where = source.shown(name)
    with faults_of(where):
        try:
            value = yaml.safe_load(source.read(name, _YAML_MAX))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise ValueError(f"not YAML: {type(error).__name__}") from error
        found = value.get("names") if isinstance(value, dict) else None
        if isinstance(found, list):
            found = dict(enumerate(found))
        if not isinstance(found, dict) or not found:
            raise ValueError("no `names` of classes")
        if not all(type(number) is int and isinstance(each, str) for number, each in found.items()):
            raise ValueError("`names` are not texts by number; put names such as yes, 1 and 2.0 into quotes")
        return found


def _objects(source: Source, name: str, known: Mapping[int, str], names: ClassNames, size: Size) -> Objects:
    with faults_of(source.shown(name)):
        text = source.read(name, _TEXT_MAX).decode("ascii", "strict")
    shapes = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            with faults_of(source.shown(name), f"line {number}"):
                shapes.append(_shape(line, known, names, size))
    return Objects(tuple(shapes), "yolo")


def exported(text: str, known: Mapping[int, str], names: ClassNames, size: Size) -> Iterator[Shape]:
    """The shapes in the text file that the format yolo writes of an image."""
    for line in text.splitlines():
        yield _shape(line, known, names, size)


def _shape(line: str, known: Mapping[int, str], names: ClassNames, size: Size) -> Shape:
    first, *rest = line.split()
    if not first.isdecimal() or int(first) not in known:
        raise ValueError(f"no class has the number {first[:20]}")
    if len(rest) == 4:
        raise ValueError("a box, which says nothing of pixels")
    if len(rest) % 2:
        raise ValueError("an x without a y")
    corners = np.array([float(each) for each in rest]).reshape(-1, 2) * size[::-1]
    return of_polygons(names.id_of(known[int(first)]), [corners], size)
