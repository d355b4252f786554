"""`tipsseg convert`: the labels in an output folder in more formats, from the files that are in it."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from tipsseg.errors import InputError
from tipsseg.formats import FORMATS, check_formats, of_the_model
from tipsseg.options import MAX_PIXELS
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.notes import note_division, note_end, note_formats, note_moved, note_polygon_quality
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.common.reporting import Reporter
from tipsseg.runs.convert.image import Conversion, Converted, Item
from tipsseg.runs.convert.request import image_ref, image_root, refuse_unfit, with_fraction
from tipsseg.store.folder import clean_up_run
from tipsseg.store.journal import Journal, journals_in, write_run_file
from tipsseg.store.lock import FolderLock
from tipsseg.store.manifest import Manifest, ManifestEntry
from tipsseg.store.reader import FinishedRun, find_runs, finished_context
from tipsseg.store.results import Failed, Unchanged, image_paths, in_place, move_files, restore_links
from tipsseg.store.run_record import write_run
from tipsseg.store.stored_image import RowStream, label_sources
from tipsseg.store.summary import total
from tipsseg.store.writing import RunContext, RunFile, rows_file, run_files
from tipsseg.types import ImageRef
from tipsseg.util.files import is_file, is_folder, remove_file
from tipsseg.util.printable import counted, shell_word
from tipsseg.util.threads import in_order


def convert_folder(
    output: Path,
    formats: Sequence[str],
    images: Path | None,
    jobs: int,
    progress: Progress,
    val_fraction: float | None = None,
    only: Collection[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Write the labels in an output folder in more formats, as its run would have written them.

    What is there stays, and a conversion that was broken off goes on. A mask that a person corrected is taken as the labels of its
    image, and then all formats of the image follow it, those of the run too; other files that were changed by hand stay. Memory
    grows by a name and an offset per image.

    Args:
        output: The output folder.
        formats: The names of the formats.
        images: The folder that the images' names begin at, in place of the one that the run noted.
        jobs: Threads.
        progress: Is told of every image.
        val_fraction: Replaces that of the run, see FileOptions.
        only: The names of the images; None: all.
        max_pixels: Larger images are refused.

    Returns:
        How many images failed.

    Raises:
        UsageError: For what cannot be meant.
        InputError: For a folder that does not have what the formats need.
        OutputError: Where the folder cannot be written.
    """
    check_image_root(images)
    if not is_folder(output):
        raise InputError(f"{output}: no such folder", "Give an output folder of tipsseg label.")
    lock = FolderLock(output)
    try:
        if lock.left_over:
            clean_up_run(output, output)
        run = with_fraction(_whole_run(output), formats, val_fraction)
        context = finished_context(run)
        check_formats(formats, context.classes)
        refuse_unfit(run, context, formats)
        with ExitStack() as stack:
            root = image_root(run, formats, images)
            return _Converter(run, context, formats, root, only, max_pixels, stack).go(jobs, progress)
    finally:
        lock.give_back()


def _whole_run(output: Path) -> FinishedRun:
    runs = find_runs(output, output)
    if runs[0].shard is not None:
        raise InputError(
            f"{output}: it holds shards",
            f"Join them first: tipsseg merge {shell_word(str(output))} -o {shell_word(str(output))}",
        )
    return runs[0]


@dataclass(slots=True)
class _Notes:
    """What is said of all images together, once they are converted.

    Attributes:
        rough: Objects whose score is the mean of their class.
        corrected: Masks that a person corrected.
        kept: Files that a person changed.
        left: Formats that images are in no more.
        quality: How well the polygons fit.
    """

    rough: int = 0
    corrected: int = 0
    kept: set[Path] = field(default_factory=set)
    left: dict[str, None] = field(default_factory=dict)
    quality: PolygonQuality = field(default_factory=PolygonQuality)

    def take(self, converted: Converted) -> None:
        """Take what came of an image."""
        self.rough += converted.rough
        self.corrected += converted.corrected
        self.kept.update(converted.kept)
        self.left |= dict.fromkeys(converted.left)
        self.quality += converted.polygon_quality

    def say(self, progress: Progress, output: Path) -> None:
        """Say it."""
        if self.corrected:
            progress.note(
                f"{counted(self.corrected, 'mask')} changed by hand: all formats that "
                f"{'its image is' if self.corrected == 1 else 'their images are'} in have the corrected labels, but for those of "
                f"the model ({', '.join(of_the_model())}) and files that were changed by hand."
            )
        if self.left:
            progress.note(
                f"Some corrected images are not in {', '.join(self.left)} any more: the image that the format needs is gone or was "
                "changed (argument `images` says where images are now), or the format's file was changed by hand."
            )
        if self.kept:
            first = min(self.kept)
            more = f" and {len(self.kept) - 1} more" if len(self.kept) > 1 else ""
            progress.note(f"{first}{more} changed by hand, and kept.")
        if self.rough:
            progress.note(
                f"The score of {counted(self.rough, 'object')} is the mean confidence of its class in the image: "
                f"{output} holds nothing closer."
            )
        note_polygon_quality(progress, self.quality)


