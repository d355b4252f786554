"""Hugging Face `datasets` in the ImageFolder layout: links in hf/images, index masks in hf/masks, and metadata.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.formats.png import encode_mask
from tipsseg.util.files import json_bytes

if TYPE_CHECKING:
    from tipsseg.options import FileOptions

_FOLDER = "hf"


class HuggingFace(Format):
    name = "hf"
    description = "Hugging Face datasets: hf/metadata.jsonl, hf/masks/<image>.png, links to the images"
    folder = f"{_FOLDER}/masks"
    suffix = ".png"
    link_folder = f"{_FOLDER}/images"
    files = (f"{_FOLDER}/metadata.jsonl",)
    has_rows = True
    needs_image = True

    def link_name(self, image: PurePosixPath, options: FileOptions) -> str:
        return image.name

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        return encode_mask(image.labels, run.classes)

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return the line of metadata.jsonl, with paths relative to that file."""
        from tipsseg.types import printable_path

        link, mask = self.link_path(image.ref.relative, run.files), self.relative_path(image.ref.relative, run.files)
        assert link is not None
        assert mask is not None
        record = {
            "file_name": printable_path(link.relative_to(_FOLDER)),
            "mask_file_name": printable_path(mask.relative_to(_FOLDER)),
        }
        return (json_bytes(record),)

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        return (rows(image)[0] + b"\n" for image in images)
