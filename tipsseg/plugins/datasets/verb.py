"""Write the labels and images of a folder as a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipsseg.address import as_address
from tipsseg.ask import Ask, verb
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.fields import take_options
from tipsseg.options.records import ReadingOptions
from tipsseg.options.values import SHARD_SIZE
from tipsseg.verbs.convert import Outputs, To
from tipsseg.verbs.shared import Chosen, Moved

if TYPE_CHECKING:
    from tipsseg.plugins.datasets.write import WrittenDataset
    from tipsseg.say import Verbosity


@verb("convert")
def write_dataset(
    ask: Ask,
    output: Outputs,
    to: To,
    *,
    format: str = "parquet",  # noqa: A002  the word of the command
    images: Moved = None,
    only: Chosen = None,
    val_fraction: opt.ValFraction = None,
    shard_size: opt.ShardSize = SHARD_SIZE,
    overwrite: opt.OverwriteDataset = False,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    verbose: Verbosity = None,
) -> WrittenDataset:
    """Write the labels and images of a folder as a data set of shards, as `tipsseg convert --to` does.

        tipsseg.write_dataset("labels", "set")
        data = datasets.load_dataset("set")

    Args:
        output: The output folder of `label_folder`, with a run or with shards of one, or several folders of one run.
        to: An empty or missing folder, or a URL that fsspec writes, such as "s3://bucket/set".
        format: "parquet" or "webdataset".
        images: The image folder, if it has moved.
        only: The paths of the images to write. None writes all.
        val_fraction: The fraction of images for the validation split. None: as in the folder, or 0.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The shards, and the images that failed.

    Raises:
        UsageError: An argument is invalid, or a package is missing.
        InputError: The folders have no finished run, or runs of different settings.
        OutputError: The data set cannot be written.
    """
    from tipsseg.images.finding import as_paths
    from tipsseg.plugins.datasets.write import write_shards
    from tipsseg.say import progress_for

    with progress_for(verbose) as progress:
        return write_shards(
            as_paths(output),
            to,
            format,
            root=None if images is None else as_address(images),
            only=only,
            val_fraction=val_fraction,
            shard_size=ask.values["shard_size"],
            overwrite=overwrite,
            reading=take_options(ReadingOptions, ask.values),
            progress=progress,
        )
