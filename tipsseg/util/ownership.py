"""Replace and remove only files that tipsseg wrote: the one rule for every write, link and removal in an output folder.

An existing file is replaced or removed only if a record says that tipsseg wrote it and its content has not changed since. Records:

    the entry of an image   the digests of its files
    run.json                the digests of the files for the whole run
    notes                   the digests of files that a run was about to put in place, in case it is killed

A file that has the new content already is never in the way. No write follows a link out of the output folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from tipsseg.errors import OutputError
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import atomic_path, output_error, remove_file, temporary_path
from tipsseg.util.fingerprint import Fingerprint, content_digest, file_record, stamp
from tipsseg.util.links import leads_to, make_link
from tipsseg.util.record_paths import actual_path

#: In place of a digest, for a link.
LINK = "link"

#: In place of a digest, for something other than a regular file, and for a file that cannot be read.
_OTHER = ""

_NOT_OURS = "tipsseg did not write this file, or it was changed since"
#: The hint for a file that is in the way.
MOVE = "Move the file away, or choose another output folder with argument `output`."
_OUTSIDE = "Put a folder in the place of the link, or choose another output folder with argument `output`."


class Notes(Protocol):
    """Records of files that are about to be put in place: place, digest or LINK, and the image, "" for the whole run."""

    def note_ahead(self, files: Iterable[tuple[str, str, str]]) -> None:
        """Record files durably. Raises OutputError."""

    def ahead(self) -> Iterable[tuple[str, str, str]]:
        """Return the files whose images or runs are not recorded yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """A file of an image under its temporary name.

    Attributes:
        temporary: The temporary name.
        path: The final name.
        digest: The sha256 of its content, in hex.
        form: Its format.
        link: Where a link to the image is made together with the file; None: no link.
    """

    temporary: Path
    path: Path
    digest: str
    form: str
    link: Path | None = None

    def discard(self) -> None:
        """Remove the file if it still has its temporary name."""
        with suppress(OSError):
            self.temporary.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """Recorded files of an image before they are replaced.

    Attributes:
        replaceable: Files that may be replaced: the path relative to the output folder, and its recorded sha256.
        formats: The formats that the image was in; tipsseg made the links to it in these.
        content: The sha256 of the image; copies of it may be in place of links.
    """

    replaceable: frozenset[tuple[str, str]] = frozenset()
    formats: tuple[str, ...] = ()
    content: str | None = None


