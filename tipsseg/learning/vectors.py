"""`tipsseg fit`: encode the images of a run again, fit class vectors to their masks, and write them to a file."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import InputError, OutputError, TipssegError, UsageError, Words
from tipsseg.folder.plan import plan_run
from tipsseg.folder.spec import RunSpec, model_identity, refuse_file
from tipsseg.labelling.classifier import make_classifier
from tipsseg.labelling.features import Features, find_features
from tipsseg.labelling.local import load_for
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.learning.masks import EditedMasks, draw_masks, edited_masks, learn_from, require_masks
from tipsseg.learning.metrics import BACKGROUND_NAME, percent, rounded
from tipsseg.options import ONE_SCALE
from tipsseg.options.records import ComputeOptions, LabelOptions
from tipsseg.say import Progress
from tipsseg.util.files import cache_folder, is_folder
from tipsseg.util.text import format_duration, join_first, pluralize, text_table
from tipsseg.vocabulary.fitted import FIT_SUFFIX, FittedVocabulary
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    from torch import Tensor

    from tipsseg.learning.maths import Window


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


def fit_masks(
    output: Path, images: Path | None, compute: ComputeOptions, target: Path | None, progress: Progress
) -> Fit:
    """Fit the classes of a run to the masks that a person edited, and write them. See `verbs.fit.fit_folder`."""
    with edited_masks(output, images) as edited:
        spec = _spec(edited, compute)
        spec.check()
        note_other_scales(edited, progress)
        fit = _fit(spec, edited, progress)
    try:
        if target is not None:
            fit.save(target)
            progress.note("wrote", file=target)
    except TipssegError as error:
        error.result = fit
        raise
    return fit


def _spec(masks: EditedMasks, compute: ComputeOptions) -> RunSpec:
    """Return settings that encode a run's images as the run did, at one scale, to learn from the text vectors on.

    Raise InputError if the files of the run's model have changed.
    """
    info = masks.run.info
    recorded, options = info.spec, info.spec.options
    if model_identity(find_model(recorded.model).facts(keep_stamps=compute.use_cache)) != model_identity(info.model):
        raise InputError(
            f"{masks.run.output}: the files of the model {recorded.model} have changed since the run",
            "Restore the model, or label the images again.",
        )
    return RunSpec(
        **vars(replace(compute, model=recorded.model, dtype=info.dtype)),
        vocabulary=replace(recorded.vocabulary, fit=""),
        options=LabelOptions(mode=options.mode, short_side=options.short_side, stretch=options.stretch),
        formats=(),
        output=Path(),
    )


def note_other_scales(masks: EditedMasks, progress: Progress) -> None:
    """Note that a fit uses scale 1 only, if the run has other scales."""
    options = masks.run.info.spec.options
    if options.scales != ONE_SCALE:
        scales = "scales" if len(options.scales) > 1 else "scale"
        progress.note("other_scales", scales=scales, number=", ".join(f"{scale:g}" for scale in options.scales))


def _fit(spec: RunSpec, masks: EditedMasks, progress: Progress) -> Fit:
    """Fit class vectors to masks; of `spec`, output and formats are ignored.

    Raise TipssegError if the run cannot continue. Images that cannot be read are reported and left out instead.
    """
    from tipsseg.learning.fit import fit_windows, groups_by_id
    from tipsseg.learning.maths import make_windows
    from tipsseg.learning.unlabelled import sample_patches

    require_masks(masks, len(masks.refs))
    masks = draw_masks(masks, progress, spec.jobs)
    loaded = load_for(plan_run(spec), progress.say, quiet=progress.quiet, images=masks.refs)
    backbone = loaded.model.backbone
    classifier = make_classifier(backbone, spec.vocabulary, cache_folder() if spec.use_cache else None)
    groups = groups_by_id(classifier.vocabulary)
    source = FeatureSource(
        backbone, loaded.view, loaded.store, find_features(backbone.device), spec.reader, digests=loaded.digests
    )

    def cut_mask(image: Loaded[Features], features: Features) -> list[Window]:
        return make_windows(features.patches, features.plan, masks.read(image.ref), groups)

    cut, job = learn_from(masks.refs, loaded, source, cut_mask, progress, masked=True)
    images = [windows for windows in cut if windows]  # the others ignore all pixels
    require_masks(masks, len(images), job)

    def draw_patches(_: Loaded[Features], features: Features) -> Tensor:
        return sample_patches(features.patches)

    patches: list[Tensor] = []
    if masks.others:
        patches, missing = learn_from(masks.others, loaded, source, draw_patches, progress, masked=False)
        if missing.failed:
            of = f"{missing.failed} of the {pluralize(len(masks.others), 'image')}"
            progress.note("fit_skips", images=of)
    began = time.monotonic()
    progress.note(
        "fitting",
        classes=pluralize(len(spec.vocabulary.classes), "class", "classes"),
        images=pluralize(len(images), "image"),
    )

    def step(done: int, most: int) -> None:
        progress.still("fitting_steps", done=done, most=most, time=format_duration(round(time.monotonic() - began)))

    fitted = fit_windows(loaded.model, loaded.view, classifier, images, patches, step)
    absent = [score.name for score in fitted.scores if score.name and not score.images]
    if absent:
        progress.note("classes_without_pixels", names=join_first(absent, 10))
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
            Words(
                "{output}={target}: a vocabulary with fitted vectors must be a {fit_suffix} file",
                target=target,
                fit_suffix=FIT_SUFFIX,
            ),
            f"Use {target.with_suffix(FIT_SUFFIX)}.",
        )
    if is_folder(target):
        raise OutputError(target, "a folder has this name", Words("Choose another file with {output}."))
    if os.path.lexists(target) and not overwrite:
        raise OutputError(
            target,
            "the file already exists",
            Words("Choose another file with {output}, or replace it with {overwrite}."),
        )
    refuse_file(target.absolute().parent)
