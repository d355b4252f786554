"""`tipsseg fit`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.parameters import Only, command, given_options
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.options import LabelOptions
from tipsseg.options.fields import FILES, TRUTH, option
from tipsseg.options.run import ComputeOptions, TruthOptions

if TYPE_CHECKING:
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.fit.masked import Masks
    from tipsseg.store.spec import RunSpec

EPILOG = """\b
Examples:
  tipsseg fit labels/ -o farm.fit                            from the masks of a run that you edited
  tipsseg fit labels/ -o farm.fit --features feats           their features are there, or are kept there
  tipsseg fit photos/ --gt masks/ --vocab farm.toml -o farm.fit
  tipsseg label photos/ --vocab farm.fit -o better

\b
Pixels of 255 do not count. Classes without a pixel in the masks keep what their words say; a class
that the masks do not help keeps it too. Words that the model does not know can be learnt.
The IoU of each class, in images that a fit has not seen, goes to stdout, all else to stderr.
Exit code: 0 all done, 1 some image failed or an error, 2 wrong usage.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """What is fitted to, and what is written."""

    # fmt: off
    output: Path = option(MISSING, metavar="FILE", short="o", group=FILES,
        help="The file of the fit, which ends with .fit.")
    images: Path | None = option(None, metavar="DIR", group=TRUTH,
        help="Where the images are now.  [default: where they were]")
    gt: Path | None = option(None, metavar="DIR", group=TRUTH, help="Folder of the masks.")
    overwrite: bool = option(False, group=FILES, help="Replace the file where it is there.")
    as_json: bool = option(False, flag="json", group=FILES, help="Print the scores as one JSON object.")
    quiet: bool = option(False, short="q", help="No progress and no notes on stderr.")
    # fmt: on


@command(app, EPILOG)
def fit(
    context: typer.Context,
    fitting: Fitting,
    truth: TruthOptions,
    question: opt.Asked,
    compute: ComputeOptions,
    view: Annotated[LabelOptions, Only("mode", "short_side")],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT|IMAGES", help="The output folder of tipsseg label; or with --gt images and folders of images."
        ),
    ],
) -> None:
    """Learn classes from masks of a few images, for --vocab of label and eval."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.evaluate.truth_options import preset_of
    from tipsseg.runs.fit.learning import check_target, note_other_scales, spec_of_run, spec_of_truths
    from tipsseg.runs.fit.masked import edited_masks
    from tipsseg.runs.fit.run import fit_masks
    from tipsseg.util.files import json_bytes

    values.refuse_split_lists(paths, question.classes, ())
    _refuse_together(context, paths, fitting)
    check_target(fitting.output, fitted=True, overwrite=fitting.overwrite)
    silence_decoders()
    if truth.layout is not None and not question.classes and question.vocab is None:
        question = replace(question, vocab=preset_of(truth))
    with Progress(fitting.quiet, results=False, wording=as_typed) as progress:
        masks: Masks
        if fitting.gt is None:
            masks = edited_masks(Path(paths[0]), fitting.images, compute.max_pixels)
            spec = spec_of_run(masks, compute)
            spec.check()
            note_other_scales(masks, "The fit is made", progress)
        else:
            spec = spec_of_truths(values.parse_question(question).vocabulary, view, compute)
            spec.check()
            values.note_vocabulary(progress, question.classes, spec.vocabulary)
            masks = _truth_masks(paths, fitting.gt, truth, spec, progress)
        result = fit_masks(spec, masks, fitting.output, progress, quiet=fitting.quiet)
        progress.text(json_bytes(result.record()).decode() + "\n" if fitting.as_json else result.table())
    if result.failed:
        raise typer.Exit(1)


def _truth_masks(paths: list[str], gt: Path, truth: TruthOptions, spec: RunSpec, progress: Progress) -> Masks:
    from tipsseg.runs.common.image_list import found_images, note_inputs
    from tipsseg.runs.evaluate.truth_options import layout_of
    from tipsseg.runs.fit.masked import truth_masks

    found = found_images(map(Path, paths), None, None, gt)
    note_inputs(progress, found)
    layout = layout_of(truth, [entry.name for entry in spec.vocabulary.classes])
    masks = truth_masks(found.refs, gt, layout, spec.max_pixels)
    if masks.without:
        progress.note(f"{masks.without} of {len(found.refs)} images have no mask in {gt}.")
    return masks


def _refuse_together(context: typer.Context, paths: list[str], fitting: Fitting) -> None:
    """Raise UsageError for arguments that have no meaning together."""
    if fitting.gt is not None:
        if fitting.images is not None:
            raise UsageError("--images is for the images of a run, and with --gt the images are given", "Leave it out.")
        return
    for record in (opt.Question, TruthOptions, LabelOptions, ComputeOptions):
        for flag in given_options(context, record):
            if record is not ComputeOptions or flag == "--model":
                raise UsageError(
                    f"{flag} is for images with masks, and a run's folder says that itself",
                    "Leave it out, or give images and the folder of their masks with --gt.",
                )
    if len(paths) > 1:
        raise UsageError(
            f"{len(paths)} folders given, and a fit is to the edited masks of one run",
            "Give one output folder, or images and the folder of their masks with --gt.",
        )
