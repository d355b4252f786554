"""Images whose names differ in their suffix alone: refused only where their files would be one, and never with --names full."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Command

from tipsseg.formats import IMAGE_FORMATS

NAMES = ("a.jpg", "a.png", "s/b.png")
LABEL = ("label", "imgs", "-c", "a,b", "--background", "none", "--quiet")


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    for name in NAMES:
        Path("imgs", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)).save(Path("imgs", name))


def images_of(file: Path) -> list[str]:
    return [image["file_name"] for image in json.loads(file.read_text())["images"]]


def files_in(folder: str) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if not path.is_dir() and path.name != "cache.db"
    )


@pytest.mark.parametrize("formats", ["png,coco", "coco,label-studio"])
def test_images_that_would_share_a_mask_are_refused(command: Command, mlp_checkpoint: Path, formats: str) -> None:
    """Each image has a mask, whatever the formats."""
    shutil.copy("imgs/s/b.png", "imgs/s/b.jpg")
    ran = command(*LABEL, "-m", mlp_checkpoint, "-f", formats, "-o", "out")
    assert (ran.code, Path("out/masks").exists()) == (1, False)
    assert ran.err.startswith("Error: imgs/a.jpg and imgs/a.png would share one output, a (and 1 more such pair)\n")
    assert "--names=full" in ran.err
    assert command(*LABEL, "-m", mlp_checkpoint, "-f", formats, "-o", "out", "--names", "full").code == 0
    assert images_of(Path("out/annotations.json")) == [*NAMES[:2], "s/b.jpg", NAMES[2]]
    assert command("check", "out").code == 0


def test_full_names_hold_through_all_commands(command: Command, mlp_checkpoint: Path) -> None:
    model = ("-m", mlp_checkpoint)
    ran = command(*LABEL, *model, "--names", "full", "-f", "png,coco", "-o", "out")
    assert (ran.code, ran.err) == (0, "")
    masks = [f"{name}.png" for name in NAMES]
    assert files_in("out/masks") == masks
    assert json.loads(Path("out/run.json").read_text())["options"]["names"] == "full"

    before = {name: Path("out/masks", name).stat().st_mtime_ns for name in masks}
    assert command(*LABEL, *model, "--names", "full", "-f", "png,coco", "-o", "out").code == 0
    assert {name: Path("out/masks", name).stat().st_mtime_ns for name in masks} == before
    ran = command(*LABEL, *model, "-f", "png,coco", "-o", "out")
    assert ran.code == 1  # names of another kind in one folder

    others = [name for name in IMAGE_FORMATS if name not in ("png", "coco", "npz", "confidence")]
    ran = command("convert", "out", "-f", ",".join(others), "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert files_in("out/yolo") == [
        "data.yaml", "images/train/a.jpg.jpg", "images/train/a.png.png", "images/train/s/b.png.png",
        "labels/train/a.jpg.txt", "labels/train/a.png.txt", "labels/train/s/b.png.txt",
    ]  # fmt: skip
    assert files_in("out/labelme")[:4] == ["a.jpg.jpg", "a.jpg.json", "a.png.json", "a.png.png"]
    assert json.loads(Path("out/labelme/a.jpg.json").read_text())["imagePath"] == "a.jpg.jpg"
    assert files_in("out/hf/images") == [*NAMES]
    assert Path("out/cvat/ImageSets/Segmentation/default.txt").read_text().split() == [*NAMES]
    panoptic = json.loads(Path("out/panoptic.json").read_text())
    assert [each["file_name"] for each in panoptic["annotations"]] == masks
    ran = command("check", "out")
    assert ran.code == 0, ran.out + ran.err

    for part in (1, 2):
        with_part = (*LABEL, *model, "--names", "full", "-f", "png,coco", "-o", "parts", "--shard", f"{part}/2")
        assert command(*with_part).code == 0
    ran = command("eval", "parts", "--gt", "out/masks", "-c", "a,b", "--quiet")
    assert (ran.code, ran.err) == (0, "")  # the last shard leaves a folder as one run does
    assert files_in("parts/masks") == masks
    assert command("check", "parts").code == 0

    listed = "\n".join(f"imgs/{name}" for name in NAMES).encode()
    ran = command("label", "-", *LABEL[2:], *model, "--names", "full", "-o", "list", stdin=listed)
    assert (ran.code, ran.err) == (0, "")
    assert files_in("list/masks") == [f"imgs/{name}" for name in masks]

    ran = command("label", "imgs", *model, "--from", "out/run.json", "-f", "png", "-o", "again", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert files_in("again/masks") == masks


def test_scores_of_masks_with_full_names(command: Command, mlp_checkpoint: Path) -> None:
    """Each is of the image with its whole name, whose truth may be named with or without its suffix."""
    command(*LABEL, "-m", mlp_checkpoint, "--names", "full", "-f", "png", "-o", "out")
    for gt, suffix in (("full", True), ("short", False)):
        for name in ("a.jpg", "a.png", "s/b.png") if suffix else ("a.jpg", "s/b.png"):
            truth = Path(gt, f"{name}.png" if suffix else str(Path(name).with_suffix(".png")))
            truth.parent.mkdir(parents=True, exist_ok=True)
            truth.write_bytes(Path("out/masks", f"{name}.png").read_bytes())
    for pred in ("out", "out/masks"):
        ran = command("eval", pred, "--gt", "full", "--json", "-q")
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out)["pixel_accuracy"] == 1
    ran = command("eval", "out", "--gt", "short", "-q")
    assert ran.code == 1
    assert "'a' could belong to a.jpg, a.png" in ran.err


def test_runs_of_other_names_are_not_joined(command: Command, mlp_checkpoint: Path) -> None:
    for name, choice in (("s", "full"), ("t", "stem")):
        Path("imgs/s").rename(f"{name}x")
        ran = command("label", f"{name}x", *LABEL[2:], "-m", mlp_checkpoint, "--names", choice, "-o", name)
        assert (ran.code, ran.err) == (0, "")
        Path(f"{name}x").rename("imgs/s")
    ran = command("merge", "s", "t", "-o", "both", "--quiet")
    assert ran.code == 1
    assert "names full / stem" in ran.err
