"""`tipsseg merge` from the command line: shards that were labelled become what one run writes, which `label` goes on from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from running import Command, Ran

CLASSES = "panda leg,tree,sky"


def files(folder: Path) -> dict[str, bytes]:
    """All files below an output folder but run.json, and manifest.jsonl without the times that labelling took, and of files."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lines = [json.loads(line) for line in found["manifest.jsonl"].splitlines()]
    for line in lines:
        for file in line["written"].values():
            del file["mtime_ns"]
    timeless = json.dumps([{key: value for key, value in line.items() if key != "seconds"} for line in lines])
    return {**found, "manifest.jsonl": timeless.encode(), "run.json": b""}


class Label:
    """`tipsseg label` of the pictures with a small model."""

    def __init__(self, command: Command, model: Path, pictures: Path) -> None:
        self._command = command
        self._arguments = [pictures, "-c", CLASSES, "-m", model, "--device", "cpu", "-f", "png,coco,overlay"]

    def __call__(self, output: Path, *more: str, code: int = 0) -> Ran:
        ran = self._command("label", *self._arguments, "-o", output, *more)
        assert ran.code == code, ran.err
        return ran


@pytest.fixture
def label(command: Command, mlp_checkpoint: Path, pictures: Path) -> Label:
    return Label(command, mlp_checkpoint, pictures)


@pytest.mark.parametrize(
    ("places", "target"),
    [(["out", "out", "out"], "out"), (["c", "a", "b"], "new"), (["b", "b", "a"], "new")],
    ids=["in place", "into a new folder", "of two folders"],
)
def test_joined_shards_are_what_one_run_writes(
    command: Command, label: Label, tmp_path: Path, places: Sequence[str], target: str
) -> None:
    label(tmp_path / "whole")
    for index, place in enumerate(places, start=1):
        label(tmp_path / place, "--shard", f"{index}/{len(places)}")
    folders = sorted(tmp_path / place for place in set(places))
    out = tmp_path / target
    ran = command("merge", *folders, "-o", out)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [f"{out}/annotations.json", f"{out}/classes.json"]
    assert ran.err.splitlines() == ["3 images of 3 shards to be joined.", f"3 images of 3 shards joined, into {out}"]
    assert files(out) == files(tmp_path / "whole")

    before = files(out), (out / "run.json").read_bytes()
    assert "3 unchanged" in label(out).err
    assert (files(out), (out / "run.json").read_bytes()) == before
    assert "Nothing to join" in command("merge", out, "-o", out).err


