"""Runs that go on from earlier ones: what is kept, what is done again, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resuming import ALL, CLASSES, Run, contents, record

import tipsseg


def test_a_run_that_is_done_costs_no_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    first = run.out
    before, times = contents(Path("out")), {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(tipsseg.Model, "__init__", never)
    err = run()
    assert run.code == 0
    assert run.out == first  # what is done is told alike, so that scripts need not care
    assert "0 images labelled, 3 unchanged in " in err
    assert contents(Path("out")) == before
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == times


@dataclass(frozen=True)
class Change:
    """What changes between two runs, and which images are labelled in the second."""

    change: Callable[[], object]
    labelled: list[str]
    options: tuple[str, ...] = ()


def repaint(path: str) -> Callable[[], None]:
    """Other pixels in a file of the same size, a moment later."""

    def change() -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))[::-1]
        before = Path(path).stat()
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
        os.utime(path, ns=(before.st_mtime_ns + 1, before.st_mtime_ns + 1))

    return change


def without(path: str) -> Callable[[], None]:
    return lambda: Path(path).unlink()


def nothing() -> None:
    pass


def cut(path: str) -> Callable[[], None]:
    """A last line that is written in half."""

    def change() -> None:
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[: len(data) - 40])

    return change


CHANGES: dict[str, Change] = {
    "nothing": Change(nothing, []),
    "other pixels": Change(repaint("imgs/sub/ü.bmp"), ["sub/ü.bmp"]),
    "another time": Change(lambda: os.utime("imgs/a.png"), []),
    "copied": Change(lambda: (shutil.copy("imgs/a.png", "b"), Path("b").replace("imgs/a.png")), []),
    "a new image": Change(lambda: shutil.copy("imgs/a.png", "imgs/c.png"), ["c.png"]),
    "a mask that is gone": Change(without("out/masks/a.png"), ["a.png"]),
    "no manifest": Change(without("out/manifest.jsonl"), []),
    "half a line in the manifest": Change(cut("out/manifest.jsonl"), []),
    "no classes": Change(without("out/classes.json"), []),
    "another format that needs the model": Change(nothing, ALL, ("-f", "png,coco,overlay,confidence")),
    "one format less": Change(nothing, [], ("-f", "png")),
    "another way": Change(nothing, ALL, ("--mode", "whole")),
    "another least confidence": Change(nothing, ALL, ("--min-confidence", "0.4")),
    "another least area": Change(nothing, ALL, ("--min-area", "9")),
    "simpler polygons": Change(nothing, ALL, ("--simplify", "2")),
    "another dtype": Change(nothing, ALL, ("--dtype", "bfloat16")),
    "another batch size": Change(nothing, [], ("--batch-size", "3")),
    "other threads": Change(nothing, [], ("--jobs", "1")),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_is_done_again(run: Run, case: str) -> None:
    change = CHANGES[case]
    run()
    change.change()
    err = run(*change.options)
    assert run.code == 0, err
    assert run.labelled == change.labelled
    if case != "one format less":
        run(*change.options, output="fresh")
        assert contents(Path("out")) == contents(Path("fresh"))
    assert run.command("check", "out").code == 0
    run(*change.options)
    assert run.labelled == []


def test_other_options_for_a_part_of_the_images_are_refused(run: Run) -> None:
    run()
    before = contents(Path("out"))
    err = run("--mode", "whole", "--limit", "1")
    assert (run.code, run.labelled) == (1, [])
    assert (
        "Error: cannot write out: it holds the labels of sub/b c.jpg and 1 more, made with other options (tipsseg label imgs "
        in err
    )
    # To start over would lose the labels of the other images.
    assert err.splitlines()[-2] == "Hint: Label into another folder:"
    assert err.splitlines()[-1].endswith(" -o out-2")
    assert contents(Path("out")) == before


@pytest.mark.parametrize("other", ["vocabulary", "model"])
def test_what_other_ids_mean_is_refused_unless_asked(run: Run, swiglu_checkpoint: Path, other: str) -> None:
    run()
    before = contents(Path("out"))
    options: tuple[object, ...] = ("-c", "tree,panda leg,sky")
    if other == "model":
        options = ("-c", CLASSES)
        run.model = swiglu_checkpoint
    err = run("--limit", "1", options=options)
    assert (run.code, run.labelled) == (1, [])
    said = {
        "vocabulary": "the classes differ: panda leg, tree, sky / tree, panda leg, sky",
        "model": "the models differ: ",
    }
    assert f"Error: cannot write out: it holds labels of another run: {said[other]}" in err
    assert contents(Path("out")) == before
    run("--limit", "1", "--no-resume", options=options)  # no ids of two meanings
    assert (run.code, run.labelled) == (1, [])
    assert contents(Path("out")) == before
    run("--limit", "1", "--overwrite", options=options)
    assert (run.code, run.labelled) == (0, ["a.png"])
    assert len(Path("out/manifest.jsonl").read_text().splitlines()) == 1
    assert [each["file_name"] for each in json.loads(Path("out/annotations.json").read_bytes())["images"]] == ["a.png"]
    run("--limit", "1", output="fresh", options=options)
    assert contents(Path("out")) == contents(Path("fresh"))


def test_where_all_images_fail_there_are_no_files_for_all_of_them(run: Run) -> None:
    for image in ALL:
        Path("imgs", image).rename(f"kept-{Path(image).name}")
        Path("imgs", image).write_bytes(b"no picture")
    for _ in range(2):
        run("-f", "coco,cvat,yolo")
        assert (run.code, run.out) == (1, "out/classes.json\n")
        found = {path.relative_to("out").as_posix() for path in Path("out").rglob("*")}
        assert found == {"classes.json", "errors.jsonl", "run.json", ".tipsseg", ".tipsseg/state.db"}
    assert run.command("check", "out").code == 0
    for image in ALL:
        Path(f"kept-{Path(image).name}").rename(Path("imgs", image))
    run("-f", "coco,cvat,yolo")
    assert (run.code, run.labelled) == (0, ALL)
    assert len(json.loads(Path("out/annotations.json").read_bytes())["images"]) == 3
    assert run.command("check", "out").code == 0


def test_an_image_that_fails_now_keeps_what_was_made_of_it(run: Run) -> None:
    run()
    before, image = contents(Path("out")), Path("imgs/a.png").read_bytes()
    Path("imgs/a.png").write_bytes(b"not an image any more")
    run()
    assert run.code == 1
    failures = contents(Path("out")).pop("errors.jsonl").splitlines()
    assert {**before, "errors.jsonl": b""} == {**contents(Path("out")), "errors.jsonl": b""}
    assert [json.loads(line)["image"] for line in failures] == ["a.png"]
    assert record(Path("out"))["counts"] == {"labelled": 0, "unchanged": 2, "failed": 1, "edited": 0}
    Path("imgs/a.png").write_bytes(image)
    run()
    assert (run.code, run.labelled, contents(Path("out"))) == (0, [], before)


def test_what_shares_a_run_does_not_matter(run: Run) -> None:
    """An image alone, with others and after others gets the same labels, to the byte."""
    run("-f", "png,confidence", output="together")
    for number in (1, 2):
        run("-f", "png,confidence", "--limit", number, output=f"first {number}")
    alone: dict[str, dict[str, bytes]] = {}
    for name in ALL:
        shutil.copytree("imgs", "one", dirs_exist_ok=True)
        for other in set(ALL) - {name}:
            (Path("one") / other).unlink()
        Path("imgs").rename("rest")
        Path("one").rename("imgs")
        run("-f", "png,confidence", output=f"only {len(alone)}")
        shutil.rmtree("imgs")
        Path("rest").rename("imgs")
        alone[name] = contents(Path(f"only {len(alone)}"))
    together = contents(Path("together"))
    for name, found in alone.items():
        picture = Path(name).with_suffix(".png")
        for folder in ("masks", "confidence"):
            assert found[f"{folder}/{picture}"] == together[f"{folder}/{picture}"]
    assert contents(Path("first 2"))["confidence/a.png"] == contents(Path("first 1"))["confidence/a.png"]


# ---- --retry-failed ----


@pytest.fixture
def failed(run: Run) -> Run:
    """A run in which two images failed; one of them is whole by now."""
    for name in ("broken.jpg", "sub/bad.png"):
        Path("imgs", name).write_bytes(b"")
    run()
    assert run.code == 1
    shutil.copy("imgs/a.png", "imgs/sub/bad.png")
    return run


@pytest.mark.parametrize("given", [True, False], ids=["of the paths", "all"])
def test_only_what_failed_is_tried_again(failed: Run, given: bool) -> None:
    shutil.copy("imgs/a.png", "imgs/new.png")  # has not failed
    label = ["label", *(["imgs"] if given else []), "-c", CLASSES, "-m", failed.model, "--device", "cpu", "-o", "out"]
    failed.labelled.clear()
    ran = failed.command(*label, "--retry-failed")
    assert ran.code == 1
    assert failed.labelled == ["sub/bad.png"]
    assert ran.out.splitlines() == [
        "out/masks/sub/bad.png",
        "out/overlays/sub/bad.jpg",
        "out/annotations.json",
        "out/classes.json",
    ]
    assert [json.loads(line)["image"] for line in Path("out/errors.jsonl").read_text().splitlines()] == ["broken.jpg"]
    Path("imgs/broken.jpg").unlink()
    Path("imgs/new.png").unlink()
    failed()
    assert failed.labelled == []
    assert not Path("out/errors.jsonl").exists()
    failed(output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))


def test_a_list_can_be_narrowed_to_what_failed(failed: Run) -> None:
    label = ["label", "-", "-c", CLASSES, "-m", failed.model, "-o", "out", "--device", "cpu", "--retry-failed"]
    shutil.copy("imgs/a.png", "imgs/new.png")  # has not failed
    listed = b"sub/bad.png\na.png\nnew.png\nbroken.jpg\n"
    failed.labelled.clear()
    assert failed.command(*label, stdin=listed, cwd=Path("imgs")).code == 1
    assert failed.command(*label[:7], "../out", *label[8:], stdin=listed).code == 1
    assert failed.labelled == ["sub/bad.png"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["-o", "elsewhere"], "Error: nothing to retry: no run in elsewhere\nHint: Remove --retry-failed.\n"),
        (
            ["--no-resume"],
            "Error: --retry-failed resumes a run, but --no-resume does not\nHint: Use one of them.\n",
        ),
    ],
)
def test_nothing_to_retry(run: Run, options: list[str], error: str) -> None:
    assert run("--retry-failed", *options).endswith(error)
    assert run.code in (1, 2)
    assert not Path("elsewhere").exists()


# ---- --from ----


VOCABULARY = """\
background = ["a wall, painted", "sky"]
templates = ["one {}", "some {}s"]

