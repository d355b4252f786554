"""The options that several verbs have, each declared once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.address import as_address
from tipsseg.ask import Opt
from tipsseg.options import FileOptions, LabelOptions, MinArea, Refinement
from tipsseg.options import Instances as _Instances
from tipsseg.options import Mode as _Mode
from tipsseg.options import Names as _Names
from tipsseg.options.fields import IMAGES, WHAT, options_of
from tipsseg.options.run import ComputeOptions, ImageOptions, TruthOptions
from tipsseg.options.values import Every

if TYPE_CHECKING:
    from tipsseg.images.finding import Listed, Paths
    from tipsseg.vocabulary.fitted import Classes

_RECORDS = (FileOptions, LabelOptions, ComputeOptions, ImageOptions, TruthOptions)
_KNOWN = {name: about for record in _RECORDS for name, (_, about) in options_of(record).items()}

#: Images, folders of images, or a list of them.
Inputs = Annotated[
    "Paths | Listed",
    Opt(
        argument=True,
        metavar="PATHS",
        typed=list[str],
        check=lambda images: images,
        stdin="paths",
        help="Images, folders (searched recursively), or - for a list on stdin.",
    ),
]
#: An output folder of `tipsseg label`.
Labelled = Annotated[str | Path, Opt(argument=True, metavar="OUT", help="The output folder of tipsseg label.")]
#: Where the images are.
Moved = Annotated[
    str | Path | None, Opt(metavar="DIR", check=as_address, help="Folder of the images, if they have moved.")
]
Chosen = Annotated[
    Iterable[str | Path] | None,
    Opt(
        metavar="FILE",
        group=IMAGES,
        check=tuple,
        typed=Path,
        stdin="list",
        help="Use only the images listed in this file, one path per line, or - for stdin.",
    ),
]
DryRun = Annotated[bool, Opt(group=IMAGES, help="List the images with their number and sizes; write nothing.")]
Sample = Annotated[int | None, _KNOWN["sample"]]
EveryFrame = Annotated[str | int | Every | None, _KNOWN["every"]]

# What to label.
Named = Annotated[
    "Classes | None",
    Opt(
        metavar="NAMES",
        short="c",
        group=WHAT,
        typed=list[str],
        check=lambda classes: classes,
        help='What to label: "panda/head,tree"; a slash separates a whole from its part. If a name contains a comma, pass -c '
        "once per name.",
    ),
]
Vocab = Annotated[
    str | Path | None,
    Opt(
        metavar="FILE|PRESET",
        group=WHAT,
        choices="presets",
        typed=str,
        check=lambda source: source,
        help="A vocabulary file (.toml, text with one class per line, or .fit from tipsseg fit) or a preset (tipsseg vocab list).",
    ),
]
Background = Annotated[
    str | Sequence[str] | None,
    Opt(
        metavar="NAMES",
        group=WHAT,
        choices=("auto", "none"),
        typed=str,
        check=lambda phrases: phrases,
        help='Background phrases, written as 0: auto (a general list), none, or your own: "sky,wall".  '
        "[default: the vocabulary's, or auto]",
    ),
]

# How the model sees and labels images.
Mode = Annotated[_Mode, _KNOWN["mode"]]
ShortSide = Annotated[int | None, _KNOWN["short_side"]]
Stretch = Annotated[Sequence[float] | str | None, _KNOWN["stretch"]]
Scales = Annotated[Iterable[float] | float | str, _KNOWN["scales"]]
MinConfidence = Annotated[float, _KNOWN["min_confidence"]]
Refine = Annotated[Refinement, _KNOWN["refine"]]

# The machine.
ModelName = Annotated[str | Path, _KNOWN["model"]]
Device = Annotated[str | int, _KNOWN["device"]]
Dtype = Annotated[str, _KNOWN["dtype"]]
BatchSize = Annotated[int | None, _KNOWN["batch_size"]]
Features = Annotated[str | Path | None, _KNOWN["features"]]
UseCache = Annotated[bool, _KNOWN["use_cache"]]
Jobs = Annotated[int | None, _KNOWN["jobs"]]
MaxPixels = Annotated[int, _KNOWN["max_pixels"]]

# Label files.
Instances = Annotated[_Instances | None, _KNOWN["instances"]]
MinAreaOption = Annotated[int | str | MinArea | None, _KNOWN["min_area"]]
Simplify = Annotated[float | None, _KNOWN["simplify"]]
Names = Annotated[_Names, _KNOWN["names"]]
ValFraction = Annotated[float | None, _KNOWN["val_fraction"]]

# Ground-truth masks: their names and ids.
Layout = Annotated[str | None, _KNOWN["layout"]]
IgnoreIndex = Annotated[int | None, _KNOWN["ignore_index"]]
ReduceZeroLabel = Annotated[bool, _KNOWN["reduce_zero_label"]]
ZeroBased = Annotated[bool, _KNOWN["zero_based"]]
