"""The options that several verbs have, each declared once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from tipsseg.ask import Opt
from tipsseg.options.fields import IMAGES, options_of
from tipsseg.options.run import ReadingOptions

_READING = {name: about for name, (_, about) in options_of(ReadingOptions).items()}

#: An output folder of `tipsseg label`.
Labelled = Annotated[str | Path, Opt(argument=True, metavar="OUT", help="The output folder of tipsseg label.")]
#: Where the images are.
Moved = Annotated[str | Path | None, Opt(metavar="DIR", help="Folder of the images, if they have moved.")]
Jobs = Annotated[int | None, _READING["jobs"]]
MaxPixels = Annotated[int, _READING["max_pixels"]]
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
