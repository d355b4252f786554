"""What the formats with one file an image have in common."""

from __future__ import annotations

from collections.abc import Callable

from tipsseg.formats import RunContext, Written, image_path, link_path
from tipsseg.regions.objects import ImageLabels


class ImageFileWriter:
    """Writes the file that `encode` makes of each image to the format's place for it."""

    def __init__(self, context: RunContext, name: str, encode: Callable[[ImageLabels], bytes]) -> None:
        """`name` is the format's."""
        self._context = context
        self._name = name
        self._encode = encode

    def write(self, labels: ImageLabels) -> Written:
        """Write the image's file. Raises OutputError, and what `encode` raises."""
        return write_image_file(self._context, self._name, labels, self._encode(labels))


def write_image_file(context: RunContext, name: str, labels: ImageLabels, data: bytes) -> Written:
    """Write an image's file in format `name`, and the link to the image where the format has one. Raises OutputError."""
    path = image_path(name, context.output, labels.ref.relative, context.files.names)
    if path is None:
        raise ValueError(f"the format {name} has no files of images")
    place = link_path(name, labels.ref.relative, context.files.names)
    if place is not None:
        context.ownership.link(labels.ref, context.output / place, ours=name in labels.ref.linked)
    return Written(path, file=context.ownership.write(labels.ref, path, data))
