"""Label files: one module for each format, one line here for each module.

`FORMATS` has the formats by name; `base.Format` says what a format is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tipsseg.errors import UsageError
from tipsseg.formats.base import Format
from tipsseg.formats.coco import Coco
from tipsseg.formats.coco_polygon import CocoPolygon
from tipsseg.formats.coco_results import CocoResults
from tipsseg.formats.confidence import Confidence
from tipsseg.formats.cvat import Cvat
from tipsseg.formats.hf import HuggingFace
from tipsseg.formats.label_studio import LabelStudio
from tipsseg.formats.labelme import LabelMe
from tipsseg.formats.npz import Npz
from tipsseg.formats.overlay import Overlay
from tipsseg.formats.panoptic import Panoptic
from tipsseg.formats.png import Png
from tipsseg.formats.yolo import Yolo

if TYPE_CHECKING:
    from tipsseg.types import LabelClass

#: The formats by name.
FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Png(),
        Coco(),
        CocoPolygon(),
        CocoResults(),
        Panoptic(),
        Yolo(),
        LabelMe(),
        Cvat(),
        LabelStudio(),
        HuggingFace(),
        Npz(),
        Overlay(),
        Confidence(),
    )
}

#: The picture that `tipsseg eval` of earlier versions left in its output folder.
CONFUSION_PICTURE = "confusion.png"


def check_format(name: str) -> None:
    """Raise UsageError for a name that is not in FORMATS."""
    if not name:
        raise UsageError("a format without a name", "Give names with a comma between them, such as png,coco.")
    if name not in FORMATS:
        close = difflib.get_close_matches(name.lower(), FORMATS, n=1)
        known = f"The formats are: {', '.join(FORMATS)}."
        raise UsageError(f"unknown format {name!r}", f"Did you mean {close[0]!r}? {known}" if close else known)


def check_formats(names: Sequence[str], classes: Sequence[LabelClass]) -> None:
    """Raise UsageError for formats that are unknown, are named twice, or cannot hold the names of these classes."""
    for name in names:
        check_format(name)
    if len(set(names)) < len(names):
        raise UsageError(f"a format is named twice: {', '.join(names)}", "Name each format once.")
    for name in names:
        _check_names(name, classes)


def _check_names(name: str, classes: Sequence[LabelClass]) -> None:
    for each in classes:
        for character in FORMATS[name].forbidden_characters:
            if character in each.name:
                raise UsageError(
                    f"the format {name} cannot hold the class {each.name!r}: it has no way to write {character!r} in a name",
                    "Rename the class, or leave the format out.",
                )


def image_folders() -> frozenset[str]:
    """Return the folders at the top of an output folder that hold per-image files; images are not looked for in them."""
    return frozenset(each.folder.split("/")[0] for each in FORMATS.values() if each.folder is not None)


def has_image_files(formats: Iterable[str]) -> bool:
    return any(FORMATS[name].folder is not None for name in formats)


def index_masks() -> tuple[str, ...]:
    """Return the formats whose per-image files are index masks; messages name the first."""
    return tuple(name for name, form in FORMATS.items() if form.labels == "mask")


def of_the_model() -> tuple[str, ...]:
    """Return the formats that hold what only the model knows, and do not follow a correction."""
    return tuple(name for name, form in FORMATS.items() if form.needs_confidence or form.needs_top_classes)
