"""The `tipsseg encode` command: store image features."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from tipsseg.cli import options as opt
from tipsseg.cli import stdin
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import open_progress
from tipsseg.options import VIEW, LabelOptions
from tipsseg.options.run import EncodeOptions, ImageOptions, StoreOptions

EPILOG = """\b
Examples:
  tipsseg encode photos/ -o feats
  tipsseg label photos/ -c "panda leg,tree" --features feats
  tipsseg encode photos/ -o feats --dry-run        (estimate the disk space)
  tipsseg encode photos/ -o feats --shard 3/8      (part 3 of 8)

\b
Identifies images by content: a changed image is encoded again, a moved image
is not. Run the same command again to resume. Paths of feature files go to
stdout unless it is a terminal, everything else to stderr.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage, 130 or 143
interrupted.
"""


@command(EPILOG)
def encode(
    compute: EncodeOptions,
    store: StoreOptions,
    view: Annotated[LabelOptions, Only(*VIEW, "scales")],
    images: ImageOptions,
    printing: opt.Printing,
    paths: opt.PathArguments = None,
) -> int:
    """Store the features of images in a folder, to label the images again without encoding."""
    from tipsseg.commands.encode import encode_images, encode_spec, estimate_store
    from tipsseg.run.inputs import Choice, require_paths
    from tipsseg.types import Failed

    given = tuple(paths or ())
    require_paths(given)
    printing.check(given, "features")
    spec = encode_spec(compute, store, view)
    with open_progress(printing.quiet, results=printing.paths, null=printing.null) as progress:
        choice = Choice(**vars(images), images=stdin.images(given, printing.null))
        if printing.dry_run:
            return estimate_store(spec, choice, progress)
        with closing(encode_images(spec, choice, progress, jsonl=printing.jsonl)) as results:
            return sum(isinstance(result, Failed) for result in results)
