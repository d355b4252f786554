"""Images and phrases -> vectors, on one device: the only place that runs the towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.devices import resolve_device, resolve_dtype
from tipsseg.errors import UsageError
from tipsseg.model import checkpoint

#: Texts that go through the text tower at once.
_TEXT_BATCH = 256


class Encoder:
    """A TIPSv2 model on a device.

    native_size  side in pixels of the square window that the position grid was made for
    patch_size   side of a patch in pixels
    temperature  logits = cosine / temperature
    dtype_name   "float32", "bfloat16" or "float16"
    """

    def __init__(self, folder: Path, device: str = "auto", dtype: str = "auto", batch_size: int = 8) -> None:
        """Load the model in `folder` (config.json, model.safetensors, tokenizer.model).

        device      "auto" (CUDA before MPS before CPU), "cpu", "cuda", "cuda:1", "mps"
        dtype       "auto", "float32", "bfloat16", "float16"
        batch_size  windows that go through the vision tower at once

        Raises CheckpointError, DeviceError, UsageError.
        """
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is not positive")
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        if self.device.type == "cuda" and self.dtype == torch.float32:
            # By default cuDNN rounds the patch embedding's inputs to 10 bits, which moves cosines by up to 0.005.
            torch.backends.cudnn.allow_tf32 = False
        self.dtype_name = str(self.dtype).removeprefix("torch.")
        self.batch_size = batch_size
        self.model, self._tokenizer = checkpoint.load(folder, self.device, self.dtype)
        config = self.model.config
        self.native_size = config.vision.image_size
        self.patch_size = config.vision.patch_size
        self.temperature = config.temperature

    @torch.inference_mode()
    def text_vectors(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Unit vectors of the phrases, [P, D] float32 on the device.

        Each phrase is filled into each template; the embeddings are normalised, averaged and normalised again (the
        zero-shot segmentation protocol of TIPSv2).
        """
        texts = [template.replace("{}", phrase) for phrase in phrases for template in templates]
        pooled = []
        for start in range(0, len(texts), _TEXT_BATCH):
            tokens = self._tokenizer(texts[start : start + _TEXT_BATCH])
            ids, lengths = tokens.ids.to(self.device), tokens.lengths.to(self.device)
            pooled.append(F.normalize(self.model.text_encoder(ids, lengths).float(), dim=-1))
        vectors = torch.cat(pooled).view(len(phrases), len(templates), -1)  # [P, templates, D]
        return F.normalize(vectors.mean(1), dim=-1)  # [P, D]

    @torch.inference_mode()
    def window_cosines(
        self, image: NDArray[np.uint8], corners: Sequence[tuple[int, int]], side: int, vectors: Tensor
    ) -> Tensor:
        """Cosine of every patch of every window with every phrase, [windows, P, h, w] float32 on the device.

        image    [H, W, 3] uint8 RGB
        corners  (top, left) of the square windows of `side` pixels
        vectors  [P, D], of unit length
        """
        batches = []
        for start in range(0, len(corners), self.batch_size):
            cut = [
                image[top : top + side, left : left + side] for top, left in corners[start : start + self.batch_size]
            ]
            batches.append(self._cosines(self._to_pixels(np.stack(cut)), vectors))
        return torch.cat(batches)

    @torch.inference_mode()
    def whole_cosines(self, image: NDArray[np.uint8], size: tuple[int, int], vectors: Tensor) -> Tensor:
        """Cosine of every patch of the image stretched to `size`, [P, h, w] float32 on the device.

        The stretch is bicubic and not clamped, as published.
        """
        pixels = self._to_pixels(image[None], torch.float32)
        if size != image.shape[:2]:
            pixels = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
        return self._cosines(pixels.to(self.dtype), vectors)[0]

    def _cosines(self, pixels: Tensor, vectors: Tensor) -> Tensor:
        values = self.model.vision_encoder.value_features(pixels).float()  # [B, h, w, D]
        return (F.normalize(values, dim=-1) @ vectors.T).permute(0, 3, 1, 2).contiguous()  # [B, P, h, w]

    def _to_pixels(self, images: NDArray[np.uint8], dtype: torch.dtype | None = None) -> Tensor:
        """[B, H, W, 3] uint8 -> [B, 3, H, W] in [0, 1]."""
        # torch warns of arrays that are not writable, such as Pillow's.
        tensor = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device)
        return (tensor.permute(0, 3, 1, 2).to(torch.float32) / 255).to(dtype or self.dtype).contiguous()
