"""The `tipsseg encode` command: store image features."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from tipsseg.cli import options as opt
from tipsseg.cli import stdin
from tipsseg.cli.parameters import Only, Without, command
from tipsseg.cli.wording import open_progress
from tipsseg.options import LabelOptions
from tipsseg.options.run import ComputeOptions, ImageOptions, StoreOptions

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
Exit code: 0 success; 1 an error, or an image failed; 2 usage error;
130 or 143 interrupted.
"""


@command(EPILOG)
def encode(
    compute: Annotated[ComputeOptions, Without("features")],
    store: StoreOptions,
    view: Annotated[LabelOptions, Only("mode", "short_side", "stretch", "scales")],
    images: Annotated[ImageOptions, Without("retry_failed")],
    printing: opt.Printing,
    paths: opt.Paths = None,
) -> int:
    """Store the features of images in a folder, so that relabelling skips the model."""
    from tipsseg.commands.encode import encode_images, encode_spec, estimate_store
    from tipsseg.run.inputs import Choice, check_choice, find_images
    from tipsseg.run.plan import plan_run
    from tipsseg.types import Failed

    given = tuple(paths or ())
    check_choice(bool(given), images)
    printing.check(given, "features")
    spec = encode_spec(compute, store, view)
    with open_progress(printing.quiet, results=printing.paths, null=printing.null) as progress:
        info = plan_run(spec)
        found = find_images(spec, Choice(**vars(images), **stdin.sources(given, printing.null)), progress)
        if printing.dry_run:
            return estimate_store(info, found, progress)
        results = encode_images(info, found, progress, jsonl=printing.jsonl, quiet=printing.quiet)
        try:
            with closing(results):
                return sum(isinstance(result, Failed) for result in results)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note("run the same command to resume")
            raise
