"""Vocabulary files that are made to take all memory or all time: each is refused within bounds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DEEP = 100_000

# name: (file name, content, what the error says after the path)
HOSTILE: dict[str, tuple[str, Callable[[], str], str]] = {
    "lists in lists": ("a.toml", lambda: "classes = " + "[" * DEEP, ": not TOML: maximum recursion depth exceeded"),
    "tables in tables": ("a.toml", lambda: "classes = [" + "{a=" * DEEP, ": not TOML: maximum recursion depth exceeded"),
    "parts of a key": ("a.toml", lambda: "\n" + ".".join("a" * 50_000) + " = 1", ":2: a key has more than 32 parts"),
    "a long key": ("a.toml", lambda: "a" * 2_000_000 + " = 1", ": unknown key `aaaaaaa"),
    "quotes that are not closed": ("a.toml", lambda: '"a".' * 9 + '"' + '\\"' * 500_000, ": not TOML: "),
    "a long name": (
        "a.toml", lambda: f'classes = ["{"a" * 1_000_000}"]', ": class 1: the name of class 1 has 1000000 characters",
    ),
    "a number": (
        "a.toml", lambda: f'[[classes]]\nname = "a"\nmin_confidence = 0x{"f" * 50_000}',
        ": class 1: the minimum confidence",
    ),
    "classes": (
        "a.toml", lambda: f"classes = [{'7,' * 200_001}]", ": 200001 names and synonyms; the limit is",
    ),
    "lines": ("a.txt", lambda: "a\n" * 200_001, ": 200001 names and synonyms; the limit is 200000"),
    "a long line": ("a.txt", lambda: "a" * 1001, ":1: the name of class 1 has 1001 characters; the limit is 1000: 'aaa"),
    "megabytes": ("a.txt", lambda: "#" * 8_000_001, ": larger than 8 MB, the limit of a vocabulary file"),
}  # fmt: skip

SCRIPT = """
import resource, sys
from tipsseg.errors import VocabularyError
from tipsseg.vocabulary.files import read_vocabulary
resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (60,) * 2)
for path in sys.argv[1:]:
    try:
        read_vocabulary(path)
        print("read")
    except VocabularyError as error:
        print(error.message.removeprefix(path))
"""


def told(*paths: object) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, paths)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-500:]
    return ran.stdout.splitlines()


def test_hostile_files_are_refused_within_bounds(tmp_path: Path) -> None:
    paths = []
    for number, (name, content, _) in enumerate(HOSTILE.values()):
        paths.append(tmp_path / f"{number}{name}")
        paths[-1].write_text(content())
    messages = told(*paths)
    assert len(messages) == len(HOSTILE)
    for case, message in zip(HOSTILE, messages, strict=True):
        assert message.startswith(HOSTILE[case][2]), case
        assert len(message) < 250, case


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no such device")
def test_a_file_without_end_is_refused() -> None:
    assert told("/dev/zero") == [": larger than 8 MB, the limit of a vocabulary file"]


def test_a_pipe_is_read(tmp_path: Path) -> None:
    """As a shell makes of --vocab <(command)."""
    line = f"'{sys.executable}' -m tipsseg vocab check <(echo tree)"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert ran.stdout.endswith("    1  tree\n"), ran.stderr
