"""Lock a folder for a run, and mark it while a merge into it is unfinished.

The operating system releases the lock when its process ends. A hidden file marks an unfinished merge, through as many processes as
the merge takes. It is a file rather than a row of the database because other processes can read it while the database is locked and
in a read-only folder, and because a user can remove it to abandon the merge.
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

#: The hidden file of an unfinished merge: the paths of the folders to join, with null for the target itself.
MERGE_FILE = f"{TEMPORARY_PREFIX}merging.json"

#: Seconds to wait for a lock, which `is_locked` may hold for a moment.
_MOMENT = 1.0

#: Error numbers of file systems that cannot lock files. If flock is missing (ENOSYS), filelock uses the existence of the file.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


class FolderLock:
    """The lock of a state folder: only the process that holds it may write there."""

    def __init__(self, state: Path) -> None:
        """Acquire the lock. Raises OutputError if another process holds it, or the folder cannot be written.

        `left_over` is True if an earlier run did not release the lock, and may have left temporary files.
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
                "another tipsseg process is using it",
                "Wait for it to finish, or use another folder.",
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
        """Release the lock, and remove the empty folders that were created for it. Safe to call twice."""
        try:
            if self._lock.is_locked:
                # Remove the file before the release: afterwards another process may hold the lock.
                with suppress(OSError):
                    self._path.unlink()
                    for folder in self._made:
                        folder.rmdir()
        finally:
            with suppress(OSError):  # the file is gone, and the lock ends with this process at the latest
                self._lock.release()


def is_locked(state: Path) -> bool:
    """Return True if a process holds the lock of a state folder."""
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
        return error.errno != errno.EROFS  # no run can write to a read-only file system


def _acquire(lock: BaseFileLock) -> None:
    with warnings.catch_warnings():
        # filelock's fallback for a missing flock is equivalent, so the warning is of no use.
        warnings.filterwarnings("ignore", "flock not supported", UserWarning)
        lock.acquire()


def begin_merge(target: Path, folders: Sequence[Path]) -> None:
    """Mark `target` as the target of a merge of these folders."""
    named = [None if folder == target else printable_path(folder.absolute()) for folder in folders]
    atomic_write(target / MERGE_FILE, json_bytes(named))


def is_begun(folder: Path) -> bool:
    """Return True if a merge into a folder is unfinished."""
    return is_file(folder / MERGE_FILE)


def is_unfinished(folder: Path) -> bool:
    """Return True if an unfinished merge makes a folder unusable until it is finished.

    Shards can be used until the folder has a run.json: the merge will read them again.
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
    """Return the folders of the unfinished merge into `target`; an empty list if they are unknown."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        named = json.loads((target / MERGE_FILE).read_bytes())
        return [target if name is None else Path(actual_name(name)) for name in named]
    return []
