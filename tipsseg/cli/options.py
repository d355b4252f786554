"""The options that several commands have and the library does not: lists on stdin, what is printed, what to label by files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli.parameters import Without, path_of
from tipsseg.errors import UsageError
from tipsseg.options import split_names
from tipsseg.options.fields import FILES, IMAGES, OTHER, WHAT, Option, option

FORMAT_HELP = "One or more, with commas: {formats}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to label, as it is typed; `values.parse_question` reads it."""

    # fmt: off
    classes: list[str] | None = option(None, metavar="NAMES", short="c", group=WHAT,
        help='What to label: "panda leg,tree". A name with a comma: repeat -c, once for each name.')
    vocab: str | None = option(None, metavar="FILE|PRESET", group=WHAT, choices="presets",
        help="A vocabulary file (.toml, text with one class a line, or .fit of tipsseg fit), or a preset: tipsseg vocab list.")
    background: str | None = option(None, metavar="NAMES", group=WHAT, choices=("auto", "none"),
        help='Phrases that compete and are written as 0: auto (general stuff), none, or a list such as "sky,wall".  '
        "[default: the vocabulary's, or auto]")
    templates: str | None = option(None, metavar="NAME|FILE", group=WHAT, choices=("protocol", "plain"), rare=True,
        help="Prompt templates: protocol, plain, or a file with one a line.  [default: the vocabulary's, or protocol]")
    # fmt: on


#: The question of a command that labels: templates stand in a vocabulary file.
Asked = Annotated[Question, Without("templates")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Printing:
    """What a run over images prints."""

    # fmt: off
    dry_run: bool = option(False, group=IMAGES,
        help="Print the images that are to do, estimate what they take, and write nothing.")
    jsonl: bool = option(False, group=IMAGES, help="Print one JSON object per image on stdout, in place of paths.")
    null: bool = option(False, short="0", group=IMAGES, rare=True,
        help="A list on stdin is separated by NUL, not lines; so are the paths on stdout.")
    quiet: bool = option(False, short="q", group=OTHER, help="No progress and no notes on stderr.")
    # fmt: on

    def check(self, paths: Sequence[str], what: str) -> None:
        """Raise UsageError for two things on stdout; a line of JSON is a record of `what`."""
        if self.null and self.jsonl and tuple(paths) != ("-",):
            raise UsageError("-0 separates paths, and --jsonl prints none", "Leave out -0.")
        if self.dry_run and self.jsonl:
            raise UsageError(f"--dry-run prints paths, and --jsonl records of {what}", "Give one of them.")


Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATHS", help="Images, folders (searched recursively), or - for a list on stdin.", show_default=False
    ),
]
Folder = Annotated[
    Path, typer.Argument(metavar="OUT", parser=path_of("the folder"), help="The output folder of tipsseg label.")
]
Null = Annotated[
    bool,
    Option(
        help="A list on stdin is separated by NUL, not lines; so are the paths on stdout.",
        flag="null",
        short="0",
        group=IMAGES,
        rare=True,
    ),
]
NullResults = Annotated[
    bool,
    Option(help="Paths on stdout end with NUL, not lines: names may have line ends in them.", flag="null", short="0"),
]
Images = Annotated[Path | None, Option(help="Where the images are now.  [default: where they were]", metavar="DIR")]
KeptFeatures = Annotated[
    Path | None,
    Option(
        help="Tell by the features of images in this folder which are alike; see tipsseg encode.",
        flag="features",
        metavar="DIR",
    ),
]
Only = Annotated[
    Path | None,
    Option(
        help="Only these images: a file with a path a line, or - for such a list on stdin.",
        metavar="FILE",
        group=IMAGES,
    ),
]
Quiet = Annotated[bool, Option(help="No progress and no notes on stderr.", flag="quiet", short="q", group=OTHER)]


def output_option(help: str) -> Option:  # noqa: A002  the word of the command line
    return Option(help=help, flag="output", short="o", metavar="DIR", group=FILES)


def format_option(help: str, group: str = FILES) -> Option:  # noqa: A002  the word of the command line
    return Option(
        help=help, flag="format", short="f", metavar="NAMES", group=group, choices="formats", read=split_names
    )
