"""Parts of a run on several machines, and runs of one question, join to the files of one run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masks import pixels
from PIL import Image
from resuming import ALL, CLASSES, Run, contents, correct, record
from tipsseg.run.state import State

from tipsseg.errors import UsageError
from tipsseg.formats import IMAGE_FORMATS
from tipsseg.options.values import Shard, parse_shard
from tipsseg.run.entry import Entry

FORMATS = ("-f", ",".join(IMAGE_FORMATS))
MASK = Path("masks/a.png")


def merge(run: Run, *folders: str, output: str) -> str:
    ran = run.command("merge", *folders, "-o", output)
    run.code = ran.code
    return ran.err


# ---- shards ----


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shards_join_to_the_files_of_one_run(run: Run, count: int) -> None:
    run(*FORMATS, output="one")
    for part in range(1, count + 1):
        run(*FORMATS, "--shard", f"{part}/{count}")
        assert run.code == 0
    merge(run, "out", output="out")
    assert (run.code, contents(Path("out"))) == (0, contents(Path("one")))
    assert run.command("check", "out").out == ""
    run(*FORMATS)
    assert (run.code, run.labelled) == (0, [])


def test_a_shard_skips_what_its_folder_has(run: Run) -> None:
    run("-f", "png,coco")
    for name in ("new.png", "sub/newer.png"):
        shutil.copy("imgs/a.png", Path("imgs", name))
    Image.new("RGB", (56, 56), "red").save("imgs/sub/ü.bmp")
    found = []
    for part in "123":
        noted = run("-f", "png,coco", "--shard", f"{part}/3")
        found += run.labelled
    assert "Skipping 1 image of part 3/3 with labels in" in noted
    assert sorted(found) == ["new.png", "sub/newer.png", "sub/ü.bmp"]
    merge(run, "out", output="out")
    run("-f", "png,coco", output="one")
    assert contents(Path("out")) == contents(Path("one"))


def test_a_shard_keeps_what_a_person_corrected_in_its_folder(run: Run) -> None:
    run("-f", "png")
    mine = correct("out" / MASK)
    Image.new("RGB", (90, 60), "red").save("imgs/a.png")
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    merge(run, "out", output="out")
    assert (run.code, pixels("out" / MASK)) == (0, pixels(mine))


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
    assert Path("out/shards/2-of-2/run.json").exists()


def test_the_first_shard_chooses_dtype_and_device_for_all(run: Run) -> None:
    run("-f", "png", "--shard", "1/2", "--dtype", "bfloat16")
    run("-f", "png", "--shard", "2/2")
    assert (run.code, record(Path("out/shards/2-of-2"))["dtype"]) == (0, "bfloat16")
    shared = Path("out/shards/question.json")
    shutil.rmtree("out/shards/2-of-2")
    shared.write_text(shared.read_text().replace('"device": "cpu",\n  "dtype"', '"device": "cuda",\n  "dtype"'))
    ran = run.command("label", "imgs", "-c", CLASSES, "-m", run.model, "-f", "png", "-o", "out", "--shard", "2/2")
    assert (ran.code, "cuda" in ran.err, "device cpu" in ran.err) == (1, True, True)
    run("-f", "png", "--shard", "2/2")  # with --device cpu
    assert run.code == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--shard", "2/2", "--min-confidence", "0.4"], "min-confidence 0 -> 0.4"),
        (["--shard", "2/2", "--dtype", "bfloat16"], "dtype float32 -> bfloat16"),
        (["--shard", "2/3"], "it has shards of 2 parts"),
        ([], "tipsseg merge out -o out"),
        (["--shard", "1/2", "--overwrite"], "--overwrite and --shard exclude each other"),
    ],
)
def test_a_shard_that_differs_is_refused_before_it_begins(run: Run, extra: list[str], message: str) -> None:
    run("-f", "png", "--shard", "1/2")
    assert message in run("-f", "png", *extra)
    assert (run.code != 0, run.labelled, [each.name for each in Path("out/shards").glob("*-of-*")]) == (
        True,
        [],
        ["1-of-2"],
    )


def test_a_missing_or_unfinished_shard_is_named(run: Run) -> None:
    run("-f", "png", "--shard", "1/3")
    assert "missing: 2-3" in merge(run, "out", output="out")
    assert run.code == 1
    assert "missing: 2-3" in run.command("check", "out").out


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


def test_images_with_other_labels_in_two_runs_are_refused_by_name(run: Run) -> None:
    run("-f", "png")
    shutil.copytree("out", "copy")
    merge(run, "out", "copy", output="same")
    assert (run.code, len(list(Path("same/masks").rglob("*.png")))) == (0, len(ALL))
    for place, corner in (("out", 0), ("copy", 50)):
        with Image.open(place / MASK) as mask:
            ids = np.array(mask)
        ids[corner : corner + 9] = 2 - (ids[corner : corner + 9] == 2)
        Image.fromarray(ids).save(place / MASK)
    err = merge(run, "out", "copy", output="both")
    assert (run.code, "a.png in out and in copy" in err, "b c" in err) == (1, True, False)
    assert not Path("both").exists()


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


def test_a_file_that_is_in_the_way_fails_its_image(run: Run) -> None:
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    ("out" / MASK).parent.mkdir(exist_ok=True)
    ("out" / MASK).write_bytes(b"mine")
    err = merge(run, "out", output="out")
    assert (run.code, "out/masks/a.png exists" in err, ("out" / MASK).read_bytes()) == (1, True, b"mine")
    ("out" / MASK).unlink()
    merge(run, "out", output="out")
    assert (run.code, run.command("check", "out").out, Path("out/shards").exists()) == (0, "", False)


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
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    Path("link").symlink_to("out")
    Path("x").mkdir()
    Path("x/out").symlink_to("../out")
    target = {"absolute": str(Path("out").absolute()), "link": "link"}.get(path, "x/out")
    merge(run, "out", output=target)
    assert (run.code, Path("out/shards").exists(), run.command("check", "out").out) == (0, False, "")


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_each_image_is_in_the_formats_of_all_runs(run: Run, order: tuple[str, str]) -> None:
    run("-f", "png", output="one")
    run("-f", "coco", output="two")
    run("-f", "png,coco", output="fresh")
    merge(run, *order, output="both")
    names = ("annotations.json", *(f"masks/{Path(name).with_suffix('.png')}" for name in ALL))
    fresh, both = contents(Path("fresh")), contents(Path("both"))
    assert {name: both[name] for name in names} == {name: fresh[name] for name in names}


def test_newer_labels_of_a_shard_win_in_another_target_too(run: Run) -> None:
    run("-f", "png")
    Image.new("RGB", (90, 60), "red").save("imgs/a.png")
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    merge(run, "out", output="other")
    assert (run.code, run.command("check", "other").out) == (0, "")


def test_corrections_in_a_shard_and_in_its_folder_are_not_mixed(run: Run) -> None:
    run("-f", "png")
    Image.new("RGB", (90, 60), "red").save("imgs/a.png")
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    shard = next(Path("out/shards").rglob("a.png"))
    mine = correct("out" / MASK)
    Image.fromarray(np.zeros((60, 90), np.uint8)).save(shard)
    theirs = shard.read_bytes()
    err = merge(run, "out", output="out")
    assert (run.code, "were corrected in both" in err) == (1, True)
    assert (shard.read_bytes(), ("out" / MASK).read_bytes()) == (theirs, mine)


def test_the_same_correction_in_a_shard_and_in_its_folder_is_one(run: Run) -> None:
    run("-f", "png")
    Image.new("RGB", (90, 60), "red").save("imgs/a.png")
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    for path in ("out" / MASK, next(Path("out/shards").rglob("a.png"))):
        Image.fromarray(np.zeros((60, 90), np.uint8)).save(path)
    run("-f", "png")  # which writes into one of the two that a person made it
    merge(run, "out", output="out")
    assert (run.code, pixels("out" / MASK)[1], Path("out/shards").exists()) == (0, bytes(60 * 90), False)


def test_shards_do_not_follow_a_link_out_of_the_folder(run: Run) -> None:
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    Path("elsewhere").mkdir()
    Path("out/masks").symlink_to("../elsewhere")
    assert "a link leads out" in merge(run, "out", output="out")
    assert (run.code, list(Path("elsewhere").iterdir())) == (1, [])


def test_no_shard_is_written_through_a_link_out_of_the_folder(run: Run) -> None:
    Path("elsewhere").mkdir()
    Path("out").mkdir()
    Path("out/shards").symlink_to("../elsewhere")
    assert "a link leads out" in run("-f", "png", "--shard", "1/2")
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
    merge(run, "one", output="one")
    run("-f", "png", output="one")
    assert (run.code, run.labelled) == (0, [])


def test_the_folder_of_a_shard_is_no_output_folder(run: Run) -> None:
    run("-f", "png", "--shard", "1/2")
    assert "--shard 1/2" in run("-f", "png", output="out/shards/1-of-2")
    assert (run.code, run.labelled) == (1, [])


def test_images_keep_their_names_in_a_folder_that_shards_add_to(run: Run) -> None:
    run.command("label", ".", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out", "-f", "png")
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
        assert (run.code, run.labelled) == (0, [])


@pytest.mark.parametrize("recorded", [False, True])
def test_an_edit_that_a_killed_merge_moved_survives_another_run_of_its_shard(
    run: Run, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    for part in "12":
        run("-f", "png,coco", "--shard", f"{part}/2")
    shard = next(Path("out/shards").rglob("a.png"))
    mine = correct(shard)
    if recorded:
        run("-f", "png,coco", "--shard", shard.parents[1].name.replace("-of-", "/"))
    plain = State.add

    def killed(state: State, entry: Entry, *rest: Any) -> None:
        if entry.image == "a.png" and ("out" / MASK).exists():
            raise KeyboardInterrupt
        plain(state, entry, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(State, "add", killed)
        merge(run, "out", output="out")
    assert (run.code, pixels("out" / MASK), shard.exists()) == (130, pixels(mine), False)
    for part in "12":
        run("-f", "png,coco", "--shard", f"{part}/2")
        assert (run.code, run.labelled) == (0, [])
    merge(run, "out", output="out")
    assert (run.code, pixels("out" / MASK), run.command("check", "out").out) == (0, pixels(mine), "")


def test_a_merge_of_corrected_copies_goes_on_after_a_kill(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("-f", "png,coco")
    shutil.copytree("out", "copy")
    mine = correct("copy" / MASK)
    plain, seen = State.add, list[str]()

    def killed(state: State, entry: Entry, *rest: Any) -> None:
        seen.append(entry.image)
        if seen.count("a.png") == 2:  # the corrected mask is in place, and not recorded
            raise KeyboardInterrupt
        plain(state, entry, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(State, "add", killed)
        merge(run, "out", "copy", output="both")
    assert (run.code, pixels("both" / MASK)) == (130, pixels(mine))
    merge(run, "out", "copy", output="both")
    assert (run.code, pixels("both" / MASK), run.command("check", "both").out) == (0, pixels(mine), "")


def test_a_mask_that_is_saved_in_a_shard_while_it_is_joined_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last moment: its own mask has moved, and the folder is about to be removed."""
    for part in "12":
        run("-f", "png", "--shard", f"{part}/2")
    shard, plain = next(Path("out/shards").rglob("a.png")), Path.rename

    def save_before(path: Path, target: Path) -> Path:
        if path == Path("out/shards"):
            shard.parent.mkdir(parents=True, exist_ok=True)
            shard.write_bytes(b"mine")
        return plain(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", save_before)
        err = merge(run, "out", output="out")
    kept = next(Path("out").rglob(f"*-of-2/{MASK}"))
    assert (run.code, kept.read_bytes(), str(kept) in err) == (1, b"mine", True)
    merge(run, "out", output="out")
    assert (run.code, kept.exists()) == (1, True)
    kept.unlink()
    merge(run, "out", output="out")
    assert (run.code, run.command("check", "out").out) == (0, "")


def test_one_edit_in_a_shard_and_in_its_folder_is_joined(run: Run) -> None:
    run("-f", "png")
    run("-f", "png", "--shard", "1/1", output="parts")
    correct("out" / MASK)
    shutil.copy("out" / MASK, "parts/shards/1-of-1" / MASK)
    shutil.copytree("parts/shards", "out/shards")
    merge(run, "out", output="out")
    assert (run.code, Path("out/shards").exists()) == (0, False)
