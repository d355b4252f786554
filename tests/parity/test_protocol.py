"""Labels against a plain re-statement of the published protocol, on transformers' own layers.

Nothing of tipsseg's windows, features, merging or text averaging is used here: one window at a time, whole maps, loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from sentencepiece import SentencePieceProcessor
from torch import Tensor
from transformers import Tipsv2Model

from tipsseg import Labeller, LabelOptions, Model, load, make_vocabulary
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.options import Mode

CLASSES = ["Panda Leg", "tree", "sky", "a big stone", "road", "car_wheel", "fish"]
TEMPLATES = [
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "a photo of {}s.",
]
NATIVE, STRIDE, PATCH = 56, 42, 14
TEMPERATURE = 0.02


@dataclass(frozen=True)
class Scores:
    """Final scores [P, H, W] whose argmax is the label."""

    scores: Tensor

    def assert_labels(self, labels: NDArray[np.uint8]) -> None:
        """Equal everywhere, except where the two best scores are within 1e-6."""
        best = self.scores.topk(2, dim=0)
        expected = best.indices[0].numpy() + 1
        differs = labels != expected
        close = (best.values[0] - best.values[1]).numpy() <= 1e-6
        assert not (differs & ~close).any()
        assert differs.mean() < 3e-3
        assert len(np.unique(expected)) > 2


class Reference:
    def __init__(self, folder: Path) -> None:
        self.model = Tipsv2Model.from_pretrained(folder, dtype=torch.float32)
        self.pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))

    def text(self) -> Tensor:
        rows = []
        for name in CLASSES:
            embeddings = []
            for template in TEMPLATES:
                ids = self.pieces.encode(template.format(name.replace("_", " ")).lower())
                pooled = self.model.text_model(
                    input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)
                ).pooler_output[0]
                embeddings.append(pooled / pooled.norm())
            mean = torch.stack(embeddings).mean(0)
            rows.append(mean / mean.norm())
        return torch.stack(rows)

    def value_features(self, pixels: Tensor) -> Tensor:
        """[1, 3, H, W] -> [h, w, D]."""
        vision = self.model.vision_model
        x = vision.embeddings(pixels)
        for layer in vision.encoder.layer[:-1]:
            x = layer(x, None)
        last = vision.encoder.layer[-1]
        value = last.attention.v_proj(last.norm1(x))
        y = x + last.layer_scale1(last.attention.o_proj(value))
        y = y + last.layer_scale2(last.mlp(last.norm2(y)))
        tokens = vision.layernorm(y)[0, 2:]
        return tokens.reshape(pixels.shape[2] // PATCH, pixels.shape[3] // PATCH, -1)

    def cosine(self, pixels: Tensor, text: Tensor) -> Tensor:
        """[P, h, w]."""
        features = self.value_features(pixels)
        features = features / features.norm(dim=-1, keepdim=True)
        return torch.einsum("hwd,pd->phw", features, text)


def resized(image: Image.Image, short: int) -> Tensor:
    width, height = image.size
    if min(width, height) != short:
        scale = (short, int(width * short / height)) if height <= width else (int(height * short / width), short)
        image = image.resize((scale[1], scale[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def slide_scores(reference: Reference, image: Image.Image, short: int) -> Scores:
    text = reference.text()
    pixels = resized(image, short)
    height, width = pixels.shape[2:]
    total = torch.zeros(len(CLASSES), height, width)
    count = torch.zeros(height, width)
    for row in range(max(height - NATIVE + STRIDE - 1, 0) // STRIDE + 1):
        for column in range(max(width - NATIVE + STRIDE - 1, 0) // STRIDE + 1):
            bottom, right = min(row * STRIDE + NATIVE, height), min(column * STRIDE + NATIVE, width)
            top, left = bottom - NATIVE, right - NATIVE
            cosine = reference.cosine(pixels[:, :, top:bottom, left:right], text)
            upsampled = F.interpolate(cosine[None], (NATIVE, NATIVE), mode="bilinear", align_corners=False)[0]
            total[:, top:bottom, left:right] += upsampled.softmax(0)
            count[top:bottom, left:right] += 1
    merged = total / count
    return Scores(F.interpolate(merged[None], (image.height, image.width), mode="bilinear", align_corners=False)[0])


def whole_scores(reference: Reference, image: Image.Image, short: int) -> Scores:
    text = reference.text()
    pixels = resized(image, short)
    height, width = (-(-length // PATCH) * PATCH for length in pixels.shape[2:])
    pixels = F.interpolate(pixels, (height, width), mode="bicubic", align_corners=False)
    cosine = reference.cosine(pixels, text)
    return Scores(F.interpolate(cosine[None], (image.height, image.width), mode="bilinear", align_corners=False)[0])


def picture(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng([height, width])
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BILINEAR)


SIZES = {
    "one window": (56, 56),
    "one window, enlarged": (20, 20),
    "landscape": (90, 160),
    "portrait": (150, 64),
    "short side as it is": (56, 99),
    "panorama": (60, 400),
    "large": (333, 517),
}


@pytest.fixture(scope="module")
def reference(mlp_checkpoint: Path) -> Reference:
    return Reference(mlp_checkpoint)


@pytest.fixture(scope="module")
def model(mlp_checkpoint: Path) -> Model:
    return load(mlp_checkpoint, device="cpu", dtype="float32", batch_size=3)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("mode", "short_side"), [("slide", None), ("slide", 75), ("whole", None), ("whole", 75)])
def test_labels_are_the_protocols(
    reference: Reference, model: Model, size: tuple[int, int], mode: Mode, short_side: int | None
) -> None:
    image = picture(*size)
    labeller = Labeller(model, make_vocabulary(CLASSES, "none"), LabelOptions(mode=mode, short_side=short_side))
    label_map = labeller.label(image)
    with torch.inference_mode():
        scores = (slide_scores if mode == "slide" else whole_scores)(reference, image, short_side or NATIVE)
    scores.assert_labels(label_map.labels)  # type: ignore[arg-type]
    assert label_map.shape == size


def test_value_features_agree(reference: Reference, mlp_checkpoint: Path) -> None:
    tower = Tipsv2Backbone(mlp_checkpoint, "cpu", "float32").vision_encoder
    pixels = torch.rand(1, 3, 56, 84, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = reference.value_features(pixels)
        got = tower.value_features(pixels)[0]
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_confidence_is_the_tempered_softmax_of_the_cosines(reference: Reference, model: Model, mode: Mode) -> None:
    """With one window that the image just fills, there is nothing to merge, and both modes mean the same."""
    image = picture(NATIVE, NATIVE)
    label_map = Labeller(model, make_vocabulary(CLASSES, "none"), LabelOptions(mode=mode)).label(image)
    with torch.inference_mode():
        cosine = reference.cosine(resized(image, NATIVE), reference.text())
    upsampled = F.interpolate(cosine[None], (NATIVE, NATIVE), mode="bilinear", align_corners=False)[0]
    expected = (upsampled / TEMPERATURE).softmax(0).max(0).values.numpy()
    np.testing.assert_allclose(label_map.confidence, expected, atol=2e-4)
    assert expected.max() - expected.min() > 0.1
