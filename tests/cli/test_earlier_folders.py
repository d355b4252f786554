"""Folders that an earlier version of tipsseg wrote are opened, go on and are converted, as if this one had written them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from earlier import FORMATS, LABEL, unpack
from numpy.typing import NDArray
from PIL import Image
from running import Command, Ran

#: What is not a label file.
RECORDS = {"run.json", "manifest.jsonl", "errors.jsonl", ".tipsseg", "report"}


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    unpack(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """The label files, by their place."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and RECORDS.isdisjoint(path.relative_to(folder).parts)
    }


def moved(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same files without YOLO's data.yaml, and with the others of YOLO in the places of this version."""
    places = {
        "yolo/images/a.png": "yolo/images/train/a.png",
        "yolo/labels/a.txt": "yolo/labels/train/a.txt",
        "yolo/b/images/c.png": "yolo/images/train/b/c.png",
        "yolo/b/labels/c.txt": "yolo/labels/train/b/c.txt",
    }
    return {places.get(name, name): data for name, data in files.items() if name != "yolo/data.yaml"}


def read(path: str | Path) -> NDArray[np.uint8]:
    with Image.open(path) as mask:
        return np.array(mask)


def takings() -> dict[str, object]:
    """Where the corrected masks of `out` came from, as its manifest says."""
    entries = [json.loads(line) for line in Path("out/manifest.jsonl").read_bytes().splitlines()]
    return {entry["image"]: entry["taken"] for entry in entries if "taken" in entry}


def correct_another(command: Command) -> Ran:
    """Correct the mask of b/c.png too, which nobody touched."""
    ids = read("out/masks/b/c.png")
    ids[:12, :16] = 1
    Path("more/b").mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save("more/b/c.png")
    return command("correct", "out", "--from", "more")


def test_check_reads_it_and_writes_nothing(command: Command, top: Path) -> None:
    before = {path: path.read_bytes() for path in top.rglob("*") if path.is_file()}
    ran = command("check", "out")
    assert ran.code == 1
    problems = ran.out.splitlines()
    assert len(problems) == 2, ran.out
    assert all("its yolo file is" in line and line.endswith("; tipsseg convert moves it") for line in problems)
    assert "out/masks/a.png: changed by hand" in ran.err
    ran = command("check", "shards")
    assert (ran.code, ran.out) == (0, "")
    assert {path: path.read_bytes() for path in top.rglob("*") if path.is_file()} == before


def test_label_goes_on_and_labels_nothing(command: Command, top: Path) -> None:
    before, taken = contents(Path("out")), takings()
    ran = command(*LABEL, "-f", FORMATS, "-o", "out")
    assert ran.code == 0, ran.err
    assert "0 images labelled, 2 unchanged" in ran.err
    assert "Kept 1 edited image" in ran.err
    after = contents(Path("out"))
    assert "images/train" in after.pop("yolo/data.yaml").decode()
    assert after == moved(before)
    assert takings() == taken != {}
    ran = command("check", "out")
    assert (ran.code, ran.out) == (0, "")


def test_starting_over_keeps_the_correction_and_makes_the_same_labels(command: Command, top: Path) -> None:
    before = contents(Path("out"))
    ran = command(*LABEL, "-f", FORMATS, "-o", "out", "--overwrite")
    assert ran.code == 0, ran.err
    after = contents(Path("out"))
    assert "Kept 1 edited image" in ran.err
    del after["yolo/data.yaml"]
    assert after == moved(before)


def test_what_a_person_changed_since_is_kept(command: Command, top: Path) -> None:
    ids = read("out/masks/b/c.png")
    ids[:, :20] = 1
    Image.fromarray(ids).save("out/masks/b/c.png")
    edited = Path("out/masks/b/c.png").read_bytes()
    assert "Kept 2 edited images" in command(*LABEL, "-f", "png", "-o", "out", "--overwrite").err
    assert Path("out/masks/b/c.png").read_bytes() == edited
    ran = command("convert", "out", "-f", "hf")
    assert ran.code == 0, ran.err
    np.testing.assert_array_equal(read("out/hf/masks/b/c.png"), ids)


def test_convert_takes_the_corrected_mask_into_another_format(command: Command, top: Path) -> None:
    before = contents(Path("out"))
    ran = command("convert", "out", "-f", "cvat,yolo")
    assert ran.code == 0, ran.err
    assert "1 mask changed by hand" in ran.err
    assert "0 masks corrected, 2 unchanged" in command("correct", "out", "--from", "out/cvat").err
    assert contents(Path("out")).items() >= moved(before).items()
    ran = command("check", "out")
    assert (ran.code, ran.out) == (0, "")


def test_formats_that_have_the_correction_are_not_written_again(command: Command, top: Path) -> None:
    before = contents(Path("out"))
    ran = command("convert", "out", "-f", "png,coco,hf,labelme")
    assert ran.code == 0, ran.err
    assert "0 images converted, 2 unchanged" in ran.err
    after = contents(Path("out"))
    del after["yolo/data.yaml"]
    assert after == moved(before)


@pytest.mark.parametrize("source", ["fixed", "out/hf", "out/labelme", "out/yolo", "out/annotations.json"])
def test_what_it_wrote_corrects_nothing(command: Command, top: Path, source: str) -> None:
    before = contents(Path("out"))
    ran = command("correct", "out", "--from", source)
    assert ran.code == 0, ran.err
    assert "0 masks corrected, " in ran.err
    assert contents(Path("out")) == before


def test_correct_takes_a_mask_that_a_fit_learns_from(command: Command, top: Path) -> None:
    arguments = ("fit", "out", "-o", "own.fit", "--device", "cpu")
    ran = command(*arguments)
    assert ran.code == 1
    assert "out: only 1 corrected mask; a fit needs 2 or more" in ran.err

    ran = correct_another(command)
    assert ran.code == 0, ran.err
    assert "1 mask corrected" in ran.err
    assert takings().keys() == {"a.png", "b/c.png"}

    ran = command(*arguments)
    assert ran.code == 0, ran.err
    ran = command(*LABEL[:6], "--vocab", "own.fit", "-o", "again")
    assert ran.code == 0, ran.err
    assert "2 images labelled" in ran.err


def test_rank_leaves_the_corrected_image_out(command: Command, top: Path) -> None:
    ran = command("rank", "out")
    assert (ran.code, ran.out.split()) == (0, [str(top / "photos" / "b" / "c.png")])
    assert "Left out 1 corrected image" in ran.err


def test_report_shows_the_corrected_labels(command: Command, top: Path) -> None:
    ran = command("report", "out")
    assert (ran.code, ran.out.split()) == (0, ["out/report/index.html"])
    assert "2 images drawn" in ran.err


def test_masks_are_scored(command: Command, top: Path) -> None:
    ran = command("eval", "--pred", "out", "--gt", "fixed")
    assert ran.code == 0, ran.err
    assert "pixel accuracy       100.00   of 2,400 pixels" in ran.out


@pytest.mark.parametrize("folder", ["shards", "joined"])
def test_shards_are_joined(command: Command, top: Path, folder: str) -> None:
    masks = {name: data for name, data in contents(Path("shards")).items() if name.startswith("masks/")}
    assert command(*LABEL, "-f", "png,coco", "--shard", "1/2", "-o", "shards").err.count("0 images labelled") == 1
    ran = command("merge", "shards", "-o", folder)
    assert ran.code == 0, ran.err
    after = contents(Path(folder))
    assert {name: data for name, data in after.items() if name.startswith("masks/")} == masks
    found = json.loads(after["annotations.json"])["images"]
    assert [each["file_name"] for each in found] == ["a.png", "b/c.png"]
    ran = command(*LABEL, "-f", "png,coco", "-o", folder)
    assert ran.code == 0, ran.err
    assert "0 images labelled, 2 unchanged" in ran.err
    ran = command("check", folder)
    assert (ran.code, ran.out) == (0, "")
