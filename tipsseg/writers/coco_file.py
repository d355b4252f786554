"""Reads annotations.json back, line by line: memory does not grow with the number of images or annotations.

Only as `coco.CocoRunFile` writes it, one record a line, annotations in the order of their images; anything else is a ValueError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO

from tipsseg.writers import Records

_IMAGE = re.compile(rb'\{"id": (\d+), ("file_name": .*\})')
_ANNOTATION = re.compile(rb'\{"id": (\d+), "image_id": (\d+), (.*\})')


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of the file.

    id           its own
    name         its file name
    records      as `coco.CocoWriter` makes them: that of the image, then its annotations
    annotations  their ids
    """

    id: int
    name: str
    records: Records
    annotations: tuple[int, ...]


def names(path: Path) -> Iterator[str]:
    """The file names of the images. Raises OSError and ValueError."""
    with path.open("rb") as file:
        for line in _section(file, b"images"):
            yield _name(b"{" + _match(_IMAGE, line)[2])


def read(path: Path) -> Iterator[tuple[str, Records]]:
    """Each image's file name with its records. Raises OSError and ValueError."""
    for image in images(path):
        yield image.name, image.records


def images(path: Path) -> Iterator[CocoImage]:
    """The images in the order of the file. Raises OSError and ValueError."""
    with path.open("rb") as file, path.open("rb") as beside:
        annotations = (_match(_ANNOTATION, line) for line in _section(beside, b"annotations"))
        grouped = groupby(annotations, key=lambda match: int(match[2]))
        waiting = next(grouped, None)
        for line in _section(file, b"images"):
            image = _match(_IMAGE, line)
            own: list[re.Match[bytes]] = []
            if waiting is not None and waiting[0] == int(image[1]):
                own = list(waiting[1])
                waiting = next(grouped, None)
            record = b"{" + image[2]
            records = (record, *(b"{" + match[3] for match in own))
            yield CocoImage(int(image[1]), _name(record), records, tuple(int(match[1]) for match in own))
        if waiting is not None:
            raise ValueError(f"annotations of an image {waiting[0]} that is not there, or not in its place")


def _name(record: bytes) -> str:
    name = json.loads(record)["file_name"]
    if not isinstance(name, str):
        raise ValueError("a file name that is no text")
    return name


def _section(file: IO[bytes], key: bytes) -> Iterator[bytes]:
    """The records of a list in the file, from its beginning."""
    first = b'"' + key + b'": ['
    for line in file:
        if line.startswith(first):
            if line.startswith(first + b"]"):
                return
            break
    more = True
    for line in file:
        if more == line.startswith(b"]"):
            raise ValueError(f"a comma too many or too few in the list {key.decode()!r}")
        if not more:
            return
        record = line.rstrip(b"\n")
        more = record.endswith(b",")
        yield record.removesuffix(b",")
    raise ValueError(f"no whole list {key.decode()!r} in the file")


def _match(pattern: re.Pattern[bytes], line: bytes) -> re.Match[bytes]:
    match = pattern.fullmatch(line)
    if match is None:
        raise ValueError(f"a record that is none: {line[:40].decode('utf-8', 'replace')!r}")
    return match
