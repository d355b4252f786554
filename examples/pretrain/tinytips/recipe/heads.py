"""What self-distillation compares tokens by: a projection head to prototypes, and moving averages of modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """DINO's head: an MLP to a bottleneck of unit length, compared with prototypes of unit length. [..., D] -> logits [..., K]."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                # DINO's 0.02 is this for its width, 2048. In a narrow head it makes vectors near zero, and as they are brought
                # to unit length, gradients without bounds.
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.prototypes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Cosines of the tokens with the prototypes, in [-1, 1]."""
        return F.normalize(self.mlp(tokens), dim=-1) @ F.normalize(self.prototypes, dim=-1).T  # [..., K]


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move an exponential moving average of a module one step towards it."""
    for mean, current in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(current, 1 - momentum)
