"""Read, check and write weights.lock, a TOML file that pins the revision and the files of each model."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from tipsseg.errors import LockError, UsageError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.util.files import atomic_write

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.model"

#: The files of a TIPSv2 model. Another architecture has a config.json, and any other files that MODEL_FILE allows.
TIPSV2_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)

#: The names of files that a model may have: directly in its folder, not hidden, no pickles.
MODEL_FILE = r"(?!\.)[^\x00-\x1f/:\\]+\.(json|safetensors|model)"

_FOLDER_HINT = (
    f"A TIPSv2 model consists of {', '.join(TIPSV2_FILES)}; its entry in weights.lock, if any, lists all three."
)

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
    return next(hints, _FOLDER_HINT)


def find_lock() -> Path:
    """Return the path of the installed weights.lock: in the package (wheel), or beside it (editable install)."""
    for path in (_PACKAGE / _NAME, _PACKAGE.parent / _NAME):
        if path.is_file():
            return path
    raise LockError(_PACKAGE / _NAME, "not found, neither in the package folder nor beside it", "Reinstall tipsseg.")


def read_lock(path: Path | None = None) -> dict[str, ModelSpec]:
    """Read a lock file, by default the installed one. Return its models by id, in file order.

    Raise LockError with the model and the key at fault.
    """
    path = find_lock() if path is None else path
    try:
        models = tomllib.loads(path.read_text(encoding="utf-8"))["models"]
        return {key: _read_model(key, table) for key, table in models.items()}
    except OSError as error:
        raise LockError(path, f"cannot be read: {error.strerror}", _HINT) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise LockError(path, f"is not a lock of tables [models.ID]: {error}", _HINT) from error
    except ValueError as error:  # also for text that is not UTF-8 or not TOML
        raise LockError(path, str(error), _HINT) from error


def get_model(name: str) -> ModelSpec:
    """Find a model in the installed lock, by its id or its repository. Raise UsageError if the name is unknown."""
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


def write_lock(path: Path, models: Mapping[str, ModelSpec]) -> None:
    """Write a lock file atomically. The text is deterministic. Raise OutputError if that fails."""
    atomic_write(path, "\n".join([_HEADER, *map(_model_text, models.values())]).encode())


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
    # A JSON string is a TOML basic string.
    return json.dumps(text, ensure_ascii=False)


# ---- reading: functions raise ValueError with the key ----


def _read_model(key: str, table: dict[str, Any]) -> ModelSpec:
    where = f"models.{key}"
    if not _MODEL_ID.fullmatch(key):
        raise ValueError(f"{where}: a model id must consist of lower-case letters, digits, '-' and '_'")
    source = {"embedded"} if "embedded" in table else {"repository", "revision"}
    _check_keys(where, table, {"licence", "parameters", "files"} | source)
    for index, file in enumerate(table["files"]):
        _check_keys(f"{where}.files[{index}]", file, {"name"}, {"size", "sha256"})
    files = tuple(LockedFile(**file) for file in table["files"])
    if CONFIG_FILE not in {file.name for file in files}:
        raise ValueError(f"{where}.files: does not list {CONFIG_FILE}")
    return ModelSpec(id=key, **{**table, "files": files})


def _check_keys(where: str, table: Mapping[str, object], required: Set[str], optional: Set[str] = frozenset()) -> None:
    known = required | optional
    if not required <= table.keys() <= known:
        raise ValueError(f"{where}: has the keys {', '.join(table)}; they must be {', '.join(sorted(known))}")
    for key, (pattern, description) in _PATTERNS.items():
        if key in table and not re.fullmatch(pattern, str(table[key])):
            raise ValueError(f"{where}.{key}: must be {description}, not {table[key]!r}")


_PATTERNS = {
    "name": (MODEL_FILE, "the name of a file in the model's folder that ends with .json, .safetensors or .model"),
    "revision": (r"[0-9a-f]{40}", "a full commit hash of 40 lower-case hex digits"),
    "sha256": (r"[0-9a-f]{64}", "64 lower-case hex digits"),
}
