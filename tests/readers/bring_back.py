"""Sends labels through the tools that people correct with, edits nothing, and prints what comes back as the table in the README.

    pip install '.[readers]' && python tests/readers/bring_back.py [TOOL...]

Labels the example scenes with the embedded model. What a tool saved is taken back twice: with `--exact`, which shows what the tool
moved, and without, where nothing may move. Ends with 1 where a tool fails, or where a mask would be corrected.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path += [str(REPOSITORY / "tests" / "support"), str(REPOSITORY / "tests" / "readers")]

from loops import LOOPS, ThroughATool

import tipsseg

OPTIONS = ("-c", "panda leg,tree,sky", "-m", "tiny", "--device", "cpu", "--min-confidence", "0.5", "--quiet")
FORMATS = "png,hf,coco,coco-polygon,cvat,labelme,label-studio"


def main(tools: Sequence[str]) -> int:
    """Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder, "photos"), Path(folder, "out")
        images.mkdir()
        for path in sorted((REPOSITORY / "examples" / "scenes").rglob("*.*")):
            shutil.copy(path, images / f"{path.parent.name}-{path.name}")  # some tools know file names alone
        command = [sys.executable, "-m", "tipsseg", "label", str(images), *OPTIONS, "-f", FORMATS, "-o", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        objects = len(json.loads((out / "annotations.json").read_bytes())["annotations"])
        print(f"| tool | way | moved by it: masks | pixels | most in a mask | of {objects} objects kept | corrected |")
        print("|---|---|---|---|---|---|---|")
        good = [attempt(each, out, images, folder) for each in LOOPS if not tools or each.tool in tools]
    return int(not all(good))


def attempt(loop: ThroughATool, out: Path, images: Path, folder: str) -> bool:
    """Print the line of a tool; returns whether nothing moved."""
    name = f"{loop.tool} {metadata.version(loop.tool)} | {loop.way}"
    try:
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(dir=folder) as place:  # some talk
            saved = loop.run(out, images, Path(place))
            exact = tipsseg.review.correct_folder(out, saved, source_format=loop.form, exact=True, dry_run=True)
            taken = tipsseg.review.correct_folder(out, saved, source_format=loop.form, dry_run=True)
    except Exception as error:  # whatever a foreign tool raises
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    pixels = [mask.changed for mask in exact.masks]
    moved = f"{len(pixels)} | {sum(pixels)} | {max(pixels, default=0)}"
    print(f"| {name} | {moved} | {len(taken.redrawn)} | {len(taken.masks)} |", flush=True)
    return not taken.masks


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
