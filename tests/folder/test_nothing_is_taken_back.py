"""Several corrections of one folder, by people who do not know of each other: no import takes another one back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from output_folders import make_run, save_inputs
from PIL import Image
from running import Command

from tipsseg.folder.correct import take as taking
from tipsseg.review import check_folder, correct_folder

Ids = NDArray[np.uint8]

#: Two objects of class 1, one of class 2, and one of class 3 inside the second.
MODEL = np.zeros((60, 80), np.uint8)
MODEL[5:25, 5:30] = MODEL[35:55, 5:30] = 1
MODEL[10:50, 45:75] = 2
MODEL[20:35, 52:64] = 3

FORMATS = ("png", "coco", "coco-polygon", "yolo", "yolo-obb", "cvat", "labelme", "panoptic", "label-studio", "hf")
NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    labels = dict.fromkeys(NAMES, MODEL)
    save_inputs(tmp_path / "imgs", labels)
    for number, name in enumerate(NAMES):  # pictures that differ
        Image.fromarray(np.full((*MODEL.shape, 3), 40 * number, np.uint8)).save(tmp_path / "imgs" / name)
    make_run(Path("out"), tmp_path / "imgs", labels, ("panda", "tree", "car"), FORMATS)
    return Path("out")


def mask(image: str) -> Ids:
    with Image.open(f"out/masks/{image}.png") as picture:
        return np.asarray(picture)


def paint(image: str, value: int = 2) -> Ids:
    """A person paints over a corner of a mask, in a program that drops what the mask says."""
    ids = mask(image).copy()
    ids[:3, 60:] = value
    Image.fromarray(ids).save(f"out/masks/{image}.png")
    return ids


def without_first(ids: Ids = MODEL) -> Ids:
    """Labels without their upper left object."""
    left = ids.copy()
    left[:30, :40] = 0
    return left


def edit_coco(path: Path, image: str) -> Path:
    """A person deletes the upper left object of an image."""
    value = json.loads(path.read_text())
    (number,) = (each["id"] for each in value["images"] if each["file_name"] == f"{image}.png")
    gone = [each for each in value["annotations"] if each["image_id"] == number and each["bbox"] == [5, 5, 25, 20]]
    value["annotations"] = [each for each in value["annotations"] if each not in gone]
    assert len(gone) == 1
    path.write_text(json.dumps(value))
    return path


def edit_cvat(image: str) -> Path:
    path = Path(f"out/cvat/SegmentationClass/{image}.png")
    colours = np.array(Image.open(path))
    colours[:30, :40] = 0
    Image.fromarray(colours).save(path)
    return Path("out/cvat")


def edit_labelme(image: str) -> Path:
    path = Path(f"out/labelme/{image}.json")
    value = json.loads(path.read_text())
    value["shapes"] = [each for each in value["shapes"] if min(map(sum, each["points"])) > 12]
    path.write_text(json.dumps(value))
    return Path("out/labelme")


def edit_yolo(image: str) -> Path:
    path = Path(f"out/yolo/labels/train/{image}.txt")
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in lines if not line.startswith("0 0.064062 0.08")))
    assert len(path.read_text().splitlines()) == len(lines) - 1, lines
    return Path("out/yolo")


def edit_panoptic(image: str) -> Path:
    path = Path(f"out/panoptic/{image}.png")
    colours = np.array(Image.open(path))
    colours[:30, :40] = 0
    Image.fromarray(colours).save(path)
    return Path("out/panoptic")


#: Edits of one image in files of the folder, and where they are imported from.
EDITS: Mapping[str, Callable[[str], Path]] = {
    "coco": lambda image: edit_coco(Path("out/annotations.json"), image),
    "coco-polygon": lambda image: edit_coco(Path("out/annotations-polygon.json"), image),
    "cvat": edit_cvat,
    "labelme": edit_labelme,
    "yolo": edit_yolo,
    "panoptic": edit_panoptic,
}


def problems() -> list[str]:
    return [str(each) for each in check_folder("out", verbose=False)]


@pytest.mark.parametrize("form", EDITS)
def test_an_edited_file_of_the_folder_changes_its_image_alone(out: Path, form: str) -> None:
    """Another mask was edited in place meanwhile. All files show both corrections then, and the edited file is in the trash."""
    mine = paint("b")
    source = EDITS[form]("a")
    told = correct_folder(out, source, dry_run=True)
    found = correct_folder(out, source)
    assert [each.image for each in found.masks] == [each.image for each in told.masks] == ["a.png"]
    left = ("b.png",) if form.startswith("coco") else ()  # files that list b, of labels that nobody has any more
    assert (found.left_out, told.left_out, found.failed) == (left, left, len(left))
    assert np.array_equal(mask("a"), without_first())
    assert np.array_equal(mask("b"), mine)
    assert problems() == []
    assert correct_folder(out, source).masks == ()
    shown = json.loads(Path("out/annotations.json").read_text())
    assert [sum(each["image_id"] == number for each in shown["annotations"]) for number in (1, 2, 3)] == [3, 5, 4]
    kept = {path.name for path in Path("out/replaced").glob("*/*")}
    assert kept == {"coco": {"annotations.json"}, "coco-polygon": {"annotations-polygon.json"}}.get(form, kept)


@pytest.mark.parametrize("file", ["annotations.json", "annotations-polygon.json"])
def test_a_file_can_be_imported_again_after_other_corrections(out: Path, file: str) -> None:
    source = edit_coco(Path(shutil.copy(out / file, "task.json")), "a")
    correct_folder(out, source)
    mine = MODEL.copy()
    mine[:3, 60:] = 2
    Image.fromarray(mine).save("b.png")
    correct_folder(out, "b.png")
    again = correct_folder(out, source)
    assert (again.masks, again.left_out, again.failed) == ((), (), 0)
    assert np.array_equal(mask("a"), without_first())
    assert np.array_equal(mask("b"), mine)
    assert problems() == []


def test_a_killed_import_is_not_taken_back_by_the_files_that_it_did_not_reach(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(without_first()).save("a.png")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(taking, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            correct_folder(out, "a.png")
    assert np.array_equal(mask("a"), without_first())
    found = correct_folder(out, edit_cvat("b"))
    assert [each.image for each in found.masks] == ["b.png"]
    assert np.array_equal(mask("a"), without_first())
    assert problems() == []


@pytest.mark.parametrize("form", [each for each in FORMATS if each != "label-studio"])
def test_files_that_nobody_edited_change_nothing(out: Path, form: str) -> None:
    """In the folder, or copied out of it."""
    files = {"coco": "annotations.json", "coco-polygon": "annotations-polygon.json", "png": "masks", "panoptic": "."}
    place = files.get(form, form)
    shutil.copytree(out, "copy", ignore=shutil.ignore_patterns(".tipsseg", "manifest.jsonl", "run.json"))
    sources = [Path("copy", place)] if form == "panoptic" else [out / place, Path("copy", place)]
    for source in sources:
        found = correct_folder(out, source, source_format=form if form == "panoptic" else None)
        assert (found.masks, found.failed, len(found.unchanged)) == ((), 0, 3)
    assert not any(b'"person"' in path.read_bytes() for path in Path("out/masks").iterdir())


def test_two_people_correct_one_image(out: Path) -> None:
    """Different objects come together. Where both changed the same pixels, the second is told so, and the rest is imported."""
    first, second = (Path(shutil.copy(out / "annotations.json", name)) for name in ("anna.json", "ben.json"))
    edit_coco(first, "a")
    edit_coco(edit_coco(second, "b"), "c")
    value = json.loads(second.read_text())
    for each in value["annotations"]:
        if each["image_id"] == 1 and each["bbox"][:2] == [5, 35]:
            each["category_id"] = 3  # of the lower left object of a
    second.write_text(json.dumps(value))
    correct_folder(out, first)
    found = correct_folder(out, second)
    assert ([each.image for each in found.masks], found.failed) == (["a.png", "b.png", "c.png"], 0)
    both = without_first()
    both[35:55, 5:30] = 3
    assert np.array_equal(mask("a"), both)

    for each in value["annotations"]:
        if each["image_id"] == 1 and each["bbox"][:2] == [5, 5]:
            each["category_id"] = 2  # of the object that the first one deleted
    Path("carl.json").write_text(json.dumps(value))
    found = correct_folder(out, "carl.json")
    assert (found.masks, found.left_out, found.failed) == ((), ("a.png",), 1)
    assert np.array_equal(mask("a"), both)
    assert [each.image for each in correct_folder(out, "carl.json", replace_edited=True).masks] == ["a.png"]
    both[5:25, 5:30] = 2
    assert np.array_equal(mask("a"), both)


def test_a_later_export_of_a_task_may_take_back_what_it_changed_itself(out: Path) -> None:
    source = Path(shutil.copy(out / "annotations.json", "task.json"))
    before = source.read_text()
    correct_folder(out, edit_coco(source, "a"))
    source.write_text(before)
    assert [each.image for each in correct_folder(out, source).masks] == ["a.png"]
    assert np.array_equal(mask("a"), MODEL)


def test_a_file_of_unknown_labels_does_not_replace_a_correction(out: Path, command: Command) -> None:
    """A mask that a program saved says nothing of the labels that it was made on."""
    Path("new").mkdir()
    for name in ("a", "b"):
        Image.fromarray(without_first()).save(f"new/{name}.png")
    mine = paint("b")
    ran = command("correct", "out", "--from", "new")
    assert (ran.code, ran.out) == (1, "out/masks/a.png\n")
    assert "b.png: a person corrected it, and this file does not say which labels it was made on" in ran.err
    assert "--replace-edited" in ran.err
    assert np.array_equal(mask("b"), mine)
    assert command("correct", "out", "--from", "new", "--replace-edited").code == 0
    assert np.array_equal(mask("b"), without_first())
    (kept,) = Path("out/replaced").glob("*/masks/b.png")
    assert np.array_equal(np.asarray(Image.open(kept)), mine)


def test_an_object_of_the_background_takes_its_pixels_away(out: Path) -> None:
    value = json.loads(Path(shutil.copy(out / "annotations.json", "task.json")).read_text())
    value["categories"].append({"id": 9, "name": "background"})
    box = [[50, 15, 70, 15, 70, 45, 50, 45]]
    value["annotations"].append({"id": 99, "image_id": 1, "category_id": 9, "segmentation": box})
    Path("task.json").write_text(json.dumps(value))
    assert [each.image for each in correct_folder(out, "task.json").masks] == ["a.png"]
    wanted = MODEL.copy()
    wanted[15:45, 50:70] = 0
    assert np.array_equal(mask("a"), wanted)


# ---- the review page ----


def page_file(name: str, image: str, picture: str, base: str, box: tuple[int, int, int, int], saved: int) -> Path:
    top, left, bottom, right = box
    points = [[top, left], [top, right], [bottom, right], [bottom, left]]
    strokes = [{"class": "car", "lasso": True, "points": points}]
    record = {"image": image, "labels": base, "picture": picture, "objects": [], "strokes": strokes}
    path = Path(name)
    path.write_text(json.dumps({"tool": "tipsseg", "browser": "k3b", "saved": saved, "corrections": [record]}))
    return path


def shown(image: str) -> tuple[str, str]:
    """The digests of a picture and of the labels, as the page has them."""
    from tipsseg.folder.read import open_run

    with open_run(Path("out")) as run:
        entry = run.image(image).entry
        return entry.mask.picture.pixels, entry.base


def test_strokes_follow_the_picture_that_they_were_drawn_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images without objects have equal labels; their pictures are renumbered after the page was written."""
    monkeypatch.chdir(tmp_path)
    nothing = np.zeros_like(MODEL)
    save_inputs(tmp_path / "imgs", dict.fromkeys(("1.png", "2.png"), nothing))
    for number in (1, 2):
        Image.fromarray(np.full((*MODEL.shape, 3), 90 * number, np.uint8)).save(tmp_path / f"imgs/{number}.png")
    make_run(Path("out"), tmp_path / "imgs", dict.fromkeys(("1.png", "2.png"), nothing), ("panda", "tree", "car"))
    (picture, base), (other, _) = shown("1.png"), shown("2.png")
    source = page_file("corrections-1.json", "1.png", picture, base, (10, 10, 20, 20), 1)
    shutil.rmtree("out")
    for name, value in (("1", 180), ("2", 90)):
        Image.fromarray(np.full((*MODEL.shape, 3), value, np.uint8)).save(tmp_path / f"imgs/{name}.png")
    make_run(Path("out"), tmp_path / "imgs", dict.fromkeys(("1.png", "2.png"), nothing), ("panda", "tree", "car"))
    assert [each.image for each in correct_folder("out", source).masks] == ["2.png"]
    gone = page_file("corrections-2.json", "1.png", other[::-1], base, (10, 10, 20, 20), 2)
    with pytest.raises(Exception, match="different pictures"):
        correct_folder("out", gone)


def test_the_files_that_a_page_saved_are_taken_in_the_order_of_their_saving(out: Path, command: Command) -> None:
    """A folder, such as that of downloads, may hold other files too."""
    picture, base = shown("a.png")
    other = shown("b.png")
    Path("downloads").mkdir()
    Path("downloads/other.json").write_text("{")
    page_file("downloads/corrections-20261202-071245.json", "a.png", picture, base, (40, 50, 50, 60), 300)
    page_file("downloads/corrections (1).json", "a.png", picture, base, (30, 50, 40, 60), 200)
    page_file("downloads/corrections.json", "b.png", *other, (30, 50, 40, 60), 100)
    ran = command("correct", "out", "--from", "downloads")
    assert ran.code == 0, ran.err
    assert [(mask("a") == 3)[rows, 50:60].all() for rows in (slice(40, 50), slice(36, 40))] == [True, False]
    assert (mask("b") == 3)[30:40, 50:60].all()
    again = command("correct", "out", "--from", "downloads/corrections.json")
    assert (again.code, "1 unchanged, 1 of them imported before" in again.err) == (0, True), again.err