class Ownership:
    """The files of an output folder that tipsseg wrote. A copy in another process can stage files."""

    def __init__(self, output: Path, owner: str = "") -> None:
        """Know nothing yet; see `load`. `owner` is a part of temporary names, see `files.atomic_path`."""
        self._output = output
        self._owner = owner
        self._real = ""
        self._notes: Notes | None = None
        self._written: dict[str, Fingerprint] = {}
        self._pending: dict[str, set[str]] = {}

    def load(self, written: Mapping[str, Fingerprint], notes: Notes | None = None) -> None:
        """Read what earlier runs wrote. Raises OutputError.

        Args:
            written: The files for the whole run, by their paths relative to the output folder, see `record`.
            notes: Where files that are about to be put in place are recorded; None: nowhere.
        """
        self._notes = notes
        self._written = dict(written)
        self._pending = {}
        for place, digest, image in () if notes is None else notes.ahead():
            self._pending.setdefault(place, set()).add(digest)
            path = actual_path(self._output, place)
            # A file for the whole run that was put in place, but is not in run.json.
            if not image and digest_of(path) == digest:
                self._written[place] = stamp(path, digest)

    def record(self) -> dict[str, object]:
        """Return the files for the whole run, as run.json has them under `files`."""
        return {place: file_record(self._written[place]) for place in sorted(self._written)}

    def as_they_are(self, paths: Iterable[Path]) -> frozenset[tuple[str, str]]:
        """Return the present files at these paths, as `Former.replaceable`."""
        return frozenset((self._place(path), digest_of(path)) for path in paths)

    def remove_pending(self) -> list[Path]:
        """Remove the files that a killed run left; return those that were changed since, and stay. Raises OutputError."""
        kept = []
        for place, digests in self._pending.items():
            path = actual_path(self._output, place)
            if LINK in digests:
                self.remove_link(path)
            if not self.remove(path, ()):
                kept.append(path)
        return kept

    def is_pending(self, path: Path) -> bool:
        """Return True if a killed run was about to put the present file at a path."""
        known = self._pending.get(self._place(path), ())
        return bool(known) and _digest(path) in known

    def is_unchanged(self, path: Path) -> bool:
        """Return True if a file for the whole run is absent, or as tipsseg wrote it, by size and time or by content."""
        with suppress(OSError):
            known = self._written.get(self._place(path))
            if known is not None and not path.is_symlink() and known.matches(path):
                return True
        return self._may_replace(path, ())

    def adopt(self, path: Path) -> None:
        """Record an existing file as one for the whole run that tipsseg wrote. Raises OutputError."""
        try:
            self._written[self._place(path)] = stamp(path)
        except OSError as error:
            raise output_error(path, error) from error

    def refuse_changed(self, path: Path, hint: str = MOVE) -> None:
        """Raise OutputError if a file for the whole run exists, and is not as tipsseg wrote it."""
        if not self.is_unchanged(path):
            raise OutputError(path, _NOT_OURS, hint, only_this=True)

    def stage(self, form: str, path: Path, data: bytes, link: Path | None) -> tuple[StagedFile, Fingerprint]:
        """Write a file of an image under a temporary name in its folder. Any thread and process may call it.

        Returns:
            The file for `put`, and its fingerprint for the records.

        Raises:
            OutputError: If a link leads out of the output folder, or the system refuses.
        """
        self.refuse_outside(path)
        digest = hashlib.sha256(data).hexdigest()
        file = StagedFile(temporary=temporary_path(path, self._owner), path=path, digest=digest, form=form, link=link)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file.temporary.write_bytes(data)
            return file, stamp(file.temporary, digest)
        except BaseException as error:
            file.discard()
            if isinstance(error, OSError):
                raise output_error(path, error) from error
            raise

    def put(self, ref: ImageRef, files: Sequence[StagedFile], former: Former) -> None:
        """Put the files of an image in place, and its links; if one file is in the way, put none.

        Raises:
            OutputError: A file is in the way, or the system refuses. The temporary files are removed.
        """
        try:
            for file in files:
                self._approve(file.path, file.digest, former.replaceable)
            links = {file.link: file.form for file in files if file.link and not leads_to(file.link, ref.path)}
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
        """Put a copy of a file in place, with these times of access and change in nanoseconds. Raises OutputError as `put` does."""
        self.refuse_outside(path)
        with atomic_path(path, self._owner) as temporary:
            with temporary.open("wb") as target:
                shutil.copyfileobj(source, target)
            digest = content_digest(temporary)
            os.utime(temporary, ns=times)  # after reading, which is an access
            self._approve(path, digest, ())
            self._note([(path, digest)], ref.name)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path for a file for the whole run, and rename it afterwards, as `files.atomic_path` does.

        Raises:
            OutputError: A file is in the way, a link leads out of the output folder, or the system refuses.
        """
        self.refuse_outside(path)
        with atomic_path(path, self._owner) as temporary:
            yield temporary
            digest = content_digest(temporary)
            written = stamp(temporary, digest)
            self._approve(path, digest, ())
            self._note([(path, digest)], "")
        self._written[self._place(path)] = written

    def write_run_file(self, path: Path, data: bytes) -> None:
        """Write a file for the whole run; see `replacing`."""
        with self.replacing(path) as temporary:
            temporary.write_bytes(data)

    def link(self, ref: ImageRef, place: Path, *, ours: bool) -> None:
        """Make a relative link to an image at `place`, or a copy if the file system has no links.

        A link has no content that could be compared: any link at the place of a recorded one counts as that one.

        Args:
            ref: The image.
            place: A path below the output folder.
            ours: Whether the manifest says that tipsseg made a link there.

        Raises:
            OutputError: A file is in the way, a link leads out of the output folder, or the system refuses.
        """
        if not leads_to(place, ref.path):
            self._approve_link(ref, place, None, ours=ours)
            self._note([(place, LINK)], ref.name)
            self._make_link(ref, place)

    def _approve_link(self, ref: ImageRef, place: Path, content: str | None, *, ours: bool) -> None:
        """Raise OutputError if a link, or a copy of the image, must not get the name `place`."""
        self.refuse_outside(place)
        if place.is_symlink():
            may = ours or LINK in self._pending.get(self._place(place), ())
        else:
            may = self._may_replace(place, (content,) if content else ()) or _digest(place) == _digest(ref.path)
        if not may:
            raise OutputError(place, _NOT_OURS, MOVE, only_this=True)

    def _make_link(self, ref: ImageRef, place: Path) -> None:
        with atomic_path(place, self._owner) as temporary:
            if not make_link(ref.path, place, temporary):
                shutil.copyfile(ref.path, temporary)
                self._note([(place, content_digest(temporary))], ref.name)

    def restore_link(self, ref: ImageRef, place: Path) -> None:
        """Make a link of tipsseg lead to its image again, after the image was moved. Raises OutputError."""
        if not leads_to(place, ref.path) and (place.is_symlink() or not os.path.lexists(place)):
            self.link(ref, place, ours=True)

    def move(self, path: Path, place: Path) -> None:
        """Move a file of an image, or a link to it, unless it was moved before. Raises OutputError if `place` is taken."""
        self.refuse_outside(path)
        self.refuse_outside(place)
        if not os.path.lexists(path):
            return
        self.refuse_taken(path, place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                with atomic_path(place, self._owner) as temporary:
                    make_link(path, place, temporary)
                path.unlink()
            else:
                path.rename(place)
        except OSError as error:
            raise output_error(place, error) from error
        with suppress(OSError):
            os.removedirs(path.parent)  # those that are empty

    def refuse_taken(self, path: Path, place: Path) -> None:
        """Raise OutputError if a file cannot move to a place because it is taken, but not by the moved link itself."""
        if not (os.path.lexists(path) and os.path.lexists(place)):
            return
        links = path.is_symlink() and place.is_symlink()
        if not links or os.path.realpath(path) != os.path.realpath(place):
            raise OutputError(place, _NOT_OURS, MOVE, only_this=True)

    def remove_link(self, place: Path) -> None:
        """Remove a link that tipsseg made; anything but a link stays. Raises OutputError."""
        self.refuse_outside(place)
        if place.is_symlink():
            remove_file(place)

    def remove(self, path: Path, digests: Collection[str]) -> bool:
        """Remove a file that has one of these digests; return True if the path is free now. Raises OutputError."""
        self.refuse_outside(path)
        if not os.path.lexists(path):
            return True
        if not self._may_replace(path, digests):
            return False
        remove_file(path)
        return True

    def remove_run_files(self) -> None:
        """Remove the files for the whole run, but those that were changed. Raises OutputError."""
        for place in list(self._written):
            self.remove_run_file(self._output / place)

    def remove_run_file(self, path: Path) -> None:
        """Remove a file for the whole run, unless it was changed, and drop it from `record`. Raises OutputError."""
        self.remove(path, ())
        self._written.pop(self._place(path), None)

    def _approve(self, path: Path, digest: str, replaceable: Collection[tuple[str, str]]) -> None:
        """Raise OutputError if a file with this digest must not get the name `path`."""
        own = self._place(path)
        if not self._may_replace(path, (digest, *(before for place, before in replaceable if place == own))):
            raise OutputError(path, _NOT_OURS, MOVE, only_this=True)

    def _may_replace(self, path: Path, digests: Collection[str]) -> bool:
        digest = _digest(path)
        if digest == _OTHER:
            return False
        if digest is None or digest in digests or digest in self._pending.get(self._place(path), ()):
            return True
        known = self._written.get(self._place(path))
        return known is not None and known.sha256 == digest

    def refuse_outside(self, path: Path) -> None:
        """Raise OutputError if a link on the way to a path below the output folder leads out of it."""
        self._real = self._real or os.path.realpath(self._output)
        real = os.path.realpath(path.parent)
        if not Path(real).is_relative_to(self._real):
            raise OutputError(path, f"a link leads out of the output folder, to {real}", _OUTSIDE, only_this=True)

    def _note(self, files: Sequence[tuple[Path, str]], image: str) -> None:
        """Record files before they are put in place, so that tipsseg recognises them if the process is killed."""
        if self._notes is not None:
            self._notes.note_ahead([(self._place(path), digest, image) for path, digest in files])

    def _place(self, path: Path) -> str:
        return printable_path(path.relative_to(self._output))

    def __getstate__(self) -> tuple[Path, str]:
        return self._output, self._owner

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # notes belong to one process


def digest_of(path: Path) -> str:
    """Return the sha256 of a regular file, in hex; "" if the file is absent, or not a regular file."""
    return _digest(path) or _OTHER


def _digest(path: Path) -> str | None:
    """Return the sha256 of a file, in hex; None for nothing or a folder, which no file can replace; else _OTHER."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # nothing, or nothing that can be seen; then writing fails with the reason
        return None
    if stat.S_ISDIR(mode):
        return None
    try:
        return content_digest(path) if stat.S_ISREG(mode) else _OTHER
    except OSError:
        return _OTHER
