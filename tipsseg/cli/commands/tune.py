"""`tipsseg tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.help import FILES, WHAT, Command
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.options import MAX_PIXELS, check_whole_number, thread_count

EPILOG = """\b
Examples:
  tipsseg tune labels/ --precision 0.95 -o farm.toml
  tipsseg tune better/ --precision 0.95 --vocab farm.fit -o farm-95.fit     a run by a fit
  tipsseg tune labels/ --temperature -o farm.fit
  tipsseg label photos/ --vocab farm.toml

\b
Pixels below the minimum confidence of their class are written as 255, ignored. It is chosen by the
masks of the run that you edited, with a margin where those are few; the numbers are of images that
it was not chosen by. Numbers go to stdout, all else to stderr.
Exit code: 0 all done, 1 some image failed or an error, 2 wrong usage.
"""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=Command, epilog=EPILOG, no_args_is_help=True)
def tune(
    folder: opt.Folder,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=opt.path_of("--output"),
            rich_help_panel=FILES,
            help="The vocabulary file to write. End its name with .toml, or with .fit if you give --vocab or --temperature.",
        ),
    ],
    precision: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            rich_help_panel=WHAT,
            help="Choose minimum confidences by which this share of the pixels of each class is right.",
        ),
    ] = None,
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature",
            rich_help_panel=WHAT,
            help="Fit the temperature of the softmax, so that confidences are as often right as they say.",
        ),
    ] = False,
    vocab: Annotated[
        Path | None,
        typer.Option(
            "--vocab",
            "-v",
            metavar="FIT",
            parser=opt.path_of("--vocab"),
            rich_help_panel=WHAT,
            help="The .fit that the run was made with, if it was made with one.",
        ),
    ] = None,
    images: opt.Images = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    batch_size: opt.BatchSize = 8,
    features: opt.Features = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=FILES, help="Replace the file where it is there.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=FILES, help="Print the numbers as one JSON object.")
    ] = False,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    quiet: opt.Quiet = False,
) -> None:
    """Choose the minimum confidence of each class by the masks of a run that you edited."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.fit.masked import edited_masks
    from tipsseg.runs.tune.run import check_target, check_wish, spec_of_tuning, tune_run
    from tipsseg.store.spec import RunSpec
    from tipsseg.util.files import json_bytes
    from tipsseg.vocabulary.fitted import is_fit

    check_whole_number("argument `max_pixels`", max_pixels)
    check_wish(precision, temperature=temperature)
    if vocab is not None and not is_fit(vocab):
        raise UsageError(
            f"--vocab {vocab} is no fit, and the run says its classes itself",
            "Leave it out, or give the .fit that the run was made with.",
        )
    check_target(output, fitted=temperature or vocab is not None, overwrite=overwrite)
    silence_decoders()
    fitted = None if vocab is None else values.read_fit(vocab)
    with Progress(quiet, results=False, wording=as_typed) as progress:
        edited = edited_masks(folder, images, max_pixels)
        asked = edited.run.info.spec
        wish = RunSpec(
            asked.model,
            asked.vocabulary,
            formats=(),
            output=Path(),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            jobs=thread_count(jobs),
            max_pixels=max_pixels,
            resume=False,
            use_cache=True,
            features=features,
        )
        spec = spec_of_tuning(edited, wish, fitted)
        spec.check()
        tuning = tune_run(spec, edited, precision, progress, temperature=temperature, quiet=quiet)
        tuning.save(output)
        progress.note(f"Written: {output}.")
        progress.text(json_bytes(tuning.record()).decode() + "\n" if as_json else tuning.table())
    if tuning.failed:
        raise typer.Exit(1)
