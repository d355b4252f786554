"""`tipsseg encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.arguments import stdin
from tipsseg.cli.help import FILES, IMAGES, MACHINES, Command
from tipsseg.cli.values import refuse_printed_together
from tipsseg.cli.wording import as_typed
from tipsseg.options import (
    MAX_PIXELS,
    MODES,
    LabelOptions,
    check_whole_number,
    choose,
    parse_scales,
    thread_count,
)

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


@app.command(cls=Command, epilog=EPILOG, no_args_is_help=True)
def encode(
    output: Annotated[Path, opt.output_option("The folder of the features.", panel=FILES)],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS",
            help="Images, folders (searched recursively), or - for a list on stdin.",
            show_default=False,
        ),
    ] = None,
    model: opt.Model = "l14",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    mode: opt.Mode = MODES[0],
    short_side: opt.ShortSide = None,
    scales: opt.Scales = "1",
    batch_size: opt.BatchSize = 8,
    feature_dtype: opt.FeatureKept = None,
    limit: opt.Limit = None,
    sample: opt.Sample = None,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel=IMAGES,
            help="Print the images that would be encoded, and say how much disk it takes.",
        ),
    ] = False,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl", rich_help_panel=IMAGES, help="Print one JSON object per image on stdout, in place of paths."
        ),
    ] = False,
    null: opt.NullBoth = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", rich_help_panel=MACHINES, help="Only part I of N parts, for several processes or machines."
        ),
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Keep the features of images in a folder: what the model makes of them, whatever they are asked for later."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.image_list import Choice, check_choice, find_images
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.encode.dry_run import dry_run
    from tipsseg.runs.encode.run import EncodeRun
    from tipsseg.runs.encode.spec import EncodeSpec, plan_encoding
    from tipsseg.store.shards import parse_shard

    check_whole_number("argument `max_pixels`", max_pixels)
    silence_decoders()
    given = tuple(paths or ())
    check_choice(bool(given), limit, sample, retry_failed=False)
    refuse_printed_together(given, null=null, jsonl=jsonl, dry=dry, records="features")
    spec = EncodeSpec(
        output,
        model,
        LabelOptions(choose(mode, MODES, "mode"), short_side, scales=parse_scales(scales)),
        feature_dtype,
        device,
        dtype,
        batch_size,
        thread_count(jobs),
        max_pixels,
        None if shard is None else parse_shard(shard),
        use_cache=True,
    )
    spec.check()
    with Progress(quiet, results=not jsonl, null=null, wording=as_typed) as progress:
        plan = plan_encoding(spec)
        listed = stdin.is_list(given)
        entries = stdin.entries(null) if listed else None
        choice = Choice(() if listed else tuple(map(Path, given)), entries, limit, sample)
        images = find_images(spec, choice, progress)
        if dry:
            failed = dry_run(spec, plan, images, progress)
        else:
            run = EncodeRun(spec, plan, images, progress, jsonl=jsonl, quiet=quiet)
            for _ in run.results():
                pass
            failed = run.counts.failed
    if failed:
        raise typer.Exit(1)
