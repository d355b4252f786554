"""Replace and remove only files that tipsseg wrote. This rule holds for every write, link and removal in an output folder.

An existing file is replaced or removed only if a record shows that tipsseg wrote it and that its content has not changed since:

    image entries   the digests of per-image files
    run.json        the digests of run files, which cover all images
    notes           the digests of files that a run is about to put in place, in case it is killed

A file that already has the new content may also be replaced. No write follows a link out of the output folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from tipsseg.errors import OutputError
from tipsseg.images.sources.access import identify, is_plain, open_source
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import atomic_path, output_error, remove_file, temporary_path
from tipsseg.util.fingerprint import Fingerprint, content_digest, file_record, stamp
from tipsseg.util.links import leads_to, make_link
from tipsseg.util.record_paths import actual_path

#: Recorded for a link, instead of a digest.
LINK = "link"

#: Returned for an unreadable file and for anything but a regular file, instead of a digest.
_OTHER = ""

_NOT_OURS = "tipsseg did not write this file, or it was changed since"
#: The hint for a file that is in the way.
MOVE = "Move the file away, or choose another output folder with argument `output`."
_OUTSIDE = "Put a folder in the place of the link, or choose another output folder with argument `output`."


class Notes(Protocol):
    """Records of files that are about to be put in place: (place, digest or LINK, image), with the image "" for run files."""

    def note_ahead(self, files: Iterable[tuple[str, str, str]]) -> None:
        """Record files durably. Raises OutputError."""

    def ahead(self) -> Iterable[tuple[str, str, str]]:
        """Return the files whose image or run is not recorded yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """A file of an image that still has a temporary name.

    Attributes:
        temporary: The temporary path.
        path: The final path.
        digest: The sha256 of its content, in hex.
        form: The name of its format.
        link: The path of the link to the image that is made with the file; None for no link.
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
    """The recorded files of an image that are about to be replaced.

    Attributes:
        replaceable: Files that may be replaced, as (path relative to the output folder, recorded sha256).
        formats: The formats that the image was written in. tipsseg made the links to the image in their folders.
        content: The sha256 of the image, of which copies may replace links.
    """

    replaceable: frozenset[tuple[str, str]] = frozenset()
    formats: tuple[str, ...] = ()
    content: str | None = None


class Ownership:
    """The files that tipsseg wrote into an output folder. Copies in other processes can stage files."""

    def __init__(self, output: Path, owner: str = "") -> None:
        """Start without records; `load` adds them. `owner` is a part of temporary names; see `files.atomic_path`."""
        self._output = output
        self._owner = owner
        self._real = ""
        self._notes: Notes | None = None
        self._written: dict[str, Fingerprint] = {}
        self._pending: dict[str, set[str]] = {}

    def load(self, written: Mapping[str, Fingerprint], notes: Notes | None = None) -> None:
        """Load the records of earlier runs. Raises OutputError.

        Args:
            written: The run files by path relative to the output folder; see `record`.
            notes: The records of files that are about to be put in place; None to record nothing.
        """
        self._notes = notes
        self._written = dict(written)
        self._pending = {}
        for place, digest, image in () if notes is None else notes.ahead():
            self._pending.setdefault(place, set()).add(digest)
            path = actual_path(self._output, place)
            # A run file that was put in place, but is not in run.json.
            if not image and digest_of(path) == digest:
                self._written[place] = stamp(path, digest)

    def record(self) -> dict[str, object]:
        """Return the run files, as listed in run.json under `files`."""
        return {place: file_record(self._written[place]) for place in sorted(self._written)}

    def as_they_are(self, paths: Iterable[Path]) -> frozenset[tuple[str, str]]:
        """Return the current files at these paths, in the form of `Former.replaceable`."""
        return frozenset((self._place(path), digest_of(path)) for path in paths)

    def remove_pending(self) -> list[Path]:
        """Remove the files that a killed run left. Return those that were changed since, which are kept. Raises OutputError."""
        kept = []
        for place, digests in self._pending.items():
            path = actual_path(self._output, place)
            if LINK in digests:
                self.remove_link(path)
            if not self.remove(path, ()):
                kept.append(path)
        return kept

    def is_pending(self, path: Path) -> bool:
        """Return True if the file at a path is one that a killed run was about to put there."""
        known = self._pending.get(self._place(path), ())
        return bool(known) and _digest(path) in known

    def is_unchanged(self, path: Path) -> bool:
        """Return True if a run file is absent or as tipsseg wrote it, compared by size and time or by content."""
        with suppress(OSError):
            known = self._written.get(self._place(path))
            if known is not None and not path.is_symlink() and known.matches(path):
                return True
        return self._may_replace(path, ())

    def adopt(self, path: Path) -> None:
        """Record an existing file as a run file that tipsseg wrote. Raises OutputError."""
        try:
            self._written[self._place(path)] = stamp(path)
        except OSError as error:
            raise output_error(path, error) from error

    def refuse_changed(self, path: Path, hint: str = MOVE) -> None:
        """Raise OutputError if a run file exists and is not as tipsseg wrote it."""
        if not self.is_unchanged(path):
            raise OutputError(path, _NOT_OURS, hint, only_this=True)

    def stage(
        self, form: str, path: Path, data: bytes | Callable[[Path], None], link: Path | None = None
    ) -> tuple[StagedFile, Fingerprint]:
        """Write a file of an image under a temporary name in its folder. Safe to call from any thread or process.

        `data` is its content, or a function that writes it.

        Returns:
            The file for `put`, and its fingerprint for the records.

        Raises:
            OutputError: A link leads out of the output folder, or the file cannot be written.
        """
        self.refuse_outside(path)
        temporary = temporary_path(path, self._owner)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = None
            if isinstance(data, bytes):
                temporary.write_bytes(data)
                digest = hashlib.sha256(data).hexdigest()
            else:
                data(temporary)
            written = stamp(temporary, digest)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                raise output_error(path, error) from error
            raise
        assert written.sha256 is not None
        return StagedFile(temporary=temporary, path=path, digest=written.sha256, form=form, link=link), written

    def put(self, ref: ImageRef, files: Sequence[StagedFile], former: Former) -> None:
        """Put the files and links of an image in place. If an existing file is in the way of one, put none in place.

        Raises:
            OutputError: A file is in the way, or cannot be renamed. The temporary files are then removed.
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
        """Put a copy of a file in place, with these access and modification times in nanoseconds. Raises OutputError like `put`."""
        self.refuse_outside(path)
        with atomic_path(path, self._owner) as temporary:
            with temporary.open("wb") as target:
                shutil.copyfileobj(source, target)
            digest = content_digest(temporary)
            os.utime(temporary, ns=times)  # after reading, which changes the access time
            self._approve(path, digest, ())
            self._note([(path, digest)], ref.name)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path for a run file and rename it afterwards, like `files.atomic_path`.

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
        with self.replacing(path) as temporary:
            temporary.write_bytes(data)

    def link(self, ref: ImageRef, place: Path, *, ours: bool) -> None:
        """Make a relative link to an image at `place`, or a copy if the file system has no links.

        A link has no content to compare: any link at the place of a recorded link counts as the recorded one.

        Args:
            ref: The image.
            place: A path below the output folder.
            ours: True if the manifest shows that tipsseg made a link there.

        Raises:
            OutputError: A file is in the way, a link leads out of the output folder, or the system refuses.
        """
        if not leads_to(place, ref.path):
            self._approve_link(ref, place, None, ours=ours)
            self._note([(place, LINK)], ref.name)
            self._make_link(ref, place)

    def _approve_link(self, ref: ImageRef, place: Path, content: str | None, *, ours: bool) -> None:
        """Raise OutputError if a link to the image, or a copy of it, must not be put at `place`."""
        self.refuse_outside(place)
        if place.is_symlink():
            may = ours or LINK in self._pending.get(self._place(place), ())
        else:
            may = self._may_replace(place, (content,) if content else ()) or _digest(place) == _image_digest(ref.path)
        if not may:
            raise OutputError(place, _NOT_OURS, MOVE, only_this=True)

    def _make_link(self, ref: ImageRef, place: Path) -> None:
        with atomic_path(place, self._owner) as temporary:
            if not (is_plain(ref.path) and make_link(ref.path, place, temporary)):
                with open_source(ref.path) as source, temporary.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                self._note([(place, content_digest(temporary))], ref.name)

    def restore_link(self, ref: ImageRef, place: Path) -> None:
        """Restore a link that tipsseg made, after its image was moved. Raises OutputError."""
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
            os.removedirs(path.parent)  # only empty folders

    def refuse_taken(self, path: Path, place: Path) -> None:
        """Raise OutputError if the place that a file moves to is taken, except by a link to the same image."""
        if not (os.path.lexists(path) and os.path.lexists(place)):
            return
        links = path.is_symlink() and place.is_symlink()
        if not links or os.path.realpath(path) != os.path.realpath(place):
            raise OutputError(place, _NOT_OURS, MOVE, only_this=True)

    def remove_link(self, place: Path) -> None:
        """Remove a link that tipsseg made. Anything but a link is kept. Raises OutputError."""
        self.refuse_outside(place)
        if place.is_symlink():
            remove_file(place)

    def remove(self, path: Path, digests: Collection[str]) -> bool:
        """Remove a file if it has one of these digests. Return True if the path is then free. Raises OutputError."""
        self.refuse_outside(path)
        if not os.path.lexists(path):
            return True
        if not self._may_replace(path, digests):
            return False
        remove_file(path)
        return True

    def remove_run_files(self) -> None:
        """Remove all run files except changed ones. Raises OutputError."""
        for place in list(self._written):
            self.remove_run_file(self._output / place)

    def remove_run_file(self, path: Path) -> None:
        """Remove a run file unless it was changed, and drop it from `record`. Raises OutputError."""
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
        """Raise OutputError if a link in a path leads out of the output folder."""
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


def _image_digest(path: Path) -> str | None:
    try:
        return identify(path, any_size=True)[1]
    except (OSError, ValueError):  # reported when it is copied
        return None


def _digest(path: Path) -> str | None:
    """Return the sha256 of a regular file in hex; None if absent, or for a folder, which no file can replace; else _OTHER."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # absent or inaccessible; writing will then report the reason
        return None
    if stat.S_ISDIR(mode):
        return None
    try:
        return content_digest(path) if stat.S_ISREG(mode) else _OTHER
    except OSError:
        return _OTHER
