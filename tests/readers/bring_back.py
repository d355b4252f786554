"""Open and save labels in labelling tools without edits, and print the changes as the table of round trips in README.md.

    pip install '.[readers]' && python tests/readers/bring_back.py [TOOL...]

Labels the example scenes with the embedded model, and reads the saved labels back, which must not correct any mask. The exit
code is 1 if a tool fails, or if a mask would be corrected.
"""

from __future__ import annotations

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

from round_trips import ROUND_TRIPS, RoundTrip

import tipsseg

OPTIONS = ("-c", "panda leg,tree,sky", "-m", "tiny", "--device", "cpu", "--min-confidence", "0.5", "--quiet")
FORMATS = "png,hf,coco,coco-polygon,cvat,labelme,label-studio"


def main(tools: Sequence[str]) -> int:
    """Print the table. Return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        images, outs = Path(folder, "photos"), {"component": Path(folder, "out"), "class": Path(folder, "whole")}
        images.mkdir()
        for path in sorted((REPOSITORY / "examples" / "scenes").rglob("*.*")):
            shutil.copy(path, images / f"{path.parent.name}-{path.name}")  # some tools ignore folders
        for kind, out in outs.items():
            command = [sys.executable, "-m", "tipsseg", "label", str(images), *OPTIONS, "-f", FORMATS]
            command += ["--instances", kind, "-o", str(out)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print("| tool | round trip | objects redrawn | masks corrected |\n|---|---|---|---|")
        good = [
            attempt(trip, outs["class" if trip.whole else "component"], images, folder)
            for trip in ROUND_TRIPS
            if not tools or trip.tool in tools
        ]
    return int(not all(good))


def attempt(trip: RoundTrip, out: Path, images: Path, folder: str) -> bool:
    """Print the row of a tool. Return True if no mask would be corrected."""
    name = f"{trip.tool} {metadata.version(trip.tool)} | {trip.steps}"
    try:
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(dir=folder) as target:  # some tools print
            saved = trip.run(out, images, Path(target))
            corrected = tipsseg.review.correct_folder(out, saved, source_format=trip.form, dry_run=True)
    except Exception as error:  # a tool may raise anything
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    print(f"| {name} | {len(corrected.redrawn)} | {len(corrected.masks)} |", flush=True)
    return not corrected.masks


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
