"""Label images into a folder: `tipsseg label` as functions, which show a bar alone by default."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Unpack

from tipsseg.address import address_text
from tipsseg.commands.label.images import label_images
from tipsseg.commands.label.ray import engine_maker
from tipsseg.engine.notes import Reporter, note_vocabulary
from tipsseg.errors import UsageError
from tipsseg.formats import RASTER_FORMATS
from tipsseg.given.labels import join_classes
from tipsseg.images.access import is_plain
from tipsseg.images.finding import Paths, as_paths
from tipsseg.images.raster import has_coordinates
from tipsseg.options import DEFAULT_FORMATS, FileOptions, LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import LabelFolderKeywords, with_keywords
from tipsseg.options.run import (
    ComputeOptions,
    EngineOptions,
    ImageOptions,
    OntoOptions,
    OutputOptions,
    RasterOptions,
    RegionOptions,
)
from tipsseg.run.entry import Entry
from tipsseg.run.folder import OutputFolder, open_folder
from tipsseg.run.inputs import Choice, Images, find_images, require_paths
from tipsseg.run.outcome import Done, FolderImage, FolderSummary, Status
from tipsseg.run.read import open_run
from tipsseg.run.results import ImageResult, Labelled
from tipsseg.run.spec import RunSpec
from tipsseg.types import Failed, ImageRef
from tipsseg.util.progress import Progress, Verbosity, progress_for
from tipsseg.util.text import shell_word
from tipsseg.vocabulary.fitted import Classes, as_vocabulary
from tipsseg.vocabulary.vocabulary import Vocabulary

#: Suffixes of images that may have coordinates, and the number of those that are looked at.
_WITH_COORDINATES, _LOOKED_AT = (".tif", ".tiff", ".jp2"), 20

#: The option records of `label_folder`.
_LABEL_RECORDS = (
    LabelOptions,
    RegionOptions,
    OntoOptions,
    RasterOptions,
    FileOptions,
    ComputeOptions,
    OutputOptions,
    ImageOptions,
    EngineOptions,
)


@with_keywords(LabelFolderKeywords, *_LABEL_RECORDS)
def label_folder(
    images: Paths, classes: Classes, *, verbose: Verbosity = None, **keywords: Unpack[LabelFolderKeywords]
) -> FolderSummary:
    """Label images and write the labels to a folder, as `tipsseg label` does.

        tipsseg.label_folder("photos/", ["car", "road"], output="labels", min_confidence=0.5)

    Repeat the call to resume an interrupted run. Files edited by a person are kept.

    Args:
        images: Files, folders, archives, Parquet files, videos (with `every`) and URLs. Folders are searched recursively.
        classes: Class names, ClassSpecs, a dict that maps names to synonyms, a Vocabulary, or a fit (see `tipsseg.learn`).
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        A FolderSummary: iterate over it for the FolderImage of each image, with its files, classes and error. A bad image does
        not end the run.

    Raises:
        OtherRunError: The folder contains labels from a different model, or for different classes or options.
        TipssegError: The run cannot start or continue for another reason.
    """
    spec, choice, engine = _asked(images, classes, keywords)
    make_engine, done = engine_maker(engine, spec), []
    with progress_for(verbose) as progress, open_folder(spec) as folder:
        found = find_to_label(folder, choice, progress)
        with closing(label_images(folder, found, make_engine, Reporter(progress))) as results:
            for result in results:
                error = result.error if isinstance(result, Failed) else None
                done.append(Done(result.ref, _status_of(result), error=error))
    return FolderSummary(spec.output, done, partial(_read_labelled, spec))


@with_keywords(LabelFolderKeywords, *_LABEL_RECORDS)
def iter_label_folder(
    images: Paths, classes: Classes, *, verbose: Verbosity = None, **keywords: Unpack[LabelFolderKeywords]
) -> Generator[FolderImage, None, None]:
    """Label images like `label_folder`, and yield each once its files are written.

        for image in tipsseg.iter_label_folder("photos/", ["car", "road"]):
            print(image.path, image.status)

    Images are labelled only while the results are consumed. The files for the whole run are written after the last result.

    Args:
        images: See `label_folder`.
        classes: See `label_folder`.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Yields:
        The images, in order.

    Raises:
        TipssegError: See `label_folder`. Wrong arguments raise before the first image.
    """
    spec, choice, engine = _asked(images, classes, keywords)
    make_engine = engine_maker(engine, spec)
    with ExitStack() as stack:
        progress = stack.enter_context(progress_for(verbose))
        folder = stack.enter_context(open_folder(spec))
        found = find_to_label(folder, choice, progress)
        results = label_images(folder, found, make_engine, Reporter(progress))
        return _yield_images(results, stack.pop_all())


def _yield_images(results: Generator[ImageResult, None, None], opened: ExitStack) -> Generator[FolderImage, None, None]:
    with opened, closing(results):
        for result in results:
            if isinstance(result, Failed):
                yield FolderImage(path=result.ref.path, status="failed", error=result.error)
            else:
                yield _labelled_image(result.entry, result.files, result.ref.path, _status_of(result))


def _status_of(result: ImageResult) -> Status:
    if isinstance(result, Failed):
        return "failed"
    return "labelled" if isinstance(result, Labelled) else "unchanged"


def _read_labelled(spec: RunSpec, images: list[Done]) -> Iterator[FolderImage]:
    """Read labelled images from their output folder. Raise RecordError if its records are missing or damaged."""
    with open_run(spec.output, ended=False) as run:
        for image in images:
            if image.error or image.ref.name not in run:
                yield FolderImage(path=image.ref.path, status=image.status, error=image.error)
            else:
                found = run.image(image.ref.name)
                yield _labelled_image(found.entry, found.files(), image.ref.path, image.status)


def _labelled_image(entry: Entry, files: Mapping[str, Path], path: Path, status: Status) -> FolderImage:
    facts = entry.mask
    return FolderImage(
        path=path,
        status=status,
        files=files,
        classes={name: facts.counts[each] / prod(facts.size) for each, name in facts.names.items()},
    )


def _asked(images: Paths, classes: Classes, keywords: LabelFolderKeywords) -> tuple[RunSpec, Choice, EngineOptions]:
    """Return the settings of a run, its images, and its engine."""
    paths, choice = as_paths(images), take_options(ImageOptions, keywords)
    require_paths(paths)
    vocabulary, fitted = as_vocabulary(classes)
    records = (take_options(record, keywords) for record in (ComputeOptions, RegionOptions))
    spec = label_spec(
        vocabulary,
        *records,
        choice,
        fitted=fitted,
        output=take_options(OutputOptions, keywords),
        onto=take_options(OntoOptions, keywords),
        options=take_options(LabelOptions, keywords),
        files=take_options(FileOptions, keywords),
        raster=take_options(RasterOptions, keywords),
        sources=tuple(map(address_text, paths)),
    )
    return spec, Choice(**vars(choice), images=paths), take_options(EngineOptions, keywords)


def label_spec(
    vocabulary: Vocabulary,
    *records: object,
    output: OutputOptions,
    onto: OntoOptions,
    options: LabelOptions,
    new_classes: Sequence[str] = (),
    **values: Any,
) -> RunSpec:
    """Return the settings of a labelling run, and check them.

    Args:
        vocabulary: The classes. With existing labels, theirs come first.
        records: Further records of options, whose fields are fields of RunSpec.
        output: The output folder and the formats. Without formats, the folder's, or the default.
        onto: The existing labels.
        options: Labelling options.
        new_classes: The classes to add to the existing labels; empty for the classes of `vocabulary`.
        values: Other fields of RunSpec.

    Raises:
        TipssegError: See `RunSpec.check`, or the existing labels cannot be read.
    """
    if onto.onto is not None and not new_classes:
        vocabulary, new_classes = join_classes(onto.onto, vocabulary)
    formats = output.formats
    if formats == ():
        raise UsageError("no formats given", 'For example: ["png", "coco"].')
    values["formats_given"] = formats is not None
    output = replace(output, formats=formats or DEFAULT_FORMATS)
    return RunSpec.of(
        *records, output, onto, vocabulary=vocabulary, options=options, new_classes=tuple(new_classes), **values
    )


def find_to_label(folder: OutputFolder, choice: Choice, progress: Progress) -> Images:
    """Find the images of a run (see `find_images`).

    A new run becomes one of rasters if its images have coordinates, and the user chose nothing that excludes it. Note the
    coordinates that the formats of other runs do not store.
    """
    spec = folder.info.spec
    note_vocabulary(spec.vocabulary, progress, spec.options)
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
            progress.note(f"The coordinates of {first.name} are not stored, because {error.message}. {error.hint}")
            return images
        progress.note(
            f"{first.name} is georeferenced: it is labelled at its full resolution, in the format geotiff. To write "
            f"{', '.join(spec.formats)} instead, use argument `formats`."
        )
        folder.change(replace(folder.info, spec=raster))
        return images
    progress.note(
        f"{first.name} is georeferenced, but {', '.join(spec.formats)} do not store coordinates. It is resized for the model like "
        "a photograph; argument `formats`=geotiff labels it at full resolution. To add georeferenced masks of these labels, run: "
        f"tipsseg convert {shell_word(str(spec.output))} --format geotiff"
    )
    return images
