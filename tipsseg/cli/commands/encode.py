"""`tipsseg encode`."""

from __future__ import annotations

from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.arguments import stdin
from tipsseg.cli.parameters import Only, Without, command
from tipsseg.cli.wording import as_typed
from tipsseg.options import LabelOptions
from tipsseg.options.run import ComputeOptions, ImageOptions, StoreOptions

EPILOG = """\b
Examples:
  tipsseg encode photos/ -o feats
  tipsseg label photos/ -c "panda leg,tree" --features feats
  tipsseg encode photos/ -o feats --dry-run              (how much disk it takes)
  tipsseg encode photos/ -o feats --shard 3/8            (of 8 processes or machines the third)

\b
An image is known by its content: one that was moved is not encoded again, one that was
changed is. A run that was broken off goes on by the same command.
Paths of the files of features go to stdout, all else to stderr.
Exit code: 0 all done, 1 some image failed or an error, 2 wrong usage, 130 or 143 interrupted.
"""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@command(app, EPILOG)
def encode(
    compute: Annotated[ComputeOptions, Without("features")],
    store: StoreOptions,
    view: Annotated[LabelOptions, Only("mode", "short_side", "scales")],
    images: Annotated[ImageOptions, Without("retry_failed")],
    printing: opt.Printing,
    paths: opt.Paths = None,
) -> None:
    """Keep the features of images in a folder: what the model makes of them, whatever they are asked for later."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.image_list import Choice, check_choice, find_images
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.encode.dry_run import dry_run
    from tipsseg.runs.encode.run import EncodeRun, encode_spec
    from tipsseg.store.run_record import plan_run

    silence_decoders()
    given = tuple(paths or ())
    check_choice(bool(given), images)
    printing.check(given, "features")
    spec = encode_spec(compute, store, view)
    spec.check()
    with Progress(printing.quiet, results=not printing.jsonl, null=printing.null, wording=as_typed) as progress:
        info = plan_run(spec)
        found = find_images(spec, Choice(**vars(images), **stdin.sources(given, printing.null)), progress)
        if printing.dry_run:
            failed = dry_run(info, found, progress)
        else:
            run = EncodeRun(info, found, progress, jsonl=printing.jsonl, quiet=printing.quiet)
            for _ in run.results():
                pass
            failed = run.counts.failed
    if failed:
        raise typer.Exit(1)
