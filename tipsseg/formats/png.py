"""Index masks: one PNG per image, in which pixel values are label ids.

They are greyscale (8-bit, or 16-bit above 254 classes): OpenCV reads PNGs with a palette as colours or brightness.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.formats.base import Format, ImageLabels, RunFacts
from tipsseg.formats.classes_file import MaskIds
from tipsseg.formats.mask import labels_digest, open_envelope
from tipsseg.formats.records import ClassNames, Objects, PixelLabels, Size, SourceImage
from tipsseg.formats.source import Source
from tipsseg.images.decoding import ImageReader, as_image_error
from tipsseg.options import MAX_PIXELS
from tipsseg.types import BACKGROUND, IGNORED_COLOUR, MAX_CLASSES_8_BIT, LabelArray, LabelClass, ignore_id, label_dtype
from tipsseg.util.text import size_text

#: Formats that do not preserve pixel values.
_UNFIT_FORMATS = {
    "JPEG": "a JPEG, which does not preserve pixel values",
    "MPO": "a JPEG, which does not preserve pixel values",
    "GIF": "a GIF, whose palette programs reorder when they save it",
}
_KINDS = {"F": "an image of floats", "LA": "an image with transparency", "PA": "an image with transparency"}
_SAVE_AS_PNG = "Save it as a single-channel PNG, 8 or 16 bits, whose values are the class ids."
_MAX_ID = 65535

#: The zlib strategy.
_Z_RLE = 3

#: The place of the bit depth in a PNG file.
_PNG_DEPTH = 24


class Png(Format):
    name = "png"
    description = "index masks: masks/<image>.png, 0 background, 1..N the classes"
    folder = "masks"

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        return encode_mask(image.labels, run.classes)

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield an image for each greyscale or palette PNG with label ids. A PNG is named after its image."""
        return read_named_masks([(name[: -len(".png")], name) for name in source.find_suffix(".png")], source, names)


class PngPalette(Png):
    """Index masks with a palette of the class colours, for tools that require a palette."""

    name = "png-palette"
    description = "index masks with a palette of the class colours: png-palette/<image>.png"
    folder = name
    colours = True

    def refuse_classes(self, classes: Sequence[LabelClass]) -> None:
        super().refuse_classes(classes)
        if len(classes) > MAX_CLASSES_8_BIT:
            raise UsageError(
                f"the format {self.name} supports at most {MAX_CLASSES_8_BIT} classes, got {len(classes)}",
                "Use the format png, which is 16-bit above that.",
            )

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        picture = Image.fromarray(np.ascontiguousarray(image.labels, np.uint8))
        known = {entry.id: entry.colour for entry in run.classes} | {ignore_id(len(run.classes)): IGNORED_COLOUR}
        picture.putpalette([value for index in range(256) for value in known.get(index, (0, 0, 0))])
        return encode_runs(picture)


def encode_picture(picture: Image.Image, **options: Any) -> bytes:
    """Encode a picture, by default as PNG. `options` are passed to Pillow."""
    buffer = io.BytesIO()
    picture.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def encode_mask(labels: LabelArray, classes: Sequence[LabelClass]) -> bytes:
    """Encode label ids [H, W] as a greyscale PNG file, 8-bit, or 16-bit above 254 classes."""
    return encode_runs(Image.fromarray(np.ascontiguousarray(labels, label_dtype(len(classes)))))


def encode_runs(picture: Image.Image) -> bytes:
    """Encode a mask as PNG. Masks consist of long runs; encoding only runs takes half the time and makes smaller files."""
    return encode_picture(picture, compress_level=1, compress_type=_Z_RLE)


def _mask_mode(classes: int) -> str:
    """Return the PNG mode of masks."""
    return "L" if label_dtype(classes) is np.uint8 else "I;16"


