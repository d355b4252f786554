"""Entries of images, as the masks of a folder have them."""

from __future__ import annotations

from pathlib import Path

from tipsseg.folder.entry import Entry
from tipsseg.folder.read import open_run


def read_entries(folder: Path) -> dict[str, Entry]:
    """What the masks of a folder say of themselves, by name."""
    with open_run(folder, ended=False, blocks=True) as run:
        return {entry.image: entry for entry in run.cache.entries()}
