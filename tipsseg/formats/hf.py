"""Hugging Face `datasets`, as its ImageFolder reads it: hf/images, links; hf/masks, index masks; and metadata.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tipsseg.formats import FORMATS, Rows, RunContext, Written, link_path, relative_path
from tipsseg.formats.image_file import write_image_file
from tipsseg.formats.png import encode
from tipsseg.regions.objects import ImageLabels
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse

_FOLDER = "hf"


def metadata_record(ref: ImageRef, names: str) -> dict[str, object]:
    """The line of metadata.jsonl for one image; names are relative to that file. `names` as of FileOptions."""
    image, mask = link_path("hf", ref.relative, names), relative_path("hf", ref.relative, names)
    if image is None or mask is None:
        raise ValueError("the format hf has images and masks")
    return {
        "file_name": printable_path(image.relative_to(_FOLDER)),
        "mask_file_name": printable_path(mask.relative_to(_FOLDER)),
    }


class HfWriter:
    """Writes the mask of each image and links the image, and makes its record: its line of metadata.jsonl."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def write(self, labels: ImageLabels) -> Written:
        """Write the image's files; raises OutputError."""
        written = write_image_file(self._context, "hf", labels, encode(labels.label_map))
        return replace(written, rows=(json_bytes(metadata_record(labels.ref, self._context.files.names)),))


class MetadataFile:
    """metadata.jsonl."""

    def __init__(self, context: RunContext) -> None:
        self.path = context.state / FORMATS["hf"].files[0]
        self._ownership = context.ownership

    def names(self, images: Sequence[str]) -> Iterator[str]:
        """The images in the file, see RowsFile."""
        for name, _ in self.read(images):
            yield name

    def read(self, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """The images in the file with their rows, see RowsFile."""
        with open_regular(self.path) as file:
            for line in file:
                record = parse(line)
                name = record.get("file_name") if isinstance(record, dict) else None
                if not isinstance(name, str) or not name.startswith("images/"):
                    raise ValueError("a line without the name of its image")
                yield name.removeprefix("images/"), (line.rstrip(b"\n"),)

    def write(self, images: Sequence[str], rows: Callable[[str], Rows]) -> None:
        """Write a line an image; raises OutputError."""
        with self._ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            for image in images:
                target.write(rows(image)[0] + b"\n")


def create(context: RunContext) -> HfWriter:
    """The writer of format "hf"."""
    return HfWriter(context)


def run_files(context: RunContext) -> tuple[MetadataFile]:
    """The file of format "hf"."""
    return (MetadataFile(context),)
