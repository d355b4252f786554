"""Scores of one image at several scales -> the scores that its labels come from.

At each scale a phrase has the score that the published protocol gives it there: a mean probability over windows. At a pixel the
scales have one say each: the fused score is the mean over the scales of the logits, the logarithms of these probabilities. (In
"whole" mode they are the cosines themselves.) It is made on the grid of the finest scale, to which the scores of the others are
resized as they are to the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tipsseg.labelling.resample import Values, resize
from tipsseg.labelling.scores import Ids, Scores
from tipsseg.labelling.windows import InterpolationWeights, interpolation_weights


def fused(scales: Sequence[Scores]) -> Scores:
    """The scores of an image at its scales, the finest last; those of one scale as they are."""
    return scales[0] if len(scales) == 1 else FusedScores(scales)


class FusedScores:
    """The mean of the logits over scales, see Scores."""

    def __init__(self, scales: Sequence[Scores]) -> None:
        """The finest comes last, and there are two at least; all are of the same phrases."""
        finest = scales[-1]
        self.size, self.working_size = finest.size, finest.working_size
        self.phrases, self.temperature = finest.phrases, finest.temperature
        self._scales = scales
        self._weights = [
            [interpolation_weights(*lengths) for lengths in zip(each.size, self.size, strict=True)] for each in scales
        ]
        self._working = [interpolation_weights(*lengths) for lengths in zip(self.size, self.working_size, strict=True)]

    def corners(self, rows: InterpolationWeights, columns: InterpolationWeights) -> Values:
        """One point at which all phrases are alike: nothing is known of them."""
        return np.zeros((1, self.phrases), np.float32)

    def values(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        """The mean logits, see Scores."""
        total = np.zeros((len(phrases), rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for scores, (down, across) in zip(self._scales, self._weights, strict=True):
            here = down.part(rows.start, rows.stop), across.part(columns.start, columns.stop)
            found = scores.values(here[0].span, here[1].span, phrases)
            total += scores.logits(resize(found, here[0].within, here[1].within))
        total *= np.float32(1 / len(self._scales))
        return total

    def working_logits(self, rows: slice, columns: slice, phrases: Ids) -> Values:
        """See Scores."""
        down, across = (
            weights.part(part.start, part.stop) for weights, part in zip(self._working, (rows, columns), strict=True)
        )
        return resize(self.values(down.span, across.span, phrases), down.within, across.within)

    def logits(self, scores: Values) -> Values:
        """They are logits already."""
        return scores
