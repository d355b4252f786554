"""`tipsseg label`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.arguments import stdin
from tipsseg.cli.help import FILES, IMAGES, MACHINES, WHAT, Command, one_of
from tipsseg.cli.values import refuse_split_lists
from tipsseg.cli.wording import as_typed
from tipsseg.errors import InputError, OtherRunError, UsageError
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
from tipsseg.util.printable import shell_line, shell_word

if TYPE_CHECKING:
    from tipsseg.cli.arguments.repeat import RepeatedRun

EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda leg,tree"
  tipsseg label a.jpg b.png -c sky -c "salt, pepper" --format png,overlay -o out
  tipsseg label photos/ --vocab farm.toml --min-confidence 0.5
  find photos -name '*.jpg' -print0 | tipsseg label -0 - -c "car,road" --model b14
  tipsseg label photos/ -c "panda" --jsonl | jq -r 'select(.classes != []).path'
  tipsseg label photos/ -c "panda" --shard 3/8        (of 8 processes or machines the third)
  tipsseg label photos/ --from labels/run.json -o again
  tipsseg label photos/ -c "road" --features feats    (a second question: no model run)
  tipsseg label examples/scenes -c "panda,tree" --model tiny

\b
Masks are 8-bit index PNGs: 0 background, 1..N the classes in the order given (also the
COCO category ids), 255 below --min-confidence; 16-bit above 254 classes.
A run that was broken off goes on by the same command; what is done and unchanged is kept.
Paths of written files go to stdout, all else to stderr.
Exit code: 0 all done, 1 some image failed or an error, 2 wrong usage, 130 or 143 interrupted.
"""


def _take_from(context: typer.Context, path: Path | None) -> Path | None:
    """Let the options of an earlier run take the place of options that are not given; returns the path of that run.

    With --retry-failed and nothing that says what to label it is the run whose images failed.
    """
    if path is None and context.params.get("retry_failed") and not any(map(context.params.get, _WHAT)):
        path = _run_to_retry(context.params["output"], context.params.get("shard"))
    if path is not None:
        from tipsseg.cli.arguments.repeat import read_run_file

        context.default_map = dict(read_run_file(path).options)
    return path


#: The options that say what to label. Like all that `_take_from` looks at they are eager: it has to come after them, and before the
#: options that it has values for.
_WHAT = ("classes", "vocab", "templates", "background")


