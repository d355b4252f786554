"""Ground-truth masks: pair them with images by name, read them, and map their ids to label ids, also for common benchmarks.

Label ids are 0 for background and 1..N for the classes. In ground-truth files, the classes may start at 0, or 0 may mean ignored
pixels.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError, LabelIdError, UsageError, Words
from tipsseg.formats import refuse_parts
from tipsseg.formats.classes_file import CLASSES_FILE, ordered_names
from tipsseg.formats.png import read_ids
from tipsseg.images.decoding import ImageReader, as_image_error
from tipsseg.masks.names import SourceNames
from tipsseg.options.records import TruthOptions
from tipsseg.regions.components import count_labels
from tipsseg.types import BACKGROUND, ImageRef, LabelArray, ignore_id, label_dtype
from tipsseg.util.files import describe_error, is_file, is_folder, read_regular
from tipsseg.util.json import parse
from tipsseg.util.text import did_you_mean, join_first, pluralize
from tipsseg.vocabulary.files import read_vocabulary

#: Id of ignored pixels in ground-truth arrays.
IGNORED = 65535

_UNKNOWN = -1
_TOP_ID = 65535


@dataclass(frozen=True, slots=True)
class TruthIds:
    """Mapping from the ids of ground-truth files to label ids.

    Attributes:
        classes: N, the number of scored classes.
        meaning: Label id for each valid id in a file, 0..65535: 0 for background, 1..N, or IGNORED.
    """

    classes: int
    meaning: Mapping[int, int]

    @property
    def background(self) -> bool:
        """True if the ground truth has background, which is then scored as a class."""
        return BACKGROUND in self.meaning.values()

    def table(self) -> NDArray[np.int32]:
        """Return the label id for each id in a file, [65536] int32: 0..N, IGNORED, or -1 for an unknown id."""
        table = np.full(_TOP_ID + 1, _UNKNOWN, np.int32)
        table[list(self.meaning.keys())] = list(self.meaning.values())
        return table


@dataclass(frozen=True, slots=True)
class TruthKind:
    """Kind of ground-truth file: the suffix of its name before the extension, and the meaning of its ids."""

    suffix: str
    ids: TruthIds


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """File names and class ids of a benchmark.

    Attributes:
        name: Name of the layout, which the benchmark's preset vocabulary shares; "plain" for the user's own classes.
        kinds: Kinds of ground-truth files, best first. All score the same classes.
        image_suffix: Suffix of image names before the extension, which ground truth names lack.
    """

    name: str
    kinds: tuple[TruthKind, ...]
    image_suffix: str = ""

    @property
    def classes(self) -> int:
        return self.kinds[0].ids.classes

    @property
    def background(self) -> bool:
        return self.kinds[0].ids.background


def plain_ids(
    classes: int, ignore_index: int | None = None, reduce_zero_label: bool = False, zero_based: bool = False
) -> TruthIds:
    """Return the ids of ground-truth files that number their classes in order.

    By default 0 is background, which is scored, and 1..N are the classes.

    Args:
        classes: N.
        ignore_index: The id of ignored pixels, which overrides any other meaning. None: 255, or 65535 above 254 classes.
        reduce_zero_label: 0 is ignored, and 1..N are the classes.
        zero_based: 0..N-1 are the classes, without background.
    """
    if ignore_index is None:
        ignore_index = ignore_id(classes)
    if not 0 <= ignore_index <= _TOP_ID:
        raise UsageError(f"ignore index {ignore_index} is not between 0 and {_TOP_ID}")
    if zero_based:
        meaning = {number - 1: number for number in range(1, classes + 1)}
    else:
        meaning = {number: number for number in range(classes + 1)}
        if reduce_zero_label:
            meaning[0] = IGNORED
    return TruthIds(classes, {**meaning, ignore_index: IGNORED})


# ---- benchmarks ----

# Cityscapes: ids in the labelIds files, in the order of the training ids. The other ids below 34 are ignored.
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# COCO-Stuff: 182 categories, which start at 0 in the stuffthingmaps files, but for those without pixels in the 2017 edition.
_COCO_STUFF_UNUSED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
_COCO_STUFF = tuple(number for number in range(182) if number not in _COCO_STUFF_UNUSED)


def _listed_ids(classes: Sequence[int], ignored: Iterable[int]) -> TruthIds:
    """Return the ids of ground-truth files in which the classes 1..N have these ids."""
    meaning = dict.fromkeys(ignored, IGNORED)
    return TruthIds(len(classes), meaning | {number: index for index, number in enumerate(classes, start=1)})


_ALL_LAYOUTS = (
    # ADEChallengeData2016: images/validation/X.jpg, annotations/validation/X.png
    Layout(name="ade20k", kinds=(TruthKind("", plain_ids(150, reduce_zero_label=True)),)),
    # VOC2012: JPEGImages/X.jpg, SegmentationClass/X.png; 255 is the border of objects
    Layout(name="voc20", kinds=(TruthKind("", plain_ids(20, reduce_zero_label=True)),)),
    Layout(name="voc21", kinds=(TruthKind("", plain_ids(20)),)),
    # VOC2010: JPEGImages/X.jpg, SegmentationClassContext/X.png; ids number the 59 most frequent classes in alphabetical order
    Layout(name="pascal-context-59", kinds=(TruthKind("", plain_ids(59, reduce_zero_label=True)),)),
    Layout(name="pascal-context-60", kinds=(TruthKind("", plain_ids(59)),)),
    # leftImg8bit/val/CITY/X_leftImg8bit.png, gtFine/val/CITY/X_gtFine_labelIds.png
    Layout(
        name="cityscapes",
        kinds=(
            TruthKind("_gtFine_labelTrainIds", plain_ids(len(_CITYSCAPES), zero_based=True)),
            TruthKind("_gtFine_labelIds", _listed_ids(_CITYSCAPES, range(34))),
        ),
        image_suffix="_leftImg8bit",
    ),
    # val2017/X.jpg, stuffthingmaps/val2017/X.png or the output of mmsegmentation's converter
    Layout(
        name="coco-stuff",
        kinds=(
            TruthKind("_labelTrainIds", plain_ids(171, zero_based=True)),
            TruthKind("", _listed_ids(_COCO_STUFF, [255])),
        ),
    ),
)

#: Layouts by name. All ignore 255.
LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in _ALL_LAYOUTS}


def get_layout(name: str) -> Layout:
    """Return the layout with this name. Raise UsageError for an unknown name."""
    if name not in LAYOUTS:
        raise UsageError(
            f"unknown layout {name!r}", f"{did_you_mean(name, LAYOUTS)}The layouts are: {', '.join(LAYOUTS)}."
        )
    return LAYOUTS[name]


def layout_of(truth: TruthOptions, names: Sequence[str], folder: Path | None = None) -> Layout:
    """Return the layout for classes of these names.

    Raise UsageError if they do not match the layout, or do not match `folder` if it is an output folder.
    """
    known = None if folder is None else _output_classes(folder)
    if folder and known and [name.casefold() for name in known] != [name.casefold() for name in names]:
        more = f" To compare their ids alone, pass {mask_folder(folder)}." if len(known) <= len(names) else ""
        raise UsageError(
            f"the classes of {folder} ({join_first(known, 6)}) do not match the labels ({join_first(names, 6)})",
            f"Label both with the same classes in the same order.{more}",
        )
    if truth.layout is None:
        ids = plain_ids(len(names), truth.ignore_index, truth.reduce_zero_label, truth.zero_based)
        return Layout(name="plain", kinds=(TruthKind("", ids),))
    layout = get_layout(truth.layout)
    hint = Words("Leave out {classes} and {vocab} to use the preset {name}.", name=layout.name)
    if len(names) != layout.classes:
        raise UsageError(
            f"the layout {truth.layout} has {layout.classes} classes, but the vocabulary has {len(names)}", hint
        )
    if in_other_order(names, [entry.name for entry in read_vocabulary(truth.layout).classes]):
        raise UsageError(f"the vocabulary lists the classes of {truth.layout} in a different order", hint)
    return layout


def in_other_order(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return True if both lists have the same names in a different order."""
    first, second = [name.casefold() for name in names], [name.casefold() for name in others]
    return first != second and sorted(first) == sorted(second)