class _Converter:
    """One conversion of a folder."""

    def __init__(
        self,
        run: FinishedRun,
        context: RunContext,
        formats: Sequence[str],
        root: Path | None,
        only: Collection[str] | None,
        max_pixels: int,
        stack: ExitStack,
    ) -> None:
        """Open what the run left; `stack` closes it. Raises OutputError for files in the way that somebody else wrote."""
        self._run = run
        self._context = context
        self._formats = formats
        self._root = root
        self._moved = root is not None and str(root.absolute()) != run.info.image_root
        self._only = only
        self._max_pixels = max_pixels
        self._notes = _Notes()
        self._manifest = stack.enter_context(closing(Manifest(context.state)))
        context.ownership.load(run.info.files, self._manifest.records)
        for file in _run_files(formats, context):
            context.ownership.refuse_changed(file.path)
        # All other formats follow masks that a person corrected, but for rows that a person changed too.
        others = set().union(*self._manifest.formats()) - {*formats, *of_the_model()}
        rows_files = {name: rows_file(name, context) for name in FORMATS}
        self._followers = tuple(
            name
            for name, file in rows_files.items()
            if name in others and (file is None or context.ownership.is_unchanged(file.path))
        )
        self._journals: dict[str, Journal] = {}
        for name in (*formats, *self._followers):
            if (rows := rows_files[name]) is not None:
                journal = Journal(name, rows, context.state, self._manifest.holding(name))
                self._journals[name] = stack.enter_context(closing(journal))
        self._streams = _streams(context, self._manifest)

    def go(self, jobs: int, progress: Progress) -> int:
        """Convert all images; returns how many failed."""
        began = time.monotonic()
        output = self._run.output
        number = len(self._manifest) if self._only is None else len(self._only)
        progress.begin(f"{counted(number, 'image')} of {output} into {', '.join(self._formats)}.", number)
        note_formats(self._formats, self._context.files, self._context.classes, progress)
        # Whoever finds the folder half done knows from this how to go on.
        write_run(self._context.ownership, replace(self._run.info, converting=tuple(self._formats)))
        note_moved(move_files(self._manifest, self._context), progress)
        reporter: Reporter[Converted | Unchanged | Failed] = Reporter(progress, self._keep)
        try:
            for _ in reporter.each(self._results(jobs)):
                pass
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(reporter.broken_off("the same command"))
            raise
        followed = [name for name in self._followers if name in self._journals and self._journals[name].changed]
        self._finish()
        progress.end()
        progress.results(file.path for file in _run_files((*self._formats, *followed), self._context))
        for stream in self._streams.values():
            if stream.fault:
                progress.note(f"{stream.file.path}: {stream.fault}; done without it.")
        self._notes.say(progress, output)
        note_division(self._formats, self._manifest, self._context.files, progress)
        note_end(progress, reporter.counts, time.monotonic() - began, f", into {output}", "converted")
        return reporter.counts.failed

    def _results(self, jobs: int) -> Generator[Converted | Unchanged | Failed, None, None]:
        conversion = Conversion(self._context, tuple(self._formats), self._followers, self._max_pixels)
        return in_order(jobs, conversion.convert, self._items())

    def _items(self) -> Iterator[Item]:
        for entry in self._manifest.entries():
            if self._only is not None and entry.image not in self._only:
                continue
            ref = image_ref(entry, self._context.output, self._root)
            missing = [name for name in self._formats if self._is_missing(name, entry, ref)]
            rows = {name: stream.of(entry.image) for name, stream in self._streams.items() if name in entry.formats}
            yield Item(ref, entry, tuple(missing), rows)

    def _is_missing(self, name: str, entry: ManifestEntry, ref: ImageRef) -> bool:
        # Rows that say where the image is are written again where it is somewhere else.
        if self._moved and FORMATS[name].needs_image and name in self._journals and FORMATS[name].link_folder is None:
            return True
        return not in_place(name, entry, ref, self._context, self._journals.get(name))

    def _keep(self, result: Converted | Unchanged | Failed) -> Mapping[str, Path]:
        """Keep the result of an image for good; returns its per-image files by format."""
        if isinstance(result, Failed):
            return {}
        if isinstance(result, Converted):
            self._notes.take(result)
            for name in self._journals.keys() & set(result.left):
                self._journals[name].begin()  # so that its file is written without the image
            for name, rows in result.rows.items():
                self._journals[name].add(result.entry.image, rows)
            self._manifest.add(result.entry)
        if is_file(result.ref.path):
            restore_links(self._context, result.ref, self._formats)
        written = result.formats if isinstance(result, Converted) else ()
        return image_paths(self._context, result.ref, dict.fromkeys((*self._formats, *written)))

    def _finish(self) -> None:
        # First, so that no file lacks an image that the manifest has, should the conversion be killed now.
        self._manifest.tidy()
        for name in (*self._formats, *self._followers):
            for file in run_files(name, self._context):
                if name in self._formats or self._context.ownership.is_unchanged(file.path):
                    write_run_file(file, self._journals.get(name), self._manifest.holding(name), rewrite=False)
        for name in journals_in(self._context.state):  # of rows that a person changed after they began to follow
            remove_file(self._context.state / Journal.file_name(name))
        info = self._run.info
        formats = tuple(dict.fromkeys((*self._run.formats, *self._formats)))
        if self._notes.corrected or (
            info.converting and info.summary
        ):  # what was broken off may have taken corrections
            held = total((entry.summary for entry in self._manifest.entries()), self._context.classes)
            info = replace(info, summary=held.record())
        write_run(self._context.ownership, replace(info, spec=replace(info.spec, formats=formats), converting=()))
        self._context.ownership.end(self._manifest.records)


def _run_files(formats: Sequence[str], context: RunContext) -> list[RunFile]:
    """The files that these formats have for the whole run."""
    return [file for name in formats for file in run_files(name, context)]


def _streams(context: RunContext, manifest: Manifest) -> dict[str, RowStream]:
    """The files of rows that labels can be read back from.

    Of a format with a journal, which a conversion that was broken off left, the file may not be there yet.
    """
    begun = journals_in(context.state)
    files = {name: rows_file(name, context) for name in label_sources()}
    return {
        name: RowStream(file, manifest.holding(name))
        for name, file in files.items()
        if file is not None and FORMATS[name].folder is None and (file.path.exists() or name not in begun)
    }
