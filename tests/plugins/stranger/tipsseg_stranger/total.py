"""A command of somebody else: count the images of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tipsseg.ask import Ask, verb
from tipsseg.folder.read import open_run
from tipsseg.options.fields import Opt
from tipsseg.verbs.shared import Labelled

_Unit = Annotated[str, Opt(metavar="WORD", help="What to call an image.")]


@dataclass(frozen=True)
class Total:
    images: int
    unit: str
    failed: int = 0

    def table(self) -> str:
        return f"{self.images} {self.unit}\n"


@verb("total")
def total(ask: Ask, output: Labelled, *, unit: _Unit = "images") -> Total:
    """Count the labelled images of a folder."""
    with open_run(output) as run:
        return Total(len(run), unit)
