"""Options that several commands share but the library lacks: the question, lists on stdin, printing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli.parameters import path_of
from tipsseg.cli.wording import prints_paths
from tipsseg.errors import UsageError
from tipsseg.options.fields import IMAGES, OTHER, WHAT, option

QUIET_HELP = "Do not print progress and notes."
IMAGES_HELP = "Folder of the images, if they have moved."
NULL_RESULTS_HELP = "End paths on stdout with NUL instead of a newline."
NULL_HELP = "Separate paths with NUL instead of newlines, on stdin and stdout."


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Classes and background as the user types them; `values.parse_question` parses them."""

    # fmt: off
    classes: list[str] | None = option(None, metavar="NAMES", short="c", group=WHAT,
        help='What to label: "panda/head,tree"; a slash separates a whole from its part. If a name contains a comma, pass -c '
        "once per name.")
    vocab: str | None = option(None, metavar="FILE|PRESET", group=WHAT, choices="presets",
        help="A vocabulary file (.toml, text with one class per line, or .fit from tipsseg fit) or a preset (tipsseg vocab list).")
    background: str | None = option(None, metavar="NAMES", group=WHAT, choices=("auto", "none"),
        help='Background phrases, written as 0: auto (a general list), none, or your own: "sky,wall".  '
        "[default: the vocabulary's, or auto]")
    # fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Printing:
    # fmt: off
    dry_run: bool = option(False, group=IMAGES,
        help="List the images with their number and sizes; write nothing.")
    jsonl: bool = option(False, group=OTHER, help="Print one JSON object per image on stdout, instead of paths.")
    null: bool = option(False, short="0", group=OTHER, rare=True, help=NULL_HELP)
    quiet: bool = option(False, short="q", group=OTHER, help=QUIET_HELP)
    # fmt: on

    @property
    def paths(self) -> bool:
        """Return True if paths of written files go to stdout."""
        return not self.jsonl and prints_paths(self.null)

    def check(self, paths: Sequence[str], what: str) -> None:
        """Raise UsageError if two options print different things to stdout; `what` names the content of --jsonl records."""
        if self.null and self.jsonl and tuple(paths) != ("-",):
            raise UsageError("-0 separates paths, but --jsonl prints no paths", "Remove -0.")
        if self.dry_run and self.jsonl:
            raise UsageError(f"--dry-run prints paths, but --jsonl prints records of {what}", "Use one of them.")


PathArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATHS", help="Images, folders (searched recursively), or - for a list on stdin.", show_default=False
    ),
]
Folder = Annotated[
    Path, typer.Argument(metavar="OUT", parser=path_of("the folder"), help="The output folder of tipsseg label.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    images: Path | None = option(None, metavar="DIR", help=IMAGES_HELP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    # fmt: off
    only: Path | None = option(None, metavar="FILE", group=IMAGES,
        help="Use only the images listed in this file, one path per line, or - for stdin.")
    null: bool = option(False, short="0", group=OTHER, rare=True, help=NULL_HELP)
    # fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    null: bool = option(False, short="0", help=NULL_RESULTS_HELP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    quiet: bool = option(False, short="q", help=QUIET_HELP)
