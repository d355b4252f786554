"""Learn class vectors from masks of a few images, drawn towards the vectors of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.workers import limit_torch_threads
from tipsseg.errors import InputError, UsageError
from tipsseg.fitting.choice import Step, choose_and_fit
from tipsseg.fitting.maths import Mask, Window, windows_of
from tipsseg.fitting.unlabelled import some_patches
from tipsseg.labelling.classifier import Classifier, make_classifier
from tipsseg.labelling.features import Features
from tipsseg.labelling.model import Model
from tipsseg.labelling.view import View, view_of
from tipsseg.options import LabelOptions
from tipsseg.types import BACKGROUND, ignore_id
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary
from tipsseg.weights.sources import file_hashes, name_of


def fit(
    model: Model,
    features: Sequence[Features],
    masks: Sequence[Mask],
    vocabulary: Vocabulary | Sequence[str | ClassSpec],
    options: LabelOptions | None = None,
    *,
    unlabelled: Sequence[Features] = (),
    cache: Path | None = None,
) -> FittedVocabulary:
    """Learn the vectors of classes from masks of a few images.

    Classes without pixels in the masks keep their text vectors. On one machine, the same arguments give the same numbers.

    Give features of some images without masks too, about 30 drawn at random from all that the fit is for, unless the images with
    masks were drawn so themselves. Where the text is much less sure of those with masks, as it is of images that `rank` puts first,
    the fit is kept from serving the others badly.

    Args:
        model: The model that made the features.
        features: Of each image, as `Model.encode` gives them.
        masks: [H, W] uint8 or uint16 for each image, at its size: 0 background, 1..N the classes by id; 255 does not count (65535
            with more than 254 classes). Without background phrases in the vocabulary, 0 does not count either.
        vocabulary: Names of classes, `ClassSpec`s, or a `Vocabulary`, as for `Labeller`.
        options: The mode and the short side that the features were made with; None: as published.
        unlabelled: Of images without masks, made in the same way.
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
    view = view_of(model.backbone, LabelOptions(mode=options.mode, short_side=options.short_side))
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = make_vocabulary(vocabulary)
    classifier = make_classifier(model.backbone, replace(vocabulary, fit=""), cache)
    _check_pairs(model, view, features, masks, len(vocabulary.classes))
    for number, other in enumerate(unlabelled, start=1):
        _check_features(model, view, other, f"unlabelled features {number}")
    groups = counting_groups(classifier.vocabulary)
    images = [windows_of(each.patches, each.plan, mask, groups) for each, mask in zip(features, masks, strict=True)]
    others = [some_patches(other.patches) for other in unlabelled]
    return fit_windows(model, view, classifier, images, others, lambda done, most: None)


def counting_groups(vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the group of each id of a mask, for `windows_of`: -1 for pixels that do not count."""
    classes = len(vocabulary.classes)
    groups = np.full(np.iinfo(np.uint16).max + 1, -1, np.int64)
    groups[1 : classes + 1] = np.arange(1, classes + 1)
    if vocabulary.background_texts:
        groups[BACKGROUND] = BACKGROUND
    return groups


def fit_windows(
    model: Model,
    view: View,
    classifier: Classifier,
    images: Sequence[Sequence[Window]],
    unlabelled: Sequence[Tensor],
    step: Step,
) -> FittedVocabulary:
    """As `fit`, from what the windows of each image teach, see `windows_of`, and patches of images without masks.

    `step` is told how it goes on.

    Raises:
        InputError: No pixel counts.
    """
    vocabulary, temperature = classifier.vocabulary, model.backbone.temperature
    names = ["", *(entry.name for entry in vocabulary.classes)]
    group_of = torch.tensor([phrase.label_id for phrase in vocabulary.phrases])
    images = [windows for windows in images if windows]
    if not images:
        raise InputError("no pixel of the masks counts", "Give masks with pixels of the classes.")
    text = torch.from_numpy(classifier.vectors) / temperature
    others = torch.cat(list(unlabelled)) if unlabelled else None
    # Sums differ by the number of threads that share them, and small differences grow from step to step. With one thread the same
    # masks give the same fit, however many threads there are.
    with limit_torch_threads(1):
        weights, biases, scores = choose_and_fit(images, group_of, text, names, others, step)
    hashes = file_hashes(model.backbone.folder)
    return FittedVocabulary(
        vocabulary,
        (weights * temperature).numpy(),
        (biases * temperature).numpy(),
        temperature,
        hashes,
        name_of(model.backbone.folder, hashes),
        view.mode,
        view.base,
        scores,
    )


def _check_pairs(
    model: Model,
    view: View,
    features: Sequence[Features],
    masks: Sequence[Mask],
    classes: int,
) -> None:
    if len(features) != len(masks):
        raise UsageError(
            f"{len(features)} features and {len(masks)} masks are no pairs", "Give one mask for each image."
        )
    for number, (each, mask) in enumerate(zip(features, masks, strict=True), start=1):
        _check_features(model, view, each, f"features {number}")
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


def _check_features(model: Model, view: View, each: Features, name: str) -> None:
    if not isinstance(each, Features):
        raise UsageError(f"{name} must be what Model.encode gives, not {quoted(each)}")
    if each.patches.shape[-1] != model.backbone.embed_dim or (each.plan,) != view.plans(each.size):
        raise UsageError(
            f"{name} were made by another model, or in another mode or with another short side",
            "Encode the image with this model, in the mode and with the short side of the options of the fit.",
        )
