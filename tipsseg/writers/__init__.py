"""Label files: one small module a format, loaded when it is asked for.

A writer makes what is due for one image, in whatever process and order. What a format has for the whole run is written at its end:

    writer = create("coco", context)
    written = writer.write(ref, image, label_map)    the image's own file, or records for the file of the whole run
    file = run_file("coco", context)                 None where the format has no such file
    file.write(images, records)

Files appear whole or not at all, and hold no clock: the same labels give the same bytes.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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


#: Lines of JSON, without line ends or tabs: what a format with one file a run has for one image.
Records = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """A label format.

    description  a line for `--help`
    module       has `create(context) -> Writer`, and `run_file(context) -> RunFile` where the format has one file a run
    folder       where its pictures are, where it has one an image
    """

    description: str
    module: str
    folder: str | None = None


#: The formats by name.
FORMATS: Mapping[str, Format] = {
    "png": Format(
        "index masks: masks/<image>.png, 0 background, 1..N the classes", "tipsseg.writers.png", MASKS_FOLDER
    ),
    "coco": Format("COCO instances: annotations.json, one annotation a connected component", "tipsseg.writers.coco"),
    "overlay": Format(
        "pictures for eyes: overlays/<image>.jpg, with a legend", "tipsseg.writers.overlay", OVERLAYS_FOLDER
    ),
    "confidence": Format("confidence/<image>.png, 0..255 for 0..1", "tipsseg.writers.confidence", CONFIDENCE_FOLDER),
}


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all images of a run share.

    output    the output folder
    records   the folder of the files that stand for the whole run; the output folder, but for shards
    classes   by id, 1..N
    info      facts about the run by name: version, command, model, revision, vocabulary; values must fit into JSON
    min_area  smaller connected components, in pixels, are left out of formats that list objects
    owner     begins the names of temporary pictures, where several processes write into one folder; see `files.sweep`
    """

    output: Path
    records: Path
    classes: tuple[LabelClass, ...]
    info: Mapping[str, object]
    min_area: int = 1
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer made of one image: its own file, or records for the file of the whole run."""

    path: Path | None = None
    records: Records = ()


class Writer(Protocol):
    """One format, for one image after the other."""

    def write(self, ref: ImageRef, image: NDArray[np.uint8], label_map: LabelMap) -> Written:
        """Take one image [H, W, 3] RGB and its labels.

        Raises OutputError where a file cannot be written, and ImageError for an image that the format cannot take.
        """


class RunFile(Protocol):
    """The one file that a format has for a whole run."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def names(self) -> Iterator[str]:
        """The names of the images that the file holds. Raises OSError, and ValueError for a file that is not as it was written."""

    def read(self) -> Iterator[tuple[str, Records]]:
        """The images that the file holds, with their records. Raises as `names` does."""

    def write(self, images: Sequence[str], records: Callable[[str], Records]) -> None:
        """Write the file, whole, with these images in this order; `records` may be asked twice for each. Raises OutputError."""


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


def run_file(name: str, context: RunContext) -> RunFile | None:
    """The file that format `name` has for the whole run, None where it has one an image; raises as `create` does."""
    check_format(name)
    if FORMATS[name].folder is not None:
        return None
    file: RunFile = importlib.import_module(FORMATS[name].module).run_file(context)
    return file


def output_path(output: Path, folder: str, relative: PurePosixPath) -> Path:
    """Where the picture of an image goes: its relative path below `output`/`folder`, with the folder's suffix."""
    return output / folder / relative.with_suffix(SUFFIXES[folder])
