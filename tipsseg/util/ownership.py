"""Which files of an output folder this program wrote: the one rule for every write, link and removal below it.

A path that exists is replaced or removed only if a record says that this program wrote it and its content is still that. Records:

    the entry of an image   the digests of its files
    run.json                the digests of the files that stand for the whole run
    notes                   the digests of files that a run was about to put in place: of one that was killed nothing else tells

A file with exactly the content that is to be written is never in the way. No write follows a link out of the output folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from tipsseg.errors import OutputError
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import TEMPORARY_PREFIX, atomic_path, output_error, remove_file
from tipsseg.util.fingerprint import Fingerprint, content_digest, file_record
from tipsseg.util.record_paths import actual_path

#: In place of a digest, for a link.
LINK = "link"

#: In place of a digest, for what is no regular file, or cannot be read.
_OTHER = ""

#: What the system says where it has no links, or the user may make none.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})

_NOT_OURS = "tipsseg did not write the file that is there, or the file was changed since"
#: What to do about a file that is in the way.
MOVE = "Move the file away, or choose another output folder with argument `output`."
_OUTSIDE = "Put a folder in the place of the link, or choose another output folder with argument `output`."


class Notes(Protocol):
    """Keeps what is about to be put in place: the place, the digest or LINK, and the name of the image, "" for the whole run."""

    def note_ahead(self, files: Iterable[tuple[str, str, str]]) -> None:
        """Note files, for good. Raises OutputError."""

    def ahead(self) -> Iterable[tuple[str, str, str]]:
        """Return what was noted, and not recorded since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """A file of an image that has a temporary name yet.

    Attributes:
        temporary: Where it is.
        path: Where it belongs.
        digest: The sha256 of its content, in hex.
        form: Its format.
        link: Where a link to the image belongs that goes with it; None: nowhere.
    """

    temporary: Path
    path: Path
    digest: str
    form: str
    link: Path | None = None

    def discard(self) -> None:
        """Remove the file, as far as it has its temporary name."""
        with suppress(OSError):
            self.temporary.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """What the records say of the files of an image before they are replaced.

    Attributes:
        replaceable: Files that may be replaced: the path relative to the output folder, and the sha256 that may be there.
        formats: The formats that the image was in; a link to it in one of them is this program's.
        content: The sha256 of the image; copies of it may stand in place of links.
    """

    replaceable: frozenset[tuple[str, str]] = frozenset()
    formats: tuple[str, ...] = ()
    content: str | None = None


