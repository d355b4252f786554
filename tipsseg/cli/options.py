"""The options that several commands have, each stated once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from tipsseg.cli.help import (
    FILES,
    IMAGES,
    MODEL,
    TRUTH,
    WHAT,
    complete_formats,
    complete_models,
    complete_presets,
    one_of,
)
from tipsseg.errors import UsageError
from tipsseg.formats import FORMATS
from tipsseg.options import (
    DEFAULT_FORMATS,
    DTYPE_NAMES,
    FEATURE_DTYPES,
    INSTANCES,
    MODES,
    NAMES,
    PNG_MODES,
    REFINEMENTS,
)

FORMAT_HELP = f"One or more, with commas: {', '.join(FORMATS)}."

#: What to do about a path that is empty.
EMPTY_PATH = "Is it of a variable that is not set? The current folder is . (a dot)."


def path_of(option: str) -> Callable[[str | Path], Path]:
    """What makes a path of the value of an option or argument; it raises UsageError where that is empty."""

    def parse(value: str | Path) -> Path:
        if isinstance(value, str) and not value:
            # pathlib takes it for the current folder.
            raise UsageError(f"the path of {option} is empty", EMPTY_PATH)
        return Path(value)

    return parse


def output_option(text: str, *, eager: bool = False, panel: str | None = None) -> OptionInfo:
    """The option -o of a command; `text` is its help."""
    found: OptionInfo = typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        parser=path_of("--output"),
        is_eager=eager,
        rich_help_panel=panel,
        help=text,
    )
    return found


def format_option(text: str, *, panel: str | None = None) -> OptionInfo:
    """The option -f of a command; `text` is its help."""
    found: OptionInfo = typer.Option(
        "--format", "-f", metavar="NAMES", rich_help_panel=panel, autocompletion=complete_formats, help=text
    )
    return found


Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--classes",
        "-c",
        metavar="NAMES",
        is_eager=True,
        rich_help_panel=WHAT,
        help='What to label: "panda leg,tree". A name with a comma: repeat -c, once for each name.',
    ),
]
Vocab = Annotated[
    str | None,
    typer.Option(
        "--vocab",
        "-v",
        metavar="FILE|PRESET",
        is_eager=True,
        rich_help_panel=WHAT,
        autocompletion=complete_presets,
        help="A vocabulary file (.toml, text with one class a line, or .fit of tipsseg fit), or a preset: tipsseg vocab list.",
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        is_eager=True,
        rich_help_panel=WHAT,
        autocompletion=one_of("protocol", "plain"),
        help="Prompt templates: protocol, plain, or a file with one a line.  [default: the vocabulary's, or protocol]",
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        is_eager=True,
        rich_help_panel=WHAT,
        autocompletion=one_of("auto", "none"),
        help='Phrases that compete and are written as 0: auto (general stuff), none, or a list such as "sky,wall".  '
        "[default: the vocabulary's, or auto]",
    ),
]
MinConfidence = Annotated[
    float,
    typer.Option(
        metavar="0..1", rich_help_panel=WHAT, help="Pixels below this confidence are written as 255, ignored."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="ID|DIR",
        rich_help_panel=MODEL,
        autocompletion=complete_models,
        help="l14, b14, so400m14, g14, tiny, or a folder in the hub layout.",
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        metavar="|".join(MODES),
        rich_help_panel=MODEL,
        autocompletion=one_of(*MODES),
        help=f"{MODES[0]}: overlapping windows; {MODES[1]}: the image at once.",
    ),
]
ShortSide = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        rich_help_panel=MODEL,
        help="Resize the shorter side to this many pixels.  [default: the model's own size]",
    ),
]
Scales = Annotated[
    str,
    typer.Option(
        metavar="FACTORS",
        rich_help_panel=MODEL,
        help='See images at several short sides, such as "1,2": better labels, small parts above all, for more time.',
    ),
]
Refine = Annotated[
    str,
    typer.Option(
        metavar="|".join(REFINEMENTS),
        rich_help_panel=MODEL,
        autocompletion=one_of(*REFINEMENTS),
        help="Let edges follow the image's colours.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        rich_help_panel=MODEL,
        autocompletion=one_of("auto", "cpu", "cuda", "mps"),
        help="auto (cuda, then mps, then cpu), cpu, cuda, cuda:N, mps.",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="DTYPE",
        rich_help_panel=MODEL,
        autocompletion=one_of(*DTYPE_NAMES),
        help=f"{', '.join(DTYPE_NAMES)}. On a CPU, auto is bfloat16 if that is faster by a quarter (measured once), else float32.",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(metavar="N", rich_help_panel=MODEL, help="Windows that a GPU takes at once; a CPU takes one."),
]
Format = Annotated[
    list[str] | None,
    format_option(f"{FORMAT_HELP}  [default: {','.join(DEFAULT_FORMATS)}]", panel=FILES),
]
Instances = Annotated[
    str,
    typer.Option(
        metavar="|".join(INSTANCES),
        rich_help_panel=FILES,
        autocompletion=one_of(*INSTANCES),
        help="What formats that list objects take for one: component (a connected region), class (all of a class).",
    ),
]
MinArea = Annotated[
    str,
    typer.Option(
        metavar="AREA",
        rich_help_panel=FILES,
        help='Smaller objects are left out of formats that list objects: pixels, or percent of the image such as "0.1%".',
    ),
]
Simplify = Annotated[
    float | None,
    typer.Option(
        metavar="PIXELS",
        rich_help_panel=FILES,
        help="Polygons with fewer corners, to be edited by hand: up to this far off.  [default: they keep to their pixels]",
    ),
]
ValFraction = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        rich_help_panel=FILES,
        help="YOLO: this share of the images (0 to 1) for validation, chosen by their names.  "
        "[default: as in the folder, or 0]",
    ),
]
Names = Annotated[
    str,
    typer.Option(
        metavar="|".join(NAMES),
        rich_help_panel=FILES,
        autocompletion=one_of(*NAMES),
        help="Names of the files of an image a.jpg: stem, as in a.png; full, as in a.jpg.png, where a.png is an image too.",
    ),
]
PngMode = Annotated[
    str,
    typer.Option(
        metavar="|".join(PNG_MODES),
        rich_help_panel=FILES,
        autocompletion=one_of(*PNG_MODES),
        help="Masks as grey values (L), or with a palette (P) for tools that want it.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=IMAGES,
        help="Threads that decode images, and make labels and files.  [default: one per core, up to 32]",
    ),
]
Threads = Annotated[int | None, typer.Option("--jobs", metavar="N", help="Threads.  [default: one per core, up to 32]")]
MaxPixels = Annotated[
    int,
    typer.Option(
        metavar="N",
        rich_help_panel=IMAGES,
        help="Larger images are refused, as they may be meant to fill the memory.",
    ),
]
_LAYOUT_NAMES = "ade20k, cityscapes, coco-stuff, pascal-context-59, pascal-context-60, voc20, voc21"

TruthLayout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        rich_help_panel=TRUTH,
        autocompletion=one_of(*_LAYOUT_NAMES.split(", ")),
        help=f"Names and ids as a benchmark has them, and its classes: {_LAYOUT_NAMES}.",
    ),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(
        metavar="ID",
        rich_help_panel=TRUTH,
        help="Truth id of pixels that do not count.  [default: 255; above 254 classes 65535]",
    ),
]
ReduceZeroLabel = Annotated[
    bool,
    typer.Option(
        "--reduce-zero-label",
        rich_help_panel=TRUTH,
        help="Truth id 0 does not count, rather than being background.",
    ),
]
ZeroBased = Annotated[
    bool,
    typer.Option("--zero-based", rich_help_panel=TRUTH, help="Truth id 0 is the first class; there is no background."),
]
Features = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=path_of("--features"),
        rich_help_panel=MODEL,
        help="Take the features of images from this folder, and add the missing ones; see tipsseg encode.",
    ),
]
FeatureKept = Annotated[
    str | None,
    typer.Option(
        "--feature-dtype",
        metavar="|".join(FEATURE_DTYPES),
        rich_help_panel=MODEL,
        autocompletion=one_of(*FEATURE_DTYPES),
        help="What features are kept in: float32 gives the same labels as no --features, float16 takes half the disk and int8 a "
        "quarter.  [default: as in the folder, or float16]",
    ),
]
Limit = Annotated[int | None, typer.Option(metavar="N", rich_help_panel=IMAGES, help="Only the first N images.")]
Sample = Annotated[
    int | None,
    typer.Option(metavar="N", rich_help_panel=IMAGES, help="Only N images, drawn at random, always the same."),
]
Null = Annotated[
    bool,
    typer.Option("--null", "-0", rich_help_panel=IMAGES, help="The list on stdin is separated by NUL, not lines."),
]
NullResults = Annotated[
    bool,
    typer.Option("--null", "-0", help="Paths on stdout end with NUL, not lines: names may have line ends in them."),
]
NullBoth = Annotated[
    bool,
    typer.Option(
        "--null",
        "-0",
        rich_help_panel=IMAGES,
        help="A list on stdin is separated by NUL, not lines; so are the paths on stdout.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", parser=path_of("--images"), help="Where the images are now.  [default: where they were]"
    ),
]
KeptFeatures = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="DIR",
        parser=path_of("--features"),
        help="Tell by the features of images in this folder which are alike; see tipsseg encode.",
    ),
]
Only = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=path_of("--only"),
        rich_help_panel=IMAGES,
        help="Only these images: a file with a path a line, or - for such a list on stdin.",
    ),
]
Folder = Annotated[
    Path, typer.Argument(metavar="OUT", parser=path_of("the folder"), help="The output folder of tipsseg label.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
