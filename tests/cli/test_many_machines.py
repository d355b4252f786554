"""Parts of a run on several machines, and runs of one question, join to the files of one run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masks import pixels
from PIL import Image
from resuming import ALL, CLASSES, Run, contents, correct, record, tree

from tipsseg.errors import UsageError
from tipsseg.folder.files import Files
from tipsseg.folder.lock import LOCK_FILE
from tipsseg.formats import IMAGE_FORMATS
from tipsseg.options.values import Shard, parse_shard
from tipsseg.util.files import temporary_path

FORMATS = ("-f", ",".join(IMAGE_FORMATS))
MASK = Path("masks/a.png")


def merge(run: Run, *folders: str, output: str) -> str:
    ran = run.command("merge", *folders, "-o", output)
    run.code = ran.code
    return ran.err


def masks() -> list[Path]:
    return list(Path("out/masks").rglob("*.png"))


# ---- shards ----


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shards_leave_the_files_of_one_run(run: Run, count: int) -> None:
    run(*FORMATS, output="one")
    for part in range(1, count + 1):
        said = run(*FORMATS, "--shard", f"{part}/{count}")
        assert run.code == 0
        assert ("All parts are done: 3 images in out." in said) == (part == count or len(masks()) == 3)
    assert contents(Path("out")) == contents(Path("one"))
    assert run.command("check", "out").out == ""
    run(*FORMATS)
    assert (run.code, run.labelled) == (0, [])
    assert "nothing to join" in merge(run, "out", output="out")


def test_a_shard_that_was_killed_resumes_beside_others(run: Run) -> None:
    run("-f", "png", "--shard", "1/2")
    Path("out", f"{LOCK_FILE}-1-of-2").touch()  # as a killed process leaves it
    writing = temporary_path(Path("out/masks/of another shard.png"))
    writing.touch()
    run("-f", "png", "--shard", "1/2")
    assert (run.code, writing.exists()) == (0, True)


def test_shards_run_in_any_order_and_again(run: Run) -> None:
    run(*FORMATS, output="one")
    for part in (3, 1, 3, 2, 2):
        run(*FORMATS, "--shard", f"{part}/3")
        assert run.code == 0
    assert (run.labelled, contents(Path("out"))) == ([], contents(Path("one")))


def test_a_failed_image_of_a_shard_is_recorded_once_and_until_it_is_mended(run: Run) -> None:
    Path("imgs/broken.png").write_bytes(b"not an image")
    for _ in range(2):
        codes = []
        for part in "12":
            run("-f", "png", "--shard", f"{part}/2")
            codes.append(run.code)
        assert sorted(codes) == [0, 1]
        lines = Path("out/errors.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["image"] for line in lines] == ["broken.png"]
        assert list(Path("out").glob("errors-*")) == []
    shutil.copy("imgs/a.png", "imgs/broken.png")
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
        assert run.code == 0
    assert not Path("out/errors.jsonl").exists()
    assert run.command("check", "out").out == ""


def test_a_shard_skips_what_its_folder_has(run: Run) -> None:
    run("-f", "png,coco")
    for name in ("new.png", "sub/newer.png"):
        shutil.copy("imgs/a.png", Path("imgs", name))
    Image.new("RGB", (56, 56), "red").save("imgs/sub/ü.bmp")
    found = []
    for part in "123":
        run("-f", "png,coco", "--shard", f"{part}/3")
        found += run.labelled
    assert sorted(found) == ["new.png", "sub/newer.png", "sub/ü.bmp"]
    run("-f", "png,coco", output="one")
    assert contents(Path("out")) == contents(Path("one"))


def test_a_shard_keeps_what_a_person_corrected_in_its_folder(run: Run) -> None:
    run("-f", "png")
    mine = correct("out" / MASK)
    Image.new("RGB", (90, 60), "red").save("imgs/a.png")
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    assert (run.code, pixels("out" / MASK)) == (0, pixels(mine))
    lines = map(json.loads, Path("out/manifest.jsonl").read_bytes().splitlines())
    assert [line["image"] for line in lines if "corrected" in line] == ["a.png"]


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"}, Shard(3, 8)),
        (
            {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_STEP": "2"},
            Shard(8, 8),
        ),
        ({"SKYPILOT_JOB_RANK": "0", "SKYPILOT_NUM_JOBS": "4"}, Shard(1, 4)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, Shard(4, 4)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, Shard(2, 2)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}, "not numbered evenly"),
        ({"RANK": "1"}, "WORLD_SIZE"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "5/4: the part must be in 1 to 4"),
        ({}, "SLURM_ARRAY_TASK_ID, SKYPILOT_JOB_RANK, RANK"),
    ],
)  # fmt: skip
def test_the_part_is_read_from_the_environment(
    variables: dict[str, str], shard: Shard | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "SKYPILOT_JOB_RANK", "RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if isinstance(shard, Shard):
        assert parse_shard("auto") == shard
    else:
        with pytest.raises(UsageError, match=shard):
            parse_shard("auto")


def test_the_variable_of_the_part_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYPILOT_JOB_RANK", "1")
    monkeypatch.setenv("SKYPILOT_NUM_JOBS", "2")
    assert "Part 2 of 2, from SKYPILOT_JOB_RANK." in run("-f", "png", "--shard", "auto")


def test_the_first_shard_chooses_dtype_and_device_for_all(run: Run) -> None:
    run("-f", "png", "--shard", "1/2", "--dtype", "bfloat16")
    run("-f", "png", "--shard", "2/2")
    assert (run.code, record(Path("out"))["dtype"]) == (0, "bfloat16")
    run("-f", "png", "--dtype", "bfloat16")
    assert (run.code, run.labelled) == (0, [])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--shard", "2/2", "--min-confidence", "0.4"], "min-confidence 0 -> 0.4"),
        (["--shard", "2/2", "--dtype", "bfloat16"], "dtype float32 -> bfloat16"),
        (["--shard", "1/2", "--overwrite"], "--overwrite and --shard exclude each other"),
    ],
)
def test_a_shard_that_differs_is_refused_before_it_begins(run: Run, extra: list[str], message: str) -> None:
    run("-f", "png", "--shard", "1/2")
    before = tree("out")
    assert message in run("-f", "png", *extra)
    assert (run.code != 0, run.labelled, tree("out")) == (True, [], before)


@pytest.mark.parametrize("others", [["2/3", "3/3"], []], ids=["other parts", "no parts"])
def test_a_run_that_is_divided_otherwise_goes_on(run: Run, others: list[str]) -> None:
    run("-f", "png,coco", "--shard", "1/2")
    first = list(run.labelled)
    found = []
    for more in [["--shard", other] for other in others] or [[]]:
        run("-f", "png,coco", *more)
        found += run.labelled
    run("-f", "png,coco")
    assert (run.code, sorted([*first, *found, *run.labelled])) == (0, ALL)
    run("-f", "png,coco", output="one")
    assert contents(Path("out")) == contents(Path("one"))


def test_missing_shards_are_named(run: Run) -> None:
    said = run("-f", "png", "--shard", "1/3")
    left = len(ALL) - len(masks())
    assert f"{left} image{'s have' if left > 1 else ' has'} no labels yet, in shard" in said
    ran = run.command("check", "out")
    assert (ran.code, "interrupted" in ran.out + ran.err) == (1, True)
    ran = run.command("convert", "out", "-f", "coco")
    assert (ran.code, "the run was interrupted" in ran.err) == (1, True)


# ---- runs ----


def test_two_corrected_copies_of_a_folder_join(run: Run) -> None:
    """Annotators each have a copy."""
    run("-f", "png,coco,labelme")
    shutil.copytree("out", "ann")
    shutil.copytree("out", "bob")
    mine = correct("ann" / MASK)
    run("-f", "png,coco,labelme", output="ann")
    theirs = correct(Path("bob/masks/sub/b c.png"))  # no command has seen it yet
    merge(run, "ann", "bob", output="both")
    assert (run.code, pixels("both" / MASK)) == (0, pixels(mine))
    assert pixels(Path("both/masks/sub/b c.png")) == pixels(theirs)
    lines = map(json.loads, Path("both/manifest.jsonl").read_bytes().splitlines())
    assert ["corrected" in line for line in lines] == [True, True, False]
    assert run.command("check", "both").out == ""
    merge(
        run, "ann", "bob", output="both"
    )  # the mask of bob, whose copy says that a person made it, has the same labels
    assert (run.code, run.command("check", "both").out) == (0, "")
    Path("both/masks/sub/ü.png").write_bytes(b"")  # copies, not links
    assert Path("ann/masks/sub/ü.png").read_bytes() != b""


@pytest.mark.parametrize("newer", ["out", "copy"])
def test_of_two_corrections_the_newer_one_stays(run: Run, newer: str) -> None:
    run("-f", "png")
    shutil.copytree("out", "copy")
    merge(run, "out", "copy", output="same")
    assert (run.code, len(list(Path("same/masks").rglob("*.png")))) == (0, len(ALL))
    for place, corner in (("out", 0), ("copy", 50)):
        with Image.open(place / MASK) as mask:
            ids = np.array(mask)
        ids[corner : corner + 9] = 2 - (ids[corner : corner + 9] == 2)
        Image.fromarray(ids).save(place / MASK)
        os.utime(place / MASK, (1e9 + (place == newer) * 100,) * 2)
    older = "copy" if newer == "out" else "out"
    said = merge(run, "out", "copy", output="both")
    assert (run.code, pixels("both" / MASK)) == (0, pixels(newer / MASK))
    assert "1 image had two corrections, of which the newer one stays: a.png." in said
    kept = list(Path("both/replaced").rglob("*.png"))
    assert [pixels(path) for path in kept] == ([pixels(older / MASK)] if newer == "copy" else [])
    assert run.command("check", "both").out == ""


def test_labels_of_the_model_that_differ_are_those_of_the_first_run(run: Run) -> None:
    run("-f", "png,coco")
    shutil.copytree("out", "copy")
    Image.new("RGB", (90, 60), "red").save("imgs/a.png")
    run("-f", "png,coco", output="copy")
    for first, other in (("out", "copy"), ("copy", "out")):
        merge(run, first, other, output=f"of-{first}")
        assert (run.code, pixels(f"of-{first}" / MASK)) == (0, pixels(first / MASK))


def test_runs_of_other_questions_are_refused(run: Run) -> None:
    run("-f", "png")
    run("-f", "png", output="other", options=("-c", "tree"))
    assert "classes" in merge(run, "out", "other", output="both")
    assert (run.code, Path("both").exists()) == (1, False)
    assert "given twice" in merge(run, "out", "out", output="both")


def test_a_run_joins_another_in_its_folder(run: Run) -> None:
    run("-f", "png,coco")
    shutil.copytree("imgs", "more")
    for path in sorted(Path("more").rglob("*.*")):
        path.rename(path.with_stem(f"{path.stem}2"))
    asked = ("-c", CLASSES, "-m", run.model, "--device", "cpu", "-f", "png,coco")
    assert run.command("label", "more", *asked, "-o", "second").code == 0
    merge(run, "out", "second", output="out")
    assert (run.code, len(json.loads(Path("out/annotations.json").read_bytes())["images"])) == (0, 6)


# ---- found by an attacker and by a newcomer ----


def test_sources_below_the_target_are_copied(run: Run) -> None:
    run("-f", "png", output="all/ann")
    shutil.copytree("all/ann", "all/bob")
    correct("all/bob" / MASK)
    before = contents(Path("all/bob"))
    merge(run, "all/ann", "all/bob", output="all")
    assert (run.code, contents(Path("all/bob"))) == (0, before)
    assert pixels("all" / MASK) == pixels("all/bob" / MASK)
    assert "is in all" in merge(run, "all", output="all/masks")


@pytest.mark.parametrize("path", ["absolute", "link", "../x/out"])
def test_the_target_may_be_written_otherwise(run: Run, path: str) -> None:
    run("-f", "png", "--shard", "1/1")
    run("-f", "png", output="second")
    Path("link").symlink_to("out")
    Path("x").mkdir()
    Path("x/out").symlink_to("../out")
    target = {"absolute": str(Path("out").absolute()), "link": "link"}.get(path, "x/out")
    merge(run, "out", "second", output=target)
    assert (run.code, run.command("check", "out").out) == (0, "")
    assert "nothing to join" in merge(run, "out", output=target)


def test_a_mask_that_is_in_the_way_of_a_merge_is_not_lost(run: Run) -> None:
    run("-f", "png,coco")
    for data in (b"mine", Path("imgs/a.png").read_bytes()):
        shutil.rmtree("both", ignore_errors=True)
        ("both" / MASK).parent.mkdir(parents=True)
        ("both" / MASK).write_bytes(data)
        Path("both/annotations.json").write_bytes(data)
        merge(run, "out", output="both")
        there = [path.read_bytes() for path in Path("both").rglob("*") if path.is_file()]
        assert (run.code, there.count(data)) == (0, 2)
        assert run.command("check", "both").out == ""


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_each_image_is_in_the_formats_of_all_runs(run: Run, order: tuple[str, str]) -> None:
    run("-f", "png", output="one")
    run("-f", "coco", output="two")
    run("-f", "png,coco", output="fresh")
    merge(run, *order, output="both")
    names = ("annotations.json", *(f"masks/{Path(name).with_suffix('.png')}" for name in ALL))
    fresh, both = contents(Path("fresh")), contents(Path("both"))
    assert {name: both[name] for name in names} == {name: fresh[name] for name in names}


@pytest.mark.parametrize("more", [(), ("--shard", "1/1")], ids=["run", "shard"])
def test_nothing_is_written_through_a_link_out_of_the_folder(run: Run, more: tuple[str, ...]) -> None:
    Path("elsewhere").mkdir()
    Path("out").mkdir()
    Path("out/masks").symlink_to("../elsewhere")
    assert "a link leads out" in run("-f", "png", *more)
    assert (run.code, list(Path("elsewhere").iterdir())) == (1, [])


def test_a_merge_may_be_repeated_and_a_part_too(run: Run) -> None:
    for part, place in (("1", "one"), ("2", "two")):
        run("-f", "png", "--shard", f"{part}/2", output=place)
    for _ in range(2):
        merge(run, "one", "two", output="one")
        assert run.code == 0
    assert "nothing to join" in merge(run, "one", output="one")
    run("-f", "png", "--shard", "1/2", output="one")
    assert (run.code, run.labelled) == (0, [])
    run("-f", "png", output="one")
    assert (run.code, run.labelled) == (0, [])


def test_images_keep_their_names_in_a_folder_that_shards_add_to(run: Run) -> None:
    run.command("label", ".", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out", "-f", "png")
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
        assert (run.code, run.labelled) == (0, [])


@pytest.mark.parametrize("put", range(1, 9))
def test_a_merge_of_corrected_copies_goes_on_after_an_interruption(
    run: Run, monkeypatch: pytest.MonkeyPatch, put: int
) -> None:
    run("-f", "png,coco")
    shutil.copytree("out", "copy")
    mine = correct("copy" / MASK)
    plain, left = Files.put, iter(range(put))

    def killed(files: Files, *rest: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        plain(files, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Files, "put", killed)
        merge(run, "out", "copy", output="both")
    assert run.code in (0, 130)
    merge(run, "out", "copy", output="both")
    assert (run.code, pixels("both" / MASK), run.command("check", "both").out) == (0, pixels(mine), "")
