"""A label format: the class `Format`, and the records that formats take and give.

A format makes bytes. For one image, in whatever process and order: its per-image file, and its rows in a file of the whole run.
At the end of a run: its files for the whole run.

    data = form.encode(image, run)
    rows = form.image_rows(image, run)
    pieces = form.run_file(name, run, images, rows_of)

It says where its files are, relative to the output folder, and writes none of them. No file holds a clock: the same labels give the
same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Literal

from tipsseg.options import DEFAULT_FILE_OPTIONS, MAX_PIXELS, NAMES, FileOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.regions.objects import LabelledObject
    from tipsseg.types import ConfidenceArray, ImageRef, LabelArray, LabelClass, TopClasses

#: The bytes of one image in a file of the whole run: lines of JSON, without line ends or tabs.
Rows = tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What all images of a run share, as formats take it.

    Attributes:
        classes: The classes by id, 1..N.
        info: Facts about the run by name: version, command, model, revision, vocabulary; values must fit into JSON.
        files: How labels become files.
    """

    classes: tuple[LabelClass, ...]
    info: Mapping[str, object]
    files: FileOptions = DEFAULT_FILE_OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageLabels:
    """One image with its labels, as formats take it. A format says by `needs_...` which of the others have to be there.

    Attributes:
        ref: The image.
        labels: [H, W], the label ids.
        objects: The objects, in the order of `regions.components`.
        confidence: [H, W], 0..1.
        top: The best classes of each patch.
        thumbnail: [h, w, 3] uint8 RGB, see `upright.thumbnail_rgb`.
    """

    ref: ImageRef
    labels: LabelArray
    objects: Sequence[LabelledObject] = ()
    confidence: ConfidenceArray | None = None
    top: TopClasses | None = None
    thumbnail: NDArray[np.uint8] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.labels.shape
        return height, width


def spelled_out(text: str) -> bytes:
    """Return the text in UTF-8; bytes of names that are not UTF-8 are spelled out."""
    return text.encode("utf-8", "backslashreplace")


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
        """The most pixels that a picture of this image may have: overlays of small images have more than the image."""
        return max(MAX_PIXELS, self.size[0] * self.size[1])


