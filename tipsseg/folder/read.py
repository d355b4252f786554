"""Open the run in an output folder to read it, also in a folder that cannot be written.

    with open_run(output) as run:
        for image in run.images():
            labels = image.labels().labels

An invalid run.json raises RecordError, which names the file, the fault and a hint.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError, InputError, RecordError, Words
from tipsseg.folder.cache import Cache
from tipsseg.folder.entry import Entry, Failures, FileRow, ObjectScore
from tipsseg.folder.files import Files
from tipsseg.folder.labels import Labels, known_objects, listed_entries, read_entry, read_labels
from tipsseg.folder.lock import is_locked
from tipsseg.folder.record import RUN_FILE, run_context, stored_run
from tipsseg.folder.spec import RunInfo
from tipsseg.formats import FORMATS, file_path, format_name
from tipsseg.images.access import absolute, below
from tipsseg.images.decoding import ImageReader
from tipsseg.masks.names import SourceNames
from tipsseg.options import MAX_PIXELS
from tipsseg.types import ImageRef, LabelClass, printable_path
from tipsseg.util.files import actual_name, actual_path, is_folder, output_error
from tipsseg.util.text import shell_word

#: The hint for an interrupted run.
RUN_AGAIN = "Run the original command again; finished images are kept."

_NAME_FOLDER = "Pass an output folder of tipsseg label."


@dataclass(frozen=True, eq=False)
class RunImage:
    """A labelled image of a run. Thread-safe.

    Attributes:
        entry: Its record.
        rows: Its derived files by place.
        run: The run.
    """

    entry: Entry
    rows: Mapping[str, FileRow]
    run: Run

    def path(self, images: Path | None) -> Path:
        """Return the path of the image in the folder `images`, or its recorded path if `images` is None."""
        return actual_path(Path(), self.entry.path) if images is None else below(images, self.entry.image)

    def ref(self, images: Path | None) -> ImageRef:
        """Return the image as an input; see `path`."""
        return ImageRef(self.path(images), PurePosixPath(actual_name(self.entry.image)))

    @property
    def edited(self) -> bool:
        """True if a person changed the mask in place, and no command wrote that into it yet."""
        return self.entry.edited

    @property
    def corrected(self) -> bool:
        """True if the labels are a person's."""
        return self.entry.corrected

    @property
    def mask(self) -> Path:
        """The file of the labels."""
        return self.run.files.path(self.entry.place)

    def labels(self) -> Labels:
        """Read the labels. Raise ImageError if they are missing, cannot be used, or were changed meanwhile."""
        if (fault := self.run.faults.get(self.entry.place)) is not None:
            raise fault
        return read_labels(self.run.context, self.entry)

    def objects(self, labels: Labels | None = None) -> tuple[ObjectScore, ...]:
        """Return all objects with their scores; `labels` are its labels, if they are read already."""
        known = self.entry.objects
        return known_objects(self.entry, labels or self.labels(), self.run.classes) if known is None else known

    def files(self) -> dict[str, Path]:
        """Return the files of the image by key, the mask first, without links."""
        own = {row.name: self.run.files.path(row.place) for row in self.rows.values() if row.is_file}
        shown = {name: path for name, path in own.items() if format_name(name) in self.run.context.formats}
        return {self.run.context.mask_format: self.mask, **shown}

    def file(self, name: str) -> Path | None:
        """Return the file of a format, by its key; None if it is missing."""
        place = file_path(name, PurePosixPath(actual_name(self.entry.image)), self.run.context.files)
        path = None if place is None else self.run.output / place
        return path if path is not None and os.path.lexists(path) else None


