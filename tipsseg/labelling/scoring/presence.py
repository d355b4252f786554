"""Cosines of all patches of one image -> a term for each phrase: classes that no part of the image supports lose.

Of a long list most classes are not in an image, yet patches that resemble nothing well go to them, one here and one there. A
class that is there wins somewhere clearly; a class that is not wins nowhere clearly. So each class is weighed by the largest share
that it has of any patch. A small thing on a single patch has that as much as the sky.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tipsseg.backbones.transfers import sent

#: Shares below this count as this, so that one class is not told apart from another by what is nothing in both.
_LEAST = 1e-4


@torch.inference_mode()
def presence_terms(cosines: Sequence[Tensor], groups: Sequence[int], temperature: float, strength: float) -> Tensor:
    """What is added to the cosines of each phrase, before anything else is made of them.

    It is strength * temperature * log(s), where s is the largest share of a patch that the phrase's group has anywhere in the
    image. The share is softmax(cosine / temperature) over the groups, the cosine of a group that of its best phrase. So the term
    multiplies exp(cosine / temperature) by s to the power of the strength.

    Args:
        cosines: Of each scale, [B, h, w, P] float32, the windows of an image; all on one device.
        groups: How many phrases each of the G groups has that stand for one thing, in the order of the phrases.
        temperature: Of the softmax.
        strength: How far the term goes; at 0 it is 0.

    Returns:
        [P] float32 on that device, 0 or less.
    """
    device = cosines[0].device
    owners = sent(np.repeat(np.arange(len(groups)), groups), device)
    most = torch.full((len(groups),), -math.inf, device=device)
    for window in (window for scale in cosines for window in scale):
        logits = window.flatten(0, 1) / temperature  # [h * w, P]
        best = logits.new_full((len(logits), len(groups)), -math.inf)
        best.scatter_reduce_(1, owners.expand_as(logits), logits, "amax")
        most = torch.maximum(most, best.log_softmax(1).amax(0))
    return (strength * temperature) * most.clamp(min=math.log(_LEAST))[owners]