class Format:
    """A label format: what it can hold, how it is written, read back and checked.

    A format with a per-image file has `folder`, `suffix` and `encode`. One with files for the whole run has `files` and
    `run_file`. One whose first such file is made of rows has `has_rows` and `image_rows` too.

    Attributes:
        name: The name by which users choose the format.
        description: What the format writes, in one line for the table of formats.
        folder: The folder of its per-image files, relative to the output folder; None: it has no per-image file.
        suffix: The suffix of these files.
        link_folder: The folder of its links to the images, relative to the output folder; None: it has no links.
        files: Names of its files for the whole run.
        former_files: Names of files for the whole run that only earlier versions wrote.
        has_rows: The first of these files is made of rows, and can be read back.
        needs_objects: It lists objects.
        needs_confidence: It holds the confidence of every pixel.
        needs_top_classes: It holds the best classes of every patch.
        needs_image: It shows the image, or links to it.
        needs_thumbnail: It shows the image.
        scores_objects: It has a score for each object.
        multi_part_objects: It can hold an object of several parts.
        splits_train_val: It divides the images by `FileOptions.val_fraction`, see `split`.
        forbidden_characters: Characters that names of classes cannot have.
        labels: The source of label ids that are read back: an index "mask", which people correct; an "archive", with confidence
            and the best classes of patches too; or listed "objects", without other pixels. None: no labels are read back.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    folder: ClassVar[str | None] = None
    suffix: ClassVar[str] = ""
    link_folder: ClassVar[str | None] = None
    files: ClassVar[tuple[str, ...]] = ()
    former_files: ClassVar[tuple[str, ...]] = ()
    has_rows: ClassVar[bool] = False
    needs_objects: ClassVar[bool] = False
    needs_confidence: ClassVar[bool] = False
    needs_top_classes: ClassVar[bool] = False
    needs_image: ClassVar[bool] = False
    needs_thumbnail: ClassVar[bool] = False
    scores_objects: ClassVar[bool] = False
    multi_part_objects: ClassVar[bool] = True
    splits_train_val: ClassVar[bool] = False
    forbidden_characters: ClassVar[str] = ""
    labels: ClassVar[Literal["mask", "archive", "objects"] | None] = None

    # ---- where its files are ----

    def split(self, image: PurePosixPath, options: FileOptions) -> str:
        """Return the part of the data that an image is in, if `splits_train_val`."""
        raise NotImplementedError(f"the format {self.name} does not divide images")

    def parent(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath:
        """Return the folder of the files of an image, relative to `folder` and to `link_folder`."""
        return image.parent

    def link_name(self, image: PurePosixPath, options: FileOptions) -> str:
        """Return the name of the link to an image: that of the per-image file, but for the suffix."""
        return output_name(image, options.names).name + image.suffix

    def relative_path(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath | None:
        """Return the place of the per-image file, relative to the output folder; None if the format has none."""
        if self.folder is None:
            return None
        name = output_name(image, options.names).name + self.suffix
        return PurePosixPath(self.folder) / self.parent(image, options) / name

    def link_path(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath | None:
        """Return the place of the link to an image, relative to the output folder; None if the format has none."""
        if self.link_folder is None:
            return None
        return PurePosixPath(self.link_folder) / self.parent(image, options) / self.link_name(image, options)

    def places(self, image: PurePosixPath, options: FileOptions) -> Mapping[str, PurePosixPath | None]:
        """Return where the per-image file may be by the records of any version, the present place first, each with its link."""
        path = self.relative_path(image, options)
        return {} if path is None else {str(path): self.link_path(image, options)}

    # ---- writing ----

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        """Return the bytes of the per-image file."""
        raise NotImplementedError(f"the format {self.name} has no per-image file")

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return the rows of an image in the file of the whole run."""
        raise NotImplementedError(f"the format {self.name} has no file of rows")

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        """Return the bytes of a file for the whole run, in pieces.

        Args:
            name: The name of the file, one of `files`.
            run: What the images share.
            images: The names of the images, in the order of the file.
            rows: Gives the rows of an image; it may be asked twice for each.
        """
        raise NotImplementedError(f"the format {self.name} has no file for the whole run")

    # ---- reading back ----

    def read_rows(self, path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """Yield the images in a file of rows, with their rows.

        Args:
            path: The file.
            images: The images that the file was written with; it may have lost some.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file is not as it was written.
        """
        raise NotImplementedError(f"the format {self.name} has no file of rows")

    def read_labels(self, image: StoredImage, path: Path) -> LabelArray:
        """Return the label ids [H, W] in a per-image file, if `labels` says that they can be read back.

        Raises:
            ImageError, OSError, ValueError: The file cannot be read, or is not as it was written; see `problem.UNREADABLE`.
        """
        raise NotImplementedError(f"no labels can be read back from the format {self.name}")

    def labels_of_rows(self, image: StoredImage, rows: Rows) -> LabelArray:
        """Return the label ids [H, W] in the rows of an image, if it has no file of its own. Raises as `read_labels` does."""
        raise NotImplementedError(f"no labels can be read back from the rows of the format {self.name}")

    def read_scores(self, image: StoredImage, path: Path) -> tuple[NDArray[np.float32], TopClasses]:
        """Return the confidence [H, W], 0..1, and the best classes of each patch in an archive. Raises as `read_labels` does."""
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


def output_name(image: PurePosixPath, names: str) -> PurePosixPath:
    """Return the name of the files of an image, without a suffix; `names` is one of `options.NAMES`."""
    return image.with_suffix("") if names == NAMES[0] else image
