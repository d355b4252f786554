"""Who has a folder: a run, by a lock that ends with its process, however that ends; or a merge that has not ended.

A merge is told of by a hidden file that is there from its beginning to its end, whichever process goes on with it.
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

#: The hidden file of a merge that has not ended. It names the folders that are joined; null stands for the target itself.
MERGE_FILE = f"{TEMPORARY_PREFIX}merging.json"

#: Seconds to wait for a lock that somebody only looks at.
_MOMENT = 1.0

#: What a file system without locks answers. Where flock is not there at all, ENOSYS, filelock makes do with the file itself.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


class FolderLock:
    """The right to write into a state folder."""

    def __init__(self, state: Path) -> None:
        """Take it. Raises OutputError where another living process has it, or the folder cannot be written.

        `left_over` tells whether an earlier run ended without giving it back, so that temporary files of it may be there.
        """
        path = state / LOCK_FILE
        self._path = path
        # `is_locked` has it for a moment.
        self._lock = FileLock(path, timeout=_MOMENT, thread_local=False)
        self._made = [folder for folder in (state, *state.parents) if not is_folder(folder)]
        try:
            state.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                raise OutputError(path, "it is a symbolic link", "Remove the link, or choose another output folder.")
            self.left_over = path.exists()
            _acquire(self._lock)
            while not path.exists():  # whoever had it before removed the file after it was opened here
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
        """Let others have it. Folders that were made for it go again where nothing came into them. Safe to call twice."""
        try:
            if self._lock.is_locked:
                # Before the release: afterwards it may be another's.
                with suppress(OSError):
                    self._path.unlink()
                    for folder in self._made:
                        folder.rmdir()
        finally:
            with suppress(OSError):  # the file is gone, and the lock ends with the process at the latest
                self._lock.release()


def is_locked(state: Path) -> bool:
    """Whether a living process has the lock of a state folder."""
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
        return error.errno != errno.EROFS  # there nobody can be at work


def _acquire(lock: BaseFileLock) -> None:
    """Take a lock. Raises Timeout and OSError."""
    with warnings.catch_warnings():
        # That there is no flock does not concern the user, as what stands in for it does the same.
        warnings.filterwarnings("ignore", "flock not supported", UserWarning)
        lock.acquire()


def begin_merge(target: Path, folders: Sequence[Path]) -> None:
    """Say in `target` that a merge of these folders has begun. Raises OutputError."""
    named = [None if folder == target else printable_path(folder.absolute()) for folder in folders]
    atomic_write(target / MERGE_FILE, json_bytes(named))


def is_begun(folder: Path) -> bool:
    """Whether a merge into a folder has begun and has not ended."""
    return is_file(folder / MERGE_FILE)


def is_unfinished(folder: Path) -> bool:
    """Whether a merge into a folder has begun and has not ended, and the folder is of no use until then.

    While the folder has shards and no run.json, the shards can be used as if no merge had begun: it will read them again.
    """
    if not is_begun(folder):
        return False
    beside_shards = any(is_file(state / RUN_FILE) for state in state_folders(folder))
    return os.path.lexists(folder / RUN_FILE) or not beside_shards


def finish_command(folder: Path) -> str:
    """The command that finishes the merge into a folder."""
    target = shell_word(str(folder))
    whole = os.path.lexists(folder / RUN_FILE)
    named = [target] if whole else [shell_word(str(each)) for each in folders_of(folder)]
    return f"tipsseg merge {' '.join(named) or 'OUT...'} -o {target}"


def folders_of(target: Path) -> list[Path]:
    """The folders of the merge that has begun in `target`; empty where they are not known."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        named = json.loads((target / MERGE_FILE).read_bytes())
        return [target if name is None else Path(actual_name(name)) for name in named]
    return []
