"""Scores of one image at several scales -> the scores that its labels come from.

At each scale a phrase has the score that the published protocol gives it there: a mean probability over windows. At a pixel the
scales have one say each: the fused score is the mean over the scales of the logits, the logarithms of these probabilities. (In
"whole" mode they are the cosines themselves.) It is made on the grid of the finest scale, to which the scores of the others are
resized as they are to the image; from there it is resized to the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tipsseg.labelling.resample import Values, resize
from tipsseg.labelling.scales.maps import Ids, ScaleMaps, WholeMaps, WindowMaps
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights
from tipsseg.types import WindowPlan

#: Of so many pixels along each axis, as the model sees them at the finest scale, one is enough for a sum over many phrases.
_COARSE = 4


class FusedScores:
    """The mean of the logits of P phrases over scales.

    Attributes:
        size: (height, width) of the grid that they are on.
        coarse_size: That of a grid for what changes little from pixel to pixel.
        working_size: (height, width) of the image as the model sees it at the finest scale.
        phrases: P.
        temperature: The temperature of the softmax that confidences come from.
    """

    def __init__(self, cosines: Sequence[Values], plans: Sequence[WindowPlan], temperature: float) -> None:
        """`cosines` are [windows, h, w, P] float32 of each scale, in the order of the plan's corners; the finest comes last."""
        self.phrases, self.temperature = cosines[-1].shape[3], temperature
        self.working_size = plans[-1].size
        self._maps: list[ScaleMaps] = [
            WholeMaps(values[0]) if plan.whole else WindowMaps(values, plan)
            for values, plan in zip(cosines, plans, strict=True)
        ]
        self.size = self._maps[-1].size
        height, width = (-(-length // _COARSE) for length in self.working_size)
        self.coarse_size = height, width
        self._fine, self._coarse = (
            [[interpolation_weights(*lengths) for lengths in zip(maps.size, size, strict=True)] for maps in self._maps]
            for size in (self.size, self.coarse_size)
        )

    def corners(self, rows: InterpolationWeights, columns: InterpolationWeights) -> list[Values]:
        """For each scale [N, P]: cosines at a few points, so that those at what `rows` and `columns` resize are means of them."""
        spans = rows.span, columns.span
        return [
            maps.corners(*(each.part(span.start, span.stop) for each, span in zip(axes, spans, strict=True)))
            for maps, axes in zip(self._maps, self._fine, strict=True)
        ]

    def values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        """Mean logits of some phrases in a part of the grid, [K, r, c]. They do not depend on what is asked for with them."""
        return self._mean(self._fine, rows, columns, phrases)

    def coarse_values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        """The same on the coarse grid."""
        return self._mean(self._coarse, rows, columns, phrases)

    def _mean(
        self, grid: Sequence[Sequence[InterpolationWeights]], rows: slice, columns: slice, phrases: Ids
    ) -> Values:
        total = np.zeros((len(phrases), rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for maps, (down, across) in zip(self._maps, grid, strict=True):
            here = down.part(rows.start, rows.stop), across.part(columns.start, columns.stop)
            found = maps.values(here[0].span, here[1].span, phrases)
            total += maps.logits(resize(found, here[0].within, here[1].within))
        total *= np.float32(1 / len(self._maps))
        return total
