"""--regions: touching things are objects of their own, in every command that reads labels back."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from running import Command

import tipsseg
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.formats import IMAGE_FORMATS, is_model_only
from tipsseg.formats.mask import read_sealed
from tipsseg.labelling.golden import draw_picture

NAMES = ("a", "sub/b", "sub/c")
SIZES = {"a": (90, 130), "sub/b": (120, 80), "sub/c": (100, 100)}
CLASSES = tipsseg.make_vocabulary(["panda", "tree", "sky"], "none")
LABEL = (
    "label",
    "imgs",
    "-m",
    "tiny",
    "--device",
    "cpu",
    "--short-side",
    "56",
    "--background",
    "none",
    "-c",
    "panda,tree,sky",
)


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three drawn images, and four touching regions of each; a margin of 3 pixels is in none."""
    monkeypatch.chdir(tmp_path)
    for name, (height, width) in SIZES.items():
        for path, picture in (
            (Path("imgs", f"{name}.jpg"), draw_picture(height, width)),
            (Path("regions", f"{name}.png"), quarters(height, width)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


def quarters(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rows, columns = np.arange(height)[:, None] * 2 // height, np.arange(width)[None] * 2 // width
    ids = (2 * rows + columns + 1).astype(np.uint8)
    ids[:3] = 0
    return ids


def objects(output: str = "labels") -> dict[str, list[dict[str, Any]]]:
    """The annotations of each image."""
    value = json.loads(Path(output, "annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in value["images"]}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for annotation in value["annotations"]:
        found[names[annotation["image_id"]]].append(annotation)
    return found


def mask(name: str, output: str = "labels") -> np.ndarray[Any, Any]:
    with Image.open(Path(output, "masks", f"{name}.png")) as picture:
        return np.asarray(picture)


def test_touching_regions_are_objects(command: Command) -> None:
    ran = command(*LABEL, "--regions", "regions", "--regions-only", "-f", "png,coco,instances")
    assert ran.code == 0, ran.err
    assert "regions in regions" in ran.err
    for name in NAMES:
        ids = quarters(*SIZES[name])
        labels = mask(name)
        assert not labels[ids == 0].any()
        with Image.open(Path("labels/instances", f"{name}.png")) as picture:
            instances = np.asarray(picture)
        found = objects()[f"{name}.jpg"]
        assert len(found) == instances.max() >= 4
        for number, annotation in enumerate(found, start=1):
            own = instances == number
            assert own.sum() == annotation["area"]
            assert np.unique(ids[own]).size == 1
            assert (labels[own] == annotation["category_id"]).all()
    record = json.loads(Path("labels/run.json").read_text())
    assert record["regions"] == {"source": "regions", "only": True, "margin": 0}
    assert "--regions=regions --regions-only" in record["command"]
    assert record["formats"] == ["png", "coco", "instances"]


def test_a_margin_takes_refined_labels_at_the_edges_of_regions(command: Command) -> None:
    label = (*LABEL, "--regions", "regions", "-f", "png", "-q")
    for name, more in {"none": (), "margin": ("--regions-margin", "20")}.items():
        ran = command(*label, "--refine", "guided", *more, "-o", name)
        assert ran.code == 0, ran.err
    for name in NAMES:
        near = cv2.dilate(_edges(quarters(*SIZES[name])), np.ones((43, 43), np.uint8)) > 0
        changed = mask(name, "margin") != mask(name, "none")
        assert not changed[~near].any()
    assert any((mask(name, "margin") != mask(name, "none")).any() for name in NAMES)
    assert json.loads(Path("margin/run.json").read_text())["regions"]["margin"] == 20
    ran = command(*label, "--refine", "guided", "-o", "margin")
    assert (ran.code, "regions regions, margin 20 -> regions" in ran.err) == (1, True), ran.err
    again = command("label", "imgs", "--from", "margin/run.json", "-o", "again")
    assert again.code == 0, again.err
    assert all(np.array_equal(mask(name, "again"), mask(name, "margin")) for name in NAMES)


def test_regions_with_rough_edges_are_noted(command: Command) -> None:
    """Also without refinement, where they may be worse than no regions."""
    for more in (("--refine", "pamr"), ()):
        ran = command(*LABEL, "--regions", "regions", *more, "-f", "png", "-o", "-".join(("out", *more)))
        assert "set --refine=pamr-guided and --regions-margin=1.5, or more" in ran.err


def _edges(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found = np.zeros(ids.shape, np.uint8)
    found[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    found[1:] |= ids[1:] != ids[:-1]
    return found


def test_regions_in_a_zip_are_those_in_the_folder(command: Command) -> None:
    shutil.make_archive("packed", "zip", "regions")
    for regions, output in (("regions", "labels"), ("packed.zip", "from-zip")):
        assert command(*LABEL, "--regions", regions, "-f", "png,coco", "-o", output).code == 0
    for name in SIZES:
        assert np.array_equal(mask(name), mask(name, "from-zip"))
    assert objects() == objects("from-zip")


def test_only_images_with_changed_regions_are_labelled_again(command: Command) -> None:
    label = (*LABEL, "--regions", "regions", "-q")
    assert command(*label).code == 0
    assert "0 images labelled, 3 unchanged" in command(*label[:-1]).err
    ids = quarters(*SIZES["sub/b"])
    Image.fromarray((ids > 0).astype(np.uint8)).save("regions/sub/b.png")
    before = {name: Path("labels/masks", f"{name}.png").read_bytes() for name in NAMES}
    assert "1 image labelled, 2 unchanged" in command(*label[:-1]).err
    after = {name: Path("labels/masks", f"{name}.png").read_bytes() for name in NAMES}
    assert [name for name in NAMES if before[name] != after[name]] == ["sub/b"]
    # Without regions, it is another question.
    ran = command(*LABEL)
    assert ran.code == 1
    assert "regions" in ran.err
    assert command("check", "labels").code == 0


FAULTS = {
    "missing": (lambda path: path.unlink(), "no regions in regions"),
    "empty": (lambda path: path.write_bytes(b""), "regions/sub/b.png"),
    "another size": (
        lambda path: Image.fromarray(quarters(80, 120)).save(path),
        "80 x 120 (height x width), but",
    ),
    "damaged": (lambda path: path.write_bytes(path.read_bytes()[:60]), "regions/sub/b.png"),
    "a bomb": (lambda path: Image.new("L", (30_000, 30_000)).save(path), "too large: 30000 x 30000"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_image_whose_regions_cannot_be_used_fails_alone(command: Command, fault: str) -> None:
    change, reason = FAULTS[fault]
    change(Path("regions/sub/b.png"))
    label = (*LABEL, "--regions", "regions", "-f", "png")
    ran = command(*label)
    errors = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert (ran.code, len(errors)) == (1, 1), ran.err
    assert reason in errors[0]
    assert sorted(path.name for path in Path("labels/masks").rglob("*.png")) == ["a.png", "c.png"]
    assert "sub/b.jpg" in Path("labels/errors.jsonl").read_text()
    Image.fromarray(quarters(*SIZES["sub/b"])).save("regions/sub/b.png")
    assert command(*label, "-q").code == 0
    assert command("check", "labels").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--regions", "nowhere"], "nowhere: no such file"),
        (["--regions", "imgs"], "imgs: no regions found"),
        (["--regions-only"], "--regions-only requires --regions"),
        (["--regions-margin", "2", "--regions", "regions"], "--regions-margin requires --refine"),
        (["--regions", "regions", "-o", "regions"], "are the same folder"),
        (["--regions", "regions", "-o", "."], "--regions is inside the output folder"),
    ],
)
def test_options_that_cannot_be_used(command: Command, options: list[str], message: str) -> None:
    ran = command(*LABEL, *options)
    assert ran.code in (1, 2)
    assert message in ran.err
    assert not Path("labels").exists()


def test_conversion_writes_what_the_run_would_have_written(command: Command) -> None:
    """Small regions too: they stay apart although no format lists them."""
    rows = np.arange(90)[:, None] // 3 + 30 * (np.arange(130)[None] // 3)
    Image.fromarray((rows + 1).astype(np.uint16)).save("regions/a.png")
    names = ",".join(name for name in IMAGE_FORMATS if not is_model_only(name))
    label = (*LABEL, "--regions", "regions", "--min-area", "40", "-q")
    assert command(*label, "-o", "all", "-f", names).code == 0
    assert command(*label, "-o", "few", "-f", "png").code == 0
    assert command("convert", "few", "-f", names, "-q").code == 0
    compared = filecmp.dircmp("all", "few", ignore=[".tipsseg", "run.json", "manifest.jsonl"])
    assert list(_differing(compared)) == []
    assert command("check", "few").code == 0


def _differing(compared: filecmp.dircmp[str]) -> Iterator[str]:
    yield from (*compared.left_only, *compared.right_only, *compared.funny_files)
    for name in compared.common_files:
        if not filecmp.cmp(Path(compared.left, name), Path(compared.right, name), shallow=False):
            yield name
    for inner in compared.subdirs.values():
        yield from _differing(inner)


def test_a_second_question_runs_no_tower(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    label = (*LABEL, "--features", "store", "--regions", "regions", "-q")
    assert command(*label).code == 0

    def never(self: Tipsv2Backbone, images: object) -> None:
        raise AssertionError("the vision tower ran")

    monkeypatch.setattr(Tipsv2Backbone, "encode_windows", never)
    assert command(*label, "-c", "car", "-o", "again").code == 0
    assert len(list(Path("again/masks").rglob("*.png"))) == 3


def test_renamed_and_removed_objects_stay_objects(command: Command) -> None:
    """A person gives one of two touching objects another class, and removes another."""
    assert command(*LABEL, "--regions", "regions", "-f", "png,coco", "-q").code == 0
    value = json.loads(Path("labels/annotations.json").read_text())
    before = objects()
    renamed, removed = before["a.jpg"][0], before["sub/c.jpg"][0]
    value["annotations"] = [each for each in value["annotations"] if each["id"] != removed["id"]]
    other = renamed["category_id"] % 3 + 1
    next(each for each in value["annotations"] if each["id"] == renamed["id"])["category_id"] = other
    Path("edited.json").write_text(json.dumps(value))
    ran = command("correct", "labels", "--from", "edited.json")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[:2] == ["labels/masks/a.png", "labels/masks/sub/c.png"]
    after = objects()
    assert command("check", "labels").code == 0
    assert len(after["sub/c.jpg"]) == len(before["sub/c.jpg"]) - 1
    areas = sorted((each["category_id"], each["area"]) for each in before["a.jpg"])
    areas.remove((renamed["category_id"], renamed["area"]))
    assert sorted((each["category_id"], each["area"]) for each in after["a.jpg"]) == sorted(
        [*areas, (other, renamed["area"])]
    )


TWO_TREES = {(1500, 10, 10, 50, 30), (2000, 10, 40, 50, 40)}


def places() -> set[tuple[int, ...]]:
    return {(each["area"], *each["bbox"]) for each in objects()["a.jpg"]}


def label_two_trees(command: Command) -> None:
    """Label two regions of an image, one above the other, as objects of one class."""
    rows = np.zeros((90, 130), np.uint8)
    rows[10:40, 10:60], rows[40:80, 10:60] = 1, 2
    Image.fromarray(rows).save("regions/a.png")
    label = (*LABEL[:-1], "tree", "--regions", "regions", "--regions-only", "-f", "png,coco", "-q")
    assert command(*label).code == 0
    assert places() == TWO_TREES


def test_an_object_that_grew_stays_one_object(command: Command) -> None:
    """A person widens one of two objects of a class in the mask, and draws a third that touches none."""
    label_two_trees(command)
    edited = mask("a").copy()
    edited[40:80, 60:64] = edited[0:5, 100:120] = 1
    Image.fromarray(edited).save("labels/masks/a.png")
    for _ in range(2):  # the second conversion reads the mask that the first wrote
        assert command("convert", "labels", "-f", "coco,instances", "-q").code == 0
        assert places() == {(1500, 10, 10, 50, 30), (2160, 10, 40, 54, 40), (100, 100, 0, 20, 5)}
        assert command("check", "labels").code == 0


def test_strokes_join_the_object_of_their_class_that_they_touch(command: Command) -> None:
    """One on the page widens one of two objects of a class, another touches none; without them, all is as before."""
    label_two_trees(command)
    assert command("report", "labels", "-q").code == 0
    shown = next(each["labels"] for each in page_records() if each["image"] == "a.jpg")

    def correct(strokes: list[dict[str, Any]]) -> set[tuple[int, ...]]:
        corrections = [{"image": "a.jpg", "labels": shown, "objects": [], "strokes": strokes}]
        Path("corrections.json").write_text(json.dumps({"tool": "tipsseg", "corrections": corrections}))
        assert command("correct", "labels", "--from", "corrections.json").code == 0
        assert command("check", "labels").code == 0
        return places()

    def box(top: int, left: int, bottom: int, right: int) -> dict[str, Any]:
        return {"class": "tree", "lasso": True, "points": [[top, left], [top, right], [bottom, right], [bottom, left]]}

    drawn = [box(40, 55, 80, 64), box(0, 100, 5, 120)]
    assert correct(drawn) == {(1500, 10, 10, 50, 30), (2160, 10, 40, 54, 40), (100, 100, 0, 20, 5)}
    assert correct(drawn[:1]) == {(1500, 10, 10, 50, 30), (2160, 10, 40, 54, 40)}
    assert correct([]) == TWO_TREES


def page_records() -> list[dict[str, Any]]:
    (data,) = Path("labels/report/data").glob("*0.js")
    text = data.read_text()
    found: list[dict[str, Any]] = json.loads(text[text.index("[") : text.rindex("]") + 1])
    return found


def test_objects_that_touch_stay_apart_whatever_writes_their_mask(command: Command) -> None:
    """The mask has their numbers. Where an editor leaves them out, the cache knows them."""
    label_two_trees(command)
    path = Path("labels/masks/a.png")
    inside = read_sealed(path.read_bytes()).objects(SIZES["a"])
    assert inside is not None
    assert [(inside == number).sum() for number in (1, 2)] == [1500, 2000]
    for number, drawn in enumerate((100, 90), start=1):  # by an editor, which keeps the pixels alone
        edited = mask("a").copy()
        edited[:3] = 0
        edited[2, :drawn] = 1
        Image.fromarray(edited).save(path)
        assert read_sealed(path.read_bytes()).facts is None
        assert command("convert", "labels", "-f", "coco" if number == 1 else "instances", "-q").code == 0
        assert places() == {*TWO_TREES, (drawn, 0, 2, drawn, 1)}
        found = read_sealed(path.read_bytes())
        assert found.facts is not None
        assert (found.facts.by, found.objects(SIZES["a"]) is not None) == ("person", True)
    edited[2, :50] = 0
    Path("fix").mkdir()
    Image.fromarray(edited).save("fix/a.png")
    assert command("correct", "labels", "--from", "fix", "--replace-edited", "-q").code == 0
    assert places() == {*TWO_TREES, (40, 50, 2, 40, 1)}
    shutil.rmtree("labels/.tipsseg")
    Path("labels/annotations.json").unlink()
    assert command("convert", "labels", "-f", "coco", "-q").code == 0
    assert places() == {*TWO_TREES, (40, 50, 2, 40, 1)}
    assert command("check", "labels").code == 0


def test_an_edited_instance_mask_stays_and_changes_no_objects(command: Command) -> None:
    """It is derived from the mask, like the files of other formats."""
    assert command(*LABEL[:-1], "tree", "--regions", "regions", "-f", "png,coco,instances", "-q").code == 0
    before, path = objects(), Path("labels/instances/a.png")
    with Image.open(path) as picture:
        instances = np.array(picture)
    instances[instances == 2] = 1
    Image.fromarray(instances).save(path)
    mine = path.read_bytes()
    ran = command("convert", "labels", "-f", "coco")
    assert (ran.code, objects(), path.read_bytes()) == (0, before, mine)
    ran = command("check", "labels")
    assert (ran.code, "labels/instances/a.png" in ran.out + ran.err) == (0, True)
    path.unlink()
    assert command(*LABEL[:-1], "tree", "--regions", "regions", "-q").code == 0
    with Image.open(path) as picture:
        assert len(np.unique(np.asarray(picture))) > len(np.unique(instances))
    assert (objects(), command("check", "labels").out) == (before, "")


def test_an_edited_instance_mask_regroups_pixels(command: Command) -> None:
    label_two_trees(command)
    assert command("convert", "labels", "-f", "instances", "-q").code == 0
    labels, path = mask("a"), Path("labels/instances/a.png")
    ran = command("correct", "labels", "--from", "labels/instances")
    assert (ran.code, "0 masks corrected" in ran.err) == (0, True), ran.err
    with Image.open(path) as picture:
        instances = np.array(picture)
    instances[instances == 2] = 1
    Image.fromarray(instances).save(path)
    assert command("correct", "labels", "--from", "labels/instances").out.split() == ["labels/masks/a.png"]
    assert places() == {(3500, 10, 10, 50, 70)}
    assert (mask("a") == labels).all()
    assert command("check", "labels").code == 0


def test_corrections_of_other_objects_are_refused(command: Command) -> None:
    """The page numbered other objects, although the mask is the same."""
    label = (*LABEL[:-1], "tree", "--regions", "regions", "--regions-only", "-f", "png", "-q")
    assert command(*label).code == 0
    assert command("report", "labels", "-q").code == 0
    shown = next(each["labels"] for each in page_records() if each["image"] == "a.jpg")
    correction = {"image": "a.jpg", "labels": shown, "objects": [{"object": 1, "class": None}]}
    Path("corrections.json").write_text(json.dumps({"tool": "tipsseg", "corrections": [correction]}))
    before = mask("a")
    ids = quarters(*SIZES["a"])
    Image.fromarray((ids > 0).astype(np.uint8)).save("regions/a.png")
    assert command(*label).code == 0
    assert (mask("a") == before).all()
    ran = command("correct", "labels", "--from", "corrections.json")
    assert ran.code == 1
    assert "since the page was written" in ran.err
    assert (mask("a") == before).all()


def test_a_run_that_gained_a_class_goes_on_with_and_without_it(command: Command) -> None:
    label = (*LABEL, "--regions", "regions", "-f", "png,coco")
    assert command(*label, "-q").code == 0
    value = json.loads(Path("labels/annotations.json").read_text())
    value["categories"].append({"id": 4, "name": "cloud"})
    value["annotations"][0]["category_id"] = 4
    Path("edited.json").write_text(json.dumps(value))
    assert command("correct", "labels", "--from", "edited.json", "--add-classes", "-q").code == 0
    assert (mask("a") == 4).any()
    for again in (label, [word.replace("panda,tree,sky", "panda,tree,sky,cloud") for word in label]):
        ran = command(*again)
        assert ran.code == 0, ran.err
        assert "0 images labelled, 3 unchanged" in ran.err
    assert command("check", "labels").code == 0


def test_an_output_folder_is_a_source(command: Command) -> None:
    """Other classes, the same objects."""
    assert command(*LABEL, "--regions", "regions", "-q").code == 0
    assert not Path("labels/instances").exists()
    again = [
        *LABEL[:-1],
        "panda head,panda leg,house,grass",
        "--background",
        "none",
        "--regions",
        "labels",
        "-o",
        "again",
        "-f",
        "instances",
        "-q",
    ]
    assert "tipsseg convert labels --format instances" in command(*again).err
    assert command("convert", "labels", "-f", "instances", "-q").code == 0
    assert command(*again).code == 0
    for name in NAMES:
        with (
            Image.open(Path("labels/instances", f"{name}.png")) as one,
            Image.open(Path("again/instances", f"{name}.png")) as two,
        ):
            pairs = np.stack([np.asarray(one).ravel(), np.asarray(two).ravel()], axis=1)
        covered = pairs[pairs[:, 0] > 0]
        assert len(np.unique(covered, axis=0)) >= len(np.unique(covered[:, 0]))  # none is joined
    assert command("check", "again").code == 0


def test_a_run_is_repeated(command: Command) -> None:
    assert command(*LABEL, "--regions", "regions", "-f", "png", "-q").code == 0
    assert command("label", "imgs", "--from", "labels", "-o", "again", "-q").code == 0
    for name in NAMES:
        assert (mask(name) == mask(name, "again")).all()


def test_the_library_labels_regions(command: Command) -> None:
    assert command(*LABEL, "--regions", "regions", "--min-confidence", "0.4", "-f", "png,coco", "-q").code == 0
    model = tipsseg.load("tiny", device="cpu")
    labeller = model.labeller(CLASSES, short_side=56, min_confidence=0.4)
    for name in NAMES:
        ids = quarters(*SIZES[name])
        result = labeller.label(f"imgs/{name}.jpg", regions=ids)
        assert (result.labels == mask(name)).all()
        assert result.instances is not None
        found = objects()[f"{name}.jpg"]
        assert [(each.class_id, each.area, each.score) for each in result.objects] == [
            (each["category_id"], each["area"], each["score"]) for each in found
        ]
        masks = ids == np.arange(1, 5)[:, None, None]
        assert (labeller.label(f"imgs/{name}.jpg", regions=masks).labels == result.labels).all()
    with pytest.raises(tipsseg.TipssegError, match="regions are"):
        labeller.label("imgs/a.jpg", regions=np.zeros((3, 3), int))
    with pytest.raises(tipsseg.UsageError, match="`regions` must be a path, not ndarray"):
        tipsseg.label_folder("imgs", ["tree"], model="tiny", regions=np.zeros((3, 3), int))  # type: ignore[arg-type]


def test_shards_leave_what_one_run_leaves(command: Command) -> None:
    label = (*LABEL, "--regions", "regions", "-f", "png,coco", "-q")
    for shard in ("1/2", "2/2"):
        assert command(*label, "--shard", shard).code == 0
    assert command(*label, "-o", "whole").code == 0
    assert objects() == objects("whole")
    assert command("check", "labels").code == 0
