"""Whether an input is the file that was labelled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tipsseg.util import fingerprint as module
from tipsseg.util.fingerprint import Fingerprint, fingerprint

TIME = 1_700_000_000_123_456_789


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"pixels")
    os.utime(path, ns=(0, TIME))
    return path


def test_large_files_go_without_their_content(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HASH_LIMIT", 6)
    assert fingerprint(path).sha256 is not None
    monkeypatch.setattr(module, "HASH_LIMIT", 5)
    assert fingerprint(path) == Fingerprint(6, TIME, None)


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
def test_what_is_the_same(
    path: Path, change: Callable[[Path], object], hashed: bool, unhashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(path)
    change(path)
    assert before.matches(path) == hashed
    assert Fingerprint(before.size, before.mtime_ns, None).matches(path) == unhashed
    monkeypatch.setattr(module, "HASH_LIMIT", 5)  # it is large now as it was then
    assert Fingerprint(before.size, before.mtime_ns, None).matches(path) == unhashed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Fingerprint(3, 1, "a"), Fingerprint(3, 2, "a"), True),
        (Fingerprint(3, 1, "a"), Fingerprint(3, 1, "b"), False),
        (Fingerprint(3, 1, None), Fingerprint(3, 1, None), True),
        (Fingerprint(3, 1, None), Fingerprint(3, 2, None), False),
        (Fingerprint(3, 1, None), Fingerprint(4, 1, None), False),
    ],
)
def test_one_content(one: Fingerprint, other: Fingerprint, same: bool) -> None:
    assert one.same_content(other) is same
