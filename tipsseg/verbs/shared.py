"""The options that several verbs have, each declared once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.address import as_address
from tipsseg.options.fields import COMMAND, IMAGES, WHAT, Opt

if TYPE_CHECKING:
    from tipsseg.images.finding import Listed, Paths
    from tipsseg.vocabulary.fitted import Classes

#: Images, folders of images, or a list of them.
Inputs = Annotated[
    "Paths | Listed",
    Opt(
        argument=True,
        recorded=COMMAND,
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

# What to label.
Named = Annotated[
    "Classes | None",
    Opt(
        recorded=COMMAND,
        metavar="NAMES",
        short="c",
        group=WHAT,
        typed=list[str],
        commas=True,
        check=lambda classes: classes,
        help='What to label: "panda/head,tree"; a slash separates a whole from its part. If a name contains a comma, pass -c '
        "once per name.",
    ),
]
Vocab = Annotated[
    str | Path | None,
    Opt(
        recorded=COMMAND,
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
        recorded=COMMAND,
        metavar="NAMES",
        group=WHAT,
        choices=("auto", "none"),
        typed=str,
        check=lambda phrases: phrases,
        help='Background phrases, written as 0: auto (a general list), none, or your own: "sky,wall".  '
        "[default: the vocabulary's, or auto]",
    ),
]
