"""Masks that a person corrected: taken as the labels of their images by `convert`, told of by `check`, never replaced by either."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from entries import read_entries
from output_folders import LABELS, A, B, make_run, save_inputs, stamp, tree
from PIL import Image

from tipsseg.errors import ImageError, OutputError
from tipsseg.options import DEFAULT_FILE_OPTIONS, FileOptions
from tipsseg.runs.check.folder import check_folder
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.convert.folder import convert_folder
from tipsseg.store.manifest import ManifestEntry
from tipsseg.types import LabelArray

#: What is converted into.
INTO = ("coco", "yolo", "labelme", "hf", "cvat", "panoptic", "overlay", "label-studio", "coco-polygon")

#: The corrected mask of a.png: another class, one class less, one that the model did not find there.
CORRECTED: LabelArray = np.where(A == 1, 2, np.where(A == 3, 1, A)).astype(np.uint8)


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=False, results=False)
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)

    def error(self, error: object) -> None:
        assert isinstance(error, ImageError)
        self.lines.append(f"{error.message} | {error.hint}")


def build(
    root: Path, *formats: str, labels: Mapping[str, LabelArray] = LABELS, options: FileOptions | None = None
) -> None:
    if not (root / "imgs").exists():
        save_inputs(root / "imgs", labels)
    make_run(root / "out", root / "imgs", labels, formats=formats, options=options or FileOptions())


def convert(root: Path, *formats: str) -> tuple[int, list[str]]:
    said = Notes()
    failed = convert_folder(root / "out", formats, None, 2, said)
    return failed, [line.replace(f"{root}/", "") for line in said.lines]


def check(root: Path) -> tuple[list[str], list[str]]:
    """The problems, and what is noted."""
    said = Notes()
    found = [str(each).replace(f"{root}/", "") for each in check_folder(root / "out", None, 2, said)]
    return found, [line.replace(f"{root}/", "") for line in said.lines]


def paint(path: Path, ids: np.ndarray, mode: str | None = None) -> bytes:
    """Put other labels into a mask, as a person's program would; returns the bytes."""
    picture = Image.fromarray(ids)
    (picture if mode is None else picture.convert(mode)).save(path, format="PNG")
    return path.read_bytes()


def paint_unseen(path: Path, ids: np.ndarray) -> bytes:
    """As `paint`, with the size and the time of the file as they were."""
    before = path.stat()
    paint(path, ids)
    data = path.read_bytes()
    # A chunk of text that nobody reads makes up for the difference.
    missing = before.st_size - len(data)
    assert missing >= 12
    body = b"tEXt" + b"x" * (missing - 12)
    chunk = (missing - 12).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    data = data[:-12] + chunk + data[-12:]
    path.write_bytes(data)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return data


def entry_of(root: Path, image: str = "a.png") -> ManifestEntry:
    return read_entries(root / "out")[image]


def others(root: Path) -> dict[str, bytes]:
    """The files of other images than a.png, and not the records that stand for all."""
    return {name: data for name, data in tree(root / "out").items() if "sub/" in name}


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "of the same size and time"])
@pytest.mark.parametrize("name", ["png", "hf"])
def test_all_formats_follow_a_corrected_mask(tmp_path: Path, name: str, seen: bool) -> None:
    formats = (name, "coco", "overlay", *([] if name == "hf" else ["hf"]))
    build(tmp_path, *formats)
    before, path = others(tmp_path), tmp_path / "out" / entry_of(tmp_path).files[name]
    if not seen:  # its first writing has to be the larger one
        Image.fromarray(A).save(path, format="PNG", compress_level=0)
        stamp(tmp_path / "out")
    data = (paint if seen else paint_unseen)(path, CORRECTED)
    assert check(tmp_path)[0] == []
    failed, said = convert(tmp_path, *INTO)
    assert failed == 0
    assert any(
        line.startswith("1 mask changed by hand: updated all other formats of the same images, except ")
        for line in said
    )
    assert path.read_bytes() == data
    assert entry_of(tmp_path).corrected is not None

    # All other formats are as those of a run that found these labels; but for scores, of which a person says nothing.
    (tmp_path / "wanted").mkdir()
    (tmp_path / "wanted/imgs").symlink_to("../imgs")
    build(tmp_path / "wanted", *dict.fromkeys((*formats, *INTO)), labels={**LABELS, "a.png": CORRECTED})
    found, wanted = tree(tmp_path / "out"), tree(tmp_path / "wanted/out")
    for each in ("labelme/a.json", "yolo/labels/train/a.txt", "cvat/SegmentationClass/a.png", "overlays/a.jpg"):
        assert found[each] == wanted[each], each
    for each in ("hf/masks/a.png", "masks/a.png"):
        assert each not in wanted or np.array_equal(pixels(found[each], tmp_path), CORRECTED)
    for file in ("annotations.json", "annotations-polygon.json"):
        assert listed_annotations(found[file]) == listed_annotations(wanted[file])
    assert {key: data for key, data in others(tmp_path).items() if key in before} == before
    assert check(tmp_path)[0] == []

    # Again: nothing is left to do. Put back: all follow.
    failed, said = convert(tmp_path, *INTO)
    assert (failed, said[-1].split(" in ")[0]) == (0, "0 images converted, 3 unchanged")


