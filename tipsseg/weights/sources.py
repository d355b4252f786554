"""Find models in weights.lock and in local folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tipsseg.errors import CheckpointError, UsageError
from tipsseg.types import ModelSpec
from tipsseg.util.files import describe_error, is_file, is_folder, read_regular
from tipsseg.util.json import parse
from tipsseg.weights import fetching, lock
from tipsseg.weights.fetching import sha256_of
from tipsseg.weights.lock import CONFIG_FILE, MODEL_FILE, TIPSV2_FILES, missing_hint


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The source of a model: an entry in weights.lock, or a local folder in the hub layout.

    Attributes:
        name: The model id, or the path of the folder.
        spec: The entry in weights.lock; None for a folder.
    """

    name: str
    spec: ModelSpec | None

    def facts(self, *, keep_stamps: bool = False) -> dict[str, object]:
        """Return the `model` entry of run.json. Hashes the files of a local folder. Raise CheckpointError if that fails."""
        if self.spec is None:
            hashes = file_hashes(Path(self.name), keep_stamps=keep_stamps)
            return {"id": self.name, "repository": None, "revision": None, "sha256": hashes}
        return {
            "id": self.spec.id,
            "repository": self.spec.repository,
            "revision": self.spec.revision,
            "sha256": {file.name: file.sha256 for file in self.spec.files if file.sha256 is not None},
        }

    @property
    def is_here(self) -> bool:
        """True if no download is needed."""
        return self.spec is None or fetching.locate(self.spec) is not None

    def fetch(self, *, quiet: bool = False, keep_stamps: bool = False) -> Path:
        """Return the folder of verified model files; see `fetching.fetch`. Raise WeightsError if that fails."""
        return Path(self.name) if self.spec is None else fetching.fetch(self.spec, quiet=quiet, keep_stamps=keep_stamps)


def file_hashes(folder: Path, *, keep_stamps: bool = False) -> dict[str, str]:
    """Return the sha256 of each file of a model in a folder. Files with a valid stamp are not read.

    Raise CheckpointError if that fails.
    """
    hashes: dict[str, str] = {}
    for name in _files_of(folder):
        try:
            hashes[name] = sha256_of(folder / name, keep_stamp=keep_stamps)
        except OSError as error:
            raise CheckpointError(
                folder / name, f"cannot be read: {describe_error(error)}", "Check its permissions."
            ) from error
    return hashes


def _files_of(folder: Path) -> Sequence[str]:
    """Return the names of the files of a model: TIPSv2's files, or all that another architecture may keep in its folder."""
    if read_model_type(folder) in (None, "tipsv2") and all(is_file(folder / name) for name in TIPSV2_FILES):
        return TIPSV2_FILES
    return sorted(path.name for path in folder.iterdir() if re.fullmatch(MODEL_FILE, path.name) and is_file(path))


def read_model_type(folder: Path) -> object:
    """Return `model_type` in the config.json of a model, by which the architecture is chosen; None if it cannot be read."""
    try:
        config = parse(read_regular(folder / CONFIG_FILE))
    except (OSError, ValueError):
        return None
    return config.get("model_type") if isinstance(config, Mapping) else None


def find_model_id(folder: Path, hashes: Mapping[str, str]) -> str:
    """Return the id of the model in weights.lock with the same hashes or revision, or else the folder name."""
    for spec in lock.read_lock().values():
        known = {file.name: file.sha256 for file in spec.files if file.sha256 is not None}
        if spec.revision == folder.name or (
            known and all(hashes.get(name) == sha256 for name, sha256 in known.items())
        ):
            return spec.id
    return folder.absolute().name


def find_model(name: str) -> ModelSource:
    """Find a model by its id or hub repository in weights.lock, or by a folder path, such as "./tiny" if "tiny" is an id.

    Raise UsageError for an unknown name, CheckpointError for a folder without a model.
    """
    if not name.strip():
        raise UsageError("the model name is empty", "Pass a model id from `tipsseg weights list`, or a folder.")
    folder = Path(name)
    if name in lock.read_lock() or not is_folder(folder):
        spec = lock.get_model(name)
        return ModelSource(spec.id, spec)
    if not is_file(folder / CONFIG_FILE):
        raise CheckpointError(folder / CONFIG_FILE, "no such file", missing_hint(folder / CONFIG_FILE))
    return ModelSource(name, None)
