"""--onto: labels that exist stay pixel for pixel, and new classes are added on the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import Command

import tipsseg
from tipsseg.labelling.golden import draw_picture

NAMES = ("a", "sub/b", "sub/c")
SIZES = {"a": (90, 130), "sub/b": (120, 80), "sub/c": (100, 100)}
MODEL = ("-m", "tiny", "--device", "cpu", "--short-side", "56", "-q")

#: Formats that can hold labels, and whether they hold them pixel for pixel.
SOURCES = {
    "png": True,
    "hf": True,
    "cvat": True,
    "coco": True,
    "coco-polygon": False,
    "labelme": False,
    "label-studio": False,
    "yolo": False,
}
FOLDERS = {
    "png": "old/masks",
    "coco": "old/annotations.json",
    "coco-polygon": "old/annotations-polygon.json",
    "label-studio": "exported/label-studio.json",
}


@pytest.fixture(autouse=True)
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """Three drawn images, and labels of half of each in the folder `old`: panda and tree, of which some touch."""
    monkeypatch.chdir(tmp_path)
    for name, (height, width) in SIZES.items():
        ids = np.zeros((height, width), np.uint8)
        ids[:, : width // 2] = 1 + np.arange(height)[:, None] * 4 // height
        for path, picture in ((f"imgs/{name}.jpg", draw_picture(height, width)), (f"regions/{name}.png", ids)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    label = (
        "label",
        "imgs",
        *MODEL,
        "-c",
        "tree,panda",
        "--background",
        "none",
        "--regions",
        "regions",
        "--regions-only",
    )
    assert command(*label, "-o", "old", "-f", ",".join(SOURCES)).code == 0
    tasks = json.loads(Path("old/label-studio.json").read_text())
    for task in tasks:  # a person submits the predictions
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"][::-1]}]  # panda first
    Path("exported").mkdir()
    Path("exported/label-studio.json").write_text(json.dumps(tasks))
    shutil.copy("old/label-studio.xml", "exported")  # names the classes, in their order


def mask(name: str, output: str) -> np.ndarray[Any, Any]:
    with Image.open(Path(output, "masks", f"{name}.png")) as picture:
        return np.asarray(picture)


def classes(output: str) -> list[str]:
    return [entry["name"] for entry in json.loads(Path(output, "classes.json").read_text())["classes"]]


def onto(command: Command, source: str, *options: str, names: str = "sky,car", output: str = "new") -> Any:
    model = [word for word in MODEL if word != "-q"]
    return command("label", "imgs", *model, "-c", names, "--onto", source, "-f", "png,coco", "-o", output, *options)


@pytest.mark.parametrize("source", SOURCES)
def test_labels_of_each_format_are_kept(command: Command, source: str) -> None:
    place = FOLDERS.get(source, f"old/{source}")
    ran = onto(command, place, "--background", "none")
    assert ran.code == 0, ran.err
    assert f"onto {place}" in ran.err
    assert classes("new") == ["tree", "panda", "sky", "car"]
    assert f"Kept from {place}: tree (id 1), panda (id 2). Added: sky (id 3), car (id 4)." in ran.err
    table = np.array([0, *(classes("new").index(name) + 1 for name in ("tree", "panda"))])
    for name in NAMES:
        before, after = table[mask(name, "old")], mask(name, "new")
        if SOURCES[source]:
            assert (after[before > 0] == before[before > 0]).all()
        else:
            assert (after == before)[before > 0].mean() > 0.95
        free = after[before == 0]
        assert np.isin(free, [0, 3, 4]).mean() > (0.999 if SOURCES[source] else 0.9)
        assert np.isin(free, [3, 4]).any()
    assert command("check", "new").code == 0


@pytest.mark.parametrize("source", ["old/annotations.json", "old"])
def test_objects_that_touch_stay_apart(command: Command, source: str) -> None:
    assert onto(command, source).code == 0
    found = {}
    for output in ("old", "new"):
        value = json.loads(Path(output, "annotations.json").read_text())
        names = {each["id"]: each["name"] for each in value["categories"]}
        found[output] = sorted(
            (each["image_id"], names[each["category_id"]], each["area"], *each["bbox"])
            for each in value["annotations"]
            if names[each["category_id"]] in ("tree", "panda")
        )
    assert found["old"] == found["new"]


def test_a_named_class_that_exists_is_extended(command: Command) -> None:
    assert onto(command, "old", "--background", "none", names="Panda,sky").code == 0
    assert classes("new") == ["tree", "Panda", "sky"]
    free = np.concatenate([mask(name, "new")[mask(name, "old") == 0] for name in NAMES])
    assert set(np.unique(free)) <= {0, 2, 3}
    for name in NAMES:
        kept = mask(name, "old")
        assert (mask(name, "new")[kept > 0] == kept[kept > 0]).all()


def test_pixels_of_other_old_classes_stay_without_label(command: Command) -> None:
    """Classes that the command does not name compete, so that a new class does not take their pixels."""
    assert onto(command, "old", "--background", "none", names="car").code == 0
    assert (
        command("label", "imgs", *MODEL, "-c", "tree,panda,car", "--background", "none", "-f", "png", "-o", "all").code
        == 0
    )
    for name in NAMES:
        free = mask(name, "old") == 0
        assert (mask(name, "new")[free] == np.where(mask(name, "all") == 3, 3, 0)[free]).all()


def test_ignored_pixels_stay_ignored(command: Command) -> None:
    shutil.copytree("old/masks", "masks")
    shutil.copy("old/classes.json", "masks/classes.json")
    values = mask("a", "old").copy()
    values[:10] = 255
    Image.fromarray(values).save("masks/a.png")
    assert onto(command, "masks").code == 0
    assert (mask("a", "new")[:10] == 255).all()


def test_an_image_without_labels_gets_the_new_classes(command: Command) -> None:
    shutil.copytree("old/labelme", "labels")
    Path("labels/a.json").unlink()
    assert onto(command, "labels", "--background", "none").code == 0
    assert set(np.unique(mask("a", "new"))) <= {0, 3, 4}


def test_labels_of_other_images_are_noted(command: Command) -> None:
    Path("other").mkdir()
    shutil.copy("old/masks/a.png", "other/x.png")
    shutil.copy("old/classes.json", "other")
    note = "other has no labels of these images. Images and labels are matched by their names."
    assert note in onto(command, "other").err
    shutil.copy("old/masks/a.png", "other")
    assert note not in onto(command, "other", output="second").err


def test_negative_classes_compete_and_are_not_written(command: Command) -> None:
    """A negative class of the vocabulary stays negative, also beside labels with classes of their own."""
    Path("negative.toml").write_text('[[classes]]\nname = "sky"\n[[classes]]\nname = "car"\nnegative = true\n')
    label = ("label", "imgs", *MODEL, "--onto", "old", "-f", "png")
    assert command(*label, "--vocab", "negative.toml", "--background", "none", "-o", "new").code == 0
    assert classes("new") == ["tree", "panda", "sky"]
    assert command(*label, "-c", "sky,car", "--background", "none", "-o", "both").code == 0
    for name in NAMES:
        both = mask(name, "both")
        assert (mask(name, "new") == np.where(both == 4, 0, both)).all()


def test_only_images_with_changed_labels_are_labelled_again(command: Command) -> None:
    assert onto(command, "old/labelme").code == 0
    assert "0 images labelled, 3 unchanged" in onto(command, "old/labelme").err
    path = Path("old/labelme/a.json")
    value = json.loads(path.read_text())
    value["shapes"].pop()
    path.write_text(json.dumps(value))
    assert "1 image labelled, 2 unchanged" in onto(command, "old/labelme").err


@pytest.mark.parametrize("content", ["", "{", '{"shapes": 1, "imageHeight": 90, "imageWidth": 130}'])
def test_an_image_whose_labels_are_damaged_fails_alone(command: Command, content: str) -> None:
    assert onto(command, "old/labelme").code == 0
    Path("old/labelme/a.json").write_text(content)
    ran = onto(command, "old/labelme", output="second")
    assert ran.code == 1
    assert ran.err.count("Error: ") == 1
    assert "old/labelme/a.json" in ran.err
    assert "2 images labelled, 1 failed" in ran.err


def test_lines_are_skipped_with_a_note(command: Command) -> None:
    path = Path("old/labelme/a.json")
    value = json.loads(path.read_text())
    value["shapes"].append({"label": "tree", "shape_type": "line", "points": [[0, 0], [5, 5]]})
    path.write_text(json.dumps(value))
    assert "Skipped 1 shape without pixels in old/labelme: line.\n" in onto(command, "old/labelme").err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: no such file"),
        ("imgs", "imgs: no labels found in this folder"),
        ("old/panoptic.json", '"a.png" is missing: pass a folder'),
        ("bare", "bare does not name its classes"),
    ],
)
def test_sources_that_cannot_be_used(command: Command, source: str, message: str) -> None:
    shutil.copytree("old/masks", "bare")
    assert command("convert", "old", "-f", "panoptic", "-q").code == 0
    ran = onto(command, source)
    assert ran.code in (1, 2)
    assert message in ran.err
    assert not Path("new").exists()


def test_masks_named_by_a_short_list(command: Command) -> None:
    """As the hint for bare masks says."""
    shutil.copytree("old/masks", "bare")
    Path("bare/classes.json").write_text('{"classes": [{"id": 1, "name": "tree"}, {"id": 2, "name": "car"}]}')
    assert onto(command, "bare").code == 0
    assert classes("new") == ["tree", "car", "sky"]


def test_a_run_is_repeated_and_shared_out(command: Command) -> None:
    assert onto(command, "old").code == 0
    record = json.loads(Path("new/run.json").read_text())
    assert record["onto"] == {"source": "old", "added": ["sky", "car"]}
    assert command("label", "imgs", "--from", "new", "-o", "again", "-q").code == 0
    for shard in ("1/2", "2/2"):
        assert onto(command, "old", "--shard", shard, output="parts").code == 0
    for name in NAMES:
        for output in ("again", "parts"):
            assert (mask(name, "new") == mask(name, output)).all()


def test_the_library_adds_classes(command: Command) -> None:
    assert onto(command, "old").code == 0
    tipsseg.label_folder(
        "imgs", ["sky", "car"], model="tiny", short_side=56, onto="old", formats=["png"], output="library"
    )
    for name in NAMES:
        assert (mask(name, "new") == mask(name, "library")).all()
