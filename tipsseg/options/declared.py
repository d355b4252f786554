"""The options, each declared once: a type, with what users read about it and what it changes.

Keep imports fast here: the command's help loads this module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from tipsseg.errors import UsageError, Words
from tipsseg.options import (
    DEFAULT_FORMATS,
    DTYPE_NAMES,
    FeatureDtype,
    Instances,
    MinArea,
    Mode,
    Names,
    Refinement,
    check_scales,
    check_stretch,
    device_name,
    dtype_name,
    parse_min_area,
    parse_numbers,
    split_names,
)
from tipsseg.options.fields import COMMAND, FILES, IMAGES, MACHINES, MODEL, RASTERS, TRUTH, WHAT, Opt, text_of
from tipsseg.options.values import ByteSize, Every, Shard, parse_every, parse_shard, parse_size
from tipsseg.util.text import quote


def _model_id(model: object) -> str:
    if not isinstance(model, str | os.PathLike):
        kind = type(model).__name__
        raise UsageError(Words("{model} must be an id or a folder, not {kind}", kind=kind), 'For example: "l14".')
    return os.fspath(model)


def format_names(formats: object) -> tuple[str, ...]:
    if not isinstance(formats, Sequence) or not all(isinstance(name, str) for name in formats):
        raise UsageError(
            Words("{formats} must be a list of names, not {value}", value=quote(formats)),
            'For example: ["png", "coco"].',
        )
    return split_names([formats] if isinstance(formats, str) else formats)


def _format_options(extra: object) -> tuple[str, ...]:
    """Return options of formats, "FORMAT.NAME=VALUE" each, from such texts or from a mapping. The last value of a name counts."""
    texts = [f"{name}={value}" for name, value in extra.items()] if isinstance(extra, Mapping) else extra
    texts = [texts] if isinstance(texts, str) else texts
    found = dict[str, str]()
    for text in texts if isinstance(texts, Sequence) else [texts]:
        if not isinstance(text, str) or not re.fullmatch(r"[^.=]+\.[^.=]+=.*", text, re.DOTALL):
            raise UsageError(
                Words("{extra} must be FORMAT.NAME=VALUE, not {value}", value=quote(text)),
                "Write the name of the format, a dot, the option and the value.",
            )
        found[text.partition("=")[0]] = text
    return tuple(found[name] for name in sorted(found))


def _band_numbers(bands: object) -> tuple[int, ...]:
    found = parse_numbers("bands", bands, int)
    if len(found) not in (1, 3) or min(found) < 1:
        what = Words("{bands}={numbers} is neither one band nor three, counted from 1", numbers=text_of(found))
        raise UsageError(what, "For example: 4,3,2.")
    return found


def _ray_address(ray: object) -> str:
    if not isinstance(ray, str) or not re.fullmatch(r"auto|[A-Za-z0-9._-]+:[0-9]{1,5}", ray):
        raise UsageError(
            Words("{ray}={address} is not the address of a Ray cluster", address=ray),
            "Write auto, or a host and a port such as head:6379. The number of tasks follows from the CPUs and GPUs there.",
        )
    return ray


#: Benchmarks whose ground-truth masks have known file names and ids.
LAYOUT_NAMES = ("ade20k", "cityscapes", "coco-stuff", "pascal-context-59", "pascal-context-60", "voc20", "voc21")

#: Options that change labels, and options of files, which can be changed at any time.
_LABELS: dict[str, Any] = {"role": "labels", "recorded": "options"}
_FILES: dict[str, Any] = {"role": "files", "recorded": "options"}

# fmt: off
ViewMode = Annotated[Mode, Opt(**_LABELS, blocks=False, group=MODEL, rare=True,
    help="slide: overlapping windows of the model's size; whole: the whole image at once.")]
ShortSide = Annotated[int | None, Opt(**_LABELS, blocks=False, metavar="PIXELS", group=MODEL, rare=True, min=1,
    help="Resize the shorter side to this many pixels.  [default: the model's own size]")]
MinConfidence = Annotated[float, Opt(**_LABELS, metavar="0..1", group=WHAT, min=0, max=1,
    hint="Write 0.6 for 60 %.",
    help="Write pixels below this confidence as 255 (ignored).")]
Refine = Annotated[Refinement, Opt(**_LABELS, blocks=False, group=MODEL,
    help="Refine edges using the image's colours; pamr-guided is the most accurate without noise, guided "
        "the fastest.")]
Scales = Annotated[Iterable[float] | float | str, Opt(**_LABELS, metavar="FACTORS", group=MODEL,
    check=check_scales,
    help='Combine several scales, such as "1,2". Slower, but labels are better, especially for small parts.')]
Stretch = Annotated[Sequence[float] | str | None, Opt(**_LABELS, metavar="LOW,HIGH", group=MODEL, rare=True,
    check=check_stretch,
    help="Stretch the contrast, for example of dark 16-bit images: the percentiles of each band that become black and white. "
        "Example: 2,98.")]

InstanceKind = Annotated[Instances | None, Opt(**_FILES, group=FILES, rare=True,
    help="One object per connected component, or per class.  [default: component; an existing folder keeps its value]")]
MinimumArea = Annotated[int | str | MinArea | None, Opt(**_FILES, metavar="AREA", group=FILES, rare=True,
    check=parse_min_area,
    help='Omit objects below this area from object formats: pixels, or a percentage of the image such as "0.1%".  '
        "[default: 1; an existing folder keeps its value]")]
Simplify = Annotated[float | None, Opt(**_FILES, blocks=False, metavar="PIXELS", group=FILES, rare=True, min=0, max=1000,
    hint="Write a distance in pixels; 1 or 2 are usual.",
    help="Simplify polygons for manual editing; their outlines move by up to this distance.  "
        "[default: follow the pixels; an existing folder keeps its value]")]
FileNames = Annotated[Names, Opt(**_LABELS, group=FILES, rare=True,
    help="stem: the mask of a.jpg is a.png; full: it is a.jpg.png, for folders that have both a.jpg and a.png.")]
ValFraction = Annotated[float | None, Opt(**_FILES, blocks=False, metavar="0..1", group=FILES, rare=True, min=0, below=1,
    hint="Write 0.2 for a fifth of the images.",
    help="Fraction of images for the validation split in yolo formats or a data set (deterministic).  "
        "[default: 0; an existing folder keeps its value]")]
FormatOptions = Annotated[Mapping[str, object] | Sequence[str] | None, Opt(**_FILES, typed=list[str], metavar="OPTION",
    short="x", group=FILES, rare=True, check=_format_options,
    help="Set an option of a format that another package brings: FORMAT.NAME=VALUE. May be repeated.  "
        "[default: an existing folder keeps its values]")]

Jobs = Annotated[int | None, Opt(metavar="N", group=IMAGES, rare=True, min=1, role="machine",
    help="Threads for decoding, labelling and writing files.  [default: one per core, up to 32]")]
MaxPixels = Annotated[int, Opt(metavar="N", group=IMAGES, rare=True, min=1, role="machine", recorded=COMMAND,
    help="Reject images with more pixels, to protect against decompression bombs.")]

ModelName = Annotated[str | Path, Opt(metavar="ID|DIR", typed=str, short="m", group=MODEL, choices="models", check=_model_id,
    role="labels", recorded=COMMAND,
    help="Model id (l14, b14, so400m14, g14, tiny), or a folder in the Hugging Face layout.")]
Device = Annotated[str | int, Opt(metavar="DEVICE", group=MODEL, choices=("auto", "cpu", "cuda", "mps"),
    check=device_name, role="machine", recorded="asked",
    help="auto (the first available of cuda, mps and cpu), cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, Opt(metavar="DTYPE", group=MODEL, choices=DTYPE_NAMES, check=dtype_name, role="labels", recorded="asked",
    help=f"{', '.join(DTYPE_NAMES)}. On CPUs with AMX or AVX512_BF16, auto means bfloat16, except for tiny; "
        "on other CPUs, int8 is the fastest.")]
BatchSize = Annotated[int | None, Opt(metavar="N", group=MODEL, rare=True, min=1, role="machine", recorded="asked",
    help="Windows per batch on a GPU; a CPU processes one at a time.  [default: 8; 2 on a Mac]")]
UseCache = Annotated[bool, Opt(role="library",
    help="Cache text vectors and file hashes in the user cache folder, as commands do.")]
Features = Annotated[str | Path | None, Opt(metavar="DIR", group=MODEL, role="place", recorded="features.folder", blocks=False,
    help="Reuse the features in this folder, and add missing ones; see tipsseg encode.")]

Output = Annotated[str | Path, Opt(metavar="DIR", short="o", group=FILES, role="place", recorded=COMMAND,
    help="Output folder.")]
Formats = Annotated[Sequence[str] | None, Opt(typed=list[str], commas=True, metavar="NAMES", flag="format", short="f",
    group=FILES, choices="formats", role="files", recorded="formats", check=format_names,
    help=f"One or more, separated by commas: {{choices}}.  [default: {','.join(DEFAULT_FORMATS)}; an existing folder keeps "
        "its formats]")]
Overwrite = Annotated[bool, Opt(group=FILES, role="action",
    help="Start over: remove the files of earlier runs from the output folder, except edited files such as corrected masks.")]
Prune = Annotated[int | None, Opt(metavar="N", group=IMAGES, rare=True, min=1, role="action",
    help="Remove the labels of N images that are missing from the input; a run without this option prints N.")]
ReplaceEdited = Annotated[bool, Opt(group=FILES, rare=True, role="action",
    help="Also label images again whose files were edited by hand, and overwrite the edits.")]
ShardOfRun = Annotated[str | Shard | None, Opt(metavar="I/N|auto", group=MACHINES, rare=True, check=parse_shard,
    role="images",
    help="Label only part I of N parts, for several processes or machines, also into one folder. auto reads it from Slurm, "
        "SkyPilot, torchrun or Open MPI.")]

Regions = Annotated[str | Path | None, Opt(metavar="DIR|FILE", group=WHAT, role="labels", recorded="regions.source", blocks=False,
    help="Assign one class to each existing mask, such as SAM's (PNG, JSON, COCO).")]
RegionsOnly = Annotated[bool, Opt(group=WHAT, rare=True, role="labels", recorded="regions.only",
    help="Make pixels outside all masks background.  [default: label these pixels by class]")]
RegionsMargin = Annotated[float, Opt(metavar="PIXELS", group=WHAT, rare=True, min=0, max=100,
    hint="Write a distance in pixels; 1.5 or 3 are usual.", role="labels", recorded="regions.margin", blocks=False,
    help="Take the refined label within this distance of the edges of masks, if the edges are off by some pixels.")]
Present = Annotated[str | Path | None, Opt(metavar="folders|FILE", group=WHAT, role="labels", recorded="present.source",
    blocks=False,
    help="Restrict each image to its own classes, from its folder name (folders), or from a CSV or JSONL file with "
        "columns image and names or caption.")]

Onto = Annotated[str | Path | None, Opt(metavar="DIR|FILE", group=WHAT, role="labels", recorded="onto.source", blocks=False,
    help="Keep these existing labels, and label only unlabelled pixels.")]

Bands = Annotated[Sequence[int] | str | None, Opt(metavar="N,N,N", group=RASTERS, rare=True, check=_band_numbers,
    role="labels", recorded="options",
    help="Red, green and blue band, or one grey band, counted from 1.  [default: the first three, or the first]")]
GroundResolution = Annotated[float | None, Opt(metavar="LENGTH", group=RASTERS, rare=True, above=0, max=1e9,
    role="labels", recorded="options", hint="For example: 0.5.",
    help="Pixel size of the labels, in units of the coordinate system.  [default: the raster's full resolution]")]

Store = Annotated[str | Path, Opt(metavar="DIR", short="o", group=FILES,
    help="Feature folder.")]
StoreDtype = Annotated[FeatureDtype | None, Opt(group=MODEL,
    help="Dtype of stored features: float32 gives the same labels as running the model, float16 takes half the disk space, "
        "int8 a quarter.  [default: float16; an existing folder keeps its value]")]
ShardOfStore = Annotated[str | Shard | None, Opt(metavar="I/N|auto", group=MACHINES, rare=True, check=parse_shard,
    help="Encode only part I of N parts, for several processes or machines; auto reads the part as tipsseg label does.")]

Sample = Annotated[int | None, Opt(metavar="N", group=IMAGES, min=1, role="images", recorded=COMMAND,
    help="Process a random subset of N images, with a fixed seed.")]
EveryFrame = Annotated[str | int | Every | None, Opt(blocks=False, metavar="N|SECONDS", group=IMAGES, rare=True,
    check=parse_every, role="images", recorded=COMMAND,
    help="Video sampling: 10 (every tenth frame) or 1s (one frame per second).")]

Ray = Annotated[str | None, Opt(metavar="auto|ADDRESS", group=MACHINES, rare=True, check=_ray_address,
    role="machine",
    help="Label on the Ray cluster at ADDRESS; auto uses a running cluster, or starts one on this machine. "
        "Requires pip install 'tipsseg[ray]'.")]

Layout = Annotated[str | None, Opt(metavar="NAME", group=TRUTH, choices=LAYOUT_NAMES, role="sources",
    help=f"Read the masks in a benchmark's layout (file names, ids and classes): {', '.join(LAYOUT_NAMES)}.")]
IgnoreIndex = Annotated[int | None, Opt(metavar="ID", group=TRUTH, role="sources",
    help="Ground-truth id to ignore.  [default: 255, or 65535 with more than 254 classes]")]
ReduceZeroLabel = Annotated[bool, Opt(group=TRUTH, rare=True, role="sources",
    help="Ignore ground-truth id 0, instead of scoring it as background.")]
ZeroBased = Annotated[bool, Opt(group=TRUTH, rare=True, role="sources",
    help="Treat ground-truth id 0 as the first class, not as background.")]

ShardSize = Annotated[int | str | ByteSize, Opt(metavar="SIZE", group=FILES, rare=True, check=parse_size,
    help="With {to}, start a new shard above this size of its pictures and masks, such as 2GB.")]
OverwriteDataset = Annotated[bool, Opt(group=FILES, rare=True,
    help="With {to}, remove an earlier data set there. Other files in the place are an error.")]

SourceFormat = Annotated[str | None, Opt(metavar="NAME", flag="format", short="f", choices="corrections",
    help="Format of the corrections: {choices}.  [default: detected]")]
AddClasses = Annotated[bool, Opt(
    help="Add classes that are missing from the run.")]
ReplaceCorrected = Annotated[bool, Opt(
    help="Also replace labels that changed since SOURCE was written. The replaced masks go to OUT/replaced.")]
Accept = Annotated[bool, Opt(
    help="A person looked at all images of SOURCE: unchanged labels count as right, and images without objects lose theirs.")]
CorrectedImages = Annotated[str | Path | None, Opt(metavar="DIR",
    help="The folder of the images, if it was moved: overlays show the images.  [default: the recorded folder]")]
CheckOnly = Annotated[bool, Opt(
    help="Check the corrections and list the changes; write nothing.")]
# fmt: on
