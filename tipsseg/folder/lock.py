"""Lock a folder for a run.

The operating system releases the lock when its process ends.
"""

from __future__ import annotations

import errno
import warnings
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tipsseg.errors import OutputError
from tipsseg.options.values import Shard
from tipsseg.util.files import TEMPORARY_PREFIX, is_folder, output_error
from tipsseg.util.text import join_first

LOCK_FILE = f"{TEMPORARY_PREFIX}lock"

#: Seconds to wait for a lock, which `is_locked` may hold for a moment.
_MOMENT = 1.0

#: Error numbers of file systems that cannot lock files. If flock is missing (ENOSYS), filelock uses the existence of the file.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


class FolderLock:
    """The lock of an output folder: of one process, or of several shards, each with a lock of its own."""

    def __init__(self, state: Path, shard: Shard | None = None) -> None:
        """Acquire the lock. Raise OutputError if another process holds it, or the folder cannot be written.

        `left_over` is True if an earlier run did not release the lock, and may have left temporary files. `missing` is True if the
        file system has no locks.
        """
        self._state, self._shard = state, shard
        self.missing = False
        self._path = state / (LOCK_FILE if shard is None else f"{LOCK_FILE}-{shard.folder}")
        self.take()

    def take(self) -> None:
        """Acquire the lock, also after it was given back. Raise OutputError as the constructor does."""
        state, shard, path = self._state, self._shard, self._path
        self._lock = FileLock(path, timeout=_MOMENT, thread_local=False)
        self._made = [folder for folder in (state, *state.parents) if not is_folder(folder)]
        try:
            state.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                raise OutputError(path, "it is a symbolic link", "Remove the link, or choose another output folder.")
            self.left_over = path.exists()
            _acquire(self._lock)
            while not path.exists():  # its last owner removed the file after it was opened here
                self._lock.release()
                _acquire(self._lock)
            others = shard_locks(state) if shard is None else [state / LOCK_FILE]
            if busy := [each for each in others if _is_held(each)]:  # after our own, so that one of two sees the other
                self.give_back()
                shards = [
                    each.name.removeprefix(f"{LOCK_FILE}-").replace("-of-", "/")
                    for each in busy
                    if each.name != LOCK_FILE
                ]
                what = (
                    f"shard {join_first(shards, 5)} of it is running"
                    if shards
                    else "another tipsseg process is using it"
                )
                raise OutputError(state, what, "Wait for it to finish, or use another folder.")
            for left in others if shard is None else []:
                left.unlink(missing_ok=True)  # of a killed process
        except Timeout as error:
            raise OutputError(
                state,
                "another tipsseg process is using it",
                "Wait for it to finish, or use another folder.",
            ) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                self.missing = True
                with suppress(OSError):
                    path.unlink()
                return
            raise output_error(path, error) from error

    def give_back(self) -> None:
        """Release the lock, and remove the empty folders that were created for it. Safe to call twice."""
        try:
            if self._lock.is_locked or self.missing:
                # Remove the file before the release: afterwards another process may hold the lock.
                with suppress(OSError):
                    self._path.unlink()
                    for folder in self._made:
                        folder.rmdir()
        finally:
            with suppress(OSError):  # the file is gone, and the lock ends with this process at the latest
                self._lock.release()


def shard_locks(state: Path) -> list[Path]:
    """Return the lock files of shards in an output folder."""
    return sorted(state.glob(f"{LOCK_FILE}-*-of-*"))


def is_locked(state: Path, shard: str = "") -> bool:
    """Return True if a process holds the lock of an output folder, or a shard of it; with `shard`, such as 1-of-4, this one."""
    if shard:
        return _is_held(state / f"{LOCK_FILE}-{shard}")
    return any(map(_is_held, (state / LOCK_FILE, *shard_locks(state))))


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    lock = FileLock(path, blocking=False, thread_local=False)
    try:
        _acquire(lock)
        lock.release()
        return False
    except Timeout:
        return True
    except OSError as error:
        return error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM)  # left in a folder that cannot be written


def _acquire(lock: BaseFileLock) -> None:
    with warnings.catch_warnings():
        # filelock's fallback for a missing flock is equivalent, so the warning is of no use.
        warnings.filterwarnings("ignore", "flock not supported", UserWarning)
        lock.acquire()
