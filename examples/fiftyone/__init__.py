"""A remote source of FiftyOne's model zoo: `foz.load_zoo_model("tipsseg", classes="panda leg,tree")`.

FiftyOne finds it by the manifest.json beside it, and calls the functions here.
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
    """Leave the file that FiftyOne takes for a model that is there: tipsseg fetches and verifies its weights when it loads them."""
    Path(model_path).write_text("tipsseg fetches the weights when they are loaded\n")


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
    """The model with what it is to label.

    Args:
        model_name: In the manifest.
        model_path: The file of `download_model`.
        classes: Names of classes: a list, or a text with commas.
        vocab: A vocabulary file, or the name of a preset, in place of `classes`.
        model: An id of weights.lock, or a folder in the hub layout.
        background: "auto", "none", or phrases with commas; of `classes` alone, as a vocabulary has its own.
        min_confidence: Pixels below this confidence, 0..1, are ignored.
        device: Where the model runs.
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
    options = tipsseg.LabelOptions(min_confidence=min_confidence)
    return TipssegModel(tipsseg.Labeller(tipsseg.load(model, device=device), vocabulary, options))


class TipssegModel(fom.Model):  # type: ignore[misc]
    """Gives a Segmentation of each image: 0 background, 1..N the classes, 255 (65535 above 254 classes) ignored.

    Attributes:
        mask_targets: The names of the classes by id, for `dataset.mask_targets` or `dataset.default_mask_targets`.
    """

    def __init__(self, labeller: tipsseg.Labeller) -> None:
        self._labeller = labeller
        self.mask_targets = {each.id: each.name for each in labeller.vocabulary.classes}

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
        """The Segmentation of an image [H, W, 3] uint8 RGB, or [H, W] where it is grey."""
        pixels = arg if arg.ndim == 3 else np.repeat(arg[..., None], 3, axis=2)
        return fol.Segmentation(mask=self._labeller.label(np.ascontiguousarray(pixels[..., :3])).labels)
