"""Hugging Face `datasets`, as its ImageFolder reads it: hf/images, links; hf/masks, index masks; and metadata.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RowsFile, RunContext, StoredImage
from tipsseg.formats.png import encode_mask, read_mask
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

if TYPE_CHECKING:
    from tipsseg.types import LabelArray

_FOLDER = "hf"


class HuggingFace(Format):
    """The format "hf"."""

    name = "hf"
    description = "Hugging Face datasets: hf/metadata.jsonl, hf/masks/<image>.png, links to the images"
    folder = f"{_FOLDER}/masks"
    suffix = ".png"
    links = f"{_FOLDER}/images"
    files = (f"{_FOLDER}/metadata.jsonl",)
    rows = True
    image = True
    index_mask = True
    labels = "all"

    def encode(self, labels: ImageLabels, context: RunContext) -> bytes:
        """The index mask, in grey."""
        return encode_mask(labels.label_map)

    def image_rows(self, labels: ImageLabels, context: RunContext) -> Rows:
        """The line of metadata.jsonl; its names are relative to that file."""
        from tipsseg.types import printable_path

        image = labels.ref.relative
        link, mask = self.link_path(image, context.files), self.relative_path(image, context.files)
        if link is None or mask is None:
            raise ValueError("the format hf has links and masks")
        record = {
            "file_name": printable_path(link.relative_to(_FOLDER)),
            "mask_file_name": printable_path(mask.relative_to(_FOLDER)),
        }
        return (json_bytes(record),)

    def run_files(self, context: RunContext) -> tuple[RowsFile]:
        """metadata.jsonl."""
        return (RowsFile(context, self.files[0], _lines, _read),)

    def read_labels(self, image: StoredImage, source: Path | Rows) -> LabelArray:
        """The index mask, see Format."""
        return read_mask(source, image)


def _lines(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    for image in images:
        yield rows(image)[0] + b"\n"


def _read(path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
    with open_regular(path) as file:
        for line in file:
            record = parse(line)
            name = record.get("file_name") if isinstance(record, dict) else None
            if not isinstance(name, str) or not name.startswith("images/"):
                raise ValueError("a line without the name of its image")
            yield name.removeprefix("images/"), (line.rstrip(b"\n"),)
