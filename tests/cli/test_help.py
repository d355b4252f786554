from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import Command
from screen import run_in_terminal

import tipsseg
from tipsseg.ask import verb_of
from tipsseg.cli.main import listed_commands
from tipsseg.formats import FORMATS
from tipsseg.learning.truth import LAYOUTS
from tipsseg.options.fields import GROUPS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["label", "--help"],
        ["eval", "--help"],
        ["check", "--help"],
        ["convert", "--help"],
        ["merge", "--help"],
        ["rank", "--help"],
        ["report", "--help"],
        ["doctor", "--help"],
        ["weights", "--help"],
        ["vocab", "list"],
        ["vocab", "check", "ade20k"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    script = f"""
import sys
from tipsseg.cli.main import main
sys.argv = ["tipsseg", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
heavy = {{"torch", "cv2", "transformers", "huggingface_hub"}}
if sys.argv[1] != "vocab":
    heavy |= {{"numpy", "PIL", "tqdm"}}
if sys.argv[1] == "--help":
    heavy |= {{"tipsseg.options", "tipsseg.formats"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""


LISTED = listed_commands()


@pytest.mark.parametrize("name", LISTED)
def test_every_command_is_listed_whole_and_there(command: Command, name: str) -> None:
    assert f"\n  {name:8} {LISTED[name]}\n" in command("--help").out
    own = command(name, "--help").out
    assert own.startswith(f"Usage: tipsseg {name} ")
    assert "-h, --help" in own
    assert "--install-completion" not in own


COMMANDS = [
    *([name] for name in LISTED if name not in ("vocab", "weights")),
    *(["vocab", name] for name in ("list", "show", "check")),
    *(["weights", name] for name in ("list", "download", "verify", "lock", "path")),
]

# What typer or click show where nothing else is said: names of Python's types, and of click's.
TYPES = re.compile(
    r"<[\w\[\]| ]+>|\b(TEXT|INTEGER|FLOAT|PATH|PARSE|FUNCTION|BOOLEAN|RANGE|PATH_OF|Path|None|str|int|float|list)\b"
)


@pytest.mark.parametrize("name", [[], *COMMANDS, ["vocab"], ["weights"]], ids=" ".join)
def test_help_shows_no_types(command: Command, name: list[str]) -> None:
    shown = command(*name, "-h").out
    assert shown == command(*name, "--help").out
    whole = command(*name, "--help-all")
    assert (whole.code, shown.splitlines()[0]) == (0, whole.out.splitlines()[0])
    usage = shown.partition("Examples:")[0]
    options = [line.strip().split("  ")[0] for line in usage.splitlines() if line.startswith("  -")]
    assert options
    for line in options:
        assert not TYPES.search(line), line
    assert not re.search(r"<\w+", usage), usage


@pytest.mark.parametrize("whole", [False, True], ids=["short", "whole"])
def test_the_options_of_label_stand_in_groups(command: Command, whole: bool) -> None:
    groups: dict[str, set[str]] = {}
    heading = ""
    for line in command("label", "--help-all" if whole else "--help").out.partition("Examples:")[0].splitlines():
        if line and not line.startswith(" "):
            heading = line.removesuffix(":")
        elif option := re.match(r"  (?:-\w, )?(--[\w-]+)", line):
            groups.setdefault(heading, set()).add(option[1].removeprefix("--"))
    wanted: dict[str, set[str]] = {
        "Other options": {"help", "help-all", "jsonl", "quiet", "verbose", *(["null"] if whole else [])}
    }
    for name, declared in verb_of(tipsseg.iter_label_folder).options.items():
        about = declared.about
        if about.role != "library" and not about.argument and (whole or not about.rare):
            wanted.setdefault(about.group, set()).add(about.long(name)[2:])
    assert groups == wanted
    assert [name for name in GROUPS if name in wanted] == list(groups)


def test_the_help_says_what_cannot_be_combined(command: Command) -> None:
    shown = " ".join(command("label", "--help-all").out.split())
    for text in ("Not with --vocab.", "Not with --classes.", "Requires --regions.", "Requires --regions and --refine."):
        assert text in shown


@pytest.mark.parametrize("name", ["label", "encode"])
def test_a_short_help_tells_of_the_whole_one(command: Command, name: str) -> None:
    short, whole = command(name, "--help").out, command(name, "--help-all").out
    assert len(whole.splitlines()) > len(short.splitlines()) + 5
    assert "--help-all" in short
    assert "--max-pixels" not in short
    assert "--max-pixels" in whole


@pytest.mark.parametrize("columns", [60, 80, 132, 200])
def test_help_is_as_wide_as_the_terminal(columns: int) -> None:
    code, data = run_in_terminal([sys.executable, "-m", "tipsseg", "label", "-h"], columns=columns)
    assert code == 0
    lines = data.decode().partition("Examples:")[0].splitlines()
    longest = max(map(len, lines))
    assert columns - 20 < longest <= columns


def answer(environment: dict[str, str]) -> str:
    """What the program says to a shell that asks for completions."""
    script = "import sys; sys.argv = ['tipsseg']; from tipsseg.cli.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert ran.stderr == ""
    return ran.stdout


def completed(words: str) -> list[str]:
    completing = {"_TIPSSEG_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return answer(completing).split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("tipsseg la", ["label"]),
        ("tipsseg label --ref", ["--refine"]),
        ("tipsseg label -m so", ["so400m14"]),
        ("tipsseg label --model ", ["b14", "l14", "so400m14", "g14", "tiny"]),
        ("tipsseg label -f co", ["coco", "coco-polygon", "coco-results", "confidence"]),
        ("tipsseg label -f png,coco,coco-", ["png,coco,coco-polygon", "png,coco,coco-results"]),
        ("tipsseg convert out -f ov", ["overlay"]),
        ("tipsseg label --vocab voc", ["voc20", "voc21"]),
        ("tipsseg vocab show ade", ["ade20k"]),
        ("tipsseg weights verify ti", ["tiny"]),
        ("tipsseg eval --layout ci", ["cityscapes"]),
        ("tipsseg label --mode ", ["slide", "whole"]),
        ("tipsseg label --dtype b", ["bfloat16"]),
        ("tipsseg label --background n", ["none"]),
        ("tipsseg label photos -o ", []),  # the shell's own files
        ("tipsseg photos -c x", []),
    ],
)
def test_a_shell_completes_options_and_their_values(words: str, found: list[str]) -> None:
    assert sorted(completed(words)) == sorted(found)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_plain_text(shell: str) -> None:
    completing = {
        "_TIPSSEG_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "tipsseg label --ra",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    found = answer(completing)
    assert "--ray" in found
    assert "\x1b" not in found


def test_completion_is_installed_as_typer_does(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "tipsseg", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        env={**os.environ, **home},
    )
    assert ran.returncode == 0, ran.stderr
    assert "COMPLETE=complete_bash" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr


def test_help_has_examples_and_all_formats(command: Command) -> None:
    assert 'tipsseg label photos/ --classes "panda/leg,tree"' in command("--help").out
    text = " ".join(command("label", "--help").out.split())
    for part in (
        "find photos -name '*.jpg' | tipsseg label - -c",
        "Exit code: 0 success,",
    ):
        assert part in text
    assert ",".join(FORMATS) in "".join(text.split())  # lines may end at a hyphen


def test_the_help_of_eval_names_every_layout(command: Command) -> None:
    text = "".join(command("eval", "--help").out.split())  # lines may end at a hyphen
    assert f"abenchmark'slayout(filenames,idsandclasses):{','.join(sorted(LAYOUTS))}." in text


def test_version(command: Command) -> None:
    for option in ("--version", "-V"):
        assert command(option).out == f"tipsseg {tipsseg.__version__}\n"
