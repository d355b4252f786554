"""Many images: decoding ahead in threads, labelling in order, writing, and going on after a bad image."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError
from tipsseg.images import open_image
from tipsseg.labeller import Labeller, Prepared
from tipsseg.records import ImageRef, LabelMap
from tipsseg.writers import Writer


@dataclass(frozen=True, slots=True)
class RunCounts:
    """How a run ended: images labelled, images that failed."""

    labelled: int
    failed: int


class Reporter(Protocol):
    """Hears of each image as soon as it is done."""

    def labelled(self, ref: ImageRef, label_map: LabelMap, paths: Sequence[Path]) -> None:
        """An image is labelled and `paths` are in place."""

    def failed(self, ref: ImageRef, error: ImageError) -> None:
        """An image could not be read or taken."""


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    image: NDArray[np.uint8]
    prepared: Prepared


def label_images(
    refs: Sequence[ImageRef], labeller: Labeller, writers: Sequence[Writer], reporter: Reporter, jobs: int
) -> RunCounts:
    """Label `refs` in their order and write each result; `jobs` threads decode ahead.

    An image that cannot be read, or that a writer cannot take, is reported and left out, by the writers after that one too. Other
    errors end the run; the writers are then aborted. Closing them after a whole run is the caller's.
    """
    labelled = failed = 0
    try:
        for index, (ref, loading) in enumerate(_load_ahead(refs, labeller, jobs)):
            try:
                loaded = loading.result()
            except ImageError as error:
                failed += 1
                reporter.failed(ref, error)
                continue
            label_map = labeller.label_prepared(loaded.prepared)
            try:
                written = [writer.write(ref, loaded.image, label_map, index) for writer in writers]
            except ImageError as error:
                failed += 1
                reporter.failed(ref, error)
                continue
            labelled += 1
            reporter.labelled(ref, label_map, [path for path in written if path is not None])
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    return RunCounts(labelled, failed)


def _load_ahead(refs: Sequence[ImageRef], labeller: Labeller, jobs: int) -> Iterator[tuple[ImageRef, Future[_Loaded]]]:
    """Each image with its pending pixels, in order; at most `jobs` + 1 images are in memory ahead of the one in use."""
    with ThreadPoolExecutor(jobs, thread_name_prefix="decode") as pool:
        pending: deque[tuple[ImageRef, Future[_Loaded]]] = deque()
        try:
            for ref in refs:
                pending.append((ref, pool.submit(_load, ref, labeller)))
                if len(pending) > jobs:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _load(ref: ImageRef, labeller: Labeller) -> _Loaded:
    image = open_image(ref.path)
    try:
        return _Loaded(image, labeller.prepare(image))
    except InputError as error:
        raise ImageError(ref.path, error.message, error.hint) from error
