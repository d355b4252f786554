"""`tipsseg fit`: encode the images of a run again, fit class vectors to their masks, and write them to a file."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tipsseg.address import as_address
from tipsseg.commands.fit.masks import (
    EditedMasks,
    Masks,
    draw_masks,
    edited_masks,
    learn_from,
    require_masks,
    truth_masks,
)
from tipsseg.engine.local import load_for
from tipsseg.engine.notes import note_vocabulary
from tipsseg.errors import ImageError, InputError, OutputError, UsageError
from tipsseg.images.finding import Listed, Paths
from tipsseg.labelling.classifier import make_classifier
from tipsseg.labelling.features import Features, find_features
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.learning.metrics import BACKGROUND_NAME, percent, rounded
from tipsseg.learning.truth import layout_of, preset_of
from tipsseg.options import ONE_SCALE, LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import ComputeKeywords, FitTruthsKeywords, with_keywords
from tipsseg.options.run import ComputeOptions, TruthOptions
from tipsseg.run.inputs import Ignored, find_alone
from tipsseg.run.plan import plan_run
from tipsseg.run.spec import RunSpec, model_identity, refuse_file
from tipsseg.util.files import cache_folder, is_folder
from tipsseg.util.progress import Progress, Verbosity, progress_for
from tipsseg.util.text import format_duration, join_first, pluralize, text_table
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import FIT_SUFFIX, Classes, FittedVocabulary, as_vocabulary
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    from torch import Tensor

    from tipsseg.learning.maths import Window

#: A fit is validated on held-out images, so it needs at least two.
_MINIMUM = 2


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The result of a fit.

    Attributes:
        fitted: The fitted vocabulary.
        images: The number of images used.
        failed: The number of images that failed and were left out.
    """

    fitted: FittedVocabulary
    images: int
    failed: int

    def save(self, path: Path) -> None:
        """Write the fitted vocabulary to a .fit file. Raise OutputError, or InputError (see `require_learned`)."""
        require_learned(self.fitted, path)
        self.fitted.save(path)

    def record(self) -> dict[str, object]:
        """Return the scores as JSON values."""
        fitted = self.fitted
        first = len(fitted.vocabulary.classes) + 1 - len(fitted.scores)  # 0 if the background has a score
        return {
            "images": self.images,
            "failed": self.failed,
            "model": fitted.model_id,
            "digest": fitted.vocabulary.fit,
            "classes": [
                {
                    "id": label_id,
                    "name": score.name or BACKGROUND_NAME,
                    "images": score.images,
                    "text_iou": rounded(score.text_iou),
                    "iou": rounded(score.iou),
                    "source": score.source,
                }
                for label_id, score in enumerate(fitted.scores, start=first)
            ],
        }

    def table(self) -> str:
        """Return a text table of the scores, with IoU in per cent and "-" for unknown values."""
        rows, known = list[list[str]](), list[tuple[float, float]]()
        for score in self.fitted.scores:
            shares = percent(score.text_iou), percent(score.iou)
            rows.append([score.name or BACKGROUND_NAME, *shares, str(score.images), score.source])
            if score.text_iou is not None and score.iou is not None:
                known.append((score.text_iou, score.iou))
        if known:
            text, fitted = (math.fsum(values) / len(known) for values in zip(*known, strict=True))
            rows += [[], ["mean IoU", percent(text), percent(fitted), "", "each image scored by a fit without it"]]
        return text_table(["in %", "text", "fitted", "images", "made from"], rows, left=(0, 4))


@with_keywords(ComputeKeywords, ComputeOptions)
def fit_folder(
    output: str | Path,
    *,
    images: str | Path | None = None,
    verbose: Verbosity = None,
    **keywords: Unpack[ComputeKeywords],
) -> Fit:
    """Fit the classes of a run to the masks in its output folder that a person edited, as `tipsseg fit` does.

        fit = tipsseg.learn.fit_folder("labels")
        print(fit.table())
        fit.fitted.save("farm.fit")

    Args:
        output: The output folder of `label_folder`.
        images: The image folder, if it has moved.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The fit: `fitted`, to pass as classes; the numbers of `images` it was fitted to and of `failed` ones; `table()`; and
        `record()`, the scores as JSON values.

    Raises:
        InputError: Fewer than two masks were edited, or `output` is not the folder of a finished run.
        TipssegError: The run cannot start or continue.
    """
    compute, moved = take_options(ComputeOptions, keywords), None if images is None else as_address(images)
    with progress_for(verbose) as progress, edited_masks(Path(output), moved) as edited:
        spec = spec_of_run(edited, compute)
        spec.check()
        note_other_scales(edited, progress)
        return _fit(spec, edited, progress)


@with_keywords(FitTruthsKeywords, TruthOptions, LabelOptions, ComputeOptions)
def fit_truths(
    images: Paths | Listed,
    truths: str | Path,
    classes: Classes | None = None,
    *,
    verbose: Verbosity = None,
    **keywords: Unpack[FitTruthsKeywords],
) -> Fit:
    """Fit classes to ground-truth masks of images, as `tipsseg fit --gt` does.

    Args:
        images: Files and folders. Images without a mask are skipped.
        truths: The folder with the masks, laid out like the image folders.
        classes: See `label_folder`. Of a fit, only the phrases are used. None: the classes of `layout`.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The fit (see `fit_folder`).

    Raises:
        TipssegError: The run cannot start or continue.
    """
    truths, truth = Path(truths), take_options(TruthOptions, keywords)
    vocabulary, _ = as_vocabulary(read_vocabulary(preset_of(truth)) if classes is None else classes)
    spec = spec_of_truths(vocabulary, take_options(LabelOptions, keywords), take_options(ComputeOptions, keywords))
    layout = layout_of(truth, [entry.name for entry in vocabulary.classes], truths)
    spec.check()
    with progress_for(verbose) as progress:
        note_vocabulary(vocabulary, progress)
        found = find_alone(images, Ignored(None, truths), progress)
        masks = truth_masks(found.refs, truths, layout, spec.reader)
        if masks.without:
            progress.note(f"{masks.without} of {len(found.refs)} images have no mask in {truths}.")
        return _fit(spec, masks, progress)


