"""The values of options: choices, defaults, and what reads a value.

Keep imports fast here: the command's help loads this module.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeVar, get_args

from tipsseg.errors import UsageError, Words, named
from tipsseg.options.fields import check_whole_number
from tipsseg.util.cores import usable_cores
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
        raise UsageError(
            Words("{scales} must be 1 to {max_scales} numbers, not {found}", max_scales=_MAX_SCALES, found=len(found)),
            hint,
        )
    for scale in found:
        if not _SMALLEST_SCALE <= scale <= _LARGEST_SCALE:  # also for NaN
            limits = f"at least {_SMALLEST_SCALE:g} and at most {_LARGEST_SCALE:g}"
            raise UsageError(Words("{scales} must be {limits}, not {scale}", limits=limits, scale=f"{scale:g}"), hint)
    if twice := [scale for scale in found if found.count(scale) > 1]:
        raise UsageError(Words("{scales} contains {number} twice", number=f"{twice[0]:g}"), "Remove one of them.")
    return tuple(found)


def check_stretch(stretch: object) -> tuple[float, float]:
    """Return two percentiles from numbers or a string such as "2,98". Raise UsageError if they are invalid."""
    found = parse_numbers("stretch", stretch, float)
    if len(found) != 2 or not 0 <= found[0] < found[1] <= 100:
        raise UsageError(
            Words("{stretch}={value} is not a pair of percentiles", value=quote(stretch)), "For example: 2,98."
        )
    return found[0], found[1]


def parse_numbers(name: str, value: object, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """Return numbers that the user typed, separated by commas, or passed. Raise UsageError for other values."""
    parts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(kind(part) for part in parts)  # type: ignore[attr-defined]  # TypeError is caught
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            Words("{name}={value} is not a list of numbers", name=named(name), value=quote(value)),
            "Separate numbers by commas.",
        ) from error


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
        return MinArea(check_whole_number(Words("{min_area}"), area, least=0))
    match = _MIN_AREA.fullmatch(area.strip())
    if match is None or float(match[2] or 0) > 100:
        hint = 'Write a whole number of pixels, or a percentage of the image such as "0.1%".'
        raise UsageError(Words("{min_area}={area} is not an area", area=area), hint)
    return MinArea(float(match[2]), percent=True) if match[2] else MinArea(int(match[1]))
