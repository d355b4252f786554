"""One run at a time in a folder, whatever becomes of the process that has it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from tipsseg.folder import lock as module
from tipsseg.folder.lock import LOCK_FILE, FolderLock, is_locked

_HOLD = """
import sys
from pathlib import Path
from tipsseg.folder.lock import FolderLock
claim = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
claim.give_back()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the claim until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_lock_of_a_killed_process_can_be_taken(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.kill()
        process.wait()
    assert (tmp_path / LOCK_FILE).exists()
    assert not is_locked(tmp_path)
    claim = FolderLock(tmp_path)
    assert claim.left_over
    assert is_locked(tmp_path)
    claim.give_back()
    assert not (tmp_path / LOCK_FILE).exists()


def test_one_of_many_processes_gets_the_lock(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from tipsseg.folder.lock import FolderLock
from tipsseg.errors import OutputError
sys.stdin.readline()
try:
    claim = FolderLock(Path(sys.argv[1]))
except OutputError:
    print("refused", flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script, str(tmp_path / "new")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in processes if process.stdout is not None]
    for process in processes:
        process.communicate()
    assert sorted(said) == ["held\n", *["refused\n"] * 3]


@pytest.mark.parametrize("there", [True, False], ids=["a folder that was there", "a new folder"])
@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
def test_a_folder_that_was_made_for_it_goes_again_unless_it_is_used(tmp_path: Path, there: bool, used: bool) -> None:
    folder = tmp_path / "new/folder"
    if there:
        folder.mkdir(parents=True)
    claim = FolderLock(folder)
    if used:
        (folder / "run.json").touch()
    claim.give_back()
    assert folder.exists() == (tmp_path / "new").exists() == (there or used)
    assert not is_locked(folder)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_that_cannot_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    class Refused(FileLock):
        def _acquire(self) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "FileLock", Refused)
    lock = FolderLock(tmp_path)
    assert (lock.missing, is_locked(tmp_path)) == (True, False)
    lock.give_back()
    assert list(tmp_path.iterdir()) == []


_HOLD_WITHOUT_FLOCK = """
import errno, fcntl, os, warnings
def flock(fd, operation):
    if not operation & fcntl.LOCK_UN:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
fcntl.flock = flock
warnings.simplefilter("error")
"""


def test_where_flock_is_missing_one_process_has_the_claim_all_the_same(tmp_path: Path) -> None:
    def process(script: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _HOLD_WITHOUT_FLOCK + script, str(tmp_path)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def asked() -> tuple[str, str]:
        return process(_ASK).communicate()

    holder = process(_HOLD)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert asked() == ("True\nanother tipsseg process is using it\n", "")
    holder.kill()
    holder.communicate()
    assert asked() == ("False\nheld\n", "")
    assert list(tmp_path.iterdir()) == []


_ASK = """
import sys
from pathlib import Path
from tipsseg.folder.lock import FolderLock, is_locked
from tipsseg.errors import OutputError
print(is_locked(Path(sys.argv[1])))
try:
    FolderLock(Path(sys.argv[1])).give_back()
    print("held")
except OutputError as error:
    print(error.reason)
"""
