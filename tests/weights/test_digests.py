"""Hashes of files, and the stamps that save hashing them again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tipsseg.weights.fetching import sha256_of

CONTENT = b"some content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def stamp_of(folder: Path) -> Path:
    (stamp,) = (folder / "verified").iterdir()
    return stamp


def test_a_stamped_file_is_not_hashed_again(file: Path, tmp_path: Path) -> None:
    assert sha256_of(file) == SHA256
    assert not (tmp_path / "cache").exists()
    assert sha256_of(file, keep_stamp=True) == SHA256
    stamp = stamp_of(tmp_path / "cache")
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "sha256": "from the stamp"}))
    assert sha256_of(file) == "from the stamp"
    assert sha256_of(file, trust_stamp=False) == SHA256


@pytest.mark.parametrize("what", ["size", "content"])
def test_a_changed_file_is_hashed_again(file: Path, what: str) -> None:
    sha256_of(file, keep_stamp=True)
    status = file.stat()
    other = b"SOME content+" if what == "size" else b"SOME content"
    file.write_bytes(other)
    # With "content", nothing else changes that a program can set.
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sha256_of(file) == hashlib.sha256(other).hexdigest()


@pytest.mark.parametrize("text", ["{", '{"path": 3, "sha256": 4}'])
def test_a_corrupted_stamp_is_ignored(file: Path, tmp_path: Path, text: str) -> None:
    sha256_of(file, keep_stamp=True)
    stamp = stamp_of(tmp_path / "cache")
    stamp.write_text(text, encoding="utf-8")
    assert sha256_of(file, keep_stamp=True) == SHA256
    assert json.loads(stamp.read_text(encoding="utf-8"))["sha256"] == SHA256
