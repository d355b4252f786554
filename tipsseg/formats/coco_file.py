"""Reads annotations.json, and what is laid out like it, back line by line.

Memory does not grow with the number of images or annotations. Only as `coco.CocoRunFile` writes it, one record a line, annotations
in the order of their images; anything else is a ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tipsseg.formats import Rows
from tipsseg.formats.listing import match, read_section
from tipsseg.util.files import open_regular
from tipsseg.util.json_values import parse

_IMAGE = re.compile(rb'\{"id": (\d+), ("file_name": .*\})')
_ANNOTATION = re.compile(rb'\{"id": (\d+), "image_id": (\d+), (.*\})')


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of the file.

    id           its own
    name         its file name
    rows      as `coco.CocoWriter` makes them: that of the image, then its annotations
    annotations  their ids
    """

    id: int
    name: str
    rows: Rows
    annotations: tuple[int, ...]


def names(path: Path) -> Iterator[str]:
    """The file names of the images. Raises OSError and ValueError."""
    with open_regular(path) as file:
        for line in read_section(file, b"images"):
            yield _name(b"{" + match(_IMAGE, line)[2])


def read(path: Path) -> Iterator[tuple[str, Rows]]:
    """Each image's file name with its rows. Raises OSError and ValueError."""
    for image in images(path):
        yield image.name, image.rows


def images(path: Path) -> Iterator[CocoImage]:
    """The images in the order of the file. Raises OSError and ValueError."""
    with open_regular(path) as file, open_regular(path) as beside:
        annotations = (match(_ANNOTATION, line) for line in read_section(beside, b"annotations"))
        grouped = groupby(annotations, key=lambda found: int(found[2]))
        waiting = next(grouped, None)
        for line in read_section(file, b"images"):
            image = match(_IMAGE, line)
            own: list[re.Match[bytes]] = []
            if waiting is not None and waiting[0] == int(image[1]):
                own = list(waiting[1])
                waiting = next(grouped, None)
            record = b"{" + image[2]
            rows = (record, *(b"{" + each[3] for each in own))
            yield CocoImage(int(image[1]), _name(record), rows, tuple(int(each[1]) for each in own))
        if waiting is not None:
            raise ValueError(f"annotations of an image {waiting[0]} that is not there, or not in its place")


def _name(record: bytes) -> str:
    name = parse(record)["file_name"]
    if not isinstance(name, str):
        raise ValueError("a file name that is no text")
    return name
