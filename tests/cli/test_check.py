"""`tipsseg check` on what `tipsseg label` left, whole and damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Command, Ran

OUT = Path("out")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def label(command: Command, in_folder: None, pictures: Path) -> Callable[..., Ran]:
    """`tipsseg label` of the pictures with the model that ships with the package, into out."""

    def run(*arguments: object) -> Ran:
        options = ("-m", "tiny", "--device", "cpu", "-c", "panda leg,tree", "-o", OUT)
        return command("label", *(arguments or ("imgs",)), *options)

    return run


@pytest.fixture
def labelled(label: Callable[..., Ran]) -> None:
    ran = label("imgs", "-f", "png,coco,overlay,confidence")
    assert ran.code == 0, ran.err


@pytest.mark.usefixtures("labelled")
def test_what_label_leaves_is_sound(command: Command) -> None:
    ran = command("check", OUT)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.splitlines() == ["3 images in out.", "3 images, 9 files checked: nothing wrong."]
    assert command("check", OUT, "--quiet") == Ran(0, "", "")


@pytest.mark.parametrize(
    "options",
    [
        ["--min-confidence", "0.6", "--min-area", "30"],
        ["--mode", "whole", "--background", "none", "-f", "coco"],
        ["-f", "coco", "--min-area", "0"],
        ["--limit", "1"],
    ],
    ids=" ".join,
)
def test_what_label_leaves_is_sound_whatever_the_options(
    command: Command, label: Callable[..., Ran], options: list[str]
) -> None:
    label("imgs", *options)
    ran = command("check", OUT)
    assert (ran.code, ran.out) == (0, ""), ran.err


@pytest.mark.usefixtures("labelled")
def test_a_problem_is_a_line_on_stdout_and_exit_code_1(command: Command) -> None:
    os.truncate(OUT / "masks/sub/ü.png", 20)
    ran = command("check", OUT, "--quiet")
    assert (ran.code, ran.err) == (1, "")
    (line,) = ran.out.splitlines()
    assert line.startswith("out/masks/sub/ü.png: ")


@pytest.mark.usefixtures("labelled")
def test_an_image_that_changed_is_a_problem_until_it_is_labelled_again(
    command: Command, label: Callable[..., Ran]
) -> None:
    (Path("imgs/a.png")).write_bytes(Path("imgs/sub/ü.bmp").read_bytes())
    ran = command("check", OUT)
    assert (ran.code, ran.out) == (1, f"{Path('imgs/a.png').absolute()}: changed since it was labelled\n")
    assert label("imgs", "-f", "png,coco,overlay,confidence").code == 0
    assert command("check", OUT, "--quiet") == Ran(0, "", "")


@pytest.mark.usefixtures("labelled")
def test_images_may_be_elsewhere(command: Command) -> None:
    Path("imgs").rename("moved")
    ran = command("check", OUT)
    assert (ran.code, ran.out) == (0, "")
    assert "3 inputs not found, so not compared; pass their folder as --images to compare them." in ran.err
    ran = command("check", OUT, "--images", "moved")
    assert (ran.code, ran.out) == (0, "")
    assert "not found" not in ran.err
    Path("moved/a.png").write_bytes(b"")
    assert command("check", OUT, "--images", "moved", "--quiet") == Ran(
        1, "moved/a.png: changed since it was labelled\n", ""
    )


def test_shards_are_checked_together(command: Command, label: Callable[..., Ran]) -> None:
    for index in (1, 2, 3):
        assert label("imgs", "--shard", f"{index}/3").code == 0
    ran = command("check", OUT)
    assert (ran.code, ran.out) == (0, "")
    assert "All 3 shards are finished; join them: tipsseg merge out -o out" in ran.err
    assert command("merge", OUT, "-o", "joined").code == 0
    assert command("check", "joined", "--quiet") == Ran(0, "", "")
    record = json.loads((OUT / "shards/2-of-3/run.json").read_text())
    (OUT / "shards/2-of-3/run.json").write_text(json.dumps({**record, "ended": None, "counts": None}))
    ran = command("check", OUT, "--quiet")
    assert ran == Ran(1, "out/shards/2-of-3/run.json: the run was interrupted; run the same command again\n", "")
    shutil.rmtree(OUT / "shards/2-of-3")
    ran = command("check", OUT, "--quiet")
    assert ran == Ran(1, "out/shards: of 3 shards, these are missing: 2; label them with --shard I/3\n", "")


@pytest.mark.parametrize(
    ("folder", "what"),
    [("nowhere", "no such folder"), ("imgs", "not an output folder of tipsseg label: no run.json in it")],
)
def test_a_folder_that_is_none_is_a_problem(command: Command, pictures: Path, folder: str, what: str) -> None:
    ran = command("check", folder)
    assert (ran.code, ran.out) == (1, f"{folder}: {what}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out", "--images", "nowhere"], "Error: --images nowhere: no such folder"),
        (["out", "--jobs", "0"], "Error: --jobs 0 is too small; the minimum is 1"),
    ],
    ids=" ".join,
)
def test_wrong_usage(command: Command, arguments: list[str], message: str) -> None:
    ran = command("check", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(message)
