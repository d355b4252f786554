"""`tipsseg fit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.help import FILES, TRUTH, Command
from tipsseg.cli.values import refuse_split_lists
from tipsseg.cli.wording import as_typed
from tipsseg.errors import UsageError
from tipsseg.options import MAX_PIXELS, MODES, REFINEMENTS, check_whole_number, thread_count

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

#: Options that say what to label and how, which a run says itself.
_OF_IMAGES = ("classes", "vocab", "background", "templates", "model", "mode", "short_side", "layout", "ignore_index",
              "reduce_zero_label", "zero_based")  # fmt: skip


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=Command, epilog=EPILOG, no_args_is_help=True)
def fit(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT|IMAGES", help="The output folder of tipsseg label; or with --gt images and folders of images."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=opt.path_of("--output"),
            rich_help_panel=FILES,
            help="The file of the fit, which ends with .fit.",
        ),
    ],
    images: opt.Images = None,
    gt: Annotated[
        Path | None,
        typer.Option(
            "--gt", metavar="DIR", parser=opt.path_of("--gt"), rich_help_panel=TRUTH, help="Folder of the masks."
        ),
    ] = None,
    layout: opt.TruthLayout = None,
    ignore_index: opt.IgnoreIndex = None,
    reduce_zero_label: opt.ReduceZeroLabel = False,
    zero_based: opt.ZeroBased = False,
    classes: opt.Classes = None,
    vocab: opt.Vocab = None,
    background: opt.Background = None,
    templates: opt.Templates = None,
    model: opt.Model = "l14",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    mode: opt.Mode = MODES[0],
    short_side: opt.ShortSide = None,
    batch_size: opt.BatchSize = 8,
    features: opt.Features = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=FILES, help="Replace the file where it is there.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=FILES, help="Print the scores as one JSON object.")
    ] = False,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    quiet: opt.Quiet = False,
) -> None:
    """Learn classes from masks of a few images, for --vocab of label and eval."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.image_list import found_images, note_inputs
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.evaluate.truth_options import TruthOptions
    from tipsseg.runs.fit.masked import Masks, edited_masks, truth_masks
    from tipsseg.runs.fit.run import check_target, fit_masks, note_left_out, spec_of_run
    from tipsseg.store.spec import RunSpec
    from tipsseg.util.files import json_bytes

    refuse_split_lists(paths, classes, None)
    check_whole_number("argument `max_pixels`", max_pixels)
    _refuse_together(context, paths, gt, images)
    check_target(output, overwrite=overwrite)
    silence_decoders()
    truth = TruthOptions(layout, ignore_index, reduce_zero_label, zero_based)
    if layout is not None and not classes and vocab is None:
        vocab = truth.benchmark().vocabulary
    with Progress(quiet, results=False, wording=as_typed) as progress:
        edited = edited_masks(Path(paths[0]), images, max_pixels) if gt is None else None
        if edited is None:
            # Of an earlier fit the words are taken.
            vocabulary = replace(values.parse_asked(classes, vocab, templates, background).vocabulary, fit="")
        else:
            vocabulary = edited.run.info.spec.vocabulary
        wish = RunSpec(
            model,
            vocabulary,
            values.label_options(mode, short_side, 0.0, REFINEMENTS[0]),
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
        spec = wish if edited is None else spec_of_run(edited, wish)
        spec.check()
        masks: Masks
        if edited is not None:
            masks = edited
            note_left_out(edited, "The fit is made", progress)
        else:
            assert gt is not None
            values.note_vocabulary(progress, classes, vocabulary)
            found = found_images(map(Path, paths), None, None, gt)
            note_inputs(progress, found)
            wanted = truth.layout([entry.name for entry in vocabulary.classes])
            masks = truth_masks(found.refs, gt, wanted, max_pixels)
            if masks.without:
                progress.note(f"{masks.without} of {len(found.refs)} images have no mask in {gt}.")
        result = fit_masks(spec, masks, output, progress, quiet=quiet)
        progress.text(json_bytes(result.record()).decode() + "\n" if as_json else result.table())
    if result.failed:
        raise typer.Exit(1)


def _refuse_together(context: typer.Context, paths: list[str], gt: Path | None, images: Path | None) -> None:
    """Raise UsageError for arguments that have no meaning together."""
    if gt is not None:
        if images is not None:
            raise UsageError("--images is for the images of a run, and with --gt the images are given", "Leave it out.")
        return
    for name in _OF_IMAGES:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"--{name.replace('_', '-')} is for images with masks, and a run's folder says that itself",
                "Leave it out, or give images and the folder of their masks with --gt.",
            )
    if len(paths) > 1:
        raise UsageError(
            f"{len(paths)} folders given, and a fit is to the edited masks of one run",
            "Give one output folder, or images and the folder of their masks with --gt.",
        )
