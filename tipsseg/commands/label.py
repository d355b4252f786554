"""`tipsseg label`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tipsseg.commands import options as opt
from tipsseg.records import MODES, REFINEMENTS, LabelOptions, name_order

if TYPE_CHECKING:
    from tipsseg.outcome import Failed
    from tipsseg.progress import Progress
    from tipsseg.records import ImageRef
    from tipsseg.request import LabelRequest
    from tipsseg.run import Images

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
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Go on from what is done in the output folder; or do everything again, which replaces files but deletes none.",
        ),
    ] = True,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Only part I of N parts, for several processes or machines; see tipsseg merge.", metavar="I/N"
        ),
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print one JSON object an image on stdout, in place of paths.")
    ] = False,
    null: opt.Null = False,
    quiet: opt.Quiet = False,
) -> None:
    """Label images: write a mask, COCO annotations or an overlay of each."""
    from tipsseg.engine import LocalEngine
    from tipsseg.progress import Progress
    from tipsseg.request import LabelRequest, make_job
    from tipsseg.run import run_label
    from tipsseg.shards import parse_shard

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
        resume,
        None if shard is None else parse_shard(shard),
        jsonl,
    )
    source = request.check()
    with Progress(quiet, results=not jsonl) as progress:
        opt.note_vocabulary(progress, classes, vocabulary)
        images = _find(paths, null, request, limit, sample, progress)
        job = make_job(request, source)
        counts = run_label(job, images, LocalEngine(job), progress)
    if counts.failed:
        raise typer.Exit(1)


def _find(
    paths: Sequence[str], null: bool, request: LabelRequest, limit: int | None, sample: int | None, progress: Progress
) -> Images:
    """The images of the run. Raises UsageError and InputError."""
    from tipsseg import inputs
    from tipsseg.file_names import name_key
    from tipsseg.run import Images

    shard, key = request.shard, name_key(request.output)
    if sample is None and opt.from_stdin(paths, null):
        listed = islice(inputs.stream(opt.stdin_entries(null), output=request.output, key=key), limit)
        return Images((each for each in listed if shard is None or shard.takes(each.name)), Path.cwd())
    found = inputs.choose(opt.find_images(paths, null, request.output), limit, sample)
    opt.note_inputs(progress, found)
    inputs.check_collisions(found.refs, key)
    inputs.check_not_outputs(found.refs, request.output, key)
    # A folder that cannot be listed is told by each shard, as its images are of any of them.
    refs: list[ImageRef | Failed] = [*found.refused]
    refs += [each for each in found.refs if shard is None or shard.takes(each.name)]
    return Images(tuple(sorted(refs, key=lambda each: name_order(each.name))), found.root)
