"""What a label format is: the class `Format`, and the records that formats take and give.

A format writes what is due for one image, in whatever process and order, and at the end of a run its files for the whole run:

    written = form.write(labels, context)       the per-image file, the rows of the image in a file of the whole run, or both
    for file in form.run_files(context):
        file.write(images, rows)

Files appear whole or not at all, and hold no clock: the same labels give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from tipsseg.options import DEFAULT_FILE_OPTIONS, MAX_PIXELS, NAMES, FileOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.label_map import LabelMap
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.regions.polygons import PolygonQuality
    from tipsseg.types import ImageRef, LabelArray, LabelClass, TopClasses
    from tipsseg.util.fingerprint import Fingerprint
    from tipsseg.util.ownership import Ownership

#: The bytes of one image in a file of the whole run: lines of JSON, without line ends or tabs.
Rows = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all images of a run share.

    Attributes:
        output: The output folder.
        state: The state folder, which holds the files that stand for the whole run; the output folder, but for a shard.
        classes: The classes by id, 1..N.
        info: Facts about the run by name: version, command, model, revision, vocabulary; values must fit into JSON.
        files: How labels become files.
        owner: What the names of temporary files begin with, where several processes write into one folder; see `files.clean_up`.
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


class ImageLabels:
    """One image with its labels, as formats take it.

    Attributes:
        ref: The image.
        thumbnail: Gives the thumbnail, [h, w, 3] uint8 RGB, see `upright.thumbnail_rgb`; raises ImageError for a broken image.
        label_map: The labels of the image.
    """

    def __init__(
        self,
        ref: ImageRef,
        thumbnail: Callable[[], NDArray[np.uint8]],
        label_map: LabelMap,
        find_objects: Callable[[LabelMap], Sequence[LabelledObject]],
    ) -> None:
        """`find_objects` is asked once, when objects are wanted first."""
        self.ref = ref
        self.thumbnail = thumbnail
        self.label_map = label_map
        self._find_objects = find_objects

    @cached_property
    def objects(self) -> Sequence[LabelledObject]:
        """Its objects in the order of `regions.components`."""
        return self._find_objects(self.label_map)

    @property
    def polygon_quality(self) -> PolygonQuality:
        """How well the polygons fit that were made."""
        from tipsseg.regions.polygons import PolygonQuality

        found: Iterable[LabelledObject] = self.__dict__.get("objects", ())
        return PolygonQuality.of(each.iou for each in found)


@dataclass(frozen=True, slots=True)
class Written:
    """What a format made of one image: the per-image file, what it is on the disk, and rows for the file of the whole run."""

    path: Path | None = None
    rows: Rows = ()
    file: Fingerprint | None = None


class RunFile:
    """A file that a format has for a whole run, whose bytes follow from the names of the images."""

    def __init__(self, context: RunContext, name: str, pieces: Callable[[Sequence[str]], Iterable[bytes]]) -> None:
        """Of the state folder of a run.

        Args:
            context: Of the run.
            name: Of the file, relative to the state folder.
            pieces: Gives the bytes of the file for the names of its images.
        """
        self.path = context.state / name
        self._ownership = context.ownership
        self._pieces = pieces

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the file, whole.

        Args:
            images: The names of the images, in the order of the file.
            rows: Gives the rows of an image; it may be asked twice for each.

        Raises:
            OutputError: Where the file cannot be written, or somebody else's file is there.
        """
        self._write(self._pieces(images))

    def _write(self, pieces: Iterable[bytes]) -> None:
        with self._ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            target.writelines(pieces)


def text_file(context: RunContext, name: str, text: Callable[[Sequence[LabelClass]], str]) -> RunFile:
    """A file for the whole run whose text follows from the classes; bytes of names that are no UTF-8 are spelled out."""
    return RunFile(context, name, lambda _: (text(context.classes).encode("utf-8", "backslashreplace"),))


