"""The losses of TIPSv2 (arXiv 2604.12012), each a pure function of tensors.

Shapes: B images, N patches, D width, K prototypes. Logits are what a projection head gives, before any temperature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE: each image finds its text among those of the batch, and each text its image.

    images, texts  [B, D], not normalised; row i of the one belongs to row i of the other
    scale          the inverse temperature, a scalar, learned
    """
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T  # [B, B]
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def teacher_targets(logits: Tensor, temperature: float) -> Tensor:
    """Centred and sharpened: softmax((logits - their mean over all but K) / temperature), without a gradient. [..., K]."""
    logits = logits.detach()
    return ((logits - logits.flatten(0, -2).mean(0)) / temperature).softmax(-1)


def self_distillation(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the student's logits with the teacher's targets, [..., K] each -> [...]."""
    return -(targets * F.log_softmax(student / temperature, dim=-1)).sum(-1)


def dino(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """The mean over local crops and images of the distance to the global crop's class token.

    student  [M, B, K] logits of M local crops
    targets  [B, K] of the global crop
    """
    return self_distillation(student, targets.expand_as(student), temperature).mean()


def ibot(distances: Tensor, mask: Tensor) -> Tensor:
    """The mean over masked patches: the student has to guess what it does not see.

    distances  [B, N], of the student's patches of the masked image from the teacher's of the whole one
    mask       [B, N] bool, True where the student saw the mask token; at least one
    """
    return distances[mask].mean()


def ibot_plus_plus(distances: Tensor) -> Tensor:
    """The mean over all patches [B, N], those that the student saw too."""
    return distances.mean()
