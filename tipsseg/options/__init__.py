"""How images are labelled and how labels become files, as records of options, and the values that options take.

Imports nothing that takes its time: the help of the command needs this module.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args

from tipsseg.errors import UsageError
from tipsseg.options.fields import FILES, MODEL, WHAT, option, record_of, short_repr
from tipsseg.util.printable import quoted

#: What a model can compute in. "auto" is bfloat16 on a CUDA device that has it, else float32.
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

#: What features can be kept in; int8 with a scale for each patch.
FeatureDtype = Literal["float16", "float32", "int8"]

#: How an image can be shown to the model.
Mode = Literal["slide", "whole"]

#: How edges can be refined.
Refinement = Literal["none", "pamr"]

#: What formats that list objects take for one object.
Instances = Literal["component", "class"]

#: How masks hold the ids: as grey values, or as numbers of a palette's colours.
PngMode = Literal["L", "P"]

#: Whose colours a report has: those of the classes, or some that people with any kind of colour vision tell apart.
Palette = Literal["own", "safe"]

#: What the files of an image are named by: its path without its suffix, or with it.
Names = Literal["stem", "full"]

DTYPE_NAMES: tuple[Dtype, ...] = get_args(Dtype)
FEATURE_DTYPES: tuple[FeatureDtype, ...] = get_args(FeatureDtype)
MODES: tuple[Mode, ...] = get_args(Mode)
REFINEMENTS: tuple[Refinement, ...] = get_args(Refinement)
INSTANCES: tuple[Instances, ...] = get_args(Instances)
PALETTES: tuple[Palette, ...] = get_args(Palette)
PNG_MODES: tuple[PngMode, ...] = get_args(PngMode)
NAMES: tuple[Names, ...] = get_args(Names)

_Choice = TypeVar("_Choice", bound=str)


def choose(value: object, choices: tuple[_Choice, ...], what: str) -> _Choice:
    """Return the value as one of the choices; raise UsageError, which names what is chosen, for another value."""
    for each in choices:
        if value == each:
            return each
    raise UsageError(f"unknown {what} {quoted(value)}", f"Use one of {', '.join(choices)}.")


def split_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names in lists with commas."""
    return tuple(name.strip() for text in texts for name in text.split(","))


def check_whole_number(argument: str, value: object, least: int = 1) -> int:
    """Return the whole number. Raise UsageError for another value; `argument` is how the message begins."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # numpy's whole numbers have it too
    except TypeError:
        raise UsageError(f"{argument} must be a whole number, not {quoted(value)}") from None
    if number < least:
        raise UsageError(f"{argument}={number} is too small; the least is {least}")
    return number


def check_number(argument: str, value: object) -> float:
    """Return the number, one of numpy as Python's. Raise UsageError for another value; `argument` is how the message begins."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise UsageError(f"{argument} must be a number, not {quoted(value)}")
    return float(value) if isinstance(value, float) or not isinstance(value, int) else value


_DEVICE = re.compile("auto|(cpu|mps)(:0)?|cuda(:[0-9]+)?")


def device_name(device: object) -> str:
    """Return the name of a device: of torch's, and of a GPU's number too. Raise UsageError for what cannot be a device."""
    if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
        return f"cuda:{device}"
    name = str(device) if type(device).__module__ == "torch" else device
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        raise UsageError(f"unknown device {quoted(name)}", "Use auto, cpu, cuda, cuda:N or mps.")
    return name


def dtype_name(dtype: object) -> Dtype:
    """Return the name of a dtype to compute in, of torch's too. Raise UsageError for another value."""
    name = str(dtype).removeprefix("torch.") if type(dtype).__module__ == "torch" else dtype
    return choose(name, DTYPE_NAMES, "dtype")


#: The most threads by default: each adds the memory of two images.
_MOST_JOBS = 32


def default_jobs() -> int:
    """The default number of threads: one for each core that the process may use, 32 at most."""
    return min(usable_cores(), _MOST_JOBS)


