"""`tipsseg correct` as it is typed: what goes to stdout and to stderr, and its exit code."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from entries import read_entries
from output_folders import LABELS, A, make_run, save_inputs
from PIL import Image
from running import Command

from tipsseg.folder.folder import change_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """out, a run, and new, with a corrected mask, one as it is, and one of no image."""
    save_inputs(tmp_path / "imgs", LABELS)
    make_run(tmp_path / "out", tmp_path / "imgs", formats=("png",))
    (tmp_path / "new/sub").mkdir(parents=True)
    Image.fromarray(np.where(A == 1, 2, A).astype(np.uint8)).save(tmp_path / "new/a.png")
    Image.fromarray(LABELS["sub/ü.png"]).save(tmp_path / "new/sub/ü.png")
    Image.fromarray(A).save(tmp_path / "new/gone.png")
    return tmp_path


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "for good"])
def test_paths_go_to_stdout_and_counts_to_stderr(command: Command, folder: Path, dry: bool) -> None:
    done = command("correct", folder / "out", "--from", folder / "new", *(["--dry-run"] if dry else []))
    assert done.code == 0
    assert done.out == f"{folder}/out/masks/a.png\n"
    assert "not in the run: gone." in done.err
    assert f"1 mask {'would be ' if dry else ''}corrected, 1 unchanged." in done.err
    assert np.array_equal(np.asarray(Image.open(folder / "out/masks/a.png")), A) is dry


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_names_that_are_not_utf_8_come_back(command: Command, tmp_path: Path) -> None:
    save_inputs(tmp_path / "imgs", {"a.png": A, "b.png": A})
    (tmp_path / "imgs/a.png").rename(os.fsdecode(os.fsencode(tmp_path / "imgs") + b"/caf\xe9.png"))
    formats = ("coco", "labelme", "yolo", "hf")
    out = tmp_path / "out"
    assert (
        command("label", tmp_path / "imgs", "-c", "a,b", "-m", "tiny", "-o", out, "-f", f"png,{','.join(formats)}").code
        == 0
    )
    for source in ("annotations.json", *formats[1:], "masks"):
        done = command("correct", out, "--from", out / source)
        assert "0 masks corrected, 2 unchanged." in done.err, (source, done.err)


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Labels of one class as YOLO's files, with the images of all folders in the split train, as FiftyOne writes them."""
    inside = np.zeros((40, 60), np.uint8)
    inside[10:30, 10:40] = 1
    labels = {"day/a.png": inside, "night/b.png": inside.T.copy()}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, ("panda",), ("png", "yolo"))
    flat = tmp_path / "flat/labels/train"
    flat.mkdir(parents=True)
    for path in (tmp_path / "out/yolo/labels").rglob("*.txt"):
        (flat / path.name).write_bytes(path.read_bytes())
    (tmp_path / "flat/data.yaml").write_bytes((tmp_path / "out/yolo/data.yaml").read_bytes())
    return tmp_path / "flat"


def test_flat_names_in_a_split_of_yolo(command: Command, yolo: Path) -> None:
    done = command("correct", yolo.parent / "out", "--from", yolo)
    assert "0 masks corrected, 2 unchanged." in done.err, done.err


def test_a_line_of_two_corners_is_skipped(command: Command, yolo: Path) -> None:
    with (yolo / "labels/train/a.txt").open("a") as file:
        file.write("0 0.1 0.1 0.2 0.2\n")
    done = command("correct", yolo.parent / "out", "--from", yolo)
    assert "Skipped 1 shape without pixels: an object with two corners." in done.err
    assert "0 masks corrected, 2 unchanged." in done.err


def test_a_damaged_list_of_classes_is_named(command: Command, yolo: Path) -> None:
    (yolo / "data.yaml").write_text("names: [")
    done = command("correct", yolo.parent / "out", "--from", yolo, "--format", "yolo")
    assert (done.code, "data.yaml: not YAML" in done.err) == (1, True), done.err


def test_a_name_of_roboflow_has_the_suffix_of_its_image(command: Command, tmp_path: Path) -> None:
    labels = {"house.png": A, "house.webp": A}
    save_inputs(tmp_path / "imgs", labels)
    for name in ("house.png", "house.webp"):
        Image.fromarray(np.repeat(A[..., None], 3, 2)).save(tmp_path / "imgs" / name)
    arguments = ("-c", "a,b,c", "-m", "tiny", "--names", "full", "-f", "png", "-o", tmp_path / "out")
    assert command("label", tmp_path / "imgs", *arguments).code == 0
    (tmp_path / "new").mkdir()
    Image.fromarray(np.ones_like(A)).save(tmp_path / "new/house_webp.rf.0123456789abcdef.png")
    done = command("correct", tmp_path / "out", "--from", tmp_path / "new")
    assert done.out == f"{tmp_path}/out/masks/house.webp.png\n", done.err