# ---- reading ----


def read_truth(path: Path, ids: TruthIds, reader: ImageReader) -> NDArray[np.uint16]:
    """Read a ground-truth mask.

    Args:
        path: A greyscale image of 1, 8 or 16 bits with ids as values, or a palette image with ids as indices.
        ids: The meaning of the ids.
        reader: Decodes it.

    Returns:
        [H, W] uint16: 0 for background, 1..N for the classes, or IGNORED.

    Raises:
        ImageError: The file cannot be read, or is another kind of image.
        LabelIdError: The mask has ids that are not in `ids`.
    """
    table = ids.table()
    hint = Words(
        "The labels have {classes}. If the masks have more, label with all of these. If their ids begin "
        "elsewhere, set {ignore_index}, {reduce_zero_label} or {zero_based}, or select the benchmark "
        "with {layout}.",
        classes=pluralize(ids.classes, "class", "classes"),
    )
    return table.astype(np.uint16)[_read_ids(path, reader, table != _UNKNOWN, hint)]


def read_predicted(path: Path, classes: int, reader: ImageReader) -> LabelArray:
    """Read a mask that `tipsseg label` wrote for N classes: [H, W] uint8, or uint16 above 254 classes.

    Raises:
        ImageError: The file cannot be read, or is another kind of image.
        LabelIdError: The mask has ids other than 0, 1..N and 255 (65535 above 254 classes).
    """
    valid = np.zeros(_TOP_ID + 1, bool)
    valid[: classes + 1] = True
    valid[ignore_id(classes)] = True
    hint = (
        f"Predicted masks have 0 for background, 1..{classes} for the classes in the vocabulary's order, and "
        f"{ignore_id(classes)} for pixels without a label. Use the vocabulary of the run that wrote them."
    )
    stored = _read_ids(path, reader, valid, hint)
    return stored.astype(np.uint8) if label_dtype(classes) is np.uint8 else stored.astype(np.uint16)


