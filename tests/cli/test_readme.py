"""The README and the pages beside the examples, as a newcomer takes them: block by block, one page after the other, in one clone.

The language of a block says what it is:

    sh              commands: they are run by bash, as they stand, and must end with 0
    sh and a reason commands that a test cannot run: these are read only, see `test_blocks_that_are_not_run_are_valid_code`
    python          a program of its own, run as well
    console         what the block before it prints, on stdout and stderr; a line of three dots stands for any number of lines;
                    seconds and sizes of files may be others, and scores may be others by a little
    console and a number  the same, and scores may be others by so much
    toml, json, text, bibtex    neither
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Command

from tipsseg.formats import DATASET_FORMATS, FORMATS

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
EXAMPLES = REPOSITORY / "examples" / "README.md"

#: In the order in which the README names them.
PAGES = (
    README,
    EXAMPLES,
    *(
        REPOSITORY / page
        for page in re.findall(r"\((examples/[\w-]+/README\.md)\)", README.read_text("utf-8").partition("## More")[2])
        if "pretrain" not in page
    ),
)

CLUSTER_SCRIPTS = tuple(
    each for each in sorted((REPOSITORY / "examples" / "cluster").iterdir()) if each.suffix != ".md"
)

RUN = ("sh", "python")
SHOWN = ("toml", "json", "yaml", "text", "bibtex")

#: Commands that are not run here, as they change the installation. `.ci/run` does both in an environment of its own.
INSTALLATIONS = {"pip install .", "pip install --quiet '.[test]' && pytest -n auto --dist worksteal"}

#: Options of other programs.
FOREIGN = ("--array", "--cpus-per-task", "--dependency", "--dist", "--gres", "--parsable", "--quiet", "--requeue",
           "--auth", "--ignore-existing", "--checkpoint", "--num-jobs", "--pool", "--conf-threshold", "--convert-to-rle", "--input",
           "--model-type", "--conv-mask-to-poly", "--function-module", "--server-host", "--rm", "--user", "--build-arg",
           "--index-url", "--gpus", "--network")  # fmt: skip

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: Folders and files that a page writes and reads back.
_FOLDER = re.compile(r"(?:(?:-o|--output|--features|tipsseg eval|mkdir -p) |(?:output|features)=\")([\w./-]+)")

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

#: What another machine prints otherwise: times, and sizes of files and disks.
_VARYING = re.compile(r"\b\d[\d.,]* ?(s|min|ms|MB|GB|kB)\b")


#: Scores, which may differ by a little from processor to processor: percents by so much.
_DECIMAL = re.compile(r"(?<![\w.])(\d+\.\d+)(?![\w.])")
_CLOSE = "0.3"

#: What a run says now and then where it takes longer than here.
_PROGRESS = re.compile(r"^\d+ of \d+ images, \S+ images/s(, .* left)?\n", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, why it is not run or how far scores may differ, the text, and the line that it begins at."""

    language: str
    reason: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        language, _, reason = found[1].partition(" ")
        yield Block(language, reason, found[2], text.count("\n", 0, found.start()) + 1)


def commands(block: Block) -> Iterator[str]:
    """The lines of a block of commands, those that go on put together, and without comments."""
    for line in block.text.replace("\\\n", "").splitlines():
        command = re.sub(r"(^|\s)#\s.*", "", line).strip()
        if command:
            yield command


def is_printed(expected: str, printed: str, close: str = _CLOSE) -> bool:
    """Whether a block of output is what was printed."""
    found = re.fullmatch("".join(map(_pattern, expected.splitlines())), _without_varying(_PROGRESS.sub("", printed)))
    numbers = _DECIMAL.findall(_without_varying(expected))
    return found is not None and all(
        abs(float(one) - float(other)) <= float(close) for one, other in zip(numbers, found.groups(), strict=True)
    )


def _pattern(line: str) -> str:
    if line == "...":
        return r"(?:.*\n)*"
    parts = _DECIMAL.split(_without_varying(line))
    return r"(\d+\.\d+)".join(re.escape(part) for part in parts[::2]) + r"\n"


def _without_varying(text: str) -> str:
    return _VARYING.sub(r"N \1", text)


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY).parent)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """This Python and this tipsseg, whatever else is installed, on a machine without a GPU.

    Threads of torch sleep while they wait: on cores that are busy with something else that takes a quarter of the time.
    """
    programs = tmp_path / "programs"
    programs.mkdir()
    for program, arguments in (("tipsseg", "-W error -m tipsseg"), ("python", "")):
        (programs / program).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (programs / program).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONIOENCODING": "utf-8",
        "LC_ALL": "C.UTF-8",
    }


def is_run(block: Block) -> bool:
    return block.language in RUN and not block.reason and block.text.strip() not in INSTALLATIONS


