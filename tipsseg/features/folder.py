"""A feature store: a folder with the features of images, each in a file that is named by the hash of the image's content.

    features.json                       how all of them were made, and what they are kept in
    feats/ab/abcdef….safetensors        at the short side that features.json names
    feats/ab/abcdef…-448.safetensors    at another one, of 448 pixels

An image that is moved or renamed, or is there twice, finds its features; one that was changed is another image. What is written is
the same bytes whoever writes it, so that several processes may add to one store.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tipsseg.errors import FeatureFileError, OtherRunError, OutputError
from tipsseg.features.file import (
    FeatureHeader,
    FeatureRecord,
    Recipe,
    parse_recipe,
    read_feature_file,
    read_feature_header,
    write_feature_file,
)
from tipsseg.options import FEATURE_DTYPES, FeatureDtype
from tipsseg.util.files import TEMPORARY_PREFIX, is_folder, json_bytes, output_error, read_regular
from tipsseg.util.json_values import parse, short, take

STORE_FILE = "features.json"

#: The folder of the files, in that of the store.
FILES_FOLDER = "feats"

#: The name of a file of features: the hash of the image, and the short side where it is not that of the store.
FEATURE_FILE = re.compile(r"([0-9a-f]{64})(?:-([1-9][0-9]{0,9}))?\.safetensors")

#: What features are kept in where nobody says.
DEFAULT_FEATURE_DTYPE: FeatureDtype = "float16"

#: Seconds without a change after which no living process writes a temporary file any more.
_LEFT = 300

_OTHER = "Choose another folder for the features."


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """What features.json says.

    Attributes:
        model: The id of the model when the store was begun, for people.
        recipe: How all features were made.
        dtype: What they are kept in.
    """

    model: str
    recipe: Recipe
    dtype: FeatureDtype


def read_store(folder: Path) -> StoreRecord | None:
    """What the features.json of a folder says; None where there is none, and nothing that a store would come among.

    Raises:
        OutputError: Where the folder is not a store, or not of this version.
    """
    path = folder / STORE_FILE
    if not os.path.lexists(path):
        _refuse_others(folder)
        return None
    try:
        return _parse_store(parse(read_regular(path)))
    except (OSError, ValueError) as error:
        raise OutputError(path, f"the file that is there is no record of features: {error}", _OTHER) from error


def check_same(folder: Path, there: StoreRecord, wanted: StoreRecord) -> None:
    """Raise OtherRunError where features of a store were made or are kept otherwise than is wanted."""
    if found := differences(there, wanted):
        raise OtherRunError(folder, f"the features in it were made otherwise: {'; '.join(found)}", _OTHER)


def differences(there: StoreRecord, wanted: StoreRecord) -> list[str]:
    """What of two records is not the same, in words."""
    one, other = there.recipe, wanted.recipe
    found = []
    if one.model != other.model:
        same = " (with other files)" if there.model == wanted.model else ""
        found.append(f"the model is {there.model}, not {wanted.model}{same}")
    pairs = (
        ("dtype", one.dtype, other.dtype),
        ("mode", one.mode, other.mode),
        ("short side", one.short_side, other.short_side),
        ("version of labels", one.labels_version, other.labels_version),
        ("dtype of the features", there.dtype, wanted.dtype),
    )
    return found + [f"the {what} is {here}, not {asked}" for what, here, asked in pairs if here != asked]


class FeatureFiles:
    """The files of a store that hold images at one short side. Any thread may use it.

    Attributes:
        folder: The folder of the store.
        record: How the features in these files are made and kept.
    """

    def __init__(self, folder: Path, record: StoreRecord, side_of_store: int) -> None:
        """`side_of_store` is the short side that the store names, in pixels; the record has that of these files."""
        self.folder = folder
        self.record = record
        side = record.recipe.short_side
        self._other_side = None if side == side_of_store else side

    def path(self, sha256: str) -> Path:
        """Where the features of the image of that hash are, or would be."""
        return feature_path(self.folder, sha256, self._other_side)

    def find(self, sha256: str) -> FeatureRecord | None:
        """Return the features of an image in float32; None if there are none. Raises FeatureFileError for a broken file."""
        path = self.path(sha256)
        if not os.path.lexists(path):
            return None
        found = read_feature_file(path)
        self._check(path, sha256, found)
        try:
            return found.in_float32()
        except ValueError as error:
            raise FeatureFileError(path, str(error), "Encode the image again.") from error

    def find_header(self, sha256: str) -> FeatureHeader | None:
        """What the file of an image says of itself; None where there is none. Raises FeatureFileError."""
        path = self.path(sha256)
        if not os.path.lexists(path):
            return None
        found = read_feature_header(path)
        self._check(path, sha256, found)
        return found

    def add(self, record: FeatureRecord) -> Path:
        """Write the features of an image; returns the path of the file. Raises OutputError."""
        assert record.origin is not None
        path = self.path(record.origin.sha256)
        try:
            write_feature_file(path, record)
        except OutputError as error:
            # Not a matter of this image: the next one would meet the same.
            hint = error.hint.replace("Choose another output folder.", _OTHER)
            raise OutputError(path, error.reason, hint) from error
        return path

    def _check(self, path: Path, sha256: str, found: FeatureRecord | FeatureHeader) -> None:
        """Raise FeatureFileError for features that this store would not have written there."""
        if fault := fault_of(self.record, sha256, found):
            raise FeatureFileError(path, fault, "Encode the image again.")


class FeatureStore(FeatureFiles):
    """The features of images in a folder, all of them made in one way: the files at its own short side, and those `at` others."""

    def __init__(self, folder: Path, record: StoreRecord) -> None:
        """Open a store, and begin it where there is none. Raises OutputError; an OtherRunError where it is of another kind."""
        super().__init__(folder, record, record.recipe.short_side)
        there = read_store(folder)
        if there is None:
            _write_first(folder / STORE_FILE, record)
            there = read_store(folder)
        if there is not None:
            check_same(folder, there, record)
        remove_left(folder)

    def at(self, short_side: int) -> FeatureFiles:
        """The features of images at a short side in pixels: one of the scales that images are seen at."""
        recipe = self.record.recipe
        there = replace(self.record, recipe=replace(recipe, short_side=short_side))
        return FeatureFiles(self.folder, there, recipe.short_side)


def feature_path(folder: Path, sha256: str, other_side: int | None = None) -> Path:
    """Where a store in that folder has the features of the image of that hash.

    `other_side` is their short side in pixels, where that is not the one of the store.
    """
    scale = "" if other_side is None else f"-{other_side}"
    return folder / FILES_FOLDER / sha256[:2] / f"{sha256}{scale}.safetensors"


def fault_of(record: StoreRecord, sha256: str, found: FeatureRecord | FeatureHeader) -> str:
    """What is wrong with a file in a store of that record, at the place of that image; "" where nothing is."""
    if found.origin is None:
        return "it does not say of which image it is"
    if found.origin.sha256 != sha256:
        return "it is of another image than its name says"
    wanted = replace(record, recipe=found.origin.recipe, dtype=found.dtype)
    return "; ".join(differences(wanted, record))


def files_in(folder: Path) -> Iterator[Path]:
    """All files below the folder of the files, sorted; links to folders are not followed."""
    for place, folders, names in os.walk(folder / FILES_FOLDER):
        folders.sort()
        for name in sorted(names):
            yield Path(place, name)


def files_of(folder: Path, sha256: str) -> list[Path]:
    """The files of the image of that hash, at whatever short sides. Raises OSError."""
    place = folder / FILES_FOLDER / sha256[:2]
    if not place.is_dir():
        return []
    found = ((path, FEATURE_FILE.fullmatch(path.name)) for path in place.iterdir())
    return sorted(path for path, named in found if named is not None and named[1] == sha256)


def remove_left(folder: Path) -> None:
    """Remove what processes that were killed left under temporary names, where it is too old to be of one that still runs."""
    before = time.time() - _LEFT
    # Beside features.json a process that encodes has its lock, which has no suffix.
    for path in (*folder.glob(f"{TEMPORARY_PREFIX}*.json"), *files_in(folder)):
        if path.name.startswith(TEMPORARY_PREFIX):
            with suppress(OSError):
                if path.lstat().st_mtime < before:
                    path.unlink()


def _refuse_others(folder: Path) -> None:
    """Raise OutputError for a folder with files that no store has."""
    try:
        names = os.listdir(folder) if is_folder(folder) else []  # noqa: PTH208  names are enough
    except OSError as error:
        raise output_error(folder, error) from error
    if os.path.lexists(folder) and not is_folder(folder):
        raise OutputError(folder, "it is not a folder", _OTHER)
    others = sorted(name for name in names if not name.startswith(TEMPORARY_PREFIX))
    if others:
        raise OutputError(folder, f"there are files in it, such as {others[0]}, and no {STORE_FILE}", _OTHER)


def _write_first(path: Path, record: StoreRecord) -> None:
    """Write features.json where no other process has meanwhile. Raises OutputError."""
    from tipsseg._version import __version__

    value = {
        "tool": "tipsseg",
        "version": __version__,
        "model": record.model,
        "recipe": asdict(record.recipe),
        "dtype": record.dtype,
    }
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(json_bytes(value, indent=2) + b"\n")
        try:
            os.link(temporary, path)  # fails where the file is there, as renaming does not
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not os.path.lexists(path):
                temporary.replace(path)
    except OSError as error:
        raised = output_error(path, error)
        raise OutputError(path, raised.reason, raised.hint.replace("Choose another output folder.", _OTHER)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _parse_store(value: object) -> StoreRecord:
    if take(value, "tool", str) != "tipsseg":
        raise ValueError("of another tool")
    dtype = take(value, "dtype", str)
    if dtype not in FEATURE_DTYPES:
        raise ValueError(f"`dtype` is {short(dtype)}")
    return StoreRecord(take(value, "model", str), parse_recipe(take(value, "recipe", dict)), dtype)
