from __future__ import annotations

import os
import subprocess
import sys

import pytest
from running import Command

import tipsseg
from tipsseg.cli import _COMMANDS
from tipsseg.truth import LAYOUTS
from tipsseg.writers import FORMATS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["label", "--help"],
        ["eval", "--help"],
        ["check", "--help"],
        ["convert", "--help"],
        ["merge", "--help"],
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
from tipsseg.cli import main
sys.argv = ["tipsseg", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
heavy = {{"torch", "cv2", "transformers", "huggingface_hub"}}
if sys.argv[1] != "vocab":
    heavy |= {{"numpy", "PIL", "tqdm"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_is_listed_whole_and_there(command: Command, name: str) -> None:
    assert f"\n  {name:8} {_COMMANDS[name]}\n" in command("--help").out
    own = command(name, "--help").out
    assert own.startswith(f"Usage: tipsseg {name} ")
    assert "-h, --help" in own
    assert "--install-completion" not in own


def test_a_command_that_is_none_gets_a_suggestion(command: Command) -> None:
    ran = command("lable", "imgs")
    assert ran.code == 2
    assert "Did you mean 'label'?" in ran.err


def test_options_of_a_command_are_completed() -> None:
    completing = {"_TIPSSEG_COMPLETE": "complete_bash", "COMP_WORDS": "tipsseg label --ref", "COMP_CWORD": "2"}
    script = "import sys; sys.argv = ['tipsseg']; from tipsseg.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **completing}
    )
    assert ran.stdout.split() == ["--refine"]


def test_help_has_examples_and_all_formats(command: Command) -> None:
    assert 'tipsseg label photos/ --classes "panda leg,tree"' in command("--help").out
    text = " ".join(command("label", "--help").out.split())
    for part in (
        "find photos -name '*.jpg' -print0 | tipsseg label -0 -",
        "Exit code: 0 all done",
    ):
        assert part in text
    assert ",".join(FORMATS) in "".join(text.split())  # lines may end at a hyphen


def test_the_help_of_eval_names_every_layout(command: Command) -> None:
    text = "".join(command("eval", "--help").out.split())  # lines may end at a hyphen
    assert f"anditsclasses:{','.join(sorted(LAYOUTS))}." in text


def test_version(command: Command) -> None:
    assert command("--version").out == f"tipsseg {tipsseg.__version__}\n"


def test_importing_the_package_is_light_and_lists_its_names() -> None:
    script = """
import sys, tipsseg
assert not {"torch", "cv2", "PIL"} & set(sys.modules), set(sys.modules)
assert set(tipsseg.__all__) == set(dir(tipsseg))
for name in tipsseg.__all__:
    getattr(tipsseg, name)
try:
    tipsseg.nothing
except AttributeError as error:
    assert str(error) == "module 'tipsseg' has no attribute 'nothing'"
else:
    raise SystemExit("no error")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
