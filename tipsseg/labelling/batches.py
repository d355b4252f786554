"""Images go in, their features come out: windows of several images share a batch."""

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
    """The model as a queue: images leave it in the order they came, as soon as their last window was in a full batch."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._windows: deque[NDArray[np.uint8]] = deque()
        self._images: deque[_Partly[Batched]] = deque()

    def add(self, image: Batched, prepared: Prepared) -> Iterator[tuple[Batched, Features]]:
        """Take an image, and yield the images that are complete now, each with its features as `Model.encode` makes them.

        Args:
            image: Stands for the image in what is yielded.
            prepared: The image as the model sees it.
        """
        windows = [each.windows() for each in prepared.scales]
        # As a whole, at a size of its own; or where windows share no batch: a CPU divides its threads between those of an image.
        if not windows[0] or (self._backbone.batch_size == 1 and not self._images):
            yield image, encode_prepared(self._backbone, prepared)
            return
        self._images.append(_Partly(image, prepared))
        self._windows.extend(chain.from_iterable(windows))
        yield from self._run(self._backbone.batch_size)

    def flush(self) -> Iterator[tuple[Batched, Features]]:
        """Encode what waits for a full batch, and yield the images that were not complete."""
        return self._run(1)

    def _run(self, at_least: int) -> Iterator[tuple[Batched, Features]]:
        backbone = self._backbone
        while len(self._windows) >= at_least:
            batch = [self._windows.popleft()]
            # A scale below the model's native size has smaller windows, which share no batch with others.
            while self._windows and len(batch) < backbone.batch_size and self._windows[0].shape == batch[0].shape:
                batch.append(self._windows.popleft())
            encoded = backbone.encode_windows(batch)
            for window in zip(encoded.patches, encoded.class_tokens, strict=True):
                if (features := self._images[0].take(*window)) is not None:
                    yield self._images.popleft().image, features


class _Partly(Generic[Batched]):
    """An image whose windows are not all encoded yet."""

    def __init__(self, image: Batched, prepared: Prepared) -> None:
        self.image = image
        self._size = prepared.size
        self._plans = [each.plan for each in prepared.scales]
        self._scales: list[Features] = []
        self._done = 0

    def take(self, patches: Tensor, class_tokens: Tensor) -> Features | None:
        """Take the next window, [h, w, D] and [C, D]; return the features of the image once that was the last."""
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
