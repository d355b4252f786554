"""Which names are one to a file system, and which images would share an output."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from tipsseg.folder.names import (
    NameKey,
    OutputNames,
    exact,
    name_key,
    without_case,
    without_case_and_form,
    without_form,
)
from tipsseg.formats import IMAGE_FORMATS
from tipsseg.types import ImageRef
from tipsseg.util.files import TEMPORARY_PREFIX

NFC, NFD = "caf\u00e9", "cafe\u0301"

KEYS: dict[str, NameKey] = {
    "exact": exact,
    "case": without_case,
    "form": without_form,
    "case and form": without_case_and_form,
}
# name -> two names, and for which of KEYS they are one
NAMES: dict[str, tuple[str, str, list[str]]] = {
    "the same": ("s/a", "s/a", ["exact", "case", "form", "case and form"]),
    "upper and lower case": ("s/A", "s/a", ["case", "case and form"]),
    "case of a folder": ("S/a", "s/a", ["case", "case and form"]),
    "normal forms": (NFC, NFD, ["form", "case and form"]),
    "both": (NFC.upper(), NFD, ["case and form"]),
    "a letter whose upper case is two": ("stra\u00dfe", "STRASSE", ["case", "case and form"]),
    "another letter": ("a", "b", []),
    "another accent": ("e\u0301", "e\u0300", []),
    "without an accent": ("e\u0301", "e", []),
}


@pytest.mark.parametrize("name", NAMES)
def test_which_names_are_one(name: str) -> None:
    one, other, expected = NAMES[name]
    assert [kind for kind, key in KEYS.items() if key(one) == key(other)] == expected


def pretend(monkeypatch: pytest.MonkeyPatch, fold: Callable[[str], str]) -> None:
    """Let files be found by all names that `fold` makes one."""

    def exists(path: Path) -> bool:
        return fold(path.name) in map(fold, os.listdir(path.parent))  # noqa: PTH208

    monkeypatch.setattr(Path, "exists", exists)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the file system there has its own rules")
@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        (str, exact),
        (str.lower, without_case),
        (lambda name: unicodedata.normalize("NFC", name), without_form),
        (lambda name: unicodedata.normalize("NFD", name.lower()), without_case_and_form),
    ],
)
def test_the_file_system_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold: Callable[[str], str], expected: NameKey
) -> None:
    pretend(monkeypatch, fold)
    assert name_key(tmp_path / "not" / "yet") is expected
    assert name_key(tmp_path) is expected
    assert list(tmp_path.iterdir()) == []


# name -> the inputs, the key, and what is said of each: "" where its outputs are its own
TAKEN: dict[str, tuple[list[str], NameKey, list[str]]] = {
    "all their own": (["a.jpg", "b.jpg", "c/a.jpg", "a.b.jpg", "a/b.jpg"], exact, ["", "", "", "", ""]),
    "one output": (["a.jpg", "b.jpg", "a.png"], exact, ["", "", "/in/a.jpg and /in/a.png would share one output, a"]),
    "a name, then its folder": (
        ["s/a.jpg", "s/a.jpg/t/b.jpg", "s/a.jpg/c.jpg", "s/a.jpg/t/d.jpg"],
        exact,
        [
            "",
            "the output of /in/s/a.jpg would have the name of the folder s/a.jpg of /in/s/a.jpg/t/b.jpg",
            "the output of /in/s/a.jpg would have the name of the folder s/a.jpg of /in/s/a.jpg/c.jpg",
            "the output of /in/s/a.jpg would have the name of the folder s/a.jpg of /in/s/a.jpg/t/d.jpg",
        ],
    ),
    "case, where it does not": (
        ["A.jpg", "a.png", "S/b.jpg", "s/b.png"],
        without_case,
        [
            "",
            "/in/A.jpg and /in/a.png would share one output, a",
            "",
            "/in/S/b.jpg and /in/s/b.png would share one output, s/b",
        ],
    ),
    "normal forms, where they do not": (
        [f"{NFC}.jpg", f"{NFD}.jpg"],
        without_form,
        ["", f"/in/{NFC}.jpg and /in/{NFD}.jpg would share one output, {NFD}"],
    ),
    # Two files, but one name in the records.
    "bytes, and the same spelled out": (
        ["\udce9.jpg", "\\udce9.jpg"],
        exact,
        ["", "/in/\udce9.jpg and /in/\\udce9.jpg would share one output, \\udce9"],
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_names_are_taken_once(name: str) -> None:
    inputs, key, expected = TAKEN[name]
    names = OutputNames(key, "stem", IMAGE_FORMATS)
    assert [names.take(ImageRef(Path("/in") / item, PurePosixPath(item))) for item in inputs] == [
        text.replace("/in/", f"{Path('/in')}{os.sep}") for text in expected
    ]


def test_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    left = [f"{TEMPORARY_PREFIX}{gone.pid}-{'0' * 16}-{name}" for name in ("A", "\u00e9", "e\u0301")]
    others = [f"{TEMPORARY_PREFIX}{os.getpid()}-{'0' * 16}-A", f"{TEMPORARY_PREFIX}{'0' * 16}", f"{gone.pid}-A"]
    for name in (*left, *others):
        (tmp_path / name).touch()
    name_key(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
