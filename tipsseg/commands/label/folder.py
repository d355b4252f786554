"""Label images into a folder: `tipsseg label` as functions, which show a bar alone by default."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from tipsseg.engine.notes import Reporter, note_vocabulary
from tipsseg.errors import UsageError
from tipsseg.formats import RASTER_FORMATS
from tipsseg.given.labels import join_classes
from tipsseg.images.access import is_plain
from tipsseg.images.raster import has_coordinates
from tipsseg.options import DEFAULT_FORMATS
from tipsseg.run.entry import Entry
from tipsseg.run.folder import OutputFolder
from tipsseg.run.inputs import Choice, Images, find_images
from tipsseg.run.outcome import FolderImage, Status
from tipsseg.run.read import open_run
from tipsseg.run.results import ImageResult, Labelled
from tipsseg.run.spec import RunSpec
from tipsseg.say import Progress
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import shell_word
from tipsseg.vocabulary.vocabulary import Vocabulary

#: Suffixes of images that may have coordinates, and the number of those that are looked at.
_WITH_COORDINATES, _LOOKED_AT = (".tif", ".tiff", ".jp2"), 20


def labelled_images(
    results: Generator[ImageResult, None, None], reporter: Reporter
) -> Generator[FolderImage, None, int]:
    """Yield the images of a run, and return the number of failures; an interruption says how far the run came."""
    try:
        with closing(results):
            for result in results:
                if isinstance(result, Failed):
                    yield FolderImage(path=result.ref.path, name=result.ref.name, status="failed", error=result.error)
                else:
                    status: Status = "labelled" if isinstance(result, Labelled) else "unchanged"
                    yield FolderImage(
                        path=result.ref.path,
                        name=result.ref.name,
                        status=status,
                        files=result.files,
                        classes=_shares(result.entry),
                    )
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(reporter.interruption())
        raise
    return reporter.counts.failed


def read_labelled(output: Path, images: list[FolderImage]) -> Iterator[FolderImage]:
    """Read labelled images from their output folder. Raise RecordError if its records are missing or damaged."""
    if all(image.status in ("planned", "failed") for image in images):  # there may be no folder
        yield from images
        return
    with open_run(output, ended=False) as run:
        for image in images:
            found = run.image(image.name) if image.error is None and image.name in run else None
            yield image if found is None else replace(image, files=found.files(), classes=_shares(found.entry))


def _shares(entry: Entry) -> dict[str, float]:
    """Return the share of the pixels of each class in an image."""
    facts = entry.mask
    return {name: facts.counts[each] / prod(facts.size) for each, name in facts.names.items()}


def label_spec(
    values: Mapping[str, Any], vocabulary: Vocabulary, new_classes: Sequence[str] = (), **more: Any
) -> RunSpec:
    """Return the settings of a labelling run, and check them.

    Args:
        values: The values of options. Without formats, the formats of the folder apply, or the default formats.
        vocabulary: The classes. With existing labels, theirs come first.
        new_classes: The classes to add to the existing labels; empty for the classes of `vocabulary`.
        more: Other fields of RunSpec.

    Raises:
        TipssegError: See `RunSpec.check`, or the existing labels cannot be read.
    """
    onto, formats = values["onto"], values["formats"]
    if onto is not None and not new_classes:
        vocabulary, new_classes = join_classes(onto, vocabulary)
    if formats == ():
        raise UsageError("no formats given", 'For example: ["png", "coco"].')
    more |= {"formats": formats or DEFAULT_FORMATS, "formats_given": formats is not None}
    return RunSpec.of(values, vocabulary=vocabulary, new_classes=tuple(new_classes), **more)


def find_to_label(folder: OutputFolder, choice: Choice, progress: Progress) -> Images:
    """Find the images of a run (see `find_images`).

    A new run becomes one of rasters if its images have coordinates, and the user chose nothing that excludes it. Note the
    coordinates that the formats of other runs do not store.
    """
    spec = folder.info.spec
    note_vocabulary(spec.vocabulary, progress)
    images = find_images(spec, choice, progress, folder)
    refs = [ref for ref in images.known if isinstance(ref, ImageRef)]
    able = [ref for ref in refs if ref.path.suffix.lower() in _WITH_COORDINATES and is_plain(ref.path)]
    first = next((ref for ref in able[:_LOOKED_AT] if has_coordinates(ref.path)), None)
    if first is None or not {*RASTER_FORMATS}.isdisjoint(spec.formats):
        return images
    if not spec.formats_given and folder.is_new and len(able) == len(refs):
        raster = replace(spec, formats=("geotiff",))
        try:
            raster.check_formats()
        except UsageError as error:
            progress.note("coordinates_refused", name=first.name, message=error.message, hint=error.hint)
            return images
        progress.note("labelled_as_raster", name=first.name, chosen=", ".join(spec.formats))
        folder.change(replace(folder.info, spec=raster))
        return images
    progress.note(
        "coordinates_lost", name=first.name, chosen=", ".join(spec.formats), folder=shell_word(str(spec.output))
    )
    return images
