"""The rows of each image, kept until a format writes its one file for the whole run.

The journal is a hidden file in the state folder, and outlives a process that is killed. It is made once there is something to add,
and begins with what the file holds already. A run that adds nothing costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows
from tipsseg.store.writing import RunFile
from tipsseg.util.append_log import AppendLog, lines_of
from tipsseg.util.files import TEMPORARY_PREFIX, atomic_path, json_bytes, output_error, remove_file
from tipsseg.util.json_values import parse


class Journal:
    """The rows of one format, by image. Memory holds a name and an offset per image.

    One thread changes it; meanwhile any thread may ask `has`.
    """

    def __init__(self, name: str, file: RunFile, state: Path, images: Sequence[str]) -> None:
        """Open the journal, where there is one.

        Args:
            name: The format.
            file: Its file of rows.
            state: The state folder.
            images: The images that the file was written with.

        Raises:
            OutputError: Where the journal cannot be read.
        """
        self._file = file
        self._images = images
        self._path = state / self.file_name(name)
        self._log: AppendLog | None = None
        self._offsets: dict[str, int] = {}
        if self._path.exists():
            self._log = self._open()
        else:
            # Where there is no file yet, or a file of somebody else, there is nothing to go on from.
            with suppress(OSError, ValueError):
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
        """Whether there are rows of the image."""
        return image in self._offsets

    def add(self, image: str, rows: Sequence[bytes]) -> None:
        """Take the rows of an image, in place of earlier rows. Raises OutputError."""
        log = self._begun()
        self._offsets[image] = log.append(_line(image, rows))

    def begin(self) -> None:
        """Let the file be written again, as where images are in the format no more. Raises OutputError."""
        self._begun()

    def write(self, images: Sequence[str]) -> None:
        """Write the file with the images that the journal has of these, in this order, and end the journal. Raises OutputError."""
        self._file.write([image for image in images if image in self._offsets], self.rows)
        self.close()
        remove_file(self._path)

    def close(self) -> None:
        """Close it; what it holds stays on the disk. Safe to call twice."""
        if self._log is not None:
            self._log.close()

    def rows(self, image: str) -> Rows:
        """Return the rows of an image that it has. Raises OutputError."""
        _, _, rows = self._begun().read(self._offsets[image]).partition(b"\t")
        return tuple(rows.split(b"\t")) if rows else ()

    def _begun(self) -> AppendLog:
        """The open journal, begun with what the file holds."""
        if self._log is None:
            if self._offsets:
                try:
                    with atomic_path(self._path) as temporary, temporary.open("wb") as target:
                        for image, rows in self._file.read(self._images):
                            target.write(_line(image, rows) + b"\n")
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


def _line(image: str, rows: Sequence[bytes]) -> bytes:
    return json_bytes(image) + b"\t" + b"\t".join(rows)


def _image_of(line: bytes) -> str | None:
    """The image that a line is of; None for a line that is torn, as after a loss of power."""
    name, tab, _ = line.partition(b"\t")
    try:
        image = parse(name) if tab else None
    except ValueError:
        return None
    return image if isinstance(image, str) else None


def journals_in(state: Path) -> list[str]:
    """The formats that have a journal in a state folder."""
    return [name for name in FORMATS if (state / Journal.file_name(name)).exists()]


def write_run_file(file: RunFile, journal: Journal | None, images: Sequence[str], *, rewrite: bool) -> None:
    """Write a file that a format has for the whole run.

    Args:
        file: The file.
        journal: The journal of the format, where it keeps one.
        images: The images that the file is to hold.
        rewrite: Whether a file of rows is written again where no row has changed.

    Raises:
        OutputError: Where it cannot be written.
    """
    if journal is None or journal.path != file.path:
        file.write(images)
    elif rewrite or journal.changed or not file.path.exists():
        journal.write(images)
