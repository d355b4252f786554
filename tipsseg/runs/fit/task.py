"""Tasks of the pipeline that turn the features of an image into data to learn from: with its mask, or without one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.fitting.maths import Window, windows_of
from tipsseg.fitting.unlabelled import some_patches
from tipsseg.labelling.features import Features, find_features
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.labelling.view import view_of
from tipsseg.options import LabelOptions
from tipsseg.runs.engine.loading import LoadedModel
from tipsseg.runs.fit.masked import Learnt, Masks, size_mismatch


def source_at_scale_one(loaded: LoadedModel) -> FeatureSource[Features]:
    """Return the source of the features at scale 1, the only scale of a fit."""
    spec, backbone = loaded.info.spec, loaded.model.backbone
    return FeatureSource(
        backbone,
        view_of(backbone, LabelOptions(mode=spec.options.mode, short_side=spec.options.short_side)),
        loaded.store,
        find_features(backbone.device),
        max_pixels=spec.max_pixels,
        digests=loaded.digests,
    )


class FitTask:
    """Pair the features of images with their masks."""

    def __init__(self, source: FeatureSource[Features], masks: Masks, groups: NDArray[np.int64]) -> None:
        """Set the masks, and the group of each mask id, see `windows_of`."""
        self.source = source
        self._masks = masks
        self._groups = groups

    def score(self, scales: Sequence[Features]) -> Features:
        return scales[0]

    def finish(self, loaded: Loaded[Features], scored: Features) -> Learnt[list[Window]]:
        """Read the mask and cut it into the windows of the image. Raises ImageError if their sizes differ."""
        mask = self._masks.read(loaded.ref)
        if mask.shape != scored.size:
            raise size_mismatch(loaded.ref, scored.size, mask.shape)
        return Learnt(windows_of(scored.patches, scored.plan, mask, self._groups), loaded.damaged)


class UnlabelledTask:
    """Draw some patches of each image."""

    def __init__(self, source: FeatureSource[Features]) -> None:
        self.source = source

    def score(self, scales: Sequence[Features]) -> Features:
        return scales[0]

    def finish(self, loaded: Loaded[Features], scored: Features) -> Learnt[Tensor]:
        return Learnt(some_patches(scored.patches), loaded.damaged)
