"""The options of a run beside how it labels: the model and the machine, the output folder, which images, which engine.

Imports nothing that takes its time: the help of the command needs this module.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import MISSING, dataclass
from pathlib import Path

from tipsseg.errors import UsageError
from tipsseg.options import (
    DEFAULT_FORMATS,
    DTYPE_NAMES,
    FEATURE_DTYPES,
    MAX_PIXELS,
    FeatureDtype,
    check_whole_number,
    choose,
    default_jobs,
    device_name,
    dtype_name,
    split_names,
)
from tipsseg.options.fields import FILES, IMAGES, MACHINES, MODEL, TRUTH, option
from tipsseg.options.shard import Shard, parse_shard
from tipsseg.util.printable import quoted


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """The model, and how and where it computes.

    Raises:
        UsageError: No machine could use one of the values.
    """

    # fmt: off
    model: str = option("l14", metavar="ID|DIR", short="m", group=MODEL, choices="models",
        help="l14, b14, so400m14, g14, tiny, or a folder in the hub layout.")
    device: str = option("auto", metavar="DEVICE", group=MODEL, choices=("auto", "cpu", "cuda", "mps"),
        help="auto (cuda, then mps, then cpu), cpu, cuda, cuda:N, mps.")
    dtype: str = option("auto", metavar="DTYPE", group=MODEL, choices=DTYPE_NAMES, rare=True,
        help=f"{', '.join(DTYPE_NAMES)}. On a CPU, auto is bfloat16 if that is faster by a quarter (measured "
        f"once), else float32.")
    batch_size: int = option(8, metavar="N", group=MODEL, rare=True,
        help="Windows that a GPU takes at once; a CPU takes one.")
    features: Path | None = option(None, metavar="DIR", group=MODEL,
        help="Take the features of images from this folder, and add the missing ones; see tipsseg encode.")
    jobs: int = option(None, metavar="N", group=IMAGES, rare=True,
        help="Threads that decode images, and make labels and files.  [default: one per core, up to 32]")
    max_pixels: int = option(MAX_PIXELS, metavar="N", group=IMAGES, rare=True,
        help="Larger images are refused, as they may be meant to fill the memory.")
    use_cache: bool = option(False, commands_give=True,
        help="The user's cache keeps what saves time the next time: vectors of phrases, stamps of hashed files.")
    # fmt: on

    def __post_init__(self) -> None:
        _set(self, "model", os.fspath(self.model))
        _set(self, "device", device_name(self.device))
        _set(self, "dtype", dtype_name(self.dtype))
        if self.features is not None:
            _set(self, "features", Path(self.features))
        _set(self, "jobs", default_jobs() if self.jobs is None else self.jobs)
        for name in ("batch_size", "jobs", "max_pixels"):
            _set(self, name, check_whole_number(f"argument `{name}`", getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where labels go, and what becomes of labels that are in that folder already.

    Raises:
        UsageError: Two of the values exclude each other, or one is impossible.
    """

    # fmt: off
    output: Path = option(Path("labels"), metavar="DIR", short="o", group=FILES, help="Output folder.")
    formats: tuple[str, ...] = option(DEFAULT_FORMATS, metavar="NAMES", flag="format", short="f", group=FILES, choices="formats",
        read=split_names,
        help=f"One or more, with commas: {{formats}}.  [default: {','.join(DEFAULT_FORMATS)}]")
    resume: bool = option(True, negatable=True, group=IMAGES, rare=True,
        help="Go on from what is done in the output folder; or label all given images again, for the same classes.")
    overwrite: bool = option(False, group=FILES,
        help="Start over: remove what an earlier run wrote into the output folder. Corrected masks stay, and other files that were "
        "changed since.")
    replace_edited: bool = option(False, group=FILES, rare=True,
        help="Also label images whose files were changed by hand. Without it such files are kept.")
    shard: Shard | None = option(None, metavar="I/N", group=MACHINES, rare=True,
        help="Only part I of N parts, for several processes or machines; see tipsseg merge.")
    # fmt: on

    def __post_init__(self) -> None:
        _set(self, "output", Path(self.output))
        if isinstance(self.formats, str) or not all(isinstance(name, str) for name in self.formats):
            raise UsageError(
                f"formats must be a list of names, not {quoted(self.formats)}", 'For example: ["png", "coco"].'
            )
        _set(self, "formats", tuple(self.formats))
        if isinstance(self.shard, str):
            _set(self, "shard", parse_shard(self.shard))
        if self.overwrite and not self.resume:
            raise UsageError(
                "argument `overwrite` and argument `resume`=False exclude each other",
                "Give argument `overwrite` to remove what an earlier run wrote, argument `resume`=False to label the images again.",
            )


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """The feature store that is filled, and what it keeps. Raises UsageError for values that cannot be meant."""

    # fmt: off
    output: Path = option(MISSING, metavar="DIR", short="o", group=FILES, help="The folder of the features.")
    feature_dtype: FeatureDtype | None = option(None, group=MODEL,
        help="What features are kept in: float32 gives the same labels as no store, float16 takes half the disk and int8 a "
        "quarter.  [default: as in the folder, or float16]")
    shard: Shard | None = option(None, metavar="I/N", group=MACHINES, rare=True,
        help="Only part I of N parts, for several processes or machines.")
    # fmt: on

    def __post_init__(self) -> None:
        _set(self, "output", Path(self.output))
        if self.feature_dtype is not None:
            choose(self.feature_dtype, FEATURE_DTYPES, "dtype of features")
        if isinstance(self.shard, str):
            _set(self, "shard", parse_shard(self.shard))


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which of the images that are given. Raises UsageError for numbers that cannot be meant."""

    # fmt: off
    limit: int | None = option(None, metavar="N", group=IMAGES,
        help="Only the first N images; argument `sample` draws N of all.")
    sample: int | None = option(None, metavar="N", group=IMAGES, rare=True,
        help="Only N images, drawn at random, always the same; argument `limit` takes the first N.")
    retry_failed: bool = option(False, group=IMAGES, rare=True,
        help="Only images that failed before, of those that are given, or all of them if none are. Without "
        "classes: as that run was asked.")
    # fmt: on

    def __post_init__(self) -> None:
        for name in ("limit", "sample"):
            if getattr(self, name) is not None:
                _set(self, name, check_whole_number(f"argument `{name}`", getattr(self, name)))
        if self.limit is not None and self.sample is not None:
            raise UsageError("argument `limit` and argument `sample` exclude each other", "Give one of them.")


@dataclass(frozen=True, slots=True)
class Ray:
    """So many actors of a Ray cluster, with a model of its own each, and the GPUs of each. Raise UsageError for other numbers."""

    actors: int
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.actors < 1:
            raise UsageError(f"argument `ray`={self}: there is 1 actor or more", _RAY_HINT)
        if not 0 <= self.gpus < math.inf:
            raise UsageError(f"argument `ray`={self}: {self.gpus:g} is no number of GPUs", _RAY_HINT)
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise UsageError(f"argument `ray`={self}: an actor has a part of one GPU, or whole GPUs", _RAY_HINT)

    def __str__(self) -> str:
        return f"{self.actors}x{self.gpus:g}" if self.gpus else str(self.actors)


def parse_ray(text: object) -> Ray:
    """Return the actors of a number, or of a text: "4", or "4x0.5" with half a GPU each. Raise UsageError."""
    if isinstance(text, Ray):
        return text
    if not (match := re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{0,9}\.?[0-9]{1,9}))?", str(text))):
        raise UsageError(f"argument `ray`={text} is no number of actors", _RAY_HINT)
    return Ray(int(match[1]), float(match[2] or 0))


_RAY_HINT = "Give the number of actors, and the GPUs of each if there are some: 4, 4x1, or 4x0.5 for two on a GPU."


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What labels the images: this process, or actors of a Ray cluster. Raises UsageError for what cannot be meant."""

    # fmt: off
    ray: Ray | None = option(None, metavar="ACTORS[xGPUS]", group=MACHINES, rare=True,
        help="Label by so many actors of a Ray cluster, such as 4, or 4x0.5 with half a GPU each (pip install 'tipsseg[ray]').")
    # fmt: on

    def __post_init__(self) -> None:
        if self.ray is not None:
            _set(self, "ray", parse_ray(self.ray))


