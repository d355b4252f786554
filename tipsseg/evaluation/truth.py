"""Read truth masks, map their ids to label ids, and define the layouts of common benchmarks.

Label ids are 0 for background and 1..N for the classes. In truth files, the classes may start at 0, or 0 may mean ignored pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import LabelIdError, UsageError, VocabularyError
from tipsseg.formats.png import read_ids
from tipsseg.images.decoding import as_image_error, decode_stored
from tipsseg.options import MAX_PIXELS
from tipsseg.options.run import TruthOptions
from tipsseg.regions.components import count_labels
from tipsseg.types import BACKGROUND, LabelArray, ignore_id, label_dtype
from tipsseg.util.text import did_you_mean, join_first
from tipsseg.vocabulary.files import read_vocabulary

#: Id of ignored pixels in truth arrays.
IGNORED = 65535

_UNKNOWN = -1
_TOP_ID = 65535


@dataclass(frozen=True, slots=True)
class TruthIds:
    """Mapping from the ids of truth files to label ids.

    Attributes:
        classes: N, the number of scored classes.
        meaning: Label id for each valid id in a file, 0..65535: 0 for background, 1..N, or IGNORED.
    """

    classes: int
    meaning: Mapping[int, int]

    @property
    def background(self) -> bool:
        """True if the truth has background, which is then scored as a class."""
        return BACKGROUND in self.meaning.values()

    def table(self) -> NDArray[np.int32]:
        """Return the label id for each id in a file, [65536] int32: 0..N, IGNORED, or -1 for an unknown id."""
        table = np.full(_TOP_ID + 1, _UNKNOWN, np.int32)
        table[list(self.meaning.keys())] = list(self.meaning.values())
        return table


@dataclass(frozen=True, slots=True)
class TruthKind:
    """Kind of truth file: the suffix of its name before the extension, and the meaning of its ids."""

    suffix: str
    ids: TruthIds


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """File names and class ids of a benchmark.

    Attributes:
        name: Name of the layout, which is also that of the benchmark's preset vocabulary; "plain" for the user's own classes.
        kinds: Kinds of truth files, best first. All score the same classes.
        image_suffix: Suffix of image names before the extension, which truth names lack.
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
    """Return the ids of truth files that number their classes in order.

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

# Cityscapes: ids in the labelIds files, in the order of the training ids. Other ids are ignored.
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# COCO-Stuff: categories without pixels in the 2017 edition, out of 182. Ids in the stuffthingmaps files start at 0.
_COCO_STUFF_UNUSED = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})


def _cityscapes_label_ids() -> TruthIds:
    classes = {number: index for index, number in enumerate(_CITYSCAPES, start=1)}
    return TruthIds(len(classes), {number: classes.get(number, IGNORED) for number in range(34)})


def _coco_stuff_raw_ids() -> TruthIds:
    used = [number for number in range(182) if number not in _COCO_STUFF_UNUSED]
    meaning = {number: index for index, number in enumerate(used, start=1)}
    return TruthIds(len(used), {**meaning, 255: IGNORED})


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
            TruthKind("_gtFine_labelIds", _cityscapes_label_ids()),
        ),
        image_suffix="_leftImg8bit",
    ),
    # val2017/X.jpg, stuffthingmaps/val2017/X.png or the output of mmsegmentation's converter
    Layout(
        name="coco-stuff",
        kinds=(
            TruthKind("_labelTrainIds", plain_ids(171, zero_based=True)),
            TruthKind("", _coco_stuff_raw_ids()),
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


def layout_of(truth: TruthOptions, names: Sequence[str]) -> Layout:
    """Return the layout for classes of these names. Raises UsageError if they do not match the layout."""
    if truth.layout is None:
        ids = plain_ids(len(names), truth.ignore_index, truth.reduce_zero_label, truth.zero_based)
        return Layout(name="plain", kinds=(TruthKind("", ids),))
    layout = get_layout(truth.layout)
    hint = f"Leave out argument `classes` and argument `vocabulary` to use the preset {layout.name}."
    if len(names) != layout.classes:
        raise UsageError(
            f"the layout {truth.layout} has {layout.classes} classes, but the vocabulary has {len(names)}", hint
        )
    if in_other_order(names, [entry.name for entry in read_vocabulary(truth.layout).classes]):
        raise UsageError(f"the vocabulary lists the classes of {truth.layout} in a different order", hint)
    return layout


def preset_of(truth: TruthOptions) -> str:
    """Return the layout's preset vocabulary. Raises VocabularyError if no layout is set."""
    if truth.layout is None:
        raise VocabularyError("no classes given", 'Name the things to label, for example ["panda leg", "tree"].')
    return get_layout(truth.layout).name


def in_other_order(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return True if both lists have the same names in a different order."""
    first, second = [name.casefold() for name in names], [name.casefold() for name in others]
    return first != second and sorted(first) == sorted(second)


# ---- reading ----


def read_truth(path: Path, ids: TruthIds, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint16]:
    """Read a truth mask.

    Args:
        path: A greyscale image of 1, 8 or 16 bits with ids as values, or a palette image with ids as indices.
        ids: The meaning of the ids.
        max_pixels: Limit on the number of pixels.

    Returns:
        [H, W] uint16: 0 for background, 1..N for the classes, or IGNORED.

    Raises:
        ImageError: The file cannot be read, or is another kind of image.
        LabelIdError: The mask has ids that are not in `ids`.
    """
    stored = _read_ids(path, max_pixels)
    table = ids.table()
    _refuse_unknown(
        path,
        stored,
        table != _UNKNOWN,
        f"The vocabulary has {_count(ids.classes, 'class', 'classes')}. If that is right, set argument `ignore_index`, "
        "argument `reduce_zero_label` or argument `zero_based`, or select the benchmark with argument `layout`.",
    )
    return table.astype(np.uint16)[stored]


def read_predicted(path: Path, classes: int, max_pixels: int = MAX_PIXELS) -> LabelArray:
    """Read a mask that `tipsseg label` wrote for N classes: [H, W] uint8, or uint16 above 254 classes.

    Raises:
        ImageError: The file cannot be read, or is another kind of image.
        LabelIdError: The mask has ids other than 0, 1..N and 255 (65535 above 254 classes).
    """
    stored = _read_ids(path, max_pixels)
    valid = np.zeros(_TOP_ID + 1, bool)
    valid[: classes + 1] = True
    valid[ignore_id(classes)] = True
    _refuse_unknown(
        path,
        stored,
        valid,
        f"Predicted masks have 0 for background, 1..{classes} for the classes in the vocabulary's order, and "
        f"{ignore_id(classes)} for pixels without a label. Use the vocabulary of the run that wrote them.",
    )
    return stored.astype(np.uint8) if label_dtype(classes) is np.uint8 else stored.astype(np.uint16)


def _read_ids(path: Path, max_pixels: int) -> LabelArray:
    picture = decode_stored(path, max_pixels)
    with as_image_error(path):
        return read_ids(picture)


def _refuse_unknown(path: Path, stored: LabelArray, valid: NDArray[np.bool_], hint: str) -> None:
    """Raise LabelIdError if `stored` [H, W] has ids that are not `valid` [65536]."""
    counts = count_labels(stored)
    unknown = np.flatnonzero((counts > 0) & ~valid[: counts.size]).tolist()
    if unknown:
        ids = [f"{number} ({_count(int(counts[number]), 'pixel')})" for number in unknown]
        raise LabelIdError(path, f"unknown ids: {join_first(ids, 4)}", hint)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
