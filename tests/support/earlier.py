"""Output folders that an earlier version of tipsseg wrote, kept in `earlier.tar.gz` beside the tests that open them.

    python tests/support/earlier.py TREE     # writes the archive again, by the tipsseg of that tree

The archive was made by the tree of commit 3abd002, whose folders had no .tipsseg/ and YOLO's images/ in each sub-folder. It has

    photos    two pictures, a.png and b/c.png
    fixed     a mask that a person corrected, a.png
    out       their labels in png, coco, hf, labelme and yolo, with the correction taken in and converted
    shards    their labels in png and coco, as two shards that are not joined

Records have @TOP@ for the folder that all this is in. `unpack` puts the real one there, and gives files the times of their records.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ARCHIVE = Path(__file__).resolve().parents[1] / "cli" / "earlier.tar.gz"
CLASSES = "tree,sky,grass"
FORMATS = "png,coco,hf,labelme,yolo"

#: What labels the photographs in the way of the folder.
LABEL = ("label", "photos", "-m", "tiny", "--device", "cpu", "-c", CLASSES, "--min-area", "0")

_TOP = "@TOP@"
_RECORDS = ("run.json", "manifest.jsonl")


def unpack(top: Path) -> None:
    """Put photos, fixed, out and shards into a folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(top, filter="data")
    for path in _records(top):
        path.write_text(path.read_text("utf-8").replace(_TOP, json.dumps(str(top))[1:-1]), "utf-8")
    for path, time in _times(top):
        os.utime(path, ns=(time, time))


def make(tree: Path) -> None:
    """Write the archive, by the tipsseg of a tree."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        _draw(top / "photos" / "a.png", 40, 60)
        _draw(top / "photos" / "b" / "c.png", 56, 48)

        def run(*arguments: str) -> None:
            command = [sys.executable, "-m", "tipsseg", *arguments]
            subprocess.run(command, check=True, cwd=top, env={**os.environ, "PYTHONPATH": str(tree)})

        run(*LABEL, "-f", FORMATS, "-o", "out")
        (top / "fixed").mkdir()
        with Image.open(top / "out/masks/a.png") as mask:
            ids = np.array(mask)
        ids[:10, :20] = 1
        Image.fromarray(ids).save(top / "fixed/a.png")
        run("correct", "out", "--from", "fixed")
        run("convert", "out", "-f", FORMATS)
        for shard in ("1/2", "2/2"):
            run(*LABEL, "-f", "png,coco", "--shard", shard, "-o", "shards")
        for path in _records(top):
            path.write_text(path.read_text("utf-8").replace(str(top), _TOP), "utf-8")
        with tarfile.open(ARCHIVE, "w:gz", format=tarfile.PAX_FORMAT) as archive:
            for name in ("photos", "fixed", "out", "shards"):
                archive.add(top / name, name, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _draw(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (width, height), (90, 160, 220))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, height * 2 // 3, width, height), fill=(60, 150, 60))
    draw.ellipse((width // 4, height // 4, width // 2, height * 3 // 4), fill=(200, 60, 50))
    picture.save(path)


def _records(top: Path) -> Iterator[Path]:
    return (path for name in _RECORDS for path in top.rglob(name))


def _times(top: Path) -> Iterator[tuple[Path, int]]:
    """The files that records have a time of, with that time. Of a file that a person changed it is another file's."""
    for path in _records(top):
        output = path.parents[2] if path.parent.parent.name == "shards" else path.parent
        if path.name == "run.json":
            for name, record in json.loads(path.read_bytes())["files"].items():
                yield output / name, record["mtime_ns"]
            continue
        for line in path.read_bytes().splitlines():
            entry = json.loads(line)
            yield Path(entry["path"]), entry["mtime_ns"]
            yield from _written(output, entry)


def _written(output: Path, entry: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[Path, int]]:
    for name, record in entry["written"].items():
        path = output / str(entry["files"][name])
        assert isinstance(record, dict)
        if path.stat().st_size == record["bytes"]:
            yield path, record["mtime_ns"]


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
