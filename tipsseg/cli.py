"""The command line: parse, call, print. One function a command; the only place that prints errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tipsseg.errors import TipssegError, UsageError, WeightsError
from tipsseg.progress import counted, print_path, printable
from tipsseg.records import MODES
from tipsseg.writers import FORMATS

if TYPE_CHECKING:
    from tipsseg.inputs import Found

_INTERRUPTED = 130

_MAIN_HELP = "Label every pixel of images with your own phrases, by TIPSv2."

_MAIN_EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda leg,tree"
  tipsseg weights download l14
  tipsseg label --help
"""

_LABEL_EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda leg,tree"
  tipsseg label a.jpg b.png -c sky -c "salt, pepper" --format png,overlay -o out
  find photos -name '*.jpg' -print0 | tipsseg label -0 - -c "car,road" --model b14
  tipsseg label examples/scenes -c "panda,tree" --model tiny

\b
Masks are 8-bit index PNGs: 0 background, 1..N the classes in the order given (also the
COCO category ids), 255 below --min-confidence; 16-bit above 254 classes.
Paths of written files go to stdout, all else to stderr.
Exit code: 0 all done, 1 some image failed or an error, 2 wrong usage.
"""


class _Group(TyperGroup):
    """Turns expected errors into `Error:` and `Hint:` lines and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TipssegError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            raise typer.Exit(_INTERRUPTED) from None


