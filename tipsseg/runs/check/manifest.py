"""Rules of manifest.jsonl: its lines are entries; each is of this run, and agrees with the vocabulary and with itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS, has_image_files
from tipsseg.formats.base import output_name
from tipsseg.formats.problem import Problem, by
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, expected_files, read_entry
from tipsseg.store.open_run import Run
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.spec import RunInfo
from tipsseg.store.state import State
from tipsseg.store.stored_image import RunImage, stored_image
from tipsseg.store.takeover import FORMER_NOTES, lines_of
from tipsseg.types import name_order, printable_path
from tipsseg.util.files import TEMPORARY_PREFIX, reason_of
from tipsseg.util.json_values import short

#: What mends a manifest.
_DONE_AGAIN = "run the command that labelled the images again, which labels those that are missing"
_AGAIN = "run the command that labelled the images again, which writes the line again, or labels the image"
_ONE_NAME = "label into another folder, in which it has one name"


class Images:
    """The images of a run, by its manifest. Memory grows by a name, two numbers and the formats per image.

    Attributes:
        formats: The formats of each image by its name, in the order of names.
        sound: Whether the manifest has all images, as far as anybody can tell.
        elsewhere: Per-image files that are where another version or another `val_fraction` has them.
    """

    def __init__(self, run: RunInfo, max_pixels: int) -> None:
        self.run = run
        self._max_pixels = max_pixels
        self.names = run.names
        self.path = run.spec.state / MANIFEST_FILE
        self.formats: dict[str, tuple[str, ...]] = {}
        self.sound = True
        self.elsewhere: set[str] = set()
        self._run: Run | None = None

    def read(self) -> Iterator[Problem]:
        """Read the file; once, before all else."""
        formats: dict[str, tuple[str, ...]] = {}
        paths: dict[str, int] = {}  # hashes: the texts would be most of the memory
        same: dict[tuple[str, ...], tuple[str, ...]] = {}
        problems: list[str] = []
        try:
            for number, line in enumerate(lines_of(self.path), start=1):
                try:
                    entry = read_entry(line)
                    stored_image(entry, self.names, self.run.spec.files, self._max_pixels, "")
                    formats[entry.image] = same.setdefault(entry.formats, entry.formats)
                    paths[entry.image] = hash(entry.path)
                    if any(FORMATS[name].splits_train_val for name in entry.formats):
                        there = expected_files(entry.image, entry.formats, self.run.spec.files).values()
                        self.elsewhere.update(set(known_files(self.run, entry).values()) - set(there))
                except ValueError as error:
                    problems.append(f"line {number} is no entry: {error}; {_AGAIN}")
            classes = self.run.spec.vocabulary.classes
            self._run = Run(self.run, classes, State(self.run.spec.state), self._max_pixels)
        except OSError as error:
            problems.append(reason_of(error))
            formats.clear()
        except OutputError as error:
            problems.append(error.reason)
            formats.clear()
        labelled = 0 if self.run.ended is None else self.run.images
        if not problems and len(formats) < labelled:
            problems.append(f"it has {len(formats)} images, where {RUN_FILE} counts {labelled}; {_DONE_AGAIN}")
        owners: dict[int, str] = {}
        for image in sorted(paths, key=name_order):
            if (owner := owners.setdefault(paths[image], image)) != image:
                problems.append(f"{image} and {owner} are the same file, labelled under two names; {_ONE_NAME}")
        self.formats = {image: formats[image] for image in sorted(formats, key=name_order)}
        self.sound = not problems
        for what in problems:
            yield Problem(self.path, what)

    def get(self, name: str) -> RunImage:
        """Return an image. Raises OutputError if the records cannot be read, and OSError if they were changed."""
        assert self._run is not None
        try:
            return self._run.image(self._run.entry(name))
        except KeyError as error:
            raise OSError(f"the line of {name} in {MANIFEST_FILE} was changed while it was checked") from error

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._run is not None:
            self._run.records.close()


def check_entry(run: RunInfo, image: RunImage) -> Iterator[str]:
    """Yield in which ways an entry is not of the run, or does not agree with its vocabulary and with itself."""
    entry = image.entry
    if (shard := run.spec.shard) is not None and not shard.takes(entry.image):
        yield f"not an image of shard {shard}"
    expected, known = expected_files(entry.image, entry.formats, run.spec.files), known_files(run, entry)
    for name in sorted(expected.keys() | entry.files.keys()):
        if entry.files.get(name) != expected.get(name):
            moves = "; tipsseg convert moves it" if entry.files.get(name) == known.get(name) else ""
            yield f"its file in the format {name} is {short(entry.files.get(name))}, not {short(expected.get(name))}{moves}"
    for each in entry.numbers.classes:
        if image.stored.classes.get(each.id) != each.name:
            yield f"class {each.id} ({each.name}) is not in the vocabulary"
    height, width = image.stored.size
    number = sum(image.stored.pixels.values())
    if number != height * width:
        yield f"{number} pixels in all, where {by(image.stored.size)} are {height * width}"


def known_files(run: RunInfo, entry: ManifestEntry) -> dict[str, str]:
    """Return the per-image files of an image: where its entry says, or where they belong if no version puts them there."""
    files = expected_files(entry.image, entry.formats, run.spec.files)
    places = {name: FORMATS[name].places(PurePosixPath(entry.image), run.spec.files) for name in files}
    return files | {name: file for name, file in entry.files.items() if file in places.get(name, ())}


class Owners:
    """Which image each file is of. Memory grows by a name per image."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, Images]] = {}

    def take(self, runs: Sequence[Images]) -> Iterator[Problem]:
        """Take up all images. Two images whose names differ in the suffix alone are a problem: both would have one file."""
        for images in runs:
            for name in images.formats:
                owner, others = self._owners.setdefault(_stem(name, images), (name, images))
                shared = set(images.formats[name]) & set(others.formats[owner])
                if owner != name and has_image_files(shared):
                    yield Problem(images.path, f"{name}: its files would be those of {owner} too")

    def files(self, name: str) -> set[str]:
        """Return the per-image files that images have in format `name`, relative to the output folder."""
        found = {
            str(FORMATS[name].relative_path(PurePosixPath(image), images.run.spec.files))
            for image, images in self._owners.values()
            if name in images.formats[image]
        }
        return found.union(*{id(images): images.elsewhere for _, images in self._owners.values()}.values())


def find_orphans(output: Path, owners: Owners) -> Iterator[Problem]:
    """Find per-image files of no image. Hidden files are passed over, as programs that read masks do."""
    for name, form in FORMATS.items():
        if form.folder is None:
            continue
        files = owners.files(name)
        for path in _walk(output / form.folder):
            hidden = path.name.startswith(".")
            if path.suffix == form.suffix and not hidden and printable_path(path.relative_to(output)) not in files:
                yield Problem(path, "no image in the manifest has this file")


def find_temporaries(output: Path) -> Iterator[Problem]:
    """Find temporary files and folders that a process left when it was killed."""
    for folder, folders, names in os.walk(output):
        folders.sort()
        for name in sorted((*folders, *names)):
            if name.startswith(TEMPORARY_PREFIX) and not name.startswith(FORMER_NOTES):  # what they have, no record has
                yield Problem(Path(folder, name), "a process that was killed left this; remove it")
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]


def _stem(name: str, images: Images) -> str:
    return str(output_name(PurePosixPath(name), images.run.spec.files.names))


def _walk(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)
