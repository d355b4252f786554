"""Encode windows of several images in shared batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.encode import encode_prepared
from tipsseg.labelling.features import Features
from tipsseg.labelling.prepare import Prepared

if TYPE_CHECKING:
    from torch import Tensor

    from tipsseg.backbones.protocol import Backbone

Batched = TypeVar("Batched")


class Batches(Generic[Batched]):
    """Queue of images. An image leaves it, in order, once a full batch has encoded its last window."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._windows: deque[NDArray[np.uint8]] = deque()
        self._images: deque[_PendingImage[Batched]] = deque()

    def add(self, image: Batched, prepared: Prepared) -> Iterator[tuple[Batched, Features]]:
        """Add an image. Yield every image that is now complete with its features, which equal those of `Model.encode`.

        Args:
            image: Any object that identifies the image in the result.
            prepared: The prepared image.
        """
        windows = [scale.windows() for scale in prepared.scales]
        # Encode immediately in "whole" mode, and on a CPU, which divides its threads between the windows of a single image.
        if not windows[0] or (self._backbone.batch_size == 1 and not self._images):
            yield image, encode_prepared(self._backbone, prepared)
            return
        self._images.append(_PendingImage(image, prepared))
        self._windows.extend(chain.from_iterable(windows))
        yield from self._run(self._backbone.batch_size)

    def flush(self) -> Iterator[tuple[Batched, Features]]:
        """Encode the remaining windows, and yield the remaining images with their features."""
        return self._run(1)

    def _run(self, at_least: int) -> Iterator[tuple[Batched, Features]]:
        backbone = self._backbone
        while len(self._windows) >= at_least:
            batch = [self._windows.popleft()]
            # A scale below the model's native size has smaller windows, which cannot share a batch with larger ones.
            while self._windows and len(batch) < backbone.batch_size and self._windows[0].shape == batch[0].shape:
                batch.append(self._windows.popleft())
            encoded = backbone.encode_windows(batch)
            for window in zip(encoded.patches, encoded.class_tokens, strict=True):
                if (features := self._images[0].add_window(*window)) is not None:
                    yield self._images.popleft().image, features


class _PendingImage(Generic[Batched]):
    """An image with windows that are not yet encoded."""

    def __init__(self, image: Batched, prepared: Prepared) -> None:
        self.image = image
        self._size = prepared.size
        self._plans = [scale.plan for scale in prepared.scales]
        self._scales: list[Features] = []
        self._done = 0

    def add_window(self, patches: Tensor, class_tokens: Tensor) -> Features | None:
        """Add the features of the next window, [h, w, D] and [C, D]. After the last, return the features of the image."""
        plan = self._plans[len(self._scales)]
        windows = len(plan.corners)
        if not self._done:
            self._patches = patches.new_empty(windows, *patches.shape)
            self._class_tokens = class_tokens.new_empty(windows, *class_tokens.shape)
        self._patches[self._done] = patches
        self._class_tokens[self._done] = class_tokens
        self._done += 1
        if self._done < windows:
            return None
        self._scales.append(Features(self._size, plan, self._patches, self._class_tokens))
        self._done = 0
        return Features.at_scales(self._scales) if len(self._scales) == len(self._plans) else None
