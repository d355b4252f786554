"""`tipsseg correct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.help import Command, one_of
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.options import MAX_PIXELS, check_whole_number

_FORMATS = ("png", "cvat", "hf", "coco", "labelme", "label-studio", "yolo")

EPILOG = """\b
Examples:
  tipsseg correct labels/ --from task-17.zip                 what CVAT exported
  tipsseg correct labels/ --from labels/labelme/             edited in place with LabelMe
  tipsseg correct better/ --from labels/                     what a person changed in another run
  tipsseg correct labels/ --from export.json --dry-run       what would change

\b
Images are found by the ends of their paths, classes by their name. All is taken, or nothing.
The masks count as changed by hand: every later command keeps them. Paths of corrected masks go to
stdout, all else to stderr. Exit code: 0 all taken, 1 an error, 2 wrong usage.
"""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=Command, epilog=EPILOG, no_args_is_help=True)
def correct(
    output: opt.Folder,
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="SOURCE",
            parser=opt.path_of("--from"),
            help="The file, the folder or the zip with the corrected labels.",
        ),
    ],
    source_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            autocompletion=one_of(*_FORMATS),
            help=f"The format of the corrections: {', '.join(_FORMATS)}.  [default: recognised]",
        ),
    ] = None,
    add_classes: Annotated[
        bool, typer.Option("--add-classes", help="A class that the run does not have becomes a further class.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Of a folder of tipsseg: take all labels, not only those that a person changed."),
    ] = False,
    replace_edited: Annotated[
        bool,
        typer.Option("--replace-edited", help="Replace masks too that a person changed in their place."),
    ] = False,
    emptied: Annotated[
        bool | None,
        typer.Option(
            "--emptied/--no-emptied",
            help="Empty the masks of images without objects, or leave them, if SOURCE does not tell whether a person saw "
            "the image.  [default: refused]",
            show_default=False,
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Take objects too that differ at their edges only, as tools round corners and fill holes."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all, say what would change, and write nothing.")
    ] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="A JSON object for each corrected mask on stdout, in place of its path.")
    ] = False,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    null: opt.NullResults = False,
    quiet: opt.Quiet = False,
) -> None:
    """Take corrected labels from CVAT, LabelMe, Label Studio and others back into an output folder."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.correct.folder import take_corrections

    if jsonl and null:
        raise UsageError("--jsonl and --null exclude each other", "Lines of JSON need no NUL.")
    check_whole_number("argument `max_pixels`", max_pixels)
    silence_decoders()
    with Progress(quiet, null=null, wording=as_typed) as progress:
        take_corrections(
            output,
            source,
            progress,
            source_format=source_format,
            add_classes=add_classes,
            everything=everything,
            replace_edited=replace_edited,
            emptied=emptied,
            exact=exact,
            dry_run=dry_run,
            jsonl=jsonl,
            max_pixels=max_pixels,
        )
