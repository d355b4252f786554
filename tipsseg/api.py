"""The commands as functions: folders in, results out, in silence."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Unpack

from tipsseg.errors import UsageError
from tipsseg.options import FileOptions, LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import (
    CorrectKeywords,
    EncodeFolderKeywords,
    EvaluateKeywords,
    LabelFolderKeywords,
    ScoreMasksKeywords,
    with_keywords,
)
from tipsseg.options.run import (
    ComputeOptions,
    CorrectOptions,
    EngineOptions,
    ImageOptions,
    OutputOptions,
    StoreOptions,
    TruthOptions,
)
from tipsseg.runs.common.image_list import Choice, Images, check_choice, find_images, found_images
from tipsseg.runs.common.progress import Progress, Silence
from tipsseg.runs.correct.folder import Corrections, take_corrections
from tipsseg.runs.encode.run import EncodeResult, EncodeRun, encode_spec
from tipsseg.runs.engine.maker import EngineMaker, engine_maker
from tipsseg.runs.evaluate.predictions import names_of
from tipsseg.runs.evaluate.run import Evaluation, evaluate_masks, evaluate_model
from tipsseg.runs.evaluate.truth_options import layout_of, preset_of
from tipsseg.runs.label.run import LabelRun
from tipsseg.store.results import ImageResult
from tipsseg.store.run_record import plan_run
from tipsseg.store.spec import RunInfo, RunSpec
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary

Classes = Vocabulary | FittedVocabulary | Sequence[str | ClassSpec]
Paths = str | Path | Iterable[str | Path]


@with_keywords(
    LabelFolderKeywords, LabelOptions, FileOptions, ComputeOptions, OutputOptions, ImageOptions, EngineOptions
)
def label_folder(
    images: Paths, classes: Classes, *, verbose: bool = False, **keywords: Unpack[LabelFolderKeywords]
) -> Generator[ImageResult, None, None]:
    """Label images into an output folder, as `tipsseg label` does; the work is done while the results are taken.

        for result in tipsseg.label_folder("photos/", ["car", "road"], output="labels", min_confidence=0.5):
            ...

    A run that was broken off goes on from there with the next call. `list(label_folder(...))` does all of it.

    Args:
        images: Files and folders, which are searched with their sub-folders. May be empty with `retry_failed`.
        classes: Names, ClassSpecs, a vocabulary as `make_vocabulary` and `read_vocabulary` give it, or a fitted one.
        verbose: Whether notes, progress and faults go to stderr.

    Yields:
        A Labelled, an Unchanged or a Failed per image, in the order of the images, once its files are in place. `ref.path` is the
        image; `entry.files` are its files by format, relative to `output`; `entry.summary` is what was found; `error` is the
        ImageError of a Failed. The files for the whole run are written when the last result has been taken.

    Raises:
        TipssegError: For what ends the run; what can be known before is raised by the call itself.
    """
    paths, choice = as_paths(images), take_options(ImageOptions, keywords)
    check_choice(bool(paths), choice)
    vocabulary, fitted = as_vocabulary(classes)
    output = take_options(OutputOptions, keywords)
    if not output.formats:
        raise UsageError("no formats given", 'For example: ["png", "coco"].')
    spec = RunSpec(
        **vars(take_options(ComputeOptions, keywords)),
        **vars(output),
        vocabulary=vocabulary,
        fitted=fitted,
        options=take_options(LabelOptions, keywords),
        files=take_options(FileOptions, keywords),
    )
    spec.check()
    make_engine = engine_maker(take_options(EngineOptions, keywords), spec.device)
    progress = progress_for(verbose)
    info = plan_run(spec)
    found = find_images(spec, Choice(**vars(choice), paths=paths), progress)
    return _results(info, found, progress, make_engine)


def _results(
    info: RunInfo, images: Images, progress: Progress, make_engine: EngineMaker
) -> Generator[ImageResult, None, None]:
    with progress, make_engine(info, progress.note, True) as engine:
        yield from LabelRun(info, images, engine, progress).results()


@with_keywords(EncodeFolderKeywords, LabelOptions, ComputeOptions, StoreOptions, ImageOptions)
def encode_folder(
    images: Paths, output: str | Path, *, verbose: bool = False, **keywords: Unpack[EncodeFolderKeywords]
) -> Generator[EncodeResult, None, None]:
    """Keep the features of images in a feature store, as `tipsseg encode` does; the work is done while the results are taken.

    Args:
        images: As of `label_folder`.
        output: The folder of the store: argument `features` of `label_folder`. Images whose features are there are not encoded
            again.
        verbose: Whether notes, progress and faults go to stderr.

    Yields:
        An Encoded or a Failed per image, in the order of the images: `ref.path` is the image, `file` the file of its features.

    Raises:
        TipssegError: For what ends the run; what can be known before is raised by the call itself.
    """
    paths, choice = as_paths(images), take_options(ImageOptions, keywords)
    check_choice(bool(paths), choice)
    spec = encode_spec(
        take_options(ComputeOptions, keywords),
        take_options(StoreOptions, {**keywords, "output": output}),
        take_options(LabelOptions, keywords),
    )
    spec.check()
    progress = progress_for(verbose)
    info = plan_run(spec)
    found = find_images(spec, Choice(**vars(choice), paths=paths), progress)
    return _encoded(EncodeRun(info, found, progress, quiet=True), progress)


def _encoded(run: EncodeRun, progress: Progress) -> Generator[EncodeResult, None, None]:
    with progress:
        yield from run.results()


@with_keywords(EvaluateKeywords, TruthOptions, LabelOptions, FileOptions, ComputeOptions)
def evaluate(
    images: Paths,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    output: str | Path | None = None,
    formats: Sequence[str] = (),
    verbose: bool = False,
    **keywords: Unpack[EvaluateKeywords],
) -> Evaluation:
    """Label images and score the labels against truth masks, as `tipsseg eval` does.

    Args:
        images: Files and folders.
        truths: The folder of the truth masks, which mirrors the folders of the images.
        classes: As of `label_folder`. None: the classes of `layout`.
        output: With `formats`: the folder that the labels are written into.
        formats: The formats to write. Without formats no label is written.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        The scores: `scores.mean_iou` (0..1), `scores.iou` per class, `confusion`, how many images were `scored` and `failed`, and
        `record()`, all of it as JSON values.

    Raises:
        TipssegError: For what ends the run.
    """
    truth = take_options(TruthOptions, keywords)
    if formats and output is None:
        raise UsageError(
            "formats are written into a folder, and there is none", "Give the folder as argument `output`."
        )
    vocabulary, fitted = as_vocabulary(read_vocabulary(preset_of(truth)) if classes is None else classes)
    spec = RunSpec(
        **vars(take_options(ComputeOptions, keywords)),
        output=Path(output or ""),
        formats=tuple(formats),
        resume=False,
        vocabulary=vocabulary,
        fitted=fitted,
        options=take_options(LabelOptions, keywords),
        files=take_options(FileOptions, keywords),
    )
    layout = layout_of(truth, [entry.name for entry in vocabulary.classes])
    spec.check()
    folder = spec.output if spec.formats else None
    with progress_for(verbose) as progress:
        found = found_images(as_paths(images), None, folder, Path(truths))
        return evaluate_model(spec, found, Path(truths), layout, progress, quiet=True)


@with_keywords(ScoreMasksKeywords, TruthOptions, ComputeOptions)
def score_masks(
    predicted: str | Path,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    verbose: bool = False,
    **keywords: Unpack[ScoreMasksKeywords],
) -> Evaluation:
    """Score masks that are there already against truth masks, as `tipsseg eval --pred` does.

    Args:
        predicted: The output folder of a run that wrote index masks, or a folder of such masks.
        truths: As of `evaluate`.
        classes: The classes of the masks. None: the classes of `layout`, or of the run.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        The scores, see `evaluate`.

    Raises:
        TipssegError: For what ends the run.
    """
    truth, jobs = take_options(TruthOptions, keywords), take_options(ComputeOptions, keywords).jobs
    if classes is None and truth.layout is not None:
        classes = read_vocabulary(preset_of(truth))
    given = None if classes is None else [entry.name for entry in as_vocabulary(classes)[0].classes]
    names = names_of(Path(predicted), given)
    with progress_for(verbose) as progress:
        return evaluate_masks(Path(predicted), Path(truths), layout_of(truth, names), names, jobs, progress)


@with_keywords(CorrectKeywords, CorrectOptions, ComputeOptions)
def correct_folder(
    output: str | Path, corrections: str | Path, *, verbose: bool = False, **keywords: Unpack[CorrectKeywords]
) -> Corrections:
    """Take corrected labels back into the output folder of a run, as `tipsseg correct` does: all of them, or none.

    The masks of the images then count as changed by a person, and every later command keeps them.

    Args:
        output: The output folder.
        corrections: The file, the folder or the zip that a labelling tool exported.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        The result: `format`, `masks` (each with `image`, `path`, the number of `changed` pixels and whether the image was
        `emptied`), `unchanged` images, `unmatched` images, images of a source run that are `uncorrected`, new `classes`, and
        `redrawn` objects, which stay as they were although their edges differ.

    Raises:
        UsageError: For an unknown format.
        InputError: Where the corrections, or some of them, cannot be taken. Nothing was changed then.
        ImageError: Where a file of the corrections cannot be read. Nothing was changed then.
        OutputError: Where the folder cannot be written.
    """
    options, max_pixels = take_options(CorrectOptions, keywords), take_options(ComputeOptions, keywords).max_pixels
    with progress_for(verbose) as progress:
        return take_corrections(Path(output), Path(corrections), progress, options, max_pixels=max_pixels)


def as_paths(images: Paths) -> tuple[Path, ...]:
    """Return paths that a program gives, one or several. Raise UsageError for anything else."""
    if isinstance(images, str | Path):
        return (Path(images),)
    if not isinstance(images, Iterable):
        raise UsageError(f"images must be paths, not {quoted(images)}", 'For example: "photos/", or a list of files.')
    paths = tuple(images)
    for path in paths:
        if not isinstance(path, str | Path):
            raise UsageError(f"images must be paths, not {quoted(path)}", "Labeller.label takes images in memory.")
    return tuple(map(Path, paths))


def as_vocabulary(classes: Classes) -> tuple[Vocabulary, FittedVocabulary | None]:
    """Return the vocabulary that classes make, and its vectors if they were fitted. Raise VocabularyError."""
    if isinstance(classes, FittedVocabulary):
        return classes.vocabulary, classes
    return (classes if isinstance(classes, Vocabulary) else make_vocabulary(classes)), None


def progress_for(verbose: bool) -> Progress:
    """Return what says how a run goes on, or says nothing."""
    return Progress(quiet=False, results=False) if verbose else Silence()
