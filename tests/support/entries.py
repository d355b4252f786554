"""Entries of images, read from the record of a folder."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tipsseg.run.entry import Entry
from tipsseg.run.state import State


def read_entries(folder: Path) -> dict[str, Entry]:
    """The records of the images of a folder, by name."""
    with closing(State(folder)) as state:
        return {entry.image: entry for entry in state.entries()}
