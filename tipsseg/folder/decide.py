"""Decide what becomes of an image: the only judge. Each decision has a reason that the user is told."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from tipsseg.errors import ImageError, Words
from tipsseg.folder.entry import Entry, input_path
from tipsseg.folder.labels import RunContext, is_same_picture
from tipsseg.folder.results import OTHER_PICTURE, Unchanged
from tipsseg.folder.spec import RunSpec
from tipsseg.formats import file_path, is_model_only
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import shell_word

#: The reasons to label an image.
NEW = "new"
SCORES = "npz or confidence is missing, which only the model can write"

_OTHER_INPUT = Words(
    "Choose another output folder with {output}. Or label all folders in one command into a new "
    "output folder: names are then relative to their common parent. If the image was moved and "
    "changed, remove the labels of the old one: "
)


@dataclass(frozen=True, slots=True)
class Todo:
    """The reason to label an image."""

    reason: str


def decide(  # noqa: PLR0911 - one judge, one list
    ref: ImageRef, entry: Entry | None, spec: RunSpec, context: RunContext
) -> Todo | Unchanged | Failed:
    """Decide what becomes of an image; `entry` is what its mask says."""
    if entry is None:
        return Todo(NEW)
    same = is_same_picture(entry, ref.path, spec.reader)
    if not same and entry.path not in ("", input_path(ref)) and not spec.replace_edited:
        reason = f"the folder has labels of another image with that name, {entry.path}"
        remove = f"tipsseg correct {shell_word(str(context.output))} --remove {shell_word(entry.image)}"
        return Failed(ref, ImageError(ref.path, reason, _OTHER_INPUT + remove))
    if entry.corrected:
        if spec.replace_edited:
            return Todo("the correction is replaced")
        return Unchanged(ref, entry, "edited by hand" if same else OTHER_PICTURE)
    if entry.mask.question != context.question:
        return Todo("it was labelled with other settings")
    if not same:
        return Todo("the image changed")
    if entry.mask.given != _given(ref, entry, spec):
        return Todo("the regions, labels or names changed")
    if _lacks_scores(ref, context):
        return Todo(SCORES)
    return Unchanged(ref, entry)


def _lacks_scores(ref: ImageRef, context: RunContext) -> bool:
    """Return True if a file is missing that only the model can write."""
    names = (name for name in context.formats if is_model_only(name))
    places = (file_path(name, ref.relative, context.files) for name in names)
    return any(place is not None and not os.path.lexists(context.output / place) for place in places)


def _given(ref: ImageRef, entry: Entry, spec: RunSpec) -> str:
    """Return the digest of an image's regions, labels and names; "" without any, and if they cannot be read."""
    with suppress(ImageError):  # reported when the image is labelled
        return "" if spec.given is None else spec.given.digest(ref, entry.mask.size)
    return ""