class Run:
    """A recorded run.

    Attributes:
        info: Its settings.
        context: The facts for format writers.
        cache: What is known of its files: of all masks, once it is opened.
        files: Its files.
        faults: The errors of masks that cannot be used, by place.
        strays: Masks that are not where the mask of their image would be, by place, and the errors of those without a known image.
    """

    def __init__(self, info: RunInfo, cache: Cache) -> None:
        self.info, self.cache = info, cache
        self.context, self.files = run_context(info), Files(info.spec.output)
        self.faults: dict[str, ImageError] = {}
        self.strays: dict[str, Entry | ImageError] = {}

    def look(self) -> bool:
        """Read the masks that are new, or that changed since they were last looked at. Return True if any did, or is gone."""
        known, suffix = self.cache.masks(), FORMATS[self.context.mask_format].suffix
        self.faults, self.strays, changed = {}, {}, False
        for place, size, mtime_ns in walk_files(self.output, str(FORMATS[self.context.mask_format].folder), suffix):
            image, *stamp = known.pop(place, ("", 0, 0))
            if image and stamp == [size, mtime_ns]:
                continue
            try:
                entry = read_entry(self.context, place, self.cache.get(image) if image else None)
            except ImageError as error:
                if image:
                    self.faults[place] = error
                else:
                    self.strays[place] = error
                continue
            if image not in ("", entry.image):
                self.cache.forget(image)
            if self._is_at_home(entry):
                self.cache.note(entry if entry.path else replace(entry, path=self._address(entry.image)))
                changed = True
            else:
                self.strays[place] = entry
        for place, (image, *_) in known.items():
            if os.path.lexists(path := self.files.path(place)):
                self.faults[place] = ImageError(
                    path, "it is not a file", "Move it away; the image is then labelled again."
                )
            else:
                self.cache.forget(image)
        if silent := {place for place, stray in self.strays.items() if isinstance(stray, ImageError)}:
            self._look_up(silent)
        return changed or bool(known)

    def _look_up(self, places: Container[str]) -> None:
        """Read the masks that say nothing of their images, where manifest.jsonl names these: the cache was lost."""
        for listed in filter(self._is_at_home, listed_entries(self.context, places)):
            entry, place = listed, listed.place
            try:
                entry = read_entry(self.context, place, listed)
            except ImageError as error:
                self.faults[place] = error
            self.strays.pop(place, None)
            self.cache.note(replace(entry, path=listed.path))

    def _is_at_home(self, entry: Entry) -> bool:
        """Return True if a mask is where the mask of its image is."""
        ref = ImageRef(Path(), PurePosixPath(actual_name(entry.image)))
        return self.context.mask_path(ref) == self.files.path(entry.place)

    def _address(self, image: str) -> str:
        """Return where an image was, if nothing else is known: below the root of the run; "" if it had none."""
        root = self.info.image_root
        return "" if root is None else printable_path(absolute(below(actual_path(Path(), root), image)))

    @property
    def output(self) -> Path:
        return self.info.spec.output

    @property
    def reader(self) -> ImageReader:
        return self.info.spec.reader

    @property
    def hint(self) -> str:
        """The hint for damaged records in the folder."""
        return f"Find out what is wrong: tipsseg check {shell_word(str(self.output))}"

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        return self.context.classes

    def __len__(self) -> int:
        return len(self.cache)

    def __contains__(self, image: object) -> bool:
        return image in self.cache

    @cached_property
    def previous(self) -> dict[str, list[str]]:
        """The previous names of images, by their name of now: those that no other image has or had."""
        before = [(old, entry.image) for entry in self.cache.entries() for old in entry.mask.formerly]
        times, found = Counter(old for old, _ in before), defaultdict[str, list[str]](list)
        for old, name in before:
            if times[old] == 1 and old not in self:
                found[name].append(old)
        return found

    def now(self, name: str) -> str | None:
        """Return the name that an image has now; None if no image has or had it."""
        return name if name in self else next((now for now, olds in self.previous.items() if name in olds), None)

    def pictures(self) -> dict[str, list[str]]:
        """Return the names of images by the digest of the upright pixels of the picture that was labelled."""
        found = defaultdict[str, list[str]](list)
        for entry in self.cache.entries():
            found[entry.mask.picture.pixels].append(entry.image)
        return found

    def refs(self) -> list[ImageRef]:
        """Return all images, at their places below the root of the run."""
        root = self.info.image_root
        top = Path() if root is None else actual_path(Path(), root)
        names = [PurePosixPath(actual_name(name)) for name in self.cache.names()]
        return [ImageRef(top / name, name) for name in names]

    def image(self, name: str) -> RunImage:
        """Return an image. Raise KeyError for an unknown name."""
        entry = self.cache.get(name)
        if entry is None:
            raise KeyError(name)
        return RunImage(entry, self.cache.files(name), self)

    def images(self) -> Iterator[RunImage]:
        """Yield the images, sorted by name."""
        return (RunImage(entry, rows, self) for entry, rows in self.cache.images())

    @cached_property
    def failed(self) -> Failures:
        """The images that failed."""
        return Failures(self.output)


def refuse_blocks(run: RunInfo) -> None:
    """Raise InputError for a run that labels in blocks, as its masks may be larger than memory."""
    if run.spec.block_mask:
        raise InputError(
            f"{run.spec.output}: this command does not read masks in the format {run.spec.mask_format}",
            "Label the images into another folder, with the format png.",
        )


