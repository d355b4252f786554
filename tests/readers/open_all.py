"""Open label files with third-party tools, compare what they read with the masks, and print the first table of README.md.

    pip install '.[readers]' && python tests/readers/open_all.py [TOOL...]

Labels the example scenes, including ignored pixels, with the embedded model. Computes the IoU of each class for each tool and
format. The exit code is 1 if a tool cannot read a format, or if an IoU is below its limit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path += [str(REPOSITORY / "tests" / "support"), str(REPOSITORY / "tests" / "readers")]

from comparing import lowest_iou
from tools import HEAVY, LIGHT, Reader

IMAGES = REPOSITORY / "examples" / "scenes"
OPTIONS = ("-c", "panda leg,tree,sky", "-m", "tiny", "--device", "cpu", "--min-confidence", "0.5", "--quiet")


def main(tools: Sequence[str]) -> int:
    """Print the table. Return the exit code."""
    readers = [reader for reader in (*LIGHT, *HEAVY) if not tools or reader.tool in tools]
    formats = ",".join(dict.fromkeys(("png", *(reader.format for reader in readers))))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = [sys.executable, "-m", "tipsseg", "label", str(IMAGES), *OPTIONS, "-f", formats, "-o", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results = {reader: attempt(reader, out) for reader in readers}
    print("| tool | `--format` | how to load it | images | lowest IoU |\n|---|---|---|---|---|")
    for reader, (images, iou) in results.items():
        version = metadata.version(reader.tool)
        print(f"| {reader.tool} {version} | `{reader.format}` | {reader.how} | {images} | {iou:.4f} |")
    return int(any(iou < reader.least for reader, (_, iou) in results.items()))


def attempt(reader: Reader, out: Path) -> tuple[int, float]:
    """Return the number of images that a tool read, and the lowest IoU of a class in any of them. Print errors and return zeros."""
    try:
        with redirect_stdout(sys.stderr):  # some tools print
            labels = reader.read(out, IMAGES)
        return len(labels), lowest_iou(out, reader.format, labels)
    except Exception as error:  # a tool may raise anything
        print(f"{reader.tool}, {reader.format}: {type(error).__name__}: {error}", file=sys.stderr)
        return 0, 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
