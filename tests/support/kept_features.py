"""A feature store with features that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from entries import read_entries

from tipsseg.features.file import FeatureRecord, Origin, Recipe, write_feature_file
from tipsseg.features.folder import FeatureStore, StoreRecord, feature_path
from tipsseg.types import WindowPlan

_RECIPE = Recipe({"id": "tiny"}, "float32", "slide", 224, 1)


def keep_features(out: Path, tokens: Mapping[str, Sequence[float]]) -> Path:
    """A store with these class tokens of the images."""
    folder = out.parent / "feats"
    FeatureStore(folder, StoreRecord("tiny", _RECIPE, "float32"))
    entries = read_entries(out)
    for image, values in tokens.items():
        sha256 = entries[image].input.sha256
        assert sha256 is not None
        vector = np.array(values, np.float32)
        vector /= np.linalg.norm(vector)
        record = FeatureRecord(
            entries[image].mask.size,
            WindowPlan((14, 14), 14, ((0, 0),)),
            "float32",
            np.broadcast_to(vector, (1, 1, 1, len(vector))),
            None,
            np.broadcast_to(vector, (1, 2, len(vector))),
            Origin(sha256, image, _RECIPE),
        )
        write_feature_file(feature_path(folder, sha256), record)
    return folder
