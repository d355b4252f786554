"""What the commands `label`, `correct` and `eval` do, for programs: the same runs, in silence, with results to iterate over."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

from tipsseg.errors import UsageError
from tipsseg.options import (
    DEFAULT_FILE_OPTIONS,
    DEFAULT_FORMATS,
    DEFAULT_LABEL_OPTIONS,
    MAX_PIXELS,
    ONE_SCALE,
    Dtype,
    FeatureDtype,
    FileOptions,
    LabelOptions,
    Mode,
    check_scales,
    check_whole_number,
    choose,
    thread_count,
)
from tipsseg.runs.common.image_list import Choice, Images, check_choice, find_images, found_images
from tipsseg.runs.common.progress import Progress, Silence
from tipsseg.runs.correct.folder import Corrections, take_corrections
from tipsseg.runs.encode.run import EncodeResult, EncodeRun
from tipsseg.runs.encode.spec import EncodeSpec, plan_encoding
from tipsseg.runs.engine.engine import Engine, LocalEngine
from tipsseg.runs.evaluate.predictions import names_of
from tipsseg.runs.evaluate.run import Evaluation, evaluate_masks, evaluate_model
from tipsseg.runs.evaluate.truth_options import TruthOptions
from tipsseg.runs.label.run import LabelRun
from tipsseg.store.results import ImageResult
from tipsseg.store.run_record import plan_run
from tipsseg.store.shards import parse_shard
from tipsseg.store.spec import RunInfo, RunSpec
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary

Classes = Vocabulary | FittedVocabulary | Sequence[str | ClassSpec]
Paths = str | Path | Iterable[str | Path]

ENGINES = ("local", "ray")

#: Makes an engine of a run, of what takes its notes, and of whether it is quiet.
EngineMaker = Callable[[RunInfo, Callable[[str], None], bool], AbstractContextManager[Engine]]


def label_folder(
    images: Paths,
    classes: Classes,
    *,
    output: str | Path = "labels",
    formats: Sequence[str] = DEFAULT_FORMATS,
    model: str | Path = "l14",
    options: LabelOptions = DEFAULT_LABEL_OPTIONS,
    files: FileOptions = DEFAULT_FILE_OPTIONS,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int = 8,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    limit: int | None = None,
    sample: int | None = None,
    retry_failed: bool = False,
    resume: bool = True,
    overwrite: bool = False,
    replace_edited: bool = False,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    actors: int = 1,
    gpus: float = 0.0,
    use_cache: bool = False,
    features: str | Path | None = None,
    verbose: bool = False,
) -> Generator[ImageResult, None, None]:
    """Label images into an output folder, as `tipsseg label` does; the work is done while the results are taken.

        for result in tipsseg.label_folder("photos/", ["car", "road"], output="labels", formats=("png", "coco")):
            ...

    A run that was broken off goes on from there with the next call. `list(label_folder(...))` does all of it.

    Args:
        images: Files and folders, which are searched with their sub-folders. May be empty with `retry_failed`.
        classes: Names, ClassSpecs, a vocabulary as `make_vocabulary` and `read_vocabulary` give it, or a fitted one.
        output: The output folder.
        formats: Names of formats, see `tipsseg label --help`.
        model: An id of weights.lock, or a folder in the hub layout.
        options: How an image is labelled.
        files: How labels become files.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: The dtype that the model computes in, see `load`.
        batch_size: Windows that a GPU takes at once.
        jobs: Threads that decode images, and make labels and files; None: as many as suit the machine.
        max_pixels: Images of more pixels are refused.
        limit: Only the first images, so many of them.
        sample: Only so many images, drawn at random, always the same.
        retry_failed: Only images that failed in the run before.
        resume: Whether images that are done in the output folder stay as they are.
        overwrite: Whether what an earlier run wrote is removed first.
        replace_edited: Whether images are labelled again whose files were changed by hand.
        shard: "I/N" for part I of N of the images.
        engine: "local": this process; "ray": actors of a Ray cluster.
        actors: With "ray": how many actors.
        gpus: With "ray": GPUs per actor.
        use_cache: Whether the user's cache keeps what saves time the next time.
        features: The folder of a feature store: features are taken from it, and missing ones are added, in float16 to
            a new one. None: no store.
        verbose: Whether notes, progress and faults go to stderr.

    Yields:
        A Labelled, an Unchanged or a Failed per image, in the order of the images, once its files are in place. `ref.path` is the
        image; `entry.files` are its files by format, relative to `output`; `entry.summary` is what was found; `error` is the
        ImageError of a Failed. The files for the whole run are written when the last result has been taken.

    Raises:
        TipssegError: For what ends the run; what can be known before is raised by the call itself.
    """
    if engine == "local" and (actors, gpus) != (1, 0.0):
        raise UsageError("argument `actors` and argument `gpus` are for Ray", 'Leave them out, or give engine="ray".')
    paths = as_paths(images)
    check_choice(bool(paths), limit, sample, retry_failed=retry_failed)
    vocabulary, fitted = as_vocabulary(classes)
    spec = RunSpec(
        str(model),
        vocabulary,
        options,
        files,
        as_formats(formats),
        Path(output),
        device,
        dtype,
        batch_size,
        thread_count(jobs),
        max_pixels,
        resume,
        overwrite,
        replace_edited,
        None if shard is None else parse_shard(shard),
        use_cache,
        None if features is None else Path(features),
        fitted=fitted,
    )
    spec.check()
    make_engine = engine_maker(engine, actors, gpus, device)
    progress = progress_for(verbose)
    info = plan_run(spec)
    found = find_images(spec, Choice(paths, None, limit, sample, retry_failed), progress)
    return _results(info, found, progress, make_engine)


def _results(
    info: RunInfo, images: Images, progress: Progress, make_engine: EngineMaker
) -> Generator[ImageResult, None, None]:
    with progress, make_engine(info, progress.note, True) as engine:
        yield from LabelRun(info, images, engine, progress).results()


def engine_maker(name: str, actors: int, gpus: float, device: str) -> EngineMaker:
    """What makes the engine of a name, "local" or "ray".

    Args:
        name: The name.
        actors: With "ray": how many actors.
        gpus: With "ray": GPUs per actor.
        device: The device of the run.

    Raises:
        UsageError: The engine is unknown or not installed, or its numbers are impossible.
    """
    if choose(name, ENGINES, "engine") == "local":
        return lambda info, note, quiet: nullcontext(LocalEngine(info, note=note, quiet=quiet))
    from tipsseg.runs.engine.ray_engine import RayEngine, check_ray

    check_ray(actors, gpus, device)
    return lambda info, note, quiet: RayEngine(info, actors, gpus)


def encode_folder(
    images: Paths,
    output: str | Path,
    *,
    model: str | Path = "l14",
    mode: Mode = "slide",
    short_side: int | None = None,
    scales: Sequence[float] = ONE_SCALE,
    feature_dtype: FeatureDtype | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int = 8,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    limit: int | None = None,
    sample: int | None = None,
    shard: str | None = None,
    use_cache: bool = False,
    verbose: bool = False,
) -> Generator[EncodeResult, None, None]:
    """Keep the features of images in a feature store, as `tipsseg encode` does; the work is done while the results are taken.

    Args:
        images: As of `label_folder`.
        output: The folder of the store: argument `features` of `label_folder`. Images whose features are there are not encoded
            again.
        model: As of `label_folder`, like all that follow but the next four.
        mode: "slide": overlapping windows of the model's native size; "whole": the image in one piece.
        short_side: The image's shorter side is resized to so many pixels; None: to the model's native size.
        scales: Factors of the short side: the features at each of them are kept, where the store lacks them.
        feature_dtype: What features are kept in. "float32" gives the labels that there are without a store, "float16" takes half
            the disk and "int8" a quarter. None: as in the store, "float16" in a new one.
        device: Where the model runs.
        dtype: The dtype that the model computes in; "auto": as in the store.
        batch_size: Windows that a GPU takes at once.
        jobs: Threads.
        max_pixels: Images of more pixels are refused.
        limit: Only the first images.
        sample: Only so many images.
        shard: "I/N" for part I of N of the images.
        use_cache: Whether the user's cache keeps what saves time the next time.
        verbose: Whether notes, progress and faults go to stderr.

    Yields:
        An Encoded or a Failed per image, in the order of the images: `ref.path` is the image, `file` the file of its features.

    Raises:
        TipssegError: For what ends the run; what can be known before is raised by the call itself.
    """
    paths = as_paths(images)
    check_choice(bool(paths), limit, sample, retry_failed=False)
    spec = EncodeSpec(
        Path(output),
        str(model),
        LabelOptions(mode, short_side, scales=check_scales(scales)),
        feature_dtype,
        device,
        dtype,
        batch_size,
        thread_count(jobs),
        max_pixels,
        None if shard is None else parse_shard(shard),
        use_cache,
    )
    spec.check()
    progress = progress_for(verbose)
    plan = plan_encoding(spec)
    found = find_images(spec, Choice(paths, None, limit, sample), progress)
    return _encoded(EncodeRun(spec, plan, found, progress, quiet=True), progress)


def _encoded(run: EncodeRun, progress: Progress) -> Generator[EncodeResult, None, None]:
    with progress:
        yield from run.results()


def evaluate(
    images: Paths,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    layout: str | None = None,
    ignore_index: int | None = None,
    reduce_zero_label: bool = False,
    zero_based: bool = False,
    output: str | Path | None = None,
    formats: Sequence[str] = (),
    model: str | Path = "l14",
    options: LabelOptions = DEFAULT_LABEL_OPTIONS,
    files: FileOptions = DEFAULT_FILE_OPTIONS,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int = 8,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    use_cache: bool = False,
    features: str | Path | None = None,
    verbose: bool = False,
) -> Evaluation:
    """Label images and score the labels against truth masks, as `tipsseg eval` does.

    Args:
        images: Files and folders.
        truths: The folder of the truth masks, which mirrors the folders of the images.
        classes: As of `label_folder`. None: the classes of `layout`.
        layout: The name of a benchmark, which says how truth masks are named and numbered. None: named like the images, 0 the
            background, 1..N the classes in their order.
        ignore_index: The id of pixels that do not count. None: 255, or 65535 above 254 classes.
        reduce_zero_label: Whether 0 does not count, and 1..N are the classes.
        zero_based: Whether 0..N-1 are the classes, without background.
        output: With `formats`: the folder that the labels are written into.
        formats: The formats to write. Without formats no label is written.
        model: As of `label_folder`, like all that follow.
        options: How an image is labelled.
        files: How labels become files.
        device: Where the model runs.
        dtype: The dtype that the model computes in, see `load`.
        batch_size: Windows that a GPU takes at once.
        jobs: Threads.
        max_pixels: Images of more pixels are refused.
        use_cache: Whether the user's cache keeps what saves time the next time.
        features: The folder of a feature store: features are taken from it, and missing ones are added, in float16 to
            a new one. None: no store.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        The scores: `scores.mean_iou` (0..1), `scores.iou` per class, `confusion`, how many images were `scored` and `failed`, and
        `record()`, all of it as JSON values.

    Raises:
        TipssegError: For what ends the run.
    """
    truth = TruthOptions(layout, ignore_index, reduce_zero_label, zero_based)
    if formats and output is None:
        raise UsageError(
            "formats are written into a folder, and there is none", "Give the folder as argument `output`."
        )
    vocabulary, fitted = as_vocabulary(read_vocabulary(truth.preset()) if classes is None else classes)
    spec = RunSpec(
        str(model),
        vocabulary,
        options,
        files,
        as_formats(formats) if formats else (),
        Path(output or ""),
        device,
        dtype,
        batch_size,
        thread_count(jobs),
        max_pixels,
        resume=False,
        use_cache=use_cache,
        features=None if features is None else Path(features),
        fitted=fitted,
    )
    wanted = truth.layout([each.name for each in vocabulary.classes])
    spec.check()
    folder = spec.output if spec.formats else None
    with progress_for(verbose) as progress:
        found = found_images(as_paths(images), None, folder, Path(truths))
        return evaluate_model(spec, found, Path(truths), wanted, progress, quiet=True)


def score_masks(
    predicted: str | Path,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    layout: str | None = None,
    ignore_index: int | None = None,
    reduce_zero_label: bool = False,
    zero_based: bool = False,
    jobs: int | None = None,
    verbose: bool = False,
) -> Evaluation:
    """Score masks that are there already against truth masks, as `tipsseg eval --pred` does.

    Args:
        predicted: The output folder of a run that wrote index masks, or a folder of such masks.
        truths: As of `evaluate`, like all that follow.
        classes: The classes of the masks. None: the classes of `layout`, or of the run.
        layout: The name of a benchmark.
        ignore_index: The id of pixels that do not count.
        reduce_zero_label: Whether 0 does not count, and 1..N are the classes.
        zero_based: Whether 0..N-1 are the classes, without background.
        jobs: Threads that read masks.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        The scores, see `evaluate`.

    Raises:
        TipssegError: For what ends the run.
    """
    truth = TruthOptions(layout, ignore_index, reduce_zero_label, zero_based)
    given = None
    if classes is not None:
        given = [each.name for each in as_vocabulary(classes)[0].classes]
    elif layout is not None:
        given = [each.name for each in read_vocabulary(truth.preset()).classes]
    names = names_of(Path(predicted), given)
    with progress_for(verbose) as progress:
        return evaluate_masks(Path(predicted), Path(truths), truth.layout(names), names, thread_count(jobs), progress)


def correct_folder(
    output: str | Path,
    corrections: str | Path,
    *,
    source_format: str | None = None,
    add_classes: bool = False,
    everything: bool = False,
    replace_edited: bool = False,
    emptied: bool | None = None,
    exact: bool = False,
    dry_run: bool = False,
    max_pixels: int = MAX_PIXELS,
    verbose: bool = False,
) -> Corrections:
    """Take corrected labels back into the output folder of a run, as `tipsseg correct` does: all of them, or none.

    The masks of the images then count as changed by a person, and every later command keeps them.

    Args:
        output: The output folder.
        corrections: The file, the folder or the zip that a labelling tool exported.
        source_format: "png", "cvat", "hf", "coco", "labelme", "label-studio" or "yolo". None: it is recognised.
        add_classes: Whether a class that the run does not have becomes a further class.
        everything: Whether labels of a run are taken that nobody changed.
        replace_edited: Whether masks that a person changed in their place may be replaced.
        emptied: Whether the mask of an image without objects is emptied if the corrections do not tell whether a person saw the
            image. None: such images are refused.
        exact: Whether objects are taken too that differ from the old ones at their edges only, as where a tool rounds corners.
        dry_run: Whether all is checked, and nothing is written.
        max_pixels: Larger images are refused.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        What was taken in: `format`, `masks` (each with `image`, `path`, the number of `changed` pixels and whether the image was
        `emptied`), `unchanged` images, `unmatched` images, images that were `left_out`, new `classes`, and the objects that were
        `kept` although their edges differ.

    Raises:
        UsageError: For an unknown format.
        InputError: Where the corrections, or some of them, cannot be taken. Nothing was changed then.
        ImageError: Where a file of the corrections cannot be read. Nothing was changed then.
        OutputError: Where the folder cannot be written.
    """
    check_whole_number("argument `max_pixels`", max_pixels)
    with progress_for(verbose) as progress:
        return take_corrections(
            Path(output),
            Path(corrections),
            progress,
            source_format=source_format,
            add_classes=add_classes,
            everything=everything,
            replace_edited=replace_edited,
            emptied=emptied,
            exact=exact,
            dry_run=dry_run,
            max_pixels=max_pixels,
        )


def as_paths(images: Paths) -> tuple[Path, ...]:
    """Paths that a program gives, one or several. Raises UsageError."""
    if isinstance(images, str | Path):
        return (Path(images),)
    if not isinstance(images, Iterable):
        raise UsageError(f"images must be paths, not {quoted(images)}", 'For example: "photos/", or a list of files.')
    paths = tuple(images)
    for each in paths:
        if not isinstance(each, str | Path):
            raise UsageError(f"images must be paths, not {quoted(each)}", "Labeller.label takes images in memory.")
    return tuple(map(Path, paths))


def as_vocabulary(classes: Classes) -> tuple[Vocabulary, FittedVocabulary | None]:
    """The vocabulary that classes make, and its vectors where they were fitted. Raises VocabularyError."""
    if isinstance(classes, FittedVocabulary):
        return classes.vocabulary, classes
    return (classes if isinstance(classes, Vocabulary) else make_vocabulary(classes)), None


def progress_for(verbose: bool) -> Progress:
    """What says how a run goes on, or says nothing."""
    return Progress(quiet=False, results=False) if verbose else Silence()


def as_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Names of formats that a program gives. Raises UsageError."""
    if (
        isinstance(formats, str)
        or not isinstance(formats, Iterable)
        or not all(isinstance(each, str) for each in formats)
    ):
        raise UsageError(f"formats must be a list of names, not {quoted(formats)}", 'For example: ["png", "coco"].')
    if not formats:
        raise UsageError("no formats given", 'For example: ["png", "coco"].')
    return tuple(formats)