def test_a_correction_is_undone(command: Command, folder: Path) -> None:
    mask = folder / "out/masks/a.png"
    model = mask.read_bytes()
    assert command("correct", folder / "out", "--undo", "a.png").code == 1  # nobody corrected it
    assert command("correct", folder / "out", "--from", folder / "new").code == 0
    corrected = mask.read_bytes()
    assert command("correct", folder / "out", "--undo", "a.png", "--undo", "sub/ü.png").code == 1
    assert read_entries(folder / "out")["a.png"].corrected
    done = command("correct", folder / "out", "--undo", "a.png")
    assert (done.code, done.out, mask.read_bytes()) == (0, f"{mask}\n", model)
    assert not read_entries(folder / "out")["a.png"].corrected
    (kept,) = (folder / "out/replaced").rglob("a.png")
    assert kept.read_bytes() == corrected
    assert f"Moved 1 file that may be somebody's work to {folder}/out/replaced" in done.err


def test_images_to_undo_and_to_remove_are_found_by_the_ends_of_their_paths(command: Command, folder: Path) -> None:
    assert command("correct", folder / "out", "--from", folder / "new").code == 0
    assert command("correct", folder / "out", "--undo", "imgs/a.jpg").code == 0
    ran = command("correct", folder / "out", "--remove", "ü.png")
    assert (ran.code, "sub/ü.png" in ran.err) == (0, True), ran.err
    assert "sub/ü.png" not in read_entries(folder / "out")


def test_a_correction_is_accepted_for_a_retouched_picture(command: Command, folder: Path) -> None:
    assert command("correct", folder / "out", "--from", folder / "new").code == 0
    mask, picture = folder / "out/masks/a.png", folder / "imgs/a.png"
    before = np.asarray(Image.open(mask))
    Image.new("RGB", A.shape[::-1], "red").save(picture)
    found = command("check", folder / "out")
    printed = f"tipsseg correct {folder}/out --from {mask} --accept"
    assert (found.code, printed in found.out) == (1, True), found
    assert command(*printed.split()[1:]).code == 0
    assert command("check", folder / "out").code == 0
    assert np.array_equal(np.asarray(Image.open(mask)), before)
    Image.new("RGB", (9, 9), "red").save(picture)
    assert "--accept" not in command("check", folder / "out").out  # the labels cannot fit


def test_an_invalid_mask_of_another_image_is_kept_and_named(command: Command, folder: Path) -> None:
    bad = folder / "out/masks/sub/b c.png"
    bad.write_bytes((folder / "new/a.png").read_bytes())  # of another size
    before = bad.read_bytes()
    done = command("correct", folder / "out", "--from", folder / "new")
    assert (done.out, bad.read_bytes()) == (f"{folder}/out/masks/a.png\n", before)
    assert (done.code, "b c.png" in done.err) == (1, True)


def test_lines_of_json(command: Command, folder: Path) -> None:
    done = command("correct", folder / "out", "--from", folder / "new", "--jsonl", "--quiet", "-f", "png")
    assert (done.code, done.err) == (0, "")
    changed = int((A == 1).sum())
    assert json.loads(done.out) == {"image": "a.png", "mask": f"{folder}/out/masks/a.png", "changed": changed}


@pytest.mark.parametrize("place", ["loop", "loop/masks"])
def test_only_corrections_of_another_run_are_taken(command: Command, folder: Path, place: str) -> None:
    guess = {**LABELS, "sub/ü.png": LABELS["sub/ü.png"] + np.uint8(3)}
    make_run(folder / "loop", folder / "imgs", guess, formats=("png", "coco"))
    (folder / "loop/masks/a.png").write_bytes((folder / "new/a.png").read_bytes())
    done = command("correct", folder / "out", "--from", folder / "loop/masks/a.png", "--dry-run")
    assert (done.code, done.out, "Ignored" in done.err) == (0, f"{folder}/out/masks/a.png\n", False)
    done = command("correct", folder / "out", "--from", folder / place)
    assert (done.code, done.out) == (0, f"{folder}/out/masks/a.png\n")
    assert f"Ignored 2 images of {folder}/{place} that nobody corrected." in done.err
    assert "1 mask corrected, 0 unchanged." in done.err
    shutil.copytree(folder / "loop/masks", folder / "copy")
    done = command("correct", folder / "out", "--from", folder / "copy")
    assert (done.code, done.out) == (0, f"{folder}/out/masks/sub/ü.png\n")


