"""Tasks of the pipeline that turn the features of an image into data to learn from: with its mask, or without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from tipsseg.runs.fit.masked import Masks, size_mismatch


@dataclass(frozen=True, slots=True, eq=False)
class MaskedWindows:
    """The windows of an image, each with its part of the mask.

    Attributes:
        windows: The windows; empty if the mask ignores all pixels.
        damaged: The fault of the image's feature file; "" if it was read, or absent.
    """

    windows: list[Window]
    damaged: str


@dataclass(frozen=True, slots=True, eq=False)
class UnlabelledPatches:
    """Some patches of an image without a mask.

    Attributes:
        patches: [n, D] float32 on the CPU.
        damaged: The fault of the image's feature file; "" if it was read, or absent.
    """

    patches: Tensor
    damaged: str


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

    def finish(self, loaded: Loaded[Features], scored: Features) -> MaskedWindows:
        """Read the mask. Thread-safe. Raises ImageError if its size differs from the image's."""
        mask = self._masks.read(loaded.ref)
        if mask.shape != scored.size:
            raise size_mismatch(loaded.ref, scored.size, mask.shape)
        return MaskedWindows(windows_of(scored.patches, scored.plan, mask, self._groups), loaded.damaged)


class UnlabelledTask:
    """Draw some patches of each image."""

    def __init__(self, source: FeatureSource[Features]) -> None:
        self.source = source

    def score(self, scales: Sequence[Features]) -> Features:
        return scales[0]

    def finish(self, loaded: Loaded[Features], scored: Features) -> UnlabelledPatches:
        """Draw the patches. Thread-safe."""
        return UnlabelledPatches(some_patches(scored.patches), loaded.damaged)
