"""What is done to one image of `fit` and `tune`, from its features to what it teaches: by its mask, or by its features alone."""

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
from tipsseg.options import LabelOptions
from tipsseg.runs.engine.loading import LoadedModel
from tipsseg.runs.fit.masked import Masks, of_another_size
from tipsseg.types import ImageRef


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """What an image teaches.

    Attributes:
        ref: The image.
        windows: Of its windows; none where no pixel of its mask counts.
        damaged: What was wrong with the file of its features; "" where nothing was.
    """

    ref: ImageRef
    windows: list[Window]
    damaged: str


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What an image without a mask tells.

    Attributes:
        patches: Some of its patches, [n, D] float32 on the CPU.
        damaged: What was wrong with the file of its features; "" where nothing was.
    """

    patches: Tensor
    damaged: str


def at_scale_one(loaded: LoadedModel) -> FeatureSource[Features]:
    """Return what gives the features that are learnt from."""
    spec = loaded.info.spec
    return FeatureSource(
        loaded.model,
        loaded.model.view(LabelOptions(mode=spec.options.mode, short_side=spec.options.short_side)),
        loaded.store,
        find_features(loaded.model.backbone.device),
        max_pixels=spec.max_pixels,
        digests=loaded.digests,
    )


class FitTask:
    """Brings the features of images and their masks together."""

    def __init__(self, source: FeatureSource[Features], masks: Masks, groups: NDArray[np.int64]) -> None:
        """Take the masks, and what their ids count for, see `windows_of`."""
        self.source = source
        self._masks = masks
        self._groups = groups

    def score(self, scales: Sequence[Features]) -> Features:
        """Return the features at the one scale of a fit."""
        return scales[0]

    def finish(self, loaded: Loaded[Features], scored: Features) -> Taught:
        """Read the mask; several threads may call this. Raises ImageError for a mask of another size."""
        mask = self._masks.read(loaded.ref)
        if mask.shape != scored.size:
            raise of_another_size(loaded.ref, scored.size, mask.shape)
        return Taught(loaded.ref, windows_of(scored.patches, scored.plan, mask, self._groups), loaded.damaged)


class UnlabelledTask:
    """Takes some patches of each image."""

    def __init__(self, source: FeatureSource[Features]) -> None:
        self.source = source

    def score(self, scales: Sequence[Features]) -> Features:
        """Return the features at the one scale of a fit."""
        return scales[0]

    def finish(self, loaded: Loaded[Features], scored: Features) -> Seen:
        """Take the patches; several threads may call this."""
        return Seen(some_patches(scored.patches), loaded.damaged)
