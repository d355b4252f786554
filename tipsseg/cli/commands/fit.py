"""The `tipsseg fit` command: learn classes from masks."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import stdin, values
from tipsseg.cli.parameters import Only, command, given_options
from tipsseg.cli.wording import open_progress
from tipsseg.errors import UsageError
from tipsseg.options import VIEW, LabelOptions
from tipsseg.options.fields import FILES, TRUTH, keywords_of, option, options_of
from tipsseg.options.run import ComputeOptions, TruthOptions

EPILOG = """\b
Examples:
  tipsseg fit labels/ -o farm.fit                   (edited masks of a run)
  tipsseg fit labels/ -o farm.fit --features feats  (reuse stored features)
  tipsseg fit photos/ --gt masks/ --vocab farm.toml -o farm.fit
  tipsseg label photos/ --vocab farm.fit -o better

\b
Ignores pixels with id 255. A class that the masks lack, or that they do not
improve, keeps its text vector. Can learn classes that the model has no words
for. Prints the IoU per class on held-out images on stdout, and everything else
on stderr.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    # fmt: off
    output: Path = option(MISSING, metavar="FILE", short="o", group=FILES,
        help="File to write, with the suffix .fit.")
    images: Path | None = option(None, metavar="DIR", group=TRUTH,
        help=opt.IMAGES_HELP)
    gt: Path | None = option(None, metavar="DIR", group=TRUTH, help="Folder of ground-truth masks.")
    overwrite: bool = option(False, group=FILES, help="Replace an existing file.")
    as_json: bool = option(False, flag="json", group=FILES, help="Print the scores as one JSON object.")
    quiet: bool = option(False, short="q", help=opt.QUIET_HELP)
    # fmt: on


#: The options of the model that a run does not fix.
_OF_A_RUN = tuple(name for name in options_of(ComputeOptions) if name != "model")


@command(EPILOG)
def fit(
    context: typer.Context,
    fitting: Fitting,
    truth: TruthOptions,
    question: opt.Question,
    compute: ComputeOptions,
    view: Annotated[LabelOptions, Only(*VIEW)],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT|IMAGES", help="The output folder of tipsseg label; with --gt, images and folders of images."
        ),
    ],
) -> int:
    """Learn classes from the masks of a few images, for label --vocab and eval --vocab."""
    from tipsseg.commands.fit.vectors import check_target, fit_folder, fit_truths
    from tipsseg.learning.truth import preset_of
    from tipsseg.util.files import local_path
    from tipsseg.util.json import json_bytes

    values.refuse_split_lists(paths, question.classes, ())
    _refuse_together(context, paths, fitting)
    gt = fitting.gt
    check_target(fitting.output, overwrite=fitting.overwrite)
    run: dict[str, Any] = {"images": fitting.images, **keywords_of(compute, _OF_A_RUN)}
    with open_progress(fitting.quiet, results=False) as progress:
        if gt is None:
            result = fit_folder(local_path("the output folder", paths[0]), verbose=progress, **run)
        else:
            if truth.layout is not None and not question.classes and question.vocab is None:
                question = replace(question, vocab=preset_of(truth))
            classes = values.parse_question(question)[0]
            keywords = {**keywords_of(truth), **keywords_of(compute), **keywords_of(view, VIEW)}
            result = fit_truths(stdin.images(paths, False), gt, classes, verbose=progress, **keywords)
        try:
            result.save(fitting.output)
            progress.note(f"Wrote {fitting.output}.")
        finally:  # also if there is nothing to write
            progress.text(json_bytes(result.record()).decode() + "\n" if fitting.as_json else result.table())
    return result.failed


def _refuse_together(context: typer.Context, paths: list[str], fitting: Fitting) -> None:
    if fitting.gt is not None:
        if fitting.images is not None:
            raise UsageError(
                "--images and --gt exclude each other", "Remove --images, and pass the images as arguments."
            )
        return
    for record in (opt.Question, TruthOptions, LabelOptions, ComputeOptions):
        for flag in given_options(context, record):
            if record is not ComputeOptions or flag == "--model":
                raise UsageError(
                    f"{flag} requires --gt; without --gt the run's own settings apply",
                    f"Remove {flag}, or pass images, and the folder of their masks with --gt.",
                )
    if len(paths) > 1:
        raise UsageError(
            f"fit takes one output folder, got {len(paths)}",
            "Pass one output folder, or images, and the folder of their masks with --gt.",
        )
