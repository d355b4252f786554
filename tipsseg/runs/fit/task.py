"""What is done to one image, from its file to what it teaches: by its mask, or by its features alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.features.folder import FeatureStore
from tipsseg.fitting.maths import Window, windows_of
from tipsseg.fitting.unlabelled import some_patches
from tipsseg.images.decoding import as_image_error, opened
from tipsseg.images.upright import upright_image
from tipsseg.labelling.batches import Batched, Batches
from tipsseg.labelling.features import Features
from tipsseg.labelling.model import Model
from tipsseg.labelling.prepare import Prepared
from tipsseg.options import LabelOptions
from tipsseg.runs.engine.image_task import (
    NO_PIXELS,
    Loaded,
    OneLarge,
    find_features,
    fingerprint_of,
    read_steadily,
    stored,
)
from tipsseg.runs.fit.masked import Masks, of_another_size
from tipsseg.types import ImageRef
from tipsseg.util.fingerprint import content_digest


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


class _FeaturesTask:
    """Makes or reads the features of images, in the steps of an ImageTask but for the last."""

    def __init__(self, model: Model, options: LabelOptions, store: FeatureStore | None, max_pixels: int) -> None:
        """Say how it is done.

        Args:
            model: Makes the features.
            options: How images are shown to it.
            store: Features are taken from it and added to it; None: all are made, and kept nowhere.
            max_pixels: Images of more pixels are refused.
        """
        self._model = model
        self._mode = options.mode
        self._short_side = model.check_short_side(options.short_side)
        self._store = store
        self._max_pixels = max_pixels
        self._alone = OneLarge()

    def load(self, ref: ImageRef) -> Loaded:
        """Read an image, or its features; may be called from several threads. Raises ImageError."""
        return read_steadily(ref, self._load)

    def _load(self, ref: ImageRef) -> Loaded:
        if self._store is None:
            return self._decoded(ref)
        try:
            sha256 = content_digest(ref.path)
        except (OSError, ValueError):
            return self._decoded(ref)  # which says what is wrong
        found, damaged = find_features(self._store, sha256, self._model.backbone.device)
        if (
            found is None
            or prod(found.size) > self._max_pixels
            or found.plan != self._model.plan(found.size, self._mode, self._short_side)
        ):
            return replace(self._decoded(ref), sha256=sha256, damaged=damaged)
        prepared = Prepared(found.size, NO_PIXELS, found.plan)
        return Loaded(ref, NO_PIXELS, prepared, fingerprint_of(ref.path), features=found, sha256=sha256)

    def _decoded(self, ref: ImageRef) -> Loaded:
        with opened(ref.path, self._max_pixels) as image, self._alone(image.size), as_image_error(ref.path):
            prepared = self._model.prepare(upright_image(image.decode()), self._mode, self._short_side)
        return Loaded(ref, NO_PIXELS, prepared, fingerprint_of(ref.path))

    @property
    def windows_at_once(self) -> int:
        """How many windows make a batch."""
        return self._model.backbone.batch_size

    def batches(self) -> Batches[Batched]:
        """What makes features of images, in batches; for one thread."""
        return Batches(self._model)

    def keep(self, loaded: Loaded, features: Features) -> tuple[Loaded, Features]:
        """The features in the precision of the store, for the same thread."""
        if self._store is None or loaded.features is not None:
            return loaded, features
        unsaved, features = stored(self._store, loaded, features, self._model)
        return replace(loaded, unsaved=(unsaved,)), features

    def score(self, features: Features) -> Features:
        """The features are what is learnt from."""
        return features

    def _save(self, loaded: Loaded) -> None:
        if self._store is not None:
            for unsaved in loaded.unsaved:
                self._store.add(unsaved())


class FitTask(_FeaturesTask):
    """Brings features and masks together."""

    def __init__(
        self,
        model: Model,
        options: LabelOptions,
        masks: Masks,
        groups: NDArray[np.int64],
        store: FeatureStore | None,
        max_pixels: int,
    ) -> None:
        """As of an `UnlabelledTask`, with the masks, and what their ids count for, see `windows_of`."""
        super().__init__(model, options, store, max_pixels)
        self._masks = masks
        self._groups = groups

    def finish(self, loaded: Loaded, scored: Features) -> Taught:
        """Read the mask; may be called from several threads. Raises ImageError for a mask of another size."""
        self._save(loaded)
        mask = self._masks.read(loaded.ref)
        if mask.shape != scored.size:
            raise of_another_size(loaded.ref, scored.size, mask.shape)
        return Taught(loaded.ref, windows_of(scored.patches, scored.plan, mask, self._groups), loaded.damaged)


class UnlabelledTask(_FeaturesTask):
    """Takes some patches of each image."""

    def finish(self, loaded: Loaded, scored: Features) -> Seen:
        """Take the patches; may be called from several threads."""
        self._save(loaded)
        return Seen(some_patches(scored.patches), loaded.damaged)
