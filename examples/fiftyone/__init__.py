"""A remote source of FiftyOne's model zoo: `foz.load_zoo_model("tipsseg", classes="panda leg,tree")`.

FiftyOne reads the manifest.json in this folder and calls these functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fiftyone.core.labels as fol
import fiftyone.core.models as fom
import tipsseg


def download_model(model_name: str, model_path: str) -> None:
    """Write a placeholder for the model file: tipsseg downloads and verifies its weights when it loads them."""
    Path(model_path).write_text("tipsseg downloads the weights when it loads them\n")


def load_model(
    model_name: str,
    model_path: str,
    classes: str | list[str] = "",
    vocab: str = "",
    model: str = "l14",
    background: str = "auto",
    min_confidence: float = 0.0,
    device: str = "auto",
) -> TipssegModel:
    """Load a model and its classes.

    Args:
        model_name: The name in the manifest.
        model_path: The file that `download_model` wrote.
        classes: Class names: a list, or a text with commas.
        vocab: A vocabulary file or the name of a preset, in place of `classes`.
        model: An id of weights.lock, or a folder in the hub layout.
        background: "auto", "none", or phrases with commas. Only for `classes`; a vocabulary has its own.
        min_confidence: Ignore pixels below this confidence, 0..1.
        device: The device of the model.
    """
    if bool(classes) == bool(vocab):
        raise tipsseg.UsageError(
            "either `classes` or `vocab` says what to label", 'For example: classes="panda leg,tree"'
        )
    if vocab:
        vocabulary = tipsseg.read_vocabulary(vocab)
    else:
        names = [name.strip() for name in classes.split(",")] if isinstance(classes, str) else classes
        stuff = background if background in ("auto", "none") else background.split(",")
        vocabulary = tipsseg.make_vocabulary(names, stuff)
    return TipssegModel(tipsseg.load(model, device=device).labeller(vocabulary, min_confidence=min_confidence))


class TipssegModel(fom.Model):  # type: ignore[misc]
    """Predicts Segmentations: 0 background, 1..N the classes, 255 (65535 above 254 classes) ignored.

    Attributes:
        mask_targets: Class names by id, for `dataset.mask_targets` or `dataset.default_mask_targets`.
    """

    def __init__(self, labeller: tipsseg.Labeller) -> None:
        self._labeller = labeller
        self.mask_targets = {entry.id: entry.name for entry in labeller.vocabulary.classes}

    @property
    def media_type(self) -> str:
        return "image"

    @property
    def ragged_batches(self) -> bool:
        return True  # images of several sizes make no batch

    @property
    def transforms(self) -> None:
        return None

    @property
    def preprocess(self) -> bool:
        return False

    def predict(self, arg: NDArray[np.uint8]) -> Any:
        """Return the Segmentation of an image: uint8 [H, W, 3] RGB, [H, W, 4] RGBA or [H, W] grey."""
        return fol.Segmentation(mask=self._labeller.label(arg).labels)
