"""Options of a run beside the images, the model and the phrases: how images are labelled, how labels become files, which device.

Imports nothing that takes its time: the help of the command needs this module.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Literal, TypeVar, get_args

from tipsseg.errors import UsageError
from tipsseg.util.json_values import short, take
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


def check_whole_number(argument: str, value: object) -> None:
    """Raise UsageError for what is no whole number from 1 on; `argument` is how the message begins."""
    if type(value) is not int:
        raise UsageError(f"{argument} must be a whole number, not {quoted(value)}")
    if value < 1:
        raise UsageError(f"{argument}={value} is too small; the least is 1")


_DEVICE = re.compile("auto|(cpu|mps)(:0)?|cuda(:[0-9]+)?")


def check_device_name(name: str) -> None:
    """Raise UsageError for what cannot be a device, whether this machine has it or not."""
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        raise UsageError(f"unknown device {quoted(name)}", "Use auto, cpu, cuda, cuda:N or mps.")


def check_dtype_name(name: str) -> None:
    """Raise UsageError for what is no dtype to compute in."""
    choose(name, DTYPE_NAMES, "dtype")


def check_work(device: str, dtype: str, batch_size: int, jobs: int, max_pixels: int) -> None:
    """Raise UsageError for what cannot be meant of where and how a run computes; see RunSpec."""
    check_whole_number("argument `batch_size`", batch_size)
    check_whole_number("argument `jobs`", jobs)
    check_whole_number("argument `max_pixels`", max_pixels)
    check_device_name(device)
    check_dtype_name(dtype)


def thread_count(jobs: int | None) -> int:
    """How many threads `jobs` asks for; None stands for the default. Raises UsageError for less than 1."""
    if jobs is None:
        return default_jobs()
    check_whole_number("argument `jobs`", jobs)
    return jobs


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


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How an image is labelled, beside the model and the vocabulary.

    Attributes:
        mode: "slide": overlapping windows of the model's native size; "whole": the image in one piece.
        short_side: The image's shorter side is resized to this many pixels; None: the model's native size.
        min_confidence: Pixels of a lower confidence, 0..1, get the ignore id.
        refine: "pamr": edges follow the colours of the image; "none": labels as the model gives them.
        scales: Factors of the short side. The model sees the image at each of them, and a label is what wins by the mean of the
            log-probabilities. They are kept in ascending order.

    Raises:
        UsageError: No model could use one of the values.
    """

    mode: Mode = "slide"
    short_side: int | None = None
    min_confidence: float = 0.0
    refine: Refinement = "none"
    scales: tuple[float, ...] = ONE_SCALE

    def __post_init__(self) -> None:
        choose(self.mode, MODES, "mode")
        choose(self.refine, REFINEMENTS, "refinement")
        if self.short_side is not None:
            if type(self.short_side) is not int:
                raise UsageError(f"short side must be a whole number of pixels, not {quoted(self.short_side)}")
            if self.short_side < 1:
                raise UsageError(f"short side {quoted(self.short_side)} is not positive")
        if isinstance(self.min_confidence, bool) or not isinstance(self.min_confidence, int | float):
            raise UsageError(f"minimum confidence must be a number, not {quoted(self.min_confidence)}")
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(
                f"minimum confidence {quoted(self.min_confidence)} is not between 0 and 1",
                "A confidence is between 0 and 1: 0.6 is 60 %.",
            )
        object.__setattr__(self, "scales", check_scales(self.scales))

    def record(self) -> dict[str, object]:
        """Return the options as run.json has them; one scale, as published, is left out."""
        found = asdict(self)
        scales = found.pop("scales")
        if scales != ONE_SCALE:
            found["scales"] = list(scales)
        return found


def check_scales(scales: object) -> tuple[float, ...]:
    """Return scales in ascending order. Raises UsageError for what cannot be meant."""
    if isinstance(scales, str) or not isinstance(scales, Sequence):
        raise UsageError(f"argument `scales` must be numbers, not {quoted(scales)}", "For example: scales=(1, 2).")
    for each in scales:
        if isinstance(each, bool) or not isinstance(each, int | float) or each != each:  # noqa: PLR0124  not a number
            raise UsageError(f"argument `scales`: {quoted(each)} is no number", _SCALES_HINT)
        if each <= 0:
            raise UsageError(f"argument `scales`: {quoted(each)} is not positive", _SCALES_HINT)
        if not SMALLEST_SCALE <= each <= LARGEST_SCALE:
            raise UsageError(
                f"argument `scales`: {quoted(each)} is too {'large' if each > 1 else 'small'}",
                f"A scale is a factor of the short side, from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}.",
            )
    found = tuple(sorted(map(float, scales)))
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