def _run_to_retry(output: Path, shard: str | None) -> Path:
    from tipsseg.store.run_record import find_run
    from tipsseg.store.shards import parse_shard, state_folder

    state = state_folder(output, None if shard is None else parse_shard(shard))
    if find_run(state) is None:
        raise InputError(f"no run in {state}, so nothing to retry", "Leave out --retry-failed.")
    return state


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=Command, epilog=EPILOG, no_args_is_help=True)
def label(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS",
            help="Images, folders (searched recursively), or - for a list on stdin.",
            show_default=False,
        ),
    ] = None,
    classes: opt.Classes = None,
    vocab: opt.Vocab = None,
    background: opt.Background = None,
    templates: opt.Templates = None,
    min_confidence: opt.MinConfidence = 0.0,
    model: opt.Model = "l14",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    mode: opt.Mode = MODES[0],
    short_side: opt.ShortSide = None,
    scales: opt.Scales = "1",
    refine: opt.Refine = REFINEMENTS[0],
    batch_size: opt.BatchSize = 8,
    features: opt.Features = None,
    output: Annotated[Path, opt.output_option("Output folder.", eager=True, panel=FILES)] = Path("labels"),
    formats: opt.Format = None,
    instances: opt.Instances = INSTANCES[0],
    min_area: opt.MinArea = "1",
    png_mode: opt.PngMode = PNG_MODES[0],
    simplify: opt.Simplify = None,
    val_fraction: opt.ValFraction = None,
    names: opt.Names = NAMES[0],
    limit: opt.Limit = None,
    sample: opt.Sample = None,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel=IMAGES,
            help="Print the images that would be labelled; estimate time and disk by labelling a few.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            rich_help_panel=IMAGES,
            help="Go on from what is done in the output folder; or label all given images again, for the same classes.",
        ),
    ] = True,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            rich_help_panel=FILES,
            help="Start over: remove what an earlier run wrote into the output folder. Corrected masks stay, and other files "
            "that were changed since.",
        ),
    ] = False,
    replace_edited: Annotated[
        bool,
        typer.Option(
            "--replace-edited",
            rich_help_panel=FILES,
            help="Also label images whose files were changed by hand. Without it such files are kept.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            is_eager=True,
            rich_help_panel=IMAGES,
            help="Only images in errors.jsonl; of PATHS, or all where none are given. Without --classes and --vocab: "
            "as that run was asked.",
        ),
    ] = False,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl", rich_help_panel=IMAGES, help="Print one JSON object per image on stdout, in place of paths."
        ),
    ] = False,
    null: opt.NullBoth = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            is_eager=True,
            rich_help_panel=MACHINES,
            help="Only part I of N parts, for several processes or machines; see tipsseg merge.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            rich_help_panel=MACHINES,
            autocompletion=one_of("local", "ray"),
            help="local: this process; ray: actors of a Ray cluster (pip install 'tipsseg[ray]').",
        ),
    ] = "local",
    actors: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=MACHINES,
            help="With --engine ray: actors, each with a model of its own.  [default: 1]",
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            rich_help_panel=MACHINES,
            help="With --engine ray: GPUs of each actor, such as 1 or 0.5.  [default: 0]",
        ),
    ] = None,
    # Behind all that it looks at; see `_take_from`.
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE|DIR",
            parser=opt.path_of("--from"),
            rich_help_panel=WHAT,
            help="Repeat a run: model, classes and options of its run.json, but for options that are given here.",
            callback=_take_from,
            is_eager=True,
        ),
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Label images: write a mask, COCO annotations or an overlay of each."""
    from tipsseg.api import engine_maker
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.image_list import Choice, check_choice, find_images
    from tipsseg.runs.common.progress import Progress
    from tipsseg.runs.label.dry_run import dry_run
    from tipsseg.runs.label.run import run_label
    from tipsseg.store.run_record import plan_run
    from tipsseg.store.shards import parse_shard
    from tipsseg.store.spec import RunSpec

    check_whole_number("argument `max_pixels`", max_pixels)
    silence_decoders()
    given = tuple(paths or ())
    refuse_split_lists(given, classes, formats)
    check_choice(bool(given), limit, sample, retry_failed=retry_failed)
    values.refuse_printed_together(given, null=null, jsonl=jsonl, dry=dry, records="labels")
    if retry_failed and not resume:
        raise UsageError("--retry-failed goes on from a run, and --no-resume starts over", "Give one of them.")
    if retry_failed and overwrite:
        raise UsageError("--retry-failed goes on from a run, and --overwrite starts over", "Give one of them.")
    if engine == "local" and (actors is not None or gpus is not None):
        raise UsageError("--actors and --gpus are for --engine ray", "Leave them out, or add --engine ray.")
    make_engine = engine_maker(engine, 1 if actors is None else actors, 0.0 if gpus is None else gpus, device)
    repeated = _repeated(from_run, [classes, templates, background], vocab)
    asked = values.parse_asked(classes, vocab, templates, background) if repeated is None else _again(repeated, vocab)
    vocabulary = asked.vocabulary
    spec = RunSpec(
        model,
        vocabulary,
        values.label_options(mode, short_side, min_confidence, refine, scales),
        values.file_options(instances, min_area, png_mode, simplify, val_fraction, names),
        values.split_formats(formats),
        output,
        device,
        dtype,
        batch_size,
        thread_count(jobs),
        max_pixels,
        resume,
        overwrite,
        replace_edited,
        None if shard is None else parse_shard(shard),
        use_cache=True,
        features=features,
        fitted=asked.fitted,
    )
    spec.check()
    with Progress(quiet, results=not jsonl, null=null, wording=as_typed) as progress:
        values.note_vocabulary(progress, classes, vocabulary)
        info = plan_run(spec)
        for note in [] if repeated is None else repeated.notes(info):
            progress.note(note)
        listed = stdin.is_list(given)
        entries = stdin.entries(null) if listed else None
        choice = Choice(() if listed else tuple(map(Path, given)), entries, limit, sample, retry_failed)
        images = find_images(spec, choice, progress)
        if dry:
            failed = dry_run(info, images, progress, measure=engine == "local")
        else:
            with make_engine(info, progress.note, quiet) as labeller, _commands_to_paste(output):
                failed = run_label(info, images, labeller, progress, jsonl=jsonl).failed
    if failed:
        raise typer.Exit(1)


@contextmanager
def _commands_to_paste(output: Path) -> Iterator[None]:
    """Say as whole commands what there is to do where the folder has labels of another run."""
    try:
        yield
    except OtherRunError as error:
        command = shell_line(["tipsseg", *_without_output(sys.argv[1:])])
        same, other = (shell_word(name) for name in (str(output), f"{output}-2"))
        ways = {"label into another folder": f"{command} -o {other}"}
        if error.covered:
            ways["start over in this one, where corrected masks stay"] = f"{command} -o {same} --overwrite"
        if error.features is not None:
            ways["label by the features of that run"] = (
                f"{command} -o {same} --features {shell_word(str(error.features))}"
            )
        hint = ", or ".join(ways)
        error.hint, error.commands = f"{hint[0].upper()}{hint[1:]}:", tuple(ways.values())
        raise


def _without_output(arguments: Sequence[str]) -> list[str]:
    """The arguments of this command but for the output folder, and for --no-resume, which means nothing in another one."""
    left: list[str] = []
    skip = False
    for each in arguments:
        if not skip and each not in ("-o", "--output", "--no-resume") and not each.startswith(("-o", "--output=")):
            left.append(each)
        skip = not skip and each in ("-o", "--output")
    return left


def _repeated(path: Path | None, own: Sequence[object], vocab: str | None) -> RepeatedRun | None:
    """The run to repeat; `own`, and `vocab`, are the options that say what to label. Raises UsageError."""
    from tipsseg.cli.arguments.repeat import read_run_file

    if path is None:
        return None
    if any(value is not None for value in own):
        raise UsageError("--from says what to label", "Leave out --classes, --vocab, --templates and --background.")
    found = read_run_file(path)
    if vocab is not None and not found.vocabulary.fit:
        raise UsageError("--from says what to label", "Leave out --classes, --vocab, --templates and --background.")
    return found


def _again(repeated: RepeatedRun, vocab: str | None) -> values.Asked:
    """What a repeated run is to label. Raises UsageError where the vectors that it labelled by are not given."""
    vocabulary = repeated.vocabulary
    if not vocabulary.fit:
        return values.Asked(vocabulary)
    fitted = None if vocab is None else values.read_fit(Path(vocab))
    if fitted is None or fitted.vocabulary.fit != vocabulary.fit:
        of = f" of {vocabulary.source}" if vocabulary.source else ""
        where = "it does not hold" if vocab is None else f"{vocab} does not have"
        raise UsageError(
            f"{repeated.path} is of a run with the fitted vectors{of}, which {where}",
            f"Give that file too: --vocab {vocabulary.source or 'FIT'}",
        )
    return values.Asked(vocabulary, fitted)