[[classes]]
name = "panda leg"
synonyms = ["paw"]
colour = "#102030"
min_confidence = 0.2
supercategory = "panda"

[[classes]]
name = "road"
negative = true

[[classes]]
name = "tree"
templates = ["a {}"]
"""

RECORDED: dict[str, tuple[object, ...]] = {
    "classes": ("-c", CLASSES),
    "no background": ("-c", CLASSES, "--background", "none"),
    "a vocabulary that is gone": ("--vocab", "farm.toml"),
    "all options": (
        *("-c", CLASSES, "-f", "coco,confidence", "--mode", "whole", "--short-side", "42", "--min-confidence", "0.3"),
        *("--refine", "pamr", "--min-area", "4", "--batch-size", "3", "--dtype", "bfloat16"),
        *("--simplify", "1.5", "--val-fraction", "0.5"),
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_a_run_is_repeated_from_its_record(run: Run, case: str) -> None:
    Path("farm.toml").write_text(VOCABULARY)
    run(options=RECORDED[case])
    Path("farm.toml").unlink()
    for source in ("out/run.json", "out"):
        ran = run.command("label", "imgs", "--from", source, "-o", "again")
        assert ran.code == 0, ran.err
        assert contents(Path("again")) == contents(Path("out"))
    different = {key for key in record(Path("out")) if record(Path("out"))[key] != record(Path("again"))[key]}
    assert different <= {"started", "ended", "counts", "files", "command"}  # times, and paths
    # And what is there counts as done by the same.
    run.labelled.clear()
    assert run.command("label", "imgs", "--from", "out", "-o", "out").code == 0
    assert run.labelled == []


def test_options_that_are_given_win_over_the_record(run: Run) -> None:
    run("--mode", "whole", "--min-area", "9")
    assert run.command("label", "imgs", "--from", "out", "-o", "again", "--mode", "slide", "-f", "png").code == 0
    repeated = record(Path("again"))
    assert repeated["formats"] == ["png"]
    assert repeated["options"] == {**dict(record(Path("out"))["options"]), "mode": "slide"}  # type: ignore[call-overload]


def test_images_are_divided_anew_without_labelling_them_anew(run: Run) -> None:
    def divided() -> tuple[object, str]:
        options: dict[str, object] = record(Path("out"))["options"]  # type: ignore[assignment]
        (folder,) = Path("out/yolo/images").iterdir()  # by 0.5 all three are for validation
        assert folder.name in Path("out/yolo/data.yaml").read_text().splitlines()[0]
        return options.get("val_fraction"), folder.name

    steps: list[tuple[tuple[str, ...], float | None]] = [
        (("-f", "png,yolo"), None),
        (("-f", "png,yolo", "--val-fraction", "0.5"), 0.5),
        (("-f", "png,yolo"), 0.5),  # as it was in the folder
        (("-f", "png"), 0.5),
        (("-f", "png", "--limit", "1", "--batch-size", "3"), 0.5),
        (("-f", "png,yolo", "--val-fraction", "0"), None),
    ]
    for number, (options, fraction) in enumerate(steps):
        run(*options)
        assert run.code == 0
        assert (run.labelled == []) == (number > 0), options
        assert divided() == (fraction, "train" if fraction is None else "val"), options


def edited(**values: object) -> Callable[[], object]:
    return lambda: Path("out/run.json").write_text(json.dumps({**record(Path("out")), **values}))


WRONG_RECORDS: dict[str, tuple[Callable[[], object], list[str], str]] = {
    "absent": (
        nothing, ["--from", "nowhere/run.json"],
        "Error: --from nowhere/run.json: no such file\nHint: Name an output folder, or its run.json.",
    ),
    "of another tool": (
        edited(tool="x"),
        ["--from", "out"],
        "Error: --from out/run.json: not written by tipsseg, or damaged\nHint: Name an output folder, or its run.json.",
    ),
    "with classes beside it": (
        nothing, ["--from", "out", "-c", "tree"],
        "Error: --from repeats the classes of a run\nHint: Remove --classes, --vocab and --background.\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_RECORDS)
def test_records_that_cannot_be_repeated(run: Run, case: str) -> None:
    damage, options, error = WRONG_RECORDS[case]
    run()
    damage()
    ran = run.command("label", "imgs", *options, "-o", "again")
    assert ran.code == 2
    assert error in ran.err
    assert not Path("again").exists()


def test_what_cannot_be_the_same_any_more_is_told(run: Run) -> None:
    run()
    edited(version="0.0.9")()
    ran = run.command("label", "imgs", "--from", "out", "-o", "again")
    assert "out/run.json was written by tipsseg 0.0.9; this is " in ran.err
    edited(model={**dict(record(Path("out"))["model"]), "sha256": {}})()  # type: ignore[call-overload]
    ran = run.command("label", "imgs", "--from", "out", "-o", "again")
    assert "The model's files differ from those in out/run.json." in ran.err


# ---- --dry-run ----


def test_a_dry_run_tells_what_would_be_done(run: Run) -> None:
    run("--limit", "1")
    before = contents(Path("out"))
    Path("imgs/broken.jpg").write_bytes(b"")
    err = run("--dry-run")
    assert (run.code, run.out.splitlines()) == (0, ["imgs/broken.jpg", "imgs/sub/b c.jpg", "imgs/sub/ü.bmp"])
    assert "3 images to label, 1 unchanged, into out. Nothing was written.\n" in err
    assert re.search(
        r"\nSizes of 2 of them: .* pixels \(height x width\)\.\nThe model sees [\d.]+ windows per image\.\n", err
    )
    assert contents(Path("out")) == before
    err = run("--dry-run", "--no-resume")
    assert "4 images to label, 1 with files to replace, into out. Nothing was written.\n" in err


def test_a_dry_run_refuses_what_a_run_refuses(run: Run) -> None:
    run()
    assert "is a file" in run("--dry-run", "-o", "imgs/a.png")
    assert (run.code, run.out) == (1, "")
    # Other labels in the folder are told, and what the run would be too.
    assert (
        "The run would stop: cannot write out: it holds the labels of sub/b c.jpg and 1 more, made with other"
        in run("--dry-run", "--mode", "whole", "--limit", "1")
    )
    assert (run.code, run.out) == (0, "imgs/a.png\n")
    assert "The run would stop: cannot write out: it holds labels of another run: the classes differ" in run(
        "--dry-run", options=("-c", "tree")
    )
    shutil.copy("imgs/a.png", "imgs/a.jpg")
    assert "would share one output" in run("--dry-run")
    assert "--dry-run prints paths, but --jsonl prints records of labels" in run("--dry-run", "--jsonl")
    assert run.code == 2


def test_a_dry_run_downloads_nothing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path / "cache"))
    ran = run.command("label", "imgs", "-c", "tree", "-m", "b14", "--dry-run")
    assert ran.code == 0
    assert "3 images to label, into labels. Nothing was written.\nSizes: " in ran.err
    assert ran.err.endswith("For the number of windows, run: tipsseg weights download b14\n")
