"""Keep the folder of a page: see that it is ours, and what was made in it.

report.json    says that the folder is a report of tipsseg; no other folder is written to
state.jsonl    a line per image: of what its files were made, and its record for the page. The last line of an image counts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tipsseg.errors import OutputError
from tipsseg.runs.common.inputs import REPORT_FILE
from tipsseg.util.append_log import AppendLog, lines_of
from tipsseg.util.files import (
    atomic_path,
    atomic_write,
    json_bytes,
    output_error,
    read_error,
    read_regular,
    remove_file,
)
from tipsseg.util.json_values import parse, take
from tipsseg.util.ownership import Ownership

STATE_FILE = "state.jsonl"

#: The folders of per-image files, and the suffix of each.
IMAGE_FILES = {"pictures": ".jpg", "thumbnails": ".jpg", "maps": ".js"}

#: The folder of the data of all images.
DATA = "data"

_CHOOSE = "Choose another folder with argument `target`."


def image_key(image: str) -> str:
    """Return the name of the files of an image: of letters that every file system takes, and never the same for two images."""
    return hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Place:
    """The folder of a page. One thread writes the state; any thread may write files of images."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, or make it. Raises OutputError for a folder that holds anything else."""
        self.folder = folder
        self._ownership = Ownership(folder, folder)  # for its rule about links alone
        _claim(folder)
        self._log = AppendLog(folder / STATE_FILE)
        self._offsets: dict[str, int] = {}
        self._read()

    def _read(self) -> None:
        try:
            for offset, line in lines_of(self._log.path):
                try:
                    self._offsets[take(parse(line), "image", str)] = offset
                except ValueError:  # as after a loss of power: the image is done again
                    continue
        except OSError as error:
            raise read_error(self._log.path, error) from error

    def record(self, image: str, signature: str) -> Mapping[str, object] | None:
        """Return the record of an image whose files were made of the same, and are all there; else None."""
        offset = self._offsets.get(image)
        if offset is None:
            return None
        try:
            line = parse(self._log.read(offset))
            record = take(line, "record", dict)
            same = take(line, "signature", str) == signature
        except ValueError:
            return None
        return record if same and all(path.is_file() for path in self.files(image)) else None

    def read(self, image: str) -> Mapping[str, object]:
        """Return the record of an image that was added, or is there. Raises OutputError."""
        record: dict[str, object] = parse(self._log.read(self._offsets[image]))["record"]
        return record

    def add(self, image: str, signature: str, record: Mapping[str, object]) -> None:
        """Note that the files of an image are there. Raises OutputError."""
        line = json_bytes({"image": image, "signature": signature, "record": dict(record)})
        self._offsets[image] = self._log.append(line)

    def files(self, image: str) -> list[Path]:
        key = image_key(image)
        return [self.folder / name / key[:2] / f"{key}{suffix}" for name, suffix in IMAGE_FILES.items()]

    def write(self, path: Path, data: bytes) -> None:
        """Write a file below the folder. Raises OutputError, also if a link leads out of the folder."""
        self._ownership.refuse_outside(path)
        atomic_write(path, data)

    def keep_only(self, images: Mapping[str, object]) -> None:
        """Forget all images but these, with their files, and leave one line for each of these. Raises OutputError."""
        for image in self._offsets.keys() - images.keys():
            for path in self.files(image):
                self._ownership.refuse_outside(path)
                remove_file(path)
            del self._offsets[image]
        with atomic_path(self._log.path) as temporary, temporary.open("wb") as file:
            for image, offset in self._offsets.items():
                line = self._log.read(offset)
                self._offsets[image] = file.tell()
                file.write(line + b"\n")
        self._log.close()
        self._log = AppendLog(self._log.path)  # of the file that is there now

    def keep_chunks(self, number: int) -> None:
        """Remove data of an earlier page that had more chunks. Raises OutputError."""
        for path in sorted((self.folder / DATA).glob("images-*.js")):
            if path.name not in {chunk_name(index) for index in range(number)}:
                remove_file(path)

    def close(self) -> None:
        self._log.close()


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
        raise OutputError(path, "tipsseg did not write the file that is there", _CHOOSE)
    if any(_others(folder)):
        raise OutputError(folder, "the folder is no report of tipsseg and is not empty", _CHOOSE)
    atomic_write(path, json_bytes({"tool": "tipsseg", "report": 1}, indent=2) + b"\n")


def _others(folder: Path) -> Iterator[str]:
    try:
        yield from (name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208  names are enough
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(folder, error) from error
