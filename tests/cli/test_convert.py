"""`tipsseg convert` from the command line: what was labelled in few formats becomes what labelling in more writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from output_folders import tree
from resuming import CLASSES, contents
from running import Command, Ran

from tipsseg.formats import IMAGE_FORMATS

MORE = [name for name in IMAGE_FORMATS if name not in ("png", "coco", "npz", "confidence")]


@pytest.fixture
def label(command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path) -> Command:
    def run(*arguments: object, stdin: bytes | None = None, cwd: Path | None = None) -> Ran:
        ran = command("label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "--device", "cpu", *arguments)
        assert ran.code == 0, ran.err
        return ran

    return run


def test_converted_labels_are_those_of_one_run(command: Command, label: Command, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    label("-o", out, "--min-confidence", "0.3", "--min-area", "0.1%")
    label("-o", whole, "--min-confidence", "0.3", "--min-area", "0.1%", "-f", ",".join(["png", "coco", *MORE]))
    ran = command("convert", out, "--format", ",".join(MORE))
    assert ran.code == 0, ran.err
    assert sorted(ran.out.splitlines()) == sorted(
        str(path)
        for path in out.rglob("*")
        if path.is_file() and not path.is_symlink() and path.relative_to(out).parts[0] not in BEFORE
    )
    same = {name: data for name, data in contents(out).items() if name != "manifest.jsonl"}
    assert same == {name: data for name, data in contents(whole).items() if name != "manifest.jsonl"}
    assert command("check", out).code == 0

    # The run goes on from it, in all formats.
    before = tree(out)
    assert "3 unchanged" in label("-o", out, "--min-confidence", "0.3", "--min-area", "0.1%", "-f", ",".join(MORE)).err
    assert {**tree(out), "run.json": b""} == {**before, "run.json": b""}


BEFORE = {".tipsseg", "masks", "annotations.json", "classes.json", "run.json", "manifest.jsonl"}


def test_a_failure_is_told_and_the_others_are_done(
    command: Command, label: Command, pictures: Path, tmp_path: Path
) -> None:
    label("-o", tmp_path / "out", "-f", "png,coco")
    (pictures / "a.png").unlink()
    ran = command("convert", tmp_path / "out", "-f", "overlay", "-q")
    assert ran.code == 1
    hint = "Set the folder of the images with --images, or leave out overlay."
    assert ran.err == f"Error: {pictures}/a.png: no such file ({hint})\n"
    assert len(ran.out.splitlines()) == 2
    assert command("check", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["out"], 2, "Missing option '--format'"),
        (["-f", "yolo"], 2, "Missing argument 'OUT'"),
        (
            ["nowhere", "-f", "yolo"],
            1,
            "Error: nowhere: no such folder\nHint: Pass an output folder of tipsseg label.\n",
        ),
        ([".", "-f", "yolo"], 1, "Error: .: no run.json in it"),
        (["out", "-f", "yolo", "--jobs", "0"], 2, "Error: --jobs 0 is too small"),
    ],
)
def test_wrong_usage(process: Command, tmp_path: Path, arguments: list[str], code: int, part: str) -> None:
    ran = process("convert", *arguments, cwd=tmp_path)
    assert (ran.code, ran.out) == (code, "")
    assert part in ran.err
    assert list(tmp_path.iterdir()) == []
