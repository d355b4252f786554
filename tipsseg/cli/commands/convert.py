"""The `tipsseg convert` command: write the labels of a run in more formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.stdin import read_only
from tipsseg.cli.values import refuse_stray_formats
from tipsseg.cli.wording import open_progress, prints_paths
from tipsseg.errors import UsageError
from tipsseg.options import FileOptions, split_names
from tipsseg.options.fields import FILES, option
from tipsseg.options.run import ComputeOptions
from tipsseg.util.text import quote

EPILOG = """\b
Examples:
  tipsseg convert labels/ --format yolo,cvat
  tipsseg convert labels/ --format hf --images /mnt/photos
  tipsseg rank labels/ -n 9 | tipsseg convert labels/ --only - -f labelme
  tipsseg convert labels/ --drop overlay

\b
Adds formats to the folder, and updates all others from the masks. Keeps the
file options of the run, such as --min-area, and by default --val-fraction
and --level.
Paths of written files go to stdout unless it is a terminal, everything else to
stderr.
Exit code: 0 success; 1 an error, or an image failed; 2 usage error.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converting:
    # fmt: off
    formats: list[str] | None = option(None, flag="format", short="f", metavar="NAMES", group=FILES, choices="formats",
        help="One or more, separated by commas: {formats}.")
    drop: list[str] | None = option(None, metavar="NAMES", choices="formats",
        help="Remove formats from the folder, with their files, except edited ones.")
    # fmt: on


# If the shell splits a list of formats at a space, the rest arrives as extra arguments.
@command(EPILOG, context_settings={"allow_extra_args": True})
def convert(
    context: typer.Context,
    output: opt.Folder,
    compute: Annotated[ComputeOptions, Only("jobs", "max_pixels")],
    files: Annotated[FileOptions, Only("val_fraction", "level")],
    converting: Converting,
    folders: Annotated[opt.Folders, Only("images", "only", "null", "print_paths", "quiet")],
) -> int:
    """Write the labels in an output folder in more formats, without the model."""
    from tipsseg.commands.convert import convert_folder, drop_formats

    formats, drop = converting.formats, converting.drop
    refuse_stray_formats(context.args, formats or ())
    if formats is not None and drop is not None:
        raise UsageError("--format and --drop exclude each other", "Run one after the other.")
    if formats is None and drop is None:
        raise UsageError("no format given", "Name formats to add with --format, or to remove with --drop.")
    if context.args:
        raise UsageError(f"convert takes one output folder, got {quote(context.args[0])} too")
    results = prints_paths(folders.quiet, asked=folders.print_paths or folders.null)
    with open_progress(folders.quiet, results=results, null=folders.null) as progress:
        if drop is not None:
            return drop_formats(output, split_names(drop), progress)
        paths = read_only(folders.only, folders.null, "convert", output)
        return convert_folder(
            output,
            split_names(formats or ()),
            folders.images,
            compute.jobs,
            progress,
            files,
            paths,
            compute.max_pixels,
        )
