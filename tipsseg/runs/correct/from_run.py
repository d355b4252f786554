"""Use another output folder as the source of corrections: import the labels that a person edited, not the model's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, OtherSchemaError
from tipsseg.formats import image_folders
from tipsseg.formats.corrections import ClassNames, SourceImage
from tipsseg.formats.names import ImageNames
from tipsseg.formats.png import Png, read_named_masks
from tipsseg.formats.source import Source
from tipsseg.run.entry import MANIFEST_FILE, Entry
from tipsseg.run.files import Look
from tipsseg.run.read import Run, open_runs
from tipsseg.run.record import RUN_FILE
from tipsseg.run.shards import shards_in
from tipsseg.run.state import State
from tipsseg.util.files import is_folder

_RECORDS = (RUN_FILE, MANIFEST_FILE)

_EVERYTHING = "argument `everything` imports all labels, the model's too"


@dataclass(frozen=True, slots=True)
class _Labelled:
    """An image of the source run.

    Attributes:
        mask: The file of its labels.
        corrected: True if a person corrected it.
        files: Its other files.
        stale: Those of `files` that show older labels.
        sha256: The digest of the labelled picture; None if unknown.
    """

    mask: Path
    corrected: bool
    files: tuple[Path, ...]
    stale: frozenset[Path]
    sha256: str | None


class RunMasks(Png):
    """The masks of a run, by image."""

    def __init__(self, masks: Mapping[str, str]) -> None:
        self._masks = masks

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        return read_named_masks(self._masks.items(), source, names)


class SourceRun:
    """The run whose output folder is, or contains, the source.

    Attributes:
        uncorrected: The images that `select_corrected` skipped, as the source names them.
    """

    def __init__(self, top: Path, runs: Iterable[Run]) -> None:
        """Read the run's records. Raises ImageError if a mask is missing."""
        self.uncorrected: list[str] = []
        self._top = top
        self._images: dict[str, _Labelled] = {}
        #: The image and the state of each file; the image is "" for files of the whole run.
        self._written: dict[Path, tuple[str, Look]] = {}
        self._digests = set()
        for run in runs:
            self._digests.add(run.info.digest)
            self._written |= {
                run.files.path(row.place): ("", run.files.look(row)) for row in run.state.files().values()
            }
            for image in run.images():
                entry, files = (
                    image.entry,
                    {run.files.path(row.place): row for row in image.rows.values() if row.is_file},
                )
                stale = {path for path, row in files.items() if row.shows and row.shows.split(" ")[0] != entry.version}
                if image.edited:
                    stale |= {path for path, row in files.items() if row.shows}
                self._images[entry.image] = _Labelled(
                    image.mask, image.corrected, tuple(files), frozenset(stale), entry.input.sha256
                )
                self._written |= {path: (entry.image, run.files.look(row)) for path, row in files.items()}
        self._names = ImageNames(self._images)

    def masks_of(self, source: Source) -> Png | None:
        """Return the format of all the run's masks; None if the source is not the whole folder or has no masks."""
        paths = {image: labelled.mask.relative_to(self._top).as_posix() for image, labelled in self._images.items()}
        if Path(os.path.realpath(source.path)) != self._top or not paths:
            return None
        return RunMasks(paths)

    def has_other_picture(self, source_image: SourceImage, entry: Entry) -> bool:
        """Return True if the digests of an image in the source and of the entry with the same name differ."""
        own, _ = self._written.get(Path(os.path.realpath(source_image.where)), ("", "gone"))
        labelled = self._images.get(own or self._names.find(source_image.name) or "")
        digests = (None if labelled is None else labelled.sha256, entry.input.sha256)
        return None not in digests and digests[0] != digests[1]

    def select_corrected(self, images: Iterable[SourceImage], digest: str) -> Iterator[SourceImage]:
        """Yield the images that a person corrected. `digest` identifies the labels of the run that imports them.

        Raises InputError if a file is out of date, or does not record which of its images a person corrected.
        """
        seen: set[str | None] = set()
        for source_image in images:
            image = self._names.find(source_image.name)
            if source_image.by_list:
                if image is None or (image not in seen and not all(map(os.path.lexists, self._images[image].files))):
                    yield source_image  # a person deleted its file
            elif self._is_corrected(source_image, image, digest):
                yield source_image
            else:
                self.uncorrected.append(source_image.name)
            if not source_image.by_list:
                seen.add(image)

    def _is_corrected(self, source_image: SourceImage, image: str | None, digest: str) -> bool:
        """Return True if a person corrected the labels of an image in a file; see `select_corrected`."""
        path = Path(os.path.realpath(source_image.where))
        if path not in self._written:
            return True
        own, look = self._written[path]
        if look not in ("ours", "taken"):
            # In a copy of the importing folder, the other images have the same labels and change nothing.
            if not own and self._digests != {digest}:
                raise InputError(
                    f"{source_image.where}: edited, but it does not record which of its images were",
                    f"Import it into {self._top} first, then import that folder; or {_EVERYTHING}.",
                )
            return True
        labelled = self._images.get(own or image or "")
        if labelled is None or not labelled.corrected:
            return False
        if path in labelled.stale:
            raise InputError(
                f"{source_image.where}: out of date: it does not show the correction of {own or image} in {labelled.mask}",
                f"Import the folder {self._top} itself.",
            )
        return True


def find_source_run(source: Source, output: Path, *, everything: bool) -> SourceRun | None:
    """Return the run whose output folder is, or contains, the source; None for other sources, for files in `output`
    itself, and for a run of another version.

    Args:
        source: The source of the corrections.
        output: The output folder that imports the corrections.
        everything: True to import all labels, not only corrected ones.

    Raises:
        InputError: If the run is not finished, or its folder is in a zip archive.
    """
    path = Path(os.path.realpath(source.path))
    records = [
        {PurePosixPath(name).parent for name in source.names if PurePosixPath(name).name == record}
        for record in _RECORDS
    ]
    if not is_folder(path) and set.intersection(*records) and not everything:
        raise InputError(
            f"{source.path}: a zipped output folder of tipsseg", f"Unzip it and import the folder; or {_EVERYTHING}."
        )
    for top in (path, *path.parents):
        if top != path and is_folder(path) and path.relative_to(top).parts[0] not in image_folders():
            continue
        if os.path.lexists(State.file(top)) or shards_in(top):
            if top == Path(os.path.realpath(output)):
                return None
            try:
                with open_runs(top) as runs:
                    return SourceRun(top, runs)
            except OtherSchemaError:
                return None  # its masks are taken as those of any tool
    return None
