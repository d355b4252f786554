"""Which files of an output folder this program wrote: the one rule for every write, link and removal below it.

A path that exists is replaced or removed only if a record says that this program wrote it and its content is still that. Records:

    manifest.jsonl    the digests of the per-image files
    run.json          the digests of the files that stand for the whole run
    write-ahead logs  digests of files that a run was about to put in place; of a run that was killed nothing else tells

A file with exactly the content that is to be written is never in the way. No write follows a link out of the output folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tipsseg.errors import OutputError
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.append_log import AppendLog, lines_of
from tipsseg.util.files import TEMPORARY_PREFIX, atomic_path, json_bytes, output_error, remove_file
from tipsseg.util.fingerprint import Fingerprint, content_digest, file_record
from tipsseg.util.json_values import parse
from tipsseg.util.record_paths import actual_path, is_inside

#: Write-ahead logs begin with this; each process that writes has its own.
LOG_PREFIX = f"{TEMPORARY_PREFIX}writes-"

#: In place of a digest, for a link.
LINK = "link"

#: In place of a digest, for a file that grows.
_LOG = "log"

#: In place of a digest, for what is no regular file, or cannot be read.
_OTHER = ""

#: What the system says where it has no links, or the user may make none.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})

_NOT_OURS = "tipsseg did not write the file that is there, or the file was changed since"
#: What to do about a file that is in the way.
MOVE = "Move the file away, or choose another output folder with argument `output`."
_OUTSIDE = "Put a folder in the place of the link, or choose another output folder with argument `output`."


class Ownership:
    """What of an output folder is this program's. Any thread may write; a copy in another process knows what the caller tells it.

    Attributes:
        broken_off: Whether a run ended without tidying up its write-ahead logs.
        noted: Whether this process has written to a write-ahead log.
    """

    def __init__(self, output: Path, state: Path, owner: str = "") -> None:
        """Of the output folder; `state` is the state folder of the run, `owner` as for `files.atomic_path`."""
        self._output = output
        self._state = state
        self._owner = owner
        self._real = ""
        self.broken_off = False
        self.noted = False
        self._written: dict[str, Fingerprint] = {}
        self._pending: dict[str, set[str]] = {}
        self._log = state / f"{LOG_PREFIX}{secrets.token_hex(8)}"
        self._logs = False
        self._alone = threading.Lock()

    def load(self, written: Mapping[str, Fingerprint], recorded: Callable[[str, str, str], bool]) -> None:
        """Take up what earlier runs wrote; from now on all that is written is noted ahead. Raises OutputError.

        Args:
            written: The files that stand for the whole run, by their paths relative to the output folder, see `record`.
            recorded: Whether the manifest has, for an image (its name), a file (its place) of a digest, so that no log need tell.
        """
        self._logs = True
        self.noted = False
        self._written = dict(written)
        self._pending = {}
        logs = write_ahead_logs(self._state)
        self.broken_off = len(logs) > 1
        for log in logs:
            for image, place, digest in _log_lines(log):
                if image and recorded(image, place, digest):
                    self.broken_off = True
                else:
                    self._pending.setdefault(place, set()).add(digest)
                    path = actual_path(self._output, place)
                    # A file of the whole run that got to its place, but not into run.json.
                    if not image and digest_of(path) == digest:
                        self.broken_off = True
                        self._written[place] = _stamp(path, digest)

    def record(self) -> dict[str, object]:
        """The files that stand for the whole run, as run.json has them under `files`."""
        return {place: file_record(self._written[place]) for place in sorted(self._written)}

    def pending(self, paths: Iterable[Path]) -> frozenset[tuple[str, str]]:
        """What a run which was broken off may have left at these paths, as `ImageRef.replaceable` has it."""
        places = map(self._place, paths) if self._pending else ()
        return frozenset((place, digest) for place in places for digest in self._pending.get(place, ()))

    def as_they_are(self, paths: Iterable[Path]) -> frozenset[tuple[str, str]]:
        """What is at these paths now, as `ImageRef.replaceable` has it."""
        return frozenset((self._place(path), digest_of(path)) for path in paths)

    def remove_pending(self) -> list[Path]:
        """Remove what a run which was broken off left; returns the files that were changed since, and stay. Raises OutputError."""
        kept = []
        for place, digests in self._pending.items():
            path = actual_path(self._output, place)
            if LINK in digests:
                self.remove_link(path)
            if digests != {_LOG} and not self.remove(path, ()):
                kept.append(path)
        return kept

    def is_pending(self, path: Path) -> bool:
        """Whether the file at a path is one that a run which was broken off was about to put there."""
        known = self._pending.get(self._place(path), ())
        return bool(known) and _digest(path) in known

    def is_unchanged(self, path: Path) -> bool:
        """Whether a file that stands for the whole run is absent, or as this program wrote it, by size and time or by content."""
        with suppress(OSError):
            known = self._written.get(self._place(path))
            if known is not None and not path.is_symlink() and known.matches(path):
                return True
        return self._may_replace(path, ())

    def adopt(self, path: Path) -> None:
        """Take a file that is there for one that stands for the whole run and that this program wrote. Raises OutputError."""
        try:
            self._written[self._place(path)] = _stamp(path, content_digest(path))
        except OSError as error:
            raise output_error(path, error) from error

    def claim(self, path: Path) -> None:
        """Note that a file of lines is this program's, before there is a run.json that says so. Raises OutputError."""
        self._note(path, _LOG, "")

    def refuse_changed(self, path: Path) -> None:
        """Raise OutputError where a file that stands for the whole run is there, and is not as this program wrote it."""
        if not self.is_unchanged(path):
            raise OutputError(path, _NOT_OURS, MOVE, only_this=True)

    def write(self, ref: ImageRef, path: Path, data: bytes) -> Fingerprint:
        """Write a file of an image, by the rule above. Returns what the file is now, for the manifest. Raises OutputError."""
        self.refuse_outside(path)
        digest = hashlib.sha256(data).hexdigest()
        with atomic_path(path, self._owner) as temporary:
            temporary.write_bytes(data)
            written = _stamp(temporary, digest)
            self._put(path, digest, ref.replaceable, ref.name)
        return written

    def copy(self, ref: ImageRef, source: BinaryIO, path: Path, times: tuple[int, int]) -> None:
        """As `write`, with the content of another file and its times of access and change, in nanoseconds."""
        self.refuse_outside(path)
        with atomic_path(path, self._owner) as temporary:
            with temporary.open("wb") as target:
                shutil.copyfileobj(source, target)
            digest = content_digest(temporary)
            os.utime(temporary, ns=times)  # after it was read, which is an access
            self._put(path, digest, ref.replaceable, ref.name)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """As `files.atomic_path`, by the rule above, for a file that stands for the whole run.

        Raises:
            OutputError: Where another file is there, a link leads out of the output folder, or the system refuses.
        """
        self.refuse_outside(path)
        with atomic_path(path, self._owner) as temporary:
            yield temporary
            digest = content_digest(temporary)
            written = _stamp(temporary, digest)
            self._put(path, digest, (), "")
        self._written[self._place(path)] = written

    def write_run_file(self, path: Path, data: bytes) -> None:
        """Write a file that stands for the whole run; see `replacing`."""
        with self.replacing(path) as temporary:
            temporary.write_bytes(data)

    def link(self, ref: ImageRef, place: Path, *, ours: bool) -> None:
        """Let `place` stand for an image: a relative link to the file itself, or a copy where the file system has no links.

        A link has no content of its own, so that one at a place where this program made a link is taken for that link.

        Args:
            ref: The image.
            place: A path below the output folder.
            ours: Whether the manifest says that this program made a link there.

        Raises:
            OutputError: Where something else is there, a link leads out of the output folder, or the system refuses.
        """
        with suppress(OSError):
            if place.samefile(ref.path):
                return
        self.refuse_outside(place)
        is_link = place.is_symlink()
        if is_link and not ours and LINK not in self._pending.get(self._place(place), ()):
            raise OutputError(place, _NOT_OURS, MOVE, only_this=True)
        with atomic_path(place, self._owner) as temporary:
            digest = LINK
            if not _make_link(ref.path, place, temporary):
                shutil.copyfile(ref.path, temporary)
                digest = content_digest(temporary)
            if not is_link and not self._may_replace(place, (digest, *((ref.former,) if ref.former else ()))):
                raise OutputError(place, _NOT_OURS, MOVE, only_this=True)
            self._note(place, digest, ref.name)

    def restore_link(self, ref: ImageRef, place: Path) -> None:
        """Let a link that this program made lead to its image again, as after the image was moved. Raises OutputError."""
        with suppress(OSError):
            if place.samefile(ref.path) or not place.is_symlink():
                return
        self.link(ref, place, ours=True)

    def move(self, path: Path, place: Path) -> None:
        """Move a file of an image, or a link to it, unless it was moved before. Raises OutputError where `place` is taken."""
        self.refuse_outside(path)
        self.refuse_outside(place)
        if not os.path.lexists(path):
            return
        self.refuse_taken(path, place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                with atomic_path(place, self._owner) as temporary:
                    _make_link(path, place, temporary)
                path.unlink()
            else:
                path.rename(place)
        except OSError as error:
            raise output_error(place, error) from error
        with suppress(OSError):
            os.removedirs(path.parent)  # as far as they are empty

    def refuse_taken(self, path: Path, place: Path) -> None:
        """Raise OutputError where a file cannot move to a place, as something is there, but for the link that moves."""
        if not (os.path.lexists(path) and os.path.lexists(place)):
            return
        links = path.is_symlink() and place.is_symlink()
        if not links or os.path.realpath(path) != os.path.realpath(place):
            raise OutputError(place, _NOT_OURS, MOVE, only_this=True)

    def remove_link(self, place: Path) -> None:
        """Remove a link that this program made; what is no link stays. Raises OutputError."""
        self.refuse_outside(place)
        if place.is_symlink():
            remove_file(place)

    def remove(self, path: Path, digests: Collection[str]) -> bool:
        """Remove a file whose content has one of these digests; whether it is gone now. Raises OutputError."""
        self.refuse_outside(path)
        if not os.path.lexists(path):
            return True
        if not self._may_replace(path, digests):
            return False
        remove_file(path)
        return True

    def remove_run_files(self) -> None:
        """Remove the files that stand for the whole run; files that were changed stay. Raises OutputError."""
        for place in list(self._written):
            self.remove_run_file(self._output / place)

    def remove_run_file(self, path: Path) -> None:
        """Remove a file that stands for the whole run, unless it was changed; it is no longer in `record`. Raises OutputError."""
        self.remove(path, ())
        self._written.pop(self._place(path), None)

    def end(self, recorded: Callable[[str, str, str], bool]) -> None:
        """Drop the write-ahead logs, once the records have what they say; what no record has stays, in one log. Raises OutputError.

        Args:
            recorded: As for `load`.
        """
        logs = write_ahead_logs(self._state)
        left: dict[tuple[str, str, str], None] = {}
        for log in logs:
            for image, place, digest in _log_lines(log):
                if not (recorded(image, place, digest) if image else digest == _LOG or place in self._written):
                    left[image, place, digest] = None
        if left:
            path = self._state / f"{LOG_PREFIX}{secrets.token_hex(8)}"
            with atomic_path(path) as temporary:
                temporary.write_bytes(b"".join(json_bytes(line) + b"\n" for line in left))
        for log in logs:
            remove_file(log)

    def _put(self, path: Path, digest: str, replaceable: Collection[tuple[str, str]], image: str) -> None:
        """Approve that a file of that digest gets the name `path`. Raises OutputError."""
        own = self._place(path)
        if not self._may_replace(path, (digest, *(before for place, before in replaceable if place == own))):
            raise OutputError(path, _NOT_OURS, MOVE, only_this=True)
        self._note(path, digest, image)

    def _may_replace(self, path: Path, digests: Collection[str]) -> bool:
        there = _digest(path)
        if there == _OTHER:
            return False
        if there is None or there in digests or there in self._pending.get(self._place(path), ()):
            return True
        known = self._written.get(self._place(path))
        return known is not None and known.sha256 == there

    def refuse_outside(self, path: Path) -> None:
        """Raise OutputError where a link on the way to a path below the output folder leads out of it."""
        self._real = self._real or os.path.realpath(self._output)
        real = os.path.realpath(path.parent)
        if not Path(real).is_relative_to(self._real):
            raise OutputError(path, f"a link leads out of the output folder, to {real}", _OUTSIDE, only_this=True)

    def _note(self, path: Path, digest: str, image: str) -> None:
        """Write ahead what will be in place; after that it is this program's, however the process ends."""
        if not self._logs:
            return
        self.noted = True
        line = json_bytes([image, self._place(path), digest])
        # Opened for each line: so there is nothing to close, whichever process or thread ends first.
        with self._alone, AppendLog(self._log) as log:
            log.append(line)

    def _place(self, path: Path) -> str:
        return printable_path(path.relative_to(self._output))

    def __getstate__(self) -> tuple[Path, Path, str, bool]:
        return self._output, self._state, self._owner, self._logs

    def __setstate__(self, state: tuple[Path, Path, str, bool]) -> None:
        *places, logs = state
        self.__init__(*places)  # type: ignore[misc]  # a log and a lock are of one process
        self._logs = logs


def write_ahead_logs(state: Path) -> list[Path]:
    """The write-ahead logs in a state folder. Raises OutputError where it cannot be listed."""
    try:
        return sorted(state / name for name in os.listdir(state) if name.startswith(LOG_PREFIX))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise output_error(state, error) from error


def _make_link(image: Path, place: Path, temporary: Path) -> bool:
    """Make a link at `temporary` that will be at `place`; False where the file system has none. Raises OSError."""
    try:
        temporary.symlink_to(os.path.relpath(os.path.realpath(image), os.path.realpath(place.parent)))
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _log_lines(log: Path) -> Iterator[tuple[str, str, str]]:
    try:
        for _, line in lines_of(log):
            with suppress(ValueError, TypeError):  # as after a loss of power
                image, place, digest = parse(line)
                if isinstance(image, str) and isinstance(digest, str) and is_inside(place):
                    yield image, place, digest
    except OSError as error:
        raise output_error(log, error) from error


def _stamp(path: Path, digest: str) -> Fingerprint:
    """What is known of a file of that digest. Raises OSError."""
    status = path.stat()
    return Fingerprint(status.st_size, status.st_mtime_ns, digest)


def digest_of(path: Path) -> str:
    """The sha256 of a regular file, in hex; "" where the file is not there."""
    return _digest(path) or _OTHER


def _digest(path: Path) -> str | None:
    """The sha256 of a file, in hex; None where nothing is there, or a folder, which no file can replace; _OTHER for all else."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # nothing, or nothing that can be seen; then writing says why
        return None
    if stat.S_ISDIR(mode):
        return None
    try:
        return content_digest(path) if stat.S_ISREG(mode) else _OTHER
    except OSError:
        return _OTHER
