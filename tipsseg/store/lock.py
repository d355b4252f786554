"""Lock a folder for a run, and mark it while a merge into it is unfinished.

The lock ends with its process, however that ends. The mark of a merge is a hidden file that lasts until the merge ends, through as
many processes as that takes. A file, and not a row of the database, for three reasons: whoever meets the folder can read it while
the database is locked, and in a read-only folder; and a person can remove it to give the merge up.
"""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tipsseg.errors import OutputError
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.shards import state_folders
from tipsseg.types import printable_path
from tipsseg.util.files import TEMPORARY_PREFIX, atomic_write, is_file, is_folder, json_bytes, output_error
from tipsseg.util.printable import shell_word
from tipsseg.util.record_paths import actual_name

LOCK_FILE = f"{TEMPORARY_PREFIX}lock"

#: The hidden file of an unfinished merge: the names of the joined folders; null is the target itself.
MERGE_FILE = f"{TEMPORARY_PREFIX}merging.json"

#: Seconds to wait for a lock that `is_locked` has for a moment.
_MOMENT = 1.0

#: Error numbers of a file system without locks. Without flock, ENOSYS, filelock uses the existence of the file.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


class FolderLock:
    """The lock of a state folder: its process alone may write there."""

    def __init__(self, state: Path) -> None:
        """Acquire the lock. Raises OutputError if another process has it, or the folder cannot be written.

        `left_over` is True if an earlier run did not release it, and may have left temporary files.
        """
        path = state / LOCK_FILE
        self._path = path
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
        except Timeout as error:
            raise OutputError(
                state,
                "another tipsseg is at work there",
                "Wait for it to end, or work in another folder.",
            ) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise OutputError(
                    state,
                    f"its file system cannot lock files ({error.strerror})",
                    "Choose an output folder on another file system.",
                ) from error
            raise output_error(path, error) from error

    def give_back(self) -> None:
        """Release the lock, and remove the folders that were created for it and are empty. Safe to call twice."""
        try:
            if self._lock.is_locked:
                # Before the release: afterwards another process may have it.
                with suppress(OSError):
                    self._path.unlink()
                    for folder in self._made:
                        folder.rmdir()
        finally:
            with suppress(OSError):  # the file is removed, and the lock ends with the process at the latest
                self._lock.release()


def is_locked(state: Path) -> bool:
    """Return True if a process has the lock of a state folder."""
    path = state / LOCK_FILE
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
        return error.errno != errno.EROFS  # no run can write there


def _acquire(lock: BaseFileLock) -> None:
    with warnings.catch_warnings():
        # The replacement for a missing flock does the same, so the user need not know.
        warnings.filterwarnings("ignore", "flock not supported", UserWarning)
        lock.acquire()


def begin_merge(target: Path, folders: Sequence[Path]) -> None:
    """Mark `target` with the folders of a merge that begins. Raises OutputError."""
    named = [None if folder == target else printable_path(folder.absolute()) for folder in folders]
    atomic_write(target / MERGE_FILE, json_bytes(named))


def is_begun(folder: Path) -> bool:
    """Return True if a merge into a folder is unfinished."""
    return is_file(folder / MERGE_FILE)


def is_unfinished(folder: Path) -> bool:
    """Return True if a merge into a folder is unfinished, and the folder cannot be used until it ends.

    Shards can still be used until the folder has a run.json: the merge will read them again.
    """
    if not is_begun(folder):
        return False
    beside_shards = any(is_file(state / RUN_FILE) for state in state_folders(folder))
    return os.path.lexists(folder / RUN_FILE) or not beside_shards


def finish_command(folder: Path) -> str:
    """Return the command that finishes the merge into a folder."""
    target = shell_word(str(folder))
    whole = os.path.lexists(folder / RUN_FILE)
    named = [target] if whole else [shell_word(str(each)) for each in folders_of(folder)]
    return f"tipsseg merge {' '.join(named) or 'OUT...'} -o {target}"


def folders_of(target: Path) -> list[Path]:
    """Return the folders of the unfinished merge into `target`; none if they are unknown."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        named = json.loads((target / MERGE_FILE).read_bytes())
        return [target if name is None else Path(actual_name(name)) for name in named]
    return []
