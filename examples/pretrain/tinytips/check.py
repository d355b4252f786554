"""A quick look at what a model has learnt, while it is trained: mean IoU on windows of drawn scenes.

The whole evaluation is `tinytips.evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from tinytips.data.scoring import iou, to_list
from tinytips.data.store import drawn
from tinytips.recipe.network import encode_texts
from tinytips.world.concepts import LEAF_LIST, WHOLE_LIST
from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
from tipsseg.backbones.tipsv2.text import Tokenizer
from tipsseg.vocabulary.phrases import PROTOCOL_TEMPLATES

SCENES, FIRST_SEED = 100, 20_000_000  # apart from those of training and of the evaluation
_LISTS = {"whole": WHOLE_LIST, "parts": LEAF_LIST}
_BATCH = 20


class Check:
    """Windows of scenes that are not trained on; they are drawn on first use, and kept in `folder`."""

    def __init__(self, folder: Path, side: int) -> None:
        store = drawn(folder, SCENES, FIRST_SEED, side)
        images = [store.image(index)[:side, :side] for index in range(SCENES)]
        self._pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255  # [N, 3, side, side]
        self._truths = [store.truth(index)[:side, :side] for index in range(SCENES)]

    @torch.inference_mode()
    def __call__(self, model: Tipsv2, tokenizer: Tokenizer) -> dict[str, float]:
        """Mean IoU by value features, of the list of whole things and of that of parts."""
        device = next(model.parameters()).device
        batches = (each.to(device) for each in self._pixels.split(_BATCH))
        values = torch.cat([F.normalize(model.vision_encoder.value_features(each), dim=-1) for each in batches])
        return {
            name: self._mean_iou(values, _phrases(model, tokenizer, names), names) for name, names in _LISTS.items()
        }

    def _mean_iou(self, values: torch.Tensor, phrases: torch.Tensor, names: Sequence[str]) -> float:
        cosines = torch.einsum("nhwd,pd->nhwp", values, phrases).cpu().numpy()
        side = self._pixels.shape[-1]
        # OpenCV takes up to 32 layers.
        labels = [cv2.resize(each, (side, side)).argmax(-1).astype(np.uint8) + 1 for each in cosines]
        truths = [to_list(truth, names) for truth in self._truths]
        return float(np.nanmean(iou(truths, labels, len(names))[1:]))


def _phrases(model: Tipsv2, tokenizer: Tokenizer, names: Sequence[str]) -> torch.Tensor:
    """[P, D], the mean over the protocol's templates."""
    vectors = [encode_texts(model, tokenizer, [each.format(name) for each in PROTOCOL_TEMPLATES]) for name in names]
    return torch.stack([F.normalize(each.mean(0), dim=0) for each in vectors])
