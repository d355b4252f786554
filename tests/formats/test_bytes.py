"""The text files of every format, byte by byte, as they lie in `expected`. Pictures are compared by what is in them, elsewhere.

PYTHONPATH=tests/support python tests/formats/test_bytes.py     # writes the expected files again; look at their diff
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from output_folders import make_run, save_inputs

from tipsseg.folder import record
from tipsseg.formats import FORMATS, IMAGE_FORMATS
from tipsseg.options.records import FileOptions
from tipsseg.types import LabelArray

EXPECTED = Path(__file__).parent / "expected"

NAMES = ("panda leg", 'a "tree", <big> & \N{SNOWMAN}', "bench")
RING: LabelArray = np.array(
    [
        [1, 1, 1, 1, 0, 2],
        [1, 0, 0, 1, 0, 2],
        [1, 0, 3, 1, 2, 0],
        [1, 1, 1, 1, 0, 0],
        [255, 0, 0, 0, 0, 1],
    ],
    np.uint8,
)
LABELS = {"a.png": RING, "sub/b ü.png": np.zeros((2, 3), np.uint8)}
OPTIONS = {"component": FileOptions(), "class": FileOptions(instances="class")}


def text_files(folder: Path) -> dict[str, bytes]:
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".txt", ".yaml", ".xml", ".csv")
    )
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: data for name, data in found.items() if name not in ("run.json", "manifest.jsonl")}


def write(root: Path, instances: str) -> None:
    save_inputs(root / "imgs", LABELS)
    with patch.object(record, "__version__", "0"):  # several files name the version
        make_run(root / "out", root / "imgs", LABELS, NAMES, IMAGE_FORMATS, options=OPTIONS[instances])


@pytest.mark.parametrize("instances", OPTIONS)
def test_the_bytes_are_the_expected_ones(tmp_path: Path, instances: str) -> None:
    write(tmp_path, instances)
    found, expected = text_files(tmp_path / "out"), text_files(EXPECTED / instances)
    assert found.keys() == expected.keys()
    for name, data in expected.items():
        assert found[name] == data, name
    assert {file for each in FORMATS.values() for file in each.files} <= found.keys()


def write_expected() -> None:
    for instances in OPTIONS:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), instances)
            for name, data in text_files(Path(folder, "out")).items():
                place = EXPECTED / instances / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)


if __name__ == "__main__":
    write_expected()