def read_painted_mask(
    path: Path,
    size: tuple[int, int] | None,
    classes: Sequence[LabelClass],
    is_known: Callable[[LabelArray], bool] = lambda _: False,
) -> tuple[LabelArray, bool]:
    """Return the label ids [H, W] in a mask as paint programs save it, and True if it has the mode of masks.

    A file of another mode has ids as grey values or palette indices, or it has the colours of the classes. Ids of 16 bits are not
    read from files of 8 bits, which may have lost some.

    Args:
        path: The mask.
        size: (height, width) of the image in pixels; None if it is unknown.
        classes: The classes.
        is_known: Recognises the labels that were there before a program wrote them in another way.

    Raises:
        ImageError: The file is not a PNG of this size, a pixel is transparent, or is neither an id nor a colour of a class, or both
            that differ.
    """
    picture, ignored, dtype = read_picture(path, size), ignore_id(len(classes)), label_dtype(len(classes))
    expected, wide = _mask_mode(len(classes)), dtype is np.uint16
    with as_image_error(path):
        if picture.mode == expected:
            return read_ids(picture), True
        if picture.mode in ("1", "L") or picture.mode.startswith("I"):
            return _ids_of_depth(read_ids(picture), dtype, is_known), False
        if picture.mode not in ("LA", "P", "RGB", "RGBA"):
            raise InputError(f"PNG mode {picture.mode}, expected {expected}")
        _refuse_deep(path)
        colours = np.asarray(picture.convert("RGBA"), np.uint8)  # [H, W, 4]
        _refuse_pixel(colours[..., 3] < 255, "is transparent")
        known = np.zeros(1 << 16, np.bool_)
        known[[0, *(entry.id for entry in classes), ignored]] = True
        readings = [_ids_of_colours(colours[..., :3], classes)]
        is_grey = (colours[..., :1] == colours[..., 1:3]).all(-1)
        readings.append(np.where(is_grey & known[colours[..., 0]], colours[..., 0].astype(np.int32), -1))
        if picture.mode == "P":
            indices = np.asarray(picture).astype(np.int32)
            readings.append(np.where(known[indices], indices, -1))
            readings.append(indices * 257)  # of 16 bits whose bytes are equal
        whole = [ids for ids in readings if ((ids >= 0) & (ids <= np.iinfo(dtype).max)).all()]
        for ids in whole:
            if is_known(labels := cast(LabelArray, ids.astype(dtype))):
                return labels, False
        readings = readings[:1] if wide else readings[:3]
        whole = [ids for ids in readings if (ids >= 0).all()]
        if not whole:
            _refuse_pixel(np.maximum.reduce(readings) < 0, "is neither an id nor a colour of a class")
            raise InputError("its pixels are ids and colours of classes")
        for other in whole[1:]:
            _refuse_pixel(whole[0] != other, "is one class by its colour and another by its value")
        return cast(LabelArray, whole[0].astype(dtype)), False


def _ids_of_depth(stored: LabelArray, dtype: Any, is_known: Callable[[LabelArray], bool]) -> LabelArray:
    """Return the ids in a mask of another depth. Programs that make files smaller scale values, also to one bit.

    Raise InputError if the file has more bits than masks, and values beyond them, or less.
    """
    values, most = stored.astype(np.int64), np.iinfo(dtype).max
    for ids in (values, values * 255, values * 257, values // 257):
        if ids.max() <= most and is_known(labels := cast(LabelArray, ids.astype(dtype))):
            return labels
    if dtype is np.uint16:
        raise InputError("8 bits per pixel, but masks of more than 254 classes have 16")
    if values.max() > most:
        raise InputError(f"values up to {values.max()}, but masks have 8 bits")
    return cast(LabelArray, values.astype(dtype))


def _ids_of_colours(colours: NDArray[np.uint8], classes: Sequence[LabelClass]) -> NDArray[np.int32]:
    """Return the ids [H, W] of colours [H, W, 3], black for the background; -1 for colours of no class."""
    known = {(0, 0, 0): BACKGROUND, IGNORED_COLOUR: ignore_id(len(classes))} | {
        each.colour: each.id for each in classes
    }
    codes = colours.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)  # [H, W]
    ids = np.full(codes.shape, -1, np.int32)
    for (red, green, blue), label_id in known.items():
        ids[codes == (red << 16 | green << 8 | blue)] = label_id
    return ids


def _refuse_pixel(wrong: NDArray[np.bool_], what: str) -> None:
    """Raise InputError for the first wrong pixel of a mask [H, W]."""
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise InputError(f"the pixel in row {row + 1}, column {column + 1} {what}")


