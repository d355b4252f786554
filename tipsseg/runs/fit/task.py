"""Turn an image's features into training data, with or without a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.fitting.maths import Window, make_windows
from tipsseg.fitting.unlabelled import sample_patches
from tipsseg.labelling.features import Features, find_features
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.labelling.view import view_of
from tipsseg.options import LabelOptions
from tipsseg.runs.engine.local import LoadedModel
from tipsseg.runs.fit.masked import Learnt, Masks, size_mismatch


def cut_mask(
    masks: Masks, groups: NDArray[np.int64], loaded: Loaded[Features], features: Features
) -> Learnt[list[Window]]:
    """Cut the mask of an image into windows; `groups` is the group of each mask id, see `make_windows`."""
    mask = masks.read(loaded.ref)
    if mask.shape != features.size:
        raise size_mismatch(loaded.ref, features.size, mask.shape)
    return Learnt(make_windows(features.patches, features.plan, mask, groups), loaded.damaged)


def draw_patches(loaded: Loaded[Features], features: Features) -> Learnt[Tensor]:
    """Draw some patches of an image."""
    return Learnt(sample_patches(features.patches), loaded.damaged)


def source_at_scale_one(loaded: LoadedModel) -> FeatureSource[Features]:
    """Return a source of features at scale 1, the only scale that a fit uses."""
    spec, backbone = loaded.info.spec, loaded.model.backbone
    options = spec.options
    return FeatureSource(
        backbone,
        view_of(backbone, LabelOptions(mode=options.mode, short_side=options.short_side, stretch=options.stretch)),
        loaded.store,
        find_features(backbone.device),
        max_pixels=spec.max_pixels,
        digests=loaded.digests,
    )
