"""Read, check and write weights.lock, a TOML file that pins the revision and the files of each model."""

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

#: The files of a model in the hub layout.
FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)

FOLDER_HINT = f"A model folder contains {', '.join(FILES)}."

# Hints for folders that transformers or peft saved, by the missing file and the file in its place.
_MISSING_HINTS = {
    (WEIGHTS_FILE, "model.safetensors.index.json"): (
        "The weights are sharded. Load the folder with transformers' Tipsv2Model and save it as one file: "
        'save_pretrained(folder, max_shard_size="50GB").'
    ),
    (TOKENIZER_FILE, "tokenizer.json"): (
        "Copy tokenizer.model from the model that was fine-tuned; `tipsseg weights path l14` prints the folder of l14. "
        "The tokenizer.json of transformers drops unknown characters, such as commas; the published tokenizer does not."
    ),
    (CONFIG_FILE, "adapter_model.safetensors"): (
        "This is a LoRA adapter without its base model. Merge them with peft's merge_and_unload(), and save the merged model."
    ),
}

_PACKAGE = Path(__file__).resolve().parents[1]
_NAME = "weights.lock"
_HINT = "Correct it, or restore it from the repository or by reinstalling tipsseg."

_MODEL_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")

_HEADER = """\
# The pinned weights of tipsseg: repository, full revision and files of each model.
#
# A file must have the size and sha256 that are stated here, or the program stops. If none are stated, it must have those that
# the hub states for the pinned revision. `tipsseg weights lock` asks the hub for missing values and writes them here.
"""


def missing_hint(path: Path) -> str:
    """Return the hint for a file that is missing from a model folder."""
    hints = (
        hint for (name, other), hint in _MISSING_HINTS.items() if path.name == name and (path.parent / other).exists()
    )
    return next(hints, FOLDER_HINT)


def find_lock() -> Path:
    """Return the path of the installed weights.lock: in the package (wheel), or beside it (editable install)."""
    for path in (_PACKAGE / _NAME, _PACKAGE.parent / _NAME):
        if path.is_file():
            return path
    raise LockError(_PACKAGE / _NAME, "not found, neither in the package folder nor beside it", "Reinstall tipsseg.")


def read_lock(path: Path | None = None) -> dict[str, ModelSpec]:
    """Read a lock file, by default the installed one. Return its models by id, in file order.

    Raises LockError with the model and the key for any missing, unknown or invalid value.
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
            raise ValueError("models: at least one [models.ID] table is required")
        return {key: _read_model(key, table) for key, table in models.items()}
    except ValueError as error:
        raise LockError(path, str(error), _HINT) from error


def get_model(name: str) -> ModelSpec:
    """Find a model in the installed lock, by its id or its repository. Raises UsageError if the name is unknown."""
    models = read_lock()
    known = models | {model.repository.lower(): model for model in models.values() if model.repository is not None}
    # The hub ignores case in repository names.
    model = models.get(name) or known.get(name.lower())
    if model is not None:
        return model
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    guess = f"Did you mean {known[close[0]].id!r}? " if close else ""
    raise UsageError(
        f"unknown model {name!r}",
        f"{guess}The models are: {', '.join(models)}. For a local model, pass the path of its folder.",
    )


# ---- writing ----


def lock_text(models: Mapping[str, ModelSpec]) -> str:
    """Format models as the TOML text of a lock. The text is deterministic."""
    return "\n".join([_HEADER, *map(_model_text, models.values())])


def write_lock(path: Path, models: Mapping[str, ModelSpec]) -> None:
    """Write a lock file atomically. Raises OutputError."""
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
    # A lock contains only printable text, for which a JSON string is a TOML basic string.
    return json.dumps(text, ensure_ascii=False)


# ---- reading: functions raise ValueError with the key ----


def _read_model(key: str, table: object) -> ModelSpec:
    where = f"models.{key}"
    if not _MODEL_ID.fullmatch(key):
        raise ValueError(f"{where}: a model id must consist of lower-case letters, digits, '-' and '_'")
    embedded = isinstance(table, dict) and "embedded" in table
    source = {"embedded"} if embedded else {"repository", "revision"}
    values = _read_table(where, table, {"licence", "parameters", "files"} | source)
    hashes = {"size", "sha256"}  # required for an embedded model, because no hub states them
    required, optional = ({"name"} | hashes, set[str]()) if embedded else ({"name"}, hashes)
    files = tuple(
        LockedFile(**_read_table(f"{where}.files[{index}]", entry, required, optional))
        for index, entry in enumerate(values.pop("files"))
    )
    names = [file.name for file in files]
    for name in (*names, *FILES):  # further files are allowed
        if names.count(name) != 1:
            raise ValueError(f"{where}.files: {f'lists {name} twice' if name in names else f'does not list {name}'}")
    return ModelSpec(id=key, files=files, **values)


def _read_table(where: str, table: object, required: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ValueError(f"{where}: must be a table, not {table!r}")
    _check_keys(where, table, required | optional)
    for key in sorted(required - table.keys()):
        raise ValueError(f"{where}.{key}: is missing")
    for key, value in table.items():
        is_valid, description = _VALUES[key]
        if not is_valid(value):
            raise ValueError(f"{where}.{key}: must be {description}, not {value!r}")
    return dict(table)


def _check_keys(where: str, table: Mapping[str, object], known: Set[str]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key}; the keys are {', '.join(sorted(known))}")


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_printable(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and not value.isspace() and value != ""


def _is_relative(value: object) -> bool:
    """Return True for a relative path that is valid on all platforms: without drive, backslash or "..", and normalized."""
    if not isinstance(value, str) or not value.isprintable() or any(letter in value for letter in "\\:"):
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and str(path) == value and value != "." and ".." not in path.parts


# For each key, a check of its value and a description of valid values.
_VALUES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "repository": (_matches(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"), "an owner/name"),
    "revision": (_matches(r"[0-9a-f]{40}"), "a full commit hash of 40 lower-case hex digits"),
    "embedded": (_is_relative, "a relative path with '/' inside the package"),
    "licence": (_is_printable, "printable text"),
    "parameters": (_is_count, "a whole number"),
    "files": (lambda value: isinstance(value, list), "an array of tables such as { name = 'config.json' }"),
    "name": (_is_relative, "a relative path with '/' inside the model"),
    "size": (_is_count, "a whole number"),
    "sha256": (_matches(r"[0-9a-f]{64}"), "64 lower-case hex digits"),
}
