"""One image's labels -> all its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tipsseg.errors import ImageError, OutputError
from tipsseg.image_labels import ImageLabels
from tipsseg.records import printable_path
from tipsseg.writers import FORMATS, Records, Writer


def write_labels(
    labels: ImageLabels, writers: Mapping[str, Writer], output: Path
) -> tuple[dict[str, str], dict[str, Records]]:
    """Write an image's labels in these formats.

    Returns its own file in each format that has one, relative to the output folder, and its records in each that has some. Raises
    ImageError for what is wrong with this image or its files, others for what ends a run.
    """
    files: dict[str, str] = {}
    records: dict[str, Records] = {}
    for name, writer in writers.items():
        try:
            written = writer.write(labels)
        except OutputError as error:
            if error.only_this:
                raise ImageError(labels.ref.path, error.message, error.hint) from error
            raise
        if written.path is not None:
            files[name] = printable_path(written.path.relative_to(output))
        if FORMATS[name].records:
            records[name] = written.records
    return files, records
