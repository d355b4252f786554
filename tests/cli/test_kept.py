"""`tipsseg label` on folders that people have worked in: what they did is kept, what is not the program's is left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reading import EXACT, POLYGONS, READERS
from resuming import ALL, CLASSES, Run, contents, correct, record, tree

# As pycocotools decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


# ---- what was changed by hand ----


@pytest.mark.parametrize(
    "options", [[], ["--no-resume"], ["--mode", "whole", "--no-resume"], ["-f", "png,npz"]], ids=str
)
def test_a_corrected_mask_is_kept(run: Run, options: list[str]) -> None:
    run()
    mask = Path("out/masks/a.png")
    data = correct(mask)
    err = run(*options)
    assert (run.code, "a.png" in run.labelled, mask.read_bytes()) == (0, False, data)
    assert (
        "Kept 1 edited image; use --replace-edited to relabel, or tipsseg convert out "
        "--format FORMAT to write an edited mask in other formats.\n"
    ) in err
    assert "out/masks/a.png" in run.out.splitlines()


def test_corrected_masks_are_counted(run: Run) -> None:
    run()
    for name in ("a.png", "sub/ü.png"):
        correct(Path("out/masks", name))
    assert "2 edited by hand" in run("--dry-run")
    shutil.copy("imgs/a.png", "imgs/new.png")
    assert "Kept 2 edited images; use --replace-edited to relabel" in run()
    assert record(Path("out"))["counts"] == {"labelled": 1, "unchanged": 3, "failed": 0, "edited": 2}
    assert run.command("check", "out").code == 0


def test_a_corrected_mask_is_labelled_anew_where_that_is_asked_for(run: Run) -> None:
    run()
    before = contents(Path("out"))
    correct(Path("out/masks/a.png"))
    run.command("convert", "out", "-f", "coco")
    assert contents(Path("out"))["annotations.json"] != before["annotations.json"]
    run("--replace-edited")
    assert (run.code, run.labelled, contents(Path("out"))) == (0, ["a.png"], before)


def test_other_files_that_were_changed_are_kept(run: Run) -> None:
    run("-f", "png,labelme")
    path = Path("out/labelme/a.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "flags": {"seen": True}}))
    data = path.read_bytes()
    shutil.copy("imgs/a.png", "imgs/new.png")
    assert "Kept 1 edited image" in run("-f", "png,labelme")
    assert (run.labelled, path.read_bytes()) == (["new.png"], data)


def test_beginning_anew_removes_what_the_program_wrote_and_names_what_it_keeps(run: Run) -> None:
    run("-f", "png,labelme,coco,yolo,overlay")
    path = Path("out/labelme/sub/ü.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "flags": {"seen": True}}))
    data = path.read_bytes()
    Path("out/notes.txt").write_text("mine")
    err = run("--overwrite", "-f", "png", "--limit", "2", options=("-c", "tree"))
    assert (run.code, run.labelled) == (0, ALL[:2])
    assert "Kept out/labelme/sub/ü.json (edited by hand).\n" in err
    found = tree("out")
    assert found.pop("labelme/sub/ü.json") == data
    assert found.pop("notes.txt") == b"mine"
    assert set(found) == {"classes.json", "manifest.jsonl", "masks/a.png", "masks/sub/b c.png", "run.json"}
    run.command("convert", "out", "-f", "labelme")
    # What is in the way of an image now is told, and stays.
    assert "out/labelme/sub/ü.json was changed by hand, and kept when the folder was overwritten" in run(
        "-f", "png,labelme", options=("-c", "tree")
    )
    assert (run.code, path.read_bytes()) == (1, data)


#: How the folder is started over: other labels, of classes whose ids mean the same.
ANEW: dict[str, tuple[str, ...]] = {
    "the same": ("-c", CLASSES),
    "another mode": ("-c", CLASSES, "--mode", "whole"),
    "other phrases": ("-c", CLASSES, "--background", "sand,water"),
    "a further class": ("-c", f"{CLASSES},road"),
}


@pytest.mark.parametrize("how", ["in place", "taken in"])
@pytest.mark.parametrize("options", ANEW.values(), ids=ANEW)
def test_beginning_anew_keeps_corrections(run: Run, options: tuple[str, ...], how: str) -> None:
    formats = ("-f", "png,coco,labelme")
    run(*formats)
    shutil.copytree("out/masks", "fix")
    data = correct(Path("fix/a.png"))
    if how == "in place":
        Path("out/masks/a.png").write_bytes(data)
    else:
        assert run.command("correct", "out", "--from", "fix").code == 0
        data = Path("out/masks/a.png").read_bytes()
    err = run("--overwrite", *formats, options=options)
    assert (run.code, run.labelled, Path("out/masks/a.png").read_bytes()) == (0, ALL[1:], data)
    assert "Kept 1 edited image" in err
    assert run.command("check", "out").code == 0
    # As labelled into a new folder and corrected there.
    run(*formats, output="fresh", options=options)
    Path("fresh/masks/a.png").write_bytes(data)
    assert run.command("convert", "fresh", "-f", "png,coco,labelme").code == 0
    found, fresh = contents(Path("out")), contents(Path("fresh"))
    for each in (found, fresh):  # objects that stayed have the scores that they had before
        each.pop("manifest.jsonl")
        each["annotations.json"] = re.sub(rb'"score": [0-9.]+', b"", each["annotations.json"])
    assert found == fresh
    # It is a correction still.
    run(*formats, options=options)
    assert (run.code, run.labelled) == (0, [])
    assert run.command("correct", "fresh", "--from", "out").out == ""
    assert json.loads(run.command("rank", "out", "--jsonl").out.splitlines()[-1])["image"] != "a.png"


#: Formats before and after a folder is started over, and the mask that a person edits in between.
OF_TWO: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "both masks, then one": ("png,hf", "png,coco", ("masks", "hf/masks")),
    "both masks, then the other": ("png,hf", "hf", ("masks", "hf/masks")),
    "both masks again": ("png,hf", "png,hf", ("masks", "hf/masks")),
    "one of two": ("png,hf", "png,hf", ("masks",)),
    "the other of two": ("png,hf", "png,hf", ("hf/masks",)),
    "the one that there is": ("hf", "hf,coco", ("hf/masks",)),
    "no mask is asked for": ("png", "coco", ("masks",)),
}


@pytest.mark.parametrize(("first", "then", "places"), OF_TWO.values(), ids=OF_TWO)
def test_corrections_of_either_mask_are_kept(run: Run, first: str, then: str, places: tuple[str, ...]) -> None:
    run("-f", first)
    data = correct(Path("out", places[0], "a.png"))
    for place in places[1:]:
        Path("out", place, "a.png").write_bytes(data)
    run("-f", then, "--overwrite", "--mode", "whole")
    assert (run.code, run.labelled) == (0, ALL[1:])
    assert run.command("check", "out").code == 0
    assert Path("out", places[0], "a.png").read_bytes() == data
    if "hf" in then:
        lines = Path("out/hf/metadata.jsonl").read_text("utf-8").splitlines()
        assert sorted(json.loads(line)["file_name"] for line in lines) == [f"images/{name}" for name in ALL]
        mask, *others = (np.asarray(Image.open(Path("out", place, "a.png"))) for place in ("hf/masks", places[0]))
        assert all(np.array_equal(mask, each) for each in others)
    run("-f", then, "--mode", "whole")
    assert (run.code, run.labelled) == (0, [])


@pytest.mark.parametrize("classes", ["tree", "tree,panda leg,sky", "panda leg,tree,road"])
def test_corrections_whose_ids_would_be_of_other_classes_are_not_begun_anew(run: Run, classes: str) -> None:
    run()
    correct(Path("out/masks/a.png"))
    before = tree("out")
    err = run("--overwrite", options=("-c", classes))
    assert (run.code, run.labelled, tree("out")) == (1, [], before)
    assert "the mask of a.png was corrected, and its ids would mean other classes: " in err
    assert "--replace-edited" in err


def test_beginning_anew_replaces_what_was_changed_where_that_is_asked_for(run: Run) -> None:
    run()
    correct(Path("out/masks/a.png"))
    run("--overwrite", "--replace-edited", options=("-c", "tree"))
    assert (run.code, run.labelled) == (0, ALL)
    run(output="fresh", options=("-c", "tree"))
    assert contents(Path("out")) == contents(Path("fresh"))


# ---- other inputs of the same names ----


def test_a_second_folder_with_the_same_names_is_refused(run: Run) -> None:
    run()
    shutil.copytree("imgs", "day2")
    shutil.copy("imgs/sub/ü.bmp", "day2/a.png")
    before = tree("out")
    label = ["label", "day2", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out"]
    for options in ([], ["--no-resume"]):
        ran = run.command(*label, *options)
        assert (ran.code, ran.out) == (1, "")
        assert (
            f"day2/a.png: the folder has labels of another image with that name, {Path('imgs/a.png').resolve()}"
            in ran.err
        )
        assert tree("out") == before
    assert run.command(*label, "--overwrite").code == 0


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_an_image_that_was_moved_is_the_same(run: Run, how: str) -> None:
    run()
    if how == "renamed":
        Path("imgs").rename("moved")
    else:
        shutil.copytree("imgs", "moved", copy_function=shutil.copyfile)
    run.labelled.clear()
    ran = run.command("label", "moved", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out")
    assert (ran.code, run.labelled) == (0, [])
    assert "0 images labelled, 3 unchanged" in ran.err
    paths = [json.loads(line)["path"] for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert paths == [str(Path("moved").resolve() / name) for name in ALL]


# ---- what others put into the folder ----

STRANGERS: dict[str, Callable[[], object]] = {
    "a mask": lambda: shutil.copy("imgs/a.png", "out/masks/a.png"),
    "annotations.json": lambda: Path("out/annotations.json").write_text('{"mine": 1}'),
    "classes.json": lambda: Path("out/classes.json").write_text('{"mine": 1}'),
    "errors.jsonl": lambda: Path("out/errors.jsonl").write_text('{"mine": 1}\n'),
    "manifest.jsonl": lambda: Path("out/manifest.jsonl").write_text('{"mine": 1}\n'),
    "run.json": lambda: Path("out/run.json").write_text('{"mine": 1}'),
    "a link in the place of a mask": lambda: Path("out/masks/a.png").symlink_to("../../imgs/a.png"),
    "a pipe in the place of annotations": lambda: os.mkfifo("out/annotations.json"),
}


@pytest.mark.parametrize("options", [[], ["--no-resume"], ["--overwrite"]], ids=str)
@pytest.mark.parametrize("case", STRANGERS)
def test_what_is_not_the_programs_stops_the_run_before_any_work(run: Run, case: str, options: list[str]) -> None:
    Path("out/masks").mkdir(parents=True)
    STRANGERS[case]()
    before = tree(".")
    err = run(*options)
    assert (run.code, run.labelled, run.out) == (1, [], "")
    assert "Hint: " in err
    assert tree(".") == before


def test_an_input_in_the_place_of_a_mask_is_not_written_to(run: Run) -> None:
    """The pictures lie where their masks would."""
    Path("imgs/masks").mkdir()
    shutil.copy("imgs/a.png", "imgs/masks/x.png")
    shutil.copy("imgs/sub/ü.bmp", "imgs/x.bmp")
    before = tree("imgs")
    run("-f", "png", output="imgs")
    assert run.code == 1
    assert {name: data for name, data in tree("imgs").items() if name in before} == before


# ---- corrections, and the formats that follow them ----


def entry_of(image: str) -> Any:
    """The line of an image in the manifest."""
    lines = map(json.loads, Path("out/manifest.jsonl").read_bytes().splitlines())
    return next(line for line in lines if line["image"] == image)


#: The command that comes after an edit and before the conversion that must see it.
BETWEEN: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...], str]] = {
    "a format that the next run does not have": (
        ("-f", "png,coco"),
        (("-f", "png,labelme", "--min-confidence", "0.4"), ("-f", "png,coco", "--min-confidence", "0.4")),
        "coco",
    ),
    "a format that a conversion made": (("-f", "png,labelme"), (("-f", "png"),), "coco"),
    "a second mask": (("-f", "png,hf"), (("-f", "png"),), "coco"),
    "polygons in one file": (("-f", "png,coco-polygon"), (("-f", "png"),), "coco"),
}


@pytest.mark.parametrize("case", BETWEEN)
def test_every_format_follows_a_correction(run: Run, case: str) -> None:
    before, between, asked = BETWEEN[case]
    run(*before, "--min-area", "0")
    correct(Path("out/masks/a.png"))
    shutil.copy("imgs/a.png", "imgs/new.png")
    for options in between:
        run(*options, "--min-area", "0")
    assert run.command("convert", "out", "-f", asked).code == 0
    with Image.open("out/masks/a.png") as mask:
        ids = np.array(mask).astype(int)
    entry = entry_of("a.png")
    assert asked in entry["formats"]
    for name in entry["formats"]:
        ours = READERS[name](Path("out"), "a.png", CLASSES.split(","), ids.shape)
        theirs = ids if name in EXACT else np.where(ids == 255, 0, ids)
        assert (ours != theirs).mean() <= (0.1 if name in POLYGONS else 0), name
    assert run.command("check", "out").code == 0


@pytest.mark.parametrize("name", ["hf", "labelme", "coco", "coco-polygon", "coco-results", "yolo", "cvat", "panoptic"])
def test_check_compares_every_format_of_a_corrected_image(run: Run, name: str) -> None:
    """A format with the labels of before, and a manifest that says that they follow the correction."""
    run("-f", f"png,{name}", "--min-area", "0")
    before, old = tree("out"), entry_of("a.png")
    correct(Path("out/masks/a.png"))
    assert run.command("convert", "out", "-f", name).code == 0
    assert run.command("check", "out").code == 0
    lines = [json.loads(line) for line in Path("out/manifest.jsonl").read_bytes().splitlines()]
    rows = {"coco": "annotations.json", "coco-polygon": "annotations-polygon.json", "coco-results": "results.json"}
    stale = rows.get(name) or old["files"][name]
    if name in old["files"]:
        lines[0]["written"][name] = old["written"][name]
    Path("out", stale).write_bytes(before[stale])  # type: ignore[arg-type]
    Path("out/manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("out/.tipsseg/state.db").unlink()
    told = run.command("check", "out")
    assert (told.code, f"out/{stale}" in told.out) == (1, True)


def test_a_correction_that_was_undone_is_no_problem(run: Run) -> None:
    run()
    mask = Path("out/masks/a.png")
    before = mask.read_bytes()
    correct(mask)
    ran = run.command("convert", "out", "-f", "labelme")
    assert ran.out.splitlines()[-1] == "out/annotations.json"  # it followed
    mask.write_bytes(before)
    told = run.command("check", "out")
    assert (told.code, "Other formats of 1 corrected image still have the labels from before" in told.err) == (0, True)
    assert run.command("convert", "out", "-f", "labelme").code == 0
    assert "Other formats" not in run.command("check", "out").err
