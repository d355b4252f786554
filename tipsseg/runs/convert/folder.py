"""`tipsseg convert`: write the labels in an output folder in more formats, from its files."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tipsseg.address import address_text
from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, check_formats, model_only_formats
from tipsseg.images.sources.access import exists
from tipsseg.images.sources.address import absolute
from tipsseg.options import MAX_PIXELS
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.notes import note_division, note_end, note_formats, note_moved, note_polygon_quality
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.common.reporting import Reporter
from tipsseg.runs.convert.image import Conversion, Converted, Item
from tipsseg.runs.convert.only import find_only, unlabelled_error
from tipsseg.runs.convert.request import image_ref, image_root, refuse_unfit, set_fraction
from tipsseg.store.change_run import RunChanges, change_run
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.results import (
    Failed,
    Unchanged,
    image_paths,
    remove_files,
    remove_former_parts,
    restore_links,
)
from tipsseg.types import ImageRef
from tipsseg.util.printable import pluralize
from tipsseg.util.threads import map_in_order


def convert_folder(
    output: Path,
    formats: Sequence[str],
    images: Path | None,
    jobs: int,
    progress: Progress,
    val_fraction: float | None = None,
    only: Iterable[Path] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Write the labels in an output folder in more formats, byte for byte as its run would have written them.

    Skip files that exist, and resume an interrupted conversion. If a person corrected an image's mask, update all formats of the
    image from the mask. Never overwrite other edited files. Memory use grows by a name and an offset per image.

    Args:
        output: The output folder.
        formats: The names of the formats.
        images: The folder of the images, if they have moved.
        jobs: The number of threads.
        progress: Prints progress, results and notes.
        val_fraction: Replaces the run's fraction, see FileOptions.
        only: The paths of the images to convert. None converts all images.
        max_pixels: Images with more pixels are rejected.

    Returns:
        The number of failed images and unknown paths in `only`.

    Raises:
        UsageError: If an argument is invalid.
        InputError: If the folder lacks labels or images that the formats need.
        OutputError: If the folder cannot be written.
    """
    check_image_root(images)
    with change_run(output, max_pixels=max_pixels) as changes:
        run = changes.run
        names, unknown = None, list[Path]()
        if only is not None:
            names, unknown = find_only(run.entries(), only, images)
            for path in unknown:
                progress.error(unlabelled_error(path, output))
            if not names:
                return len(unknown)
        set_fraction(changes, formats, val_fraction)
        check_formats(formats, run.classes)
        refuse_unfit(run, formats)
        root = image_root(run, formats, images)
        changes.open_formats(formats)
        return _Converter(changes, formats, root, names, anywhere=images is None).run(jobs, progress) + len(unknown)


@dataclass(slots=True)
class _Notes:
    """Totals over all images for the notes at the end, see `Converted`."""

    rough: int = 0
    corrected: int = 0
    edited: set[Path] = field(default_factory=set)
    dropped: dict[str, None] = field(default_factory=dict)
    quality: PolygonQuality = field(default_factory=PolygonQuality)

    def add(self, converted: Converted) -> None:
        self.rough += converted.rough
        self.corrected += converted.corrected
        self.edited.update(converted.edited)
        self.dropped |= dict.fromkeys(converted.dropped)
        self.quality += converted.polygon_quality

    def print(self, progress: Progress, output: Path) -> None:
        if self.corrected:
            progress.note(
                f"{pluralize(self.corrected, 'mask')} changed by hand: updated all other formats of the same images, except "
                f"{', '.join(model_only_formats())} and edited files."
            )
        if self.dropped:
            progress.note(
                f"Removed some corrected images from {', '.join(self.dropped)}: their pictures are missing or have changed (set "
                "their folder with argument `images`), or a file was edited by hand."
            )
        if self.edited:
            first = min(self.edited)
            more = f" and {pluralize(len(self.edited) - 1, 'more file')}" if len(self.edited) > 1 else ""
            progress.note(f"Did not overwrite {first}{more}: edited by hand.")
        if self.rough:
            progress.note(
                f"For {pluralize(self.rough, 'object')}, the score is the mean confidence of the class in the image, "
                f"because {output} stores no object scores."
            )
        note_polygon_quality(progress, self.quality)


class _Converter:
    def __init__(
        self,
        changes: RunChanges,
        formats: Sequence[str],
        root: Path | None,
        only: Collection[str] | None,
        *,
        anywhere: bool,
    ) -> None:
        self._changes = changes
        self._run = changes.run
        self._context = changes.run.context
        self._formats = formats
        self._root, self._anywhere = root, anywhere
        self._moved = root is not None and address_text(absolute(root)) != changes.run.info.image_root
        self._only = only
        self._notes = _Notes()

    def run(self, jobs: int, progress: Progress) -> int:
        began = time.monotonic()
        output, context = self._run.output, self._context
        number = len(self._run) if self._only is None else len(self._only)
        progress.begin(f"Converting {pluralize(number, 'image')} of {output} into {', '.join(self._formats)}.", number)
        note_formats(self._formats, context.files, context.classes, progress)
        note_moved(self._changes.begin(), progress)
        reporter = Reporter(progress)
        try:
            with closing(self._results(jobs)) as results:
                for result in results:
                    reporter.report(*self._record(result))
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(reporter.interruption("the same command"))
            raise
        files = self._changes.end(counted_again=self._notes.corrected > 0)
        progress.end()
        progress.results(files)
        self._notes.print(progress, output)
        note_division(self._formats, self._run.records, context.files, progress)
        note_end(progress, reporter.counts, time.monotonic() - began, f", into {output}", "converted")
        return reporter.counts.failed

    def _results(self, jobs: int) -> Generator[Converted | Unchanged | Failed, None, None]:
        conversion = Conversion(self._context, tuple(self._formats), self._changes.followers)
        return map_in_order(jobs, conversion.convert, self._items())

    def _items(self) -> Iterator[Item]:
        for image in self._run.images():
            if self._only is None or image.entry.image in self._only:
                ref = image_ref(image.entry, self._run.output, self._root, anywhere=self._anywhere)
                yield Item(
                    ref, image, tuple(name for name in self._formats if self._is_missing(name, image.entry, ref))
                )

    def _is_missing(self, name: str, entry: ManifestEntry, ref: ImageRef) -> bool:
        # Rows that contain the image's path are outdated once the image has moved.
        form = FORMATS[name]
        if self._moved and form.needs_image and form.has_rows and form.link_folder is None:
            return True
        return not self._changes.holds(name, entry, ref)

    def _record(
        self, result: Converted | Unchanged | Failed
    ) -> tuple[Converted | Unchanged | Failed, Mapping[str, Path]]:
        """Move an image's files into place and record it. Return the result, and the per-image files by format."""
        if isinstance(result, Failed):
            return result, {}
        written: tuple[str, ...] = ()
        if isinstance(result, Converted):
            try:
                self._changes.put(result.ref, result.staged, result.before)
            except ImageError as error:
                return Failed(result.ref, error), {}
            remove_files(result.before, result.dropped, self._context, self._context.files)
            remove_former_parts(result.before, result.entry, self._context)
            self._changes.add(result.entry, result.rows, result.dropped)
            self._notes.add(result)
            written = result.formats
        if any(FORMATS[name].link_folder for name in self._formats) and exists(result.ref.path):
            restore_links(self._context, result.ref, self._formats)
        formats = dict.fromkeys((*self._formats, *written))
        return result, image_paths(self._context, result.ref, formats, result.entry)
