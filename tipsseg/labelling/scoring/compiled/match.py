"""Find labels with loops that numba compiles, if it is installed. They take 0.25 to 0.7 times as long as `assign.match`.

The loops trade exactness for speed. If the second score of a pixel is so close to the best that rounding may have decided, the
pixel is scored again with the operations of `assign.match`. So labels are the same with and without numba. The confidence may
differ slightly, because the share of groups that are not close to the best is computed at the size of the resized image.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scoring import assign, candidates
from tipsseg.labelling.scoring.assign import Assignment, LabelTable, allocate_confidence
from tipsseg.labelling.scoring.compiled.inputs import Axis, Limits, Windows
from tipsseg.labelling.scoring.resample import Ids, Values
from tipsseg.labelling.scoring.scores import Scores, WindowScores, grid_weights
from tipsseg.labelling.scoring.tiles import Part, Span
from tipsseg.labelling.scoring.winners import merge_names
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights
from tipsseg.types import BACKGROUND, LabelArray, WindowPlan
from tipsseg.util.files import cache_folder

#: Environment variable that disables numba if set to 0.
SWITCH = "TIPSSEG_NUMBA"

#: Relative distance of the second score from the best at which a pixel is scored again. For cosines up to _LARGEST, the scores
#: of the loops and of `assign.match` differ by at most a tenth of it.
_TIE, _LARGEST = 1e-5, 8.0

#: With a larger share of unsure pixels, as for two phrases with the same vector, `assign.match` is faster.
_MOST_UNSURE = 1 / 32

#: Rows of the image per step.
_BAND = 512

#: Pixels times phrases per rescoring step.
_AGAIN = 1 << 17


_loading = threading.Lock()


def load_loops() -> ModuleType | None:
    """Load the loops. Return None if numba is not installed, does not work, or is disabled.

    On first use, numba compiles the loops, which takes a few seconds, and stores them in the cache of tipsseg.
    """
    with _loading:
        return _load()


@cache
def _load() -> ModuleType | None:
    folder = _loops_folder()
    if folder is None:
        return None
    try:
        from numba.core import config
        from numba.core.errors import NumbaError
    except ImportError:  # numba does not support this version of numpy
        return None
    try:
        # The folder depends on the content of all files, because numba checks only the file of the outermost loop for changes.
        before = config.CACHE_DIR  # type: ignore[attr-defined]
        config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
        try:
            from tipsseg.labelling.scoring.compiled import tiles
        finally:
            config.CACHE_DIR = before  # type: ignore[attr-defined]
        sample = WindowScores(np.zeros((1, 1, 1, 1), np.float32), WindowPlan((14, 14), 14, ((0, 0),)), 1.0)
        _match(tiles, sample, (14, 14), LabelTable([1], np.zeros(1, np.uint8), np.zeros(1, np.float32), 0))
    except (NumbaError, RuntimeError, OSError):
        # This version of numba cannot compile the loops, the cache is not writable, or the disk is full.
        return None
    return tiles


def needs_compilation() -> bool:
    """Return True if the loops are not cached, so that their first use takes a few seconds."""
    folder = _loops_folder()
    return folder is not None and not folder.exists()


def _loops_folder() -> Path | None:
    """Return the cache folder of the loops of this version; None if numba is disabled, or the cache is not writable."""
    cache = cache_folder()
    if os.environ.get(SWITCH) == "0" or cache is None or find_spec("numba") is None:
        return None
    files = sorted(Path(__file__).parent.glob("*.py"))
    folder = cache / "numba" / hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    # If the folder is not writable, numba falls back to one in the package, which ignores changes of the other files.
    return folder if existing.is_dir() and os.access(existing, os.W_OK) else None


def match(scores: Scores, size: tuple[int, int], table: LabelTable) -> Assignment:
    """Find labels like `assign.match`, but faster in "slide" mode if numba is installed.

    Args:
        scores: The scores of the phrases.
        size: (H, W) of the image.
        table: Groups and label ids of the phrases.

    Returns:
        The label and the confidence of every pixel.
    """
    return _try_loops(scores, size, table, None) or assign.match(scores, size, table)


def match_part(
    scores: Scores, size: tuple[int, int], table: LabelTable, inner: tuple[int, int, int, int]
) -> Assignment:
    """Find labels like `assign.match_part`, but faster in "slide" mode if numba is installed."""
    found = _try_loops(scores, size, table, None)
    return assign.match_part(scores, size, table, inner) if found is None else assign.crop(found, inner)


def match_first(scores: Scores, size: tuple[int, int], table: LabelTable, parts: Sequence[Part]) -> Assignment:
    """Find where group 0 wins like `assign.match_first`, but faster in "slide" mode if numba is installed."""
    return _try_loops(scores, size, table, parts) or assign.match_first(scores, size, table, parts)


def _try_loops(
    scores: Scores, size: tuple[int, int], table: LabelTable, parts: Sequence[Part] | None
) -> Assignment | None:
    if isinstance(scores, WindowScores) and np.abs(scores.cosines).max() <= _LARGEST and (tiles := load_loops()):
        return _match(tiles, scores, size, table, parts)
    return None


def _match(
    tiles: ModuleType,
    scores: WindowScores,
    size: tuple[int, int],
    table: LabelTable,
    parts: Sequence[Part] | None = None,
) -> Assignment | None:
    """Find labels with the loops, in the rows of `parts` or everywhere. Return None if too many pixels are unsure."""
    temperature = scores.temperature
    windows = _prepare_windows(scores)
    rows, columns = grid_weights(scores.size, size)
    tile = tuple(
        min(max((limit - 3) * length // source, 1), tiles.TILE)
        for limit, source, length in zip(tiles.SOURCE_TILE, scores.size, size, strict=True)
    )
    owners = np.repeat(np.arange(len(table.groups), dtype=np.uint32), table.groups)
    close, negligible = candidates.CLOSE * temperature, candidates.NEGLIGIBLE * temperature
    limits = Limits(
        *map(np.float32, (max(candidates.ROUNDING, close), negligible, candidates.ROUNDING, temperature, 1 - _TIE))
    )
    labels, confidence = np.empty(size, table.label_ids.dtype), allocate_confidence(size)
    step = max(_BAND // tile[0], 1) * tile[0] if parts is None else tile[0]
    for start in range(0, size[0], step):
        band = slice(start, min(start + step, size[0]))
        if parts is not None and not any(_touches(part.inner, band) for part in parts):
            labels[band], confidence[band] = BACKGROUND, 0
            continue
        shape = band.stop - start, size[1]
        winners, share, unsure = np.empty(shape, np.uint32), np.empty(shape, np.float32), np.empty(shape, bool)
        down = rows.part(band.start, band.stop)
        tiles.label_rows(windows, _axis(down), _axis(columns), tile, owners, limits, winners, share, unsure)
        if unsure.mean() > _MOST_UNSURE:
            return None
        _rescore_unsure(scores, down, columns, owners, unsure, winners)
        labels[band] = table.labels(np.arange(len(table.groups)), winners, share)
        confidence[band] = share
    return Assignment(cast(LabelArray, labels), confidence)


def _touches(span: Span, band: slice) -> bool:
    rows, _ = span
    return bool(rows.start < band.stop and band.start < rows.stop)


def _prepare_windows(scores: WindowScores) -> Windows:
    cosines, side = np.ascontiguousarray(scores.cosines), scores.plan.side
    for window in range(len(cosines)):
        scores.factor(window, slice(0, side))
    corners, axis = np.array(scores.plan.corners, np.int64), _axis(interpolation_weights(cosines.shape[1], side))
    return Windows(cosines, np.ascontiguousarray(cosines.transpose(0, 3, 1, 2)), scores.factors, corners, axis)


def _axis(weights: InterpolationWeights) -> Axis:
    return Axis(weights.low.astype(np.uint32), weights.high.astype(np.uint32), weights.weight)


def _rescore_unsure(
    scores: WindowScores,
    rows: InterpolationWeights,
    columns: InterpolationWeights,
    owners: NDArray[np.uint32],
    unsure: NDArray[np.bool_],
    winners: NDArray[np.uint32],
) -> None:
    """Write the exact winners of unsure pixels to `winners`. Both are [H, W], the size that `rows` and `columns` resize to."""
    pixels = np.argwhere(unsure)
    step = max(_AGAIN // len(owners), 1)
    for start in range(0, len(pixels), step):
        y, x = pixels[start : start + step].T

        def interpolate_columns(source: Ids, x: Ids = x) -> Values:
            low, high = (scores.at(source, index[x]) for index in (columns.low, columns.high))
            return (high - low) * columns.weight[x] + low  # [P, n]

        upper, lower = interpolate_columns(rows.low[y]), interpolate_columns(rows.high[y])
        values, groups = merge_names((lower - upper) * rows.weight[y] + upper, owners.astype(np.intp))
        winners[y, x] = groups[values.argmax(0)]
