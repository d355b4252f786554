"""Label files as other tools read them: what they make of it is what the masks say. `tests/readers/open_all.py` has more tools."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from comparing import lowest_iou
from output_folders import make_run, save_inputs
from tools import HEAVY, LIGHT, Reader

from tipsseg.options.records import FileOptions
from tipsseg.types import LabelArray

README = Path(__file__).resolve().parents[1] / "readers" / "README.md"

# What the tools themselves do in a way that will not do for ever.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

CLASSES = ('the "left" leg', "ü & tree / oak", "sky, blue")


def blobs(seed: int, height: int, width: int) -> LabelArray:
    """Smooth regions of three classes, some within others, with a few ignored pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels: LabelArray = np.zeros((height, width), np.uint8)
    for number in range(9):
        top, left, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(9, 20)
        labels[(y - top) ** 2 + (x - left) ** 2 < radius**2] = number % 4
    labels[:2, :5] = 255
    return labels


LABELS: Mapping[str, LabelArray] = {
    "a.png": blobs(1, 96, 128),
    "b/ü 1.jpg": blobs(2, 120, 80),
    "b/c/d.e.png": blobs(3, 64, 64),
    "nothing.png": np.zeros((40, 30), np.uint8),
}


@pytest.fixture(scope="module", params=["component", "class"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labels")
    save_inputs(root / "imgs", LABELS)
    formats = tuple(dict.fromkeys(("png", *(each.format for each in LIGHT))))
    make_run(root / "out", root / "imgs", LABELS, CLASSES, formats, options=FileOptions(instances=request.param))
    return root


@pytest.mark.parametrize("reader", LIGHT, ids=lambda each: f"{each.tool} {each.format}")
def test_a_tool_makes_of_it_what_the_masks_say(root: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_DATASETS_OFFLINE", "1")
    found = reader.read(root / "out", root / "imgs")
    of_one_folder = {name for name in LABELS if "/" not in name}
    assert found.keys() == (of_one_folder if reader.format == "yolo" else LABELS.keys())
    assert lowest_iou(root / "out", reader.format, found) >= reader.least


def test_the_readme_says_how_to_load_each() -> None:
    rows = [[cell.strip() for cell in line.split(" | ")] for line in README.read_text("utf-8").splitlines()]
    said = {(row[0].removeprefix("| ").split(" ")[0], *row[1:3]) for row in rows if len(row) == 5}
    assert {(each.tool, f"`{each.format}`", each.how) for each in (*LIGHT, *HEAVY)} <= said
