"""Masks of a few images -> class vectors, drawn towards the vectors of the texts.

For each class one of three is taken: its text vector as it is, a vector that is drawn towards it strongly, or, for words that the
text tower does not know, a vector that is drawn towards nothing. Leaving images out decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.errors import InputError, UsageError
from tipsseg.labelling.classifier import make_classifier
from tipsseg.labelling.features import Features
from tipsseg.labelling.fitting.fitted import ClassFit, FittedVocabulary
from tipsseg.labelling.fitting.maths import Mask, Prior, Window, confusion, solve, windows_of
from tipsseg.labelling.model import Model
from tipsseg.options import LabelOptions
from tipsseg.types import BACKGROUND, ignore_id
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary
from tipsseg.weights.sources import file_hashes

#: Precision of the prior of a class that the text helps with, in patches; its bias is held as strongly.
_STRONG = 10.0
#: The same of a class that is learnt from masks alone: its vector, and its bias.
_WEAK, _WEAK_BIAS = 0.3, 0.1
#: How much more than by their area rare classes count, with the text and without.
_BALANCE, _WEAK_BALANCE = 0.3, 0.5
#: A class leaves its text where that finds less than this share of the IoU of masks alone, or less than this IoU at all.
_SHARE, _UNKNOWN = 0.5, 0.1
#: More images are left out several at a time.
_FOLDS = 5

Ious = NDArray[np.float64]


def fit(
    model: Model,
    features: Sequence[Features],
    masks: Sequence[Mask],
    vocabulary: Vocabulary | Sequence[str | ClassSpec],
    options: LabelOptions | None = None,
    *,
    cache: Path | None = None,
) -> FittedVocabulary:
    """Learn the vectors of classes from masks of a few images.

    Classes without pixels in the masks keep their text vectors. On one machine, the same arguments give the same numbers.

    Args:
        model: The model that made the features.
        features: Of each image, as `Model.encode` gives them.
        masks: [H, W] uint8 or uint16 for each image, at its size: 0 background, 1..N the classes by id; 255 does not count (65535
            with more than 254 classes). Without background phrases in the vocabulary, 0 does not count either.
        vocabulary: Names of classes, `ClassSpec`s, or a `Vocabulary`, as for `Labeller`.
        options: The mode and the short side that the features were made with; None: as published.
        cache: A folder that keeps the vectors of phrases for the next time. None: nothing is written.

    Returns:
        The fitted vocabulary, for `Labeller` in place of a vocabulary.

    Raises:
        UsageError: An argument has a wrong type; features and masks differ in number; the features were made in another way.
        InputError: A mask has a wrong size, or ids that are no class; or no pixel counts.
        VocabularyError: The classes cannot be used.
    """
    if not isinstance(model, Model):
        raise UsageError(f"the model must be what tipsseg.load gives, not {quoted(model)}")
    options = options or LabelOptions()
    short_side = model.check_short_side(options.short_side)
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = make_vocabulary(vocabulary)
    classifier = make_classifier(model.backbone, vocabulary, cache)
    vocabulary = classifier.vocabulary
    names = ["", *(each.name for each in vocabulary.classes)]
    temperature = model.backbone.temperature
    group_of = torch.tensor([phrase.label_id for phrase in vocabulary.phrases])
    counting = np.full(np.iinfo(np.uint16).max + 1, -1, np.int64)
    counting[1 : len(names)] = np.arange(1, len(names))
    if BACKGROUND in group_of:
        counting[BACKGROUND] = BACKGROUND
    _check_pairs(model, features, masks, options, short_side, len(names) - 1)
    images = [windows_of(each.patches, each.plan, mask, counting) for each, mask in zip(features, masks, strict=True)]
    images = [windows for windows in images if windows]
    if not images:
        raise InputError("no pixel of the masks counts", "Give masks with pixels of the classes.")
    text = classifier.vectors.float().cpu() / temperature
    weights, biases, scores = _chosen(images, group_of, text, names)
    return FittedVocabulary(
        vocabulary,
        (weights * temperature).numpy(),
        (biases * temperature).numpy(),
        temperature,
        file_hashes(model.backbone.folder),
        options.mode,
        short_side,
        scores,
    )


def _check_pairs(
    model: Model,
    features: Sequence[Features],
    masks: Sequence[Mask],
    options: LabelOptions,
    short_side: int,
    classes: int,
) -> None:
    if len(features) != len(masks):
        raise UsageError(
            f"{len(features)} features and {len(masks)} masks are no pairs", "Give one mask for each image."
        )
    for number, (each, mask) in enumerate(zip(features, masks, strict=True), start=1):
        if not isinstance(each, Features):
            raise UsageError(f"features {number} must be what Model.encode gives, not {quoted(each)}")
        if each.patches.shape[-1] != model.backbone.embed_dim or each.plan != model.plan(
            each.size, options.mode, short_side
        ):
            raise UsageError(
                f"features {number} were made by another model, or in another mode or with another short side",
                "Encode the image with this model, in the mode and with the short side of the options of the fit.",
            )
        if not isinstance(mask, np.ndarray) or mask.dtype not in (np.uint8, np.uint16):
            raise UsageError(f"mask {number} must be an array of uint8 or uint16, not {quoted(mask)}")
        if mask.shape != each.size:
            shape, (height, width) = " x ".join(map(str, mask.shape)), each.size
            raise InputError(f"mask {number} is {shape}, and its image {height} x {width} (height x width) pixels")
        beyond = [value for value in np.unique(mask).tolist() if value > classes and value != ignore_id(classes)]
        if beyond:
            raise InputError(
                f"mask {number} has id {beyond[0]}, and the vocabulary {classes} classes",
                f"Ids are 0..{classes}; {ignore_id(classes)} does not count.",
            )


def _chosen(
    images: Sequence[Sequence[Window]], group_of: Tensor, text: Tensor, names: Sequence[str]
) -> tuple[Tensor, Tensor, tuple[ClassFit, ...]]:
    """Choose what each class is made from, fit, and score: weights [P, D], biases [P], scores."""
    groups = len(names)
    everything = [window for image in images for window in image]
    counts = np.zeros(groups, np.int64)
    for image in images:
        counts[torch.cat([window.groups for window in image]).unique().numpy()] += 1
    present = counts > 0
    by_text = _ious(confusion(everything, text, torch.zeros(len(text)), group_of))
    weak = np.zeros(groups, bool)
    kept = ~present
    found: Ious | None = None
    if len(images) == 1:
        weak = present & (by_text < _UNKNOWN)
    else:
        alone = _left_out(images, group_of, text, present, kept)
        weak = present & (by_text < np.maximum(_SHARE * alone, _UNKNOWN))
        found = _left_out(images, group_of, text, weak, kept) if not (weak == present).all() else alone
        worse = present & ~weak & (found < by_text)
        if worse.any():
            kept = kept | worse
            found = _left_out(images, group_of, text, weak, kept)
    weights, biases = _fitted(everything, group_of, text, weak, kept)
    has_phrases = set(group_of.tolist())
    scores = tuple(
        ClassFit(
            name,
            int(counts[group]),
            float(by_text[group]) if present[group] else None,
            float(found[group]) if found is not None and present[group] else None,
            "text" if kept[group] else "masks" if weak[group] else "text and masks",
        )
        for group, name in enumerate(names)
        if group in has_phrases
    )
    return weights, biases, scores


def _left_out(
    images: Sequence[Sequence[Window]],
    group_of: Tensor,
    text: Tensor,
    weak: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> Ious:
    """The IoU of each group, with each image labelled by a fit without it."""
    folds = min(len(images), _FOLDS)
    total = np.zeros((len(weak), len(weak)))
    for fold in range(folds):
        rest = [window for number, image in enumerate(images) if number % folds != fold for window in image]
        out = [window for image in images[fold::folds] for window in image]
        total += confusion(out, *_fitted(rest, group_of, text, weak, kept), group_of)
    return _ious(total)


def _fitted(
    windows: Sequence[Window],
    group_of: Tensor,
    text: Tensor,
    weak: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> tuple[Tensor, Tensor]:
    is_weak, is_kept = torch.from_numpy(weak)[group_of], torch.from_numpy(kept)[group_of]
    strength = torch.where(is_weak, _WEAK, _STRONG)
    strength[is_kept] = torch.inf
    prior = Prior(torch.where(is_weak[:, None], 0.0, text), strength, torch.where(is_weak, _WEAK_BIAS, _STRONG))
    return solve(windows, group_of, prior, _WEAK_BALANCE if weak.any() else _BALANCE)


def _ious(table: NDArray[np.float64]) -> Ious:
    """Of a confusion [G, G]; 0 for what does not occur."""
    both = np.diag(table)
    return both / np.maximum(table.sum(0) + table.sum(1) - both, 1e-9)
