"""Match windows by loops in machine code, if numba is installed: the labels of `assign.match` in a fifth to a half of the time.

The loops are quick rather than exact. A pixel whose second score is so close to the best that rounding may have chosen the winner
is scored again, by the steps of `assign.match`. So labels do not depend on whether numba is there. The confidence does, as little
as `assign.match` says of its own: groups that are not close to the best have it from the image as the model sees it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.labelling.scoring import assign
from tipsseg.labelling.scoring.assign import Assignment, LabelTable, allocate_confidence, merge_names
from tipsseg.labelling.scoring.compiled.inputs import Axis, Limits, Windows
from tipsseg.labelling.scoring.resample import Values
from tipsseg.labelling.scoring.scores import Ids, Scores, WindowScores, count_windows, score_pixels
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights
from tipsseg.types import LabelArray, WindowPlan
from tipsseg.util.files import cache_folder

#: Set to 0, it leaves numba out.
SWITCH = "TIPSSEG_NUMBA"

#: Relative to the best, scores of the loops and of `assign.match` differ by a tenth of that at most, for cosines up to _LARGEST.
_TIE, _LARGEST = 1e-5, 8.0

#: With a larger share of unsure pixels `assign.match` is quicker. Two phrases with the same vector make as many.
_MOST_UNSURE = 1 / 32

#: Rows of the image whose winners are at hand at once.
_BAND = 512

#: Pixels that are scored again at once, times phrases.
_AGAIN = 1 << 17


class Loops(NamedTuple):
    """The modules of the loops."""

    maths: ModuleType
    tiles: ModuleType


_loading = threading.Lock()


def load_loops() -> Loops | None:
    """Return the loops; None if numba is not installed, cannot be used here, or is not wanted.

    The first time on a machine numba compiles them, for some seconds, and keeps them in the cache of tipsseg.
    """
    with _loading:
        return _load()


@cache
def _load() -> Loops | None:
    folder = _loops_folder()
    if folder is None:
        return None
    try:
        from numba.core import config
        from numba.core.errors import NumbaError
    except ImportError:  # numba is not for this numpy
        return None
    try:
        # What numba keeps is of all files together: by itself it looks at the file of the outermost loop alone.
        before = config.CACHE_DIR  # type: ignore[attr-defined]
        config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
        try:
            from tipsseg.labelling.scoring.compiled import maths, tiles
        finally:
            config.CACHE_DIR = before  # type: ignore[attr-defined]
        found = Loops(maths, tiles)
        one = WindowScores(np.zeros((1, 1, 1, 1), np.float32), WindowPlan((14, 14), 14, ((0, 0),)), 1.0)
        _match(found, one, (14, 14), LabelTable([1], np.zeros(1, np.uint8), np.zeros(1, np.float32), 0))
    except (NumbaError, RuntimeError, OSError):
        # A numba that does not compile them, no folder that can be written to, or a full disk.
        return None
    return found


def needs_compilation() -> bool:
    """Tell whether the first use of the loops takes some seconds, because none are kept yet."""
    folder = _loops_folder()
    return folder is not None and not folder.exists()


def _loops_folder() -> Path | None:
    """Return where numba keeps the loops of this version; None if there are to be none, or it cannot keep them."""
    cache = cache_folder()
    if os.environ.get(SWITCH) == "0" or cache is None or find_spec("numba") is None:
        return None
    files = sorted(Path(__file__).parent.glob("*.py"))
    folder = cache / "numba" / hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    # In place of a folder that it cannot write to numba takes one of the package, by the file of the outermost loop alone.
    return folder if there.is_dir() and os.access(there, os.W_OK) else None


def match(scores: Scores, size: tuple[int, int], table: LabelTable) -> Assignment:
    """`assign.match`, quicker for windows where numba is installed.

    Args:
        scores: The scores of the phrases.
        size: (H, W) of the image.
        table: What the phrases stand for.

    Returns:
        The label of every pixel, and its confidence.
    """
    if isinstance(scores, WindowScores) and np.abs(scores.cosines).max() <= _LARGEST and (found := load_loops()):
        assignment = _match(found, scores, size, table)
        if assignment is not None:
            return assignment
    return assign.match(scores, size, table)


def _match(found: Loops, scores: WindowScores, size: tuple[int, int], table: LabelTable) -> Assignment | None:
    """Match by the loops; None if too many pixels are unsure."""
    tiles, temperature = found.tiles, scores.temperature
    windows = _windows(found.maths.sum_of_exp, scores)
    rows, columns = (interpolation_weights(*lengths) for lengths in zip(scores.size, size, strict=True))
    tile = tuple(
        min(max((limit - 3) * length // source, 1), tiles.TILE)
        for limit, source, length in zip(tiles.SOURCE_TILE, scores.size, size, strict=True)
    )
    owners = np.repeat(np.arange(len(table.groups), dtype=np.uint32), table.groups)
    close, nothing = assign.CLOSE * temperature, assign.NOTHING * temperature
    limits = Limits(*map(np.float32, (max(assign.ROUNDING, close), nothing, assign.ROUNDING, temperature, 1 - _TIE)))
    labels, confidence = np.empty(size, table.label_ids.dtype), allocate_confidence(size)
    step = max(_BAND // tile[0], 1) * tile[0]
    for start in range(0, size[0], step):
        band = slice(start, min(start + step, size[0]))
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


def _windows(sum_of_exp: Callable[[Values, Axis, Values], None], scores: WindowScores) -> Windows:
    cosines, side = np.ascontiguousarray(scores.cosines), scores.plan.side
    corners, axis = np.array(scores.plan.corners, np.int64), _axis(interpolation_weights(cosines.shape[1], side))
    down, across = count_windows(scores.plan)
    factors = np.empty((len(cosines), side, side), np.float32)
    for window, (top, left), of_window in zip(cosines, corners, factors, strict=True):
        sum_of_exp(window, axis, of_window)
        np.reciprocal(of_window * np.outer(down[top:][:side], across[left:][:side]), out=of_window)
    return Windows(cosines, np.ascontiguousarray(cosines.transpose(0, 3, 1, 2)), factors, corners, axis)


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
    """Put the exact winners of unsure pixels into `winners`; both are [H, W], and `rows` and `columns` resize to them."""
    pixels = np.argwhere(unsure)
    step = max(_AGAIN // len(owners), 1)
    for start in range(0, len(pixels), step):
        y, x = pixels[start : start + step].T

        def resized(source: Ids, x: Ids = x) -> Values:
            low, high = (
                score_pixels(scores.cosines, scores.plan, source, along[x]) for along in (columns.low, columns.high)
            )
            return (high - low) * columns.weight[x] + low  # [P, n]

        upper, lower = resized(rows.low[y]), resized(rows.high[y])
        values, groups = merge_names((lower - upper) * rows.weight[y] + upper, owners.astype(np.intp))
        winners[y, x] = groups[values.argmax(0)]