@pytest.mark.parametrize("digest", [True, False], ids=["digest", "no digest"])
def test_a_mask_of_another_picture_of_the_same_name_is_ignored(command: Command, folder: Path, digest: bool) -> None:
    """Another run labelled a picture of the same name and size. Without its digest, nobody can know, and the mask is imported."""
    save_inputs(folder / "others", LABELS)
    Image.fromarray(np.full((6, 8, 3), 77, np.uint8)).save(folder / "others/a.png")
    make_run(folder / "loop", folder / "others", {**LABELS, "a.png": 3 - A % 4}, formats=("png", "coco"))
    if not digest:
        with change_folder(folder / "loop") as loop:
            entry = loop.image("a.png").entry
            picture = replace(entry.mask.picture, pixels="")
            loop.rewrite(entry, replace(entry.mask, picture=picture), entry.bulk.unpacked())
    for name in ("a.png", "sub/ü.png"):
        (folder / "loop/masks" / name).write_bytes((folder / "new" / name).read_bytes())
    source = folder / "loop/masks"
    done = command("correct", folder / "out", "--from", source)
    assert (
        f"Ignored 1 image of {source}, because the run has different pictures with these names: a" in done.err
    ) is digest
    assert (done.code, f"{folder}/out/masks/a.png" in done.out) == (0, not digest)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["-f", "labelmee"], 2, "unknown format 'labelmee'\nHint: Did you mean 'labelme'?", id="format"),
        pytest.param(["--jsonl", "--null"], 2, "-0 separates paths, but --jsonl prints no paths", id="json and NUL"),
        pytest.param(["-f", "coco"], 1, "no corrected images", id="not of that format"),
        pytest.param(["--undo", "a.png"], 2, "--undo", id="both ways"),
    ],
)
def test_errors_of_correct(command: Command, folder: Path, arguments: list[str], code: int, message: str) -> None:
    done = command("correct", folder / "out", "--from", folder / "new", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_options_are_named_as_they_are_typed(command: Command, folder: Path) -> None:
    (folder / "x.json").write_text(
        json.dumps(
            {"shapes": [{"label": "kite", "points": [[0, 0], [3, 0], [3, 3]]}], "imageHeight": 6, "imageWidth": 8}
        )
    )
    (folder / "a.json").write_bytes((folder / "x.json").read_bytes())
    done = command("correct", folder / "out", "--from", folder / "a.json")
    assert done.code == 1
    assert "unknown class 'kite'" in done.err
    assert "--add-classes" in done.err


def test_images_without_objects_are_emptied_if_a_person_looked_at_them(command: Command, folder: Path) -> None:
    image = {"id": 1, "file_name": "a.png", "height": None, "width": None}  # Label Studio states no size of some
    path = folder / "x.json"
    path.write_text(json.dumps({"images": [image], "categories": [], "annotations": []}))
    mask = folder / "out/masks/a.png"
    done = command("correct", folder / "out", "--from", path)
    assert (done.code, done.out) == (1, "")
    done = command("correct", folder / "out", "--from", path, "--accept")
    assert (done.code, done.out) == (0, f"{mask}\n")
    assert np.array_equal(np.asarray(Image.open(mask)), np.where(A == 255, 255, 0))


@pytest.mark.parametrize("edited", [False, True], ids=["alone", "beside an object that a person edited"])
def test_redrawn_objects_are_named(command: Command, tmp_path: Path, edited: bool) -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[5:30, 10:50] = 1
    if edited:
        ids[34:38, 10:20] = 2
    save_inputs(tmp_path / "imgs", {"box.png": ids})
    make_run(tmp_path / "out", tmp_path / "imgs", {"box.png": ids}, formats=("png", "coco"))
    value = json.loads((tmp_path / "out/annotations.json").read_bytes())
    value["annotations"][0]["segmentation"] = [
        [10, 5, 49, 5, 49, 29, 10, 29]
    ]  # through the centres of the outermost pixels
    if edited:
        value["annotations"][1]["category_id"] = 3
    (tmp_path / "new.json").write_text(json.dumps(value))
    done = command("correct", tmp_path / "out", "--from", tmp_path / "new.json")
    assert (done.code, done.out) == (0, f"{tmp_path}/out/masks/box.png\n" if edited else "")
    assert "'panda leg' at x 10, y 5 in box.png." in done.err
    assert ("1 mask corrected, 0 unchanged." if edited else "0 masks corrected, 1 unchanged.") in done.err
