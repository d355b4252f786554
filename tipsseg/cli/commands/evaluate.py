"""`tipsseg eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.arguments import stdin
from tipsseg.cli.help import FILES, TRUTH, Command
from tipsseg.cli.values import refuse_split_lists
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.options import (
    INSTANCES,
    MAX_PIXELS,
    MODES,
    NAMES,
    PNG_MODES,
    REFINEMENTS,
    check_whole_number,
    thread_count,
)

if TYPE_CHECKING:
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.evaluate.run import Evaluation

EPILOG = """\b
Examples:
  tipsseg eval photos/ --gt masks/ --classes "panda leg,tree"
  tipsseg eval --pred labels/ --gt masks/
  tipsseg eval ADEChallengeData2016/images/validation \\
      --gt ADEChallengeData2016/annotations/validation --layout ade20k

\b
Truth masks hold ids: 0 background (scored as a class), 1..N the classes in the order given,
255 pixels that do not count; other numberings: --ignore-index, --reduce-zero-label,
--zero-based, --layout. A truth has the relative path of its image, or its file name.
All pixels of all images are counted in one confusion matrix, at the truth's size.
Exit code: 0 all done, 1 some image failed or an error, 2 wrong usage.
"""

#: Options that say how to label; without use where masks are given.
_LABELLING = ("background", "templates", "model", "mode", "short_side", "scales", "refine", "min_confidence",
              "device", "dtype", "batch_size", "features", "null")  # fmt: skip

#: Options that say how labels become files.
_WRITING = ("instances", "min_area", "png_mode", "simplify", "val_fraction", "names")


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("eval", cls=Command, epilog=EPILOG, no_args_is_help=True)
def evaluate(
    context: typer.Context,
    gt: Annotated[
        Path,
        typer.Option(
            "--gt", metavar="DIR", parser=opt.path_of("--gt"), rich_help_panel=TRUTH, help="Folder of the truth masks."
        ),
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="Images, folders, or - for a list on stdin; not with --pred."),
    ] = None,
    pred: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=opt.path_of("--pred"),
            rich_help_panel=TRUTH,
            help="Score the masks in this folder, which may be a run's output folder.",
        ),
    ] = None,
    classes: opt.Classes = None,
    vocab: opt.Vocab = None,
    layout: opt.TruthLayout = None,
    ignore_index: opt.IgnoreIndex = None,
    reduce_zero_label: opt.ReduceZeroLabel = False,
    zero_based: opt.ZeroBased = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=FILES, help="Print the scores as one JSON object.")
    ] = False,
    output: Annotated[
        Path | None,
        opt.output_option("Folder for eval.json, confusion.csv and --format.", panel=FILES),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            rich_help_panel=FILES,
            help="Also make the page of tipsseg report of the labels in that folder, with the matrix and the worst images.",
        ),
    ] = False,
    formats: Annotated[
        list[str] | None,
        opt.format_option("Write the labels too. " + opt.FORMAT_HELP, panel=FILES),
    ] = None,
    model: opt.Model = "l14",
    background: opt.Background = None,
    templates: opt.Templates = None,
    min_confidence: opt.MinConfidence = 0.0,
    instances: opt.Instances = INSTANCES[0],
    min_area: opt.MinArea = "1",
    png_mode: opt.PngMode = PNG_MODES[0],
    simplify: opt.Simplify = None,
    val_fraction: opt.ValFraction = None,
    names: opt.Names = NAMES[0],
    mode: opt.Mode = MODES[0],
    short_side: opt.ShortSide = None,
    scales: opt.Scales = "1",
    refine: opt.Refine = REFINEMENTS[0],
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    batch_size: opt.BatchSize = 8,
    features: opt.Features = None,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    null: opt.Null = False,
    quiet: opt.Quiet = False,
) -> None:
    """Score labels against truth masks: mean IoU, IoU of each class, confusion matrix."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.image_list import found_images, note_inputs
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.evaluate.predictions import masks_folder, names_of
    from tipsseg.runs.evaluate.run import check_output, evaluate_masks, evaluate_model
    from tipsseg.runs.evaluate.truth_options import TruthOptions
    from tipsseg.store.spec import RunSpec

    refuse_split_lists(paths or (), classes, formats)
    _refuse_together(context)
    if report:
        _refuse_report(context)
    check_whole_number("argument `max_pixels`", max_pixels)
    silence_decoders()
    truth = TruthOptions(layout, ignore_index, reduce_zero_label, zero_based)
    if layout is not None and not classes and vocab is None:
        vocab = truth.benchmark().vocabulary
    with Progress(quiet, results=False, wording=as_typed) as progress:
        if pred is not None:
            threads = thread_count(jobs)
            masks = masks_folder(pred)
            named = None
            if classes or vocab is not None:
                named = [entry.name for entry in values.parse_asked(classes, vocab, None, None).vocabulary.classes]
            class_names = names_of(pred, named)
            truths = truth.layout(class_names)
            if output is not None:
                check_output(output, (gt, masks), labels=False)
            evaluation = evaluate_masks(pred, gt, truths, class_names, threads, progress, max_pixels)
        else:
            asked = values.parse_asked(classes, vocab, templates, background)
            vocabulary = asked.vocabulary
            writes = formats is not None and output is not None
            spec = RunSpec(
                model,
                vocabulary,
                values.label_options(mode, short_side, min_confidence, refine, scales),
                values.file_options(instances, min_area, png_mode, simplify, val_fraction, names),
                values.split_formats(formats) if writes else (),
                output or Path(),
                device,
                dtype,
                batch_size,
                thread_count(jobs),
                max_pixels,
                resume=False,
                use_cache=True,
                features=features,
                fitted=asked.fitted,
            )
            truths = truth.layout([entry.name for entry in vocabulary.classes])
            spec.check()
            if output is not None:
                check_output(output, (gt,), labels=writes)
            given = tuple(paths or ())
            listed = stdin.is_list(given)
            found = found_images(
                map(Path, () if listed else given), stdin.entries(null) if listed else None, output, gt
            )
            values.note_vocabulary(progress, classes, vocabulary)
            note_inputs(progress, found)
            evaluation = evaluate_model(spec, found, gt, truths, progress, quiet=quiet)
        _report(evaluation, output, as_json, progress)
        shown = not report or output is None or _make_page(output, features, thread_count(jobs), max_pixels, progress)
    if evaluation.failed or not shown:
        raise typer.Exit(1)


