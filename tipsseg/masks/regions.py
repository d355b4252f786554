"""Read regions: the masks of another tool, without classes, for `tipsseg label --regions`.

A source is a folder, a zip or a file. An image has a file of its name, or an entry in a list for all images:

* <image>.png: each value is a region, 0 is none; 8 or 16 bits, or RGB with the id R + 256 G + 65536 B, as COCO panoptic has it
* <image>/metadata.csv with 0.png, 1.png, ...: a mask each, as SAM's amg.py writes them
* <image>.json: the masks of SAM's automatic mask generator or of SA-1B, as COCO run-length codes, or rows of true and false
* <image>.npz: `masks` [R, H, W] or [R, 1, H, W], or `segmentation`, `instances`, `ids` or `labels` [H, W], whose values are the
  regions
* a COCO file, or COCO results: one annotation is one region, whatever its category
* an output folder of tipsseg: its format `instances`

Where annotations overlap, the smaller region is on top.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError
from tipsseg.formats import FORMATS
from tipsseg.formats.coco import group_by_image, is_coco, is_panoptic, read_shape
from tipsseg.formats.npz import read_array
from tipsseg.formats.png import read_panoptic_ids
from tipsseg.formats.records import Size, check_object_count, check_size, image_errors
from tipsseg.formats.source import TRIED, Source
from tipsseg.masks.names import SourceNames
from tipsseg.regions.naming import paint_regions
from tipsseg.regions.shapes import NoPixelsError, Runs, runs_from_rle, shape_from_mask
from tipsseg.types import ImageRef
from tipsseg.util.json import json_bytes, short, take

#: The arrays of an archive that may have the regions, in the order of preference.
_ARRAYS = ("masks", "segmentation", "instances", "ids", "labels")

#: How often the masks of an image may cover it. SAM's cover it a few times.
_COVERED_MAX = 500

#: The size limit of an unpacked archive of arrays, in bytes.
_ARRAYS_MAX = 1 << 30

#: The length of an image id in the file names of COCO.
_COCO_DIGITS = 12

_SUFFIXES = (".png", ".npz", ".json")
_HINT = "Pass a folder with a PNG, NPZ or JSON file per image, or a COCO file; see examples/regions/README.md."


@dataclass(frozen=True, slots=True, eq=False)
class ImageRegions:
    """The regions of an image in a source.

    Attributes:
        content: Returns the bytes that the regions are read from; raises ImageError if the file cannot be read.
        read: Returns the region ids [H, W] int32 of an image of this size (height, width), 0 outside all regions. Raises
            ImageError if the file is invalid or has another size.
    """

    content: Callable[[], bytes]
    read: Callable[[Size], NDArray[np.int32]]

    def digest(self) -> str:
        return hashlib.sha256(self.content()).hexdigest()


class RegionSource:
    """The regions of all images. Thread-safe.

    Attributes:
        names: Finds the regions of an image.
    """

    def __init__(self, path: Path) -> None:
        """List the files, and read the lists for all images. Raise InputError, or ImageError for a damaged list."""
        self._path = path
        source = Source(path)
        weakref.finalize(self, source.close)
        names = _region_files(source)
        listings = [name for name in names if name.lower().endswith(".json")]
        kind = _kind_of(source, listings)
        self._images: dict[str, ImageRegions] = {}
        if kind == "listing":
            for name in listings:
                self._images |= _read_listing(source, name)
        else:
            if kind == "panoptic":  # the PNGs have the regions
                names = [name for name in names if name not in listings]
            for folder, pictures in _numbered_pictures(source, names):
                content = partial(_join, source, pictures)
                self._images[folder] = ImageRegions(content, partial(_read_pictures, source, sorted(pictures)))
                names = [name for name in names if name not in pictures]
            readers = {".png": _read_png, ".npz": _read_archive, ".json": _read_masks}
            for name in names:
                file = PurePosixPath(name)
                read = partial(readers[file.suffix.lower()], source, name)
                self._images[str(file.with_suffix(""))] = ImageRegions(partial(source.read, name), read)
        if not self._images:
            raise InputError(f"{path}: no regions found", _HINT)
        self.names = SourceNames(self._images)

    def find(self, ref: ImageRef) -> ImageRegions:
        """Return the regions of an image. See `SourceNames` for names.

        Raises:
            ImageError: The source has no regions of this image, or regions that could belong to several images.
        """
        name = self.names.find(ref)
        if name is None:
            raise ImageError(ref.path, f"no regions in {self._path}", "Add a region file with the name of the image.")
        return self._images[name]


def _region_files(source: Source) -> Sequence[str]:
    """Return the files that may have regions. Raise InputError for an output folder of tipsseg without instances."""
    files = source.find_suffix(*_SUFFIXES)
    if not source.is_output:
        return files
    folder = f"{FORMATS['instances'].folder}/"
    if names := [name for name in files if name.startswith(folder) and name.lower().endswith(".png")]:
        return names
    raise InputError(
        f"{source.path}: an output folder that lacks the format instances",
        f"First run: tipsseg convert {source.path} --format instances",
    )


def _kind_of(source: Source, names: Sequence[str]) -> Literal["listing", "panoptic", "images"]:
    """Return the kind of the JSON files: lists for all images, descriptions of panoptic PNGs, or masks of one image each.

    The first file that can be read shows it. Raise ImageError if the only file of the source cannot be read.
    """
    for name in names[:TRIED]:
        try:
            value = source.json(name)
        except ImageError:  # reported for its image
            if len(source.names) == 1:
                raise
            continue
        if is_panoptic(value):
            return "panoptic"
        return "listing" if is_coco(value) or _is_results(value) else "images"
    return "images"


def _numbered_pictures(source: Source, names: Sequence[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the folders with SAM's metadata.csv, and the masks in each."""
    for listing in source.find_name("metadata.csv"):
        folder = PurePosixPath(listing).parent
        pictures = frozenset(name for name in names if PurePosixPath(name).parent == folder and name.endswith(".png"))
        if pictures and folder.name:
            yield str(folder), pictures


