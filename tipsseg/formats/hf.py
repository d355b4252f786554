"""Hugging Face `datasets` in the ImageFolder layout: images in hf/images, index masks in hf/masks, and metadata.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.formats.classes_file import MaskIds
from tipsseg.formats.png import encode_mask, read_mask
from tipsseg.formats.records import ClassNames, SourceImage, image_errors
from tipsseg.formats.source import Source
from tipsseg.options.records import FileOptions
from tipsseg.types import printable_path
from tipsseg.util.files import actual_name
from tipsseg.util.json import json_bytes, parse, take

_FOLDER = "hf"
_METADATA = "metadata.jsonl"


class HuggingFace(Format):
    name = "hf"
    description = "Hugging Face datasets: hf/metadata.jsonl, hf/masks/<image>.png, copies of the images"
    folder = f"{_FOLDER}/masks"
    picture_folder = f"{_FOLDER}/images"
    files = (f"{_FOLDER}/metadata.jsonl",)

    def picture_name(self, image: PurePosixPath, options: FileOptions) -> str:
        return image.name

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        return encode_mask(image.labels, run.classes)

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return the line of metadata.jsonl, with paths relative to that file."""
        picture, mask = (
            self.picture_path(image.ref.relative, run.files),
            self.relative_path(image.ref.relative, run.files),
        )
        assert picture is not None
        assert mask is not None
        record = {
            "file_name": printable_path(picture.relative_to(_FOLDER)),
            "mask_file_name": printable_path(mask.relative_to(_FOLDER)),
        }
        return (json_bytes(record),)

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        return (rows(image)[0] + b"\n" for image in images)

    def detect(self, source: Source) -> bool:
        return bool(source.find_name(_METADATA))

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield the images that metadata.jsonl lists with their masks. Raise ImageError if a line is invalid."""
        ids = MaskIds(source, names)
        for listing in source.find_name(_METADATA):
            folder = PurePosixPath(listing).parent
            where = source.display_path(listing)
            for number, line in source.lines(listing):
                with image_errors(where, f"line {number}"):
                    record = parse(line.encode())
                    image, mask = take(record, "file_name", str), take(record, "mask_file_name", str)
                    name = str(folder / actual_name(mask))
                    if not source.has(name):
                        raise ValueError(f"mask {mask!r} not found")
                read = partial(read_mask, source, name, names.classes, ids)
                yield SourceImage(image.removeprefix("images/"), source.display_path(name), read)