class Ownership:
    """What of an output folder is this program's. A copy in another process can stage files."""

    def __init__(self, output: Path, owner: str = "") -> None:
        """Of the output folder; `owner` as for `files.atomic_path`."""
        self._output = output
        self._owner = owner
        self._real = ""
        self._notes: Notes | None = None
        self._written: dict[str, Fingerprint] = {}
        self._pending: dict[str, set[str]] = {}

    def load(self, written: Mapping[str, Fingerprint], notes: Notes | None = None) -> None:
        """Take up what earlier runs wrote, and where to note what is about to be put in place. Raises OutputError.

        Args:
            written: The files that stand for the whole run, by their paths relative to the output folder, see `record`.
            notes: None: nothing is noted.
        """
        self._notes = notes
        self._written = dict(written)
        self._pending = {}
        for place, digest, image in () if notes is None else notes.ahead():
            self._pending.setdefault(place, set()).add(digest)
            path = actual_path(self._output, place)
            # A file of the whole run that got to its place, but not into run.json.
            if not image and digest_of(path) == digest:
                self._written[place] = _stamp(path, digest)

    def record(self) -> dict[str, object]:
        """The files that stand for the whole run, as run.json has them under `files`."""
        return {place: file_record(self._written[place]) for place in sorted(self._written)}

    def as_they_are(self, paths: Iterable[Path]) -> frozenset[tuple[str, str]]:
        """What is at these paths now, as `Former.replaceable` has it."""
        return frozenset((self._place(path), digest_of(path)) for path in paths)

    def remove_pending(self) -> list[Path]:
        """Remove what a run which was broken off left; returns the files that were changed since, and stay. Raises OutputError."""
        kept = []
        for place, digests in self._pending.items():
            path = actual_path(self._output, place)
            if LINK in digests:
                self.remove_link(path)
            if not self.remove(path, ()):
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

    def refuse_changed(self, path: Path) -> None:
        """Raise OutputError where a file that stands for the whole run is there, and is not as this program wrote it."""
        if not self.is_unchanged(path):
            raise OutputError(path, _NOT_OURS, MOVE, only_this=True)

    def stage(self, form: str, path: Path, data: bytes, link: Path | None) -> tuple[StagedFile, Fingerprint]:
        """Write a file of an image under a temporary name beside its place. Any thread and process may do it.

        Returns:
            The file for `put`, and what it will be then, for the records.

        Raises:
            OutputError: If a link leads out of the output folder, or the system refuses.
        """
        self.refuse_outside(path)
        digest = hashlib.sha256(data).hexdigest()
        temporary = path.parent / f"{TEMPORARY_PREFIX}{self._owner}{secrets.token_hex(8)}{path.suffix}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            return StagedFile(temporary=temporary, path=path, digest=digest, form=form, link=link), _stamp(
                temporary, digest
            )
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                raise output_error(path, error) from error
            raise

    def put(self, ref: ImageRef, files: Sequence[StagedFile], former: Former) -> None:
        """Put the files of an image in place, and its links, by the rule above: all of them or, if one is in the way, none.

        Raises:
            OutputError: If a file is in the way, or the system refuses. The files have no temporary names any more.
        """
        try:
            for file in files:
                self._approve(file.path, file.digest, former.replaceable)
            links = {file.link: file.form for file in files if file.link and not _is_same(file.link, ref.path)}
            for link, form in links.items():
                self._approve_link(ref, link, former.content, ours=form in former.formats)
            self._note([*((file.path, file.digest) for file in files), *((link, LINK) for link in links)], ref.name)
            for link in links:
                self._make_link(ref, link)
            for file in files:
                try:
                    file.temporary.replace(file.path)
                except OSError as error:
                    raise output_error(file.path, error) from error
        except BaseException:
            for file in files:
                file.discard()
            raise

    def copy(self, ref: ImageRef, source: BinaryIO, path: Path, times: tuple[int, int]) -> None:
        """Put a copy of another file in place, with times of access and change in nanoseconds. Raises OutputError as `put` does."""
        self.refuse_outside(path)
        with atomic_path(path, self._owner) as temporary:
            with temporary.open("wb") as target:
                shutil.copyfileobj(source, target)
            digest = content_digest(temporary)
            os.utime(temporary, ns=times)  # after it was read, which is an access
            self._approve(path, digest, ())
            self._note([(path, digest)], ref.name)

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
            self._approve(path, digest, ())
            self._note([(path, digest)], "")
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
        if not _is_same(place, ref.path):
            self._approve_link(ref, place, None, ours=ours)
            self._note([(place, LINK)], ref.name)
            self._make_link(ref, place)

    def _approve_link(self, ref: ImageRef, place: Path, content: str | None, *, ours: bool) -> None:
        """Approve that a link, or a copy of the image, gets the name `place`. Raises OutputError."""
        self.refuse_outside(place)
        if place.is_symlink():
            may = ours or LINK in self._pending.get(self._place(place), ())
        else:
            may = self._may_replace(place, (content,) if content else ()) or _digest(place) == _digest(ref.path)
        if not may:
            raise OutputError(place, _NOT_OURS, MOVE, only_this=True)

    def _make_link(self, ref: ImageRef, place: Path) -> None:
        with atomic_path(place, self._owner) as temporary:
            if not _make_link(ref.path, place, temporary):
                shutil.copyfile(ref.path, temporary)
                self._note([(place, content_digest(temporary))], ref.name)

    def restore_link(self, ref: ImageRef, place: Path) -> None:
        """Let a link that this program made lead to its image again, as after the image was moved. Raises OutputError."""
        if not _is_same(place, ref.path) and (place.is_symlink() or not os.path.lexists(place)):
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

    def _approve(self, path: Path, digest: str, replaceable: Collection[tuple[str, str]]) -> None:
        """Approve that a file of that digest gets the name `path`. Raises OutputError."""
        own = self._place(path)
        if not self._may_replace(path, (digest, *(before for place, before in replaceable if place == own))):
            raise OutputError(path, _NOT_OURS, MOVE, only_this=True)

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

    def _note(self, files: Sequence[tuple[Path, str]], image: str) -> None:
        """Note what will be in place; after that it is this program's, however the process ends."""
        if self._notes is not None:
            self._notes.note_ahead([(self._place(path), digest, image) for path, digest in files])

    def _place(self, path: Path) -> str:
        return printable_path(path.relative_to(self._output))

    def __getstate__(self) -> tuple[Path, str]:
        return self._output, self._owner

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # notes are of one process


def _is_same(place: Path, image: Path) -> bool:
    """Return whether a link leads to an image."""
    with suppress(OSError):
        return place.samefile(image)
    return False


def _make_link(image: Path, place: Path, temporary: Path) -> bool:
    """Make a link at `temporary` that will be at `place`; False where the file system has none. Raises OSError."""
    try:
        temporary.symlink_to(os.path.relpath(os.path.realpath(image), os.path.realpath(place.parent)))
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


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
