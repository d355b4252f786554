"""One run at a time in a state folder: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import errno
import warnings
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tipsseg.errors import OutputError
from tipsseg.util.files import TEMPORARY_PREFIX, is_folder, output_error

LOCK_FILE = f"{TEMPORARY_PREFIX}lock"

#: Seconds to wait for a lock that somebody only looks at.
_MOMENT = 1.0

#: What a file system without locks answers. Where flock is not there at all, ENOSYS, filelock makes do with the file itself.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


class FolderLock:
    """The right to write a folder's records."""

    def __init__(self, records: Path) -> None:
        """Take it. Raises OutputError where another living process has it, or the folder cannot be written.

        `left_over` tells whether an earlier run ended without giving it back, so that temporary files of it may be there.
        """
        path = records / LOCK_FILE
        self._path = path
        # `is_locked` has it for a moment.
        self._lock = FileLock(path, timeout=_MOMENT, thread_local=False)
        self._made = [folder for folder in (records, *records.parents) if not is_folder(folder)]
        try:
            records.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                raise OutputError(path, "it is a symbolic link", "Remove the link, or choose another output folder.")
            self.left_over = path.exists()
            _acquire(self._lock)
            while not path.exists():  # whoever had it before removed the file after it was opened here
                self._lock.release()
                _acquire(self._lock)
        except Timeout as error:
            raise OutputError(
                records,
                "another tipsseg is at work there",
                "Wait for it to end, or work in another folder.",
            ) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise OutputError(
                    records,
                    f"its file system cannot lock files ({error.strerror})",
                    "Choose an output folder on another file system.",
                ) from error
            raise output_error(path, error) from error

    def give_back(self) -> None:
        """Let others have it. Folders that were made for it go again where nothing came into them. Safe to call twice."""
        if self._lock.is_locked:
            # Before the release: afterwards it may be another's.
            with suppress(OSError):
                self._path.unlink()
                for folder in self._made:
                    folder.rmdir()
        with suppress(OSError):  # the file is gone, and the lock ends with the process at the latest
            self._lock.release()


def is_locked(records: Path) -> bool:
    """Whether a living process has the claim of that state folder."""
    path = records / LOCK_FILE
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
