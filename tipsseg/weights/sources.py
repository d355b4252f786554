"""--model -> verified files -> an Encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import CheckpointError, UsageError
from tipsseg.types import ModelSpec
from tipsseg.util.digests import sha256_of
from tipsseg.util.files import is_file, is_folder, reason_of
from tipsseg.weights import fetching as weights
from tipsseg.weights.layout import FILES, FOLDER_HINT

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from: an entry of weights.lock, or a local folder in the hub layout."""

    name: str
    spec: ModelSpec | None  # None: `name` is the path of the folder

    def facts(self, *, keep_stamps: bool = False) -> dict[str, object]:
        """What run.json says of the model; the files of a local folder are hashed for it. Raises CheckpointError."""
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
        """Whether its files need no download."""
        return self.spec is None or weights.locate(self.spec) is not None

    def fetch(self, *, quiet: bool = False, keep_stamps: bool = False) -> Path:
        """The folder with the model's files: verified, and downloaded where absent. Raises WeightsError."""
        return Path(self.name) if self.spec is None else weights.fetch(self.spec, quiet=quiet, keep_stamps=keep_stamps)


def file_hashes(folder: Path, *, keep_stamps: bool = False) -> dict[str, str]:
    """The sha256 of each file of a model; those that a stamp vouches for are not read. Raises CheckpointError."""
    hashes: dict[str, str] = {}
    for name in FILES:
        try:
            hashes[name] = sha256_of(folder / name, keep_stamp=keep_stamps)
        except OSError as error:
            raise CheckpointError(
                folder / name, f"it cannot be read: {reason_of(error)}", "Check its permissions."
            ) from error
    return hashes


def find_model(name: str) -> ModelSource:
    """The model of that id or hub repository in weights.lock, or the local folder of that path.

    A folder needs a path that is no id: "./tiny" rather than "tiny". Raises UsageError for a name that is neither, and
    CheckpointError for a folder without a model in it.
    """
    if not name.strip():
        raise UsageError("the model's name is empty", "Use one of the ids in `tipsseg weights list`, or a folder.")
    folder = Path(name)
    if name in weights.read_lock() or not is_folder(folder):
        spec = weights.get_model(name)
        return ModelSource(spec.id, spec)
    for file in FILES:
        if not is_file(folder / file):
            raise CheckpointError(folder / file, "no such file", FOLDER_HINT)
    return ModelSource(name, None)