app = typer.Typer(
    name="tipsseg",
    cls=_Group,
    help=_MAIN_HELP,
    epilog=_MAIN_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(help="Download and verify the pinned weights.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Entry point of the `tipsseg` command."""
    # A stream that the caller closed is None here; printing to it should do nothing.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    app()


def print_error(error: TipssegError) -> None:
    """`Error:` and, where there is one, `Hint:`, on stderr."""
    print(f"Error: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"Hint: {printable(error.hint)}", file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        from tipsseg import __version__

        print(f"tipsseg {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog=_LABEL_EPILOG, no_args_is_help=True)
def label(
    paths: Annotated[
        list[str], typer.Argument(help="Images, folders (searched recursively), or - for a list on stdin.")
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes",
            "-c",
            help='What to label: "panda leg,tree". A name with a comma: repeat -c, once for each name.',
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")] = Path("labels"),
    model: Annotated[
        str, typer.Option("--model", "-m", help="l14, b14, so400m14, g14, tiny, or a folder in the hub layout.")
    ] = "l14",
    formats: Annotated[
        str, typer.Option("--format", "-f", help=f"One or more, with commas: {', '.join(FORMATS)}.")
    ] = "png,coco",
    background: Annotated[
        str,
        typer.Option(
            help='Phrases that compete and are written as 0: auto (general stuff), none, or a list such as "sky,wall".'
        ),
    ] = "auto",
    min_confidence: Annotated[
        float, typer.Option(help="Pixels below this confidence (0..1) are written as 255, ignored.")
    ] = 0.0,
    min_area: Annotated[
        int, typer.Option(help="Smaller connected components, in pixels, are left out of annotations.json.")
    ] = 1,
    mode: Annotated[str, typer.Option(help="slide: overlapping windows; whole: the image at once.")] = MODES[0],
    short_side: Annotated[
        int | None, typer.Option(help="Resize the shorter side to this many pixels.  [default: the model's own size]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto (cuda, then mps, then cpu), cpu, cuda, cuda:N, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Windows that the model takes at once.")] = 8,
    jobs: Annotated[int | None, typer.Option(help="Threads that decode images.  [default: up to 4]")] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list on stdin is separated by NUL, not lines.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")] = False,
) -> None:
    """Label images: write a mask, COCO annotations or an overlay of each."""
    from tipsseg import inputs
    from tipsseg.progress import Progress
    from tipsseg.records import LabelOptions
    from tipsseg.run import LabelRequest, run_label
    from tipsseg.vocabulary import make_vocabulary, parse_background, split_names

    for value in classes or ():
        if Path(value).suffix in (".txt", ".csv", ".json", ".toml", ".names") and Path(value).is_file():
            raise UsageError(
                f"--classes takes names, and {value} is a file", f'For one name a line: -c "$(cat {value})"'
            )
    request = LabelRequest(
        output=output,
        model=model,
        vocabulary=make_vocabulary(split_names(classes or ()), parse_background(background)),
        options=LabelOptions(mode, short_side, min_confidence),
        formats=tuple(name.strip() for name in formats.split(",")),
        min_area=min_area,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        jobs=jobs if jobs is not None else min(os.cpu_count() or 1, 4),
        quiet=quiet,
    )
    source = request.check()
    found = inputs.from_list(_stdin_entries(null), output=output) if paths == ["-"] else _find(paths, null, output)
    with Progress(len(found.refs), quiet) as progress:
        if classes and len(classes) > 1 and any("," in value for value in classes):
            progress.note("--classes was given several times, so each value is one class, commas and all.")
        if found.skipped:
            progress.note(f"Skipped in the folders: {counted(found.skipped, 'other file')}, no image by its extension.")
        if found.outputs:
            progress.note(f"Not searched, as a place of outputs: {', '.join(map(str, found.outputs))}.")
        counts = run_label(request, source, found, progress)
    if counts.failed:
        raise typer.Exit(1)


def _find(paths: Sequence[str], null: bool, output: Path) -> Found:
    from tipsseg import inputs

    if "-" in paths:
        raise UsageError("- stands for a list on stdin and cannot be mixed with other paths")
    urls = [path for path in paths if "://" in path]
    if urls:
        raise UsageError(f"{urls[0]} is an address, not a path", "Download the image first.")
    if null:
        raise UsageError("-0 is for a list on stdin, but the paths are arguments", "Give - as the only path.")
    return inputs.find([Path(path) for path in paths], output=output)


def _stdin_entries(null: bool) -> Sequence[bytes]:
    data = sys.stdin.buffer.read() if sys.stdin else b""
    if not data.strip():
        raise UsageError("the list on stdin is empty")
    if null and b"\0" not in data and b"\n" in data.rstrip():
        raise UsageError("the list on stdin has lines and no NUL", "Leave out -0.")
    if not null and b"\0" in data:
        raise UsageError("the list on stdin is separated by NUL", "Add -0.")
    return data.split(b"\0" if null else b"\n")


@weights_app.command("list")
def list_weights() -> None:
    """The models in weights.lock, and which are here."""
    from tipsseg import weights

    for model in weights.read_lock().values():
        size = sum(file.size or 0 for file in model.files)
        known = all(file.sha256 for file in model.files)
        state = "embedded" if model.embedded else "downloaded" if weights.locate(model) else "not downloaded"
        hashes = "hashes in the lock" if known else "hashes from the hub"
        source = (
            f"{model.repository}@{model.revision[:12]}" if model.repository and model.revision else "in the package"
        )
        megabytes = f"{size / 1e6:.1f} MB" if known else f"{model.parameters * 4 / 1e6:.0f} MB as float32"
        print(
            f"{model.id:10} {model.parameters / 1e6:8.1f}M parameters  {megabytes}  {model.licence}  {source}  {state}, {hashes}"
        )


@weights_app.command()
def download(
    models: Annotated[list[str], typer.Argument(help="Ids of models: l14, b14, so400m14, g14, tiny.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Download models into the hub cache, and verify them."""
    from tipsseg import weights

    for spec in [weights.get_model(model) for model in models]:
        print_path(weights.fetch(spec, quiet=quiet))


@weights_app.command()
def verify(
    models: Annotated[list[str] | None, typer.Argument(help="Ids of models; all when left out.")] = None,
) -> None:
    """Hash the files that are here afresh; a wrong one is removed, with an error.

    Models that are named must be all here, or the exit code is 1 too.
    """
    from tipsseg import weights

    lock = weights.read_lock()
    wanted = [weights.get_model(model) for model in models] if models else list(lock.values())
    complete = True
    for spec in wanted:
        for report in weights.verify(spec):
            print(f"{spec.id:10} {report.name:20} {report.state}")
            complete = complete and report.state == "ok"
    # Models that nobody asked for may be absent.
    if models and not complete:
        raise typer.Exit(1)


@weights_app.command()
def lock(models: Annotated[list[str] | None, typer.Argument(help="Ids of models; all when left out.")] = None) -> None:
    """Ask the hub for sizes and hashes of the pinned revisions, and write them into weights.lock."""
    from tipsseg import weights

    path = weights.find_lock()
    entries = weights.read_lock(path)
    for spec in [weights.get_model(model) for model in models] if models else list(entries.values()):
        entries[spec.id] = weights.resolve_hashes(spec)
    weights.write_lock(path, entries)
    print_path(path)


@weights_app.command("path")
def show_path(model: Annotated[str, typer.Argument(help="Id of a model.")]) -> None:
    """The folder of a model's files; an error when they are not here."""
    from tipsseg import weights

    folder = weights.locate(weights.get_model(model))
    if folder is None:
        raise WeightsError(f"the files of {model} are not here", f"Run: tipsseg weights download {model}")
    print_path(folder)