def pixels(data: bytes, folder: Path) -> np.ndarray:
    (folder / "x.png").write_bytes(data)
    with Image.open(folder / "x.png") as picture:
        return np.array(picture)


def listed_annotations(data: bytes) -> list[dict[str, object]]:
    found = json.loads(data)["annotations"]
    return [{key: value for key, value in each.items() if key != "score"} for each in found]


def scores(root: Path) -> dict[tuple[object, ...], float]:
    """By image, class and box."""
    found = json.loads((root / "out/annotations.json").read_bytes())["annotations"]
    return {(each["image_id"], each["category_id"], *each["bbox"]): each["score"] for each in found}


def test_what_a_person_brought_in_is_certain_and_what_the_model_found_keeps_its_mean(tmp_path: Path) -> None:
    build(tmp_path, "png", "coco")
    means = {each["id"]: each["confidence"] for each in entry_of(tmp_path).summary["classes"]}  # type: ignore[attr-defined]
    corrected, before = np.where(B == 2, 3, B).astype(np.uint8), scores(tmp_path)
    assert {1, 2, 3} == set(means)
    paint(tmp_path / "out/masks/sub/b c.png", corrected)
    paint(tmp_path / "out/masks/a.png", CORRECTED)
    assert convert(tmp_path, "coco")[0] == 0
    brought, kept = entry_of(tmp_path, "sub/b c.jpg").summary, entry_of(tmp_path).summary
    assert [(each["id"], each["pixels"], each["confidence"]) for each in brought["classes"]] == [(3, 21, 1.0)]  # type: ignore[attr-defined]
    assert {each["id"]: each["confidence"] for each in kept["classes"]} == {1: means[1], 2: means[2]}  # type: ignore[attr-defined]
    after = scores(tmp_path)
    same = before.keys() & after.keys()
    assert len(same) == 1  # an object that the person left as it was
    assert {key: after[key] for key in after} == {key: before[key] if key in same else 1.0 for key in after}
    assert all(before[key] < 1 for key in same)


def test_a_mask_that_is_put_back_is_followed_again(tmp_path: Path) -> None:
    build(tmp_path, "png", "coco")
    convert(tmp_path, "yolo", "labelme")
    mask = tmp_path / "out/masks/a.png"
    before, plain = tree(tmp_path / "out"), mask.read_bytes()
    paint(mask, CORRECTED)
    convert(tmp_path, "yolo")
    assert tree(tmp_path / "out")["labelme/a.json"] != before["labelme/a.json"]  # a format that was not asked for
    mask.write_bytes(plain)
    assert convert(tmp_path, "yolo")[0] == 0
    assert entry_of(tmp_path).corrected is None
    after = tree(tmp_path / "out")
    for name in ("labelme/a.json", "yolo/labels/train/a.txt", "masks/a.png"):
        assert after[name] == before[name]
    assert listed_annotations(after["annotations.json"]) == listed_annotations(before["annotations.json"])
    assert check(tmp_path)[0] == []


@dataclass(frozen=True)
class Wrong:
    """A mask that cannot be taken, and what is said of it."""

    change: Callable[[Path], object]
    says: str
    options: FileOptions = DEFAULT_FILE_OPTIONS


