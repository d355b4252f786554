"""Images go in, their cosines come out: windows of several images share a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.labelling.labeller import Labeller
from tipsseg.labelling.prepare import Prepared


class HasPrepared(Protocol):
    """Whatever carries a prepared image."""

    @property
    def prepared(self) -> Prepared:
        """The image."""


Batched = TypeVar("Batched", bound=HasPrepared)


@dataclass(slots=True)
class _Partly(Generic[Batched]):
    """An image whose windows are not all encoded yet, and what is there of its cosines, [h, w, P] each."""

    image: Batched
    windows: int
    cosines: list[Tensor] = field(default_factory=list)


class Batches(Generic[Batched]):
    """The model as a queue: images leave it in the order they came, as soon as their last window was in a full batch."""

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        self._windows: deque[NDArray[np.uint8]] = deque()
        self._images: deque[_Partly[Batched]] = deque()

    def add(self, image: Batched) -> Iterator[tuple[Batched, Tensor]]:
        """Take an image; those that it completes, each with its cosines as `Labeller.encode` makes them."""
        windows = self._labeller.windows(image.prepared)
        if not windows:  # as a whole, at a size of its own
            yield image, self._labeller.encode(image.prepared)
            return
        self._images.append(_Partly(image, len(windows)))
        self._windows.extend(windows)
        yield from self._run(self._labeller.encoder.batch_size)

    def flush(self) -> Iterator[tuple[Batched, Tensor]]:
        """Encode what waits for a full batch; the images that were not complete."""
        return self._run(1)

    def _run(self, least: int) -> Iterator[tuple[Batched, Tensor]]:
        encoder = self._labeller.encoder
        while len(self._windows) >= least:
            batch = [self._windows.popleft() for _ in range(min(encoder.batch_size, len(self._windows)))]
            for cosines in encoder.window_cosines(batch, self._labeller.vectors):
                first = self._images[0]
                first.cosines.append(cosines)
                if len(first.cosines) == first.windows:
                    yield self._images.popleft().image, torch.stack(first.cosines)
