"""Learn from masks in Python, as `tipsseg fit` and `tipsseg tune` do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tipsseg.api import Classes, Paths, as_paths, as_vocabulary, progress_for
from tipsseg.options import MAX_PIXELS, Dtype, LabelOptions, Mode, check_whole_number, thread_count
from tipsseg.runs.common.image_list import found_images
from tipsseg.runs.evaluate.truth_options import TruthOptions
from tipsseg.runs.fit.masked import edited_masks, truth_masks
from tipsseg.runs.fit.run import Fit, fit_masks, note_left_out, spec_of_run
from tipsseg.runs.tune.run import Tuning, check_wish, spec_of_tuning, tune_run
from tipsseg.store.spec import RunSpec
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import FittedVocabulary


def fit_folder(
    output: str | Path,
    *,
    images: str | Path | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int = 8,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    use_cache: bool = False,
    features: str | Path | None = None,
    verbose: bool = False,
) -> Fit:
    """Fit the classes of a run to the masks in its output folder that a person edited, as `tipsseg fit` does.

        fit = tipsseg.fit_folder("labels")
        print(fit.table())
        fit.fitted.save("farm.fit")

    Args:
        output: The output folder of `label_folder`.
        images: The folder that the images' names begin at now. None: they are where they were.
        device: Where the model runs.
        dtype: The dtype that the model computes in. "auto": that of the run.
        batch_size: Windows that a GPU takes at once.
        jobs: Threads.
        max_pixels: Images of more pixels are refused.
        use_cache: Whether the user's cache keeps what saves time the next time.
        features: The folder of a feature store: features are taken from it, and those that it lacks are added, in
            float16 to a new one. None: no store.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        The fit: `fitted` for `label_folder` and `Labeller` in place of classes, how many `images` it is fitted to and how many
        `failed`, `table()`, and `record()`, the scores as JSON values.

    Raises:
        InputError: Fewer than two masks were edited, or it is no folder of a run that has ended.
        TipssegError: For what else ends the run.
    """
    check_whole_number("argument `max_pixels`", max_pixels)
    edited = edited_masks(Path(output), None if images is None else Path(images), max_pixels)
    wish = RunSpec(
        edited.run.info.spec.model,
        edited.run.info.spec.vocabulary,
        formats=(),
        output=Path(),
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        jobs=thread_count(jobs),
        max_pixels=max_pixels,
        resume=False,
        use_cache=use_cache,
        features=None if features is None else Path(features),
    )
    spec = spec_of_run(edited, wish)
    spec.check()
    with progress_for(verbose) as progress:
        note_left_out(edited, "The fit is made", progress)
        return fit_masks(spec, edited, None, progress, quiet=True)


def fit_truths(
    images: Paths,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    layout: str | None = None,
    ignore_index: int | None = None,
    reduce_zero_label: bool = False,
    zero_based: bool = False,
    model: str | Path = "l14",
    mode: Mode = "slide",
    short_side: int | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int = 8,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    use_cache: bool = False,
    features: str | Path | None = None,
    verbose: bool = False,
) -> Fit:
    """Fit classes to truth masks of images, as `tipsseg fit` with masks does.

    Args:
        images: Files and folders; those without a mask are left out.
        truths: The folder of the masks, which mirrors the folders of the images.
        classes: As of `label_folder`; of a fit its words are taken. None: the classes of `layout`.
        layout: See `evaluate`, as for the next three.
        ignore_index: The id of pixels that do not count.
        reduce_zero_label: Whether 0 does not count, and 1..N are the classes.
        zero_based: Whether 0..N-1 are the classes, without background.
        model: As of `label_folder`.
        mode: "slide": overlapping windows of the model's native size; "whole": the image in one piece.
        short_side: The image's shorter side is resized to so many pixels; None: to the model's native size.
        device: See `fit_folder`, as for the rest.
        dtype: The dtype that the model computes in, see `load`.
        batch_size: Windows that a GPU takes at once.
        jobs: Threads.
        max_pixels: Images of more pixels are refused.
        use_cache: Whether the user's cache keeps what saves time the next time.
        features: The folder of a feature store.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        As `fit_folder`.

    Raises:
        TipssegError: For what ends the run.
    """
    check_whole_number("argument `max_pixels`", max_pixels)
    truth = TruthOptions(layout, ignore_index, reduce_zero_label, zero_based)
    vocabulary, _ = as_vocabulary(read_vocabulary(truth.preset()) if classes is None else classes)
    spec = RunSpec(
        str(model),
        replace(vocabulary, fit=""),
        LabelOptions(mode, short_side),
        formats=(),
        output=Path(),
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        jobs=thread_count(jobs),
        max_pixels=max_pixels,
        resume=False,
        use_cache=use_cache,
        features=None if features is None else Path(features),
    )
    wanted = truth.layout([each.name for each in vocabulary.classes])
    spec.check()
    with progress_for(verbose) as progress:
        found = found_images(as_paths(images), None, None, Path(truths))
        return fit_masks(spec, truth_masks(found.refs, Path(truths), wanted, max_pixels), None, progress, quiet=True)


def tune_folder(
    output: str | Path,
    precision: float | None = 0.95,
    *,
    temperature: bool = False,
    fitted: FittedVocabulary | None = None,
    images: str | Path | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int = 8,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    use_cache: bool = False,
    features: str | Path | None = None,
    verbose: bool = False,
) -> Tuning:
    """Choose the minimum confidence of each class by the masks of a run that a person edited, as `tipsseg tune` does.

        tuning = tipsseg.tune_folder("labels", precision=0.95)
        print(tuning.table())
        tuning.save("farm.toml")

    Args:
        output: The output folder of `label_folder`.
        precision: The share of the pixels of each class that are to be right, 0..1. None: no minimum confidences are chosen.
        temperature: Whether the temperature of the softmax is fitted first, so that confidences are as often right as they say.
        fitted: The fitted vocabulary that the run was made with, if it was.
        images: See `fit_folder`, as for the rest.
        device: Where the model runs.
        dtype: The dtype that the model computes in. "auto": that of the run.
        batch_size: Windows that a GPU takes at once.
        jobs: Threads.
        max_pixels: Images of more pixels are refused.
        use_cache: Whether the user's cache keeps what saves time the next time.
        features: The folder of a feature store.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        What came of it: the `vocabulary` with its minimum confidences, `fitted`, the same with the temperature where that was
        fitted, the `thresholds` of the classes, the `calibration`, `table()`, `record()` and `save()`.

    Raises:
        UsageError: Nothing is asked for; or the run was made with a fitted vocabulary that is not given.
        InputError: Fewer than three masks were edited, or two for a temperature alone, or it is no folder of a run that has ended.
        TipssegError: For what else ends the run.
    """
    check_whole_number("argument `max_pixels`", max_pixels)
    check_wish(precision, temperature=temperature)
    edited = edited_masks(Path(output), None if images is None else Path(images), max_pixels)
    asked = edited.run.info.spec
    wish = RunSpec(
        asked.model,
        asked.vocabulary,
        formats=(),
        output=Path(),
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        jobs=thread_count(jobs),
        max_pixels=max_pixels,
        resume=False,
        use_cache=use_cache,
        features=None if features is None else Path(features),
    )
    spec = spec_of_tuning(edited, wish, fitted)
    spec.check()
    with progress_for(verbose) as progress:
        return tune_run(spec, edited, precision, progress, temperature=temperature, quiet=True)
