"""`tipsseg label`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tipsseg.commands import options as opt
from tipsseg.records import MODES, REFINEMENTS, LabelOptions

EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda leg,tree"
  tipsseg label a.jpg b.png -c sky -c "salt, pepper" --format png,overlay -o out
  tipsseg label photos/ --vocab farm.toml --min-confidence 0.5
  find photos -name '*.jpg' -print0 | tipsseg label -0 - -c "car,road" --model b14
  tipsseg label photos/ -c "panda" --jsonl | jq -r 'select(.classes != []).path'
  tipsseg label examples/scenes -c "panda,tree" --model tiny

\b
Masks are 8-bit index PNGs: 0 background, 1..N the classes in the order given (also the
COCO category ids), 255 below --min-confidence; 16-bit above 254 classes.
Paths of written files go to stdout, all else to stderr.
Exit code: 0 all done, 1 some image failed or an error, 2 wrong usage.
"""


def label(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATHS", help="Images, folders (searched recursively), or - for a list on stdin."),
    ],
    classes: opt.Classes = None,
    vocab: opt.Vocab = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")] = Path("labels"),
    model: opt.Model = "l14",
    formats: Annotated[str, typer.Option("--format", "-f", help=opt.FORMAT_HELP)] = "png,coco",
    background: opt.Background = None,
    templates: opt.Templates = None,
    min_confidence: opt.MinConfidence = 0.0,
    min_area: opt.MinArea = 1,
    mode: opt.Mode = MODES[0],
    short_side: opt.ShortSide = None,
    refine: opt.Refine = REFINEMENTS[0],
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    batch_size: opt.BatchSize = 8,
    jobs: opt.Jobs = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N images.", metavar="N")] = None,
    sample: Annotated[
        int | None, typer.Option(help="Only N images, drawn at random, always the same.", metavar="N")
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one JSON object an image on stdout, in place of paths.")
    ] = False,
    null: opt.Null = False,
    quiet: opt.Quiet = False,
) -> None:
    """Label images: write a mask, COCO annotations or an overlay of each."""
    from tipsseg.inputs import choose
    from tipsseg.progress import Progress
    from tipsseg.run import LabelRequest, run_label

    vocabulary = opt.parse_vocabulary(classes, vocab, templates, background)
    request = LabelRequest(
        opt.model_request(
            vocabulary,
            LabelOptions(mode, short_side, min_confidence, refine),
            model=model,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            jobs=jobs,
            quiet=quiet,
        ),
        output,
        opt.split_formats(formats),
        min_area,
        jsonl,
    )
    source = request.check()
    found = choose(opt.find_images(paths, null, output), limit, sample)
    with Progress(quiet, results=not jsonl) as progress:
        opt.note_inputs(progress, found, classes, vocabulary)
        counts = run_label(request, source, found, progress)
    if counts.failed:
        raise typer.Exit(1)
