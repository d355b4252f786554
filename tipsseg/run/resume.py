"""Decide what becomes of an image: the only judge. Each decision has a reason that the user is told."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.formats import is_model_only
from tipsseg.images.access import identify, matches, stamp_source
from tipsseg.run.entry import Entry, FileRow, input_path
from tipsseg.run.files import Files, digest_of
from tipsseg.run.labels import RunContext, label_rows
from tipsseg.run.results import Unchanged
from tipsseg.run.spec import RunSpec
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import shell_word

#: The reasons to label an image, or to keep a correction.
NEW = "new"
OTHER_PICTURE = "the picture changed since it was corrected"
SCORES = "npz or confidence is missing, which only the model can write"

_OTHER_INPUT = (
    "Choose another output folder with argument `output`. Or label all folders in one command into a new output folder: names are "
    "then relative to their common parent. If the image was moved and changed, remove the labels of the old one: "
)


@dataclass(frozen=True, slots=True)
class Todo:
    """The reason to label an image."""

    reason: str


def decide(  # noqa: PLR0911 - one judge, one list
    ref: ImageRef, entry: Entry | None, rows: Mapping[str, FileRow], spec: RunSpec, files: Files, context: RunContext
) -> Todo | Unchanged | Failed:
    """Decide what becomes of an image; `entry` is its record, and `rows` are its files by place."""
    if entry is None:
        return Todo(NEW)
    if entry.path != input_path(ref) and not spec.replace_edited and _is_other(entry, ref.path):
        reason = f"the folder has labels of another image with that name, {entry.path}"
        remove = f"tipsseg correct {shell_word(str(files.output))} --remove {shell_word(entry.image)}"
        return Failed(ref, ImageError(ref.path, reason, _OTHER_INPUT + remove))
    labels = label_rows(rows, context)
    gone = next((files.path(row.place) for row in labels if files.look(row) == "gone"), None)
    if entry.undone:
        return Todo("the correction was undone")
    if entry.corrected or is_edited(entry, labels, files):
        if spec.replace_edited:
            return Todo("the correction is replaced")
        if gone is not None and entry.corrected:
            undo = f"tipsseg correct {shell_word(str(files.output))} --undo {shell_word(entry.image)}"
            hint = f"Restore the mask. To give the image back to the model and label it again: {undo}"
            return Failed(ref, ImageError(gone, "it was corrected by hand, but is missing", hint))
        return Unchanged(ref, entry, "edited by hand" if matches(entry.input, ref.path) else OTHER_PICTURE)
    if not matches(entry.input, ref.path):
        return Todo("the image changed")
    if entry.given != _given(ref, entry, spec):
        return Todo("the regions, labels or names changed")
    if gone is not None or not labels or any(row.pending for row in labels):
        return Todo("the labels are missing")  # or a killed command was about to write them
    if _lacks_scores(rows, spec, files):
        return Todo(SCORES)
    return Unchanged(ref, entry)


def is_edited(entry: Entry, labels: list[FileRow], files: Files) -> bool:
    """Return True if a person changed a label file in place, or `tipsseg correct` was killed while it replaced one."""
    return any(
        files.look(row) in ("edited", "taken", "foreign")
        or (entry.coming is not None and row.pending is not None and digest_of(files.path(row.place)) == row.pending)
        for row in labels
    )


def _lacks_scores(rows: Mapping[str, FileRow], spec: RunSpec, files: Files) -> bool:
    """Return True if a file is missing that only the model can write."""
    known = [row for row in rows.values() if is_model_only(row.name) and row.pending is None]
    held = {row.name for row in known if files.look(row) != "gone"}
    return not held.issuperset(name for name in spec.formats if is_model_only(name))


def _given(ref: ImageRef, entry: Entry, spec: RunSpec) -> str | None:
    """Return the digest of an image's regions, labels and names; None without any, and if they cannot be read."""
    with suppress(ImageError):  # reported when the image is labelled
        return None if spec.given is None else spec.given.digest(ref, entry.numbers.size)
    return None


def _is_other(entry: Entry, path: Path) -> bool:
    """Return True if a file's content differs from what was labelled."""
    try:
        if stamp_source(path).size not in (None, entry.input.size):
            return True
        return not identify(path)[0].same_content(entry.input)
    except (OSError, ValueError):  # reported when the image is read
        return False
