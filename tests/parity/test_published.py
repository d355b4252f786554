"""The numbers that transformers' own integration test of google/tipsv2-b14 states, where b14 is in the hub cache.

TIPSSEG_COCO_PICTURE is the path of COCO val2017 000000039769.jpg, for the numbers of a picture.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tipsseg.backbones.tipsv2 import checkpoint
from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
from tipsseg.backbones.tipsv2.text import Tokenizer
from tipsseg.weights.fetching import locate
from tipsseg.weights.lock import get_model

TEXTS = ("two cats on a sofa", "a cat lying down", "a dog on a couch", "an empty room")
# The tolerances are the published ones, too. Those of pictures are wider, as decoders and resizing differ.
TEXT = {
    "text_embeds": (0.69319, 0.03710, 0.01194, 0.02136, -0.04281),
    "pooled text": (12.07207, 0.64612, 0.20788, 0.37204, -0.74551),
}
IMAGE = {
    "class token": (0.22055, 0.14960, 0.03689, 0.12756, -0.36632),
    "patch_tokens": (0.25287, -0.01092, -0.57542, 0.09660, -0.04010),
    "logits_per_image": (31.12190, 26.99341, 20.26748, 17.55544),
}


@pytest.fixture(scope="module")
def b14() -> tuple[Tipsv2, Tokenizer]:
    folder = locate(get_model("b14"))
    if folder is None:
        pytest.skip("b14 is not here; run: tipsseg weights download b14")
    return checkpoint.load_tipsv2(folder, torch.device("cpu"), torch.float32)


def pooled(b14: tuple[Tipsv2, Tokenizer]) -> Tensor:
    model, tokenizer = b14
    tokens = tokenizer(TEXTS)
    return model.text_encoder(tokens.ids, tokens.lengths)  # [P, D]


@torch.inference_mode()
def test_published_text_vectors(b14: tuple[Tipsv2, Tokenizer]) -> None:
    text = pooled(b14)
    got = {"text_embeds": F.normalize(text, dim=-1)[0, :5], "pooled text": text[0, :5]}
    for name, expected in TEXT.items():
        torch.testing.assert_close(got[name], torch.tensor(expected), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_published_picture_features(b14: tuple[Tipsv2, Tokenizer]) -> None:
    if "TIPSSEG_COCO_PICTURE" not in os.environ:
        pytest.skip("TIPSSEG_COCO_PICTURE is not set")
    model, side = b14[0], b14[0].config.vision.image_size
    with Image.open(os.environ["TIPSSEG_COCO_PICTURE"]) as image:
        resized = np.array(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
    output = model.vision_encoder(torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255)  # [1, 3, side, side]
    logits = F.normalize(output.cls, dim=-1) @ F.normalize(pooled(b14), dim=-1).T / model.config.temperature  # [1, P]
    got = {"class token": output.cls[0, :5], "patch_tokens": output.patches[0, 0, 0, :5], "logits_per_image": logits[0]}
    for name, expected in IMAGE.items():
        torch.testing.assert_close(got[name], torch.tensor(expected), atol=1e-3, rtol=1e-3)


def test_the_published_numbers_are_of_one_model() -> None:
    """A unit vector is its pooled text scaled, and logits are cosines divided by the temperature of B/14."""
    embeds, pooled_text = (np.array(values) for values in TEXT.values())
    np.testing.assert_allclose(embeds / embeds[0], pooled_text / pooled_text[0], atol=1e-4)
    assert len(IMAGE["logits_per_image"]) == len(TEXTS)
    assert all(0 < logit * 0.005065968260169029 < 1 for logit in IMAGE["logits_per_image"])
