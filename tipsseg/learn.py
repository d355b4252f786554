"""Learn from masks in Python, as `tipsseg fit` and `tipsseg tune` do."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from tipsseg.api import Classes, Paths, as_paths, as_vocabulary, progress_for
from tipsseg.options import LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import ComputeKeywords, FitTruthsKeywords, with_keywords
from tipsseg.options.run import ComputeOptions, TruthOptions
from tipsseg.runs.common.image_list import found_images
from tipsseg.runs.evaluate.truth_options import layout_of, preset_of
from tipsseg.runs.fit.learning import note_other_scales, spec_of_run, spec_of_truths
from tipsseg.runs.fit.masked import edited_masks, truth_masks
from tipsseg.runs.fit.run import Fit, fit_masks
from tipsseg.runs.tune.run import Tuning, check_wish, spec_of_tuning, tune_run
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import FittedVocabulary


@with_keywords(ComputeKeywords, ComputeOptions)
def fit_folder(
    output: str | Path,
    *,
    images: str | Path | None = None,
    verbose: bool = False,
    **keywords: Unpack[ComputeKeywords],
) -> Fit:
    """Fit the classes of a run to the masks in its output folder that a person edited, as `tipsseg fit` does.

        fit = tipsseg.fit_folder("labels")
        print(fit.table())
        fit.fitted.save("farm.fit")

    Args:
        output: The output folder of `label_folder`.
        images: The folder that the images' names begin at now. None: they are where they were.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        The fit: `fitted` for `label_folder` and `Labeller` in place of classes, how many `images` it is fitted to and how many
        `failed`, `table()`, and `record()`, the scores as JSON values.

    Raises:
        InputError: Fewer than two masks were edited, or it is no folder of a run that has ended.
        TipssegError: For what else ends the run.
    """
    compute = take_options(ComputeOptions, keywords)
    edited = edited_masks(Path(output), None if images is None else Path(images), compute.max_pixels)
    spec = spec_of_run(edited, compute)
    spec.check()
    with progress_for(verbose) as progress:
        note_other_scales(edited, "The fit is made", progress)
        return fit_masks(spec, edited, None, progress, quiet=True)


@with_keywords(FitTruthsKeywords, TruthOptions, LabelOptions, ComputeOptions)
def fit_truths(
    images: Paths,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    verbose: bool = False,
    **keywords: Unpack[FitTruthsKeywords],
) -> Fit:
    """Fit classes to truth masks of images, as `tipsseg fit` with masks does.

    Args:
        images: Files and folders; those without a mask are left out.
        truths: The folder of the masks, which mirrors the folders of the images.
        classes: As of `label_folder`; of a fit its words are taken. None: the classes of `layout`.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        As `fit_folder`.

    Raises:
        TipssegError: For what ends the run.
    """
    truth = take_options(TruthOptions, keywords)
    vocabulary, _ = as_vocabulary(read_vocabulary(preset_of(truth)) if classes is None else classes)
    spec = spec_of_truths(vocabulary, take_options(LabelOptions, keywords), take_options(ComputeOptions, keywords))
    layout = layout_of(truth, [entry.name for entry in vocabulary.classes])
    spec.check()
    with progress_for(verbose) as progress:
        found = found_images(as_paths(images), None, None, Path(truths))
        masks = truth_masks(found.refs, Path(truths), layout, spec.max_pixels)
        return fit_masks(spec, masks, None, progress, quiet=True)


@with_keywords(ComputeKeywords, ComputeOptions)
def tune_folder(
    output: str | Path,
    precision: float | None = 0.95,
    *,
    temperature: bool = False,
    fitted: FittedVocabulary | None = None,
    images: str | Path | None = None,
    verbose: bool = False,
    **keywords: Unpack[ComputeKeywords],
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
        images: The folder that the images' names begin at now. None: they are where they were.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        What came of it: the `vocabulary` with its minimum confidences, `fitted`, the same with the temperature where that was
        fitted, the `thresholds` of the classes, the `calibration`, `table()`, `record()` and `save()`.

    Raises:
        UsageError: Nothing is asked for; or the run was made with a fitted vocabulary that is not given.
        InputError: Fewer than three masks were edited, or two for a temperature alone, or it is no folder of a run that has ended.
        TipssegError: For what else ends the run.
    """
    compute = take_options(ComputeOptions, keywords)
    check_wish(precision, temperature=temperature)
    edited = edited_masks(Path(output), None if images is None else Path(images), compute.max_pixels)
    spec = spec_of_tuning(edited, compute, fitted)
    spec.check()
    with progress_for(verbose) as progress:
        return tune_run(spec, edited, precision, progress, temperature=temperature, quiet=True)
