"""Images and phrases -> vectors, on one device: the only place that runs the towers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.devices import resolve_device, resolve_dtype
from tipsseg.backbones.tipsv2 import checkpoint
from tipsseg.backbones.tipsv2.inference import ValueFeatures
from tipsseg.errors import DeviceError, UsageError
from tipsseg.util.printable import quoted

#: Texts that go through the text tower at once.
_TEXT_BATCH = 256


class Encoder:
    """A TIPSv2 model on a device.

    folder           that the model was loaded from
    native_size      side in pixels of the square window that the position grid was made for
    patch_size       side of a patch in pixels
    width            D, of the text vectors and of the features that they are compared with
    temperature      logits = cosine / temperature
    dtype_name       "float32", "bfloat16" or "float16"
    batch_size       windows that go through the vision tower at once
    on_less_memory   is told the new batch size where the device ran out of memory and it was halved
    at_work          whoever computes with torch holds it: on a CPU, threads of torch that compete wait for each other in vain
    """

    def __init__(self, folder: Path, device: str = "auto", dtype: str = "auto", batch_size: int = 8) -> None:
        """Load the model in `folder` (config.json, model.safetensors, tokenizer.model).

        device      "auto" (CUDA before MPS before CPU), "cpu", "cuda", "cuda:1", "mps"
        dtype       "auto", "float32", "bfloat16", "float16"
        batch_size  windows that go through the vision tower of a GPU at once; a CPU takes one, which is as fast there

        Raises CheckpointError, DeviceError, UsageError.
        """
        check_batch_size(batch_size)
        self.folder = folder
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        if self.device.type == "cuda" and self.dtype == torch.float32:
            # By default cuDNN rounds the patch embedding's inputs to 10 bits, which moves cosines by up to 0.005.
            torch.backends.cudnn.allow_tf32 = False
        self.dtype_name = str(self.dtype).removeprefix("torch.")
        # One window fills a CPU. Then its features do not depend on the batch, and all of the tower stays in the cache.
        self.batch_size = 1 if self.device.type == "cpu" else batch_size
        self.on_less_memory: Callable[[int], None] = lambda _: None
        self.at_work = threading.Lock()
        self.model, self._tokenizer = checkpoint.load(folder, self.device, self.dtype)
        self._features = ValueFeatures(self.model.vision_encoder)
        config = self.model.config
        self.native_size = config.vision.image_size
        self.patch_size = config.vision.patch_size
        self.width = config.text.hidden_size
        self.temperature = config.temperature

    @torch.inference_mode()
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Unit vectors of the phrases, [P, D] float32 on the device.

        Each phrase is filled into each template; the embeddings are normalised, averaged and normalised again (the
        zero-shot segmentation protocol of TIPSv2).
        """
        tokens = self._tokenizer([template.replace("{}", phrase) for phrase in phrases for template in templates])
        vectors = torch.empty(len(tokens.ids), self.width, device=self.device)
        # Texts of one length together: no text is padded, which is a fifth of the work, and none depends on longer ones.
        for length in tokens.lengths.unique().tolist():
            for batch in torch.nonzero(tokens.lengths == length)[:, 0].split(_TEXT_BATCH):
                ids, lengths = (
                    tokens.ids[batch, : max(length, 1)].to(self.device),
                    tokens.lengths[batch].to(self.device),
                )
                pooled = self.model.text_encoder(ids, lengths).float()  # [B, D]
                vectors[batch.to(self.device)] = F.normalize(pooled, dim=-1)
        vectors = vectors.view(len(phrases), len(templates), -1)  # [P, templates, D]
        return F.normalize(vectors.mean(1), dim=-1)  # [P, D]

    @torch.inference_mode()
    def window_cosines(self, windows: Sequence[NDArray[np.uint8]], vectors: Tensor) -> Tensor:
        """Cosine of every patch of every window with every phrase, [B, h, w, P] float32 on the device.

        windows  [side, side, 3] uint8 RGB each
        vectors  [P, D], of unit length

        A GPU may still be at it when this returns. Raises DeviceError where its memory does not even hold one window.
        """
        parts: list[Tensor] = []
        start = 0
        while start < len(windows):
            batch = windows[start : start + self.batch_size]
            cosines = self._batch_cosines(batch, vectors)
            if cosines is None:
                self._halve()
                continue
            parts.append(cosines)
            start += len(batch)
        return torch.cat(parts)

    @torch.inference_mode()
    def whole_cosines(self, image: NDArray[np.uint8], size: tuple[int, int], vectors: Tensor) -> Tensor:
        """Cosine of every patch of the image stretched to `size`, [h, w, P] float32 on the device.

        The stretch is bicubic and not clamped, as published. Raises DeviceError where memory does not hold it.
        """
        try:
            with self.at_work:
                pixels = self._to_pixels(image[None], torch.float32)
                if size != image.shape[:2]:
                    pixels = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
                return self._cosines(pixels.to(self.dtype), vectors)[0]
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            height, width = size
            raise DeviceError(
                str(self.device),
                f"not enough memory on the device for an image of {width} x {height} pixels as a whole",
                "Use mode slide, a smaller short side, or device cpu.",
            ) from None

    def _batch_cosines(self, windows: Sequence[NDArray[np.uint8]], vectors: Tensor) -> Tensor | None:
        """`window_cosines` of one batch; None where there is not enough memory."""
        # Always as many: how a GPU adds up depends on the size of the batch, and labels must not depend on who shares it.
        filling = [np.zeros_like(windows[0])] * (self.batch_size - len(windows))
        try:
            with self.at_work:
                return self._cosines(self._to_pixels(np.stack([*windows, *filling])), vectors)[: len(windows)]
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            return None

    def _halve(self) -> None:
        # Not while the error is handled, as what it refers to holds the memory.
        self._features.forget()
        if self.device.type == "mps":
            torch.mps.empty_cache()
        else:
            torch.cuda.empty_cache()
        if self.batch_size == 1:
            raise DeviceError(
                str(self.device),
                "not enough memory on the device for one window",
                "Use device cpu, or another dtype.",
            )
        self.batch_size //= 2
        self.on_less_memory(self.batch_size)

    def _cosines(self, pixels: Tensor, vectors: Tensor) -> Tensor:
        values = self._features(pixels).float()  # [B, h, w, D]
        return F.normalize(values, dim=-1) @ vectors.T  # [B, h, w, P]

    def _to_pixels(self, images: NDArray[np.uint8], dtype: torch.dtype | None = None) -> Tensor:
        """[B, H, W, 3] uint8 -> [B, 3, H, W] in [0, 1]."""
        # torch warns of arrays that are not writable, such as Pillow's.
        tensor = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device)
        return (tensor.permute(0, 3, 1, 2).to(torch.float32) / 255).to(dtype or self.dtype).contiguous()


def check_batch_size(size: int) -> None:
    """Raise UsageError for what is no number of windows."""
    if type(size) is not int or size < 1:
        raise UsageError(f"batch size must be a whole number from 1 on, not {quoted(size)}")


def _out_of_memory(error: RuntimeError) -> bool:
    # The class that CUDA raises has had several names; MPS and CPU have none.
    return any(words in str(error) for words in ("out of memory", "can't allocate memory"))
