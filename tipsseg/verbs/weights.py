"""Download and verify models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from tipsseg.ask import Ask, verb
from tipsseg.errors import WeightsError
from tipsseg.options.fields import Opt
from tipsseg.say import print_path, print_text

_IDS = Opt(
    argument=True,
    metavar="ID",
    choices="models",
    typed=list[str],
    check=tuple,
    help="Model ids: l14, b14, so400m14, g14, tiny.",
)
_Models = Annotated[Sequence[str], _IDS]
_AnyModels = Annotated[Sequence[str], _IDS, Opt(help="Model ids: l14, b14, so400m14, g14, tiny.  [default: all]")]
_Model = Annotated[str, Opt(argument=True, metavar="ID", choices="models", help="Model id.")]
_Quiet = Annotated[bool, Opt(short="q", help="Do not print progress bars.")]


@verb("weights list")
def list_weights(ask: Ask) -> None:
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
        print_text(
            f"{model.id:10} {model.parameters / 1e6:8.1f}M parameters  {megabytes}  {model.licence}  {source}  {state}, {hashes}\n"
        )


@verb("weights download")
def download(ask: Ask, models: _Models, *, quiet: _Quiet = False) -> None:
    """Download models into the hub cache, and verify them."""
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import get_model

    for spec in [get_model(model) for model in models]:
        print_path(fetching.fetch(spec, quiet=quiet, keep_stamps=True))


@verb("weights verify", "The exit code is 1 if a hash is wrong, or if a named model is not downloaded.")
def verify(ask: Ask, models: _AnyModels = ()) -> int:
    """Verify the hashes of downloaded files. If a hash is wrong, remove the file and stop with an error."""
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import get_model, read_lock

    complete = True
    for spec in [get_model(model) for model in models or read_lock()]:
        for name, state in fetching.verify(spec).items():
            print_text(f"{spec.id:10} {name:20} {state}\n")
            complete = complete and state == "ok"
    return bool(models and not complete)  # models that the user did not name may be absent


@verb("weights lock")
def lock(ask: Ask, models: _AnyModels = ()) -> None:
    """Update weights.lock with sizes and hashes from the hub."""
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import find_lock, get_model, read_lock, write_lock

    path = find_lock()
    entries = read_lock(path)
    for spec in [get_model(model) for model in models or entries]:
        entries[spec.id] = fetching.resolve_hashes(spec)
    write_lock(path, entries)
    print_path(path)


@verb("weights path")
def show_path(ask: Ask, model: _Model) -> None:
    """Print the folder of a downloaded model."""
    from tipsseg.weights import fetching
    from tipsseg.weights.lock import get_model

    folder = fetching.locate(get_model(model))
    if folder is None:
        raise WeightsError(f"the files of {model} are not downloaded", f"Run: tipsseg weights download {model}")
    print_path(folder)
