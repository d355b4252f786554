"""A run of tipsseg as the source of corrections: what a person changed in its folder is one, what the model labelled is none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError
from tipsseg.formats import image_folders
from tipsseg.formats.reading import masks
from tipsseg.formats.reading.found import Found
from tipsseg.formats.reading.recognising import Reader
from tipsseg.formats.reading.source import Source
from tipsseg.runs.correct.names import ImageNames
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.open_run import Run, broken_conversion, conversion_begun, open_runs
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.shards import shards_in
from tipsseg.util.files import is_folder
from tipsseg.util.ownership import digest_of
from tipsseg.util.record_paths import actual_path

_RECORDS = (RUN_FILE, MANIFEST_FILE)

_EVERYTHING = "argument `everything` takes all labels, the model's too"


@dataclass(frozen=True, slots=True)
class _Labelled:
    """An image of the run.

    Attributes:
        mask: Its index mask, the corrected one if there is one.
        corrected: Whether a person corrected it.
        followed: Whether all its formats show the correction.
        files: Its files.
    """

    mask: Path | None
    corrected: bool
    followed: bool
    files: tuple[Path, ...]


class SourceRun:
    """The run whose output folder a source is, or is in.

    Attributes:
        left_out: The images that `corrected` left out, as the source calls them.
    """

    def __init__(self, top: Path, runs: Iterable[Run]) -> None:
        """Look at all files of the run. Raises ImageError if an image has two masks that a person changed."""
        self.left_out: list[str] = []
        self._top = top
        self._images: dict[str, _Labelled] = {}
        #: The image of each file, and the sha256 that it was written with; "" for the image of a file of the whole run.
        self._written: dict[Path, tuple[str, str | None]] = {}
        self._same: dict[Path, bool] = {}
        self._digests = set()
        for run in runs:
            self._digests.add(run.info.digest)
            if begun := conversion_begun(run.info, run.records):
                raise broken_conversion(top, begun)
            for place, file in run.info.files.items():
                self._written[actual_path(top, place)] = "", file.sha256
            for image, correction in run.corrections():
                entry, files = image.entry, {name: actual_path(top, place) for name, place in image.entry.files.items()}
                digest = entry.corrected if correction is None else correction.digest
                self._images[entry.image] = _Labelled(
                    correction.path if correction else next(iter(image.masks.values()), None),
                    digest is not None,
                    digest == entry.corrected,
                    tuple(files.values()),
                )
                self._written |= {path: (entry.image, entry.written[name].sha256) for name, path in files.items()}
        self._names = ImageNames(self._images)

    def reader(self, source: Source) -> Reader | None:
        """Return what reads the masks of the run, corrected or not; None unless the source is its whole folder, and has masks."""
        if Path(os.path.realpath(source.path)) != self._top or not any(each.mask for each in self._images.values()):
            return None
        places = {
            image: each.mask.relative_to(self._top).as_posix() for image, each in self._images.items() if each.mask
        }
        return Reader("png", partial(masks.named_masks, places))

    def corrected(self, images: Iterable[Found], digest: str) -> Iterator[Found]:
        """Yield the images that a person corrected; `digest` tells the labels of the run that takes them.

        Raises InputError if a file does not show the corrections of its images, or does not tell which of them were corrected.
        """
        seen: set[str | None] = set()
        for found in images:
            image = self._names.find(found.name)
            if found.by_list:
                if image is None or (image not in seen and not all(map(os.path.lexists, self._images[image].files))):
                    yield found  # a person removed its file
            elif self._is_corrected(found, image, digest):
                yield found
            else:
                self.left_out.append(found.name)
            if not found.by_list:
                seen.add(image)

    def _is_corrected(self, found: Found, image: str | None, digest: str) -> bool:
        """Return whether what a file says of an image is a person's; see `corrected`."""
        path = Path(os.path.realpath(found.where))
        if path not in self._written:
            return True
        own, _ = self._written[path]
        if not self._is_as_written(path):
            # A copy of the folder that it is taken into: what is in it besides changes nothing.
            if not own and self._digests != {digest}:
                raise InputError(
                    f"{found.where}: it was changed, and does not say which of its images were",
                    f"Take it into {self._top} first, and then that folder into this one; or {_EVERYTHING}.",
                )
            return True
        labelled = self._images.get(own or image or "")
        if labelled is None or not labelled.corrected:
            return False
        if not labelled.followed:
            raise InputError(
                f"{found.where}: it does not show how the mask of {own or image} was corrected, {labelled.mask}",
                f"Give the folder {self._top} itself, whose masks count.",
            )
        return True

    def _is_as_written(self, path: Path) -> bool:
        if path not in self._same:  # a file of the whole run has many images
            self._same[path] = digest_of(path) == self._written[path][1]
        return self._same[path]


def find_source_run(source: Source, output: Path, *, everything: bool) -> SourceRun | None:
    """Return the run whose output folder a source is, or is in; None for other sources, and for what is in `output` itself.

    Args:
        source: The source.
        output: The output folder that takes the corrections.
        everything: Whether all labels are taken, whoever made them.

    Raises:
        InputError: The folder is not as a run that has ended leaves it, or is in a zip.
    """
    place = Path(os.path.realpath(source.path))
    records = [
        {PurePosixPath(name).parent for name in source.names if PurePosixPath(name).name == record}
        for record in _RECORDS
    ]
    if not is_folder(place) and set.intersection(*records) and not everything:
        raise InputError(
            f"{source.path}: an output folder of tipsseg, packed", f"Unpack it and give the folder; or {_EVERYTHING}."
        )
    for top in (place, *place.parents):
        if top != place and is_folder(place) and place.relative_to(top).parts[0] not in image_folders():
            continue
        if all(os.path.lexists(top / name) for name in _RECORDS) or shards_in(top):
            if top == Path(os.path.realpath(output)):
                return None
            with open_runs(top) as runs:
                return SourceRun(top, runs)
    return None
