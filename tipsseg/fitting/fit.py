"""Fit class vectors to the masks of a few images, with a prior at the text vectors."""

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
from tipsseg.fitting.choice import OnSolved, choose_and_fit
from tipsseg.fitting.maths import Mask, Window, make_windows
from tipsseg.fitting.unlabelled import sample_patches
from tipsseg.labelling.classifier import Classifier, make_classifier
from tipsseg.labelling.features import Features
from tipsseg.labelling.model import Model
from tipsseg.labelling.view import View, view_of
from tipsseg.options import LabelOptions
from tipsseg.types import BACKGROUND, ignore_id
from tipsseg.util.text import quote
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary
from tipsseg.weights.sources import file_hashes, find_model_id


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
    """Fit class vectors to the masks of a few images.

    Classes without pixels in the masks keep their text vectors. The result is deterministic on the same machine.

    If the images with masks were not drawn at random, also pass features of about 30 images without masks, drawn at random from all
    images that the fit is for. They keep the fit from overfitting to unusual images, for example those that `rank` lists first.

    Args:
        model: The model that encoded the images.
        features: The features of each image, from `Model.encode`.
        masks: The mask of each image, [H, W] uint8 or uint16 at the image's size: 0 background, 1..N the classes by id, 255 ignored
            (65535 with more than 254 classes). Without background phrases in the vocabulary, 0 is ignored too.
        vocabulary: Names of classes, `ClassSpec`s, or a `Vocabulary`, as for `Labeller`.
        options: The options that the features were encoded with. None: those of the published protocol.
        unlabelled: Features of images without masks, encoded with the same options.
        cache: Cache folder for text vectors. None: no cache.

    Returns:
        The fitted vocabulary. `Labeller` accepts it as a vocabulary.

    Raises:
        UsageError: An argument has a wrong type, the numbers of features and masks differ, or the features were encoded with
            other options.
        InputError: A mask has a wrong size or an unknown id, or all pixels are ignored.
        VocabularyError: The classes are invalid.
    """
    if not isinstance(model, Model):
        raise UsageError(f"the model must come from tipsseg.load, not {quote(model)}")
    options = options or LabelOptions()
    view = view_of(model.backbone, LabelOptions(mode=options.mode, short_side=options.short_side))
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = make_vocabulary(vocabulary)
    classifier = make_classifier(model.backbone, replace(vocabulary, fit=""), cache)
    _check_pairs(model, view, features, masks, len(vocabulary.classes))
    for number, other in enumerate(unlabelled, start=1):
        _check_features(model, view, other, f"unlabelled features {number}")
    groups = groups_by_id(classifier.vocabulary)
    images = [
        make_windows(image.patches, image.plan, mask, groups) for image, mask in zip(features, masks, strict=True)
    ]
    others = [sample_patches(other.patches) for other in unlabelled]
    return fit_windows(model, view, classifier, images, others, lambda done, most: None)


def groups_by_id(vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the group of each mask id, for `make_windows`; -1 for ignored pixels."""
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
    on_solved: OnSolved,
) -> FittedVocabulary:
    """Fit class vectors to windows, see `make_windows`, and patches of images without masks.

    `on_solved` is called after each solved problem, see `OnSolved`.

    Raises:
        InputError: All pixels are ignored.
    """
    vocabulary, temperature = classifier.vocabulary, model.backbone.temperature
    names = ["", *(entry.name for entry in vocabulary.classes)]
    group_of = torch.tensor([phrase.label_id for phrase in vocabulary.phrases])
    images = [windows for windows in images if windows]
    if not images:
        raise InputError("the masks contain no labelled pixels", "Pass masks with pixels of the classes.")
    text = torch.from_numpy(classifier.vectors) / temperature
    others = torch.cat(list(unlabelled)) if unlabelled else None
    # Sums depend on the number of threads, and small differences grow from iteration to iteration. A single thread makes the result
    # independent of the machine's number of cores.
    with limit_torch_threads(1):
        weights, biases, scores = choose_and_fit(images, group_of, text, names, others, on_solved)
    hashes = file_hashes(model.backbone.folder)
    return FittedVocabulary(
        vocabulary,
        (weights * temperature).numpy(),
        (biases * temperature).numpy(),
        temperature,
        hashes,
        find_model_id(model.backbone.folder, hashes),
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
        raise UsageError(f"got {len(features)} features but {len(masks)} masks", "Pass one mask per image.")
    for number, (image, mask) in enumerate(zip(features, masks, strict=True), start=1):
        _check_features(model, view, image, f"features {number}")
        if not isinstance(mask, np.ndarray) or mask.dtype not in (np.uint8, np.uint16):
            raise UsageError(f"mask {number} must be an array of uint8 or uint16, not {quote(mask)}")
        if mask.shape != image.size:
            shape, (height, width) = " x ".join(map(str, mask.shape)), image.size
            raise InputError(f"mask {number} is {shape}, but its image is {height} x {width} (height x width) pixels")
        unknown = [value for value in np.unique(mask).tolist() if value > classes and value != ignore_id(classes)]
        if unknown:
            raise InputError(
                f"mask {number} has id {unknown[0]}, but the vocabulary has {classes} classes",
                f"Valid ids are 0..{classes}, and {ignore_id(classes)} for ignored pixels.",
            )


def _check_features(model: Model, view: View, features: Features, name: str) -> None:
    if not isinstance(features, Features):
        raise UsageError(f"{name} must come from Model.encode, not {quote(features)}")
    if features.patches.shape[-1] != model.backbone.embed_dim or (features.plan,) != view.plans(features.size):
        raise UsageError(
            f"{name} were encoded with a different model, mode or short side",
            "Encode the image with this model, and with the mode and short side of the fit's options.",
        )
