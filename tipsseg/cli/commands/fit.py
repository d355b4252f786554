"""The `tipsseg fit` command: learn classes from corrected masks."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import open_progress
from tipsseg.options.fields import FILES, keywords_of, option
from tipsseg.options.run import ComputeOptions

EPILOG = """\b
Examples:
  tipsseg fit labels/ -o farm.fit
  tipsseg fit labels/ -o farm.fit --features feats  (reuse stored features)
  tipsseg correct labels/ --from masks/ --accept && tipsseg fit labels/ -o farm.fit
  tipsseg label photos/ --vocab farm.fit -o better

\b
Learns from the masks of OUT that a person corrected, with the run's model and classes.
Ignores pixels with id 255. A class that the masks lack, or that they do not
improve, keeps its text vector. Can learn classes that the model has no words
for. Prints the IoU per class on held-out images on stdout, and everything else
on stderr.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage.
"""


#: The options that a run does not fix.
_OF_THE_MACHINE = ("device", "batch_size", "features", "jobs", "max_pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    # fmt: off
    target: Path = option(MISSING, metavar="FILE", flag="output", short="o", group=FILES,
        help="File to write, with the suffix .fit.")
    overwrite: bool = option(False, group=FILES, help="Replace an existing file.")
    as_json: bool = option(False, flag="json", group=FILES, help="Print the scores as one JSON object.")
    quiet: bool = option(False, short="q", help=opt.QUIET_HELP)
    # fmt: on


@command(EPILOG)
def fit(
    fitting: Fitting,
    moved: opt.Moved,
    compute: Annotated[ComputeOptions, Only(*_OF_THE_MACHINE)],
    output: opt.Folder,
) -> int:
    """Learn classes from the corrected masks of a few images, for label --vocab."""
    from tipsseg.commands.fit.vectors import check_target, fit_folder
    from tipsseg.util.json import json_bytes

    check_target(fitting.target, overwrite=fitting.overwrite)
    keywords = keywords_of(compute, (*_OF_THE_MACHINE, "use_cache"))
    with open_progress(fitting.quiet, results=False) as progress:
        result = fit_folder(output, images=moved.images, verbose=progress, **keywords)
        try:
            result.save(fitting.target)
            progress.note(f"Wrote {fitting.target}.")
        finally:  # also if there is nothing to write
            progress.text(json_bytes(result.record()).decode() + "\n" if fitting.as_json else result.table())
    return result.failed
