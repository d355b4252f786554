"""A remote source for FiftyOne's model zoo: `foz.load_zoo_model("tipsseg", classes="panda leg,tree")`; and a plugin, for its app.

FiftyOne reads manifest.json in this folder and calls `download_model` and `load_model`. Of the plugin, it reads fiftyone.yml, and
calls `register`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fiftyone.core.labels as fol
import fiftyone.core.models as fom
import fiftyone.operators as foo
import fiftyone.operators.types as foot
import tipsseg

_CONFIDENCE = "Pixels below it are ignored: 255, or 65535 with more than 254 classes"


def download_model(model_name: str, model_path: str) -> None:
    """Write a placeholder for the model file, because tipsseg downloads and verifies the weights itself on loading."""
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
    """Return a model that labels the given classes.

    Args:
        model_name: Name in the manifest (unused).
        model_path: Path of the placeholder that `download_model` wrote (unused).
        classes: Class names, as a list or separated by commas.
        vocab: Vocabulary file, or name of a preset, instead of `classes`.
        model: Model id, or a folder in the hub layout.
        background: "auto", "none", or phrases separated by commas. Ignored with `vocab`, which sets its own.
        min_confidence: Label pixels below this confidence (0..1) as ignored.
        device: Device to run the model on, for example "cpu" or "cuda"; "auto" chooses one.
    """
    if bool(classes) == bool(vocab):
        raise tipsseg.UsageError("pass either `classes` or `vocab`", 'For example: classes="panda leg,tree"')
    if vocab:
        vocabulary = tipsseg.read_vocabulary(vocab)
    else:
        names = [name.strip() for name in classes.split(",")] if isinstance(classes, str) else classes
        stuff = background if background in ("auto", "none") else background.split(",")
        vocabulary = tipsseg.make_vocabulary(names, stuff)
    return TipssegModel(tipsseg.load(model, device=device).labeller(vocabulary, min_confidence=min_confidence))


class TipssegModel(fom.Model):  # type: ignore[misc]
    """FiftyOne model that predicts Segmentations: 0 background, 1..N the classes, 255 (65535 with more than 254 classes) ignored.

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
        return True  # images of different sizes cannot be stacked

    @property
    def transforms(self) -> None:
        return None

    @property
    def preprocess(self) -> bool:
        return False

    def predict(self, arg: NDArray[np.uint8]) -> Any:
        """Return the Segmentation of an image: uint8 [H, W, 3] RGB, [H, W, 4] RGBA or [H, W] grey."""
        return fol.Segmentation(mask=self._labeller.label(arg).labels)


class Label(foo.Operator):  # type: ignore[misc]
    """The operator `@tipsseg/tipsseg/label`: it labels the images of the current view, and stores the masks in a field."""

    @property
    def config(self) -> Any:
        return foo.OperatorConfig(
            name="label",
            label="tipsseg: label every pixel with phrases",
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> Any:
        """Return the form that the app shows."""
        inputs = foot.Object()
        inputs.str("classes", label="Classes", description="For example: panda leg,tree", required=True)
        inputs.str("model", label="Model", default="l14", required=True)
        inputs.str("field", label="Field of the masks", default="tipsseg", required=True)
        inputs.float("min_confidence", label="Minimum confidence", min=0, max=1, default=0.0, description=_CONFIDENCE)
        return foot.Property(inputs, view=foot.View(label="Label every pixel with phrases"))

    def execute(self, ctx: Any) -> None:
        field, dataset = ctx.params.get("field", "tipsseg"), ctx.dataset
        options = {name: ctx.params[name] for name in ("model", "min_confidence") if ctx.params.get(name) is not None}
        model = load_model("tipsseg", "", ctx.params["classes"], **options)
        ctx.view.apply_model(model, label_field=field)
        dataset.mask_targets = {**dataset.mask_targets, field: model.mask_targets}
        dataset.save()
        ctx.trigger("reload_dataset")


def register(plugin: Any) -> None:
    """Register the operators of the plugin."""
    plugin.register(Label)
