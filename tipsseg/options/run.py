"""Option records for a run: model and device, output folder, images, engine, ground-truth masks, corrections.

Keep imports fast here: the command's help loads this module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from tipsseg.errors import UsageError
from tipsseg.options import (
    DEFAULT_FORMATS,
    DTYPE_NAMES,
    MAX_PIXELS,
    FeatureDtype,
    OptionRecord,
    default_jobs,
    device_name,
    dtype_name,
    parse_numbers,
    split_names,
)
from tipsseg.options.fields import COMMAND, FILES, IMAGES, MACHINES, MODEL, RASTERS, TRUTH, WHAT, option, text_of
from tipsseg.options.values import ByteSize, Every, Shard, parse_every, parse_shard, parse_size
from tipsseg.util.text import quote


def _model_id(model: object) -> str:
    if not isinstance(model, str | os.PathLike):
        kind = type(model).__name__
        raise UsageError(f"argument `model` must be an id or a folder, not {kind}", 'For example: "l14".')
    return os.fspath(model)


def format_names(formats: object) -> tuple[str, ...]:
    if not isinstance(formats, Sequence) or not all(isinstance(name, str) for name in formats):
        raise UsageError(f"formats must be a list of names, not {quote(formats)}", 'For example: ["png", "coco"].')
    return split_names([formats] if isinstance(formats, str) else formats)


def _band_numbers(bands: object) -> tuple[int, ...]:
    found = parse_numbers("bands", bands, int)
    if len(found) not in (1, 3) or min(found) < 1:
        what = f"argument `bands`={text_of(found)} is neither one band nor three, counted from 1"
        raise UsageError(what, "For example: 4,3,2.")
    return found


def _ray_address(ray: object) -> str:
    if not isinstance(ray, str) or not re.fullmatch(r"auto|[A-Za-z0-9._-]+:[0-9]{1,5}", ray):
        raise UsageError(
            f"argument `ray`={ray} is not the address of a Ray cluster",
            "Write auto, or a host and a port such as head:6379. The number of tasks follows from the CPUs and GPUs there.",
        )
    return ray


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(OptionRecord):
    """Options for reading images and masks. Raise UsageError if a value is invalid."""

    # fmt: off
    jobs: int = option(None, metavar="N", group=IMAGES, rare=True, min=1,
        role="machine",
        help="Threads for decoding, labelling and writing files.  [default: one per core, up to 32]")
    max_pixels: int = option(MAX_PIXELS, metavar="N", group=IMAGES, rare=True, min=1,
        role="machine", recorded=COMMAND,
        help="Reject images with more pixels, to protect against decompression bombs.")
    # fmt: on

    def __post_init__(self) -> None:
        if self.jobs is None:
            object.__setattr__(self, "jobs", default_jobs())
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(ReadingOptions):
    """Options for the model and the machine.

    Raises:
        UsageError: If a value is invalid on all machines.
    """

    # fmt: off
    model: str = option("l14", metavar="ID|DIR", short="m", group=MODEL, choices="models", check=_model_id,
        role="labels", held="identity", repeated=True, recorded=COMMAND,
        help="Model id (l14, b14, so400m14, g14, tiny), or a folder in the Hugging Face layout.")
    device: str = option("auto", metavar="DEVICE", group=MODEL, choices=("auto", "cpu", "cuda", "mps"), check=device_name,
        role="machine", repeated=True, recorded="asked",
        help="auto (the first available of cuda, mps and cpu), cpu, cuda, cuda:N or mps.")
    dtype: str = option("auto", metavar="DTYPE", group=MODEL, choices=DTYPE_NAMES, check=dtype_name,
        role="labels", held="identity", repeated=True, recorded="asked",
        help=f"{', '.join(DTYPE_NAMES)}. On CPUs with AMX or AVX512_BF16, auto means bfloat16, except for tiny; "
        "on other CPUs, int8 is the fastest.")
    batch_size: int | None = option(None, metavar="N", group=MODEL, rare=True, min=1,
        role="machine", repeated=True, recorded="asked",
        help="Windows per batch on a GPU; a CPU processes one at a time.  [default: 8; 2 on a Mac]")
    use_cache: bool = option(False, commands_give=True,
        role="machine",
        help="Cache text vectors and file hashes in the user cache folder.")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(EncodeOptions):
    """Options for the model and the machine, and stored features. Raise UsageError as EncodeOptions does."""

    # fmt: off
    features: Path | None = option(None, metavar="DIR", group=MODEL,
        role="labels", held="identity", recorded="features.folder", rasters=False,
        help="Reuse the features in this folder, and add missing ones; see tipsseg encode.")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class OutputOptions(OptionRecord):
    """Options for the output folder and the labels already in it.

    If `formats` is None, the formats already in the folder apply, or the default formats.

    Raises:
        UsageError: If a value is invalid, or two values cannot be combined.
    """

    # fmt: off
    output: Path = option(Path("labels"), metavar="DIR", short="o", group=FILES, role="files", recorded=COMMAND,
        help="Output folder.")
    formats: tuple[str, ...] | None = option(None, metavar="NAMES", flag="format", short="f", group=FILES, choices="formats",
        role="files", held="identity", repeated=True, recorded="formats",
        check=format_names,
        help=f"One or more, separated by commas: {{formats}}.  [default: {','.join(DEFAULT_FORMATS)}; an existing folder keeps "
        "its formats]")
    overwrite: bool = option(False, group=FILES,
        role="action",
        help="Start over: remove the files of earlier runs from the output folder, except edited files such as corrected masks.")
    prune: int | None = option(None, metavar="N", group=IMAGES, rare=True, min=1,
        role="action",
        help="Remove the labels of N images that are missing from the input; a run without this option prints N.")
    replace_edited: bool = option(False, group=FILES, rare=True,
        role="action",
        help="Also label images again whose files were edited by hand, and overwrite the edits.")
    shard: Shard | None = option(None, metavar="I/N|auto", group=MACHINES, rare=True, check=parse_shard,
        role="images",
        help="Label only part I of N parts, for several processes or machines, also into one folder. auto reads it from Slurm, "
        "SkyPilot, torchrun or Open MPI.")
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overwrite and self.shard is not None:
            raise UsageError(
                "argument `overwrite` and argument `shard` exclude each other",
                "Choose another output folder, or start over without argument `shard`.",
            )


@dataclass(frozen=True, kw_only=True)
class RegionOptions(OptionRecord):
    """Options for what is known of each image: regions, such as the masks of another tool, and what is in it."""

    # fmt: off
    regions: Path | None = option(None, metavar="DIR|FILE", group=WHAT,
        role="labels", held="given", repeated=True, recorded="regions.source", rasters=False,
        help="Assign one class to each existing mask, such as SAM's (PNG, JSON, COCO).")
    regions_only: bool = option(False, group=WHAT, rare=True,
        role="labels", held="identity", repeated=True, recorded="regions.only",
        help="Make pixels outside all masks background.  [default: label these pixels by class]")
    regions_margin: float = option(0.0, metavar="PIXELS", group=WHAT, rare=True, min=0, max=100,
        hint="Write a distance in pixels; 1.5 or 3 are usual.",
        role="labels", held="identity", repeated=True, recorded="regions.margin", rasters=False,
        help="Take the refined label within this distance of the edges of masks, if the edges are off by some pixels.")
    present: Path | None = option(None, metavar="folders|FILE", group=WHAT,
        role="labels", held="given", repeated=True, recorded="present.source", rasters=False,
        help="Restrict each image to its own classes, from its folder name (folders), or from a CSV or JSONL file with "
        "columns image and names or caption.")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class OntoOptions(OptionRecord):
    """Options for existing labels."""

    # fmt: off
    onto: Path | None = option(None, metavar="DIR|FILE", group=WHAT,
        role="labels", held="identity", repeated=True, recorded="onto.source", rasters=False,
        help="Keep these existing labels, and label only unlabelled pixels.")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class RasterOptions(OptionRecord):
    """Options for rasters, such as satellite scenes: their bands and resolution. Raise UsageError if a value is invalid."""

    # fmt: off
    bands: tuple[int, ...] | None = option(None, metavar="N,N,N", group=RASTERS, rare=True, check=_band_numbers,
        role="labels", held="value", repeated=True, recorded="options",
        help="Red, green and blue band, or one grey band, counted from 1.  [default: the first three, or the first]")
    ground_resolution: float | None = option(None, metavar="LENGTH", group=RASTERS, rare=True, above=0, max=1e9,
        role="labels", held="value", repeated=True, recorded="options",
        hint="For example: 0.5.",
        help="Pixel size of the labels, in units of the coordinate system.  [default: the raster's full resolution]")
    # fmt: on


DEFAULT_RASTER_OPTIONS = RasterOptions()


@dataclass(frozen=True, kw_only=True)
class StoreOptions(OptionRecord):
    """Options for the feature store that `encode` writes. Raise UsageError if a value is invalid."""

    # fmt: off
    output: Path = option(MISSING, metavar="DIR", short="o", group=FILES, help="Feature folder.")
    feature_dtype: FeatureDtype | None = option(None, group=MODEL,
        help="Dtype of stored features: float32 gives the same labels as running the model, float16 takes half the disk space, "
        "int8 a quarter.  [default: float16; an existing folder keeps its value]")
    shard: Shard | None = option(None, metavar="I/N|auto", group=MACHINES, rare=True, check=parse_shard,
        help="Encode only part I of N parts, for several processes or machines; auto reads the part as tipsseg label does.")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class ImageOptions(OptionRecord):
    """Options that select images. Raise UsageError if a number is invalid."""

    # fmt: off
    sample: int | None = option(None, metavar="N", group=IMAGES, min=1,
        role="images", recorded=COMMAND,
        help="Process a random subset of N images, with a fixed seed.")
    every: Every | None = option(None, metavar="N|SECONDS", group=IMAGES, rare=True, check=parse_every,
        role="images", recorded=COMMAND,
        help="Video sampling: 10 (every tenth frame) or 1s (one frame per second).")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class EngineOptions(OptionRecord):
    """Options for the engine: this process, or a Ray cluster. Raise UsageError if a value is invalid."""

    # fmt: off
    ray: str | None = option(None, metavar="auto|ADDRESS", group=MACHINES, rare=True, check=_ray_address,
        role="machine",
        help="Label on the Ray cluster at ADDRESS; auto uses a running cluster, or starts one on this machine. "
        "Requires pip install 'tipsseg[ray]'.")
    # fmt: on


#: Benchmarks whose ground-truth masks have known file names and ids.
LAYOUT_NAMES = ("ade20k", "cityscapes", "coco-stuff", "pascal-context-59", "pascal-context-60", "voc20", "voc21")


@dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """Options for ground-truth masks: file names and ids. Without a `layout`, 0 is the background, and 1..N are the classes."""

    # fmt: off
    layout: str | None = option(None, metavar="NAME", group=TRUTH, choices=LAYOUT_NAMES,
        role="sources",
        help=f"Read the masks in a benchmark's layout (file names, ids and classes): {', '.join(LAYOUT_NAMES)}.")
    ignore_index: int | None = option(None, metavar="ID", group=TRUTH,
        role="sources",
        help="Ground-truth id to ignore.  [default: 255, or 65535 with more than 254 classes]")
    reduce_zero_label: bool = option(False, group=TRUTH, rare=True,
        role="sources",
        help="Ignore ground-truth id 0, instead of scoring it as background.")
    zero_based: bool = option(False, group=TRUTH, rare=True,
        role="sources",
        help="Treat ground-truth id 0 as the first class, not as background.")
    # fmt: on

    def __post_init__(self) -> None:
        if self.layout is not None and (self.ignore_index, self.reduce_zero_label, self.zero_based) != (
            None,
            False,
            False,
        ):
            raise UsageError(
                f"argument `layout`={self.layout} already defines the ground-truth ids",
                "Remove argument `ignore_index`, argument `reduce_zero_label` and argument `zero_based`.",
            )
        if self.reduce_zero_label and self.zero_based:
            raise UsageError(
                "argument `reduce_zero_label` and argument `zero_based` exclude each other",
                "Use the first if 0 marks ignored pixels, the second if 0 is the first class.",
            )


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(OptionRecord):
    """Options for data sets of shards. Raise UsageError if a value is invalid."""

    # fmt: off
    shard_size: ByteSize = option(ByteSize(500_000_000), metavar="SIZE", group=FILES, rare=True, check=parse_size,
        help="With argument `to`, start a new shard above this size of its pictures and masks, such as 2GB.")
    overwrite: bool = option(False, group=FILES, rare=True,
        help="With argument `to`, remove an earlier data set there. Other files in the place are an error.")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class CorrectOptions:
    """Options for importing corrections.

    Editing tools redraw objects. By default, an object counts as unchanged if its outline moved no farther than a tool moves it,
    or if it only lost its holes; with `exact`, every pixel counts. `emptied` applies to images without objects, if the corrections
    do not show whether a person reviewed them, or no image has objects; None rejects such images.
    """

    # fmt: off
    source_format: str | None = option(None, metavar="NAME", flag="format", short="f", choices="corrections",
        help="Format of the corrections: {corrections}.  [default: detected]")
    add_classes: bool = option(False, help="Add classes that are missing from the run.")
    everything: bool = option(False, flag="all",
        help="Import all labels of an output folder, not only the edited ones.")
    replace_edited: bool = option(False, help="Also replace masks that were edited in place.")
    emptied: bool | None = option(None, negatable=True,
        help="Clear or keep the masks of images without objects, if SOURCE does not show whether a person reviewed them, or if no "
        "image has objects.  "
        "[default: stop with an error]")
    exact: bool = option(False,
        help="Also import objects that differ only at their edges. "
        "By default these are ignored, because tools round corners and fill holes.")
    accept: bool = option(False, help="Also count unchanged images in SOURCE as corrected: a person looked at them.")
    images: Path | None = option(None, metavar="DIR",
        help="The folder of the images, if it was moved: overlays show the images.  [default: the recorded folder]")
    dry_run: bool = option(False, help="Check the corrections and list the changes; write nothing.")
    # fmt: on
