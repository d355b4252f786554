"""One image's labels -> all its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tipsseg.errors import ImageError, OutputError
from tipsseg.formats import FORMATS, Rows, Writer
from tipsseg.regions.objects import ImageLabels
from tipsseg.types import printable_path
from tipsseg.util.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """What came of an image's labels, by format.

    files    its own file, relative to the output folder
    written  what that file is on the disk
    rows  for the file of the whole run
    """

    files: Mapping[str, str]
    written: Mapping[str, Fingerprint]
    rows: Mapping[str, Rows]


def write_labels(labels: ImageLabels, writers: Mapping[str, Writer], output: Path) -> WrittenFiles:
    """Write an image's labels in these formats.

    Raises ImageError for what is wrong with this image or its files, others for what ends a run.
    """
    files: dict[str, str] = {}
    on_disk: dict[str, Fingerprint] = {}
    rows: dict[str, Rows] = {}
    for name, writer in writers.items():
        try:
            written = writer.write(labels)
        except OutputError as error:
            if error.only_this:
                raise ImageError(labels.ref.path, error.message, error.hint) from error
            raise
        if written.path is not None and written.file is not None:
            files[name] = printable_path(written.path.relative_to(output))
            on_disk[name] = written.file
        if FORMATS[name].rows:
            rows[name] = written.rows
    return WrittenFiles(files, on_disk, rows)
