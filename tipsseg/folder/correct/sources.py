"""Read the corrections in the output folder of another run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError, InputError, OtherSchemaError
from tipsseg.folder.entry import MANIFEST_FILE
from tipsseg.folder.read import Run, open_run
from tipsseg.folder.record import RUN_FILE
from tipsseg.formats import image_folders
from tipsseg.formats.png import Png, read_named_masks
from tipsseg.formats.records import ClassNames, SourceImage
from tipsseg.formats.source import Source
from tipsseg.util.files import is_folder
from tipsseg.util.text import shell_word

#: How to import what `SourceRun` leaves out.
COPY = "To import the labels of the model too, copy the files elsewhere, and import the copy."


# ---- the output folder of another run ----


class RunMasks(Png):
    """The masks of a run: the path of each in the source, by image."""

    def __init__(self, masks: Mapping[str, str]) -> None:
        self._masks = masks

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        return read_named_masks(self._masks.items(), source, names)


class SourceRun:
    """The run whose output folder is, or contains, the source: the labels that a person edited count, not the model's.

    Attributes:
        uncorrected: The images that `select_corrected` skipped, as the source names them.
        lacking: The errors of corrected images whose masks are missing.
    """

    def __init__(self, top: Path, run: Run) -> None:
        """Index the files of a run."""
        self.uncorrected: list[str] = []
        self.lacking: list[ImageError] = []
        self._top, self._run = top, run
        self._masks = {image.mask: image.entry.image for image in run.images()}

    def masks_of(self, source: Source) -> RunMasks | None:
        """Return the format of all the run's masks; None if the source is not the whole folder or has no masks."""
        if Path(os.path.realpath(source.path)) != self._top or not len(self._run):
            return None
        self.lacking += self._run.faults.values()
        return RunMasks({image.entry.image: image.entry.place for image in self._run.images()})

    def select_corrected(self, images: Iterable[SourceImage]) -> Iterator[SourceImage]:
        """Yield the images that a person corrected, with their pictures. Raise InputError for a file made from the masks."""
        for source_image in images:
            path = Path(os.path.realpath(source_image.where))
            if path not in self._masks:
                top = shell_word(str(self._top))
                raise InputError(
                    f"{source_image.where}: it shows the labels of the model too, from the output folder {self._top}",
                    f"Import that folder itself. If you edited the file, import it there first: tipsseg correct {top} --from "
                    f"{shell_word(str(path))}. {COPY}",
                )
            image = self._run.image(self._masks[path])
            if image.corrected:
                yield replace(source_image, picture=image.entry.mask.picture.pixels)
            else:
                self.uncorrected.append(source_image.name)


def find_source_run(source: Source, output: Path, stack: ExitStack) -> SourceRun | None:
    """Return the run whose output folder is, or contains, the source.

    Return None for other sources, for files in `output` itself, and for a run by another version of tipsseg.

    Args:
        source: The source of the corrections.
        output: The output folder that imports the corrections.
        stack: The exit stack that closes the run.

    Raises:
        InputError: If the run is not finished, or its folder is in a zip archive.
    """
    path = Path(os.path.realpath(source.path))
    if not is_folder(path):
        folders = [
            {PurePosixPath(name).parent for name in source.find_name(each)} for each in (RUN_FILE, MANIFEST_FILE)
        ]
        if set.intersection(*folders):
            raise InputError(
                f"{source.path}: a zipped output folder of tipsseg",
                "Unzip it and import the folder, which imports corrected masks alone.",
            )
    for top in (path, *path.parents):
        if top != path and is_folder(path) and path.relative_to(top).parts[0] not in image_folders():
            continue
        if os.path.lexists(top / RUN_FILE):
            if top == Path(os.path.realpath(output)):
                return None
            try:
                return SourceRun(top, stack.enter_context(open_run(top)))
            except OtherSchemaError:
                return None  # its masks are taken like any tool's
    return None
