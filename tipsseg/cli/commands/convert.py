"""The `tipsseg convert` command: write the labels of a run in more formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import Only, command, path_of
from tipsseg.cli.stdin import read_only
from tipsseg.cli.values import refuse_stray_formats
from tipsseg.cli.wording import open_progress, prints_paths
from tipsseg.errors import UsageError
from tipsseg.formats import DATASET_FORMATS
from tipsseg.options import FileOptions, split_names
from tipsseg.options.fields import FILES, keywords_of, option
from tipsseg.options.run import DatasetOptions, ReadingOptions
from tipsseg.util.text import quote

EPILOG = """\b
Examples:
  tipsseg convert labels/ --format yolo,cvat
  tipsseg convert labels/ --format hf --images /mnt/photos
  tipsseg rank labels/ -n 9 | tipsseg convert labels/ --only - -f labelme
  tipsseg convert labels/ --drop overlay
  tipsseg convert labels/ -f parquet --to set/
  tipsseg convert node1/ node2/ -f webdataset --to s3://bucket/set

\b
Adds formats to the folder, and updates all others from the masks; without a
format, only updates. Keeps the file options of the run, such as --min-area,
and by default --val-fraction. With --to, writes images and labels as a data set
of shards, also from several folders, into an empty place.
Paths of written files go to stdout unless it is a terminal, everything else to
stderr.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converting:
    # fmt: off
    formats: list[str] | None = option(None, flag="format", short="f", metavar="NAMES", group=FILES, choices="formats",
        help="One or more, separated by commas: {formats}; with --to, {datasets}.")
    to: Path | None = option(None, metavar="DIR|URL", group=FILES,
        help="Write the data set to this empty folder or URL, such as s3://bucket/set.")
    drop: list[str] | None = option(None, metavar="NAMES", choices="formats",
        help="Remove these formats and their files from the folder, except edited files.")
    # fmt: on


# If the shell splits a list of formats at a space, the rest arrives as extra arguments.
@command(EPILOG, context_settings={"allow_extra_args": True})
def convert(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT...",
            parser=path_of("the folder"),
            help="The output folder of tipsseg label; with --to, several.",
        ),
    ],
    reading: ReadingOptions,
    files: Annotated[FileOptions, Only("val_fraction")],
    converting: Converting,
    dataset: DatasetOptions,
    selected: opt.Selected,
    moved: opt.Moved,
    printing: opt.Quiet,
) -> int:
    """Write the labels in an output folder in more formats, without the model."""
    from tipsseg.commands.convert import convert_folder, drop_formats

    formats, drop = converting.formats, converting.drop
    refuse_stray_formats(context.args, formats or ())
    if formats is not None and drop is not None:
        raise UsageError("--format and --drop exclude each other", "Run one after the other.")
    names = split_names(formats or ())
    if converting.to is None and dataset != DatasetOptions():
        raise UsageError("--shard-size and --overwrite require --to", "Pass the folder of the data set with --to.")
    if converting.to is not None and len(names) != 1:
        raise UsageError("--to requires exactly one format", f"Use one of {', '.join(DATASET_FORMATS)}.")
    if context.args and converting.to is None:
        raise UsageError(f"convert takes one output folder; {quote(context.args[0])} is a second one")
    prints = prints_paths(selected.null)
    with open_progress(printing.quiet, results=prints, null=selected.null) as progress:
        if drop is not None:
            drop_formats(output, split_names(drop), verbose=progress)
            return 0
        paths = read_only(selected.only, selected.null, "convert", output)
        if converting.to is not None:
            from tipsseg.commands.dataset import write_dataset

            written = write_dataset(
                [output, *map(path_of("the folder"), context.args)],
                converting.to,
                format=names[0],
                images=moved.images,
                only=paths,
                val_fraction=files.val_fraction if "val_fraction" in files.given else None,
                verbose=progress,
                **keywords_of(dataset),
                **keywords_of(reading),
            )
            return len(written.failed)
        given = {**keywords_of(files, files.given), **keywords_of(reading)}
        return convert_folder(output, names, images=moved.images, only=paths, verbose=progress, **given)
