"""What the vision tower makes of one image: the step between the model and the comparison with phrases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tipsseg.types import WindowPlan


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The features of one image, on the device of the model.

    Attributes:
        size: (height, width) of the image in pixels, upright.
        plan: How the image was resized and cut into windows.
        patches: [B, h, w, D] float32 of unit length: a vector for each of the h x w patches of each of the B windows of `plan`.
            B is 1 for an image that was seen in one piece.
        class_tokens: [B, C, D] float32 of unit length: C vectors for each window as a whole. TIPSv2 has two: the first was trained
            for alt-texts of the web, the second for synthetic captions.
    """

    size: tuple[int, int]
    plan: WindowPlan
    patches: Tensor
    class_tokens: Tensor

    @torch.inference_mode()
    def cosines(self, vectors: Tensor) -> Tensor:
        """Compare the patches with vectors.

        Args:
            vectors: [P, D] float32 of unit length, on the same device.

        Returns:
            The cosine of each patch with each vector, [B, h, w, P] float32.
        """
        height, width, dim = self.patches.shape[1:]
        # Window by window: how a device adds up may depend on the size of a product, and labels must not.
        each = [patches.reshape(-1, dim) @ vectors.T for patches in self.patches]  # B of [h * w, P]
        return torch.stack(each).view(len(each), height, width, -1)
