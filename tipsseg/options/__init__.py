"""Option records for labelling and for label files.

Keep imports fast here: the command's help loads this module.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from tipsseg.errors import UsageError
from tipsseg.options.fields import (
    FILES,
    MODEL,
    WHAT,
    Option,
    choices_of,
    option,
    options_of,
    record_of,
    short_repr,
)
from tipsseg.util.cores import usable_cores
from tipsseg.util.files import local_path
from tipsseg.util.text import quote

#: Dtypes of a model; int8 is for CPUs, and rounds the linear layers of the vision tower. "auto" is bfloat16 on a CUDA device or a
#: CPU that supports it natively, else float32.
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]

#: Dtypes of stored features; int8 has a scale per patch.
FeatureDtype = Literal["float16", "float32", "int8"]

#: The model's view of an image: sliding windows, or the whole image.
Mode = Literal["slide", "whole"]

#: Edge refinements.
Refinement = Literal["none", "guided", "pamr", "pamr-guided"]

#: One object in formats that list objects: a connected component, or all pixels of a class.
Instances = Literal["component", "class"]

#: Names of an image's files: the image's path without its suffix, or with it.
Names = Literal["stem", "full"]

DTYPE_NAMES: tuple[Dtype, ...] = get_args(Dtype)
FEATURE_DTYPES: tuple[FeatureDtype, ...] = get_args(FeatureDtype)
REFINEMENTS: tuple[Refinement, ...] = get_args(Refinement)
#: Refinements that follow the image at its own size.
GUIDED: tuple[Refinement, ...] = ("guided", "pamr-guided")
NAMES: tuple[Names, ...] = get_args(Names)

_Choice = TypeVar("_Choice", bound=str)


def choose(value: object, choices: tuple[_Choice, ...], what: str) -> _Choice:
    """Return the choice that equals the value. Raise UsageError if none does; the message calls the option `what`."""
    for choice in choices:
        if value == choice:
            return choice
    raise UsageError(f"unknown {what} {quote(value)}", f"Use one of {', '.join(choices)}.")


def split_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Split comma-separated lists into names."""
    return tuple(name.strip() for text in texts for name in text.split(","))


def check_whole_number(argument: str, value: object, least: float = 1) -> int:
    """Return the value as an int. Raise UsageError if it is not a whole number, or is less than `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # numpy integers have __index__ too
    except TypeError:
        raise UsageError(f"{argument} must be a whole number, not {quote(value)}") from None
    if number < least:
        raise UsageError(f"{argument}={number} is too small; the minimum is {least}")
    return number


class OptionRecord:
    """The base of records whose options are checked; the type of an option says whether None is a value."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check_options(self)


def check_options(record: Any) -> None:
    """Convert the options of a record, and check them against their types, choices and limits.

    Raise UsageError that names the argument and the values that it takes.
    """
    kinds = _kinds(record.__class__)
    for name, (_, about) in options_of(type(record)).items():
        value, kind = getattr(record, name), kinds[name]
        if NoneType in get_args(kind):
            if value is None:
                continue
            kind = get_args(kind)[0]
        object.__setattr__(record, name, check_value(f"argument `{name}`", value, kind, about))


def check_value(argument: str, value: Any, kind: object, about: Option) -> object:
    """Convert the value of an option, and check it against its type, choices and limits. Raise UsageError that names it."""
    if about.check is not None:
        return about.check(value)
    if kind is bool and not isinstance(value, bool):
        raise UsageError(f"{argument} must be True or False, not {quote(value)}")
    if kind is Path:
        if not isinstance(value, str | os.PathLike):
            raise UsageError(f"{argument} must be a path, not {type(value).__name__}", "Pass a folder or a file.")
        return local_path(argument, value)
    if kind is int:
        value = check_whole_number(argument, value, about.min or 0)
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise UsageError(f"{argument} must be a number, not {quote(value)}")
        value = float(value)  # 1 and 1.0 are one question
    choices = choices_of(kind)
    if choices and not (isinstance(value, str) and value in choices):
        raise UsageError(f"{argument} must be one of {', '.join(choices)}, not {quote(value)}")
    limits = (
        (about.min, operator.ge, "at least"),
        (about.above, operator.gt, "above"),
        (about.max, operator.le, "at most"),
        (about.below, operator.lt, "below"),
    )
    if not all(limit is None or test(value, limit) for limit, test, _ in limits):
        allowed = " and ".join(f"{word} {limit:g}" for limit, _, word in limits if limit is not None)
        raise UsageError(f"{argument} must be {allowed}, not {quote(value)}", about.hint)
    return value


_kinds = cache(get_type_hints)

_DEVICE = re.compile("auto|(cpu|mps)(:0)?|cuda(:[0-9]+)?")


