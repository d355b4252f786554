"""`tipsseg eval` of images, from the command line to the scores; a small random model where one is needed."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from masks import files, ious, read, result, save, save_photo, scores
from running import Command

pytestmark = pytest.mark.usefixtures("no_weights_in_folder")

CLASSES = "panda leg,tree,sky"
IDS = {"background": 0, "panda leg": 1, "tree": 2, "sky": 3}


def test_labels_score_1_against_themselves(
    command: Command, process: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    model = ["-c", CLASSES, "-m", mlp_checkpoint, "--background", "none", "--device", "cpu"]
    assert command("label", pictures, *model, "-f", "png", "-o", "labels").code == 0
    written = files(tmp_path / "labels" / "masks")
    masks = {name: read(tmp_path / "labels" / "masks" / name).copy() for name in written}
    total = sum(mask.size for mask in masks.values())
    counts = np.bincount(np.concatenate([mask.ravel() for mask in masks.values()]), minlength=4)

    ran = command("eval", pictures, "--gt", "labels/masks", *model, "--json")
    record = result(ran)
    assert ious(ran) == {name: 1.0 for name, number in IDS.items() if counts[number]}
    assert (record["images"], record["failed"], record["pixels"]) == (3, 0, total)
    assert (record["mean_iou"], record["pixel_accuracy"], record["mean_accuracy"]) == (1.0, 1.0, 1.0)
    assert record["layout"] == "plain"
    assert (record["image_root"], record["gt"]) == (str(pictures), "labels/masks")
    assert str(record["labels"]).startswith("tipsseg label --model ")
    assert not {"command", "pred"} & set(record)

    alone = process("eval", pictures, "--gt", "labels/masks", *model, "--json", cwd=tmp_path)
    assert result(alone) == record
    assert "Checking 3 ground-truth masks." in alone.err


def test_a_benchmark_from_images_and_from_their_masks(
    command: Command, process: Command, mlp_checkpoint: Path, tmp_path: Path
) -> None:
    save_photo("VOC2012/JPEGImages/2007_1.jpg")
    truth = np.zeros((30, 40), np.uint8)
    truth[5:25, 5:20], truth[4, 5:20] = 15, 255
    save("VOC2012/SegmentationClass/2007_1.png", truth, palette=True)
    both = ["--gt", "VOC2012/SegmentationClass", "--layout", "voc21", "--json"]
    assert command("label", "VOC2012/JPEGImages", "--vocab", "voc21", "-m", mlp_checkpoint, "-o", "out").code == 0
    ran = command("eval", "VOC2012/JPEGImages", *both, "-m", mlp_checkpoint)
    record = result(ran)
    assert (record["layout"], record["images"], record["pixels"]) == ("voc21", 1, 30 * 40 - 15)
    assert "--vocab voc21" in str(record["labels"])
    again = process("eval", "--pred", "out", *both, cwd=tmp_path)
    assert scores(again) == scores(ran)
    assert again.err == "Checking 1 ground-truth mask.\nScoring 1 mask of out against VOC2012/SegmentationClass.\n"


@pytest.mark.parametrize("background", [None, "auto", "none", "road, sea"])
def test_the_command_in_the_record_makes_the_labels_that_were_scored(
    command: Command, mlp_checkpoint: Path, tmp_path: Path, background: str | None
) -> None:
    """Where the background was automatic, the command says so, rather than what it came to."""
    save_photo("imgs/a.jpg")
    save("gt/a.png", np.full((30, 40), 2))
    flags = [] if background is None else ["--background", background]
    ran = command("eval", "imgs", "--gt", "gt", "-c", CLASSES, "-m", mlp_checkpoint, *flags, "--json")
    record = result(ran)
    words = shlex.split(str(record["labels"]))
    assert words[:2] == ["tipsseg", "label"]
    assert words[words.index("--background") + 1] == {None: "auto", "road, sea": "road,sea"}.get(background, background)
    assert command(*words[1:], record["image_root"], "-o", "run").code == 0
    assert scores(command("eval", "--pred", "run", "--gt", record["gt"], "--json")) == scores(ran)


def test_bad_images_and_truths_of_another_size_are_reported_and_left_out(
    command: Command, mlp_checkpoint: Path, tmp_path: Path
) -> None:
    model = ["-c", CLASSES, "-m", mlp_checkpoint, "--background", "none", "--json"]
    for name in ("a", "broken", "other", "z"):
        save_photo(f"imgs/{name}.png")
        save(f"gt/{name}.png", np.full((30, 40), 1))
    good = scores(command("eval", "imgs/a.png", "imgs/z.png", "--gt", "gt", *model))
    assert good["images"] == 2
    Path("imgs/broken.png").write_bytes(b"")
    save("gt/other.png", np.full((40, 30), 1))
    ran = command("eval", "imgs", "--gt", "gt", *model, "--quiet")
    assert scores(ran, code=1) == {**good, "failed": 2}
    assert ran.err == (
        "Error: imgs/broken.png: empty file (0 bytes) (Download the image again, or remove the file.)\n"
        "Error: imgs/other.png: the labels are 30 x 40 (height x width), but the ground truth is 40 x 30 (gt/other.png) "
        "(The ground truth must have the size of the upright image.)\n"
    )
    ran = command("eval", "imgs", "--gt", "gt", *model)
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "The scores do not include 2 failed images."


def test_no_image_at_all_that_could_be_scored(command: Command, mlp_checkpoint: Path, tmp_path: Path) -> None:
    for name in ("broken", "other"):
        save_photo(f"imgs/{name}.png")
        save(f"gt/{name}.png", np.full((40, 30), 1))
    Path("imgs/broken.png").write_bytes(b"")
    arguments = ["eval", "imgs", "--gt", "gt", "-c", CLASSES, "-m", mlp_checkpoint, "--background", "none", "--quiet"]
    for flags in ([], ["--json"]):
        ran = command(*arguments, *flags)
        assert (ran.code, ran.out) == (1, "")
        first, second, *last = ran.err.splitlines()
        assert first.startswith("Error: imgs/broken.png: ")
        assert second.startswith("Error: imgs/other.png: ")
        assert last == [
            "Error: no image was scored; the first failure: imgs/broken.png: empty file (0 bytes)",
            "Hint: Download the image again, or remove the file.",
        ]