class RowsFile(RunFile):
    """A file of a whole run that is made of rows, and can be read back."""

    def __init__(
        self,
        context: RunContext,
        name: str,
        join: Callable[[Sequence[str], Callable[[str], Rows]], Iterable[bytes]],
        split: Callable[[Path, Sequence[str]], Iterator[tuple[str, Rows]]],
        names: Callable[[Path, Sequence[str]], Iterator[str]] | None = None,
    ) -> None:
        """Of the state folder of a run.

        Args:
            context: Of the run.
            name: Of the file, relative to the state folder.
            join: Gives the bytes of the file for the names of its images and what gives the rows of each.
            split: Gives the images of a file with their rows, see `read`.
            names: Gives the names alone, where that is quicker.
        """
        super().__init__(context, name, lambda images: join(images, lambda _: ()))
        self._join = join
        self._split = split
        self._names = names

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write the file, whole; see RunFile."""
        self._write(self._join(images, rows))

    def names(self, images: Sequence[str]) -> Iterator[str]:
        """The names of the images that the file holds. Takes and raises as `read` does."""
        if self._names is not None:
            yield from self._names(self.path, images)
            return
        for name, _ in self.read(images):
            yield name

    def holds(self, images: Sequence[str]) -> bool:
        """Return whether the file can be read, and holds exactly these images."""
        with suppress(OSError, ValueError):
            return {name for name, _ in self.read(images)} == set(images)
        return False

    def read(self, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """The images that the file holds, with their rows.

        Args:
            images: The images that the file was written with; it may have lost some.

        Raises:
            OSError: Where the file cannot be read.
            ValueError: Where the file is not as it was written.
        """
        return self._split(self.path, images)


@dataclass(frozen=True, slots=True, eq=False)
class StoredImage:
    """What the records of a finished run say of an image; its files are held against this.

    Attributes:
        name: The name of the image.
        size: (height, width) in pixels.
        pixels: The number of pixels of each label id, of background and of ignored pixels too.
        classes: The names of the run's classes by id, 1..N.
        options: How the labels of the run became files.
        sure: Whether the image was labelled with exactly these options.
    """

    name: str
    size: tuple[int, int]
    pixels: Mapping[int, int]
    classes: Mapping[int, str]
    options: FileOptions
    sure: bool

    @property
    def max_pixels(self) -> int:
        """How many pixels a picture of this image may have: overlays of small images have more than the image."""
        return max(MAX_PIXELS, self.size[0] * self.size[1])


class Format:
    """A label format: what it can hold, how it is written, read back and checked.

    A format with a per-image file has `folder`, `suffix` and `encode`. One with files for the whole run has `files` and
    `run_files`. One whose first such file is made of rows has `rows` and `image_rows` too.

    Attributes:
        name: The name by which users choose the format.
        description: What the format writes, in one line for the table of formats.
        folder: The folder of its per-image files, relative to the output folder; None: it has no per-image file.
        suffix: The suffix of these files.
        links: The folder of its links to the images, relative to the output folder; None: it has no links.
        paired: Whether a link has the name of the per-image file, but for the suffix.
        files: Names of its files for the whole run.
        former_files: Names of files for the whole run that only earlier versions wrote.
        rows: Whether the first of these files is made of rows, and can be read back.
        parts: Whether it can hold an object of several parts.
        confidence: Whether it needs the confidence of every pixel.
        top: Whether it needs the best classes of every patch.
        scores: Whether it has a score for each object.
        image: Whether it needs the image, to show it or to link to it.
        pixels: Whether it needs the image's pixels, to show them.
        divides: Whether it divides the images by `FileOptions.val_fraction`, see `part`.
        reserved: Characters that names of classes cannot have.
        index_mask: Whether its per-image file is an index mask, which people correct.
        labels: Which label ids can be read back from it: "all" of them, only the ids of listed "objects", or "none".
        archive: Whether confidence and the best classes of patches can be read back from it.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    folder: ClassVar[str | None] = None
    suffix: ClassVar[str] = ""
    links: ClassVar[str | None] = None
    paired: ClassVar[bool] = False
    files: ClassVar[tuple[str, ...]] = ()
    former_files: ClassVar[tuple[str, ...]] = ()
    rows: ClassVar[bool] = False
    parts: ClassVar[bool] = True
    confidence: ClassVar[bool] = False
    top: ClassVar[bool] = False
    scores: ClassVar[bool] = False
    image: ClassVar[bool] = False
    pixels: ClassVar[bool] = False
    divides: ClassVar[bool] = False
    reserved: ClassVar[str] = ""
    index_mask: ClassVar[bool] = False
    labels: ClassVar[Literal["all", "objects", "none"]] = "none"
    archive: ClassVar[bool] = False

    # ---- where its files are ----

    def part(self, image: PurePosixPath, options: FileOptions) -> str:
        """Return what the format divides the image into, where `divides` says that it does."""
        raise NotImplementedError(f"the format {self.name} does not divide images")

    def parent(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath:
        """Return the folder of the files of an image, relative to `folder` and to `links`."""
        return image.parent

    def relative_path(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath | None:
        """Where the per-image file is, relative to the output folder; None where the format has none."""
        if self.folder is None:
            return None
        name = output_name(image, options.names).name + self.suffix
        return PurePosixPath(self.folder) / self.parent(image, options) / name

    def image_path(self, output: Path, image: PurePosixPath, options: FileOptions) -> Path | None:
        """Where the per-image file is, below an output folder; None where the format has none."""
        relative = self.relative_path(image, options)
        return None if relative is None else output / relative

    def link_path(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath | None:
        """Where the link to an image is, relative to the output folder; None where the format has none."""
        if self.links is None:
            return None
        link = output_name(image, options.names).name + image.suffix if self.paired else image.name
        return PurePosixPath(self.links) / self.parent(image, options) / link

    def places(self, image: PurePosixPath, options: FileOptions) -> Mapping[str, PurePosixPath | None]:
        """Return where the per-image file may be by the records of any version, the present place first, each with its link."""
        path = self.relative_path(image, options)
        return {} if path is None else {str(path): self.link_path(image, options)}

    # ---- writing ----

    def encode(self, labels: ImageLabels, context: RunContext) -> bytes:
        """The bytes of the per-image file. Raises ImageError for an image that the format cannot take."""
        raise NotImplementedError(f"the format {self.name} has no per-image file")

    def image_rows(self, labels: ImageLabels, context: RunContext) -> Rows:
        """The rows of an image in the file of the whole run. Raises ImageError for an image that the format cannot take."""
        raise NotImplementedError(f"the format {self.name} has no file of rows")

    def run_files(self, context: RunContext) -> tuple[RunFile, ...]:
        """The files for the whole run; the files that `files` names come first."""
        return ()

    def rows_file(self, context: RunContext) -> RowsFile | None:
        """The file for the whole run that is made of rows; None where the format has none."""
        return next((file for file in self.run_files(context) if isinstance(file, RowsFile)), None)

    def write(self, labels: ImageLabels, context: RunContext) -> Written:
        """Write the per-image file of an image, and its link, and make its rows.

        Raises:
            OutputError: Where a file cannot be written.
            ImageError: For an image that the format cannot take.
        """
        rows = self.image_rows(labels, context) if self.rows else ()
        ref, options = labels.ref, context.files
        path = self.image_path(context.output, ref.relative, options)
        if path is None:
            return Written(rows=rows)
        data = self.encode(labels, context)
        link = self.link_path(ref.relative, options)
        if link is not None:
            context.ownership.link(ref, context.output / link, ours=self.name in ref.linked)
        return Written(path, rows, context.ownership.write(ref, path, data))

    # ---- reading back ----

    def read_labels(self, image: StoredImage, source: Path | Rows) -> LabelArray:
        """The label ids of an image [H, W], where `labels` says that they can be read back.

        Args:
            image: What the records say of it.
            source: Its per-image file, or its rows where the format has rows alone.

        Raises:
            ImageError, OSError, ValueError: Where it cannot be read, or is not as it was written; see `problem.UNREADABLE`.
        """
        raise NotImplementedError(f"no labels can be read back from the format {self.name}")

    def read_scores(self, image: StoredImage, path: Path) -> tuple[NDArray[np.float32], TopClasses]:
        """The confidence [H, W], 0..1, and the best classes of each patch, where `archive` says that they can be read back.

        Raises as `read_labels` does.
        """
        raise NotImplementedError(f"no scores can be read back from the format {self.name}")

    # ---- checking ----

    def try_reading(self, path: Path, image: StoredImage) -> None:
        """Read a per-image file that a person changed as what its suffix says. Raises as `read_labels` does."""
        from tipsseg.images.decoding import decode_stored
        from tipsseg.util.files import read_regular
        from tipsseg.util.json_values import parse

        if path.suffix == ".json":
            parse(read_regular(path))
        elif path.suffix in (".png", ".jpg"):
            decode_stored(path, image.max_pixels)

    def check_run_file(self, path: Path, classes: Mapping[int, str], images: Collection[str]) -> RunFileCheck | None:
        """Rules of the file for the whole run beyond its digest; None where there are none.

        Args:
            path: Of the file.
            classes: The names of the run's classes by id, 1..N.
            images: The names of the images that the file is to hold.
        """
        return None


#: What is wrong with one image of a file, by what the records say of it and its index mask [H, W], where there is a sound one.
ImageCheck = Callable[[StoredImage, "LabelArray | None"], Iterator[str]]


class RunFileCheck(Protocol):
    """Rules of a file for the whole run."""

    def whole(self) -> Iterator[str]:
        """What is wrong with the file as a whole; once, before all else. Raises OSError and ValueError where it cannot be read."""

    def images(self) -> Iterator[tuple[str, ImageCheck]]:
        """The name of each image with its rules, in the order of the file. Raises as `whole` does."""


def output_name(image: PurePosixPath, names: str) -> PurePosixPath:
    """What the files of an image are named by, without their suffixes; `names` is one of `options.NAMES`."""
    return image.with_suffix("") if names == NAMES[0] else image