def _read_ids(path: Path, reader: ImageReader, valid: NDArray[np.bool_], hint: str) -> LabelArray:
    """Read the ids [H, W] of a mask. Raise LabelIdError if it has ids that are not `valid` [65536]."""
    with reader.header(path) as image, as_image_error(path):
        stored = read_ids(image.decode())
    counts = count_labels(stored)
    unknown = np.flatnonzero((counts > 0) & ~valid[: counts.size]).tolist()
    if unknown:
        pixels = [f"{count:,} pixel{'' if count == 1 else 's'}" for count in counts[unknown].tolist()]
        ids = [f"{number} ({count})" for number, count in zip(unknown, pixels, strict=True)]
        raise LabelIdError(path, f"unknown ids: {join_first(ids, 4)}", hint)
    return stored


#: Extensions of ground-truth files. If several files differ only in the extension, the first in this order is used.
EXTENSIONS = (".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, slots=True)
class Pair:
    """An image, its ground-truth file, and the kind of the ground-truth file."""

    ref: ImageRef
    truth: Path
    kind: TruthKind


@dataclass(frozen=True, slots=True)
class Pairs:
    """Images paired with ground-truth files.

    Attributes:
        pairs: The pairs in the order of the images.
        unused: Number of ground-truth files without an image.
        missing: Images without a ground-truth file.
    """

    pairs: tuple[Pair, ...]
    unused: int
    missing: tuple[ImageRef, ...] = ()


def pair_truths(refs: Sequence[ImageRef], folder: Path, layout: Layout) -> Pairs:
    """Find the ground-truth files of images by name (see `SourceNames`); some images may have none.

    A file may keep the image's extension, as a.jpg.png. If no image has a file, folders do not count.

    Search subfolders and follow links to folders. Ignore hidden files and folders.

    Raises:
        InputError: The folder is missing or has no ground-truth files, no image has ground truth, an image has several or would be
            its own ground truth, or two images would share a ground-truth mask.
    """
    files = _truth_files(folder)
    pairs = _pair(refs, files, layout)
    if not pairs.pairs:
        flat = defaultdict[PurePosixPath, list[Path]](list)
        for name, path in files.items():
            flat[PurePosixPath(name.name)].append(path)
        pairs = _pair(refs, {name: paths[0] for name, paths in flat.items() if len(paths) == 1}, layout)
    if not pairs.pairs:
        first, others = pairs.missing[0], len(pairs.missing) - 1
        more = f" (and for {pluralize(others, 'more image')})" if others else ""
        names = " or ".join(f"{_bare(first, layout).relative.stem}{kind.suffix}" for kind in layout.kinds)
        raise InputError(
            f"no ground truth for {first.address} in {folder}: looked for {names} with one of {' '.join(EXTENSIONS)}{more}",
            Words(
                "Give each mask the relative path or the file name of its image, and a lossless format. Check "
                "the folder of the ground-truth masks, or select the benchmark with {layout}."
            ),
        )
    return pairs


def _bare(ref: ImageRef, layout: Layout) -> ImageRef:
    """Return an image without the suffix that the layout's ground truth lacks."""
    name = ref.relative.stem.removesuffix(layout.image_suffix) + ref.relative.suffix
    return ImageRef(ref.path.with_name(name), ref.relative.with_name(name)) if layout.image_suffix else ref


def _pair(refs: Sequence[ImageRef], files: Mapping[PurePosixPath, Path], layout: Layout) -> Pairs:
    """Pair images with files, by relative path without extension."""
    # Longest first, because a suffix may end with another kind's suffix.
    suffixes = sorted((kind.suffix for kind in layout.kinds), key=len, reverse=True)
    by_kind: dict[str, dict[str, Path]] = {kind.suffix: {} for kind in layout.kinds}
    for name, path in files.items():
        end = next((suffix for suffix in suffixes if name.name.endswith(suffix)), None)
        if end is not None:
            by_kind[end][str(name.with_name(name.name.removesuffix(end) or name.name))] = path
    indexes = {suffix: SourceNames(names) for suffix, names in by_kind.items() if names}
    for index in indexes.values():
        index.expect(_bare(ref, layout) for ref in refs)
    pairs, missing = list[Pair](), list[ImageRef]()
    for ref in refs:
        try:
            found = ((suffix, index.find(_bare(ref, layout))) for suffix, index in indexes.items())
            match = next(((suffix, by_kind[suffix][name]) for suffix, name in found if name is not None), None)
        except ImageError as error:
            raise InputError(f"{ref.address}: {error.reason}", _SAME_FOLDERS) from None
        if match is None:
            missing.append(ref)
            continue
        suffix, truth = match
        if os.path.realpath(ref.path) == os.path.realpath(truth):
            raise InputError(
                f"{ref.address} would be its own ground truth",
                "Pass the folder of the ground-truth masks.",
            )
        pairs.append(Pair(ref, truth, next(kind for kind in layout.kinds if kind.suffix == suffix)))
    number = len({name for names in by_kind.values() for name in names})  # several kinds of one image count once
    return Pairs(tuple(pairs), number - len(pairs), tuple(missing))


_SAME_FOLDERS = (
    "Use the same subfolders for images and ground-truth masks, or pass the subfolder that belongs to the images."
)


def mask_folder(folder: Path) -> Path:
    """Return the folder of the masks in an output folder of tipsseg; any other folder as it is."""
    return folder / "masks" if _is_output(folder) else folder


def _is_output(folder: Path) -> bool:
    return is_file(folder / "run.json")


def _output_classes(folder: Path) -> Sequence[str]:
    """Return the class names of an output folder by id; none for another folder, or without a sound classes.json."""
    if not _is_output(folder):
        return ()
    with suppress(OSError, ValueError, TypeError):
        return ordered_names(parse(read_regular(folder / CLASSES_FILE)))
    return ()


def _truth_files(folder: Path) -> Mapping[PurePosixPath, Path]:
    """Return the ground-truth files by relative path without extension."""
    folder = mask_folder(folder)
    refuse_parts(folder)
    files: dict[PurePosixPath, Path] = {}
    for relative in sorted(_walk(folder), key=_rank):
        files.setdefault(relative.with_suffix(""), folder / relative)
    if not files:
        raise InputError(
            f"no ground-truth masks in {folder}",
            f"Ground-truth masks are files with one of {' '.join(EXTENSIONS)}.",
        )
    return files


def _rank(relative: PurePosixPath) -> tuple[tuple[str, ...], int, str]:
    return relative.with_suffix("").parts, EXTENSIONS.index(relative.suffix.lower()), relative.suffix


def _walk(top: Path) -> Iterable[PurePosixPath]:
    if not is_folder(top):
        reason = "not a folder" if is_file(top) else "no such folder"
        raise InputError(f"{top}: {reason}", Words("Pass the folder of the ground-truth masks as {truths}."))
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(top, onerror=_refuse_folder, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a cycle of links
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = PurePosixPath(PurePath(folder).relative_to(top))
        for name in names:
            if not name.startswith(".") and PurePath(name).suffix.lower() in EXTENSIONS:
                yield relative / name


def _refuse_folder(error: OSError) -> None:
    raise InputError(
        f"cannot list the folder {error.filename}: {describe_error(error)}", "Check its permissions."
    ) from error