def read_picture(path: Path, size: tuple[int, int] | None) -> Image.Image:
    """Decode a PNG of `size` (height, width). Raise ImageError before decoding pixels if the size differs."""

    with ImageReader(max(MAX_PIXELS, prod(size or ()))).header(path) as image:
        if (kind := image.picture.format) != "PNG":
            raise ImageError(path, f"a {kind}, which may not preserve pixel values", "Save masks as PNG.")
        if size is not None and image.size != size:
            reason = f"{size_text(image.size)}, but the image is {size[0]} x {size[1]}"
            raise ImageError(path, reason, "A mask must have the size of its upright image.")
        return image.decode()


def read_panoptic_ids(path: Path, size: tuple[int, int]) -> NDArray[np.int32]:
    """Return the ids that a PNG of `size` (height, width) stores, [H, W]: R + 256 G + 65536 B, or values of one channel.

    Raise ImageError if it cannot be read, or InputError if it has 16 bits per channel.
    """
    picture = read_picture(path, size)
    with as_image_error(path):
        if picture.mode != "RGB":
            return read_ids(picture).astype(np.int32)
        _refuse_deep(path)
    red, green, blue = np.moveaxis(np.asarray(picture, np.int32), -1, 0)  # each [H, W]
    return red + 256 * green + 65536 * blue


def _refuse_deep(path: Path) -> None:
    """Raise InputError for a PNG of 16 bits per channel, of which Pillow reads the upper ones."""
    with path.open("rb") as file:
        if file.read(_PNG_DEPTH + 1)[_PNG_DEPTH] > 8:
            raise InputError("it is RGB with 16 bits per channel", "Save ids as 8-bit RGB, or in one channel.")


def read_ids(picture: Image.Image) -> LabelArray:
    """Return the ids that a mask stores, [H, W]: palette indices or grey values; 0 and 1 for one bit per pixel.

    The EXIF orientation is not applied. Masks match the upright image; a mask with an orientation tag got it with the photograph's
    other metadata.

    Raises:
        InputError: The picture cannot be a mask.
    """

    if 0 in picture.size:
        raise InputError("the image has no pixels")
    if picture.format in _UNFIT_FORMATS:
        raise InputError(f"{_UNFIT_FORMATS[picture.format]}; masks must have exact class ids", _SAVE_AS_PNG)
    if picture.mode in ("1", "L", "P"):
        return np.asarray(picture).astype(np.uint8)
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > _MAX_ID:
            raise InputError(f"ids range from {low} to {high}, but must be between 0 and {_MAX_ID}", _SAVE_AS_PNG)
        return values.astype(np.uint16)
    kind = _KINDS.get(picture.mode, "a colour image")
    swapped = "" if picture.mode == "F" else " If it is a photograph, images and masks are swapped."
    reason = f"{kind} ({picture.mode}); masks must store class ids as greyscale or palette values"
    raise InputError(reason, f"{_SAVE_AS_PNG}{swapped}")


def read_named_masks(masks: Iterable[tuple[str, str]], source: Source, names: ClassNames) -> Iterator[SourceImage]:
    """Yield an image for each pair of an image name and the path of its mask in the source."""
    ids = MaskIds(source, names)
    for image, name in masks:
        yield SourceImage(image, source.display_path(name), partial(read_mask, source, name, names.classes, ids))


def read_mask(
    source: Source, name: str, classes: Sequence[LabelClass], ids: MaskIds, size: Size
) -> PixelLabels | Objects:
    """Return the labels in a mask of ids, or of the colours of classes. Raise ImageError if it cannot be read."""
    with source.file(name) as path:
        picture, said = read_picture(path, size), open_envelope(path.read_bytes())
        if picture.mode in ("RGB", "RGBA", "LA"):
            return PixelLabels(read_painted_mask(path, size, classes)[0])
    with as_image_error(source.display_path(name)):
        stored = read_ids(picture)
    labels = ids.to_run_ids(name, source.display_path(name), stored, said.facts.names if said.facts else {})
    base = labels_digest(said.facts, said) if said.facts and not said.intact else ""
    return PixelLabels(
        cast(LabelArray, labels.astype(label_dtype(len(classes)))), instances=said.objects(size), base=base
    )


def read_source_picture(source: Source, name: str, size: Size) -> Image.Image:
    with source.file(name) as path:
        return read_picture(path, size)