@contextmanager
def open_run(
    output: str | Path, *, ended: bool = True, blocks: bool = False, max_pixels: int = MAX_PIXELS
) -> Iterator[Run]:
    """Open the run in an output folder.

    Args:
        output: The output folder.
        ended: Reject a run that is in progress or was interrupted.
        blocks: Accept masks that are written block by block.
        max_pixels: Reject images with more pixels.

    Raises:
        RecordError: The folder is not an output folder, the run is not finished, or its run.json is damaged or missing.
        InputError: Its masks are written block by block.
    """
    folder = Path(output)
    with find_run(folder, ended=ended, blocks=blocks, max_pixels=max_pixels) as run:
        if run is None:
            raise no_run_error(folder)
        yield run


@contextmanager
def find_run(
    folder: Path, *, ended: bool = True, blocks: bool = False, max_pixels: int = MAX_PIXELS
) -> Iterator[Run | None]:
    """Open the run in a folder as `open_run` does; None for a folder without a record."""
    if not is_folder(folder):
        raise RecordError(folder, "no such folder", _NAME_FOLDER)
    if ended and is_locked(folder):
        raise RecordError(folder, "a run is in progress", "Wait for it to finish.")
    info = stored_run(folder)
    if info is None:
        yield None
        return
    if not blocks:
        refuse_blocks(info)
    with closing(Cache(folder, writes=False)) as cache:
        run = Run(finished_run(info, ended=ended, max_pixels=max_pixels), cache)
        run.look()
        yield run


def finished_run(info: RunInfo, *, ended: bool = True, max_pixels: int = MAX_PIXELS) -> RunInfo:
    """Return a recorded run with the limit `max_pixels` of its reader. Raise RecordError, with `ended`, if it was interrupted."""
    if ended and info.ended is None:
        raise RecordError(info.spec.output, "the run was interrupted", RUN_AGAIN)
    return replace(info, spec=replace(info.spec, max_pixels=max_pixels))


def walk_files(output: Path, folder: str, suffix: str) -> Iterator[tuple[str, int, int]]:
    """Yield the place, the size and the time of each file with a suffix in a folder of an output folder, sorted by place."""
    folders = [folder]
    while folders:
        place = folders.pop()
        found = list[tuple[str, int, int]]()
        try:
            with os.scandir(output / actual_name(place)) as entries:
                for each in entries:
                    name = f"{place}/{printable_path(Path(each.name))}"
                    if each.name.startswith("."):
                        continue
                    if each.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif each.name.endswith(suffix) and each.is_file():
                        status = each.stat()
                        found.append((name, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise output_error(output / place, error) from error
        yield from sorted(found)


def no_run_error(folder: Path) -> RecordError:
    if is_folder(folder / str(FORMATS["png"].folder)):
        return RecordError(
            folder, f"{RUN_FILE} is missing", "Run the original command again, which writes it; masks are kept."
        )
    return RecordError(folder, "not an output folder of tipsseg label", _NAME_FOLDER)


def find_only(entries: Iterable[Entry], paths: Iterable[Path], images: Path | None) -> tuple[set[str], list[Path]]:
    """Return the names of the images at these paths, and the paths that match no labelled image.

    Args:
        entries: The labelled images.
        paths: Current paths of images, their paths when they were labelled, or their names in the run, also without folders.
        images: The folder of the images, if they have moved.

    Raises:
        ImageError: A name could belong to several images.
    """
    by_path: dict[str, str] = {}
    own: dict[str, str] = {}
    for entry in entries:
        by_path.setdefault(entry.image, entry.image)
        by_path[entry.path] = entry.image
        own[entry.image] = entry.path or entry.image
        if images is not None:
            by_path[_absolute(images / actual_name(entry.image))] = entry.image
    names: set[str] = set()
    unknown: list[Path] = []
    for path in paths:
        # Try the absolute path first: a name in the run may also be another file below the working directory.
        name = by_path.get(_absolute(path)) or by_path.get(printable_path(path))
        if name is None:
            unknown.append(path)
        else:
            names.add(name)
    others = SourceNames(map(printable_path, unknown))
    refs = [ImageRef(actual_path(Path(), path), PurePosixPath(actual_name(name))) for name, path in own.items()]
    others.expect(refs if unknown else ())
    found = {other: ref.name for ref in refs if unknown and (other := others.find(ref)) is not None}
    return names | {*found.values()}, [path for path in unknown if printable_path(path) not in found]


def unlabelled_error(path: Path, output: Path) -> ImageError:
    return ImageError(path, f"not labelled in {output}", Words("Remove it from the list in {only}."))


def _absolute(path: Path) -> str:
    return printable_path(Path(os.path.abspath(path)))  # noqa: PTH100  must not resolve links, as in the manifest
