"""Rules of manifest.jsonl: its lines are entries, which are of the one run and agree with its vocabulary and with themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tipsseg.append_log import lines_of
from tipsseg.check_problem import Problem, by, class_text
from tipsseg.check_run import Run, known_formats
from tipsseg.images import reason_of
from tipsseg.manifest import MANIFEST_FILE, Entry, Manifest, parse_entry
from tipsseg.record_values import short, take
from tipsseg.records import BACKGROUND, ignore_id, name_order
from tipsseg.writers import relative_path


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An entry of the manifest, with its numbers in reach.

    size    (height, width)
    pixels  by label id; of background and of ignored pixels too
    names   of the classes that occur, by id
    """

    entry: Entry
    size: tuple[int, int]
    pixels: Mapping[int, int]
    names: Mapping[int, str]


class Images:
    """The images of a run, by its manifest. In memory are a name, an offset and the formats of each.

    formats  of each image by its name, in the order of names
    sound    whether no image is missing for all that is known
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.path = run.records / MANIFEST_FILE
        self.formats: dict[str, tuple[str, ...]] = {}
        self.sound = True
        self._manifest: Manifest | None = None

    def read(self) -> Iterator[Problem]:
        """Take up what the file has; once, before all else."""
        formats: dict[str, tuple[str, ...]] = {}
        same: dict[tuple[str, ...], tuple[str, ...]] = {}
        problems: list[str] = []
        try:
            for number, (_, line) in enumerate(lines_of(self.path), start=1):
                try:
                    entry = _labelled(parse_entry(line), self.run).entry
                    formats[entry.image] = same.setdefault(entry.formats, entry.formats)
                except ValueError as error:
                    problems.append(f"line {number} is no entry: {error}")
            self._manifest = Manifest(self.run.records)
        except OSError as error:
            problems.append(reason_of(error))
        if not problems and len(formats) < self.run.labelled:
            problems.append(f"it has {len(formats)} images, where {self.run.path.name} counts {self.run.labelled}")
        self.formats = {image: formats[image] for image in sorted(formats, key=name_order)}
        self.sound = not problems
        for what in problems:
            yield Problem(self.path, what)

    def get(self, name: str) -> LabelledImage:
        """One of the images. Raises OutputError where the file cannot be read."""
        return _labelled(None if self._manifest is None else self._manifest.get(name), self.run)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._manifest is not None:
            self._manifest.close()


def check_entry(run: Run, image: LabelledImage) -> Iterator[str]:
    """Whether an entry is of the run, and agrees with its vocabulary and with itself."""
    entry = image.entry
    if run.shard is not None and not run.shard.takes(entry.image):
        yield f"not an image of shard {run.shard}"
    expected = expected_files(entry.image, entry.formats)
    for name in sorted(expected.keys() | entry.files.keys()):
        if entry.files.get(name) != expected.get(name):
            yield f"its file in the format {name} is {short(entry.files.get(name))}, not {short(expected.get(name))}"
    for label_id, name in image.names.items():
        if run.names.get(label_id) != name:
            yield f"{class_text(image.names, label_id)} is not in the vocabulary"
    height, width = image.size
    if sum(image.pixels.values()) != height * width:
        yield f"{sum(image.pixels.values())} pixels in all, where {by(image.size)} are {height * width}"


def expected_files(image: str, formats: tuple[str, ...]) -> dict[str, str]:
    """The image's own file in each of the formats that has one, relative to the output folder."""
    paths = {name: relative_path(name, PurePosixPath(image)) for name in formats}
    return {name: str(path) for name, path in paths.items() if path is not None}


def _labelled(entry: Entry | None, run: Run) -> LabelledImage:
    """Raises ValueError where there is no entry, or its names or numbers are none."""
    if entry is None:
        raise ValueError("not all that belongs to an image")
    if any(part in ("", ".", "..") for part in entry.image.split("/")):
        raise ValueError(f"`image` is {short(entry.image)}")
    known_formats({"formats": list(entry.formats)})
    summary = dict(entry.summary)
    size = take(summary, "height", int), take(summary, "width", int)
    names: dict[int, str] = {}
    pixels = {
        BACKGROUND: take(take(summary, "background", dict), "pixels", int),
        ignore_id(len(run.names)): take(summary, "ignored", int),
    }
    for each in take(summary, "classes", list):
        label_id = take(each, "id", int)
        names[label_id] = take(each, "name", str)
        if label_id in pixels:
            raise ValueError(f"id {label_id} is there twice")
        pixels[label_id] = take(each, "pixels", int)
    return LabelledImage(entry, size, pixels, names)
