"""Implement `Backbone` for TIPSv2: run its towers on one device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.devices import (
    MPS_LOCK,
    as_device_error,
    choose_cpu_dtype,
    free_memory,
    is_out_of_memory,
    lock_of,
    record_event,
    resolve_device,
    resolve_dtype,
    to_device,
)
from tipsseg.backbones.protocol import Backbone, WindowFeatures
from tipsseg.backbones.tipsv2.checkpoint import Checkpoint
from tipsseg.backbones.tipsv2.headers import read_headers
from tipsseg.backbones.tipsv2.inference import TowerInference
from tipsseg.backbones.tipsv2.int8 import round_to_int8
from tipsseg.backbones.tipsv2.text import TextTower, Tokens
from tipsseg.backbones.tipsv2.vision import VisionTower
from tipsseg.backbones.workers import Workers
from tipsseg.errors import DeviceError

#: Number of texts per pass of the text tower: on a GPU, and in a thread of a CPU.
_TEXT_BATCH, _THREAD_BATCH = 256, 64

#: What the memory of a device does not suffice for, and the hint.
_ONE_WINDOW = ("for one window", "Use device cpu, or another dtype.")
_MODEL = ("for the model", "Use a smaller model, another dtype, or device cpu.")


class Tipsv2Backbone(Backbone):
    """A TIPSv2 model on a device.

    Both class tokens were trained on captions of whole images: the first on web alt-texts, the second (the register) on
    synthetic captions.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        *,
        lazy: bool = False,
    ) -> None:
        """Load the model from a folder.

        Args:
            folder: The folder that contains config.json, model.safetensors and tokenizer.model.
            device: "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", "cuda:1" or "mps".
            dtype: "auto", "float32", "bfloat16", "float16" or, on a CPU, "int8". There, see
                `choose_cpu_dtype` for "auto".
            batch_size: Windows per pass of the vision tower on a GPU. None: 8, or 2 on MPS: a photograph has two windows, and a
                batch is padded. On a CPU each thread encodes one window at a time (see `Workers`).
            lazy: Load a tower only when it is first used. Then only config.json and the header of model.safetensors are checked
                here.

        Raises:
            CheckpointError: The files are not a TIPSv2 model.
            DeviceError: The device or the dtype is not available.
            UsageError: The device or the dtype has an unknown name.
        """
        place = resolve_device(device)
        self.dtype = resolve_dtype(dtype, place)
        config, _ = read_headers(folder)
        if dtype == "auto" and place.type == "cpu":
            self.dtype, self.dtype_reason = choose_cpu_dtype(config.vision.hidden_size)
        dtype_name = "int8" if dtype == "int8" else str(self.dtype).removeprefix("torch.")
        super().__init__(folder, str(place), dtype_name, config.sizes)
        if place.type == "mps":
            self.at_work = MPS_LOCK
        self._workers = Workers()
        self._encoded: torch.cuda.Event | torch.mps.Event | None = None  # done once the last batch is computed
        # On a CPU, batching would make a window's features depend on the other windows, so threads encode single windows
        # instead.
        self.batch_size = 1 if place.type == "cpu" else batch_size or (2 if place.type == "mps" else 8)
        if not lazy:
            self._tower, self.text_encoder  # noqa: B018  load both now, so that their errors are raised here

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.folder)

    @cached_property
    def vision_encoder(self) -> VisionTower:
        """The vision tower. A lazy model loads it on first access, which may raise CheckpointError."""
        with as_device_error(self.device, *_MODEL), lock_of(self.device):
            tower = self._checkpoint.read_vision(self.device, self.dtype)
        if self.dtype_name == "int8":
            round_to_int8(tower)
        return tower

    @cached_property
    def text_encoder(self) -> TextTower:
        """The text tower. A lazy model loads it on first access, which may raise CheckpointError.

        On a Mac it runs on the CPU: some versions of MPS attend to wrong places with few queries.
        """
        if self.device.type == "mps":
            return self._checkpoint.read_text(torch.device("cpu"), torch.float32)
        with as_device_error(self.device, *_MODEL):
            return self._checkpoint.read_text(self.device, self.dtype)

    @cached_property
    def _tower(self) -> TowerInference:
        return TowerInference(self.vision_encoder, self._workers)

    @torch.inference_mode()
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        # The zero-shot segmentation protocol of TIPSv2: normalise the vector of each template, average them, normalise again.
        tokens = self._checkpoint.tokenizer(
            [template.replace("{}", phrase) for phrase in phrases for template in templates]
        )
        tower = self.text_encoder
        device = torch.device("cpu") if self.device.type == "mps" else self.device
        with self.at_work if self.device.type == "cpu" else self.at_device("for the phrases"):
            vectors = self._encode_tokens(tower, tokens, device)
            vectors = vectors.view(len(phrases), len(templates), -1)  # [P, templates, D]
            return F.normalize(vectors.mean(1), dim=-1).to(self.device)  # [P, D]

    def _encode_tokens(self, tower: TextTower, tokens: Tokens, device: torch.device) -> Tensor:
        """Return the unit vector of each text, [T, D]."""
        # Batch texts of equal length: padding would be a fifth of the work, and no text may depend on longer ones.
        size, threads = (_THREAD_BATCH, self._workers.count) if device.type == "cpu" else (_TEXT_BATCH, 1)
        batches = [
            batch
            for length in tokens.lengths.unique().tolist()
            for batch in torch.nonzero(tokens.lengths == length)[:, 0].split(size)
        ]

        @torch.inference_mode()
        def encode(batch: Tensor) -> Tensor:
            lengths = tokens.lengths[batch]
            ids = tokens.ids[batch, : max(int(lengths[0]), 1)]
            return F.normalize(tower(ids.to(device), lengths.to(device)).float(), dim=-1)  # [B, D]

        # On a CPU, a thread for each batch: sums of several threads differ by their number.
        parts = self._workers.map(encode, batches, threads)
        vectors = torch.empty(len(tokens.ids), self.embed_dim, device=device)
        for batch, part in zip(batches, parts, strict=True):
            vectors[batch.to(device)] = part
        return vectors

    @torch.inference_mode()
    def encode_windows(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures:
        self._tower  # noqa: B018  load a lazy tower before the threads start
        in_threads = self.device.type == "cpu" and self.batch_size == 1
        parts = self._encode_in_threads(windows) if in_threads else self._encode_in_batches(windows)
        if len(parts) == 1:
            return parts[0]
        with self.at_device("for the features"):
            return WindowFeatures(
                torch.cat([part.patches for part in parts]), torch.cat([part.class_tokens for part in parts])
            )

    @torch.inference_mode()
    def encode_whole(self, image: NDArray[np.uint8], size: tuple[int, int]) -> WindowFeatures:
        height, width = size
        purpose = f"to encode {width} x {height} pixels in one piece"
        hint = "Use mode slide, a smaller short side, or device cpu."
        with as_device_error(self.device, purpose, hint), self.at_work:
            pixels = self._to_pixels(image[None], torch.float32)
            if size != image.shape[:2]:  # bicubic without clamping, as published
                pixels = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
            return self._encode(pixels.to(self.dtype))

    def is_busy(self) -> bool:
        if self._encoded is None:
            return False
        with lock_of(self.device):
            return not self._encoded.query()

    def _encode_in_threads(self, windows: Sequence[NDArray[np.uint8]]) -> list[WindowFeatures]:
        with as_device_error(self.device, *_ONE_WINDOW), self.at_work:
            threads = self._workers.count
            full_rounds = len(windows) - len(windows) % threads
            parts = self._workers.map(self._encode_window, windows[:full_rounds], threads)
            if full_rounds < len(windows):
                parts.append(self._encode(self._to_pixels(np.stack(windows[full_rounds:]))))
            return parts

    @torch.inference_mode()
    def _encode_window(self, window: NDArray[np.uint8]) -> WindowFeatures:
        return self._encode(self._to_pixels(window[None]))

    def _encode_in_batches(self, windows: Sequence[NDArray[np.uint8]]) -> list[WindowFeatures]:
        parts: list[WindowFeatures] = []
        start = 0
        while start < len(windows):
            batch = windows[start : start + self.batch_size]
            features = self._encode_batch(batch)
            if features is None:
                self._halve_batch_size()
                continue
            parts.append(features)
            start += len(batch)
        return parts

    def _encode_batch(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures | None:
        """Return the features of one batch; None if the device runs out of memory."""
        # Pad every batch to full size: a GPU's summation order depends on the batch size, and labels must not depend on other
        # windows.
        padding = [np.zeros_like(windows[0])] * (self.batch_size - len(windows))
        try:
            with self.at_work:
                features = self._encode(self._to_pixels(np.stack([*windows, *padding])))
                self._encoded = record_event(self.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        return WindowFeatures(features.patches[: len(windows)], features.class_tokens[: len(windows)])

    def _halve_batch_size(self) -> None:
        # Call this outside the except block, in which the handled error still references the memory.
        self._tower.forget()
        free_memory(self.device)
        if self.batch_size == 1:
            purpose, hint = _ONE_WINDOW
            raise DeviceError(str(self.device), f"not enough memory on the device {purpose}", hint)
        self.batch_size //= 2
        self.on_less_memory(self.batch_size)

    def _encode(self, pixels: Tensor) -> WindowFeatures:
        patches, class_tokens = self._tower(pixels)
        return WindowFeatures(F.normalize(patches.float(), dim=-1), F.normalize(class_tokens.float(), dim=-1))

    def _to_pixels(self, images: NDArray[np.uint8], dtype: torch.dtype | None = None) -> Tensor:
        """[B, H, W, 3] uint8 -> [B, 3, H, W] in [0, 1]."""
        # torch warns about read-only arrays, and Pillow's are read-only.
        tensor = to_device(np.require(images, requirements=["C", "W"]), self.device)
        return (tensor.permute(0, 3, 1, 2).to(torch.float32) / 255).to(dtype or self.dtype).contiguous()