def faults(page: Path, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run the blocks of a page in a folder; tell which fail, or print something else than the page says."""
    printed = ""
    for block in blocks(page):
        if is_run(block):
            runner = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else ["python", "-c"]
            done = subprocess.run(
                [*runner, block.text],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=600,
            )
            printed = done.stdout.decode()
            if done.returncode:
                yield f"{name(page)}, line {block.line}:\n{block.text}\nended with {done.returncode}:\n{printed}"
        elif block.language == "console" and not is_printed(block.text, printed, block.reason or _CLOSE):
            yield f"{name(page)}, line {block.line}:\n{block.text}\nbut it printed\n{printed}"


@pytest.mark.slow
def test_every_block_does_what_its_page_says(tmp_path: Path, environment: dict[str, str]) -> None:
    """A reader of all pages has one clone, and finds there what the earlier pages left."""
    folder = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "examples", folder / "examples", ignore=shutil.ignore_patterns("pretrain"))
    found = [fault for page in PAGES for fault in faults(page, folder, environment)]
    assert not found, "\n\n".join(found)


def test_the_pages_are_all_that_there_are() -> None:
    assert set(PAGES) == {README, *REPOSITORY.glob("examples/**/README.md")} - {
        REPOSITORY / "examples/pretrain/README.md"
    }


def test_no_page_works_in_a_folder_of_another() -> None:
    """A page must work by itself, without labels of another page."""
    folders = {
        page: {each for block in blocks(page) if is_run(block) for each in _FOLDER.findall(block.text)}
        for page in PAGES
    }
    assert {"out/lake", "out/trees", "out/feats"} <= folders[README]
    for page, other in combinations(PAGES, 2):
        assert not folders[page] & folders[other], f"{name(page)} and {name(other)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_marked(page: Path) -> None:
    found = list(blocks(page))
    assert {block.language for block in found} <= {*RUN, *SHOWN, "console"}
    assert page.read_text("utf-8").count("\n```") == 2 * len(found)
    for before, after in pairwise(found):
        assert after.language != "console" or before.language in RUN, after
    assert not re.search(r"\n\n    \S", page.read_text("utf-8")), "a block without a language"


def test_blocks_that_are_not_run_are_valid_code() -> None:
    """They parse as shell or Python, and give the reason."""
    found = [block for page in PAGES for block in blocks(page) if block.reason and block.language != "console"]
    for block in found:
        assert block.reason.startswith("needs "), block
        if block.language == "python":
            compile(block.text, "page", "exec")
        else:
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
    assert {block.language for block in found} == {"sh", "python"}


@pytest.mark.slow
def test_the_script_for_slurm_labels_shards(tmp_path: Path, environment: dict[str, str]) -> None:
    """As the tasks of an array that Slurm starts, one after the other."""
    cluster = REPOSITORY / "examples" / "cluster"
    street, names = (
        REPOSITORY / "examples" / "scenes" / "street",
        REPOSITORY / "examples" / "vocabularies" / "street.txt",
    )
    for task in ("1", "2"):
        array = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2"}
        label = ["bash", *map(str, (cluster / "label.slurm", street, names, tmp_path / "out")), "--model", "tiny"]
        subprocess.run(label, env={**environment, **array}, check=True, timeout=600)
    assert (tmp_path / "out" / "annotations.json").exists(), "the last task settles the folder"
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == len(list(street.glob("*.*")))


def test_options_that_pages_name_exist(command: Command) -> None:
    known: set[str] = set(FOREIGN)
    for name in (
        "",
        "label",
        "encode",
        "convert",
        "correct",
        "check",
        "merge",
        "eval",
        "fit",
        "rank",
        "audit",
        "report",
        "serve",
    ):
        words = name.split()
        shown = command(*words, "--help").out
        known |= set(_OPTION.findall(command(*words, "--help-all").out if "--help-all" in shown else shown))
    for page in (*PAGES, *CLUSTER_SCRIPTS):
        assert set(_OPTION.findall(page.read_text("utf-8"))) <= known, page


def test_the_readme_names_every_format() -> None:
    text = README.read_text("utf-8")
    every = [*FORMATS, *DATASET_FORMATS]
    assert f"Writes {len(every)} formats" in text
    listed = text.partition("`--format` takes any of")[2].partition("\n\n")[0].replace("`convert --to`", "")
    assert re.findall(r"`([\w-]+)`", listed) == every


def test_the_picture_is_the_output_of_the_command_beside_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    line = next(each for block in blocks(README) for each in commands(block) if each.startswith("tipsseg label"))
    words = shlex.split(line)[1:]
    words[words.index("-o") + 1] = str(tmp_path)
    assert command(*words).code == 0
    made, shown = (
        np.asarray(Image.open(path))
        for path in (tmp_path / "overlays" / "meadow" / "panda-and-tree.jpg", REPOSITORY / "examples" / "overlay.jpg")
    )
    assert made.shape == shown.shape
    assert (made != shown).any(-1).mean() <= 0.005  # scores differ by processor


def test_the_readme_can_be_read_at_one_sitting() -> None:
    text = README.read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= 180
    assert len(text.split()) <= 1200
    assert [line for line in lines if len(line) > 130 and not line.startswith("|")] == []


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\n", "b\n", False),
        ("a\n", "a\nb\n", False),
        ("...\nb\n", "a\nb\n", True),
        ("a\n...\nc\n", "a\nb\n", False),
        ("done in 2.2 s, into out\n", "done in 13 s, into out\n", True),
        ("a\nb\n", "a\n8 of 12 images, 0.3 images/s, about 0:16 left\nb\n", True),
        ("mean IoU  76.70   over 26\n", "mean IoU  76.82   over 26\n", True),
        ("mean IoU  76.70   over 26\n", "mean IoU  77.70   over 26\n", False),
    ],
)
def test_output_is_compared(expected: str, printed: str, same: bool) -> None:
    assert is_printed(expected, printed) == same
