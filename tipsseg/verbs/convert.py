"""Write the labels of an output folder in more formats, or as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.address import as_address
from tipsseg.ask import Ask, verb
from tipsseg.errors import UsageError, Words
from tipsseg.formats import DATASET_FORMATS, check_data_set
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.declared import format_names
from tipsseg.options.fields import FILES, Opt, take_options
from tipsseg.options.records import FileOptions, ReadingOptions
from tipsseg.options.values import SHARD_SIZE
from tipsseg.plugins import load_plugin
from tipsseg.util.text import quote
from tipsseg.verbs.shared import Chosen, Moved

if TYPE_CHECKING:
    from tipsseg.images.finding import Paths
    from tipsseg.say import Verbosity

_EPILOG = """\b
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


# fmt: off
Outputs = Annotated["Paths", Opt(argument=True, typed=list[Path], metavar="OUT", check=lambda paths: paths,
    help="The output folder of tipsseg label; with --to, several.")]
_Formats = Annotated[Sequence[str], opt.Formats, Opt(
    help=f"One or more, separated by commas: {{choices}}; with {{to}}, {' or '.join(DATASET_FORMATS)}.")]
To = Annotated[str | Path, Opt(metavar="DIR|URL", group=FILES, check=lambda place: place,
    help="Write the data set to this empty folder or URL, such as s3://bucket/set.")]
_Drop = Annotated[Sequence[str] | None, Opt(metavar="NAMES", choices="formats", typed=list[str], check=format_names,
    help="Remove these formats and their files from the folder, except edited files.")]
# fmt: on


@verb("convert", _EPILOG, prints="files")
def convert_folder(
    ask: Ask,
    output: Outputs,
    formats: _Formats = (),
    *,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    val_fraction: opt.ValFraction = None,
    extra: opt.FormatOptions = None,
    to: To | None = None,
    drop: _Drop = None,
    shard_size: opt.ShardSize = SHARD_SIZE,
    overwrite: opt.OverwriteDataset = False,
    only: Chosen = None,
    images: Moved = None,
    verbose: Verbosity = None,
) -> int:
    """Write the labels in an output folder in more formats, without the model.

        tipsseg.review.convert_folder("labels", ["yolo", "labelme"])

    The files are byte for byte those that the run would have written. All others are updated.

    Args:
        output: The output folder; several only with `to`.
        formats: The names of the formats; none only updates the folder.
        to: See `write_dataset`, which has this result too.
        drop: Formats to end: their files are removed. Those that a person changed go to the trash.
        images: The folder of the images, if they have moved.
        only: The paths of the images to convert. None converts all images.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The number of failed images and unknown paths in `only`.

    Raises:
        UsageError: If an argument is invalid.
        InputError: If the folder has no finished run, or its masks are written block by block, and the requested formats are not.
        OutputError: If the folder cannot be written.
    """
    from tipsseg.folder.convert import convert_labels, end_formats
    from tipsseg.images.finding import as_paths
    from tipsseg.say import progress_for

    folder, *others = as_paths(output)
    if to is not None and len(formats) != 1:
        raise UsageError(Words("{to} requires exactly one format"), f"Use one of {', '.join(DATASET_FORMATS)}.")
    if others and to is None:
        raise UsageError(f"convert takes one output folder; {quote(str(others[0]))} is a second one")
    if to is not None:
        names = {"jobs", "max_pixels", "val_fraction", "only", "images", "shard_size", "overwrite"}
        check_data_set(formats[0])
        write = load_plugin("target", formats[0])
        return len(write(output, to, format=formats[0], verbose=verbose, **ask.some(names)).failed)
    with progress_for(verbose) as progress:
        if drop is not None:
            end_formats(folder, drop, progress)
            return 0
        return convert_labels(
            folder,
            formats,
            root=None if images is None else as_address(images),
            only=only,
            options=take_options(FileOptions, ask.values),
            reading=take_options(ReadingOptions, ask.values),
            progress=progress,
        )
