"""Review labels: rank images for a person, import corrections, audit labels, and score them against truth masks."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from tipsseg.api import Paths, as_paths, progress_for
from tipsseg.evaluation.truth import layout_of, preset_of
from tipsseg.formats.given import classes_of_labels
from tipsseg.options import LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import AuditKeywords, CorrectKeywords, EvaluateKeywords, ScoreMasksKeywords, with_keywords
from tipsseg.options.run import ComputeOptions, CorrectOptions, RegionOptions, TruthOptions
from tipsseg.run.spec import RunSpec
from tipsseg.runs.audit import Audit, audit_images
from tipsseg.runs.common.inputs import Ignored, found_images
from tipsseg.runs.correct.run import Corrections, take_corrections
from tipsseg.runs.evaluate import Evaluation, evaluate_images, evaluate_masks
from tipsseg.runs.rank.rank import Ranked, rank
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import Classes, as_vocabulary

__all__ = [
    "Audit",
    "Corrections",
    "Evaluation",
    "Ranked",
    "audit",
    "correct_folder",
    "evaluate",
    "rank",
    "score_masks",
]


@with_keywords(EvaluateKeywords, TruthOptions, LabelOptions, RegionOptions, ComputeOptions)
def evaluate(
    images: Paths,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    verbose: bool = False,
    **keywords: Unpack[EvaluateKeywords],
) -> Evaluation:
    """Label images and score the labels against truth masks, as `tipsseg eval` does. Write nothing.

    To keep the labels, use `label_folder`, then `score_masks`.

        result = tipsseg.review.evaluate("photos/", "masks/", ["car", "road"])
        print(result.scores.mean_iou)

    Args:
        images: Files and folders.
        truths: The folder with the truth masks, laid out like the image folders.
        classes: See `label_folder`. None: the classes of `layout`.
        verbose: Print notes, progress and errors on stderr.

    Returns:
        The scores: `scores.mean_iou` (0..1), `scores.iou` per class, `confusion`, the pixel counts of `images`, the numbers of
        images `scored` and `failed`, and `record()`, all of them as JSON values.

    Raises:
        TipssegError: The run cannot start or continue.
    """
    truth = take_options(TruthOptions, keywords)
    vocabulary, fitted = as_vocabulary(read_vocabulary(preset_of(truth)) if classes is None else classes)
    layout = layout_of(truth, [entry.name for entry in vocabulary.classes])
    spec = RunSpec.of(
        take_options(ComputeOptions, keywords),
        take_options(RegionOptions, keywords),
        formats=(),
        vocabulary=vocabulary,
        fitted=fitted,
        options=take_options(LabelOptions, keywords),
    )
    with progress_for(verbose) as progress:
        found = found_images(as_paths(images), None, Ignored(None, Path(truths)))
        return evaluate_images(spec, found, Path(truths), layout, progress, quiet=True)


@with_keywords(AuditKeywords, LabelOptions, ComputeOptions)
def audit(
    images: Paths,
    labels: str | Path,
    classes: Classes | None = None,
    *,
    verbose: bool = False,
    **keywords: Unpack[AuditKeywords],
) -> Audit:
    """Find existing labels that the model doubts, and things without a label, as `tipsseg audit` does.

        for record in tipsseg.review.audit("photos/", "annotations.json").records():
            print(record["score"], record["image"], record["label"], record["seen"])

    Args:
        images: Files and folders.
        labels: A folder, zip or file in any format that `correct_folder` reads.
        classes: Classes by name, to add synonyms, or to name the ids of index masks. None: the classes of the labels.
        verbose: Print notes, progress and errors on stderr.

    Returns:
        The findings, the most doubtful first; `records()` yields them as JSON values.

    Raises:
        TipssegError: The labels cannot be read, or the run cannot continue.
    """
    vocabulary = classes_of_labels(Path(labels), None if classes is None else as_vocabulary(classes)[0])
    spec = RunSpec.of(
        take_options(ComputeOptions, keywords),
        formats=(),
        vocabulary=vocabulary,
        options=take_options(LabelOptions, keywords),
    )
    with progress_for(verbose) as progress:
        return audit_images(
            spec, found_images(as_paths(images), None, Ignored(None)), Path(labels), progress, quiet=True
        )


@with_keywords(ScoreMasksKeywords, TruthOptions, ComputeOptions)
def score_masks(
    predicted: str | Path,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    verbose: bool = False,
    **keywords: Unpack[ScoreMasksKeywords],
) -> Evaluation:
    """Score existing masks against truth masks, as `tipsseg eval --pred` does.

    Args:
        predicted: The output folder of a run that wrote index masks, or a folder of index masks.
        truths: See `evaluate`.
        classes: The classes of the masks. None: the classes of `layout`, or of the run.
        verbose: Print notes, progress and errors on stderr.

    Returns:
        The scores, see `evaluate`.

    Raises:
        TipssegError: The masks cannot be read or scored.
    """
    truth, compute = take_options(TruthOptions, keywords), take_options(ComputeOptions, keywords)
    names = None if classes is None else [entry.name for entry in as_vocabulary(classes)[0].classes]
    with progress_for(verbose) as progress:
        return evaluate_masks(Path(predicted), Path(truths), truth, names, progress, jobs=compute.jobs)


@with_keywords(CorrectKeywords, CorrectOptions, ComputeOptions)
def correct_folder(
    output: str | Path, corrections: str | Path, *, verbose: bool = False, **keywords: Unpack[CorrectKeywords]
) -> Corrections:
    """Import corrected labels into the output folder of a run, as `tipsseg correct` does: all of them, or none.

    The masks then count as edited by a person, and later commands keep them.

    Args:
        output: The output folder.
        corrections: The file, folder or zip that a labelling tool exported.
        verbose: Print notes, progress and errors on stderr.

    Returns:
        The corrections: `format`, `masks` (with `image`, `path`, the number of `changed` pixels, and `emptied`), `unchanged` and
        `unmatched` images, `uncorrected` images of a source run, new `classes`, `redrawn` objects, which are left unchanged
        although their edges differ, and the number of files that `failed` to follow.

    Raises:
        UsageError: The format is unknown.
        InputError: A correction cannot be imported. Nothing was changed.
        ImageError: A file of the corrections cannot be read. Nothing was changed.
        OutputError: The folder cannot be written.
    """
    options, max_pixels = take_options(CorrectOptions, keywords), take_options(ComputeOptions, keywords).max_pixels
    with progress_for(verbose) as progress:
        return take_corrections(Path(output), Path(corrections), progress, options, max_pixels=max_pixels)
