"""The `tipsseg weights` commands: download and verify models."""

from __future__ import annotations

from typing import Annotated

import typer

from tipsseg.cli.help import Command, completion_of
from tipsseg.cli.main import Group
from tipsseg.errors import WeightsError
from tipsseg.util.progress import print_path

weights = typer.Typer(
    cls=Group,
    help="Download and verify the pinned weights.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        autocompletion=completion_of("models"),
        help="Model ids: l14, b14, so400m14, g14, tiny.  [default: all]",
    ),
]


@weights.command("list", cls=Command)
def list_weights() -> None:
    """List the models in weights.lock, and whether they are downloaded."""
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import read_lock

    for model in read_lock().values():
        size = sum(file.size or 0 for file in model.files)
        known = all(file.sha256 for file in model.files)
        state = "embedded" if model.embedded else "downloaded" if fetching.locate(model) else "not downloaded"
        hashes = "hashes in the lock" if known else "hashes from the hub"
        source = (
            f"{model.repository}@{model.revision[:12]}" if model.repository and model.revision else "in the package"
        )
        megabytes = f"{size / 1e6:.1f} MB" if known else f"{model.parameters * 4 / 1e6:.0f} MB as float32"
        print(
            f"{model.id:10} {model.parameters / 1e6:8.1f}M parameters  {megabytes}  {model.licence}  {source}  {state}, {hashes}"
        )


@weights.command(cls=Command)
def download(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="ID", autocompletion=completion_of("models"), help="Model ids: l14, b14, so400m14, g14, tiny."
        ),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not print progress bars.")] = False,
) -> None:
    """Download models into the hub cache, and verify them."""
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import get_model

    for spec in [get_model(model) for model in models]:
        print_path(fetching.fetch(spec, quiet=quiet, keep_stamps=True))


@weights.command(cls=Command)
def verify(models: Models = None) -> None:
    """Verify the hashes of downloaded files. If a hash is wrong, remove the file and stop with an error.

    The exit code is 1 if a hash is wrong, or if a named model is not downloaded.
    """
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import get_model, read_lock

    complete = True
    for spec in [get_model(model) for model in models or read_lock()]:
        for name, state in fetching.verify(spec).items():
            print(f"{spec.id:10} {name:20} {state}")
            complete = complete and state == "ok"
    # Models that the user did not name may be absent.
    if models and not complete:
        raise typer.Exit(1)


@weights.command(cls=Command)
def lock(models: Models = None) -> None:
    """Update weights.lock with sizes and hashes from the hub."""
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import find_lock, get_model, read_lock, write_lock

    path = find_lock()
    entries = read_lock(path)
    for spec in [get_model(model) for model in models or entries]:
        entries[spec.id] = fetching.resolve_hashes(spec)
    write_lock(path, entries)
    print_path(path)


@weights.command("path", cls=Command)
def show_path(
    model: Annotated[str, typer.Argument(metavar="ID", autocompletion=completion_of("models"), help="Model id.")],
) -> None:
    """Print the folder of a downloaded model."""
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import get_model

    folder = fetching.locate(get_model(model))
    if folder is None:
        raise WeightsError(f"the files of {model} are not downloaded", f"Run: tipsseg weights download {model}")
    print_path(folder)
