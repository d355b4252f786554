"""Learn from masks, as `tipsseg fit` does: fit class vectors, or choose minimum confidences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tipsseg.address import as_address
from tipsseg.api import Paths, as_paths, progress_for
from tipsseg.evaluation.truth import layout_of, preset_of
from tipsseg.options import LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import ComputeKeywords, FitTruthsKeywords, with_keywords
from tipsseg.options.run import ComputeOptions, TruthOptions
from tipsseg.runs.common.inputs import Ignored, found_images
from tipsseg.runs.fit.learning import note_other_scales, spec_of_run, spec_of_truths
from tipsseg.runs.fit.masked import edited_masks, truth_masks
from tipsseg.runs.fit.run import Fit, fit_masks
from tipsseg.runs.fit.thresholds import Thresholds, fit_run_thresholds
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import Classes, FittedVocabulary, as_vocabulary

if TYPE_CHECKING:
    from tipsseg.fitting.fit import fit

__all__ = [
    "Fit",
    "FittedVocabulary",
    "Thresholds",
    "fit",
    "fit_folder",
    "fit_thresholds",
    "fit_truths",
]


def __getattr__(name: str) -> object:
    if name == "fit":  # imports torch
        from tipsseg.fitting.fit import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@with_keywords(ComputeKeywords, ComputeOptions)
def fit_folder(
    output: str | Path,
    *,
    images: str | Path | None = None,
    verbose: bool = False,
    **keywords: Unpack[ComputeKeywords],
) -> Fit:
    """Fit the classes of a run to the masks in its output folder that a person edited, as `tipsseg fit` does.

        fit = tipsseg.learn.fit_folder("labels")
        print(fit.table())
        fit.fitted.save("farm.fit")

    Args:
        output: The output folder of `label_folder`.
        images: The image folder, if it has moved.
        verbose: Print notes, progress and errors on stderr.

    Returns:
        The fit: `fitted`, to pass as classes; the numbers of `images` it was fitted to and of `failed` ones; `table()`; and
        `record()`, the scores as JSON values.

    Raises:
        InputError: Fewer than two masks were edited, or `output` is not the folder of a finished run.
        TipssegError: The run cannot start or continue.
    """
    compute = take_options(ComputeOptions, keywords)
    edited = edited_masks(Path(output), None if images is None else as_address(images), compute.max_pixels)
    spec = spec_of_run(edited, compute)
    spec.check()
    with progress_for(verbose) as progress:
        note_other_scales(edited, progress)
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
    """Fit classes to truth masks of images, as `tipsseg fit --gt` does.

    Args:
        images: Files and folders. Images without a mask are skipped.
        truths: The folder with the masks, laid out like the image folders.
        classes: See `label_folder`. Of a fit, only the phrases are used. None: the classes of `layout`.
        verbose: Print notes, progress and errors on stderr.

    Returns:
        The fit, see `fit_folder`.

    Raises:
        TipssegError: The run cannot start or continue.
    """
    truth = take_options(TruthOptions, keywords)
    vocabulary, _ = as_vocabulary(read_vocabulary(preset_of(truth)) if classes is None else classes)
    spec = spec_of_truths(vocabulary, take_options(LabelOptions, keywords), take_options(ComputeOptions, keywords))
    layout = layout_of(truth, [entry.name for entry in vocabulary.classes])
    spec.check()
    with progress_for(verbose) as progress:
        found = found_images(as_paths(images), None, Ignored(None, Path(truths)))
        masks = truth_masks(found.refs, Path(truths), layout, spec.max_pixels)
        return fit_masks(spec, masks, None, progress, quiet=True)


@with_keywords(ComputeKeywords, ComputeOptions)
def fit_thresholds(
    output: str | Path,
    precision: float = 0.95,
    *,
    fitted: FittedVocabulary | None = None,
    images: str | Path | None = None,
    verbose: bool = False,
    **keywords: Unpack[ComputeKeywords],
) -> Thresholds:
    """Choose the minimum confidence of each class from the masks of a run that a person edited, as `tipsseg fit --precision` does.

        thresholds = tipsseg.learn.fit_thresholds("labels", precision=0.95)
        print(thresholds.table())
        thresholds.save("farm.toml")

    Args:
        output: The output folder of `label_folder`.
        precision: The precision to reach for each class, 0..1: the share of its pixels that are right.
        fitted: The fit that the run was labelled with, if any.
        images: The image folder, if it has moved.
        verbose: Print notes, progress and errors on stderr.

    Returns:
        The `vocabulary` with its minimum confidences; `fitted`, the same with fitted vectors; `thresholds`, `table()`, `record()`
        and `save()`.

    Raises:
        UsageError: `precision` is out of range, or `fitted` is missing.
        InputError: Fewer than three masks were edited, or `output` is not the folder of a finished run.
        TipssegError: The run cannot start or continue.
    """
    compute, moved = take_options(ComputeOptions, keywords), None if images is None else as_address(images)
    with progress_for(verbose) as progress:
        return fit_run_thresholds(Path(output), precision, fitted, moved, compute, progress, quiet=True)
