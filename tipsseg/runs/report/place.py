"""The folder of a report, and the records of its files.

report.json    marks the folder as a report of tipsseg; other folders are refused
records/       a file for each image: the signature of its inputs, and its record for the page
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tipsseg.errors import OutputError
from tipsseg.run.files import Files
from tipsseg.runs.common.inputs import REPORT_FILE
from tipsseg.util.files import atomic_write, json_bytes, output_error, read_regular, remove_file
from tipsseg.util.json_values import parse, take

#: The folders of per-image files, with their suffixes.
IMAGE_FILES = {"pictures": ".jpg", "thumbnails": ".jpg", "maps": ".js"}
_RECORDS = "records"

#: The folder of the scripts with the records of all images.
DATA = "data"

_CHOOSE = "Choose another folder with argument `target`."


def image_key(image: str) -> str:
    """Return a unique file name for an image, valid on every file system."""
    return hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Place:
    """The folder of a report. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, or create it. Raises OutputError if it is not empty and not a report."""
        self.folder = folder
        self._files = Files(folder)  # only to refuse links out of the folder
        _claim(folder)

    def record(self, image: str, signature: str) -> Mapping[str, object] | None:
        """Return an image's record, or None if its inputs have changed or a file is missing."""
        try:
            saved = self._read(image)
            record = take(saved, "record", dict)
            same = take(saved, "signature", str) == signature
        except (OSError, ValueError):  # damaged, for example by a power loss
            return None
        return record if same and all(path.is_file() for path in self.files(image)) else None

    def read(self, image: str) -> Mapping[str, object]:
        """Return an image's record, which must exist."""
        record: dict[str, object] = self._read(image)["record"]
        return record

    def add(self, image: str, signature: str, record: Mapping[str, object]) -> None:
        """Record that an image's files are complete. Raises OutputError if the record cannot be written."""
        data = json_bytes({"image": image, "signature": signature, "record": dict(record)})
        self.write(self._path(_RECORDS, image_key(image), ".json"), data)

    def _read(self, image: str) -> Any:
        return parse(read_regular(self._path(_RECORDS, image_key(image), ".json")))

    def _path(self, folder: str, key: str, suffix: str) -> Path:
        return self.folder / folder / key[:2] / f"{key}{suffix}"

    def files(self, image: str) -> list[Path]:
        return [self._path(name, image_key(image), suffix) for name, suffix in IMAGE_FILES.items()]

    def write(self, path: Path, data: bytes) -> None:
        """Write a file below the folder. Raises OutputError if it cannot be written, or a link leads out of the folder."""
        self._files.refuse_outside(path)
        atomic_write(path, data)

    def remove_others(self, images: Iterable[str]) -> None:
        """Remove the files of all images except these. Raises OutputError if a file cannot be removed."""
        keys = set(map(image_key, images))
        for record in (self.folder / _RECORDS).glob("??/*.json"):
            if record.stem not in keys:
                for name, suffix in {**IMAGE_FILES, _RECORDS: ".json"}.items():  # the record comes last
                    path = self._path(name, record.stem, suffix)
                    self._files.refuse_outside(path)
                    remove_file(path)

    def remove_chunks_from(self, number: int) -> None:
        """Remove an earlier page's chunks from this number on. Raises OutputError if a file cannot be removed."""
        for path in sorted((self.folder / DATA).glob("images-*.js")):
            if path.name not in {chunk_name(index) for index in range(number)}:
                remove_file(path)


def chunk_name(index: int) -> str:
    return f"images-{index:05}.js"


def _claim(folder: Path) -> None:
    path = folder / REPORT_FILE
    if os.path.lexists(path):
        try:
            if take(parse(read_regular(path)), "tool", str) == "tipsseg":
                return
        except (OSError, ValueError):
            pass
        raise OutputError(path, "tipsseg did not write this file", _CHOOSE)
    if any(_visible_names(folder)):
        raise OutputError(folder, "the folder is neither empty nor a tipsseg report", _CHOOSE)
    atomic_write(path, json_bytes({"tool": "tipsseg", "report": 1}, indent=2) + b"\n")


def _visible_names(folder: Path) -> Iterator[str]:
    try:
        yield from (name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208  names are enough
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(folder, error) from error
