"""Opens label files with the tools that they are for, and prints what came of it as the table in the README.

    pip install '.[readers]' && python tests/readers/open_all.py [TOOL...]

Labels the example scenes with the embedded model, ignored pixels among the rest, and compares what each tool makes of each format
with the masks, class by class. Ends with 1 where a tool cannot read a format, or makes less of it than it should.
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

from comparing import least_iou
from tools import HEAVY, LIGHT, Reader

IMAGES = REPOSITORY / "examples" / "scenes"
OPTIONS = ("-c", "panda leg,tree,sky", "-m", "tiny", "--device", "cpu", "--min-confidence", "0.5", "--quiet")


def main(tools: Sequence[str]) -> int:
    """Returns the exit code."""
    readers = [each for each in (*LIGHT, *HEAVY) if not tools or each.tool in tools]
    formats = ",".join(dict.fromkeys(("png", *(each.format for each in readers))))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = [sys.executable, "-m", "tipsseg", "label", str(IMAGES), *OPTIONS, "-f", formats, "-o", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = {each: attempt(each, out) for each in readers}
    print("| tool | `--format` | how to load it | images | least IoU |\n|---|---|---|---|---|")
    for reader, (images, iou) in found.items():
        version = metadata.version(reader.tool)
        print(f"| {reader.tool} {version} | `{reader.format}` | {reader.how} | {images} | {iou:.4f} |")
    return int(any(iou < reader.least for reader, (_, iou) in found.items()))


def attempt(reader: Reader, out: Path) -> tuple[int, float]:
    """How many images a tool took, and the least IoU of a class in one of them with the mask; 0 where it failed, which is told."""
    try:
        with redirect_stdout(sys.stderr):  # some talk
            found = reader.read(out, IMAGES)
        return len(found), least_iou(out, reader.format, found)
    except Exception as error:  # whatever a foreign tool raises
        print(f"{reader.tool}, {reader.format}: {type(error).__name__}: {error}", file=sys.stderr)
        return 0, 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
