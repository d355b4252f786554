"""`label_folder` and `encode_folder`: the commands `tipsseg label` and `tipsseg encode` as functions, silent by default."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Unpack

from tipsseg.address import address_text, as_address
from tipsseg.errors import ImageError, UsageError
from tipsseg.formats.given import join_classes
from tipsseg.images.remote import check_address
from tipsseg.options import FileOptions, LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import EncodeFolderKeywords, LabelFolderKeywords, with_keywords
from tipsseg.options.run import (
    ComputeOptions,
    EngineOptions,
    ImageOptions,
    OntoOptions,
    OutputOptions,
    RasterOptions,
    RegionOptions,
    StoreOptions,
)
from tipsseg.run.entry import Entry
from tipsseg.run.folder import shown_files
from tipsseg.run.plan import plan_run, with_formats
from tipsseg.run.read import open_runs
from tipsseg.run.results import ImageResult, Labelled
from tipsseg.run.spec import RunInfo, RunSpec
from tipsseg.runs.common.inputs import Choice, Images, check_choice, find_images
from tipsseg.runs.common.progress import Progress, Silence
from tipsseg.runs.common.reporting import Reporter
from tipsseg.runs.encode.run import EncodeRun, encode_spec
from tipsseg.runs.label.ray import engine_maker
from tipsseg.runs.label.run import EngineMaker, label_images
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import quote
from tipsseg.vocabulary.fitted import Classes, as_vocabulary

Paths = str | Path | Iterable[str | Path]

#: The outcome of an image. "unchanged" means that an earlier call completed it.
Status = Literal["labelled", "encoded", "unchanged", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderImage:
    """One image of a folder run.

    Attributes:
        path: The image.
        status: "labelled" or "encoded" by this call, "unchanged" since an earlier one, or "failed".
        files: The image's files: label files by format ("png"), feature files by scale ("1").
        classes: The classes in the image, each with its share of the pixels, 0..1.
        error: The reason for a failure, else None.
    """

    path: Path
    status: Status
    files: Mapping[str, Path] = field(default_factory=dict)
    classes: Mapping[str, float] = field(default_factory=dict)
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class _Done:
    """The part of a FolderImage that a summary keeps in memory.

    Attributes:
        ref: The image.
        status: See FolderImage.
        files: The feature files of an encoded image, in the order of the scales.
        error: The reason for a failure.
    """

    ref: ImageRef
    status: Status
    files: tuple[Path, ...] = ()
    error: ImageError | None = None


class FolderSummary:
    """The result of `label_folder` or `encode_folder`.

        run = tipsseg.label_folder("photos/", ["car", "road"])
        print(run)                                      # FolderSummary('labels': 11 labelled, 1 failed)
        for image in run:                               # reads one image after the other from the folder
            print(image.path, image.classes, image.error)

    Attributes:
        output: The folder.
    """

    def __init__(self, output: Path, images: list[_Done], read: Callable[[list[_Done]], Iterator[FolderImage]]) -> None:
        self.output = output
        self._images = images
        self._read = read

    def count(self, status: Status) -> int:
        """Return the number of images with this status."""
        return sum(image.status == status for image in self._images)

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[FolderImage]:
        return self._read(self._images)

    def __repr__(self) -> str:
        statuses: tuple[Status, ...] = ("labelled", "encoded", "unchanged", "failed")
        counts = [f"{number} {status}" for status in statuses if (number := self.count(status))]
        return f"FolderSummary({str(self.output)!r}: {', '.join(counts) or 'no images'})"


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
    images: Paths, classes: Classes, *, verbose: bool = False, **keywords: Unpack[LabelFolderKeywords]
) -> FolderSummary:
    """Label images and write the labels to a folder, as `tipsseg label` does.

        tipsseg.label_folder("photos/", ["car", "road"], output="labels", min_confidence=0.5)

    Repeat the call to resume an interrupted run. Files edited by a person are kept.

    Args:
        images: Files, folders, archives, Parquet files, videos (with `every`) and URLs. Folders are searched recursively. The list
            may be empty with `retry_failed`.
        classes: Class names; ClassSpecs; a dict that maps names to synonyms; a Vocabulary; or a fit (see `tipsseg.learn`).
        verbose: Print notes, progress and errors on stderr.

    Returns:
        A FolderSummary: iterate over it for the FolderImage of each image, with its files, classes and error. A bad image does
        not end the run.

    Raises:
        OtherRunError: The folder contains labels from a different model, or for different classes or options.
        TipssegError: The run cannot start or continue for another reason.
    """
    spec, results = _begin_labelling(images, classes, verbose, keywords)
    done = []
    with closing(results):
        for result in results:
            error = result.error if isinstance(result, Failed) else None
            done.append(_Done(result.ref, _status_of(result), error=error))
    return FolderSummary(spec.output, done, partial(_read_labelled, spec))


@with_keywords(LabelFolderKeywords, *_LABEL_RECORDS)
def iter_label_folder(
    images: Paths, classes: Classes, *, verbose: bool = False, **keywords: Unpack[LabelFolderKeywords]
) -> Generator[FolderImage, None, None]:
    """Label images like `label_folder`, and yield each once its files are written.

        for image in tipsseg.iter_label_folder("photos/", ["car", "road"]):
            print(image.path, image.status)

    Images are labelled only while the results are consumed. The files for the whole run are written after the last result.

    Args:
        images: See `label_folder`.
        classes: See `label_folder`.
        verbose: Print notes, progress and errors on stderr.

    Yields:
        The images, in order.

    Raises:
        TipssegError: See `label_folder`. Wrong arguments raise before the first image.
    """
    _, results = _begin_labelling(images, classes, verbose, keywords)
    return _yield_images(results)


def _yield_images(results: Generator[ImageResult, None, None]) -> Generator[FolderImage, None, None]:
    with closing(results):
        for result in results:
            if isinstance(result, Failed):
                yield FolderImage(path=result.ref.path, status="failed", error=result.error)
            else:
                yield _labelled_image(result.entry, result.files, result.ref.path, _status_of(result))


def _status_of(result: ImageResult) -> Status:
    if isinstance(result, Failed):
        return "failed"
    return "labelled" if isinstance(result, Labelled) else "unchanged"


def _read_labelled(spec: RunSpec, images: list[_Done]) -> Iterator[FolderImage]:
    """Read labelled images from their output folder. Raise RecordError if its records are missing or damaged."""
    with open_runs(spec.output, ended=False) as runs:
        run = next((run for run in runs if run.shard == spec.shard), runs[0])  # perhaps merged by now
        for image in images:
            if image.error or image.ref.name not in run:
                yield FolderImage(path=image.ref.path, status=image.status, error=image.error)
            else:
                found = run.image(image.ref.name)
                yield _labelled_image(found.entry, shown_files(found.rows, run.files), image.ref.path, image.status)


def _labelled_image(entry: Entry, files: Mapping[str, Path], path: Path, status: Status) -> FolderImage:
    numbers = entry.numbers
    height, width = numbers.size
    return FolderImage(
        path=path,
        status=status,
        files=files,
        classes={found.name: found.pixels / (height * width) for found in numbers.classes},
    )


def _begin_labelling(
    images: Paths, classes: Classes, verbose: bool, keywords: LabelFolderKeywords
) -> tuple[RunSpec, Generator[ImageResult, None, None]]:
    """Plan a run. The returned generator executes it."""
    paths, choice = as_paths(images), take_options(ImageOptions, keywords)
    check_choice(bool(paths), choice)
    vocabulary, fitted = as_vocabulary(classes)
    onto, added = take_options(OntoOptions, keywords).onto, tuple[str, ...]()
    if onto is not None:
        vocabulary, added = join_classes(onto, vocabulary)
    options = take_options(LabelOptions, keywords)
    output = with_formats(take_options(OutputOptions, keywords), overlap=options.overlap)
    if not output.formats:
        raise UsageError("no formats given", 'For example: ["png", "coco"].')
    spec = RunSpec.of(
        take_options(ComputeOptions, keywords),
        output,
        take_options(RegionOptions, keywords),
        onto=onto,
        added=added,
        vocabulary=vocabulary,
        fitted=fitted,
        options=options,
        files=take_options(FileOptions, keywords),
        raster=take_options(RasterOptions, keywords),
        sources=tuple(map(address_text, paths)),
    )
    make_engine = engine_maker(take_options(EngineOptions, keywords), spec)
    progress = progress_for(verbose)
    info = plan_run(spec)
    found = find_images(spec, Choice(**vars(choice), paths=paths), progress)
    return info.spec, _label(info, found, progress, make_engine)


def _label(
    info: RunInfo, images: Images, progress: Progress, make_engine: EngineMaker
) -> Generator[ImageResult, None, None]:
    with progress:
        yield from label_images(info, images, make_engine, Reporter(progress))


@with_keywords(EncodeFolderKeywords, LabelOptions, ComputeOptions, StoreOptions, ImageOptions)
def encode_folder(
    images: Paths, output: str | Path, *, verbose: bool = False, **keywords: Unpack[EncodeFolderKeywords]
) -> FolderSummary:
    """Encode images and store their features in a folder, as `tipsseg encode` does.

        tipsseg.encode_folder("photos/", "feats")
        tipsseg.label_folder("photos/", ["car", "road"], features="feats")      # does not run the model again

    Args:
        images: See `label_folder`.
        output: The feature folder. Images with features in it are not encoded again.
        verbose: Print notes, progress and errors on stderr.

    Returns:
        A FolderSummary: iterate over it for the FolderImage of each image, with its files and error. A bad image does not end
        the run.

    Raises:
        TipssegError: The run cannot start or continue.
    """
    paths, choice = as_paths(images), take_options(ImageOptions, keywords)
    check_choice(bool(paths), choice)
    spec = encode_spec(
        take_options(ComputeOptions, keywords),
        take_options(StoreOptions, {**keywords, "output": output}),
        take_options(LabelOptions, keywords),
    )
    progress = progress_for(verbose)
    info = plan_run(spec)
    found = find_images(spec, Choice(**vars(choice), paths=paths), progress)
    done = []
    with progress, closing(EncodeRun(info, found, progress, quiet=True).results()) as results:
        for result in results:
            if isinstance(result, Failed):
                done.append(_Done(result.ref, "failed", error=result.error))
            else:
                done.append(_Done(result.ref, "encoded" if result.made else "unchanged", result.files))
    return FolderSummary(spec.output, done, partial(_read_encoded, spec))


def _read_encoded(spec: RunSpec, images: list[_Done]) -> Iterator[FolderImage]:
    for image in images:
        files = {f"{scale:g}": file for scale, file in zip(spec.options.scales, image.files, strict=False)}
        yield FolderImage(path=image.ref.path, status=image.status, files=files, error=image.error)


def as_paths(images: Paths) -> tuple[Path, ...]:
    """Return one path or several as a tuple. Raise UsageError for other values."""
    if not isinstance(images, Iterable | Path):
        raise UsageError(f"images must be paths, not {quote(images)}", 'For example: "photos/", or a list of files.')
    paths = (images,) if isinstance(images, str | Path) else tuple(images)
    for path in paths:
        if not isinstance(path, str | Path):
            raise UsageError(f"images must be paths, not {quote(path)}", "Use Model.label for an image in memory.")
    addresses = tuple(map(as_address, paths))
    for address in addresses:
        check_address(address)
    return addresses


def progress_for(verbose: bool) -> Progress:
    """Return a Progress that prints on stderr if `verbose`, else nothing."""
    return Progress(quiet=False, results=False) if verbose else Silence()
