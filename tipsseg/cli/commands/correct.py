"""The `tipsseg correct` command: import corrected labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import open_progress
from tipsseg.errors import UsageError
from tipsseg.options.fields import Option
from tipsseg.options.run import ComputeOptions, CorrectOptions

EPILOG = """\b
Examples:
  tipsseg correct labels/ --from task-17.zip         a CVAT export
  tipsseg correct labels/ --from labels/labelme/     edited in LabelMe
  tipsseg correct better/ --from labels/             edited masks of a run
  tipsseg correct labels/ --from export.json --dry-run

\b
Matches images by the trailing part of their paths, and classes by name. Imports all
corrections or none. Corrected masks are kept by later commands, and all
other files of their images follow them. Paths of masks go to stdout, everything else to stderr.
Exit code: 0 success, 1 error, 2 usage error.
"""


@command(EPILOG)
def correct(
    output: opt.Folder,
    options: CorrectOptions,
    compute: Annotated[ComputeOptions, Only("max_pixels")],
    source: Annotated[
        Path | None,
        Option(help="File, folder or zip archive with the corrected labels.", flag="from", metavar="SOURCE"),
    ] = None,
    undo: Annotated[
        list[str] | None,
        Option(
            help="Let the next run label this image again; its mask stays until then. Repeat for more.", metavar="IMAGE"
        ),
    ] = None,
    jsonl: Annotated[
        bool, Option(help="Print one JSON object per corrected mask on stdout, instead of its path.")
    ] = False,
    null: opt.NullResults = False,
    quiet: opt.Quiet = False,
) -> int:
    """Import corrected labels from CVAT, LabelMe, Label Studio and others into an output folder."""
    from tipsseg.commands.correct.run import take_corrections, undo_corrections

    if jsonl and null:
        raise UsageError("--jsonl and --null exclude each other", "Remove --null; JSON lines need no NUL.")
    if source is not None and undo is not None:
        raise UsageError("--from and --undo exclude each other", "Run one after the other.")
    with open_progress(quiet, null=null) as progress:
        if undo is not None:
            undo_corrections(output, [Path(image) for image in undo], progress, dry_run=options.dry_run)
            return 0
        if source is None:
            raise UsageError("nothing to import", "Name corrections with --from, or images with --undo.")
        result = take_corrections(output, source, progress, options, jsonl=jsonl, max_pixels=compute.max_pixels)
    return result.failed