def spec_of_run(masks: EditedMasks, compute: ComputeOptions) -> RunSpec:
    """Return settings that encode a run's images as the run did. `compute` sets everything except the model.

    Raise InputError if the files of the run's model have changed.
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
    )


def note_other_scales(masks: EditedMasks, progress: Progress) -> None:
    """Note that a fit uses scale 1 only, if the run has other scales."""
    options = masks.info.spec.options
    if options.scales != ONE_SCALE:
        scales = "scales" if len(options.scales) > 1 else "scale"
        progress.note(
            f"The fit learns from scale 1 only, and applies to all scales; the run has {scales} "
            f"{', '.join(f'{scale:g}' for scale in options.scales)}."
        )


def _fit(spec: RunSpec, masks: Masks, progress: Progress) -> Fit:
    """Fit class vectors to masks; of `spec`, output and formats are ignored.

    Raise TipssegError if the run cannot continue. Images that cannot be read are reported and left out instead.
    """
    from tipsseg.learning.fit import fit_windows, groups_by_id
    from tipsseg.learning.maths import make_windows
    from tipsseg.learning.unlabelled import sample_patches

    require_masks(masks, len(masks.refs), _MINIMUM)
    masks = draw_masks(masks, progress, len(spec.vocabulary.classes), spec.jobs)
    loaded = load_for(plan_run(spec), progress.note, quiet=progress.quiet, images=masks.refs)
    backbone = loaded.model.backbone
    classifier = make_classifier(backbone, spec.vocabulary, cache_folder() if spec.use_cache else None)
    groups = groups_by_id(classifier.vocabulary)
    source = FeatureSource(
        backbone, loaded.view, loaded.store, find_features(backbone.device), spec.reader, digests=loaded.digests
    )

    def cut_mask(image: Loaded[Features], features: Features) -> list[Window]:
        mask = masks.read(image.ref)
        if mask.shape != features.size:
            size, mask_size = (" x ".join(map(str, each)) for each in (features.size, mask.shape))
            raise ImageError(
                image.ref.path,
                f"the image has {size} (height x width) pixels, but its mask has {mask_size}",
                "The mask must match the image after its EXIF rotation.",
            )
        return make_windows(features.patches, features.plan, mask, groups)

    cut, job = learn_from(masks.refs, loaded, source, cut_mask, progress, masked=True)
    images = [windows for windows in cut if windows]  # the others ignore all pixels
    require_masks(masks, len(images), _MINIMUM, job)

    def draw_patches(_: Loaded[Features], features: Features) -> Tensor:
        return sample_patches(features.patches)

    patches: list[Tensor] = []
    if masks.others:
        patches, missing = learn_from(masks.others, loaded, source, draw_patches, progress, masked=False)
        if missing.failed:
            of = f"{missing.failed} of the {pluralize(len(masks.others), 'image')}"
            progress.note(f"Could not read {of} without masks; the fit ignores them.")
    began = time.monotonic()
    progress.note(
        f"Fitting {pluralize(len(spec.vocabulary.classes), 'class', 'classes')} to {pluralize(len(images), 'image')}."
    )

    def step(done: int, most: int) -> None:
        progress.still(f"{done} of at most {most} fitting steps in {format_duration(round(time.monotonic() - began))}.")

    fitted = fit_windows(loaded.model, loaded.view, classifier, images, patches, step)
    absent = [score.name for score in fitted.scores if score.name and not score.images]
    if absent:
        progress.note(
            f"The masks have no pixels of {join_first(absent, 10)}: classes without pixels keep their text vectors."
        )
    return Fit(fitted, len(images), job.failed)


def require_learned(fitted: FittedVocabulary, target: Path) -> None:
    """Raise InputError if the masks improve no class, so that a fit would label as the text does."""
    if not fitted.learned:
        kept = f"{target} was left as it was" if os.path.lexists(target) else f"{target} was not written"
        raise InputError(
            f"the masks improve no class over its text, so {kept}",
            "Correct more masks of the classes that the text gets wrong. Until then, label with the names of the classes.",
        )


def check_target(target: Path, *, overwrite: bool) -> None:
    """Check the file to write. Raise UsageError for a wrong suffix, OutputError if it exists or cannot be written."""
    if target.suffix.lower() != FIT_SUFFIX:
        raise UsageError(
            f"argument `output`={target}: a vocabulary with fitted vectors must be a {FIT_SUFFIX} file",
            f"Use {target.with_suffix(FIT_SUFFIX)}.",
        )
    if is_folder(target):
        raise OutputError(target, "a folder has this name", "Choose another file with argument `output`.")
    if os.path.lexists(target) and not overwrite:
        raise OutputError(
            target,
            "the file already exists",
            "Choose another file with argument `output`, or replace it with argument `overwrite`.",
        )
    refuse_file(target.absolute().parent)
