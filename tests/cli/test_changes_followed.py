"""What follows in other formats from a change of an image or of a mask, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resuming import ALL, CLASSES, Run, correct, tree

#: The formats of a run, to which conversions add others.
FIRST = ("-f", "png,coco")


def make_other(path: Path) -> None:
    """Another image in the place of one."""
    with Image.open(path) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


def change_image(run: Run) -> None:
    make_other(Path("imgs/a.png"))
    run(*FIRST)


def correct_and_replace(run: Run) -> None:
    correct(Path("out/masks/a.png"))
    run.command("convert", "out", "-f", "yolo")
    run(*FIRST, "--replace-edited")


def correct_and_take_back(run: Run) -> None:
    mask = Path("out/masks/a.png")
    before = mask.read_bytes()
    correct(mask)
    run.command("convert", "out", "-f", "yolo")
    mask.write_bytes(before)
    run(*FIRST)


RELABELLED: dict[str, Callable[[Run], object]] = {
    "an image that was changed": change_image,
    "other options": lambda run: run(*FIRST, "--mode", "whole"),
    "a correction that was replaced": correct_and_replace,
    "a correction that was taken back": correct_and_take_back,
}


@pytest.mark.parametrize("case", RELABELLED)
def test_formats_of_older_labels_do_not_stay_and_can_be_written_again(run: Run, case: str) -> None:
    run(*FIRST)
    formats = "yolo,overlay,labelme,cvat,hf,panoptic,coco-polygon"
    assert run.command("convert", "out", "-f", formats).code == 0
    RELABELLED[case](run)
    assert (run.code, "a.png" in run.labelled) == (0, True)
    assert not Path("out/yolo/labels/train/a.txt").exists()
    assert not Path("out/yolo/images/train/a.png").is_symlink()
    ran = run.command("convert", "out", "-f", formats)
    assert (ran.code, run.command("check", "out").code) == (0, 0), ran.err
    assert Path("out/yolo/labels/train/a.txt").exists()


@pytest.mark.parametrize(("formats", "file"), [("overlay", "overlays/a.jpg"), ("png,yolo", "yolo/labels/train/a.txt")])
def test_a_corrected_image_is_in_a_format_more_too(run: Run, formats: str, file: str) -> None:
    run(*FIRST)
    correct(Path("out/masks/a.png"))
    run("-f", formats)
    assert (run.code, run.labelled) == (1, [])  # as for an image that nobody corrected
    ran = run.command("convert", "out", "-f", formats, "--only", "-", stdin=b"sub/b c.jpg\nsub/\xc3\xbc.bmp\n")
    assert ran.code == 0
    err = run("-f", formats)  # which the corrected image alone lacks now
    assert (run.code, run.labelled) == (0, [])
    assert Path("out", file).exists()
    assert "1 mask changed by hand: updated all other formats of the same images" in err
    assert run.command("check", "out").code == 0
    kept = Path("out", file).read_bytes()
    run("-f", formats)
    assert Path("out", file).read_bytes() == kept


def test_annotations_that_were_lost_come_back_for_a_corrected_image(run: Run) -> None:
    run()
    correct(Path("out/masks/a.png"))
    Path("out/annotations.json").unlink()
    assert run.command("convert", "out", "-f", "coco").code == 0
    run()
    assert (run.code, run.labelled) == (0, [])
    images = json.loads(Path("out/annotations.json").read_bytes())["images"]
    assert [each["file_name"] for each in images] == ALL
    assert run.command("check", "out").code == 0


def test_an_image_that_was_changed_beside_its_corrected_mask_is_told(run: Run) -> None:
    run()
    correct(Path("out/masks/a.png"))
    make_other(Path("imgs/a.png"))
    assert "1 image changed after the labels were edited; the kept labels belong to the old image.\n" in run()
    ran = run.command("convert", "out", "-f", "yolo")
    assert ran.code == 1
    assert "label it again with --replace-edited, which discards the correction; or leave out yolo." in ran.err


def test_a_file_of_another_image_is_said_to_be_its(run: Run) -> None:
    run()
    Path("more").mkdir()
    with Image.open("imgs/a.png") as picture:
        picture.convert("RGB").save("more/a.jpg")
    ran = run.command("label", "more", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out")
    assert ran.code == 1
    assert f"more/a.jpg: out/masks/a.png has the labels of another image, {Path('imgs/a.png').absolute()}" in ran.err
    assert "--names full" in ran.err


def test_annotations_of_somebody_else_are_not_checked(run: Run) -> None:
    run("-f", "png")
    Path("out/annotations.json").write_text('{"mine": 1}')
    assert run.command("check", "out").code == 0


def test_a_correction_is_not_given_up_silently(run: Run) -> None:
    run("-f", "png,coco,hf")
    correct(Path("out/masks/a.png"))
    assert run.command("convert", "out", "-f", "coco").code == 0
    copy = Path("out/hf/masks/a.png").read_bytes()
    Path("out/masks/a.png").unlink()
    err = run("-f", "png,coco,hf")
    assert (run.code, run.labelled, Path("out/hf/masks/a.png").read_bytes()) == (1, [], copy)
    assert "imgs/a.png" not in err.split("Error: ")[0]
    assert (
        "Error: out/masks/a.png: it was corrected by hand, but is missing (Restore the mask, or label the image again"
        in err
    )
    run("-f", "png,coco,hf", "--replace-edited")
    assert (run.code, run.labelled) == (0, ["a.png"])
    assert run.command("check", "out").code == 0


def scores_of(folder: str, image: str) -> dict[str, float]:
    """The scores in annotations.json by class and box."""
    value = json.loads(Path(folder, "annotations.json").read_bytes())
    (number,) = (entry["id"] for entry in value["images"] if entry["file_name"] == image)
    objects = [entry for entry in value["annotations"] if entry["image_id"] == number]
    return {f"{entry['category_id']} {entry['bbox']} {entry['area']}": entry["score"] for entry in objects}


@pytest.mark.parametrize("how", ["changed", "gone"])
@pytest.mark.parametrize(
    ("formats", "following"),
    [pytest.param("png,coco,yolo", "coco", id="objects"), pytest.param("png,yolo", "cvat", id="no objects any more")],
)
def test_formats_that_need_the_image_do_not_keep_others_from_following(
    run: Run, formats: str, following: str, how: str
) -> None:
    run("-f", "coco", output="before")
    run("-f", formats)
    correct(Path("out/masks/a.png"))
    if how == "changed":
        make_other(Path("imgs/a.png"))
    else:
        Path("imgs/a.png").unlink()
    ran = run.command("convert", "out", "-f", following)
    assert ran.code == 0, ran.err
    assert "Removed some corrected images from yolo: " in ran.err
    assert not Path("out/yolo/labels/train/a.txt").exists()
    assert not Path("out/yolo/images/train/a.png").is_symlink()
    assert run.command("check", "out").out.count("\n") == (how == "changed")  # the image itself
    assert run.command("convert", "out", "-f", "coco").code == 0
    before, after = scores_of("before", "a.png"), scores_of("out", "a.png")
    assert before != after
    untouched = before.keys() & after.keys()
    assert untouched
    assert {key: after[key] for key in untouched} == {key: before[key] for key in untouched}


def test_a_link_in_the_place_of_a_mask_is_no_correction(run: Run) -> None:
    run()
    correct(Path("out/masks/a.png"))
    Path("out/masks/a.png").rename("mine.png")
    Path("out/masks/a.png").symlink_to("../../mine.png")
    ran = run.command("convert", "out", "-f", "coco")
    assert ran.code == 1
    assert "Error: out/masks/a.png: the mask is a symbolic link (Replace the link with the file itself.)" in ran.err


def test_lists_of_formats_that_a_run_is_not_for_lose_what_is_labelled_anew(run: Run) -> None:
    run("-f", "png,coco,coco-polygon,coco-results,panoptic,cvat,label-studio,npz")
    correct(Path("out/masks/a.png"))
    assert run.command("convert", "out", "-f", "coco").code == 0
    err = run(*FIRST, "--replace-edited")
    assert (
        "no longer in coco-polygon,coco-results,panoptic,cvat,label-studio,npz. To add them, run: "
        "tipsseg convert out --format coco-polygon,coco-results,panoptic,cvat,label-studio. npz and confidence need the model"
    ) in err
    ran = run.command("check", "out")
    assert (ran.code, ran.out) == (0, "")
    assert run.command("convert", "out", "-f", "coco-polygon,coco-results,panoptic,cvat,label-studio").code == 0
    assert run.command("check", "out").code == 0


def test_check_tells_what_does_not_follow_yet_and_what_contradicts(run: Run) -> None:
    run("-f", "png,coco,hf")
    correct(Path("out/masks/a.png"))
    assert (
        "Other formats of 1 corrected image still have the labels from before the correction.\n"
        in run.command("check", "out").err
    )
    assert run.command("convert", "out", "-f", "coco").code == 0
    assert "before the correction" not in run.command("check", "out").err
    ids = np.zeros_like(np.array(Image.open("out/masks/a.png")))
    Image.fromarray(ids).save("out/hf/masks/a.png")
    ran = run.command("check", "out")
    assert ran.code == 1
    assert "out/masks/a.png: changed by hand, but out/hf/masks/a.png was changed differently" in ran.out


def test_a_correction_that_cannot_be_taken_costs_no_file(run: Run) -> None:
    """Nothing of an image is removed before what replaces it is known."""
    run("-f", "png,coco,yolo")
    Image.fromarray(np.full((3, 3), 9, np.uint8)).save("out/masks/a.png")
    Path("imgs/a.png").unlink()
    before = tree("out/yolo")
    assert run.command("convert", "out", "-f", "coco").code == 1
    assert tree("out/yolo") == before
