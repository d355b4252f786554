"""The base classes of label formats, and the records that formats read.

A format returns bytes. For each image, in any process and order, it returns the per-image file and the image's rows in a run file.
At the end of a run, it returns the run files, which cover all images.

    data = form.encode(image, run)
    rows = form.image_rows(image, run)
    pieces = form.run_file(name, run, images, rows_of)

A format names its files, relative to the output folder, but does not write them. Files contain no timestamps, so equal labels give
equal bytes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from tipsseg.errors import UsageError, Words
from tipsseg.options import NAMES
from tipsseg.options.records import DEFAULT_FILE_OPTIONS, FileOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.formats.records import ClassNames, SourceImage
    from tipsseg.formats.source import Source
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.regions.shapes import Shape
    from tipsseg.types import ConfidenceArray, ImageRef, LabelArray, LabelClass, TopClasses

#: The field in which formats write `ImageLabels.base`. Tools leave fields alone that they do not know.
BASE_FIELD = "tipsseg"

#: An image's rows in a run file: lines of JSON, without line ends or tabs.
Rows = tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts shared by all images of a run.

    Attributes:
        classes: The classes, in the order of their ids 1..N.
        info: The JSON values of version, command, model, revision and vocabulary.
        files: Options for the label files.
    """

    classes: tuple[LabelClass, ...]
    info: Mapping[str, object]
    files: FileOptions = DEFAULT_FILE_OPTIONS


