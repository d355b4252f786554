"""What goes wrong in `tipsseg eval`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from masks import PRED, TRUTH, files, save, save_photo
from running import Command

from tipsseg.vocabulary.files import read_vocabulary

pytestmark = pytest.mark.usefixtures("no_weights_in_folder")


def save_masks() -> None:
    save("pred/a.png", PRED)
    save("gt/a.png", TRUTH)


def save_foreign_masks() -> None:
    """One of them has ids that are no class."""
    for name in "ab":
        save(f"gt/{name}.png", TRUTH)
    save("pred/a.png", PRED)
    save("pred/b.png", [[0, 3, 3, 0], [0, 9, 255, 2]])


def save_values() -> None:
    save_masks()
    save("gt/a.png", [[0, 100, 200, 0], [0, 0, 0, 254]])


def save_other_truth() -> None:
    save("pred/a.png", PRED)
    save("gt/b.png", TRUTH)


ARRANGE: dict[str, Callable[[], None]] = {
    "masks": save_masks,
    "values": save_values,
    "foreign": save_foreign_masks,
    "missing": save_other_truth,
}

MASKS = ["pred", "-c", "panda,tree"]

# name: (what lies in pred and gt, arguments, exit code, a part of stderr); imgs/a.jpg is there
WRONG: dict[str, tuple[str, list[str], int, str]] = {
    "photographs as ground truth": (
        "masks", [*MASKS, "--gt", "imgs"], 1,
        "Error: no ground-truth masks in imgs\nHint: Ground-truth masks are files with one of .png .tif .tiff .bmp.",
    ),
    "grey values": (
        "values", ["--gt", "gt", *MASKS], 1,
        "Error: gt/a.png: unknown ids: 100 (1 pixel), 200 (1 pixel), 254 (1 pixel)\n",
    ),
    "ids beyond the classes in a mask": (
        "foreign", [*MASKS, "--gt", "gt"], 1,
        "Error: pred/b.png: unknown ids: 3 (2 pixels), 9 (1 pixel)\nHint: Predicted masks have 0 for background, 1..2 for",
    ),
    "no ground truth at all": (
        "missing", ["--gt", "gt", *MASKS], 1,
        "Error: no ground truth for pred/a.png in gt: looked for a with one of .png .tif .tiff .bmp\nHint: Give each mask",
    ),
    "labels and truth in one folder": (
        "masks", ["gt", "--gt", "gt", "-c", "panda,tree"], 2, "Error: gt holds both the labels and the ground truth\n",
    ),
    "masks without names": (
        "masks", ["pred", "--gt", "gt"], 2,
        "Error: the masks in pred have no classes.json that names their ids\nHint: Set the classes with --classes, --vocab or",
    ),
    "no labels": ("masks", ["--gt", "gt"], 2, "Error: Missing argument 'OUT'.\n"),
    "photographs as labels": ("masks", ["imgs", "--gt", "gt", "-c", "panda,tree"], 1, "imgs/a.jpg: "),
    "unknown layout": (
        "masks", ["pred", "--gt", "gt", "--layout", "voc22"], 2,
        "Error: unknown layout 'voc22'\nHint: Did you mean 'voc21'? The layouts are",
    ),
    "layout and its classes in another order": (
        "masks", ["pred", "--gt", "gt", "--layout", "voc20", "--vocab", "turned.txt"], 2,
        "Error: the vocabulary lists the classes of voc20 in a different order\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_mistakes(command: Command, tmp_path: Path, case: str) -> None:
    arranged, arguments, code, part = WRONG[case]
    save_photo("imgs/a.jpg", 2, 4)
    turned = [entry.name for entry in reversed(read_vocabulary("voc20").classes)]
    Path("turned.txt").write_text("\n".join(turned))
    ARRANGE[arranged]()
    before = files(tmp_path)
    ran = command("eval", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert part in ran.err
    assert files(tmp_path) == before


@pytest.mark.usefixtures("masks")
def test_the_truth_option_is_required(command: Command) -> None:
    ran = command("eval", "pred", "-c", "panda,tree")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("\nError: Missing option '--gt'.\n")
