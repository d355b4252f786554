"""tipsseg audit: errors planted in the labels of drawn scenes come first."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from running import Command

from tipsseg import review

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
AUDIT = ("audit", "imgs", "-m", "tiny", "--device", "cpu")
LEAVES = ("--vocab", str(EXAMPLES / "leaves.txt"), "--background", "none")


@pytest.fixture(autouse=True)
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scenes, and their truth in index masks with a planted error each: a roof called water, and sky without a label."""
    monkeypatch.chdir(tmp_path)
    Path("imgs").mkdir()
    Path("masks").mkdir()
    for name, change in (("house.webp", (16, 7)), ("two-pandas.png", (1, 0))):
        shutil.copy(EXAMPLES / "scenes/meadow" / name, "imgs")
        truth = np.asarray(Image.open(EXAMPLES / "truth/meadow" / Path(name).with_suffix(".png"))).copy()
        truth[truth == change[0]] = change[1]
        Image.fromarray(truth).save(Path("masks", name).with_suffix(".png"))


def findings(ran: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_planted_errors_come_first(command: Command) -> None:
    ran = command(*AUDIT, *LEAVES, "--labels", "masks", "--jsonl")
    assert ran.code == 0, ran.err
    first, second, *others = findings(ran)
    found = {each["image"]: (each["kind"], each["label"], each["seen"]) for each in (first, second)}
    assert found == {"house.webp": ("class", "water", "house roof"), "two-pandas.png": ("unlabelled", None, "sky")}
    assert all(each["score"] <= second["score"] <= first["score"] <= 1 for each in others)
    assert first["area"] <= first["bbox"][2] * first["bbox"][3]
    assert "in 2 images" in ran.err.splitlines()[-1]
    assert not Path("labels").exists()
    lines = command(*AUDIT, *LEAVES, "--labels", "masks", "-n", "2").out.splitlines()
    assert len(lines) == 2
    assert any("labelled water, looks like house roof" in line for line in lines)
    assert any("no label, looks like sky" in line for line in lines)
    (record, *_) = review.audit("imgs", "masks", _leaves(), model="tiny").records()
    assert record == first


def _leaves() -> Any:
    from tipsseg import make_vocabulary

    lines = (EXAMPLES / "leaves.txt").read_text().splitlines()
    return make_vocabulary([line for line in lines if line and not line.startswith("#")], "none")


def test_findings_are_written_as_coco(command: Command) -> None:
    from pycocotools import mask as coco_mask

    ran = command(*AUDIT, *LEAVES, "--labels", "masks", "--coco", "doubts.json", "--jsonl")
    assert ran.code == 0, ran.err
    value = json.loads(Path("doubts.json").read_text())
    records = findings(ran)
    assert len(value["annotations"]) == len(records)
    categories = {each["id"]: each["name"] for each in value["categories"]}
    images = {each["id"]: each["file_name"] for each in value["images"]}
    for annotation, record in zip(value["annotations"], records, strict=True):
        assert categories[annotation["category_id"]] == (record["seen"] or record["label"])
        assert images[annotation["image_id"]] == record["image"]
        assert int(coco_mask.area(annotation["segmentation"])) == annotation["area"] == record["area"]
        assert annotation["attributes"] == {key: record[key] for key in ("kind", "label", "seen")}
    again = command(*AUDIT, *LEAVES, "--labels", "masks", "--coco", "doubts.json", "--jsonl")
    assert (again.code, again.out) == (1, "")  # refused before an image is labelled
    assert "doubts.json: the file exists" in again.err


def test_a_killed_audit_does_not_refuse_its_own_file(command: Command, tmp_path: Path) -> None:
    words = (*AUDIT, *LEAVES, "--labels", "masks", "--coco", "d.json", "--label-studio", "t.json", "-q")
    script = """
import os, signal, sys
from pathlib import Path
from tipsseg.cli.main import main
replace = Path.replace
def killed(path, target):
    replace(path, target)
    if target.name == "d.json":
        os.kill(os.getpid(), signal.SIGKILL)
Path.replace = killed
main()
"""
    assert subprocess.run([sys.executable, "-c", script, *words]).returncode == -9
    assert [path.name for path in Path().glob("?.*")] == ["d.json"]
    edited = shutil.copytree(tmp_path, f"{tmp_path}-edited")
    assert command(*words).code == 0
    assert sorted(path.name for path in Path().iterdir() if path.is_file()) == ["d.json", "t.json", "t.xml"]
    Path(edited, "d.json").write_text("mine")
    assert command(*words, cwd=Path(edited)).code == 1
    assert Path(edited, "d.json").read_text() == "mine"


def test_findings_are_written_as_label_studio_tasks(command: Command) -> None:
    ran = command(*AUDIT, *LEAVES, "--labels", "masks", "--label-studio", "tasks.json", "--jsonl")
    assert ran.code == 0, ran.err
    tasks = json.loads(Path("tasks.json").read_text())
    records = findings(ran)
    assert [task["data"]["file_name"] for task in tasks] == list(dict.fromkeys(each["image"] for each in records))
    for task in tasks:
        own = [each for each in records if each["image"] == task["data"]["file_name"]]
        (prediction,) = task["predictions"]
        assert prediction["score"] == own[0]["score"]
        numbers = [int(result["id"].partition("-")[0]) for result in prediction["result"]]
        assert set(numbers) == set(range(1, len(own) + 1))
        for number, result in zip(numbers, prediction["result"], strict=True):
            record = own[number - 1]
            assert result["value"]["polygonlabels"] == [record["seen"] or record["label"]]
            assert result["score"] == record["score"]
            (text,) = result["meta"]["text"]
            assert (record["label"] or "no label") in text
            x, y, w, h = record["bbox"]
            corners = np.array(result["value"]["points"]) * [result["original_width"], result["original_height"]] / 100
            assert (corners >= [x - 0.1, y - 0.1]).all()
            assert (corners <= [x + w + 0.1, y + h + 0.1]).all()
    labels = {each.attrib["value"] for each in ElementTree.parse("tasks.xml").iter("Label")}
    assert {
        result["value"]["polygonlabels"][0] for task in tasks for result in task["predictions"][0]["result"]
    } <= labels
    again = command(*AUDIT, *LEAVES, "--labels", "masks", "--label-studio", "tasks.json")
    assert (again.code, again.out) == (1, "")


def test_the_classes_are_those_of_the_labels(command: Command) -> None:
    asked = "label imgs -m tiny --device cpu -c panda,house,tree -f png,coco -o out -q"
    assert command(*asked.split()).code == 0
    ran = command(*AUDIT, "--labels", "out/annotations.json", "--jsonl")
    assert (ran.code, findings(ran)) == (0, [])  # the model agrees with itself
    value = json.loads(Path("out/annotations.json").read_text())
    for annotation in value["annotations"]:
        annotation["category_id"] = annotation["category_id"] % 3 + 1
    Path("wrong.json").write_text(json.dumps(value))
    kinds = {
        (each["kind"], each["label"], each["seen"])
        for each in findings(command(*AUDIT, "--labels", "wrong.json", "--jsonl"))
    }
    assert {("class", "house", "panda"), ("class", "tree", "house"), ("class", "panda", "tree")} & kinds


def test_an_image_fails_alone_and_one_without_labels_is_left_out(command: Command) -> None:
    Path("masks/house.png").write_bytes(b"")
    shutil.copy(EXAMPLES / "scenes/desert.png", "imgs")
    ran = command(*AUDIT, *LEAVES, "--labels", "masks")
    assert ran.code == 1
    assert ran.err.count("Error: ") == 1
    assert ran.err.splitlines()[-1].endswith("in 1 image; 1 image without labels; 1 failed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "masks"), "masks does not name its classes"),
        (("--labels", "nowhere"), "nowhere: no such file"),
        (("--labels", "other", *LEAVES), "other: no labels of these images"),
        (("--labels", "masks", "--coco", "x", "--label-studio", "x"), "--coco and --label-studio name the same file"),
    ],
)
def test_labels_that_cannot_be_audited_are_refused(command: Command, arguments: tuple[str, ...], message: str) -> None:
    Path("other").mkdir()
    shutil.copy("masks/house.png", "other/x.png")
    ran = command(*AUDIT, *arguments)
    assert ran.code in (1, 2)
    assert message in ran.err
