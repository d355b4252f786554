"""What a run sweeps, forgets, keeps and refuses of what it finds in its output folder, and what it says of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from dying import at
from filelock import FileLock
from resuming import ALL, CLASSES, Run, contents, record, tree

import tipsseg


def images_of(output: str) -> list[str]:
    return [each["file_name"] for each in json.loads(Path(output, "annotations.json").read_bytes())["images"]]


def test_what_a_killed_run_left_is_swept_and_its_work_is_kept(run: Run) -> None:
    with at(Path("out/annotations.json")):
        run()
    assert run.code == 130
    left = [Path("out", name) for name in (".tipsseg-0.json", "masks/.tipsseg-0.png", "masks/sub/.tipsseg-0.png")]
    for path in (Path("out/.tipsseg-lock"), *left):
        path.touch()
    run("-f", "png")  # what is kept for the other format stays
    assert (run.labelled, [path for path in left if path.exists()]) == ([], [])
    assert record(Path("out"))["formats"] == ["png"]
    run()
    assert (run.labelled, images_of("out")) == ([], ALL)


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (["--shard", "1/2"], [], "it holds 1-of-2, a shard of another run\nHint: "),
        (["--shard", "1/2"], ["--shard", "1/3"], "it holds 1-of-2, a shard of another run\nHint: "),
        ([], ["--shard", "1/2"], "it holds a whole run, but this run is a shard\nHint: "),
    ],
)
def test_whole_runs_and_other_shards_do_not_mix(run: Run, first: list[str], second: list[str], error: str) -> None:
    run(*first)
    before = sorted(Path("out").rglob("*"))
    assert f"Error: cannot write out: {error}" in run(*second)
    assert (run.code, run.labelled, run.out) == (1, [], "")
    assert sorted(Path("out").rglob("*")) == before


def test_a_run_in_which_all_failed_binds_nobody(run: Run) -> None:
    Path("out/masks").mkdir(parents=True)
    shutil.copy("imgs/a.png", "out/masks")
    for classes in ("panda leg", "tree,sky"):
        label = ["label", "-", "-c", classes, "-m", run.model, "-o", "out", "--device", "cpu"]
        ran = run.command(*label, stdin=b"out/masks/a.png\n")
        assert ran.code == 1
        assert ran.out.splitlines() == ["out/classes.json"], ran.err
        assert not Path("out/annotations.json").exists()
        found = json.loads(Path("out/classes.json").read_bytes())["classes"]
        assert [each["name"] for each in found] == classes.split(",")
        assert [each["name"] for each in record(Path("out"))["vocabulary"]["classes"]] == classes.split(",")  # type: ignore[index]


def test_labelling_again_keeps_what_is_not_given_and_beginning_anew_does_not(run: Run) -> None:
    Path("imgs/broken.jpg").write_bytes(b"")
    run()
    run("--no-resume", "--limit", "1")
    assert (run.code, run.labelled, Path("out/errors.jsonl").exists()) == (0, ["a.png"], True)
    label = ["label", "-", "-c", CLASSES, "-m", run.model, "-o", "out", "--device", "cpu"]
    assert run.command(*label, "--no-resume", stdin=b"gone.png\n").code == 1
    assert images_of("out") == ALL
    run("--overwrite", "--limit", "1")
    assert (run.code, run.labelled, Path("out/errors.jsonl").exists(), images_of("out")) == (
        0,
        ["a.png"],
        False,
        ["a.png"],
    )
    assert [path.name for path in Path("out/masks").rglob("*.png")] == ["a.png"]
    assert "--overwrite and --no-resume exclude each other" in run("--overwrite", "--no-resume")
    assert run.code == 2


def test_a_list_may_cover_all_that_has_other_options(run: Run) -> None:
    label = ["label", "-", "-c", CLASSES, "-m", run.model, "-o", "out", "--device", "cpu"]
    for number, options in enumerate(([], ["--mode", "whole"])):
        ran = run.command(*label, *options, stdin=b"imgs/a.png\nimgs/sub\n")
        assert ran.code == 0, ran.err
        assert len(run.labelled) == 3 * (number + 1)


def test_an_interrupted_run_says_what_is_done_and_how_to_go_on(run: Run) -> None:
    run("--limit", "1")
    Path("imgs/broken.jpg").write_bytes(b"")
    for options, how in (
        ((), "the same command"),
        (("--no-resume",), "the same command without --no-resume"),
        (("--overwrite",), "the same command without --overwrite"),
    ):
        with at(Path("out/annotations.json")):
            err = run(*options)
        assert run.code == 130
        assert err.splitlines()[-1] == f"Interrupted: 3 images done; run {how} to resume."


def test_what_is_tried_again_keeps_the_folder_of_the_names(run: Run) -> None:
    Path("imgs/broken.jpg").write_bytes(b"")
    run()
    before = record(Path("out"))["image_root"]
    assert run.command("label", "--retry-failed", "--from", "out", "-o", "out").code == 1
    assert record(Path("out"))["image_root"] == before == str(Path("imgs").absolute())


def test_a_shard_is_repeated_as_a_shard_on_the_device_that_was_asked_for(run: Run) -> None:
    run("--shard", "2/2")
    Path("out/run.json").write_bytes(Path("out/shards/2-of-2/run.json").read_bytes())
    assert run.command("label", "imgs", "--from", "out", "-o", "again").code == 0
    assert record(Path("again/shards/2-of-2"))["shard"] == "2/2"
    found = record(Path("out"))
    Path("out/run.json").write_text(json.dumps({**found, "asked": {**found["asked"], "device": "tpu"}}))  # type: ignore[dict-item]
    assert "unknown device 'tpu'\n" in run.command("label", "imgs", "--from", "out", "-o", "third").err


def test_the_shards_of_a_list_are_all_of_it(run: Run) -> None:
    for shard in ("1/2", "2/2"):
        label = ["label", "-", "-c", CLASSES, "-m", run.model, "-o", "out", "--shard", shard]
        assert run.command(*label, stdin=b"imgs/a.png\nimgs/sub\n").code == 0
    assert sorted(run.labelled) == ["imgs/a.png", "imgs/sub/b c.jpg", "imgs/sub/ü.bmp"]


def test_names_that_are_one_to_the_file_system_of_the_outputs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy("imgs/a.png", "imgs/A.png")
    monkeypatch.setattr("tipsseg.runs.common.image_list.name_key", lambda folder: str.casefold)
    for options in ([], ["--dry-run"]):
        assert "imgs/A.png and imgs/a.png would share one output" in run(*options)
        assert (run.code, run.labelled) == (1, [])


# ---- dry run ----


def test_a_dry_run_counts_what_cannot_be_labelled(run: Run) -> None:
    label = ["label", "-", "-c", CLASSES, "-m", run.model, "-o", "out", "--dry-run", "--device", "cpu"]
    shutil.copy("imgs/a.png", "imgs/a.jpg")
    ran = run.command(*label, stdin=b"imgs/a.png\nimgs/a.jpg\n")
    assert (ran.code, ran.out) == (1, "imgs/a.png\n")
    assert ran.err.startswith("Error: imgs/a.jpg: ")
    assert "\n1 image to label, 1 cannot be labelled, into out. Nothing was written.\n" in ran.err


@pytest.mark.parametrize(("records", "options"), [("out", []), ("out/shards/1-of-2", ["--shard", "1/2"])])
def test_a_dry_run_tells_of_another_at_work(run: Run, records: str, options: list[str]) -> None:
    Path(records).mkdir(parents=True)
    with FileLock(Path(records, ".tipsseg-lock")):
        assert f"Another tipsseg process is writing to {records}.\n" in run("--dry-run", *options)
    assert "Another" not in run("--dry-run", *options)


@pytest.mark.parametrize("damage", [b"", b"{}"], ids=["empty", "of others"])
def test_a_file_of_records_that_was_changed_stops_the_run(run: Run, damage: bytes) -> None:
    run()
    Path("out/annotations.json").write_bytes(damage)
    before = contents(Path("out"))
    for options in ([], ["--no-resume"], ["--overwrite"], ["--limit", "1"]):
        err = run(*options)
        assert "Error: cannot write out/annotations.json: tipsseg did not write this file, or it was changed" in err
        assert err.endswith(" first run: tipsseg correct out --from out/annotations.json\n")
        assert (run.code, run.labelled, contents(Path("out"))) == (1, [], before)


def test_a_file_of_records_that_is_lost_is_told_of_and_made_again(run: Run) -> None:
    run()
    path = Path("out/annotations.json")
    before = path.read_bytes()
    path.unlink()
    run()
    assert (run.code, run.labelled, path.read_bytes()) == (0, [], before)
    path.unlink()
    shutil.rmtree("out/.tipsseg")
    assert "its images are already labelled and lack only coco" in run()
    assert (run.code, run.labelled) == (1, [])
    run.command("convert", "out", "-f", "coco")
    run()
    assert (run.code, run.labelled, path.read_bytes()) == (0, [], before)
    path.unlink()
    shutil.rmtree("out/.tipsseg")
    Path("out/masks/a.png").unlink()  # its labels are lost, and the others follow from theirs
    assert run.command("convert", "out", "-f", "coco").code == 1
    run()
    assert (run.code, run.labelled, path.read_bytes()) == (0, ["a.png"], before)
    assert "not as it was written" not in run("--no-resume")


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (
            ("--mode", "whole", "--min-area", "5"),
            "they have mode slide, min-area 1, but this run has mode whole, min-area 5",
        ),
        (("--dtype", "bfloat16"), "they have dtype float32, but this run has dtype bfloat16"),
        (("--scales", "1,1.5"), "they have scales 1, but this run has scales 1,1.5"),
        (
            ("--refine", "pamr", "--min-confidence", "0.25"),
            "they have min-confidence 0, refine none, but this run has min-confidence 0.25, refine pamr",
        ),
        (
            ("--short-side", "70", "--simplify", "2"),
            "they have short-side not given, simplify not given, but this run has short-side 70, simplify 2",
        ),
        (("--features", "feats"), "they have no stored features, but this run has features stored in float16"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_what_other_options_there_are_is_said(run: Run, options: tuple[str, ...], difference: str) -> None:
    run()
    assert f", and this run would not label them again; {difference}\nHint: " in run(*options, "--limit", "1")


def test_labels_of_a_run_before_the_last_are_not_mixed(run: Run) -> None:
    run("-f", "png")
    results = tipsseg.iter_label_folder(
        "imgs", CLASSES.split(","), output="out", formats=["png"], model=str(run.model), mode="whole", device="cpu"
    )
    assert next(results).path == Path("imgs", ALL[0])
    results.close()
    err = run("-f", "png", "--mode", "whole", "--limit", "1")
    said = (
        f"it holds the labels of {ALL[1]} and 1 more, made with other options, and this run would not label them again"
    )
    assert said in err


def test_another_folder_that_names_begin_at_is_told_of(run: Run) -> None:
    assert "begin at" not in run()
    assert "begin at" not in run()
    Path("more").mkdir()
    Path("imgs/a.png").rename("more/new.png")
    ran = run.command("label", "more", "-c", CLASSES, "-m", run.model, "-o", "out", "--device", "cpu")
    assert (ran.code, images_of("out")) == (0, ["a.png", "new.png", *ALL[1:]])
    here = Path.cwd()
    said = f"Image names are relative to {here}/more; in the earlier run they were relative to {here}/imgs."
    assert said in ran.err.splitlines()


@dataclass(frozen=True)
class GivenAgain:
    """How images of a run are given to it again, of the folder `imgs` in the current one; `{here}` stands for that."""

    paths: str = "-"
    listed: str | None = None
    cwd: str = "."
    before: Callable[[], object] = lambda: None


GIVEN_AGAIN = {
    "a list of paths as rank prints them": GivenAgain(listed="{here}/imgs/sub/b c.jpg\n{here}/imgs/a.png"),
    "a list in another folder": GivenAgain(listed="a.png\nsub", cwd="imgs"),
    "a part of a list": GivenAgain("- --sample 1", listed="imgs/a.png\nimgs/sub"),
    "a sub-folder": GivenAgain("{here}/imgs/sub"),
    "one file": GivenAgain("{here}/imgs/sub/ü.bmp"),
    "through a link": GivenAgain("{here}/link/sub", before=lambda: Path("link").symlink_to("imgs")),
    "a list through a link": GivenAgain(listed="link/a.png", before=lambda: Path("link").symlink_to("imgs")),
    "after they were moved": GivenAgain("{here}/moved/sub", before=lambda: Path("imgs").rename("moved")),
    "a list after they were moved": GivenAgain(listed="moved/a.png", before=lambda: Path("imgs").rename("moved")),
}


@pytest.mark.parametrize("given", GIVEN_AGAIN.values(), ids=GIVEN_AGAIN)
@pytest.mark.parametrize("more", [(), ("--no-resume",)], ids=["gone on with", "labelled again"])
def test_images_of_a_run_keep_their_names(run: Run, given: GivenAgain, more: tuple[str, ...]) -> None:
    run("-f", "png,coco")
    before, here = contents(Path("out")), Path.cwd()
    given.before()
    label = ["label", *given.paths.format(here=here).split(), "-c", CLASSES, "-m", run.model, "--device", "cpu", *more]
    stdin = None if given.listed is None else given.listed.format(here=here).encode()
    ran = run.command(*label, "-f", "png,coco", "-o", here / "out", stdin=stdin, cwd=here / given.cwd)
    after = contents(here / "out")
    assert ran.code == 0, ran.err
    assert after.keys() == before.keys()
    assert after["annotations.json"] == before["annotations.json"]
    assert "begin at" not in ran.err or "moved" in ran.err
    assert run.command("check", here / "out").code == 0


def test_a_new_image_beside_those_of_a_run_is_named_as_they_are(run: Run) -> None:
    run()
    shutil.copy("imgs/a.png", "imgs/sub/new.png")
    label = ["label", "-", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out"]
    assert run.command(*label, stdin=b"imgs/sub/new.png").code == 0
    assert images_of("out") == sorted([*ALL, "sub/new.png"])
    assert record(Path("out"))["image_root"] == str(Path("imgs").absolute())


def test_images_that_would_have_two_names_are_refused_before_any_work(run: Run) -> None:
    """The run is of a sub-folder, and some of these images are outside of it."""
    label = ["-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out"]
    assert run.command("label", "imgs/sub", *label).code == 0
    before = tree("out")
    run.labelled.clear()
    ran = run.command("label", "imgs", *label)
    assert (ran.code, run.labelled, tree("out")) == (1, [], before)
    assert ran.err.splitlines()[-2:] == [
        "Error: imgs/sub/b c.jpg is already labelled as b c.jpg in out, and would be labelled again as sub/b c.jpg",
        f"Hint: Choose another output folder with -o, or label the folder that its names are relative to, {Path.cwd()}/imgs/sub.",
    ]
    assert run.command("label", "imgs", *label, "--overwrite").code == 0
    assert images_of("out") == ALL


def test_links_of_images_that_moved_are_mended_without_the_model(run: Run) -> None:
    run("-f", "yolo,hf")
    Path("imgs").rename("moved")
    assert run.command("check", "out").code == 1
    Path("out/hf/images/a.png").unlink()
    run.labelled.clear()
    ran = run.command("label", "moved", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out", "-f", "yolo,hf")
    assert ran.code == 0, ran.err
    assert run.labelled == []
    assert Path("out/yolo/images/train/a.png").resolve() == Path("moved/a.png").resolve()
    assert Path("out/hf/images/a.png").exists()
    assert run.command("check", "out", "--images", "moved").code == 0
