"""Files that appear whole, and what a killed process leaves; see also the writers' tests for what the system refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tipsseg.errors import OutputError
from tipsseg.images.access import matches
from tipsseg.util.files import (
    TEMPORARY_PREFIX,
    Fingerprint,
    atomic_path,
    atomic_write,
    clean_up,
    is_file,
    is_folder,
    output_error,
    stamp,
)
from tipsseg.util.json import json_bytes


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def killed_while_writing(path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from tipsseg.util.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script, path]).returncode == -9


def test_a_killed_process_leaves_the_old_file_and_one_to_sweep(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.png", b"old")
    killed_while_writing(tmp_path / "a.png")
    (left,) = names(tmp_path) - {"a.png"}
    assert left.startswith(TEMPORARY_PREFIX)
    assert left.endswith(".png")
    assert (tmp_path / "a.png").read_bytes() == b"old"
    clean_up([tmp_path])
    assert names(tmp_path) == {"a.png"}


def test_the_next_process_that_writes_there_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "a.png")
    (tmp_path / ".tipsseg-0123456789abcdef.png").touch()  # of an unknown process
    with atomic_path(tmp_path / "b.png") as living:
        living.touch()
        script = "import sys, pathlib; from tipsseg.util.files import atomic_write; atomic_write(pathlib.Path(sys.argv[1]), b'')"
        subprocess.run([sys.executable, "-c", script, tmp_path / "c.png"], check=True)
        assert names(tmp_path) == {".tipsseg-0123456789abcdef.png", living.name, "c.png"}


def test_other_files_are_not_swept(tmp_path: Path) -> None:
    for name in ("a.png", ".hidden", ".tipsseg", "x.tipsseg-1", ".tipsseg-1", "sub/.tipsseg-1"):
        atomic_write(tmp_path / name, b"")
    clean_up([tmp_path / "nowhere", tmp_path / "a.png", tmp_path])
    assert names(tmp_path) == {"a.png", ".hidden", ".tipsseg", "x.tipsseg-1", "sub/.tipsseg-1"}


def test_temporary_folders_are_swept_with_all_in_them(tmp_path: Path) -> None:
    for name in (".tipsseg-a/sub/x", ".tipsseg-a/y", "folder/x"):
        atomic_write(tmp_path / name, b"")
    (tmp_path / ".tipsseg-link").symlink_to("folder")
    clean_up([tmp_path])
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert names(tmp_path) == {"folder/x"}


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"data")
    assert names(tmp_path) == {path.name}


@pytest.mark.parametrize(
    ("number", "reason", "only_this"),
    [
        (errno.ENOSPC, "no space left on the device", False),
        (errno.EIO, "message of the system", False),
        (errno.EACCES, "no permission", True),
        (errno.ENAMETOOLONG, "the name is too long", True),
        (errno.ENOTDIR, "one of its parent folders is a file", True),
        (errno.EILSEQ, "message of the system", True),
    ],
)
def test_whether_other_files_may_be_written(number: int, reason: str, only_this: bool) -> None:
    error = output_error(Path("a"), OSError(number, "message of the system"))
    assert (error.reason, error.only_this) == (reason, only_this)
    assert error.message == f"cannot write a: {reason}"


def test_names_that_the_system_refuses_are_neither_files_nor_folders(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "\0", tmp_path / "nowhere"):
        assert not is_file(path)
        assert not is_folder(path)
    assert is_folder(tmp_path)
    atomic_write(tmp_path / "a", b"")
    assert is_file(tmp_path / "a")


@given(st.text(st.characters(categories=["Cs"]) | st.sampled_from('a\\"ü\n'), max_size=8))
def test_bytes_of_names_that_are_no_text_are_spelled_out(text: str) -> None:
    spelled = text.encode("utf-8", "backslashreplace").decode("utf-8")
    assert json.loads(json_bytes({text: text}).decode("utf-8")) == {spelled: spelled}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_has_not_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"x": value})


def test_an_error_of_the_system_inside_the_block_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*a\.png: no space left"), atomic_path(tmp_path / "a.png"):
        raise OSError(errno.ENOSPC, "full")


def test_a_folder_that_is_removed_in_part_is_not_taken_for_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_write(tmp_path / ".tipsseg-1-of-2-joined/a", b"")
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)  # killed before it came to anything
    clean_up([tmp_path])
    (left,) = tmp_path.iterdir()
    assert left.name != ".tipsseg-1-of-2-joined"
    monkeypatch.undo()
    clean_up([tmp_path])
    assert list(tmp_path.iterdir()) == []


# ---- changed files ----

TIME = 1_700_000_000_123_456_789


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"pixels")
    os.utime(path, ns=(0, TIME))
    return path


def rewrite(data: bytes, time: int) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_bytes(data)
        os.utime(path, ns=(0, time))

    return apply


def in_another_place(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


#: What is done to the file; whether it is the same by its content, and without.
CHANGES: dict[str, tuple[Callable[[Path], object], bool, bool]] = {
    "nothing": (lambda path: None, True, True),
    "touched, as a copy is": (rewrite(b"pixels", TIME + 1), True, False),
    "other content of the same size": (rewrite(b"PIXELS", TIME + 1), False, False),
    "other and older content of the same size": (rewrite(b"PIXELS", TIME - 1), False, False),
    "other content of the same size and time": (rewrite(b"PIXELS", TIME), True, True),  # not looked at, as it may be large
    "longer": (rewrite(b"pixels.", TIME), False, False),
    "empty": (rewrite(b"", TIME), False, False),
    "behind a link": (in_another_place, True, True),
    "gone": (lambda path: path.unlink(), False, False),
    "a folder": (as_folder, False, False),
}  # fmt: skip


@pytest.mark.parametrize(("change", "hashed", "unhashed"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_file_is_noticed(path: Path, change: Callable[[Path], object], hashed: bool, unhashed: bool) -> None:
    before = stamp(path)
    change(path)
    assert matches(before, path) == hashed
    assert matches(Fingerprint(before.size, before.mtime_ns, None), path) == unhashed
