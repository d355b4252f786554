"""Label files: one small module a format, loaded when it is asked for.

A writer makes what is due for one image, in whatever process and order. What a format has for the whole run is written at its end:

    writer = create("coco", context)
    written = writer.write(labels)              the image's own file, rows for the file of the whole run, or both
    for file in run_files("coco", context):
        file.write(images, rows)

Files appear whole or not at all, and hold no clock: the same labels give the same bytes.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tipsseg.errors import UsageError
from tipsseg.options import DEFAULT_FILE_OPTIONS, NAMES, FileOptions

if TYPE_CHECKING:
    from tipsseg.regions.objects import ImageLabels
    from tipsseg.types import LabelClass
    from tipsseg.util.fingerprint import Fingerprint
    from tipsseg.util.ownership import Ownership

#: Lines of JSON, without line ends or tabs: what a format with a file of rows has for one image.
Rows = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """A label format.

    description  what it writes: a line for `--help`
    module       has `create(context) -> Writer`, and `run_files(context) -> tuple[RunFile, ...]` where it has any
    folder       where its own files are, one an image, relative to the output folder; None where it has none
    suffix       of those
    leaf         a folder of this name is between the folders of an image and its file
    links        where it has links to the images, with their own suffixes, relative to the output folder; None where it has none
    links_leaf   as `leaf`, for those
    files        names of its files for the whole run, but for such as options ask for
    rows      whether the first of those is made of rows, and can be read back
    parts        whether it can hold an object of several parts
    confidence   whether it needs the confidence of every pixel
    top          whether it needs the best classes of every patch
    scores       whether it has a score for each object
    image        whether it needs the image, to show it or to link to it
    pixels       whether it needs the image's pixels, to show them
    reserved     characters that names of classes cannot have
    """

    description: str
    module: str
    folder: str | None = None
    suffix: str = ""
    leaf: str = ""
    links: str | None = None
    links_leaf: str = ""
    paired: bool = False
    files: tuple[str, ...] = ()
    rows: bool = False
    parts: bool = True
    confidence: bool = False
    top: bool = False
    scores: bool = False
    image: bool = False
    pixels: bool = False
    reserved: str = ""


#: The formats by name.
FORMATS: Mapping[str, Format] = {
    "png": Format(
        "index masks: masks/<image>.png, 0 background, 1..N the classes",
        "tipsseg.formats.png",
        folder="masks",
        suffix=".png",
    ),
    "coco": Format(
        "COCO instances: annotations.json, masks as run-length codes",
        "tipsseg.formats.coco",
        files=("annotations.json",),
        rows=True,
        scores=True,
    ),
    "coco-polygon": Format(
        "COCO instances with polygons: annotations-polygon.json",
        "tipsseg.formats.coco_polygon",
        files=("annotations-polygon.json",),
        rows=True,
        scores=True,
    ),
    "coco-results": Format(
        "COCO results: results.json, the bare list that loadRes takes",
        "tipsseg.formats.coco_results",
        files=("results.json",),
        rows=True,
        scores=True,
    ),
    "panoptic": Format(
        "COCO panoptic: panoptic/<image>.png and panoptic.json",
        "tipsseg.formats.panoptic",
        folder="panoptic",
        suffix=".png",
        files=("panoptic.json",),
        rows=True,
        scores=True,
    ),
    "yolo": Format(
        "YOLO segmentation: yolo/data.yaml, yolo/<folder>/labels/<image>.txt, links to the images in yolo/<folder>/images/",
        "tipsseg.formats.yolo",
        folder="yolo",
        suffix=".txt",
        leaf="labels",
        links="yolo",
        links_leaf="images",
        paired=True,
        files=("yolo/data.yaml",),
        parts=False,
        image=True,
    ),
    "labelme": Format(
        "LabelMe: labelme/<image>.json, links to the images beside them",
        "tipsseg.formats.labelme",
        folder="labelme",
        suffix=".json",
        links="labelme",
        paired=True,
        image=True,
    ),
    "cvat": Format(
        "CVAT's Segmentation mask 1.1, which is PASCAL VOC's: cvat/SegmentationClass/<image>.png, lists beside them",
        "tipsseg.formats.cvat",
        folder="cvat/SegmentationClass",
        suffix=".png",
        files=("cvat/labelmap.txt", "cvat/ImageSets/Segmentation/default.txt"),
        reserved=":#",
    ),
    "label-studio": Format(
        "Label Studio: label-studio.json, polygons as predictions, and the interface, label-studio.xml",
        "tipsseg.formats.label_studio",
        files=("label-studio.json", "label-studio.xml"),
        rows=True,
        parts=False,
        scores=True,
        image=True,
    ),
    "hf": Format(
        "Hugging Face datasets: hf/metadata.jsonl, hf/masks/<image>.png, links to the images",
        "tipsseg.formats.hf",
        folder="hf/masks",
        suffix=".png",
        links="hf/images",
        files=("hf/metadata.jsonl",),
        rows=True,
        image=True,
    ),
    "npz": Format(
        "npz/<image>.npz: label ids, confidence, the best classes of each patch with their scores",
        "tipsseg.formats.npz",
        folder="npz",
        suffix=".npz",
        confidence=True,
        top=True,
    ),
    "overlay": Format(
        "pictures for eyes: overlays/<image>.jpg, with a legend",
        "tipsseg.formats.overlay",
        folder="overlays",
        suffix=".jpg",
        image=True,
        pixels=True,
    ),
    "confidence": Format(
        "confidence/<image>.png, 0..255 for 0..1",
        "tipsseg.formats.confidence",
        folder="confidence",
        suffix=".png",
        confidence=True,
    ),
}

#: The picture that `tipsseg eval` leaves in its output folder.
CONFUSION_PICTURE = "confusion.png"

#: Sub-folders of the output folder that hold files of images; `inputs.find` does not take those for inputs.
FOLDERS = frozenset(PurePosixPath(each.folder).parts[0] for each in FORMATS.values() if each.folder is not None)


MASKS_FOLDER = "masks"


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all images of a run share.

    output   the output folder
    state    the folder of the files that stand for the whole run; the output folder, but for shards
    classes  by id, 1..N
    info     facts about the run by name: version, command, model, revision, vocabulary; values must fit into JSON
    files    how labels become files
    owner    begins the names of temporary files of images, where several processes write into one folder; see `files.clean_up`
    """

    output: Path
    state: Path
    classes: tuple[LabelClass, ...]
    info: Mapping[str, object]
    files: FileOptions = DEFAULT_FILE_OPTIONS
    owner: str = ""
    ownership: Ownership = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        from tipsseg.util.ownership import Ownership

        object.__setattr__(self, "ownership", Ownership(self.output, self.state, self.owner))

    def with_files(self, files: FileOptions) -> RunContext:
        """The same with other options of files, of the same folder."""
        other = replace(self, files=files)
        object.__setattr__(other, "ownership", self.ownership)
        return other


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer made of one image: its own file, what that file is on the disk, and rows for the file of the whole run."""

    path: Path | None = None
    rows: Rows = ()
    file: Fingerprint | None = None


class Writer(Protocol):
    """One format, for one image after the other."""

    def write(self, labels: ImageLabels) -> Written:
        """Take one image and its labels.

        Raises OutputError where a file cannot be written, and ImageError for an image that the format cannot take.
        """


class RunFile(Protocol):
    """A file that a format has for a whole run."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the file, whole, with these images in this order; `rows` may be asked twice for each. Raises OutputError."""


