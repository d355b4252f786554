"""--present: what is in each image, by its folder or by a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import Command, Ran

SCENE = Path(__file__).resolve().parents[2] / "examples/scenes/meadow/panda-and-tree.jpg"
IMAGES = ("Panda/one.png", "tree/sub/two.png", "rest/three.png")
PANDA, HEAD, TREE, CAR = 1, 2, 3, 4


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picture of a panda and a tree in three folders."""
    monkeypatch.chdir(tmp_path)
    for name in IMAGES:
        Path("imgs", name).parent.mkdir(parents=True)
        Image.open(SCENE).resize((320, 240)).save(Path("imgs", name))


def label(command: Command, present: str, *more: str) -> Ran:
    options = ("-c", "panda,panda/head,tree,car", "-m", "tiny", "--device", "cpu", "-f", "png,csv")
    return command("label", "imgs", *options, "--present", present, *more)


def masks() -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(Path("labels/masks", name))) for name in IMAGES]


def found() -> list[set[int]]:
    return [set(np.unique(mask).tolist()) - {0} for mask in masks()]


def test_the_nearest_folder_with_the_name_of_a_class(command: Command) -> None:
    ran = label(command, "folders")
    assert ran.code == 0, ran.err
    assert found() == [{PANDA, HEAD}, {TREE}, {PANDA, HEAD, TREE}]
    assert "Images for each name of --present: panda 2, panda/head 2, tree 2, car 1." in ran.err
    classes = json.loads(Path("labels/classes.json").read_bytes())["classes"]
    assert [each["asked"] for each in classes] == [2, 2, 2, 1]
    assert [each["asked"] for each in json.loads(Path("labels/run.json").read_bytes())["summary"]["classes"]] == [
        2,
        2,
        2,
        1,
    ]
    assert command("check", "labels").code == 0
    assert "3 unchanged" in label(command, "folders").err


FILES = {
    "a.csv": 'image,names\nPanda/one.png,panda\ntree/sub/two.png,"tree;car"\n',
    "b.csv": "image,names\none.png,Panda\ntwo.png,tree\ntwo.png,car\n",
    "c.jsonl": '{"image": "one.png", "names": ["panda"]}\n{"file_name": "two.png", "names": "tree, car"}\n',
    "d.csv": '\ufeffimage,caption\none,"A PANDA, a carpet,\n\na street"\ntwo,"Trees beside cars."\n',
    "e.jsonl": '{"file_name": "one.png", "text": "pandas"}\n{"file_name": "two.png", "text": "a tree and a car"}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_names_and_captions(command: Command, name: str) -> None:
    Path(name).write_text(FILES[name])
    ran = label(command, name)
    assert ran.code == 0, ran.err
    one, two, three = ([(mask == each).sum() for each in (PANDA, TREE, CAR)] for mask in masks())
    assert (one[0] >= three[0], 0 < one[1] < three[1]) == (True, True)  # the tree is there, but nobody said so
    assert (two[1] >= three[1], 0 < two[0] < three[0]) == (True, True)
    lines = [json.loads(line) for line in Path("labels/manifest.jsonl").read_text().splitlines()]
    present = {line["image"]: line.get("present") for line in lines}
    assert present == {IMAGES[0]: [1, 2], IMAGES[1]: [3, 4], IMAGES[2]: None}


def test_images_without_names_and_lines_without_images_are_noted(command: Command) -> None:
    ran = label(command, "folders")
    assert "All classes compete in 1 image without listed classes: rest/three.png." in ran.err
    Path("a.csv").write_text("image,caption,names\none.png,,\ntwo.png,a mountain\n")
    ran = label(command, "a.csv", "-o", "other")
    assert "All classes compete in 2 images without listed classes: rest/three.png, tree/sub/two.png." in ran.err
    Path("a.csv").write_text("image,names\none.png,\nelsewhere.png,panda\n")
    ran = label(command, "a.csv", "-o", "more")
    assert "Ignored 1 entry of a.csv without an image." in ran.err
    assert not np.asarray(Image.open("more/masks/Panda/one.png")).any()


@pytest.mark.parametrize("present", ["folders", "a.csv"])
def test_a_repeated_run_has_the_same_names(command: Command, present: str) -> None:
    Path("a.csv").write_text(FILES["a.csv"])
    Path("imgs/broken.png").write_bytes(b"not an image")
    ran = label(command, present)
    again = command("label", "imgs", "--from", "labels/run.json", "-o", "again")
    assert (ran.code, again.code) == (1, 1)
    for path in Path("labels/masks").rglob("*.png"):
        assert path.read_bytes() == Path("again", path.relative_to("labels")).read_bytes()
    assert [json.loads(Path(place, "run.json").read_bytes())["present"] for place in ("labels", "again")] == [
        {"source": present}
    ] * 2
    Image.open(SCENE).resize((320, 240)).save("imgs/broken.png")
    ran = label(command, present)
    assert (ran.code, "settings" in ran.err, "1 image labelled" in ran.err) == (0, False, True)


def test_changed_names_label_only_these_images_again(command: Command) -> None:
    Path("a.csv").write_text(FILES["a.csv"])
    assert label(command, "a.csv").code == 0
    Path("a.csv").write_text(FILES["a.csv"].replace("tree;car", "panda"))
    ran = label(command, "a.csv")
    assert "1 image labelled again: the regions, labels or names changed." in ran.err
    one, two, _ = masks()
    assert np.array_equal(one, two)
    ran = command("label", "imgs", "-c", "panda,panda/head,tree,car", "-m", "tiny", "-f", "png,csv")
    assert ran.code == 1
    assert "present on -> none" in ran.err


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("image,names\none.png,tre\n", "a.csv: line 2: 'tre' is not a class", "Did you mean 'tree'?"),
        ("picture,names\none.png,tree\n", "no column `image`", "image,names"),
        ("image,label\none.png,tree\n", "line 2: one.png has neither `names` nor a `caption`", ""),
        ("image,names\none.png,panda\x00\n", "a.csv: line 2", ""),
        ("image,names\n", "no images are listed", "Write a line for each image"),
    ],
)
def test_faults_of_files_are_found_before_the_run(command: Command, content: str, message: str, hint: str) -> None:
    Path("a.csv").write_text(content)
    ran = label(command, "a.csv")
    assert ran.code == 1
    assert message in ran.err
    assert hint in ran.err
    assert not Path("labels").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--present", "nowhere.csv"), 'Pass the word "folders", or a .csv or .jsonl file.'),
        (("--present", "imgs"), "neither a CSV file nor JSON lines"),
    ],
)
def test_mistakes(command: Command, arguments: tuple[str, ...], part: str) -> None:
    ran = command("label", "imgs", "-c", "panda", "-m", "tiny", *arguments)
    assert ran.code in (1, 2)
    assert part in ran.err


@pytest.mark.parametrize("line", ["one.png,panda,tree", "one.png,panda,"])
def test_names_beyond_the_columns_are_refused(command: Command, line: str) -> None:
    Path("a.csv").write_text(f"image,names\n{line}\n")
    ran = label(command, "a.csv")
    assert (ran.code, "a.csv: line 2: more values than columns" in ran.err) == (1, True), ran.err
    assert "Separate names by ;" in ran.err
