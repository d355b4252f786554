"""weights.lock: which files of which revision each model is, as TOML. Parse, check, write; no network, no hashing."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

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
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_HEADER = """\
# The weights that tipsseg runs, pinned: for each model the repository, the full revision and the files.
#
# A file that states size and sha256 here must have them, or the program stops. A file that does not is held to what the
# hub states for the pinned revision. `tipsseg weights lock` asks the hub for what is missing and writes it here.
"""


def missing_hint(path: Path) -> str:
    """Return the hint for a file of a model that is not there."""
    hints = (hint for (name, other), hint in _IN_PLACE.items() if path.name == name and (path.parent / other).exists())
    return next(hints, FOLDER_HINT)


def find_lock() -> Path:
    """The weights.lock of this installation: inside the package (wheel), or beside it (editable install).

    Raises:
        LockError: Where neither is there.
    """
    for path in (_PACKAGE / _NAME, _PACKAGE.parent / _NAME):
        if path.is_file():
            return path
    raise LockError(_PACKAGE / _NAME, "no such file, nor one beside the package folder", "Reinstall tipsseg.")


def read_lock(path: Path | None = None) -> dict[str, ModelSpec]:
    """Read a lock file.

    Args:
        path: The file; None: the lock of this installation.

    Returns:
        The models by their ids, in the order of the file.

    Raises:
        LockError: For whatever is not exactly as it should be; it names the model and the key.
    """
    path = find_lock() if path is None else path
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LockError(path, f"cannot be read: {error.strerror}", _HINT) from error
    except UnicodeDecodeError as error:
        raise LockError(path, "is not UTF-8 text", _HINT) from error
    return _Reader(path).models(text)


def get_model(name: str) -> ModelSpec:
    """Find a model in the lock of this installation.

    Args:
        name: Its id, or the name of its repository on the hub.

    Raises:
        UsageError: For a name that the lock does not have.
        LockError: For a lock that cannot be used.
    """
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


def lock_text(models: Mapping[str, ModelSpec]) -> str:
    """Write models as the TOML text of a lock, in this order; the same models give the same text.

    Raises:
        LockError: For models that `read_lock` would refuse.
    """
    parts = [_HEADER]
    for key, model in models.items():
        lines = [f"[models.{key}]"]
        for name, text in (
            ("repository", model.repository),
            ("revision", model.revision),
            ("embedded", model.embedded),
            ("licence", model.licence),
        ):
            if text is not None:
                lines.append(f"{name} = {_string(text)}")
        lines.append(f"parameters = {model.parameters:_}")
        lines.append("files = [")
        lines += [f"    {_file_entry(file)}," for file in model.files]
        lines.append("]")
        parts.append("\n".join(lines) + "\n")
    text = "\n".join(parts)
    if _Reader(Path(_NAME)).models(text) != dict(models):
        raise LockError(Path(_NAME), "the models would not be read back as they are; keys must equal the ids")
    return text


def write_lock(path: Path, models: Mapping[str, ModelSpec]) -> None:
    """Write a lock file, whole or not at all.

    Raises:
        LockError: For models that `read_lock` would refuse.
        OutputError: Where the file cannot be written.
    """
    atomic_write(path, lock_text(models).encode())


def _string(text: str) -> str:
    # For printable text, which is all that a lock may hold, a JSON string is a TOML basic string.
    return json.dumps(text, ensure_ascii=False)


def _file_entry(file: LockedFile) -> str:
    fields = [f"name = {_string(file.name)}"]
    if file.size is not None:
        fields.append(f"size = {file.size:_}")
    if file.sha256 is not None:
        fields.append(f"sha256 = {_string(file.sha256)}")
    return "{ " + ", ".join(fields) + " }"


class _Reader:
    """Checks the tables of one lock file; holds the path only to name it in errors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def models(self, text: str) -> dict[str, ModelSpec]:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise LockError(self._path, f"is not TOML: {error}", _HINT) from error
        self._only_keys(document, {"models"}, "the top level")
        models = document.get("models")
        if not isinstance(models, dict) or not models:
            raise self._error("models", "there must be at least one [models.ID] table")
        return {key: self._model(key, value) for key, value in models.items()}

    def _model(self, key: str, table: object) -> ModelSpec:
        where = f"models.{key}"
        if not _MODEL_ID.fullmatch(key):
            raise self._error(where, "a model id has small letters, digits, '-' and '_' only")
        if not isinstance(table, dict):
            raise self._error(where, f"must be a table, not {table!r}")
        embedded = "embedded" in table
        known = {"licence", "parameters", "files"} | ({"embedded"} if embedded else {"repository", "revision"})
        self._only_keys(table, known, where)
        source: dict[str, str] = {}
        if embedded:
            source["embedded"] = self._text(table, "embedded", where)
            if not _is_relative(source["embedded"]):
                raise self._error(f"{where}.embedded", "must be a relative path with '/' that stays in the package")
        else:
            for name, pattern, what in (
                ("repository", _REPOSITORY, "an owner/name"),
                ("revision", _REVISION, "a full commit hash of 40 small hex digits"),
            ):
                source[name] = self._text(table, name, where)
                if not pattern.fullmatch(source[name]):
                    raise self._error(f"{where}.{name}", f"must be {what}, not {source[name]!r}")
        return ModelSpec(
            id=key,
            licence=self._text(table, "licence", where),
            parameters=self._count(table, "parameters", where),
            files=self._files(table, where, hashes_needed=embedded),
            repository=source.get("repository"),
            revision=source.get("revision"),
            embedded=source.get("embedded"),
        )

    def _files(self, table: dict[str, object], where: str, *, hashes_needed: bool) -> tuple[LockedFile, ...]:
        entries = table.get("files")
        if not isinstance(entries, list):
            raise self._error(f"{where}.files", "must be an array of tables such as { name = 'config.json' }")
        files = tuple(
            self._file(entry, f"{where}.files[{index}]", hashes_needed=hashes_needed)
            for index, entry in enumerate(entries)
        )
        names = [file.name for file in files]
        for name in names:
            if names.count(name) > 1:
                raise self._error(f"{where}.files", f"names {name} twice")
        for name in FILES:  # an entry may name more
            if name not in names:
                raise self._error(f"{where}.files", f"does not name {name}")
        return files

    def _file(self, entry: object, where: str, *, hashes_needed: bool) -> LockedFile:
        if not isinstance(entry, dict):
            raise self._error(where, f"must be a table, not {entry!r}")
        self._only_keys(entry, {"name", "size", "sha256"}, where)
        name = self._text(entry, "name", where)
        if not _is_relative(name):
            raise self._error(f"{where}.name", f"must be a relative path with '/' inside the model, not {name!r}")
        for key in ("size", "sha256"):
            if hashes_needed and key not in entry:
                raise self._error(f"{where}.{key}", f"is missing: an embedded model has no hub to ask about {name}")
        size = self._count(entry, "size", where) if "size" in entry else None
        sha256 = self._text(entry, "sha256", where) if "sha256" in entry else None
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise self._error(f"{where}.sha256", f"must be 64 small hex digits, not {sha256!r}")
        return LockedFile(name, size, sha256)

    def _text(self, table: dict[str, object], key: str, where: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            problem = "is missing" if value is None else f"must be printable text, not {value!r}"
            raise self._error(f"{where}.{key}", problem)
        return value

    def _count(self, table: dict[str, object], key: str, where: str) -> int:
        value = table.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            problem = "is missing" if value is None else f"must be a whole number, not {value!r}"
            raise self._error(f"{where}.{key}", problem)
        return value

    def _only_keys(self, table: dict[str, object], known: set[str], where: str) -> None:
        for key in table:
            if key not in known:
                raise self._error(f"{where}: {key}", f"unknown key; known here: {', '.join(sorted(known))}")

    def _error(self, where: str, problem: str) -> LockError:
        return LockError(self._path, f"{where}: {problem}", _HINT)


def _is_relative(text: str) -> bool:
    """Whether this is a plain relative path on every platform: no drive, no backslash, no step upwards."""
    path = PurePosixPath(text)
    return (
        not path.is_absolute()
        and not any(character in text for character in "\\:")
        and str(path) == text
        and text != "."
        and ".." not in path.parts
    )
