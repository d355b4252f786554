"""What student and teacher see of a batch of images: the whole crop and local crops, their captions, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tinytips.data.store import Store
from tinytips.recipe.dense import SAMPLES, Question, ask
from tinytips.recipe.network import PATCH
from tinytips.recipe.step import Recipe

#: Local crops of each image, and their area in shares of the whole crop's.
LOCAL_CROPS, LOCAL_AREA = 2, (0.1, 0.4)
#: Side of the whole crop in shares of the image's short side.
WHOLE_SIDE = (0.75, 1.0)

Pixels = NDArray[np.uint8]
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """A batch.

    whole      [B, side, side, 3] uint8
    crops      [M, B, local, local, 3] uint8, parts of `whole`; none where the recipe does not distil
    alt        B texts for CLS1
    synthetic  B texts for CLS2
    question   about `whole`, where the recipe has a dense loss
    """

    whole: Pixels
    crops: Pixels
    alt: list[str]
    synthetic: list[str]
    question: Question | None


def local_side(side: int) -> int:
    """The side of the local crops, in whole patches: three eighths of the whole one's, as the paper's 98 of 224 nearly are."""
    return side * 3 // 8 // PATCH * PATCH


def make_views(store: Store, seed: tuple[int, int], count: int, side: int, recipe: Recipe) -> Views:
    """A batch that depends on nothing but the store and what is asked for.

    Crops are resized at random, as in the paper; they are not mirrored, as captions speak of left and right.
    """
    rng = np.random.default_rng(seed)
    chosen = [int(index) for index in rng.integers(0, len(store.records), count)]
    whole = np.empty((count, side, side, 3), np.uint8)
    local = local_side(side)
    crops = np.empty((LOCAL_CROPS if recipe.distils else 0, count, local, local, 3), np.uint8)
    truth = np.empty((count, SAMPLES, SAMPLES), np.uint8)
    synthetic = []
    for row, index in enumerate(chosen):
        image = store.image(index)
        edge = round(store.short * rng.uniform(*WHOLE_SIDE))
        where = _part(rng, image, edge)
        part = image[where]
        whole[row] = _resized(part, side)
        for crop in crops[:, row]:
            inner = _part(rng, part, max(round(edge * rng.uniform(*LOCAL_AREA) ** 0.5), 1))
            crop[:] = _resized(part[inner], local)
        if recipe.dense:
            at = ((np.arange(SAMPLES) + 0.5) * edge / SAMPLES).astype(int)
            truth[row] = store.truth(index)[where][np.ix_(at, at)]
        texts = store.records[index].captions
        synthetic.append(texts.long if recipe.captions == "mixed" and rng.random() < 0.5 else texts.medium)
    alt = [store.records[index].captions.alt for index in chosen]
    return Views(whole, crops, alt, synthetic, ask(rng, truth) if recipe.dense else None)


def _part(rng: np.random.Generator, image: Pixels, edge: int) -> tuple[slice, slice]:
    height, width = image.shape[:2]
    top, left = rng.integers(0, height - edge + 1), rng.integers(0, width - edge + 1)
    return slice(top, top + edge), slice(left, left + edge)


def _resized(image: Pixels, side: int) -> Pixels:
    method = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=method), np.uint8)


def ahead(make: Callable[[int], _Made], first: int, last: int) -> Iterator[_Made]:
    """make(first), ..., make(last - 1), made in a thread, three ahead."""
    cv2.setNumThreads(0)
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(make, step) for step in range(first, min(first + 3, last))]
        for step in range(first, last):
            made = waiting.pop(0).result()
            if step + 3 < last:
                waiting.append(pool.submit(make, step + 3))
            yield made
