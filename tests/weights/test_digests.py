"""Hashes and stamps, the files that ship in the package, and errors that are hard to provoke."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tipsseg.errors import IntegrityError, WeightsError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights import digests, fetching, hub_errors
from tipsseg.weights.digests import Expected, Mismatch, expected_from_name, find_mismatch, read_stamp, sha256_of

CONTENT = b"some content"
SHA256 = Expected("sha256", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
# `printf 'some content' | git hash-object --stdin`
GIT_SHA1 = Expected("git-sha1", "f0eec86f614944a81f87d879ebdc9a79aea0d7ea")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    seen: list[Path] = []
    plain = digests.hash_file

    def counted(path: Path, kind: digests.Kind) -> str:
        seen.append(path)
        return plain(path, kind)

    monkeypatch.setattr(digests, "hash_file", counted)
    return seen


def stamps(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "verified").iterdir())


def test_expected_from_name() -> None:
    assert expected_from_name("a" * 64, 3) == Expected("sha256", "a" * 64, 3)
    assert expected_from_name("0" * 40) == Expected("git-sha1", "0" * 40)
    for name in ("", "a" * 39, "g" * 40, "A" * 64, "../" + "a" * 37, "a" * 40 + "\n"):
        assert expected_from_name(name) is None


def test_mismatches(file: Path) -> None:
    assert find_mismatch(file, SHA256, keep_stamp=True) is None
    assert find_mismatch(file, GIT_SHA1, keep_stamp=True) is None
    assert find_mismatch(file, Expected("sha256", SHA256.digest, 3), keep_stamp=True) == Mismatch(
        "size", "3 bytes", "12 bytes"
    )
    wrong = "0" * 64
    assert find_mismatch(file, Expected("sha256", wrong), keep_stamp=True) == Mismatch("sha256", wrong, SHA256.digest)
    wrong = "0" * 40
    assert find_mismatch(file, Expected("git-sha1", wrong), keep_stamp=True) == Mismatch(
        "git-sha1", wrong, GIT_SHA1.digest
    )


def test_a_verified_file_is_hashed_once(file: Path, tmp_path: Path, hashed: list[Path]) -> None:
    for _ in range(3):
        assert find_mismatch(file, SHA256, keep_stamp=True) is None
    assert len(hashed) == 1
    assert [path.suffix for path in stamps(tmp_path)] == [".json"]
    assert read_stamp(file) == Expected("sha256", SHA256.digest)
    # but a stamp is for one expectation, and can be ignored
    assert find_mismatch(file, Expected("sha256", "0" * 64), keep_stamp=True) is not None
    assert find_mismatch(file, Expected("sha256", SHA256.digest, 3), keep_stamp=True) is not None
    assert find_mismatch(file, SHA256, trust_stamp=False, keep_stamp=True) is None
    assert len(hashed) == 3


@pytest.mark.parametrize("what", ["size", "time", "inode", "content"])
def test_a_changed_file_is_hashed_again(file: Path, what: str) -> None:
    assert find_mismatch(file, SHA256, keep_stamp=True) is None
    status = file.stat()
    other = b"SOME content"
    if what == "size":
        other += b"+"
        file.write_bytes(other)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif what == "content":  # and nothing else that a program can set
        file.write_bytes(other)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_ino) == (status.st_size, status.st_ino)
    elif what == "time":
        file.write_bytes(other)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    else:
        new = file.with_name("new")
        new.write_bytes(other)
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        new.replace(file)
    assert sha256_of(file, keep_stamp=True) == hashlib.sha256(other).hexdigest()
    mismatch = find_mismatch(file, Expected("sha256", SHA256.digest), keep_stamp=True)
    assert mismatch == Mismatch("sha256", SHA256.digest, hashlib.sha256(other).hexdigest())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", "\x00", '{"path": 3, "digest": 4}'])
def test_a_corrupted_stamp_is_ignored(file: Path, tmp_path: Path, hashed: list[Path], text: str) -> None:
    find_mismatch(file, SHA256, keep_stamp=True)
    (stamp,) = stamps(tmp_path)
    stamp.write_text(text, encoding="utf-8")
    assert read_stamp(file) is None
    assert find_mismatch(file, SHA256, keep_stamp=True) is None
    assert len(hashed) == 2
    assert json.loads(stamp.read_text(encoding="utf-8"))["digest"] == SHA256.digest


def test_a_file_that_fails_is_not_stamped(file: Path, tmp_path: Path) -> None:
    find_mismatch(file, Expected("sha256", "0" * 64), keep_stamp=True)
    assert not (tmp_path / "cache").exists()


def test_where_stamps_are_kept(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIPSSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    find_mismatch(file, SHA256, keep_stamp=True)
    assert len(list((tmp_path / "xdg" / "tipsseg" / "verified").iterdir())) == 1
    monkeypatch.setenv("TIPSSEG_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    find_mismatch(file, SHA256, keep_stamp=True)
    assert len(list((tmp_path / "home" / ".cache" / "tipsseg" / "verified").iterdir())) == 1


@pytest.fixture
def embedded(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A model inside the package, whose three files all hold CONTENT."""
    folder = tmp_path / "package" / "assets" / "small"
    folder.mkdir(parents=True)
    monkeypatch.setattr(fetching, "_PACKAGE", tmp_path / "package")
    files = tuple(LockedFile(name, SHA256.size, SHA256.digest) for name in ("config.json", "sub/m", "tokenizer.model"))
    for entry in files:
        (folder / entry.name).parent.mkdir(exist_ok=True)
        (folder / entry.name).write_bytes(CONTENT)
    return ModelSpec("small", "Apache-2.0", 1, files, embedded="assets/small")


