"""The `tipsseg fit` command: learn classes from masks."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import stdin, values
from tipsseg.cli.parameters import Only, command, given_options
from tipsseg.cli.wording import open_progress
from tipsseg.errors import UsageError
from tipsseg.options import LabelOptions
from tipsseg.options.fields import FILES, TRUTH, WHAT, option
from tipsseg.options.run import ComputeOptions, TruthOptions

if TYPE_CHECKING:
    from tipsseg.commands.fit.masks import Masks
    from tipsseg.run.spec import RunSpec
    from tipsseg.util.progress import Progress

EPILOG = """\b
Examples:
  tipsseg fit labels/ -o farm.fit                   (edited masks of a run)
  tipsseg fit labels/ -o farm.fit --features feats  (reuse stored features)
  tipsseg fit labels/ --precision 0.95 -o farm.toml (choose minimum confidences)
  tipsseg fit photos/ --gt masks/ --vocab farm.toml -o farm.fit
  tipsseg label photos/ --vocab farm.fit -o better

\b
Ignores pixels with id 255. A class that the masks lack, or that they do not
improve, keeps its text vector. Can learn classes that the model has no words
for. Prints the IoU per class on held-out images on stdout, and everything else
on stderr.
With --precision, chooses minimum confidences instead, below which tipsseg label
writes 255, and prints the precision on held-out images.
Exit code: 0 success; 1 an error, or an image failed; 2 usage error.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    # fmt: off
    output: Path = option(MISSING, metavar="FILE", short="o", group=FILES,
        help="File to write: .fit; with --precision, .toml, or .fit beside the vectors of --vocab.")
    precision: float | None = option(None, metavar="0..1", group=WHAT,
        help="Instead of vectors, choose minimum confidences at which this fraction of each class's labelled pixels is correct.")
    images: Path | None = option(None, metavar="DIR", group=TRUTH,
        help=opt.IMAGES_HELP)
    gt: Path | None = option(None, metavar="DIR", group=TRUTH, help="Folder of ground-truth masks.")
    overwrite: bool = option(False, group=FILES, help="Replace an existing file.")
    as_json: bool = option(False, flag="json", group=FILES, help="Print the scores as one JSON object.")
    quiet: bool = option(False, short="q", help=opt.QUIET_HELP)
    # fmt: on


@command(EPILOG)
def fit(
    context: typer.Context,
    fitting: Fitting,
    truth: TruthOptions,
    question: opt.Asked,
    compute: ComputeOptions,
    view: Annotated[LabelOptions, Only("mode", "short_side", "stretch")],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT|IMAGES", help="The output folder of tipsseg label; with --gt, images and folders of images."
        ),
    ],
) -> int:
    """Learn classes from the masks of a few images, for label --vocab and eval --vocab."""
    from tipsseg.commands.fit.masks import edited_masks
    from tipsseg.commands.fit.vectors import check_target, fit_masks, note_other_scales, spec_of_run, spec_of_truths
    from tipsseg.learning.truth import preset_of
    from tipsseg.util.files import local_path
    from tipsseg.util.json import json_bytes

    values.refuse_split_lists(paths, question.classes, ())
    _refuse_together(context, paths, fitting)
    if fitting.precision is not None:
        folder = local_path("the output folder", paths[0])
        return _choose_thresholds(folder, fitting, fitting.precision, question.vocab, compute)
    check_target(fitting.output, fitted=True, overwrite=fitting.overwrite)
    if truth.layout is not None and not question.classes and question.vocab is None:
        question = replace(question, vocab=preset_of(truth))
    with open_progress(fitting.quiet, results=False) as progress:
        masks: Masks
        if fitting.gt is None:
            masks = edited_masks(local_path("the output folder", paths[0]), fitting.images)
            spec = spec_of_run(masks, compute)
            spec.check()
            note_other_scales(masks, progress)
        else:
            spec = spec_of_truths(values.parse_question(question)[0], view, compute)
            spec.check()
            values.note_vocabulary(progress, question.classes, spec.vocabulary)
            masks = _truth_masks(paths, fitting.gt, truth, spec, progress)
        result = fit_masks(spec, masks, fitting.output, progress, quiet=fitting.quiet)
        progress.text(json_bytes(result.record()).decode() + "\n" if fitting.as_json else result.table())
    return result.failed


def _choose_thresholds(
    folder: Path, fitting: Fitting, precision: float, vocab: str | None, compute: ComputeOptions
) -> int:
    from tipsseg.commands.fit.thresholds import fit_run_thresholds
    from tipsseg.commands.fit.vectors import check_target
    from tipsseg.util.json import json_bytes
    from tipsseg.vocabulary.fitted import is_fit

    if vocab is not None and not is_fit(vocab):
        raise UsageError(
            f"--vocab {vocab} is not a .fit file; the classes come from the run",
            "Remove --vocab, or name the .fit file that the run was labelled with.",
        )
    check_target(fitting.output, fitted=vocab is not None, overwrite=fitting.overwrite)
    fitted = None if vocab is None else values.read_fit(Path(vocab))
    with open_progress(fitting.quiet, results=False) as progress:
        result = fit_run_thresholds(folder, precision, fitted, fitting.images, compute, progress, quiet=fitting.quiet)
        result.save(fitting.output)
        progress.note(f"Wrote {fitting.output}.")
        progress.text(json_bytes(result.record()).decode() + "\n" if fitting.as_json else result.table())
    return result.failed


def _truth_masks(paths: list[str], gt: Path, truth: TruthOptions, spec: RunSpec, progress: Progress) -> Masks:
    from tipsseg.commands.fit.masks import truth_masks
    from tipsseg.learning.truth import layout_of
    from tipsseg.run.inputs import Ignored

    found = stdin.find_named(paths, False, Ignored(None, gt), progress)
    layout = layout_of(truth, [entry.name for entry in spec.vocabulary.classes], gt)
    masks = truth_masks(found.refs, gt, layout, spec.reader)
    if masks.without:
        progress.note(f"{masks.without} of {len(found.refs)} images have no mask in {gt}.")
    return masks


def _refuse_together(context: typer.Context, paths: list[str], fitting: Fitting) -> None:
    if fitting.gt is not None:
        if fitting.precision is not None:
            raise UsageError(
                "--precision and --gt exclude each other",
                "Name the output folder of tipsseg label, with corrected masks.",
            )
        if fitting.images is not None:
            raise UsageError(
                "--images and --gt exclude each other", "Remove --images, and name the images as arguments."
            )
        return
    for record in (opt.Question, TruthOptions, LabelOptions, ComputeOptions):
        for flag in given_options(context, record):
            if flag == "--vocab" and fitting.precision is not None:
                continue
            if record is not ComputeOptions or flag == "--model":
                raise UsageError(
                    f"{flag} needs --gt; without --gt the run's own settings apply",
                    f"Remove {flag}, or name images and set the folder of their masks with --gt.",
                )
    if len(paths) > 1:
        raise UsageError(
            f"fit takes one output folder, got {len(paths)}",
            "Name one output folder, or name images and set the folder of their masks with --gt.",
        )