@runtime_checkable
class RowsFile(RunFile, Protocol):
    """One that is made of rows."""

    def names(self, images: Sequence[str]) -> Iterator[str]:
        """The names of the images that the file holds; it was written with `images`, but for some that it may have lost.

        Raises OSError, and ValueError for a file that is not as it was written.
        """

    def read(self, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """The images that the file holds, with their rows, some of them perhaps in parts. Takes and raises as `names` does."""


def check_format(name: str) -> None:
    """Raise UsageError for a name that is not in FORMATS."""
    if not name:
        raise UsageError("a format without a name", "Give names with a comma between them, such as png,coco.")
    if name not in FORMATS:
        close = difflib.get_close_matches(name.lower(), FORMATS, n=1)
        known = f"The formats are: {', '.join(FORMATS)}."
        raise UsageError(f"unknown format {name!r}", f"Did you mean {close[0]!r}? {known}" if close else known)


def check_names(name: str, classes: Sequence[LabelClass]) -> None:
    """Raise UsageError where format `name` cannot hold the name of a class."""
    for each in classes:
        for character in FORMATS[name].reserved:
            if character in each.name:
                raise UsageError(
                    f"the format {name} cannot hold the class {each.name!r}: it has no way to write {character!r} in a name",
                    "Rename the class, or leave the format out.",
                )


def check_formats(names: Sequence[str], classes: Sequence[LabelClass]) -> None:
    """Raise UsageError for formats that are none, are named twice, or cannot hold the names of these classes."""
    for name in names:
        check_format(name)
    if len(set(names)) < len(names):
        raise UsageError(f"a format is named twice: {', '.join(names)}", "Name each format once.")
    for name in names:
        check_names(name, classes)


def create(name: str, context: RunContext) -> Writer:
    """The writer of format `name`; raises UsageError for a name that is not in FORMATS."""
    check_format(name)
    writer: Writer = importlib.import_module(FORMATS[name].module).create(context)
    return writer


def run_files(name: str, context: RunContext) -> tuple[RunFile, ...]:
    """The files that format `name` has for the whole run, those that `Format.files` names first; raises as `create` does."""
    check_format(name)
    if not FORMATS[name].files:
        return ()
    files: tuple[RunFile, ...] = importlib.import_module(FORMATS[name].module).run_files(context)
    return files


def rows_file(name: str, context: RunContext) -> RowsFile | None:
    """The one of them that is made of rows, None where none is; raises as `create` does."""
    check_format(name)
    return next((file for file in run_files(name, context) if isinstance(file, RowsFile)), None)


def has_image_files(formats: Iterable[str]) -> bool:
    """Whether one of these formats has a file for each image."""
    return any(FORMATS[name].folder is not None for name in formats)


def output_name(image: PurePosixPath, names: str) -> PurePosixPath:
    """What the files of an image are named by, without their suffixes; `names` is one of `file_options.NAMES`."""
    return image.with_suffix("") if names == NAMES[0] else image


def relative_path(name: str, image: PurePosixPath, names: str) -> PurePosixPath | None:
    """Where the file of an image is in format `name`, relative to the output folder; None where it has no file of its own."""
    form = FORMATS[name]
    if form.folder is None:
        return None
    return PurePosixPath(form.folder) / image.parent / form.leaf / (output_name(image, names).name + form.suffix)


def link_path(name: str, image: PurePosixPath, names: str) -> PurePosixPath | None:
    """Where format `name` has a link to an image, relative to the output folder; None where it has none."""
    form = FORMATS[name]
    if form.links is None:
        return None
    link = output_name(image, names).name + image.suffix if form.paired else image.name
    return PurePosixPath(form.links) / image.parent / form.links_leaf / link


def image_path(name: str, output: Path, image: PurePosixPath, names: str) -> Path | None:
    """Where the file of an image is in format `name`, below an output folder; None where it has no file of its own."""
    relative = relative_path(name, image, names)
    return None if relative is None else output / relative