#: The benchmarks whose names and ids of truth masks are known.
LAYOUT_NAMES = ("ade20k", "cityscapes", "coco-stuff", "pascal-context-59", "pascal-context-60", "voc20", "voc21")


@dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """What the names and ids of truth masks mean. Without a `layout` 0 is the background, and 1..N are the classes."""

    # fmt: off
    layout: str | None = option(None, metavar="NAME", group=TRUTH, choices=LAYOUT_NAMES,
        help=f"Names and ids as a benchmark has them, and its classes: {', '.join(LAYOUT_NAMES)}.")
    ignore_index: int | None = option(None, metavar="ID", group=TRUTH,
        help="Truth id of pixels that do not count.  [default: 255; above 254 classes 65535]")
    reduce_zero_label: bool = option(False, group=TRUTH, rare=True,
        help="Truth id 0 does not count, rather than being background.")
    zero_based: bool = option(False, group=TRUTH, rare=True,
        help="Truth id 0 is the first class; there is no background.")
    # fmt: on

    def __post_init__(self) -> None:
        if self.layout is not None and (self.ignore_index, self.reduce_zero_label, self.zero_based) != (
            None,
            False,
            False,
        ):
            raise UsageError(
                f"argument `layout`={self.layout} says already what the ids of the truth mean",
                "Leave out argument `ignore_index`, argument `reduce_zero_label` and argument `zero_based`.",
            )
        if self.reduce_zero_label and self.zero_based:
            raise UsageError(
                "argument `reduce_zero_label` and argument `zero_based` exclude each other",
                "Use the first where 0 stands for pixels that do not count, the second where 0 is the first class.",
            )


