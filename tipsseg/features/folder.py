"""Manage a feature store: a folder with one feature file per image, named by the sha256 of the image file.

    features.json                       recipe and dtype of all features
    feats/ab/abcdef….safetensors        at the short side in features.json
    feats/ab/abcdef…-448.safetensors    at another short side, 448 pixels

Images keep their features when they are moved, renamed or copied; a changed image counts as new. Equal features give equal
bytes, so several processes may add to one store at the same time.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tipsseg.errors import FeatureFileError, OtherRunError, OutputError
from tipsseg.features.file import (
    FeatureHeader,
    FeatureRecord,
    Recipe,
    read_feature_file,
    read_feature_header,
    write_feature_file,
)
from tipsseg.options import FeatureDtype
from tipsseg.options.fields import text_of
from tipsseg.util.files import (
    TEMPORARY_PREFIX,
    atomic_write,
    is_folder,
    is_left,
    output_error,
    read_regular,
    write_new,
)
from tipsseg.util.json import json_bytes, parse, read_value, take

STORE_FILE = "features.json"

#: Subfolder that contains the feature files.
FILES_FOLDER = "feats"

#: Name of a feature file: the sha256 of the image, and the short side if it differs from the store's.
FEATURE_FILE = re.compile(r"([0-9a-f]{64})(?:-([1-9][0-9]{0,9}))?\.safetensors")

DEFAULT_FEATURE_DTYPE: FeatureDtype = "float16"

#: A temporary file is stale after this many seconds without a change.
_STALE_SECONDS = 300

_OTHER = "Choose another feature folder."


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """Content of features.json.

    Attributes:
        model: Model id at the time the store was created, only for messages.
        recipe: Recipe of all features.
        dtype: Dtype of the stored patches.
    """

    model: str
    recipe: Recipe
    dtype: FeatureDtype


def read_store(folder: Path) -> StoreRecord | None:
    """Read the features.json of a folder. Return None if the folder is missing or empty.

    Raises:
        OutputError: The folder contains other files, or a store from another version.
    """
    path = folder / STORE_FILE
    if not os.path.lexists(path):
        _refuse_others(folder)
        return None
    try:
        value = parse(read_regular(path))
        # The first schema has no number.
        if isinstance(value, dict) and value.get("schema", 1) != 1:
            hint = f"Encode the images into a new folder: tipsseg encode IMAGES -o {shlex.quote(f'{folder}-2')}"
            raise OutputError(path, "another version of tipsseg wrote it; this version cannot read its features", hint)
        if take(value, "tool", str) != "tipsseg":
            raise ValueError("another tool wrote it")
        return read_value(StoreRecord, value, "")
    except (OSError, ValueError) as error:
        raise OutputError(path, f"the file does not describe a feature store: {error}", _OTHER) from error


def check_same(folder: Path, stored: StoreRecord, expected: StoreRecord) -> None:
    """Raise OtherRunError if the record of a store differs from the expected one."""
    if differences := _describe_differences(stored, expected):
        one, other = stored.recipe.dtype, expected.recipe.dtype
        hint = _OTHER if one == other else f"Choose another feature folder, or dtype {one}."
        raise OtherRunError(
            folder, f"its features were computed with different settings: {'; '.join(differences)}", hint
        )


def _describe_differences(stored: StoreRecord, expected: StoreRecord) -> list[str]:
    one, other = stored.recipe, expected.recipe
    differences = []
    if one.model != other.model:
        same = " (with different files)" if stored.model == expected.model else ""
        differences.append(f"the model is {stored.model}, not {expected.model}{same}")
    settings = (
        ("dtype", one.dtype, other.dtype),
        ("mode", one.mode, other.mode),
        ("short side", one.short_side, other.short_side),
        ("stretch", text_of(one.stretch), text_of(other.stretch)),
        ("labels version", one.labels_version, other.labels_version),
        ("feature dtype", stored.dtype, expected.dtype),
    )
    return differences + [f"the {name} is {own}, not {wanted}" for name, own, wanted in settings if own != wanted]


class FeatureFiles:
    """The feature files of a store at one short side. Safe to use from several threads.

    Attributes:
        folder: Folder of the store.
        record: Recipe, with the short side of these files, and dtype.
    """

    def __init__(self, folder: Path, record: StoreRecord, side_of_store: int) -> None:
        """`side_of_store` is the short side in features.json, in pixels; `record` has the short side of these files."""
        self.folder = folder
        self.record = record
        side = record.recipe.short_side
        self._other_side = None if side == side_of_store else side

    def path(self, sha256: str) -> Path:
        """Return the path of an image's file, whether it exists or not."""
        return feature_path(self.folder, sha256, self._other_side)

    def find(self, sha256: str) -> FeatureRecord | None:
        """Read an image's features in float32; return None if the file is missing. Raise FeatureFileError if it is damaged."""
        path = self.path(sha256)
        if not os.path.lexists(path):
            return None
        record = read_feature_file(path)
        self._check(path, sha256, record)
        try:
            return record.to_float32()
        except ValueError as error:
            raise FeatureFileError(path, str(error), "Encode the image again.") from error

    def find_header(self, sha256: str) -> FeatureHeader | None:
        """Read the header of an image's file; return None if it is missing. Raise FeatureFileError if it is damaged."""
        path = self.path(sha256)
        if not os.path.lexists(path):
            return None
        header = read_feature_header(path)
        self._check(path, sha256, header)
        return header

    def add(self, record: FeatureRecord) -> Path:
        """Write an image's features and return the path of the file. Raise OutputError if it cannot be written."""
        assert record.origin is not None
        path = self.path(record.origin.sha256)
        try:
            write_feature_file(path, record)
        except OutputError as error:
            raise _with_store_hint(path, error) from None
        return path

    def _check(self, path: Path, sha256: str, features: FeatureRecord | FeatureHeader) -> None:
        if fault := describe_fault(self.record, sha256, features):
            raise FeatureFileError(path, fault, "Encode the image again.")


