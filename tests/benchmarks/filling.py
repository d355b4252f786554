"""Measure how full the batches of a GPU are, with a simulated device: threads decode, one thread encodes and scores.

    python tests/benchmarks/filling.py

The device computes batches of eight windows one after another, as a stream does, while the host goes on. Prints a table in
Markdown: the windows of a batch, and images a second beside those of the device alone. Times are slept, so two cores suffice.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from tipsseg.engine.stages import run_stages
from tipsseg.labelling.features import Batches
from tipsseg.labelling.source import FeatureSource
from tipsseg.labelling.view import Prepared
from tipsseg.types import ImageRef, WindowPlan

_BATCH, _WINDOWS = 8, 2
_PLAN = WindowPlan((8, 12), 8, ((0, 0), (0, 4)))


class SimulatedDevice:
    """A backbone whose device takes `seconds` for a batch, and whose host takes `host` to launch one.

    Attributes:
        sizes: The numbers of windows in the batches.
        free: The time at which it will have computed all of them.
    """

    batch_size = _BATCH

    def __init__(self, seconds: float, host: float, jitter: float, *, tells: bool) -> None:
        self.sizes = list[int]()
        self._seconds, self._host, self._jitter, self._tells = seconds, host, jitter, tells
        self.free = 0.0

    def encode_windows(self, windows: Sequence[Any]) -> Any:
        self.sizes.append(len(windows))
        time.sleep(self._host)
        taken = self._seconds * (1 + random.uniform(-self._jitter, self._jitter))
        self.free = max(self.free, time.monotonic()) + taken
        patches = torch.zeros(len(windows), 1, 1, 1)
        return SimpleNamespace(patches=patches, class_tokens=patches[:, 0])

    def at_device(self, _: str) -> AbstractContextManager[None]:
        return nullcontext()

    def is_busy(self) -> bool:
        return self._tells and time.monotonic() < self.free


class SimulatedSource:
    """Decodes an image in `seconds`; see FeatureSource."""

    batch_size = _BATCH

    def __init__(self, device: SimulatedDevice, seconds: float) -> None:
        self._device, self._seconds = device, seconds
        pixels = np.zeros((8, 12, 3), np.uint8)
        self._prepared = Prepared((8, 12), pixels, _PLAN)

    def load(self, ref: ImageRef) -> Any:
        time.sleep(self._seconds)
        return SimpleNamespace(ref=ref, missing=self._prepared)

    def batches(self) -> Batches[Any]:
        return Batches(cast(Any, self._device))

    def merge(self, loaded: Any, features: Any) -> tuple[list[Any], list[Any]]:
        return [], []

    def save(self, pending: Any) -> None:
        pass


def measure(device: SimulatedDevice, images: int, decoding: float, scoring: float, gap: float, jobs: int) -> float:
    """Run images through the stages, and return the images a second. `gap` is the time between names in a slow list."""

    def listed() -> Iterator[ImageRef]:
        for number in range(images):
            time.sleep(gap)
            yield ImageRef(Path(f"{number}.png"), PurePosixPath(f"{number}.png"))

    def score(_: Any) -> float:
        time.sleep(scoring)
        return device.free

    def finish(loaded: Any, computed: float) -> Any:
        time.sleep(max(computed - time.monotonic(), 0))
        return loaded.ref

    source = cast(FeatureSource[Any], SimulatedSource(device, decoding))
    began = time.monotonic()
    assert sum(1 for _ in run_stages(listed() if gap else iter([*listed()]), source, score, finish, jobs)) == images
    return images / (time.monotonic() - began)


#: Milliseconds: of the device for a batch, to launch one, to score an image, to decode one; the jitter; between names of a list.
CASES = (
    (8.0, 1.5, 0.5, 5.0, 0.0, 0.0),
    (12.7, 1.5, 0.5, 5.0, 0.0, 0.0),
    (8.0, 1.5, 0.5, 5.0, 0.5, 0.0),
    (8.0, 0.5, 0.1, 5.0, 0.0, 0.0),
    (8.0, 3.0, 1.0, 5.0, 0.0, 0.0),
    (8.0, 1.5, 0.5, 60.0, 0.0, 0.0),
    (8.0, 1.5, 0.5, 5.0, 0.0, 4.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill the batches of a simulated device.")
    parser.add_argument("--images", type=int, default=400, help="in each case")
    parser.add_argument("--jobs", type=int, default=16, help="threads that decode")
    options = parser.parse_args()
    times = "ms: batch, launch, score, decode, between names; jitter"
    print(f"| {times} | windows a batch | images a second | device alone | without asking the device |")
    print("|---|---|---|---|---|")
    for batch, launch, scoring, decoding, jitter, gap in CASES:
        found = []
        for tells in (True, False):
            random.seed(0)
            device = SimulatedDevice(batch / 1e3, launch / 1e3, jitter, tells=tells)
            speed = measure(device, options.images, decoding / 1e3, scoring / 1e3, gap / 1e3, options.jobs)
            found.append((sum(device.sizes) / len(device.sizes), speed))
        most = _BATCH / _WINDOWS / batch * 1e3
        (fill, speed), (fill_before, speed_before) = found
        print(
            f"| {batch:g}, {launch:g}, {scoring:g}, {decoding:g}, {gap:g}; {jitter:.0%} | {fill:.2f} | {speed:.0f} | {most:.0f} | "
            f"{fill_before:.2f}, {speed_before:.0f} |",
            flush=True,
        )
    print(f"\n{threading.active_count()} thread at the end.")


if __name__ == "__main__":
    main()