def device_name(device: object) -> str:
    """Convert a name, a torch device or a GPU number to a device name. Raise UsageError for other values."""
    if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
        return f"cuda:{device}"
    name = str(device) if type(device).__module__ == "torch" else device
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        raise UsageError(f"unknown device {quote(name)}", "Use auto, cpu, cuda, cuda:N or mps.")
    return name


def dtype_name(dtype: object) -> Dtype:
    """Convert a name or a torch dtype to a dtype name. Raise UsageError for other values."""
    name = str(dtype).removeprefix("torch.") if type(dtype).__module__ == "torch" else dtype
    return choose(name, DTYPE_NAMES, "dtype")


def default_jobs() -> int:
    """Return the default number of threads: one per usable core, at most 32; each needs memory for two images."""
    return min(usable_cores(), 32)


#: The default formats of a new output folder.
DEFAULT_FORMATS = ("png", "coco", "overlay")

#: The default limit on an image's pixels. Decoding this many takes 2 GB.
MAX_PIXELS = 500_000_000

#: Limits on the number and size of scales. The model's cost grows with about the square of a scale.
_MAX_SCALES, _SMALLEST_SCALE, _LARGEST_SCALE = 4, 0.25, 8.0

#: The single scale of the published protocol.
ONE_SCALE = (1.0,)


def check_scales(scales: object) -> tuple[float, ...]:
    """Return sorted scales from numbers, a single number or a string such as "1,2". Raise UsageError if one is invalid."""
    found = sorted(parse_numbers("scales", (scales,) if isinstance(scales, numbers.Real) else scales, float))
    hint = 'Write factors of the short side, separated by commas: "1,2".'
    if not 1 <= len(found) <= _MAX_SCALES:
        raise UsageError(f"argument `scales` must be 1 to {_MAX_SCALES} numbers, not {len(found)}", hint)
    for scale in found:
        if not _SMALLEST_SCALE <= scale <= _LARGEST_SCALE:  # also for NaN
            limits = f"at least {_SMALLEST_SCALE:g} and at most {_LARGEST_SCALE:g}"
            raise UsageError(f"argument `scales` must be {limits}, not {scale:g}", hint)
    if twice := [scale for scale in found if found.count(scale) > 1]:
        raise UsageError(f"argument `scales` contains {twice[0]:g} twice", "Remove one of them.")
    return tuple(found)


def check_stretch(stretch: object) -> tuple[float, float]:
    """Return two percentiles from numbers or a string such as "2,98". Raise UsageError if they are invalid."""
    found = parse_numbers("stretch", stretch, float)
    if len(found) != 2 or not 0 <= found[0] < found[1] <= 100:
        raise UsageError(f"argument `stretch`={quote(stretch)} is not a pair of percentiles", "For example: 2,98.")
    return found[0], found[1]


def parse_numbers(name: str, value: object, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """Return numbers that the user typed, separated by commas, or passed. Raise UsageError for other values."""
    parts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(kind(part) for part in parts)  # type: ignore[attr-defined]  # TypeError is caught
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"argument `{name}`={quote(value)} is not a list of numbers", "Separate numbers by commas."
        ) from error