def _refuse_together(context: typer.Context) -> None:
    """Raise UsageError for arguments that have no meaning together."""
    images, pred = bool(context.params["paths"]), _given(context, "pred")
    if images == pred:
        raise UsageError(
            "images and --pred exclude each other" if pred else "nothing to score: no images and no --pred",
            "Give images to label and score, or --pred with a folder of masks.",
        )
    if images and _given(context, "null") and list(map(str, context.params["paths"])) != ["-"]:
        raise UsageError("-0 is for a list on stdin, but the paths are arguments", "Give - as the only path.")
    for name in (*_LABELLING, *_WRITING):
        if pred and _given(context, name):
            raise UsageError(f"--{name.replace('_', '-')} is for labelling, and with --pred nothing is labelled")
    if not _given(context, "formats"):
        for name in _WRITING:
            if _given(context, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} is for the labels that --format writes",
                    "Give --format coco, and a folder with -o.",
                )
    elif pred or not _given(context, "output"):
        raise UsageError("--format writes labels of images into a folder", "Give images, and the folder with -o.")


def _refuse_report(context: typer.Context) -> None:
    """Raise UsageError where --report has no labels to show."""
    from tipsseg.store.run_record import RUN_FILE

    output = context.params["output"]
    if output is None:
        raise UsageError("--report makes a page in a folder, and there is none", "Give the folder with -o.")
    if context.params["paths"] and not context.params["formats"]:
        raise UsageError("--report shows the labels that --format writes", "Give --format png too.")
    if context.params["pred"] is not None and not (output / RUN_FILE).exists():
        raise UsageError(
            f"--report shows the labels of a run, and {output} holds none",
            "Give the output folder of tipsseg label with -o.",
        )


def _make_page(output: Path, features: Path | None, jobs: int, max_pixels: int, progress: Progress) -> bool:
    """Make the page of tipsseg report; returns whether all images have a picture."""
    from tipsseg.runs.report.make import make_report

    return not make_report(output, None, None, jobs, progress, max_pixels, features)


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _report(evaluation: Evaluation, output: Path | None, as_json: bool, progress: Progress) -> None:
    from tipsseg.evaluation.metrics import misplaced, row_names, table
    from tipsseg.runs.evaluate.run import write_reports
    from tipsseg.util.files import json_bytes
    from tipsseg.util.printable import counted

    if output is not None:
        written = write_reports(evaluation, output)
        progress.note(f"Written: {', '.join(map(str, written))}")
    if swapped := misplaced(evaluation.confusion):
        names = row_names(evaluation.confusion, evaluation.names)
        first, taken = swapped[0]
        progress.note(
            f"Most of what is {names[first]!r} in the truth is labelled {names[taken]!r}, and likewise for "
            f"{counted(len(swapped) - 1, 'more class', 'more classes')}. Are the classes in the order of the truth's ids? If these "
            "begin otherwise, see --zero-based and --layout."
        )
    if evaluation.failed:
        progress.note(f"The scores leave out {evaluation.failed} that failed.")
    if not evaluation.scores.truth_pixels[[number > 0 for number in evaluation.scores.ids]].any():
        progress.note(
            "The truth has no pixel of any class. If its ids mean something else, see --ignore-index, --zero-based and --layout."
        )
    progress.end()
    progress.text(json_bytes(evaluation.record()).decode() + "\n" if as_json else table(evaluation.scores))