def parse_scales(text: str) -> tuple[float, ...]:
    """The scales in a text: "1,2". Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not _SCALE.fullmatch(part):
            raise UsageError(
                f"argument `scales`={text}: " + (f"{quoted(part)} is no number" if part else "a number is missing"),
                _SCALES_HINT,
            )
    return check_scales([int(part) if part.lstrip("+-").isdigit() else float(part) for part in parts])


def scales_text(scales: Sequence[float]) -> str:
    """Scales as `parse_scales` reads them: "1,1.75"."""
    return ",".join(f"{each:.17g}" if float(f"{each:g}") != each else f"{each:g}" for each in scales)


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
        """As `parse_min_area` reads it."""
        # All digits, and none of them in powers of ten.
        return f"{Decimal(repr(self.value)).normalize():f}%" if self.percent else str(int(self.value))


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How labels become files.

    Attributes:
        instances: "component": each 8-connected region of a class is an object; "class": all pixels of a class in an image are one
            object.
        min_area: Smaller objects are left out of formats that list objects.
        png_mode: The mode of index masks: "L", grey values, or "P", numbers of a palette's colours.
        simplify: How far, in pixels, polygons may be off for the sake of fewer corners; None: polygons keep to their pixels.
        val_fraction: The share of the images that YOLO's data.yaml takes for validation, 0 <= x < 1; 0: the images are not divided;
            None: the share that the output folder has already.
        names: "stem": the files of a.jpg are named a.png and the like; "full": a.jpg.png.

    Raises:
        UsageError: One of the values is impossible.
    """

    instances: Instances = "component"
    min_area: MinArea = MinArea(1)
    png_mode: PngMode = "L"
    simplify: float | None = None
    val_fraction: float | None = None
    names: Names = "stem"

    def __post_init__(self) -> None:
        choose(self.instances, INSTANCES, "instances")
        choose(self.png_mode, PNG_MODES, "mode of PNG files")
        if not isinstance(self.min_area, MinArea):
            raise UsageError(
                f"the minimum area must be a MinArea, not {quoted(self.min_area)}",
                "For example: MinArea(50) pixels, or MinArea(0.1, percent=True) of the image.",
            )
        for argument, value in (("argument `simplify`", self.simplify), ("argument `val_fraction`", self.val_fraction)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UsageError(f"{argument} must be a number, not {quoted(value)}")
        if self.simplify is not None and not 0 <= self.simplify <= MAX_SIMPLIFY:
            raise UsageError(
                f"argument `simplify`={self.simplify:g} is no distance in pixels",
                f"Give a number from 0 to {MAX_SIMPLIFY}; 1 or 2 are usual.",
            )
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise UsageError(
                f"argument `val_fraction`={self.val_fraction:g} is no part of the images",
                "Give a number from 0 to less than 1, such as 0.2.",
            )
        choose(self.names, NAMES, "names of files")

    def image_record(self) -> dict[str, object]:
        """The options that decide what an image becomes, as `record` has them."""
        record: dict[str, object] = {
            "instances": self.instances,
            "min_area": str(self.min_area),
            "png_mode": self.png_mode,
        }
        # Each of the others only where it is not as it always was, so that earlier runs are runs of the same options.
        record |= {} if self.simplify is None else {"simplify": self.simplify}
        return record if self.names == NAMES[0] else {**record, "names": self.names}

    def record(self) -> dict[str, object]:
        """Return the options as run.json has them; `simplify` and what follows it are left out at their defaults."""
        return {**self.image_record(), **({"val_fraction": self.val_fraction} if self.val_fraction else {})}


#: How labels become files where no options are given.
DEFAULT_FILE_OPTIONS = FileOptions()


def parse_min_area(text: str) -> MinArea:
    """The area in a text: "50" pixels, or "0.1%" of the image. Raises UsageError."""
    found = _MIN_AREA.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"argument `min_area`={text} is no area",
            'Give a whole number of pixels, or a percentage of the image such as "0.1%".',
        )
    pixels, percent = found.groups()
    if percent is not None and float(percent) > 100:
        raise UsageError(f"argument `min_area`={text} is more than the whole image")
    return MinArea(int(pixels)) if percent is None else MinArea(float(percent), percent=True)


def parse_file_options(record: Mapping[str, object]) -> FileOptions:
    """The options in what `FileOptions.record` gave, among others. Raises ValueError."""
    try:
        return FileOptions(
            choose(take(record, "instances", str), INSTANCES, "instances"),
            parse_min_area(take(record, "min_area", str)),
            choose(take(record, "png_mode", str), PNG_MODES, "mode of PNG files"),
            _number(record, "simplify"),
            _number(record, "val_fraction"),
            choose(take(record, "names", str), NAMES, "names of files") if "names" in record else NAMES[0],
        )
    except UsageError as error:
        raise ValueError(error.message) from error


def _number(record: Mapping[str, object], key: str) -> float | None:
    """The number of a key, None where it is not there. Raises ValueError."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1e9 <= value <= 1e9:
        raise ValueError(f"`{key}` is {short(value)}")
    return float(value)
