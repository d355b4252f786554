"""What goes wrong in `tipsseg eval`, before anything is labelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from masks import PRED, TRUTH, files, save, save_photo
from running import Command

from tipsseg.cli.commands.evaluate import evaluate
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


ARRANGE: dict[str, Callable[[], None]] = {
    "masks": save_masks,
    "colour": lambda: save_photo("gt/a.png", 2, 4),
    "values": lambda: save("gt/a.png", [[0, 100, 200, 0], [0, 0, 0, 254]]),
    "empty": lambda: Path("gt").mkdir(),
    "foreign": save_foreign_masks,
    "missing": lambda: save("gt/b.png", TRUTH),
    "nothing": lambda: None,
}

MODEL = ["imgs", "-c", "panda,tree", "-m", "l14"]
MASKS = ["--pred", "pred", "-c", "panda,tree"]

# name: (what lies in gt, arguments, exit code, a part of stderr); imgs/a.jpg is there. The model would have to be downloaded.
WRONG: dict[str, tuple[str, list[str], int, str]] = {
    "images and truth swapped": (
        "masks", ["gt", "--gt", "imgs", "-c", "panda,tree", "-m", "l14"], 1,
        "Error: no ground-truth masks in imgs\nHint: Ground-truth masks are files with one of .png .tif .tiff .bmp.",
    ),
    "grey values": (
        "values", ["--gt", "gt", *MODEL], 1,
        "Error: gt/a.png: unknown ids: 100 (1 pixel), 200 (1 pixel), 254 (1 pixel)\n",
    ),
    "ids beyond the classes in a mask": (
        "foreign", [*MASKS, "--gt", "gt"], 1,
        "Error: pred/b.png: unknown ids: 3 (2 pixels), 9 (1 pixel)\nHint: Predicted masks have 0 for background, 1..2 for",
    ),
    "no ground truth for an image": (
        "missing", ["--gt", "gt", *MODEL], 1,
        "Error: no ground truth for imgs/a.jpg in gt: looked for a with one of .png .tif .tiff .bmp\nHint: Give each mask",
    ),
    "truth and images in one folder": (
        "masks", ["gt", "--gt", "gt", "-c", "panda,tree"], 1, "Error: gt/a.png would be its own ground truth\n",
    ),
    "masks without names": (
        "masks", ["--pred", "pred", "--gt", "gt"], 2,
        "Error: the masks in pred have no classes.json that names their ids\nHint: Set the classes with --classes, --vocab or",
    ),
    "neither images nor masks": ("masks", ["--gt", "gt"], 2, "Error: nothing to score: no images and no --pred\n"),
    "unknown layout": (
        "masks", ["imgs", "--gt", "gt", "--layout", "voc22"], 2,
        "Error: unknown layout 'voc22'\nHint: Did you mean 'voc21'? The layouts are",
    ),
    "layout and its classes in another order": (
        "masks", ["imgs", "--gt", "gt", "--layout", "voc20", "--vocab", "turned.txt"], 2,
        "Error: the vocabulary lists the classes of voc20 in a different order\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_found_before_any_work(command: Command, tmp_path: Path, case: str) -> None:
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


#: Options that mean something beside masks.
_BESIDE_MASKS = frozenset({
    "as_json", "classes", "gt", "help", "help_all", "ignore_index", "jobs", "layout", "max_pixels", "paths", "pred",
    "quiet", "reduce_zero_label", "vocab", "zero_based",
})  # fmt: skip

#: A value for options of labelling; the others take their default.
_VALUES = {
    "batch_size": "8",
    "background": "none",
    "features": "feats",
    "short_side": "448",
    "stretch": "2,98",
}


@pytest.mark.usefixtures("masks")
def test_every_other_option_is_refused_beside_masks(command: Command) -> None:
    """Also with their default values."""
    left = {param.name: param for param in typer.main.get_command(evaluate).params if param.name not in _BESIDE_MASKS}
    assert left.keys() >= {"model", "mode", "regions", "null"}
    for name, param in left.items():
        flag = next(option for option in param.opts if option.startswith("--"))
        value = [] if name in ("null", "regions_only") else [_VALUES.get(name, str(param.default))]
        ran = command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree", flag, *value)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == f"Error: {flag} is for labelling, but --pred scores existing masks\n"


@pytest.mark.usefixtures("masks")
def test_the_truth_option_is_required(command: Command) -> None:
    ran = command("eval", "--pred", "pred", "-c", "panda,tree")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("\nError: Missing option '--gt'.\n")
