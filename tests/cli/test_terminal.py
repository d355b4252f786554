"""What reaches a terminal: no name steers it, and paths and the bar never share a line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from running import Command, Ran
from screen import run_in_terminal, seen

from tipsseg.cli.main import print_error
from tipsseg.errors import ImageError, TipssegError
from tipsseg.say import Progress

HOSTILE = "a\x1b[2J\x9b31m\u202e\nError: forged"
SPELLED = "a\\u001b[2J\\u009b31m\\u202e\\nError: forged"
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")


def harmless(text: str) -> bool:
    return not STEERING.search(text) and "\nError: forged" not in text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlp_checkpoint: Path) -> str:
    """A folder with a hostile name, of pictures with hostile names."""
    monkeypatch.chdir(tmp_path)
    folder = Path(HOSTILE)
    folder.mkdir()
    for name in ("a", "b"):
        Image.effect_noise((60, 60), 90).save(folder / f"{HOSTILE}{name}.png")
    (folder / f"{HOSTILE}z.png").write_bytes(b"")
    return str(folder)


def label(command: Command, folder: str, model: Path, *more: str) -> Ran:
    return command("label", folder, "-c", "tree,sky", "-m", model, "-o", f"{HOSTILE}/out", *more)


def test_names_of_files_are_spelled_out_for_people_and_are_bytes_on_stdout(
    command: Command, folder: str, mlp_checkpoint: Path
) -> None:
    ran = label(command, folder, mlp_checkpoint)
    assert ran.code == 1
    assert harmless(ran.err), ran.err
    assert (
        f"Error: {SPELLED}/{SPELLED}z.png: empty file (0 bytes) (Download the image again, or remove the file.)"
        in ran.err.splitlines()
    )
    assert f"{HOSTILE}/out/masks/{HOSTILE}a.png\n" in ran.out
    again = label(command, folder, mlp_checkpoint, "--mode", "whole")
    assert again.code == 1
    assert harmless(again.err), again.err

    listed = label(command, folder, mlp_checkpoint, "--jsonl", "-q")
    assert harmless(listed.out)
    assert [json.loads(line)["image"] for line in listed.out.splitlines()] == [f"{HOSTILE}{name}.png" for name in "ab"]
    assert harmless(label(command, folder, mlp_checkpoint, "--dry-run").err)


def test_results_can_end_with_nul(command: Command, folder: str, mlp_checkpoint: Path) -> None:
    masks = [f"{HOSTILE}/out/masks/{HOSTILE}{name}.png" for name in "ab"]
    files = [f"{HOSTILE}/out/{name}" for name in ("annotations.json", "classes.json")]
    assert label(command, folder, mlp_checkpoint, "-0", "--dry-run").out.split("\0") == [
        *(f"{folder}/{HOSTILE}{name}.png" for name in "abz"),
        "",
    ]
    assert label(command, folder, mlp_checkpoint, "-0", "-f", "png,coco").out.split("\0") == [*masks, *files, ""]
    listed = "".join(f"{folder}/{HOSTILE}{name}.png\0" for name in "ab").encode()
    ran = command("label", "-", "-0", "-c", "tree", "-m", mlp_checkpoint, "-o", "l", "-f", "png", stdin=listed)
    assert ran.out.split("\0") == [*(f"l/masks/{folder}/{HOSTILE}{name}.png" for name in "ab"), "l/classes.json", ""]
    yolo = command("convert", f"{HOSTILE}/out", "-f", "yolo", "-0").out.split("\0")
    assert [path for path in yolo if path.endswith(f"{HOSTILE}a.txt")]
    assert "\n" not in "".join(yolo).replace(HOSTILE, "")
    merged = command("merge", f"{HOSTILE}/out", "-o", "all", "-0").out
    assert merged.split("\0") == ["all/annotations.json", "all/yolo/data.yaml", "all/classes.json", ""]


def test_other_commands_spell_out_too(command: Command, folder: str, mlp_checkpoint: Path) -> None:
    label(command, folder, mlp_checkpoint)
    output = Path(HOSTILE, "out")
    (output / "masks" / f"{HOSTILE}a.png").write_bytes(b"")
    for arguments in (
        ["check", output],
        ["convert", output, "-f", "overlay,labelme"],
        ["convert", output, "-f", "hf", "--images", f"gone{HOSTILE}"],
        ["merge", output, "-o", f"{HOSTILE}2"],
        ["merge", f"gone{HOSTILE}", "-o", "all"],
        ["eval", output, "--gt", folder],
        ["eval", output, "--gt", f"gone{HOSTILE}"],
        ["label", folder, "-c", "tree", "-m", mlp_checkpoint, "-o", output],
        ["label", f"gone{HOSTILE}", "-c", "tree", "-m", mlp_checkpoint],
        ["label", folder, "-c", "tree", "-m", f"gone{HOSTILE}"],
        ["label", folder, "--vocab", f"gone{HOSTILE}"],
        ["vocab", "show", "voc20", "--templates", f"gone{HOSTILE}"],
        ["label", folder, "-c", "tree", "-f", HOSTILE],
        ["label", folder, "-c", "tree", "--from", f"gone{HOSTILE}"],
        ["label", folder, "-c", "tree", f"--{HOSTILE}"],
        ["label", folder, "-c", "tree", "--shard", HOSTILE],
        ["label", folder, "-c", "tree", "--device", HOSTILE],
        ["vocab", "check", f"gone{HOSTILE}"],
        ["weights", "path", HOSTILE],
        [f"gone{HOSTILE}"],
    ):
        ran = command(*arguments)
        shown = ran.err + (ran.out if arguments[0] in ("check", "eval", "vocab") else "")
        assert harmless(shown), (arguments, shown)
        assert ran.code or arguments[0] == "merge", arguments
        assert "forged" in shown or arguments[0] == "merge", arguments


def test_a_hint_with_a_command_can_be_pasted(command: Command, folder: str, mlp_checkpoint: Path) -> None:
    ran = label(command, folder, mlp_checkpoint)
    assert harmless(ran.err)
    ran = label(command, folder, mlp_checkpoint, "-c", "another class")
    quoted = "$'a\\033[2J\\302\\23331m\\342\\200\\256\\012Error: forged/out"
    assert ran.err.splitlines()[-1].endswith(f" -o {quoted}' --overwrite")
    assert ran.err.splitlines()[-2].endswith(f" -o {quoted}-2'")


def test_errors_and_hints_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(TipssegError("no file\nError: forged", "See \x1b[2J\nHint: forged."))
    assert capsys.readouterr().err == "Error: no file\\nError: forged\nHint: See \\u001b[2J\\nHint: forged.\n"


def test_a_long_message_keeps_its_beginning_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    error = ImageError(Path("a" * 200_000), "no such file")
    print_error(error)
    Progress(quiet=True).error(error)
    for line in capsys.readouterr().err.splitlines():
        assert len(line) < 6000
        assert line.startswith("Error: aaa")
        assert line.endswith("aaa: no such file")


# ---- in a pseudo-terminal ----

SCRIPT = """
from pathlib import Path
from tipsseg.errors import ImageError
from tipsseg.say import Progress
with Progress(False) as progress:
    progress.begin("joining", 3, what="3 images with tiny")
    progress.results([Path("out/a.png"), Path("out/a.json")])
    progress.advance()
    progress.error(ImageError(Path("b.png"), "truncated"))
    progress.advance()
    progress.text("{}\\n")
    progress.advance()
    progress.say("a note")
    progress.path(Path("out/c.png"))
    progress.end()
    progress.say("3 images labelled")