def _join(source: Source, names: Iterable[str]) -> bytes:
    return b"".join(source.read(name) for name in sorted(names))


def _read_png(source: Source, name: str, size: Size) -> NDArray[np.int32]:
    with source.file(name) as path:
        return read_panoptic_ids(path, size)


def _read_pictures(source: Source, names: Sequence[str], size: Size) -> NDArray[np.int32]:
    """Read the masks of one image in PNG files, one each, as SAM's amg.py writes them."""
    runs = list[Runs]()
    for name in names:
        with source.file(name) as path:
            runs.append(shape_from_mask(1, read_panoptic_ids(path, size) != 0).runs(size[0]))
    return paint_regions(runs, size)


def _read_archive(source: Source, name: str, size: Size) -> NDArray[np.int32]:
    with image_errors(source.display_path(name)):
        with source.file(name) as path:
            key, array = read_array(path, _ARRAYS, _ARRAYS_MAX)
        if array.ndim == 4 and array.shape[1] == 1:
            array = array[:, 0]  # as SAM's predictors return masks
        if array.shape[-2:] != size or array.ndim not in (2, 3) or array.dtype.kind not in "biu":
            is_but = f"is {array.dtype} {list(array.shape)}, but the image has {size[0]} x {size[1]} pixels"
            raise ValueError(f"`{key}` {is_but}")
        if array.ndim == 3:
            return paint_regions([shape_from_mask(1, mask != 0).runs(size[0]) for mask in array], size)
        if array.min(initial=0) < 0 or array.max(initial=0) > np.iinfo(np.int32).max:
            raise ValueError(f"`{key}` has values below 0 or above {np.iinfo(np.int32).max:,}")
        return array.astype(np.int32)


# ---- JSON ----


def _is_results(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and isinstance(each.get("image_id"), int | str) for each in value)
    )


def _read_listing(source: Source, name: str) -> Mapping[str, ImageRegions]:
    """Return the images in a COCO file, or in COCO results, by name."""
    where, value = source.display_path(name), source.json(name)
    named: dict[str, tuple[object, Sequence[object]]] = {}
    with image_errors(where):
        if is_coco(value):
            for image, annotations in group_by_image(value):
                if image["file_name"] in named:
                    raise ValueError(f"two images have the file name {short(image['file_name'])}")
                named[image["file_name"]] = image, annotations
        elif _is_results(value):
            by_image: dict[int | str, list[object]] = defaultdict(list)
            for annotation in value:
                by_image[annotation["image_id"]].append(annotation)
            for number, annotations in by_image.items():
                for spelling in {str(number), str(number).zfill(_COCO_DIGITS)}:
                    named[spelling] = None, annotations
        else:
            raise ValueError("neither a COCO file nor COCO results, as the other JSON files are")
    return {
        image: ImageRegions(partial(json_bytes, annotations), partial(_read_annotations, where, record, annotations))
        for image, (record, annotations) in named.items()
    }


def _read_masks(source: Source, name: str, size: Size) -> NDArray[np.int32]:
    """Read the masks of one image: a list of annotations, or SA-1B's record with such a list."""
    where, value = source.display_path(name), source.json(name)
    record = None
    with image_errors(where):
        if isinstance(value, dict):
            record, value = value.get("image"), take(value, "annotations", list)
        if not isinstance(value, list):
            raise ValueError(f"expected a list of masks, not {short(value)}")
    return _read_annotations(where, record, value, size)


def _read_annotations(where: Path, record: object, annotations: Sequence[object], size: Size) -> NDArray[np.int32]:
    with image_errors(where):
        if isinstance(record, dict) and "height" in record:
            check_size(record["height"], record.get("width"), size)
        check_object_count(annotations)
        runs, area = list[Runs](), 0
        for number, annotation in enumerate(annotations, start=1):
            try:
                own = _read_runs(annotation, size)
            except NoPixelsError:
                continue
            except (ValueError, InputError) as error:
                raise ValueError(f"annotation {number}: {error}") from error
            runs.append(own)
            area += int((own[:, 1] - own[:, 0]).sum())
            if area > _COVERED_MAX * size[0] * size[1]:
                raise ValueError(f"the masks cover the image more than {_COVERED_MAX} times")
    return paint_regions(runs, size)


def _is_row(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], bool)


def _read_runs(annotation: object, size: Size) -> Runs:
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if isinstance(segmentation, dict):
        return runs_from_rle(segmentation, size)
    if isinstance(segmentation, list) and segmentation and _is_row(segmentation[0]):
        mask = np.array(segmentation)
        if mask.shape != size or mask.dtype != np.bool_:
            raise ValueError(f"a mask of {list(mask.shape)}, but the image has {size[0]} x {size[1]} pixels")
        return shape_from_mask(1, mask).runs(size[0])
    return read_shape(annotation, 1, size).runs(size[0])
