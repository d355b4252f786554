"""weights.lock: which files of which revision each model is, as TOML. Parse, check, write; no network, no hashing."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Set
from pathlib import Path, PurePosixPath
from typing import Any

from tipsseg.errors import LockError, UsageError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.util.files import atomic_write

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.model"

#: What a model in the hub layout consists of.
FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)

#: The hint for a folder that is not a model.
FOLDER_HINT = f"A model folder holds {', '.join(FILES)}."

# Hints for what transformers and peft save in place of one of them: the file that is missing, the file that is there.
_IN_PLACE = {
    (WEIGHTS_FILE, "model.safetensors.index.json"): (
        "The weights are in shards. Load the folder with transformers' Tipsv2Model, and save it as one file: "
        'save_pretrained(folder, max_shard_size="50GB").'
    ),
    (TOKENIZER_FILE, "tokenizer.json"): (
        "Copy tokenizer.model from the model that this one was made from; `tipsseg weights path l14` prints the folder of l14. "
        "The tokenizer.json of transformers drops characters that have no piece, such as commas; the published tokenizer does not."
    ),
    (CONFIG_FILE, "adapter_model.safetensors"): (
        "This is a LoRA adapter without its model. Merge it with peft's merge_and_unload(), and save the merged model."
    ),
}


_PACKAGE = Path(__file__).resolve().parents[1]
_NAME = "weights.lock"
_HINT = "Mend it, or restore it from the repository or by reinstalling tipsseg."

_MODEL_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")

_HEADER = """\
# The weights that tipsseg runs, pinned: for each model the repository, the full revision and the files.
#
# A file that states size and sha256 here must have them, or the program stops. A file that does not is held to what the
# hub states for the pinned revision. `tipsseg weights lock` asks the hub for what is missing and writes it here.
"""


def missing_hint(path: Path) -> str:
    """Return the hint for a file of a model that is missing."""
    hints = (hint for (name, other), hint in _IN_PLACE.items() if path.name == name and (path.parent / other).exists())
    return next(hints, FOLDER_HINT)


def find_lock() -> Path:
    """Find the weights.lock of this installation: inside the package (wheel), or beside it (editable install)."""
    for path in (_PACKAGE / _NAME, _PACKAGE.parent / _NAME):
        if path.is_file():
            return path
    raise LockError(_PACKAGE / _NAME, "no such file, nor one beside the package folder", "Reinstall tipsseg.")


def read_lock(path: Path | None = None) -> dict[str, ModelSpec]:
    """Read a lock file, or the lock of this installation: its models by their ids, in the order of the file.

    Raises LockError, naming the model and the key, for whatever is not exactly as it should be.
    """
    path = find_lock() if path is None else path
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LockError(path, f"cannot be read: {error.strerror}", _HINT) from error
    except UnicodeDecodeError as error:
        raise LockError(path, "is not UTF-8 text", _HINT) from error
    except tomllib.TOMLDecodeError as error:
        raise LockError(path, f"is not TOML: {error}", _HINT) from error
    try:
        _check_keys("the top level", document, {"models"})
        models = document.get("models")
        if not isinstance(models, dict) or not models:
            raise ValueError("models: there must be at least one [models.ID] table")
        return {key: _read_model(key, table) for key, table in models.items()}
    except ValueError as error:
        raise LockError(path, str(error), _HINT) from error


def get_model(name: str) -> ModelSpec:
    """Find a model in the lock of this installation, by its id or its repository. Raises UsageError for any other name."""
    models = read_lock()
    known = models | {model.repository.lower(): model for model in models.values() if model.repository is not None}
    # To the hub, capitals and small letters in the name of a repository are the same.
    found = models.get(name) or known.get(name.lower())
    if found is not None:
        return found
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    guess = f"Did you mean {known[close[0]].id}? " if close else ""
    raise UsageError(
        f"unknown model {name!r}; the known ones are {', '.join(models)}",
        f"{guess}A model in a local folder is given as the path of that folder, which must exist.",
    )


# ---- writing ----


def lock_text(models: Mapping[str, ModelSpec]) -> str:
    """Write models as the TOML text of a lock, in this order; the same models give the same text."""
    return "\n".join([_HEADER, *map(_model_text, models.values())])


def write_lock(path: Path, models: Mapping[str, ModelSpec]) -> None:
    """Write a lock file, whole or not at all. Raises OutputError."""
    atomic_write(path, lock_text(models).encode())


def _model_text(model: ModelSpec) -> str:
    texts = {name: getattr(model, name) for name in ("repository", "revision", "embedded", "licence")}
    lines = [f"[models.{model.id}]"]
    lines += [f"{name} = {_string(text)}" for name, text in texts.items() if text is not None]
    lines += [f"parameters = {model.parameters:_}", "files = ["]
    for file in model.files:
        size = "" if file.size is None else f", size = {file.size:_}"
        sha256 = "" if file.sha256 is None else f", sha256 = {_string(file.sha256)}"
        lines.append(f"    {{ name = {_string(file.name)}{size}{sha256} }},")
    return "\n".join([*lines, "]"]) + "\n"


def _string(text: str) -> str:
    # For printable text, which is all that a lock may hold, a JSON string is a TOML basic string.
    return json.dumps(text, ensure_ascii=False)


# ---- reading: each function raises ValueError, naming the key ----


def _read_model(key: str, table: object) -> ModelSpec:
    where = f"models.{key}"
    if not _MODEL_ID.fullmatch(key):
        raise ValueError(f"{where}: a model id has small letters, digits, '-' and '_' only")
    embedded = isinstance(table, dict) and "embedded" in table
    source = {"embedded"} if embedded else {"repository", "revision"}
    values = _read_table(where, table, {"licence", "parameters", "files"} | source)
    hashes = {"size", "sha256"}  # which an embedded model must state, as there is no hub to ask
    required, optional = ({"name"} | hashes, set[str]()) if embedded else ({"name"}, hashes)
    files = tuple(
        LockedFile(**_read_table(f"{where}.files[{index}]", entry, required, optional))
        for index, entry in enumerate(values.pop("files"))
    )
    names = [file.name for file in files]
    for name in (*names, *FILES):  # an entry may name more
        if names.count(name) != 1:
            raise ValueError(f"{where}.files: {f'names {name} twice' if name in names else f'does not name {name}'}")
    return ModelSpec(id=key, files=files, **values)


def _read_table(where: str, table: object, required: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ValueError(f"{where}: must be a table, not {table!r}")
    _check_keys(where, table, required | optional)
    for key in sorted(required - table.keys()):
        raise ValueError(f"{where}.{key}: is missing")
    for key, value in table.items():
        is_right, wanted = _VALUES[key]
        if not is_right(value):
            raise ValueError(f"{where}.{key}: must be {wanted}, not {value!r}")
    return dict(table)


def _check_keys(where: str, table: Mapping[str, object], known: Set[str]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: {key}: unknown key; known here: {', '.join(sorted(known))}")


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_printable(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and not value.isspace() and value != ""


def _is_relative(value: object) -> bool:
    """Tell a plain relative path on every platform from others: no drive, no backslash, no step upwards."""
    if not isinstance(value, str) or not value.isprintable() or any(letter in value for letter in "\\:"):
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and str(path) == value and value != "." and ".." not in path.parts


# For each key: a check of its value, and what the value must be.
_VALUES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "repository": (_matches(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"), "an owner/name"),
    "revision": (_matches(r"[0-9a-f]{40}"), "a full commit hash of 40 small hex digits"),
    "embedded": (_is_relative, "a relative path with '/' that stays in the package"),
    "licence": (_is_printable, "printable text"),
    "parameters": (_is_count, "a whole number"),
    "files": (lambda value: isinstance(value, list), "an array of tables such as { name = 'config.json' }"),
    "name": (_is_relative, "a relative path with '/' inside the model"),
    "size": (_is_count, "a whole number"),
    "sha256": (_matches(r"[0-9a-f]{64}"), "64 small hex digits"),
}