def usable_cores() -> int:
    """How many cores the process may use: of a machine that is shared, these may be few."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


#: The formats that are written where none are named.
DEFAULT_FORMATS = ("png", "coco")

#: Images of more pixels are refused unless more are allowed: decoded, this many take 2 GB.
MAX_PIXELS = 500_000_000

#: How many scales an image is seen at, at most, and how large and how small they may be. Each costs the model about its square.
MAX_SCALES = 4
LARGEST_SCALE = 8.0
SMALLEST_SCALE = 0.25

#: The published protocol: one scale.
ONE_SCALE = (1.0,)


def _set(options: object, name: str, value: object) -> None:
    object.__setattr__(options, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """How an image is labelled, beside the model and the vocabulary.

    With several `scales` the model sees the image at each of them, and a label is what wins by the mean of the log-probabilities.
    They are kept in ascending order.

    Raises:
        UsageError: No model could use one of the values.
    """

    # fmt: off
    mode: Mode = option("slide", group=MODEL, rare=True,
        help="slide: overlapping windows of the model's size; whole: the image at once.")
    short_side: int | None = option(None, metavar="PIXELS", group=MODEL, rare=True,
        help="Resize the shorter side to this many pixels.  [default: the model's own size]")
    min_confidence: float = option(0.0, metavar="0..1", group=WHAT,
        help="Pixels below this confidence are written as 255, ignored.")
    refine: Refinement = option("none", group=MODEL, help="Let edges follow the image's colours.")
    scales: tuple[float, ...] = option(ONE_SCALE, metavar="FACTORS", group=MODEL, sparse=True,
        help='See images at several short sides, such as "1,2": better labels, small parts above all, for more time.')
    # fmt: on

    def __post_init__(self) -> None:
        choose(self.mode, MODES, "mode")
        choose(self.refine, REFINEMENTS, "refinement")
        if self.short_side is not None:
            _set(self, "short_side", check_whole_number("argument `short_side`", self.short_side))
        _set(self, "min_confidence", check_number("argument `min_confidence`", self.min_confidence))
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(
                f"argument `min_confidence`={quoted(self.min_confidence)} is not between 0 and 1",
                "A confidence is between 0 and 1: 0.6 is 60 %.",
            )
        _set(self, "scales", check_scales(self.scales))

    __repr__ = short_repr

    def record(self) -> dict[str, object]:
        """Return the options as run.json has them."""
        return record_of(self)


def check_scales(scales: object) -> tuple[float, ...]:
    """Return scales in ascending order, of numbers, one number or a text such as "1,2". Raise UsageError for others."""
    if isinstance(scales, str):
        scales = _parse_scales(scales)
    elif isinstance(scales, numbers.Real):
        scales = (scales,)
    elif not isinstance(scales, Iterable):
        raise UsageError(f"argument `scales` must be numbers, not {quoted(scales)}", "For example: scales=(1, 2).")
    given: tuple[Any, ...] = tuple(scales)
    for scale in given:
        if not _is_number(scale):
            raise UsageError(f"argument `scales`: {quoted(scale)} is no number", _SCALES_HINT)
        if not scale > 0:
            raise UsageError(f"argument `scales`: {quoted(scale)} is not positive", _SCALES_HINT)
        if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
            raise UsageError(
                f"argument `scales`: {quoted(scale)} is too {'large' if scale > 1 else 'small'}",
                f"A scale is a factor of the short side, from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}.",
            )
    found = tuple(sorted(map(float, given)))
    if not found:
        raise UsageError("argument `scales` has no number", _SCALES_HINT)
    for one, other in pairwise(found):
        if one == other:
            raise UsageError(f"argument `scales` has {one:g} twice", "Name each scale once.")
    if len(found) > MAX_SCALES:
        raise UsageError(
            f"argument `scales` has {len(found)} numbers, more than {MAX_SCALES}", "Two or three scales are usual."
        )
    return found


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and not math.isnan(value)


def _parse_scales(text: str) -> list[float]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not _SCALE.fullmatch(part):
            raise UsageError(
                f"argument `scales`={text}: " + (f"{quoted(part)} is no number" if part else "a number is missing"),
                _SCALES_HINT,
            )
    return [int(part) if part.lstrip("+-").isdigit() else float(part) for part in parts]


_SCALES_HINT = 'Give factors of the short side, with commas: "1,2".'

#: A number as people write one, in ASCII digits; a sign and a power of ten are read, to be refused by their value.
_SCALE = re.compile(
    r"[-+]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][-+]?\d{1,3})?|[-+]?(inf|nan)", re.ASCII | re.IGNORECASE
)


#: How an image is labelled where no options are given.
DEFAULT_LABEL_OPTIONS = LabelOptions()

#: Polygons that are farther off than this show nothing of an image.
MAX_SIMPLIFY = 1000

_MIN_AREA = re.compile(r"(\d{1,18})|(\d+(?:\.\d+)?|\.\d+)%", re.ASCII)


@dataclass(frozen=True, slots=True)
class MinArea:
    """The minimum area of an object.

    Attributes:
        value: A whole number of pixels, or a percentage of the image's area.
        percent: Whether the value is a percentage.
    """

    value: float
    percent: bool = False

    def __post_init__(self) -> None:
        most = 100 if self.percent else math.inf
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not 0 <= self.value <= most:
            raise UsageError(
                f"a minimum area of {quoted(self.value)} is none", "Give pixels, or a percentage from 0 to 100."
            )

    def pixels(self, size: tuple[int, int]) -> int:
        """Return the area in pixels, in an image of `size` (height, width)."""
        height, width = size
        return math.ceil(self.value / 100 * height * width) if self.percent else int(self.value)

    def __str__(self) -> str:
        """Return the text that `parse_min_area` reads."""
        # All digits, and none of them in powers of ten.
        return f"{Decimal(repr(self.value)).normalize():f}%" if self.percent else str(int(self.value))


def parse_min_area(area: object) -> MinArea:
    """Return the area of a number of pixels or of a text: "50" pixels, or "0.1%" of the image. Raise UsageError."""
    if isinstance(area, MinArea):
        return area
    if not isinstance(area, str):
        return MinArea(check_whole_number("argument `min_area`", area, least=0))
    found = _MIN_AREA.fullmatch(area.strip())
    if found is None:
        raise UsageError(
            f"argument `min_area`={area} is no area",
            'Give a whole number of pixels, or a percentage of the image such as "0.1%".',
        )
    pixels, percent = found.groups()
    if percent is not None and float(percent) > 100:
        raise UsageError(f"argument `min_area`={area} is more than the whole image")
    return MinArea(int(pixels)) if percent is None else MinArea(float(percent), percent=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How labels become files.

    `min_area` takes pixels too, and texts such as "0.1%". A `val_fraction` of None is the share that the folder has already.

    Raises:
        UsageError: One of the values is impossible.
    """

    # fmt: off
    instances: Instances = option("component", group=FILES, rare=True,
        help="What formats that list objects take for one: component (a connected region), class (all of a class).")
    min_area: MinArea = option(MinArea(1), metavar="AREA", group=FILES, rare=True,
        help='Smaller objects are left out of formats that list objects: pixels, or percent of the image such as "0.1%".')
    png_mode: PngMode = option("L", group=FILES, rare=True,
        help="Masks as grey values (L), or with a palette (P) for tools that want it.")
    simplify: float | None = option(None, metavar="PIXELS", group=FILES, rare=True, sparse=True,
        help="Polygons with fewer corners, to be edited by hand: up to this far off.  [default: they keep to their pixels]")
    names: Names = option("stem", group=FILES, rare=True, sparse=True,
        help="Names of the files of an image a.jpg: stem, as in a.png; full, as in a.jpg.png, where a.png is an image too.")
    val_fraction: float | None = option(None, metavar="SHARE", group=FILES, rare=True, sparse=True,
        help="YOLO: this share of the images (0 to 1) for validation, chosen by their names.  "
        "[default: as in the folder, or 0]")
    # fmt: on

    def __post_init__(self) -> None:
        choose(self.instances, INSTANCES, "instances")
        choose(self.png_mode, PNG_MODES, "mode of PNG files")
        choose(self.names, NAMES, "names of files")
        _set(self, "min_area", parse_min_area(self.min_area))
        if self.simplify is not None:
            _set(self, "simplify", check_number("argument `simplify`", self.simplify))
            if not 0 <= self.simplify <= MAX_SIMPLIFY:
                raise UsageError(
                    f"argument `simplify`={quoted(self.simplify)} is no distance in pixels",
                    f"Give a number from 0 to {MAX_SIMPLIFY}; 1 or 2 are usual.",
                )
        if self.val_fraction is not None:
            _set(self, "val_fraction", check_number("argument `val_fraction`", self.val_fraction))
            if not 0 <= self.val_fraction < 1:
                raise UsageError(
                    f"argument `val_fraction`={quoted(self.val_fraction)} is no part of the images",
                    "Give a number from 0 to less than 1, such as 0.2.",
                )

    __repr__ = short_repr

    def image_record(self) -> dict[str, object]:
        """Return the options that decide what an image becomes, as `record` has them."""
        return {name: value for name, value in record_of(self).items() if name != "val_fraction"}

    def record(self) -> dict[str, object]:
        """Return the options as run.json has them; a share of 0 is left out like none."""
        return {**self.image_record(), **({"val_fraction": self.val_fraction} if self.val_fraction else {})}


#: How labels become files where no options are given.
DEFAULT_FILE_OPTIONS = FileOptions()
