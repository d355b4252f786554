"""`tipsseg tune`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.parameters import Without, command
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.options.fields import FILES, WHAT, option
from tipsseg.options.run import ComputeOptions

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What is tuned, and what is written."""

    # fmt: off
    output: Path = option(MISSING, metavar="FILE", short="o", group=FILES,
        help="The vocabulary file to write. End its name with .toml, or with .fit if you give --vocab or --temperature.")
    precision: float | None = option(None, metavar="0..1", group=WHAT,
        help="Choose minimum confidences by which this share of the pixels of each class is right.")
    temperature: bool = option(False, group=WHAT,
        help="Fit the temperature of the softmax, so that confidences are as often right as they say.")
    vocab: Path | None = option(None, metavar="FIT", group=WHAT,
        help="The .fit that the run was made with, if it was made with one.")
    images: Path | None = option(None, metavar="DIR", help="Where the images are now.  [default: where they were]")
    overwrite: bool = option(False, group=FILES, help="Replace the file where it is there.")
    as_json: bool = option(False, flag="json", group=FILES, help="Print the numbers as one JSON object.")
    quiet: bool = option(False, short="q", help="No progress and no notes on stderr.")
    # fmt: on


@command(app, EPILOG)
def tune(folder: opt.Folder, asked: Tuning, compute: Annotated[ComputeOptions, Without("model")]) -> None:
    """Choose the minimum confidence of each class by the masks of a run that you edited."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.fit.learning import check_target
    from tipsseg.runs.fit.masked import edited_masks
    from tipsseg.runs.tune.run import check_wish, spec_of_tuning, tune_run
    from tipsseg.util.files import json_bytes
    from tipsseg.vocabulary.fitted import is_fit

    check_wish(asked.precision, temperature=asked.temperature)
    if asked.vocab is not None and not is_fit(asked.vocab):
        raise UsageError(
            f"--vocab {asked.vocab} is no fit, and the run says its classes itself",
            "Leave it out, or give the .fit that the run was made with.",
        )
    check_target(asked.output, fitted=asked.temperature or asked.vocab is not None, overwrite=asked.overwrite)
    silence_decoders()
    fitted = None if asked.vocab is None else values.read_fit(asked.vocab)
    with Progress(asked.quiet, results=False, wording=as_typed) as progress:
        edited = edited_masks(folder, asked.images, compute.max_pixels)
        spec = spec_of_tuning(edited, compute, fitted)
        spec.check()
        tuning = tune_run(spec, edited, asked.precision, progress, temperature=asked.temperature, quiet=asked.quiet)
        tuning.save(asked.output)
        progress.note(f"Written: {asked.output}.")
        progress.text(json_bytes(tuning.record()).decode() + "\n" if asked.as_json else tuning.table())
    if tuning.failed:
        raise typer.Exit(1)