class FeatureStore(FeatureFiles):
    """A feature store. Its own methods use the short side in features.json; `at` returns the files at another one."""

    def __init__(self, folder: Path, record: StoreRecord) -> None:
        """Open a store, or create one in an empty folder. Raise OtherRunError if the record of an existing store differs."""
        super().__init__(folder, record, record.recipe.short_side)
        stored = read_store(folder)
        if stored is None:
            _write_record(folder / STORE_FILE, record)
            stored = read_store(folder)
        if stored is not None:
            check_same(folder, stored, record)
        remove_stale_files(folder)

    def at(self, short_side: int) -> FeatureFiles:
        """Return the files at a short side in pixels."""
        recipe = self.record.recipe
        record = replace(self.record, recipe=replace(recipe, short_side=short_side))
        return FeatureFiles(self.folder, record, recipe.short_side)


def feature_path(folder: Path, sha256: str, other_side: int | None = None) -> Path:
    """Return the path of an image's feature file. `other_side` is its short side in pixels if it differs from the store's."""
    scale = "" if other_side is None else f"-{other_side}"
    return folder / FILES_FOLDER / sha256[:2] / f"{sha256}{scale}.safetensors"


def describe_fault(record: StoreRecord, sha256: str, features: FeatureRecord | FeatureHeader) -> str:
    """Compare a feature file with the store's record and the sha256 in its name. Return "" if they agree."""
    if features.origin is None:
        return "it does not record its image"
    if features.origin.sha256 != sha256:
        return "its content and its name belong to different images"
    own = replace(record, recipe=features.origin.recipe, dtype=features.dtype)
    return "; ".join(_describe_differences(own, record))


def list_files(folder: Path) -> Iterator[Path]:
    """Yield all files below FILES_FOLDER, sorted. Do not follow links to folders."""
    for subfolder, folders, names in os.walk(folder / FILES_FOLDER):
        folders.sort()
        for name in sorted(names):
            yield Path(subfolder, name)


def remove_stale_files(folder: Path) -> None:
    """Remove the temporary files of killed processes. Keep recent files, whose process may still be running."""
    limit = time.time() - _STALE_SECONDS
    # In the store's own folder, remove only .json files: the lock has the same prefix and no extension.
    for path in (*folder.glob(f"{TEMPORARY_PREFIX}*.json"), *list_files(folder)):
        if path.name.startswith(TEMPORARY_PREFIX):
            with suppress(OSError):
                if is_left(path) or path.lstat().st_mtime < limit:
                    path.unlink()


def _refuse_others(folder: Path) -> None:
    """Raise OutputError if the path is not a folder, or the folder contains files."""
    try:
        names = os.listdir(folder) if is_folder(folder) else []  # noqa: PTH208  only names are needed
    except OSError as error:
        raise output_error(folder, error) from error
    if os.path.lexists(folder) and not is_folder(folder):
        raise OutputError(folder, "not a folder", _OTHER)
    others = sorted(name for name in names if not name.startswith(TEMPORARY_PREFIX))
    if others:
        raise OutputError(folder, f"it contains other files, for example {others[0]}, but no {STORE_FILE}", _OTHER)


def _with_store_hint(path: Path, error: OutputError) -> OutputError:
    """Return an OutputError, which stops the run, with a hint about the store instead of the output folder."""
    return OutputError(path, error.reason, error.hint.replace("Choose another output folder.", _OTHER))


def _write_record(path: Path, record: StoreRecord) -> None:
    """Write features.json, unless another process has just written it. Raise OutputError if it cannot be written."""
    from tipsseg._version import __version__

    value = {
        "tool": "tipsseg",
        "version": __version__,
        "model": record.model,
        "recipe": record.recipe.record(),
        "dtype": record.dtype,
    }
    data = json_bytes(value, indent=2) + b"\n"
    try:
        try:
            write_new(path, data, path.parent)
        except OutputError:  # a file system without hard links, or a fault that writing raises again
            atomic_write(path, data)
    except OutputError as error:
        raise _with_store_hint(path, error) from None
