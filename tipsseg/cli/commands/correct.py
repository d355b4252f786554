"""`tipsseg correct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.options.fields import Option
from tipsseg.options.run import ComputeOptions, CorrectOptions

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


@command(app, EPILOG)
def correct(
    output: opt.Folder,
    options: CorrectOptions,
    compute: Annotated[ComputeOptions, Only("max_pixels")],
    source: Annotated[
        Path,
        Option(help="The file, the folder or the zip with the corrected labels.", flag="from", metavar="SOURCE"),
    ],
    jsonl: Annotated[
        bool, Option(help="A JSON object for each corrected mask on stdout, in place of its path.")
    ] = False,
    null: opt.NullResults = False,
    quiet: opt.Quiet = False,
) -> None:
    """Take corrected labels from CVAT, LabelMe, Label Studio and others back into an output folder."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.correct.folder import take_corrections

    if jsonl and null:
        raise UsageError("--jsonl and --null exclude each other", "Lines of JSON need no NUL.")
    silence_decoders()
    with Progress(quiet, null=null, wording=as_typed) as progress:
        take_corrections(output, source, progress, options, jsonl=jsonl, max_pixels=compute.max_pixels)
