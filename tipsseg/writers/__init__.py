"""Label files: one small module a format, loaded when it is asked for.

A writer gets the images of a run one after the other and is closed once:

    writer = create("coco", context)
    path = writer.write(ref, image, label_map, index)     the image's file, None where the format has no file an image
    paths = writer.close()                                the files that stand for the whole run

Files appear whole or not at all, and hold no clock: the same labels give the same bytes.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import UsageError
from tipsseg.records import ImageRef, LabelClass, LabelMap

MASKS_FOLDER = "masks"
OVERLAYS_FOLDER = "overlays"
CONFIDENCE_FOLDER = "confidence"

#: Suffixes of the pictures in each sub-folder of the output folder that has one an image.
SUFFIXES: Mapping[str, str] = {MASKS_FOLDER: ".png", OVERLAYS_FOLDER: ".jpg", CONFIDENCE_FOLDER: ".png"}

#: The picture that `tipsseg eval` leaves in its output folder.
CONFUSION_PICTURE = "confusion.png"

#: Sub-folders of the output folder that hold pictures; `inputs.find` does not take those for inputs.
FOLDERS = frozenset(SUFFIXES)


@dataclass(frozen=True, slots=True)
class Format:
    """A label format: a line for `--help`, and the module whose `create` makes its writer."""

    description: str
    module: str


#: The formats by name.
FORMATS: Mapping[str, Format] = {
    "png": Format("index masks: masks/<image>.png, 0 background, 1..N the classes", "tipsseg.writers.png"),
    "coco": Format("COCO instances: annotations.json, one annotation a connected component", "tipsseg.writers.coco"),
    "overlay": Format("pictures for eyes: overlays/<image>.jpg, with a legend", "tipsseg.writers.overlay"),
    "confidence": Format("confidence/<image>.png, 0..255 for 0..1", "tipsseg.writers.confidence"),
}


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all images of a run share.

    output      the output folder
    image_root  the folder that the images' relative paths begin at
    classes     by id, 1..N
    info        facts about the run by name: version, command, model, revision, vocabulary; values must fit into JSON
    min_area    smaller connected components, in pixels, are left out of formats that list objects
    """

    output: Path
    image_root: Path
    classes: tuple[LabelClass, ...]
    info: Mapping[str, object]
    min_area: int = 1


class Writer(Protocol):
    """One format of one run.

    Its methods raise OutputError where a file cannot be written, and `write` ImageError for an image that it cannot take.
    """

    def write(self, ref: ImageRef, image: NDArray[np.uint8], label_map: LabelMap, index: int) -> Path | None:
        """Take one image [H, W, 3] RGB and its labels; `index` is its position in the sorted input, from 0.

        Returns the path of the image's own file, None where the format has none.
        """

    def close(self) -> list[Path]:
        """Write what stands for all images and return those files' paths; call it once, after the last `write`."""

    def abort(self) -> None:
        """Drop what `close` would have used; safe to call twice, and after `close`."""


def check_format(name: str) -> None:
    """Raise UsageError for a name that is not in FORMATS."""
    if name not in FORMATS:
        close = difflib.get_close_matches(name.lower(), FORMATS, n=1)
        known = f"The formats are: {', '.join(FORMATS)}."
        raise UsageError(f"unknown format {name!r}", f"Did you mean {close[0]!r}? {known}" if close else known)


def create(name: str, context: RunContext) -> Writer:
    """The writer of format `name`; raises UsageError for a name that is not in FORMATS."""
    check_format(name)
    writer: Writer = importlib.import_module(FORMATS[name].module).create(context)
    return writer


def output_path(output: Path, folder: str, relative: PurePosixPath) -> Path:
    """Where the picture of an image goes: its relative path below `output`/`folder`, with the folder's suffix."""
    return output / folder / relative.with_suffix(SUFFIXES[folder])
