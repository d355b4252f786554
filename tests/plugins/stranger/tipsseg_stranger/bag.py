"""A container of somebody else: pictures in a file of JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from tipsseg.images.containers import Container, Member
from tipsseg.options.values import Every


class Bag(Container):
    def __init__(self, path: Path) -> None:
        self._pictures = json.loads(path.read_text())

    def members(self, every: Every | None) -> Iterator[Member]:
        yield from map(Member, self._pictures)

    def open(self, name: str) -> BytesIO:
        if name not in self._pictures:
            raise FileNotFoundError("no such picture in the bag")
        return BytesIO(base64.b64decode(self._pictures[name]))
