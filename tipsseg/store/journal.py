"""What a format with one file for the whole run keeps of each image until that file is written.

The journal is a hidden file in the state folder, and outlives a process that is killed. It begins with what the file holds
already, once there is something to add; so a run that adds nothing costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows, RowsFile, RunFile
from tipsseg.util.append_log import AppendLog, lines_of
from tipsseg.util.files import TEMPORARY_PREFIX, atomic_path, json_bytes, output_error, remove_file
from tipsseg.util.json_values import parse


class Journal:
    """The records of one format by image. In memory is an offset an image.

    One thread changes it; meanwhile any thread may ask `has`.
    """

    def __init__(self, name: str, file: RowsFile, state: Path, images: Sequence[str]) -> None:
        """Of the format `name` with this file in a state folder, which was written with `images`. Raises OutputError."""
        self._file = file
        self._images = images
        self._path = state / self.file_name(name)
        self._log: AppendLog | None = None
        self._offsets: dict[str, int] = {}
        if self._path.exists():
            self._log = self._open()
        else:
            with suppress(
                OSError, ValueError
            ):  # no file yet, or one that is not ours: then there is nothing to go on from
                self._offsets = dict.fromkeys(file.names(images), 0)

    @property
    def lost(self) -> int:
        """How many of the images that the file was written with are not known any more."""
        return sum(image not in self._offsets for image in self._images)

    @staticmethod
    def file_name(name: str) -> str:
        """The name of the journal of format `name`."""
        return f"{TEMPORARY_PREFIX}{name}"

    @property
    def path(self) -> Path:
        """The file that it will become."""
        return self._file.path

    @property
    def changed(self) -> bool:
        """Whether there is more, or less, in it than in the file."""
        return self._log is not None

    def has(self, image: str) -> bool:
        """Whether there are records of the image."""
        return image in self._offsets

    def add(self, image: str, records: Sequence[bytes]) -> None:
        """Take an image's records, in place of earlier ones. Raises OutputError."""
        log = self._begun()
        self._offsets[image] = log.append(_line(image, records))

    def begin(self) -> None:
        """Let the file be written again, as where images are in the format no more. Raises OutputError."""
        self._begun()

    def write(self, images: Sequence[str]) -> None:
        """Write the file with those of these images that it has, in this order, and end the journal. Raises OutputError."""
        self._file.write([image for image in images if image in self._offsets], self._records)
        self.close()
        remove_file(self._path)

    def close(self) -> None:
        """Close it; what it holds stays on the disk. Safe to call twice."""
        if self._log is not None:
            self._log.close()

    def _records(self, image: str) -> Rows:
        _, _, records = self._begun().read(self._offsets[image]).partition(b"\t")
        return tuple(records.split(b"\t")) if records else ()

    def _begun(self) -> AppendLog:
        """The open journal, begun with what the file holds."""
        if self._log is None:
            if self._offsets:
                try:
                    with atomic_path(self._path) as temporary, temporary.open("wb") as target:
                        for image, records in self._file.read(self._images):
                            target.write(_line(image, records) + b"\n")
                except ValueError as error:
                    raise OutputError(
                        self._file.path, f"what is there cannot be continued: {error}", "Move that file away."
                    ) from error
            self._log = self._open()
        return self._log

    def _open(self) -> AppendLog:
        offsets: dict[str, int] = {}
        try:
            for offset, line in lines_of(self._path):
                if (image := _image_of(line)) is not None:
                    offsets[image] = offset
        except OSError as error:
            raise output_error(self._path, error) from error
        self._offsets = offsets  # at once: another thread may ask `has` meanwhile
        return AppendLog(self._path)


def _line(image: str, records: Sequence[bytes]) -> bytes:
    return json_bytes(image) + b"\t" + b"\t".join(records)


def _image_of(line: bytes) -> str | None:
    """The image that a line is of; None where it is none, as after a loss of power."""
    name, tab, _ = line.partition(b"\t")
    try:
        image = parse(name) if tab else None
    except ValueError:
        return None
    return image if isinstance(image, str) else None


def journals_in(state: Path) -> list[str]:
    """The formats that have a journal in a state folder."""
    return [name for name in FORMATS if (state / Journal.file_name(name)).exists()]


def write_run_file(file: RunFile, journal: Journal | None, images: Sequence[str], *, anew: bool) -> None:
    """Write a file of a format for these images; `journal` is that of the format, where it keeps one.

    Without `anew` a file of records is left as it is where none have changed. Raises OutputError.
    """
    if journal is None or journal.path != file.path:
        file.write(images, lambda _: ())
    elif anew or journal.changed or not file.path.exists():
        journal.write(images)