"""


@pytest.mark.parametrize(
    ("verbose", "has_bar", "has_notes"), [(None, True, False), (True, True, True), (False, False, False)]
)
def test_a_function_shows_a_bar_alone_unless_told(
    tmp_path: Path, mlp_checkpoint: Path, verbose: bool | None, has_bar: bool, has_notes: bool
) -> None:
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    more = f"model={str(mlp_checkpoint)!r}, device='cpu', formats='png', verbose={verbose}"
    line = f"import tipsseg; tipsseg.label_folder('a.png', ['tree'], {more})"
    code, data = run_in_terminal([sys.executable, "-c", line], tmp_path)
    assert (code, b"/1 [" in data, b"1 image labelled" in data) == (0, has_bar, has_notes)
    done = subprocess.run([sys.executable, "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, bool(done.stderr)) == (0, "", has_notes)  # not a terminal


def test_the_bar_shares_no_line() -> None:
    code, data = run_in_terminal([sys.executable, "-c", SCRIPT])
    assert code == 0, data
    assert b"| 0/3 [" in data  # there was a bar
    assert b"| 3/3 [" in data
    assert seen(data) == [
        "Joining 3 images with tiny.",
        "out/a.png",
        "out/a.json",
        "Error: b.png: truncated",
        "{}",
        "a note",
        "out/c.png",
        "3 images labelled",
    ]
    # The bar is taken away before a line comes, not after: nothing but blanks is on the terminal's line by then.
    for line in (b"out/a.png", b"out/a.json", b"Error: b.png", b"{}", b"a note", b"out/c.png"):
        before = data[: data.index(line)].rsplit(b"\n", 1)[1]
        assert before.endswith(b"\r")
        assert not seen(before)


def test_paths_do_not_steer_a_terminal(command: Command, folder: str, mlp_checkpoint: Path) -> None:
    assert label(command, folder, mlp_checkpoint).code == 1
    code, data = run_in_terminal([sys.executable, "-m", "tipsseg", "rank", f"{HOSTILE}/out"])
    assert code == 0
    assert harmless(data.decode().replace("\r\n", "\n")), data
    assert len(data.splitlines()) == 2


def test_a_run_in_a_terminal(pictures: Path, mlp_checkpoint: Path, tmp_path: Path) -> None:
    (pictures / "z.png").write_bytes(b"")
    command = [sys.executable, "-m", "tipsseg", "label", "imgs", "-c", "tree,sky", "-m", str(mlp_checkpoint)]
    code, data = run_in_terminal(command, tmp_path)
    assert code == 1
    assert b"image/s]" in data
    others = ("labels/", "Skipped ", "Found in", "Never found")
    notes = [line for line in seen(data) if not line.startswith(others)]
    assert [re.sub(r"(with|in) \S+ (on|s,)", r"\1 \2", line) for line in notes] == [
        "Labelling 4 images with on cpu (float32): tree, sky.",
        "Error: imgs/z.png: empty file (0 bytes) (Download the image again, or remove the file.)",
        "3 images labelled, 1 failed in s, into labels; see labels/overlays/sub/b c.jpg",
        "1 of 4 images failed: see labels/errors.jsonl.",
    ]
    assert seen(data)[-1] == notes[-1]
    assert data.endswith(b": see labels/errors.jsonl.\r\n")  # the bar is gone by then
    assert not [line for line in seen(data) if line.startswith("labels/")]
