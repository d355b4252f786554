"""A command that is run again and again, and what it leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from running import Command

from tipsseg.folder.files import TRASH
from tipsseg.types import name_order

CLASSES = "panda leg,tree,sky"
ALL = ["a.png", "sub/b c.jpg", "sub/ü.bmp"]


def contents(folder: Path) -> dict[str, bytes]:
    """All files but for run.json, which has times, the cache, and the trash."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("run.json", "cache.db") and TRASH not in path.relative_to(folder).parts
    }


def record(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "run.json").read_bytes())
    return found


@dataclass
class Run:
    """The command that is run again and again, and what it did."""

    command: Command
    model: Path
    labelled: list[str]

    def __call__(self, *extra: object, output: str = "out", options: tuple[object, ...] = ("-c", CLASSES)) -> str:
        """What it said on stderr; `labelled` are the images that went through the model."""
        self.labelled.clear()
        ran = self.command("label", "imgs", *options, "-m", self.model, "--device", "cpu", "-o", output, *extra)
        self.labelled.sort(key=name_order)  # several threads make labels
        self.code, self.out = ran.code, ran.out
        return ran.err


def tree(folder: str | Path) -> dict[str, object]:
    """All that is below a folder, links as links."""

    def what(path: Path) -> object:
        return path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None

    return {
        str(path.relative_to(folder)): what(path)
        for path in sorted(Path(folder).rglob("*"))
        if path.is_symlink() or (not path.is_dir() and path.name != "cache.db")
    }


def correct(path: Path) -> bytes:
    """Another class in one corner of a mask."""
    with Image.open(path) as picture:
        ids = np.array(picture)
    ids[:9, :9] = 1 + (ids[:9, :9] == 1)
    Image.fromarray(ids).save(path)
    return path.read_bytes()
