"""Rules of manifest.jsonl: its lines are entries; each is of this run, and agrees with the vocabulary and with itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS
from tipsseg.formats.problem import Problem, by, class_text
from tipsseg.runs.check.run import Run
from tipsseg.store.manifest import MANIFEST_FILE, Manifest, ManifestEntry, read_entry
from tipsseg.store.stored_image import LabelledImage, labelled_image
from tipsseg.types import name_order
from tipsseg.util.append_log import lines_of
from tipsseg.util.files import reason_of
from tipsseg.util.json_values import short

#: What mends a manifest.
_DONE_AGAIN = "run the command that labelled the images again, which labels those that are missing"
_SET_ASIDE = "run the command that labelled the images again, which keeps the line in another file and labels the image"


class Images:
    """The images of a run, by its manifest. Memory grows by a name, an offset and the formats per image.

    formats  of each image by its name, in the order of names
    sound    whether the manifest has all images, as far as anybody can tell
    """

    def __init__(self, run: Run, max_pixels: int) -> None:
        self.run = run
        self._max_pixels = max_pixels
        self.path = run.state / MANIFEST_FILE
        self.formats: dict[str, tuple[str, ...]] = {}
        self.sound = True
        self._manifest: Manifest | None = None

    def read(self) -> Iterator[Problem]:
        """Read the file; once, before all else."""
        formats: dict[str, tuple[str, ...]] = {}
        same: dict[tuple[str, ...], tuple[str, ...]] = {}
        problems: list[str] = []
        try:
            for number, (_, line) in enumerate(lines_of(self.path), start=1):
                try:
                    entry = self._numbers(read_entry(line)).entry
                    formats[entry.image] = same.setdefault(entry.formats, entry.formats)
                except ValueError as error:
                    problems.append(f"line {number} is no entry: {error}; {_SET_ASIDE}")
            self._manifest = Manifest(self.run.state)
        except OSError as error:
            problems.append(reason_of(error))
            formats.clear()
        except OutputError as error:
            problems.append(error.reason)
            formats.clear()
        if not problems and len(formats) < self.run.labelled:
            problems.append(
                f"it has {len(formats)} images, where {self.run.path.name} counts {self.run.labelled}; {_DONE_AGAIN}"
            )
        self.formats = {image: formats[image] for image in sorted(formats, key=name_order)}
        self.sound = not problems
        for what in problems:
            yield Problem(self.path, what)

    def get(self, name: str) -> LabelledImage:
        """One of the images. Raises OutputError where the file cannot be read."""
        return self._numbers(None if self._manifest is None else self._manifest.get(name))

    def _numbers(self, entry: ManifestEntry | None) -> LabelledImage:
        return labelled_image(entry, self.run.names, self.run.files, self._max_pixels, self.run.digest)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._manifest is not None:
            self._manifest.close()


def check_entry(run: Run, image: LabelledImage) -> Iterator[str]:
    """Whether an entry is of the run, and agrees with its vocabulary and with itself."""
    entry = image.entry
    if run.shard is not None and not run.shard.takes(entry.image):
        yield f"not an image of shard {run.shard}"
    expected = expected_files(entry.image, entry.formats, run.files.names)
    for name in sorted(expected.keys() | entry.files.keys()):
        if entry.files.get(name) != expected.get(name):
            yield f"its file in the format {name} is {short(entry.files.get(name))}, not {short(expected.get(name))}"
    for label_id, name in image.names.items():
        if run.names.get(label_id) != name:
            yield f"{class_text(image.names, label_id)} is not in the vocabulary"
    height, width = image.stored.size
    number = sum(image.stored.pixels.values())
    if number != height * width:
        yield f"{number} pixels in all, where {by(image.stored.size)} are {height * width}"


def expected_files(image: str, formats: tuple[str, ...], names: str) -> dict[str, str]:
    """The per-image file in each of the formats that has one, relative to the output folder; `names` as of FileOptions."""
    paths = {name: FORMATS[name].relative_path(PurePosixPath(image), names) for name in formats}
    return {name: str(path) for name, path in paths.items() if path is not None}
