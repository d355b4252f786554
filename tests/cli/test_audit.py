"""tipsseg audit: errors planted in the labels of drawn scenes come first."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from running import Command

import tipsseg
from tipsseg import review

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
AUDIT = ("audit", "seen", "--labels")
LEAVES = ("--vocab", str(EXAMPLES / "leaves.txt"))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes, and what the model sees in them."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "imgs").mkdir()
    for name in ("house.webp", "two-pandas.png"):
        shutil.copy(EXAMPLES / "scenes/meadow" / name, folder / "imgs")
    tipsseg.label_folder(
        folder / "imgs",
        _leaves(),
        model="tiny",
        device="cpu",
        formats=["png", "npz"],
        output=folder / "seen",
        verbose=False,
    )
    return folder


@pytest.fixture(autouse=True)
def scenes(seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenes, and their truth in index masks with a planted error each: a roof called water, and sky without a label."""
    shutil.copytree(seen, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    Path("masks").mkdir()
    for name, change in (("house", (16, 7)), ("two-pandas", (1, 0))):
        truth = np.asarray(Image.open(EXAMPLES / f"truth/meadow/{name}.png")).copy()
        truth[truth == change[0]] = change[1]
        Image.fromarray(truth).save(f"masks/{name}.png")


def findings(ran: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_planted_errors_come_first(command: Command) -> None:
    ran = command(*AUDIT, "masks", *LEAVES, "--jsonl")
    assert ran.code == 0, ran.err
    first, second, *others = findings(ran)
    found = {each["image"]: (each["kind"], each["label"], each["seen"]) for each in (first, second)}
    assert found == {"house.webp": ("class", "water", "house roof"), "two-pandas.png": ("unlabelled", None, "sky")}
    assert all(each["score"] <= second["score"] <= first["score"] <= 1 for each in others)
    assert first["area"] <= first["bbox"][2] * first["bbox"][3]
    assert "in 2 images" in ran.err.splitlines()[-1]
    lines = command(*AUDIT, "masks", *LEAVES, "-n", "2").out.splitlines()
    assert len(lines) == 2
    assert any("labelled water, looks like house roof" in line for line in lines)
    assert any("no label, looks like sky" in line for line in lines)
    (record, *_) = review.audit("seen", "masks", _leaves()).records()
    assert record == first


def _leaves() -> Any:
    lines = (EXAMPLES / "leaves.txt").read_text().splitlines()
    return tipsseg.make_vocabulary([line for line in lines if line and not line.startswith("#")], "none")


def test_findings_are_written_as_coco(command: Command) -> None:
    from pycocotools import mask as coco_mask

    ran = command(*AUDIT, "masks", *LEAVES, "--coco", "doubts.json", "--jsonl")
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
    assert command(*AUDIT, "masks", *LEAVES, "--coco", "doubts.json", "-q").code == 0  # the same bytes
    Path("doubts.json").write_text("mine")
    again = command(*AUDIT, "masks", *LEAVES, "--coco", "doubts.json", "--jsonl")
    assert (again.code, again.out, Path("doubts.json").read_text()) == (1, "", "mine")
    assert "doubts.json: the file exists" in again.err


def test_findings_are_written_as_label_studio_tasks(command: Command) -> None:
    ran = command(*AUDIT, "masks", *LEAVES, "--label-studio", "tasks.json", "--jsonl")
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
    Path("tasks.xml").write_text("mine")
    again = command(*AUDIT, "masks", *LEAVES, "--label-studio", "tasks.json")
    assert (again.code, again.out, Path("tasks.xml").read_text()) == (1, "", "mine")


ASKED = "label imgs -m tiny --device cpu -c panda,house,tree -q"


def test_classes_are_matched_by_name(command: Command) -> None:
    assert command(*ASKED.split(), "-f", "coco,npz", "-o", "seen3").code == 0
    value = json.loads(Path("seen3/annotations.json").read_text())
    for category in value["categories"]:  # the same classes by other ids, and a class by a synonym
        category["id"] = 4 - category["id"]
        category["name"] = {"panda": "bear"}.get(category["name"], category["name"])
    for annotation in value["annotations"]:
        annotation["category_id"] = 4 - annotation["category_id"]
    Path("same.json").write_text(json.dumps(value))
    Path("names.toml").write_text('[[classes]]\nname = "bear"\nsynonyms = ["panda"]\n')
    ran = command("audit", "seen3", "--labels", "same.json", "--vocab", "names.toml", "--jsonl")
    assert (ran.code, findings(ran)) == (0, []), ran.err  # the model agrees with itself
    for annotation in value["annotations"]:
        annotation["category_id"] = annotation["category_id"] % 3 + 1
    Path("wrong.json").write_text(json.dumps(value))
    ran = command("audit", "seen3", "--labels", "wrong.json", "--vocab", "names.toml", "--jsonl")
    kinds = {(each["kind"], each["label"], each["seen"]) for each in findings(ran)}
    assert {("class", "tree", "panda"), ("class", "house", "tree")} <= kinds


def test_classes_that_the_model_did_not_look_for_are_not_judged(command: Command) -> None:
    assert command(*ASKED.split(), "-f", "npz", "-o", "out").code == 0
    ran = command("audit", "out", "--labels", "masks", *LEAVES, "--jsonl")
    assert (ran.code, findings(ran)) == (0, []), ran.err  # regions of other classes, even where the model sees a panda
    assert "Did not judge the regions of sky, cloud" in ran.err
    written = ran.err.partition("judge them: ")[2].splitlines()[0]
    assert command(*shlex.split(written.replace("IMAGES", "imgs"))[1:], "--device", "cpu", "-q").code == 0
    again = command("audit", "out-2", "--labels", "masks", *LEAVES, "--jsonl")
    assert "Did not judge" not in again.err
    assert ("water", "house roof") in {(each["label"], each["seen"]) for each in findings(again)}


def test_a_folder_without_scores_gets_them_by_the_printed_command(command: Command) -> None:
    assert command(*ASKED.split(), "-f", "png", "-o", "out").code == 0
    ran = command("audit", "out", "--labels", "masks", *LEAVES)
    assert (ran.code, ran.out) == (1, "")
    assert "out: the format npz is missing" in ran.err
    written = ran.err.partition("write it: ")[2].splitlines()[0]
    assert command(*shlex.split(written.replace("IMAGES", "imgs"))[1:], "-q").code == 0
    assert command("audit", "out", "--labels", "masks", *LEAVES).code == 0


def test_corrected_images_are_left_out(command: Command) -> None:
    assert command("convert", "seen").code == 0  # it now knows the masks of this copy
    shutil.copy("masks/house.png", "seen/masks/house.png")
    ran = command(*AUDIT, "masks", *LEAVES, "--jsonl")
    assert {each["image"] for each in findings(ran)} == {"two-pandas.png"}
    assert "Left out 1 corrected image." in ran.err
    assert ran.err.splitlines()[-1].endswith("in 1 image")
    shutil.copy("masks/two-pandas.png", "seen/masks/two-pandas.png")
    ran = command(*AUDIT, "masks", *LEAVES)
    assert ran.code == 1
    assert "seen: no image has the model's labels" in ran.err


def test_an_image_fails_alone_and_one_without_labels_is_left_out(command: Command) -> None:
    Path("masks/house.png").unlink()
    Path("seen/npz/two-pandas.npz").write_bytes(b"")
    shutil.copy(EXAMPLES / "scenes/desert.png", "imgs")
    shutil.copy(EXAMPLES / "truth/desert.png", "masks")
    assert command("label", "imgs", "--from", "seen", "-o", "seen", "-q").code == 0
    ran = command(*AUDIT, "masks", *LEAVES)
    assert ran.code == 1
    assert ran.err.count("Error: ") == 1
    assert "two-pandas.npz: " in ran.err
    assert ran.err.splitlines()[-1].endswith("in 1 image; 1 image without labels; 1 failed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seen", "--labels", "masks"), "masks does not name its classes"),
        (("seen", "--labels", "nowhere"), "nowhere: no such file"),
        (("seen", "--labels", "other", *LEAVES), "other: no labels of these images"),
        (
            ("seen", "--labels", "masks", "--coco", "x", "--label-studio", "x"),
            "--coco and --label-studio name the same file",
        ),
        (("imgs", "--labels", "masks", *LEAVES), "imgs: not an output folder"),
        (("onto", "--labels", "masks", *LEAVES), "onto: its labels are partly from seen, not the model's"),
    ],
)
def test_labels_that_cannot_be_audited_are_refused(command: Command, arguments: tuple[str, ...], message: str) -> None:
    if arguments[0] == "onto":
        assert command(*ASKED.split(), "--onto", "seen", "-f", "npz", "-o", "onto").code == 0
    Path("other").mkdir()
    shutil.copy("masks/house.png", "other/x.png")
    ran = command("audit", *arguments)
    assert ran.code in (1, 2)
    assert message in ran.err
