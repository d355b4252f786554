"""The `tipsseg tune` command: choose minimum confidences."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.parameters import Without, command
from tipsseg.cli.progress import open_progress
from tipsseg.errors import UsageError
from tipsseg.options.fields import FILES, WHAT, option
from tipsseg.options.run import ComputeOptions

EPILOG = """\b
Examples:
  tipsseg tune labels/ --precision 0.95 -o farm.toml
  tipsseg tune labels/ --precision 0.95 --vocab farm.fit -o farm-95.fit
  tipsseg tune labels/ --temperature -o farm.fit
  tipsseg label photos/ --vocab farm.toml

\b
tipsseg label writes pixels below the minimum confidence of their class as
255. This command chooses the minimum confidences from the edited masks of a
run, with a safety margin if there are few masks, and reports the precision on
held-out images. Numbers go to stdout, everything else to stderr.
Exit code: 0 success; 1 an error, or an image failed; 2 usage error.
"""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    # fmt: off
    output: Path = option(MISSING, metavar="FILE", short="o", group=FILES,
        help="Vocabulary file to write: .toml, or .fit with --vocab or --temperature.")
    precision: float | None = option(None, metavar="0..1", group=WHAT,
        help="Choose minimum confidences at which this fraction of each class's labelled pixels is correct.")
    temperature: bool = option(False, group=WHAT,
        help="Fit the softmax temperature, so that confidences match precision.")
    vocab: Path | None = option(None, metavar="FIT", group=WHAT,
        help="The .fit file that the run was labelled with, if any.")
    images: Path | None = option(None, metavar="DIR", help=opt.IMAGES_HELP)
    overwrite: bool = option(False, group=FILES, help="Replace an existing file.")
    as_json: bool = option(False, flag="json", group=FILES, help="Print the numbers as one JSON object.")
    quiet: bool = option(False, short="q", help=opt.QUIET_HELP)
    # fmt: on


@command(app, EPILOG)
def tune(folder: opt.Folder, asked: Tuning, compute: Annotated[ComputeOptions, Without("model")]) -> None:
    """Choose the minimum confidence of every class from the edited masks of a run."""
    from tipsseg.runs.fit.learning import check_target
    from tipsseg.runs.fit.masked import edited_masks
    from tipsseg.runs.tune.run import check_precision, spec_of_tuning, tune_run
    from tipsseg.util.files import json_bytes
    from tipsseg.vocabulary.fitted import is_fit

    check_precision(asked.precision, temperature=asked.temperature)
    if asked.vocab is not None and not is_fit(asked.vocab):
        raise UsageError(
            f"--vocab {asked.vocab} is not a .fit file; the classes come from the run",
            "Remove --vocab, or name the .fit file that the run was labelled with.",
        )
    check_target(asked.output, fitted=asked.temperature or asked.vocab is not None, overwrite=asked.overwrite)
    fitted = None if asked.vocab is None else values.read_fit(asked.vocab)
    with open_progress(asked.quiet, results=False) as progress:
        edited = edited_masks(folder, asked.images, compute.max_pixels)
        spec = spec_of_tuning(edited, compute, fitted)
        spec.check()
        tuning = tune_run(spec, edited, asked.precision, progress, temperature=asked.temperature, quiet=asked.quiet)
        tuning.save(asked.output)
        progress.note(f"Wrote {asked.output}.")
        progress.text(json_bytes(tuning.record()).decode() + "\n" if asked.as_json else tuning.table())
    if tuning.failed:
        raise typer.Exit(1)