def test_embedded_models(embedded: ModelSpec, tmp_path: Path, hashed: list[Path]) -> None:
    folder = tmp_path / "package" / "assets" / "small"
    assert (
        fetching.locate(embedded)
        == fetching.fetch(embedded, keep_stamps=True)
        == fetching.fetch(embedded, keep_stamps=True)
        == folder
    )
    assert len(hashed) == 3
    assert fetching.verify(embedded) == dict.fromkeys(("config.json", "sub/m", "tokenizer.model"), "ok")
    assert fetching.resolve_hashes(embedded) == embedded


@pytest.mark.parametrize("function", [fetching.fetch, fetching.verify])
def test_an_embedded_file_that_changed_is_not_removed(
    embedded: ModelSpec, tmp_path: Path, function: Callable[[ModelSpec], object]
) -> None:
    path = tmp_path / "package" / "assets" / "small" / "tokenizer.model"
    path.write_bytes(b"SOME content")
    with pytest.raises(IntegrityError, match=r"tokenizer\.model is not the pinned file: sha256") as caught:
        function(embedded)
    assert "Reinstall" in caught.value.hint
    assert path.exists()


def test_an_embedded_file_that_is_missing(embedded: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "package" / "assets" / "small" / "sub" / "m").unlink()
    assert fetching.locate(embedded) is None
    assert [*fetching.verify(embedded).values()] == ["ok", "absent", "ok"]
    with pytest.raises(WeightsError, match="missing from the installation"):
        fetching.fetch(embedded, keep_stamps=True)


class TransportError(Exception):
    """As those of an HTTP library, whose cause tells what it is."""


def behind(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def caused(cause: BaseException) -> Exception:
    return behind(TransportError("of the library"), behind(TransportError("of a library of it"), cause))


FAILURES = {
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), "the disk is full", "HF_HOME"),
    "timeout": (TimeoutError("timed out"), "did not answer in time (timed out)", "HF_HUB_ETAG_TIMEOUT"),
    "nobody there": (caused(ConnectionRefusedError(111, "refused")), "cannot reach http", "argument `model`=tiny"),
    "no such name": (caused(socket.gaierror(-2, "Name or service not known")), "cannot reach http", "HF_ENDPOINT"),
    "broken off": (caused(ConnectionResetError(104, "reset")), "the transfer failed (of the library)", "again"),
}  # fmt: skip


DEMO = ModelSpec("demo", "Apache-2.0", 1, (), "owner/demo", "1")


@pytest.mark.parametrize("case", FAILURES)
def test_failures_say_what_to_do(case: str) -> None:
    error, message, hint = FAILURES[case]
    found = hub_errors.explain(error, DEMO, in_cache=False)
    assert message in found[0]
    assert hint in found[1]