def test_a_bad_image_stays_a_failure_and_can_be_mended(
    command: Command, label: Label, pictures: Path, tmp_path: Path
) -> None:
    good = (pictures / "a.png").read_bytes()
    (pictures / "a.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert sorted(label(out, "--shard", f"{index}/2", code=code).code for index, code in _codes(out)) == [0, 1]
    ran = command("merge", out, "-o", out)
    assert ran.code == 0, ran.err
    assert f"1 image failed, see {out}/errors.jsonl" in ran.err
    (pictures / "a.png").write_bytes(good)
    assert "1 image labelled, 2 unchanged" in label(out).err
    label(tmp_path / "whole")
    assert files(out) == files(tmp_path / "whole")


def _codes(out: Path) -> list[tuple[int, int]]:
    """The two shards, with the exit code of each: which one has a.png is decided by its name."""
    from tipsseg.store.shards import Shard

    return [(index, int(Shard(index, 2).takes("a.png"))) for index in (1, 2)]


@pytest.mark.parametrize(
    ("step", "places", "target", "finish", "shard_is_refused"),
    [
        ("folders._refuse_changed", ["out", "out"], "out", "tipsseg merge {root}/out -o {root}/out", True),
        ("folders._refuse_changed", ["a", "b"], "new", "tipsseg merge {root}/new -o {root}/new", True),
        ("records.write_run", ["a", "b"], "new", "tipsseg merge {root}/a {root}/b -o {root}/new", True),
        ("records.write_run", ["out", "out"], "out", "tipsseg merge {root}/out -o {root}/out", False),
    ],
)
def test_every_command_names_a_merge_that_was_stopped(
    command: Command,
    label: Label,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    step: str,
    places: Sequence[str],
    target: str,
    finish: str,
    shard_is_refused: bool,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for index, place in enumerate(places, start=1):
        label(tmp_path / place, "--shard", f"{index}/2")
    arguments = ["merge", *(tmp_path / place for place in sorted(set(places))), "-o", tmp_path / target]
    with monkeypatch.context() as patch:
        patch.setattr(f"tipsseg.runs.merge.{step}", interrupt)
        ran = command(*arguments)
    assert (ran.code, ran.err.splitlines()[-1]) == (130, "Interrupted: the same command goes on from there.")

    out, again = tmp_path / target, finish.format(root=tmp_path)
    unfinished = f"{out}: a merge into it has not ended"
    ran = command("check", out)
    assert (ran.code, ran.out.splitlines()[0]) == (1, f"{unfinished}; finish it: {again}")
    (out / ".tipsseg-lock").touch()  # as after a kill: whoever comes then removes what was left
    if shard_is_refused:
        for more in ([], ["--shard", "1/2"], ["--dry-run"]):
            err = label(out, *more, code=1).err.splitlines()
            assert err[-2:] == [
                f"Error: cannot write {unfinished}",
                f"Hint: Choose another output folder with -o, or finish it first: {again}",
            ]
        ran = command("convert", out, "-f", "yolo")
        assert ran.err.splitlines() == [f"Error: {unfinished}", f"Hint: Finish it first: {again}"]
    else:
        assert "unchanged" in label(out, "--shard", "1/2").err  # it can be mended
    assert command(*again.split()[1:]).code == 0
    assert command("check", out).code == 0
    label(tmp_path / "whole")
    assert files(out) == files(tmp_path / "whole")
    assert "Nothing to join" in command(*arguments).err


def test_runs_of_two_folders_are_joined(command: Command, label: Label, tmp_path: Path) -> None:
    label(tmp_path / "one", "--limit", "1")
    label(tmp_path / "two", "--shard", "1/1")
    ran = command("merge", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "new")
    assert ran.code == 1
    one, two = tmp_path / "one", tmp_path / "two/shards/1-of-1"
    assert ran.err.splitlines()[0] == f"Error: a.png is in {one} and in {two}"
    assert ran.err.splitlines()[1].startswith("Hint: ")
    assert ran.out == ""
    assert not (tmp_path / "new").exists()


def test_quiet_says_nothing_but_the_files(command: Command, label: Label, tmp_path: Path) -> None:
    out = tmp_path / "out"
    label(out, "--shard", "1/1")
    ran = command("merge", "-q", out, "-o", out)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [f"{out}/annotations.json", f"{out}/classes.json"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["a"], "Missing option '--output'"),
        (["-o", "b"], "Missing argument"),
        (["a", "a", "-o", "b"], "a is named twice"),
    ],
)
def test_wrong_usage(process: Command, tmp_path: Path, arguments: list[str], part: str) -> None:
    (tmp_path / "a").mkdir()
    ran = process("merge", *arguments, cwd=tmp_path)
    assert ran.code == 2
    assert part in ran.err
    assert not (tmp_path / "b").exists()


def test_torch_is_not_imported(label: Label, tmp_path: Path) -> None:
    out = tmp_path / "out"
    label(out, "--shard", "1/1")
    script = f"""
import sys
from tipsseg.cli.main import main
sys.argv = ["tipsseg", "merge", {str(out)!r}, "-o", {str(out)!r}]
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
assert "torch" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_shards_at_work_at_once_in_one_folder(
    command: Command, label: Label, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    for number in range(20):
        shutil.copy(pictures / "a.png", pictures / f"{number:02}.png")
    words = [
        "label",
        str(pictures),
        "-c",
        CLASSES,
        "-m",
        str(mlp_checkpoint),
        "--device",
        "cpu",
        "-f",
        "png,coco,overlay",
    ]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "tipsseg", *words, "-o", str(tmp_path / "out"), "--shard", f"{index}/3", "-q"],
            stdout=subprocess.DEVNULL,
        )
        for index in (1, 2, 3)
    ]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert command("check", tmp_path / "out").code == 0
    assert command("merge", tmp_path / "out", "-o", tmp_path / "out").code == 0
    label(tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert command("check", tmp_path / "out").code == 0