HINT = "Correct the mask, or run the original command with argument `replace_edited` to label the image again."
WRONG: Mapping[str, Wrong] = {
    "an id that is no class": Wrong(lambda path: paint(path, np.where(A == 1, 9, A).astype(np.uint8)), "unknown ids: 9"),
    "another size": Wrong(
        lambda path: paint(path, A.T.copy()), "8 x 6 (height x width), but the image is 6 x 8"
    ),
    "another mode": Wrong(lambda path: paint(path, A, "RGB"), "PNG mode RGB, expected L"),
    "16 bits": Wrong(lambda path: paint(path, A.astype(np.uint16)), "PNG mode I;16, expected L"),
    "grey, where it had a palette": Wrong(
        lambda path: paint(path, A), "PNG mode L, expected P", FileOptions(png_mode="P")
    ),
    "a JPEG": Wrong(lambda path: Image.fromarray(A).save(path, format="JPEG"), "a JPEG, which may not preserve pixel values"),
    "no picture": Wrong(lambda path: path.write_bytes(b"none"), "not an image in a format that Pillow reads"),
    "nothing in it": Wrong(lambda path: path.write_bytes(b""), "empty file (0 bytes)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_mask_that_cannot_be_taken_is_an_error_of_its_image_and_stays(tmp_path: Path, case: str) -> None:
    wrong = WRONG[case]
    build(tmp_path, "png", "coco", options=wrong.options)
    path = tmp_path / "out/masks/a.png"
    wrong.change(path)
    data, before = path.read_bytes(), listed_annotations(tree(tmp_path / "out")["annotations.json"])
    failed, said = convert(tmp_path, "yolo")
    assert failed == 1
    assert f"out/masks/a.png: changed by hand: {wrong.says} | {HINT}" in said
    assert said[-1].startswith("2 images converted, 1 failed in ")
    assert path.read_bytes() == data
    assert listed_annotations(tree(tmp_path / "out")["annotations.json"]) == before
    assert sorted(path.name for path in (tmp_path / "out/yolo").rglob("*.txt")) == ["b c.txt", "ü.txt"]
    assert check(tmp_path)[0] == [f"out/masks/a.png: changed by hand: {wrong.says}"]


def test_two_masks_that_were_changed_in_different_ways(tmp_path: Path) -> None:
    build(tmp_path, "png", "hf")
    one, two = tmp_path / "out/masks/a.png", tmp_path / "out/hf/masks/a.png"
    data = paint(one, CORRECTED), paint(two, np.zeros_like(A))
    failed, said = convert(tmp_path, "coco")
    assert failed == 1
    assert any(
        f"out/masks/a.png: this mask and {two} were edited differently | Remove the wrong one" in line
        for line in (line.replace("out/hf/masks/a.png were", f"{two} were") for line in said)
    )
    assert (one.read_bytes(), two.read_bytes()) == data
    two.unlink()
    assert convert(tmp_path, "coco")[0] == 0
    assert (one.read_bytes(), two.exists()) == (data[0], True)  # hf follows the other


@pytest.mark.parametrize("mask", [False, True], ids=["alone", "beside a corrected mask"])
def test_a_file_that_somebody_worked_on_stays(tmp_path: Path, mask: bool) -> None:
    build(tmp_path, "png", "labelme", "coco")
    path = tmp_path / "out/labelme/a.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "flags": {"seen": True}}))
    data = path.read_bytes()
    if mask:
        paint(tmp_path / "out/masks/a.png", CORRECTED)
    for formats in (("labelme", "yolo"), ("yolo",)):
        failed, said = convert(tmp_path, *formats)
        assert failed == 0
        assert ("Did not overwrite out/labelme/a.json: edited by hand." in said) is ("labelme" in formats)
        assert path.read_bytes() == data
    problems, noted = check(tmp_path)
    assert problems == []
    assert "out/labelme/a.json: changed by hand" in noted


def test_check_tells_of_changed_files_and_what_takes_them(tmp_path: Path) -> None:
    build(tmp_path, "png", "coco", "overlay")
    assert not any("changed by hand" in line for line in check(tmp_path)[1])
    paint(tmp_path / "out/masks/a.png", CORRECTED)
    (tmp_path / "out/overlays/sub/b c.jpg").write_bytes((tmp_path / "out/overlays/a.jpg").read_bytes())
    problems, noted = check(tmp_path)
    assert problems == []
    assert noted.count("out/masks/a.png: changed by hand") == 1
    assert noted.count("out/overlays/sub/b c.jpg: changed by hand") == 1
    assert any(
        re.match(r"2 files changed by hand, which is fine; tipsseg convert .*out --format FORMAT", each)
        for each in noted
    )
    assert noted[-1].endswith("checked: nothing wrong.")
    (tmp_path / "out/overlays/a.jpg").write_bytes(b"none")
    assert [line.split(":")[0] for line in check(tmp_path)[0]] == ["out/overlays/a.jpg"]


def test_what_only_the_model_knows_does_not_follow(tmp_path: Path) -> None:
    build(tmp_path, "png", "npz", "confidence")
    before = tree(tmp_path / "out")
    paint(tmp_path / "out/masks/a.png", CORRECTED)
    assert convert(tmp_path, "coco")[0] == 0
    after = tree(tmp_path / "out")
    for name in ("npz/a.npz", "confidence/a.png"):
        assert after[name] == before[name]
    assert check(tmp_path)[0] == []


def test_a_file_of_the_run_that_was_changed_stays(tmp_path: Path) -> None:
    build(tmp_path, "png", "coco")
    (tmp_path / "out/annotations.json").write_text("{}")
    paint(tmp_path / "out/masks/a.png", CORRECTED)
    before = tree(tmp_path / "out")
    with pytest.raises(OutputError, match="tipsseg did not write this file, or it was changed since"):
        convert(tmp_path, "coco")
    assert tree(tmp_path / "out") == before
    convert(tmp_path, "yolo")
    assert (tmp_path / "out/annotations.json").read_text() == "{}"


def test_what_somebody_put_there_is_not_replaced(tmp_path: Path) -> None:
    build(tmp_path, "png")
    (tmp_path / "out/annotations.json").write_text('{"mine": 1}')
    (tmp_path / "out/yolo/labels/train").mkdir(parents=True)
    (tmp_path / "out/yolo/labels/train/a.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"annotations.json: tipsseg did not write this file"):
        convert(tmp_path, "coco")
    failed, said = convert(tmp_path, "yolo")
    assert failed == 1
    assert any("yolo/labels/train/a.txt: tipsseg did not write this file" in line for line in said)
    assert (tmp_path / "out/annotations.json").read_text() == '{"mine": 1}'
    assert (tmp_path / "out/yolo/labels/train/a.txt").read_text() == "mine"
