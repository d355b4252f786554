"""Compare a run with the state left by an earlier run: find images that are finished, edited or in conflict."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, format_name, mask_formats
from tipsseg.formats.base import PartsFormat
from tipsseg.formats.classes_file import CLASSES_FILE
from tipsseg.images.sources.access import identify, matches, stamp
from tipsseg.store.manifest import ManifestEntry, input_path
from tipsseg.store.ownership import MOVE, Former
from tipsseg.store.results import Failed, Left, Unchanged, edited_formats, image_paths, in_place
from tipsseg.store.spec import RunInfo
from tipsseg.store.state import State
from tipsseg.store.stored_image import suffices
from tipsseg.store.writing import RunContext, rows_file
from tipsseg.types import ImageRef
from tipsseg.util.files import is_folder
from tipsseg.util.record_paths import actual_path

ANOTHER_FOLDER = "Choose another output folder with argument `output`"
_OTHER_INPUT = (
    f"{ANOTHER_FOLDER}. Or label all folders in one command into a new output folder: names are then relative to their common "
    "parent. If the image was moved and changed, start over with argument `overwrite`."
)
_PUT_BACK = "Restore the mask, or label the image again with argument `replace_edited`, which discards the correction."
_MOVE_OR_REPLACE = (
    "Move the file away, or label the image again with argument `replace_edited`, which replaces the file."
)


class ResumeState:
    """The state left by an earlier run, compared with the run that resumes it.

    Attributes:
        info: The run that resumes.
        digest: Digest of all settings that affect its labels, see `RunInfo.digest`.
        context: The settings and folders for its format writers.
        before: The earlier run, from run.json; None if run.json is missing.
        state: The database of the folder.
        outdated: Formats of images that have since been labelled differently.
        lost: Number of images that run.json counts but the state lacks.
        kept: Edited files that were kept when the folder was overwritten, and that the state does not record.
        files: The file options, with the folder's `val_fraction` unless the user set one.
    """

    def __init__(self, info: RunInfo, before: RunInfo | None, context: RunContext, state: State) -> None:
        self.info = info
        self.digest = info.digest
        self.before = before
        self.state = state
        fraction = info.spec.files.val_fraction
        if fraction is None:
            fraction = 0.0 if before is None or info.spec.overwrite else before.spec.files.val_fraction or 0.0
        self.files = replace(info.spec.files, val_fraction=fraction)
        self.context = context.with_files(self.files)
        self.context.ownership.load({} if before is None else before.files, state)
        self.lost = 0 if before is None else max(0, before.images - len(state))
        self.outdated: set[str] = set()
        self._owners: dict[Path, str] | None = None  # image path by file; collected when a file is in the way
        kept = () if before is None else before.kept
        self.kept = frozenset(actual_path(context.output, place) for place in kept)

    def settle(self, info: RunInfo) -> None:
        """Replace the run with the same run of known dtype."""
        self.info = info
        self.digest = info.digest

    def start_over(self, kept: Collection[Path]) -> None:
        """Forget the earlier run, except the edited files that were kept."""
        self.before, self.lost, self.kept = None, 0, frozenset(kept)
        self.context.ownership.load({}, self.state)

    # ---- the folder ----

    @property
    def of_the_same(self) -> bool:
        """Return True if the earlier run has the same digest."""
        return self.before is not None and self.before.digest == self.digest

    @property
    def mixed(self) -> bool:
        """Return True if the folder has labels with a different digest."""
        return bool(self.state.others(self.digest))

    @property
    def lacks_formats(self) -> bool:
        """Return True if the earlier run is finished, can be converted, and has images that lack formats of this run."""
        spec = self.info.spec
        if not self.of_the_same or self.incomplete or not spec.resume or spec.shard is not None:
            return False
        if not (spec.output / CLASSES_FILE).is_file():  # a conversion needs it, and a run writes it again
            return False
        return any(not set(spec.formats) <= set(formats) for formats in self.state.formats()) or bool(self.lost_rows())

    def lost_rows(self) -> list[tuple[Path, int]]:
        """Return this run's files that lost rows, each with the number of images whose rows are lost."""
        state = self.state
        rows = [file for name in self.info.spec.formats if (file := rows_file(name, self.context)) is not None]
        lost = [len(state.holding(file.form.name)) - len(state.with_rows(file.form.name)) for file in rows]
        return [(file.path, number) for file, number in zip(rows, lost, strict=True) if number]

    @property
    def incomplete(self) -> bool:
        """Return True if the earlier run was killed or lost records, so that unrecorded files may exist."""
        return self.before is not None and (
            self.before.ended is None or self.incomplete_for_good or self.state.broken_off
        )

    @property
    def incomplete_for_good(self) -> bool:
        """Return True if image records were lost, so that their files are unknown."""
        return bool(self.lost or self.state.unreadable or (self.before is not None and self.before.lost))

    # ---- an image ----

    def item(self, ref: ImageRef) -> Left:
        """Return the image if it must be labelled, otherwise its result. Thread-safe."""
        context, spec = self.context, self.info.spec
        entry = self.state.get(ref.name)
        if conflict := self.conflict(ref, None if entry is None else (entry.path, entry.formats)):
            return Failed(ref, ImageError(ref.path, *conflict))
        if entry is None:
            return ref
        edited = edited_formats(entry, ref, context)
        if edited and not spec.replace_edited:
            lacking = tuple(
                name
                for name in spec.formats
                if name not in edited and not in_place(name, entry, ref, context, self.state)
            )
            return Unchanged(ref, entry, edited, lacking, not matches(entry.fingerprint, ref.path))
        gone = None if edited or entry.corrected is None or spec.replace_edited else self._gone_mask(entry, ref)
        if gone is not None:
            return Failed(ref, ImageError(gone, "it was corrected by hand, but is missing", _PUT_BACK))
        if spec.resume and not edited and self._is_done(entry, ref):
            return Unchanged(ref, entry)
        return ref

    def former(self, ref: ImageRef, entry: ManifestEntry | None) -> Former:
        """Return the existing files of an image that this run may replace; `entry` is its recorded entry."""
        context = self.context
        former = Former() if entry is None else entry.former
        if not self.info.spec.replace_edited:
            return former
        paths = [path for path in self._places(ref, self.info.spec.formats) if path in self.kept]
        if entry is not None:
            paths += image_paths(context, ref, edited_formats(entry, ref, context), entry).values()
        return replace(former, replaceable=former.replaceable | context.ownership.as_they_are(paths))

    def files_of(self, ref: ImageRef) -> set[Path]:
        paths = self._places(ref, self.info.spec.formats)
        return {path for path in paths if os.path.lexists(path)}

    def _places(self, ref: ImageRef, formats: Iterable[str]) -> list[Path]:
        """Return the paths of an image's files in these formats; of formats with several files, those that were kept."""
        forms = [form for name in formats if isinstance(form := FORMATS[name], PartsFormat)]
        kept = [
            path
            for path in (self.kept if forms else ())
            if any(form.is_of(_relative(path, self.context), ref.relative, self.files) for form in forms)
        ]
        return [*image_paths(self.context, ref, formats).values(), *kept]

    def conflict(self, ref: ImageRef, known: tuple[str, tuple[str, ...]] | None) -> tuple[str, str] | None:
        """Return the reason and the hint if an image cannot use its file names; None if it can.

        `known` is the path and the formats of the image in the state, see `State.path_and_formats`.
        """
        context, (path, held) = self.context, known or ("", ())
        if known is not None and path != input_path(ref) and not self.info.spec.overwrite:
            entry = self.state.get(ref.name)
            if entry is not None and _is_other(entry, ref.path):
                return f"the folder has labels of another image with that name, {path}", _OTHER_INPUT
        new = [name for name in self.info.spec.formats if name not in held]
        for file in self._places(ref, new):
            if self.incomplete and file not in self.kept:
                continue
            # A file cannot replace a folder: this image will fail without harm.
            if os.path.lexists(file) and not is_folder(file) and not context.ownership.is_pending(file):
                return self._conflict_with(file)
        return None

    def _conflict_with(self, path: Path) -> tuple[str, str] | None:
        """Return the reason and the hint for a file in the way; None if it may be replaced."""
        output = self.context.output
        if path in self.kept:
            if self.info.spec.replace_edited:
                return None
            return f"{path} was changed by hand, and kept when the folder was overwritten", _MOVE_OR_REPLACE
        if self._owners is None:
            self._owners = {
                actual_path(output, file): entry.path for entry in self.state.entries() for file in entry.files.values()
            }
        if path in self._owners:
            return (
                f"{path} has the labels of another image, {self._owners[path]}",
                f"{_OTHER_INPUT} Or pass argument `names`=full.",
            )
        return f"{path} exists, and tipsseg did not write it for this image", MOVE

    def new_formats(self, image: str) -> tuple[str, ...]:
        """Return the formats of this run that lack an image: its entry does not list them, or its rows are missing."""
        _, held = self.state.path_and_formats(image) or ("", ())
        return tuple(
            name
            for name in self.info.spec.formats
            if name not in held or (FORMATS[name].has_rows and not self.state.has_rows(name, image))
        )

    def is_convertible(self, ref: ImageRef) -> bool:
        """Return True if an image lacks only formats that can be written from its files."""
        entry, new = self.state.get(ref.name), self.new_formats(ref.name)
        if entry is None or not self._is_done(entry, ref, but=new):
            return False
        held = [name for name in entry.formats if in_place(name, entry, ref, self.context, self.state)]
        return all(follows(name, entry, held) for name in new)

    def with_other_formats(self, entry: ManifestEntry, before: ManifestEntry | None) -> ManifestEntry:
        """Add the other formats of the earlier entry `before` to a new entry, if both have the same labels.

        If the labels differ, add the other formats to `outdated` instead.
        """
        if before is None:
            return entry
        same = (before.digest, before.given) == (entry.digest, entry.given)
        same = same and entry.fingerprint.same_content(before.fingerprint)
        if not same or before.corrected is not None:
            self.outdated |= set(before.formats) - set(entry.formats)
            return entry
        output = self.context.output
        others = before.without(entry.formats)
        gone = {
            format_name(key)
            for key, file in others.files.items()
            if not others.written[key].is_unchanged(actual_path(output, file))
        }
        kept = others.without(gone)
        return replace(
            entry,
            formats=(*entry.formats, *kept.formats),
            files={**entry.files, **kept.files},
            written={**entry.written, **kept.written},
        )

    def _gone_mask(self, entry: ManifestEntry, ref: ImageRef) -> Path | None:
        paths = image_paths(self.context, ref, [name for name in mask_formats() if name in entry.files]).values()
        return next((path for path in paths if not os.path.lexists(path)), None)

    def _is_done(self, entry: ManifestEntry, ref: ImageRef, but: Container[str] = ()) -> bool:
        """Return True if input and digest are the same and all files are unchanged, except in the formats `but`."""
        context = self.context
        formats = [name for name in self.info.spec.formats if name not in but]
        return (
            entry.digest == self.digest
            and entry.corrected is None
            and all(in_place(name, entry, ref, context, self.state) for name in formats)
            and matches(entry.fingerprint, ref.path)
            and entry.given == self._given(ref, entry)
        )

    def _given(self, ref: ImageRef, entry: ManifestEntry) -> str | None:
        """Return the digest of an image's regions and labels; None without both, and if they cannot be read."""
        given = self.info.spec.given
        with suppress(ImageError):  # reported when the image is labelled
            return None if given is None else given.digest(ref, entry.numbers.size)
        return None


def _relative(path: Path, context: RunContext) -> PurePosixPath:
    return PurePosixPath(path.relative_to(context.output))


def follows(name: str, entry: ManifestEntry, held: Collection[str]) -> bool:
    """Return True if format `name` can be written from the formats `held`, byte for byte."""
    return suffices(name, held)


def _is_other(entry: ManifestEntry, path: Path) -> bool:
    """Return True if a file's content differs from what was labelled."""
    try:
        if stamp(path).size not in (None, entry.fingerprint.size):
            return True
        return not identify(path)[0].same_content(entry.fingerprint)
    except (OSError, ValueError):  # reported when the image is read
        return False