#: The formats of corrections.
CORRECTION_FORMATS = ("png", "cvat", "hf", "coco", "labelme", "label-studio", "yolo")


@dataclass(frozen=True, kw_only=True)
class CorrectOptions:
    """Which corrections are taken.

    Where a tool redraws objects, those stay as they were whose outline is off by no more than tools move it, or that only lost
    their holes; with `exact` every pixel counts. `emptied` is for images without objects, if the corrections do not tell whether a
    person saw them; None refuses such images.
    """

    # fmt: off
    source_format: str | None = option(None, metavar="NAME", flag="format", short="f", choices=CORRECTION_FORMATS,
        help=f"The format of the corrections: {', '.join(CORRECTION_FORMATS)}.  [default: recognised]")
    add_classes: bool = option(False, help="A class that the run does not have becomes a further class.")
    everything: bool = option(False, flag="all",
        help="Of a folder of tipsseg: take all labels, not only those that a person changed.")
    replace_edited: bool = option(False, help="Replace masks too that a person changed in their place.")
    emptied: bool | None = option(None, negatable=True,
        help="Empty the masks of images without objects, or leave them, if SOURCE does not tell whether a person saw the image.  "
        "[default: refused]")
    exact: bool = option(False,
        help="Take objects too that differ at their edges only, as tools round corners and fill holes.")
    dry_run: bool = option(False, help="Check all, say what would change, and write nothing.")
    # fmt: on


#: All that a person changed, and nothing else.
DEFAULT_CORRECT_OPTIONS = CorrectOptions()


def _set(options: object, name: str, value: object) -> None:
    object.__setattr__(options, name, value)