#: Options that change labels, and options of files, which can be changed at any time.
_LABELS: dict[str, Any] = {"role": "labels", "held": "value", "repeated": True, "recorded": "options"}
_FILES: dict[str, Any] = {"role": "files", "repeated": True, "recorded": "options"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions(OptionRecord):
    """Options for labelling an image, except the model and the vocabulary.

    With several `scales`, the model sees the image at every scale, and the mean log-probabilities decide the labels. The scales are
    stored in ascending order.

    Raises:
        UsageError: If a value is invalid for all models.
    """

    # fmt: off
    mode: Mode = option("slide", **_LABELS, rasters=False, group=MODEL, rare=True,
        help="slide: overlapping windows of the model's size; whole: the whole image at once.")
    short_side: int | None = option(None, **_LABELS, rasters=False, metavar="PIXELS", group=MODEL, rare=True, min=1,
        help="Resize the shorter side to this many pixels.  [default: the model's own size]")
    min_confidence: float = option(0.0, **_LABELS, metavar="0..1", group=WHAT, min=0, max=1, hint="Write 0.6 for 60 %.",
        help="Write pixels below this confidence as 255 (ignored).")
    refine: Refinement = option("none", **_LABELS, rasters=False, group=MODEL,
        help="Refine edges using the image's colours; pamr-guided is the most accurate without noise, guided "
        "the fastest.")
    scales: tuple[float, ...] = option(ONE_SCALE, **_LABELS, metavar="FACTORS", group=MODEL, check=check_scales,
        help='Combine several scales, such as "1,2". Slower, but labels are better, especially for small parts.')
    stretch: tuple[float, float] | None = option(None, **_LABELS, metavar="LOW,HIGH", group=MODEL, rare=True, check=check_stretch,
        help="Stretch the contrast, for example of dark 16-bit images: the percentiles of each band that become black and white. "
        "Example: 2,98.")
    # fmt: on

    __repr__ = short_repr

    def record(self) -> dict[str, object]:
        """Return the options as run.json stores them."""
        return record_of(self)


#: The options of LabelOptions for how the model sees an image.
VIEW = ("mode", "short_side", "stretch")

DEFAULT_LABEL_OPTIONS = LabelOptions()

_MIN_AREA = re.compile(r"(\d{1,18})|(\d+(?:\.\d+)?|\.\d+)%", re.ASCII)


@dataclass(frozen=True, slots=True)
class MinArea:
    """The minimum area of an object.

    Attributes:
        value: A whole number of pixels, or a percentage of the image's area.
        percent: True if the value is a percentage.
    """

    value: float
    percent: bool = False

    def pixels(self, size: tuple[int, int]) -> int:
        """Return the area in pixels for an image of `size` (height, width)."""
        height, width = size
        return math.ceil(self.value / 100 * height * width) if self.percent else int(self.value)

    def __str__(self) -> str:
        """Return the text that `parse_min_area` reads."""
        # Decimal digits only, without an exponent.
        return f"{Decimal(repr(self.value)).normalize():f}%" if self.percent else str(int(self.value))


def parse_min_area(area: object) -> MinArea:
    """Parse a number of pixels, or a string such as "50" or "0.1%". Raise UsageError if it is not an area."""
    if isinstance(area, MinArea):
        return area
    if not isinstance(area, str):
        return MinArea(check_whole_number("argument `min_area`", area, least=0))
    match = _MIN_AREA.fullmatch(area.strip())
    if match is None or float(match[2] or 0) > 100:
        hint = 'Write a whole number of pixels, or a percentage of the image such as "0.1%".'
        raise UsageError(f"argument `min_area`={area} is not an area", hint)
    return MinArea(float(match[2]), percent=True) if match[2] else MinArea(int(match[1]))


#: The options that None leaves as they are in the folder, and their values in a new folder.
_KEPT: Mapping[str, Any] = {
    "instances": "component",
    "min_area": MinArea(1),
    "simplify": None,
    "val_fraction": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions(OptionRecord):
    """Options for label files.

    `min_area` also accepts a number of pixels, or a string such as "0.1%". An option that is None keeps the folder's value; the
    default applies in a new folder.

    Attributes:
        given: The names of the options that are not None.

    Raises:
        UsageError: If a value is invalid.
    """

    # fmt: off
    instances: Instances = option(None, **_FILES, group=FILES, rare=True,
        help="One object per connected component, or per class.  [default: component; an existing folder keeps its value]")
    min_area: MinArea = option(None, **_FILES, metavar="AREA", group=FILES, rare=True, check=parse_min_area,
        help='Omit objects below this area from object formats: pixels, or a percentage of the image such as "0.1%".  '
        "[default: 1; an existing folder keeps its value]")
    simplify: float | None = option(None, **_FILES, metavar="PIXELS", group=FILES, rare=True, min=0, max=1000,
        hint="Write a distance in pixels; 1 or 2 are usual.",
        help="Simplify polygons for manual editing; their outlines move by up to this distance.  "
        "[default: follow the pixels; an existing folder keeps its value]")
    names: Names = option("stem", **_FILES, group=FILES, rare=True, held="value",
        help="stem: the mask of a.jpg is a.png; full: it is a.jpg.png, for folders that have both a.jpg and a.png.")
    val_fraction: float | None = option(None, **_FILES, metavar="0..1", group=FILES, rare=True, min=0, below=1,
        hint="Write 0.2 for a fifth of the images.",
        help="Fraction of images for the validation split in yolo formats or a data set (deterministic).  "
        "[default: 0; an existing folder keeps its value]")
    given: frozenset[str] = field(init=False, compare=False)
    # fmt: on

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", frozenset(name for name in _KEPT if getattr(self, name) is not None))
        for name in _KEPT.keys() - self.given:
            object.__setattr__(self, name, _KEPT[name])
        check_options(self)
        object.__setattr__(self, "val_fraction", self.val_fraction or None)  # none at all is the same

    __repr__ = short_repr

    def kept(self, before: FileOptions) -> FileOptions:
        """Fill the options that are not given from an earlier run."""
        return replace(self, **{name: getattr(before, name) for name in _KEPT.keys() - self.given})


DEFAULT_FILE_OPTIONS = FileOptions()
