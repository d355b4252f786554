"""Load the model of a run, and open its feature store. A run that reads all features from a store does not import torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tipsseg.backbones.registry import open_backbone
from tipsseg.errors import DeviceError
from tipsseg.features.file import Recipe
from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE, FeatureStore, StoreRecord, feature_path, read_store
from tipsseg.labelling.model import Model
from tipsseg.labelling.source import Digests
from tipsseg.labelling.view import View, short_sides, view_of
from tipsseg.options import FEATURE_DTYPES, LabelOptions, choose
from tipsseg.options.run import ComputeOptions
from tipsseg.run.spec import LABELS_VERSION, RunInfo, model_identity
from tipsseg.types import ImageRef
from tipsseg.weights.sources import file_hashes, find_model

Note = Callable[[str], None]

#: The number of images to look up in a feature store, to guess whether it has the features of all images.
_LOOKED_UP = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """The model of a run.

    Attributes:
        model: The model.
        view: The sizes and windows at which the model sees images.
        info: The run, with its device and dtype.
        store: The feature store to read and extend; None if features are not stored.
        digests: Known image hashes.
    """

    model: Model
    view: View
    info: RunInfo
    store: FeatureStore | None
    digests: Digests


def load_for(info: RunInfo, note: Note, *, quiet: bool, images: Sequence[ImageRef] = ()) -> LoadedModel:
    """Load the model of a planned run, see `plan_run`, and open its feature store.

    Args:
        info: The run.
        note: Prints notes.
        quiet: Hide the progress of a download.
        images: The first images. If the store has their features, device "auto" becomes the CPU, because nothing needs encoding.

    Raises:
        TipssegError: The run cannot continue.
    """
    spec, digests = info.spec, Digests()
    if (
        spec.device == "auto"
        and spec.features is not None
        and _has_features(spec.features, spec.options, images, digests)
    ):
        model = _load(replace(spec, device="cpu"), info.dtype, note, quiet=quiet)
    else:
        model = _load(spec, info.dtype, note, quiet=quiet)
    backbone = model.backbone
    view = view_of(backbone, spec.options)  # raises errors before it makes a store
    facts = {**info.model, "sha256": file_hashes(backbone.folder, keep_stamps=spec.use_cache)}
    store = None
    if spec.features is not None:
        identity = model_identity(facts)
        recipe = Recipe(identity, backbone.dtype_name, view.mode, view.base, LABELS_VERSION, view.stretch)
        dtype = choose(spec.feature_dtype or DEFAULT_FEATURE_DTYPE, FEATURE_DTYPES, "feature dtype")
        store = FeatureStore(spec.features, StoreRecord(str(facts["id"]), recipe, dtype))
    info = replace(
        info, model=facts, device=backbone.device_name, dtype=backbone.dtype_name, dtype_reason=backbone.dtype_reason
    )
    return LoadedModel(model=model, view=view, info=info, store=store, digests=digests)


def _has_features(store: Path, options: LabelOptions, images: Sequence[ImageRef], digests: Digests) -> bool:
    """Return True if a store has the features of a few of the images. Images that cannot be read are skipped."""
    record = read_store(store)
    if record is None:
        return False
    base = record.recipe.short_side
    sides = [side if side != base else None for side in short_sides(base, options.scales)]
    sample = [digests.compute(ref.path) for ref in images[:: max(len(images) // _LOOKED_UP, 1)]]
    hashes = [sha256 for sha256 in sample if sha256 is not None]
    return bool(hashes) and all(
        os.path.lexists(feature_path(store, sha256, side)) for sha256 in hashes for side in sides
    )


def _load(spec: ComputeOptions, dtype: str, note: Note, *, quiet: bool) -> Model:
    """Load the model in a dtype, which may come from an earlier run. With a store, load each tower at its first use."""
    source, lazy = find_model(spec.model), spec.features is not None
    if not (lazy and spec.device == "cpu" and dtype != "auto"):  # else torch need not be imported
        check_device(spec, dtype)  # before downloading the model
    folder = source.fetch(quiet=quiet, keep_stamps=spec.use_cache)
    backbone = open_backbone(folder, spec.device, dtype, spec.batch_size, lazy=lazy)
    backbone.on_less_memory = lambda size: note(
        f"Not enough memory on {backbone.device_name}: the batch size is now {size} windows (argument `batch_size`={size})."
    )
    return Model(backbone)


def check_device(spec: ComputeOptions, dtype: str) -> None:
    """Raise DeviceError if this machine lacks the device, or the device lacks the dtype."""
    # Importing torch is slow, so it happens here.
    from tipsseg.backbones.devices import resolve_device, resolve_dtype

    device = resolve_device(spec.device)
    try:
        resolve_dtype(dtype, device)
    except DeviceError as error:
        if dtype == spec.dtype:
            raise
        raise DeviceError(
            error.device,
            f"the run in the output folder uses {dtype}, but {error.message}",
            "Resume on a device that supports this dtype, or choose another output folder with argument `output`.",
        ) from error
