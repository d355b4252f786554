"""Steps of `tipsseg fit`: check the output, encode a run's images again, collect data from masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tipsseg.errors import ImageError, InputError, OutputError, UsageError
from tipsseg.options import ONE_SCALE, LabelOptions
from tipsseg.options.run import ComputeOptions
from tipsseg.run.spec import RunSpec, check_folder, model_identity
from tipsseg.runs.common.notes import note_damaged
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine.local import LoadedModel
from tipsseg.runs.fit.masked import EditedMasks, Learnt, Masks, Minimum, require_masks
from tipsseg.types import Failed, ImageRef
from tipsseg.util.files import is_folder
from tipsseg.util.text import pluralize
from tipsseg.vocabulary.fitted import FIT_SUFFIX
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    from tipsseg.fitting.maths import Window
    from tipsseg.labelling.classifier import Classifier
    from tipsseg.labelling.source import FeatureSource, Loaded


_Scored = TypeVar("_Scored")
_Value = TypeVar("_Value")


def check_suffix(target: Path, *, fitted: bool) -> None:
    """Raise UsageError if the suffix of a vocabulary file does not match its content."""
    suffix = FIT_SUFFIX if fitted else ".toml"
    if target.suffix.lower() != suffix:
        content = "fitted vectors" if fitted else "only words and thresholds"
        raise UsageError(
            f"argument `output`={target}: a vocabulary with {content} must be a {suffix} file",
            f"Use {target.with_suffix(suffix)}"
            + ("." if fitted else ", or name the .fit file of the run with argument `fitted`."),
        )


def check_target(target: Path, *, fitted: bool, overwrite: bool) -> None:
    """Check the file to write. Raises UsageError for a wrong suffix, OutputError if it exists or cannot be written."""
    check_suffix(target, fitted=fitted)
    if is_folder(target):
        raise OutputError(target, "a folder has this name", "Choose another file with argument `output`.")
    if os.path.lexists(target) and not overwrite:
        raise OutputError(
            target,
            "the file already exists",
            "Choose another file with argument `output`, or replace it with argument `overwrite`.",
        )
    check_folder(target.absolute().parent)


def spec_of_run(masks: EditedMasks, compute: ComputeOptions) -> RunSpec:
    """Return settings that encode a run's images as the run did. `compute` sets everything except the model.

    Raises InputError if the files of the run's model have changed.
    """
    info = masks.info
    recorded = info.spec
    compute = replace(compute, model=recorded.model, dtype=info.dtype if compute.dtype == "auto" else compute.dtype)
    if model_identity(find_model(recorded.model).facts(keep_stamps=compute.use_cache)) != model_identity(info.model):
        raise InputError(
            f"{masks.folder}: the files of the model {recorded.model} have changed since the run",
            "Restore the model, or label the images again.",
        )
    return spec_of_truths(recorded.vocabulary, recorded.options, compute)


def spec_of_truths(vocabulary: Vocabulary, options: LabelOptions, compute: ComputeOptions) -> RunSpec:
    """Return settings that encode images for a fit, at one scale and starting from the text vectors."""
    return RunSpec(
        **vars(compute),
        vocabulary=replace(vocabulary, fit=""),
        options=LabelOptions(mode=options.mode, short_side=options.short_side, stretch=options.stretch),
        formats=(),
        output=Path(),
        resume=False,
    )


def note_other_scales(masks: EditedMasks, progress: Progress) -> None:
    """Note that a fit uses scale 1 only, if the run has other scales."""
    options = masks.info.spec.options
    if options.scales != ONE_SCALE:
        scales = "scales" if len(options.scales) > 1 else "scale"
        progress.note(
            f"The fit is made at scale 1 only; the run has {scales} {', '.join(f'{scale:g}' for scale in options.scales)}."
        )


def learn(
    loaded: LoadedModel, masks: Masks, classifier: Classifier, minimum: Minimum, progress: Progress
) -> tuple[list[list[Window]], list[ImageError]]:
    """Return the windows of each image with their masks, and the errors of failed images.

    Images whose mask ignores all pixels are left out. Raises InputError if fewer images than `minimum` remain.
    """
    from tipsseg.fitting.fit import groups_by_id
    from tipsseg.runs.fit.task import cut_mask, source_at_scale_one

    finish = partial(cut_mask, masks, groups_by_id(classifier.vocabulary))
    values, failed = run_on_masks(source_at_scale_one(loaded), itemgetter(0), finish, loaded, masks, progress)
    images = [windows for windows in values if windows]
    require_masks(masks, len(images), failed, minimum)
    return images, failed


def run_on_masks(
    source: FeatureSource[Any],
    score: Callable[[Sequence[Any]], _Scored],
    finish: Callable[[Loaded[Any], _Scored], Learnt[_Value]],
    model: LoadedModel,
    masks: Masks,
    progress: Progress,
) -> tuple[list[_Value], list[ImageError]]:
    """Run all images with a mask through the stages. Return their values in order, and the errors of failed images."""
    info = model.info
    progress.begin(
        f"{pluralize(len(masks.refs), 'image')} with masks, model {info.model['id']} on {info.place}.",
        len(masks.refs),
    )
    values: list[_Value] = []
    failed: list[ImageError] = []
    for result in run_noting_damage(source, score, finish, masks.refs, info.spec.jobs, progress):
        if isinstance(result, Failed):
            failed.append(result.error)
            progress.error(result.error)
        else:
            values.append(result.value)
    return values, failed


def run_noting_damage(
    source: FeatureSource[Any],
    score: Callable[[Sequence[Any]], _Scored],
    finish: Callable[[Loaded[Any], _Scored], Learnt[_Value]],
    refs: Sequence[ImageRef],
    jobs: int,
    progress: Progress,
) -> Iterator[Learnt[_Value] | Failed]:
    """Run images through the stages, see `run_stages`. Yield the results in order, and note damaged feature files."""
    from tipsseg.runs.engine.pipeline import run_stages

    with closing(run_stages(refs, source, score, finish, jobs)) as results:
        for result in results:
            if not isinstance(result, Failed) and result.damaged:
                note_damaged(result.damaged, progress)
            yield result
            progress.advance()
    progress.end()