class Grid(Protocol):
    """Where the labels of an image lie, as a plugin knows it. The core hands it on.

    Attributes:
        size: (height, width) in pixels.
        facts: What the mask and manifest.jsonl say of it: JSON values by name.
        remark: The key of the note about a grid that users do not expect; "" for none.
    """

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def facts(self) -> Mapping[str, object]: ...

    @property
    def remark(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageLabels:
    """An image and its labels. `Format.needs` says which optional attributes a format requires.

    Attributes:
        ref: The image.
        labels: [H, W], the label ids.
        objects: The objects, in the order of `regions.components`.
        confidence: [H, W], 0..1.
        top: The best classes of each patch.
        thumbnail: [h, w, 3] uint8 RGB (see `upright.thumbnail_rgb`).
        instances: [H, W] int32, the instances of a run with regions (see `naming.NamedRegions`); None without regions.
        pixels: [H, W, 3] uint8 RGB, the upright image.
        grid: The grid of the pixels, for formats that need it.
        base: The digest of the labels (see `Entry.base`), which some formats write, for corrections that come back; "" for none.
    """

    ref: ImageRef
    labels: LabelArray
    objects: Sequence[LabelledObject] = ()
    confidence: ConfidenceArray | None = None
    top: TopClasses | None = None
    thumbnail: NDArray[np.uint8] | None = None
    instances: NDArray[np.int32] | None = None
    pixels: NDArray[np.uint8] | None = None
    grid: Grid | None = None
    base: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.labels.shape
        return height, width


def base_of(record: Mapping[str, object]) -> str:
    """Return the `ImageLabels.base` that a format wrote into a record; "" if there is none."""
    base = record.get(BASE_FIELD)
    return base if isinstance(base, str) else ""


def encode_text(text: str) -> bytes:
    """Encode text as UTF-8, with backslash escapes for file name bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace")


#: An attribute of `ImageLabels` beside `labels`, or "address", the image's.
Need = Literal["objects", "confidence", "top", "thumbnail", "pixels", "grid", "address"]


class Format:
    """A label format: it writes files of labels, and if people edit such files, it reads them too.

    A format with a file per image defines `folder`, `suffix` and `encode`. For several files per image, there is `PartsFormat`. A
    format with run files, which cover all images, defines `files` and `run_file`. If its first run file consists of rows, it also
    defines `image_rows`. A format that `tipsseg correct` imports defines `read`, and `detect` or `detect_json`.

    A key names a per-image file in the records: the name of the format; with several files per image, "<format>/<part>".

    Attributes:
        name: The name that users pass.
        description: A one-line description for the table of formats.
        folder: The folder for per-image files, relative to the output folder. None if the format writes none.
        suffix: The suffix of the per-image files.
        picture_folder: The folder for copies of the images, relative to the output folder. None if there are none.
        files: The names of the run files.
        needs: The attributes of `ImageLabels` that the format reads beside `labels`.
        divides: True if each pixel belongs to one object (see `visible_objects`); else a part is in the object of its whole too.
        colours: True if the files show the colours of the classes.
        multi_part_objects: True if the format can store an object with several parts.
        forbidden_characters: Characters that class names must not contain.
        only_changes: True if a source has only what a person changed, on labels that the source showed.
        mask: The format of the masks in a folder whose formats all name that one.
        options: The options of the format, by name: the function that makes a value of a text, and raises ValueError if it cannot.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    mask: ClassVar[str] = "png"
    folder: ClassVar[str | None] = None
    suffix: ClassVar[str] = ".png"
    picture_folder: ClassVar[str | None] = None
    files: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[frozenset[Need]] = frozenset()
    divides: ClassVar[bool] = False
    colours: ClassVar[bool] = False
    multi_part_objects: ClassVar[bool] = True
    forbidden_characters: ClassVar[str] = ""
    only_changes: ClassVar[bool] = False
    options: ClassVar[Mapping[str, Callable[[str], Any]]] = {}

    # ---- abilities ----

    def _defines(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(Format, method)

    @property
    def has_rows(self) -> bool:
        """True if the first run file consists of rows."""
        return self._defines("image_rows")

    @property
    def splits(self) -> bool:
        """True if the format puts images into splits."""
        return self._defines("split")

    @property
    def reads(self) -> bool:
        """True if the format reads files that people edited."""
        return self._defines("read")

    @property
    def model_only(self) -> bool:
        """True if only the model can write the format, not a corrected mask."""
        return not self.needs.isdisjoint(("confidence", "top"))

    @property
    def shows_picture(self) -> bool:
        """True if the pixels or the grid of the image, or a copy of it, are in the files."""
        return self.picture_folder is not None or not self.needs.isdisjoint(("thumbnail", "pixels", "grid"))

    # ---- paths ----

    def split(self, image: PurePosixPath, options: FileOptions) -> str:
        """Return the split of an image by `FileOptions.val_fraction`, such as "train"."""
        raise NotImplementedError(f"the format {self.name} does not split images")

    def parent(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath:
        """Return the folder of an image's file and copy, relative to `folder` and `picture_folder`."""
        return image.parent

    def picture_name(self, image: PurePosixPath, options: FileOptions) -> str:
        """Return the name of the copy of an image: the name of its per-image file, with the image's suffix."""
        return output_name(image, options.names).name + image.suffix

    def relative_path(self, image: PurePosixPath, options: FileOptions, part: str = "") -> PurePosixPath | None:
        """Return the path of a per-image file, relative to the output folder; None if the format writes none."""
        if self.folder is None:
            return None
        name = output_name(image, options.names).name + self.suffix
        return PurePosixPath(self.folder, self.parent(image, options), name)

    def picture_path(self, image: PurePosixPath, options: FileOptions) -> PurePosixPath | None:
        """Return the path of the copy of an image, relative to the output folder; None if the format makes none.

        A name without a suffix, such as the name of a video frame, gets .bmp: tools skip files without a suffix.
        """
        if self.picture_folder is None:
            return None
        name = self.picture_name(image, options)
        name = name if PurePosixPath(name).suffix else f"{name}.bmp"
        return PurePosixPath(self.picture_folder, self.parent(image, options), name)

    # ---- writing ----

    def check(self) -> None:
        """Check that the packages of the format are installed. Raise UsageError if one is missing."""

    def refuse_classes(self, classes: Sequence[LabelClass]) -> None:
        """Raise UsageError if the format cannot store a class name."""
        for entry in classes:
            if found := sorted(set(self.forbidden_characters) & set(entry.name)):
                raise UsageError(
                    f"the format {self.name} cannot store the class name {entry.name!r}: it does not allow {found[0]!r}",
                    "Rename the class, or drop the format.",
                )

    def options_set(self, files: FileOptions) -> dict[str, str]:
        """Return the `options` that the user set, by name, as the user wrote the values."""
        texts = (
            text.removeprefix(f"{self.name}.").partition("=")
            for text in files.extra
            if text.startswith(f"{self.name}.")
        )
        return {name: value for name, _, value in texts}

    def values_of(self, files: FileOptions) -> dict[str, Any]:
        """Return the values of the `options` that the user set, by name. Raise UsageError for a wrong name or value."""
        found = dict[str, Any]()
        for name, text in self.options_set(files).items():
            if name not in self.options:
                known = f"The options are: {', '.join(self.options)}." if self.options else ""
                raise UsageError(f"the format {self.name} has no option {name!r}", known)
            try:
                found[name] = self.options[name](text)
            except ValueError as error:
                wrong = Words(
                    "{extra}={form}.{name}={text}: {error}", form=self.name, name=name, text=text, error=str(error)
                )
                raise UsageError(wrong) from error
        return found

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        """Return the bytes of the per-image file."""
        raise NotImplementedError(f"the format {self.name} has no per-image file")

    def encode_files(self, image: ImageLabels, run: RunFacts) -> Mapping[str, bytes]:
        """Return the bytes of all per-image files, by key."""
        return {} if self.folder is None else {self.name: self.encode(image, run)}

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return an image's rows in the run file."""
        raise NotImplementedError(f"the format {self.name} has no file of rows")

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        """Return the bytes of a run file, in pieces.

        Args:
            name: The file name, one of `files`.
            run: Facts about the run.
            images: The image names, in the order of the file.
            rows: Returns an image's rows. It may be called twice per image.
        """
        raise NotImplementedError(f"the format {self.name} has no run file")

    # ---- reading ----

    def detect(self, source: Source) -> bool:
        """Return True if the names of the files in a source, or a list among them, show this format."""
        return False

    def detect_json(self, value: object) -> bool:
        """Return True if a parsed JSON file has this format."""
        return False

    def parts(self, source: Source) -> Sequence[Format]:
        """Return a reader of each document in a source, in the order in which a person made the documents."""
        return [self]

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield the images in a source, given the classes of a run. Raise ImageError if a file is invalid."""
        raise NotImplementedError(f"the format {self.name} is not read")

    def reread_shapes(self, objects: Iterable[LabelledObject], size: tuple[int, int]) -> list[Shape]:
        """Return the pixels of objects as this format stores them: here as polygons, one for each part of an object.

        Args:
            objects: The objects of an image.
            size: (height, width) of the image.
        """
        from tipsseg.regions.shapes import shape_from_polygons

        return [
            shape_from_polygons(entry.region.class_id, [self.round_ring(ring[:, ::-1], size)], size)
            for entry in objects
            for ring in entry.outline.rings
        ]

    def round_ring(self, ring: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
        """Return corners (x, y), [K, 2] in pixels, as precisely as this format stores them."""
        return ring


def output_name(image: PurePosixPath, names: str) -> PurePosixPath:
    """Return the output name of an image, to which formats add their suffix. `names` is one of `options.NAMES`."""
    return image.with_suffix("") if names == NAMES[0] else image


#: Characters that a system rejects in file names, and dots, spaces and hyphens that mean something at one end of a name.
_UNFIT = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*]|^[. -]|[. ]$')

#: Maximum length of a folder name in bytes; file systems allow 255.
_LONGEST = 240


class PartsFormat(Format):
    """The base class of formats with several PNG files per image, in a folder for each class.

        <folder>/<class>/<image>.png    or, with numbered files, <folder>/<class>/<image>-<number>.png

    A part is the folder of a class, followed by "/" and a number if the files are numbered.

    Attributes:
        numbers_files: True if the files are numbered.
    """

    numbers_files: ClassVar[bool] = False

    def refuse_classes(self, classes: Sequence[LabelClass]) -> None:
        super().refuse_classes(classes)
        owners: dict[str, str] = {}
        for entry in classes:
            folder = class_folder(entry.name)
            owner = owners.setdefault(unicodedata.normalize("NFC", folder).casefold(), entry.name)
            if owner != entry.name:
                raise UsageError(
                    f"the format {self.name} would write the classes {owner!r} and {entry.name!r} into one folder, {folder}",
                    "Rename one of them, or drop the format.",
                )
            if len(folder.encode("utf-8", "surrogatepass")) > _LONGEST:
                raise UsageError(
                    f"the format {self.name} cannot store the class name {entry.name[:40]!r}...: it is too long for a folder",
                    "Rename the class, or drop the format.",
                )

    def relative_path(self, image: PurePosixPath, options: FileOptions, part: str = "") -> PurePosixPath:
        folder, _, number = part.partition("/")
        name = output_name(image, options.names).name + (f"-{number}" if number else "") + self.suffix
        return PurePosixPath(self.folder or "", folder, image.parent, name)

    def encode_files(self, image: ImageLabels, run: RunFacts) -> Mapping[str, bytes]:
        return {f"{self.name}/{part}": data for part, data in self.encode_parts(image, run)}

    def encode_parts(self, image: ImageLabels, run: RunFacts) -> Iterable[tuple[str, bytes]]:
        """Yield the parts of an image with their bytes."""
        raise NotImplementedError


def class_folder(name: str) -> str:
    """Return the name of the folder of a class."""
    return _UNFIT.sub("_", name)
