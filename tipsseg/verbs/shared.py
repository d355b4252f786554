"""The options that several verbs have, each declared once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from tipsseg.address import as_address
from tipsseg.ask import Opt
from tipsseg.options.fields import IMAGES, options_of
from tipsseg.options.run import ReadingOptions, TruthOptions

_KNOWN = {name: about for record in (ReadingOptions, TruthOptions) for name, (_, about) in options_of(record).items()}

#: An output folder of `tipsseg label`.
Labelled = Annotated[str | Path, Opt(argument=True, metavar="OUT", help="The output folder of tipsseg label.")]
#: Where the images are.
Moved = Annotated[
    str | Path | None, Opt(metavar="DIR", check=as_address, help="Folder of the images, if they have moved.")
]
Jobs = Annotated[int | None, _KNOWN["jobs"]]
MaxPixels = Annotated[int, _KNOWN["max_pixels"]]
Chosen = Annotated[
    Iterable[str | Path] | None,
    Opt(
        metavar="FILE",
        group=IMAGES,
        check=tuple,
        typed=Path,
        help="Use only the images listed in this file, one path per line, or - for stdin.",
    ),
]

# Ground-truth masks: their names and ids.
Layout = Annotated[str | None, _KNOWN["layout"]]
IgnoreIndex = Annotated[int | None, _KNOWN["ignore_index"]]
ReduceZeroLabel = Annotated[bool, _KNOWN["reduce_zero_label"]]
ZeroBased = Annotated[bool, _KNOWN["zero_based"]]
