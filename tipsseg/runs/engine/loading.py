"""The model of a run, and its feature store. Torch is imported here, unless the run is on a CPU and takes features from a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tipsseg.errors import DeviceError
from tipsseg.features.file import Recipe
from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE, FeatureStore, StoreRecord, feature_path, read_store
from tipsseg.labelling.model import Model
from tipsseg.labelling.source import Digests
from tipsseg.labelling.view import View, view_of
from tipsseg.labelling.windows import short_sides
from tipsseg.options import FEATURE_DTYPES, LabelOptions, choose
from tipsseg.options.run import ComputeOptions
from tipsseg.store.spec import LABELS_VERSION, RunInfo, model_identity
from tipsseg.types import ImageRef
from tipsseg.util.files import cache_folder
from tipsseg.weights.sources import file_hashes, find_model

Note = Callable[[str], None]

#: So many of the images tell whether a store has the features of all.
_ASKED = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """The model of a run.

    Attributes:
        model: The model.
        view: How it sees images.
        info: The run, with what is known once its model is loaded.
        store: Where features are taken from and kept; None: nowhere.
        digests: Hashes of images that were taken already.
    """

    model: Model
    view: View
    info: RunInfo
    store: FeatureStore | None
    digests: Digests


def load_for(info: RunInfo, note: Note | None, *, quiet: bool, images: Sequence[ImageRef] = ()) -> LoadedModel:
    """Load the model of a run that `plan_run` planned, and open its feature store.

    Args:
        info: The run.
        note: Takes lines on what a user may want to change.
        quiet: Whether a download shows no progress.
        images: Images to come. If the store has their features, device "auto" is the CPU: nothing is left for another to do.

    Raises:
        TipssegError: For what ends the run.
    """
    spec, digests = info.spec, Digests()
    if spec.device == "auto" and spec.features is not None and _are_kept(spec.features, spec.options, images, digests):
        model = _load(replace(spec, device="cpu"), info.dtype, note, quiet=quiet)
    else:
        model = _load(spec, info.dtype, note, quiet=quiet)
    backbone = model.backbone
    view = view_of(backbone, spec.options)  # raises before a store is begun
    facts = {**info.model, "sha256": file_hashes(backbone.folder, keep_stamps=spec.use_cache)}
    store = None
    if spec.features is not None:
        recipe = Recipe(model_identity(facts), backbone.dtype_name, view.mode, view.base, LABELS_VERSION)
        kept = choose(spec.feature_dtype or DEFAULT_FEATURE_DTYPE, FEATURE_DTYPES, "dtype of features")
        store = FeatureStore(spec.features, StoreRecord(str(facts["id"]), recipe, kept))
    known = replace(info, model=facts, device=backbone.device_name, dtype=backbone.dtype_name)
    return LoadedModel(model=model, view=view, info=known, store=store, digests=digests)


def _are_kept(store: Path, options: LabelOptions, images: Sequence[ImageRef], digests: Digests) -> bool:
    """Return whether a store has the features of images, as far as a few of them tell; any that cannot be read are passed over."""
    there = read_store(store)
    if there is None:
        return False
    own = there.recipe.short_side
    sides = [side if side != own else None for side in short_sides(own, options.scales)]
    asked = [digests.ahead(each.path) for each in images[:: max(len(images) // _ASKED, 1)]]
    found = [sha256 for sha256 in asked if sha256 is not None]
    return bool(found) and all(os.path.lexists(feature_path(store, sha256, side)) for sha256 in found for side in sides)


def _load(spec: ComputeOptions, dtype: str, note: Note | None, *, quiet: bool) -> Model:
    """Load the model in a dtype, which may be that of an earlier run; with a store each tower is read when it is first needed."""
    source, lazy = find_model(spec.model), spec.features is not None
    if lazy and spec.device == "cpu" and dtype != "auto":
        from tipsseg.backbones.tipsv2.lazy import LazyTipsv2

        return Model(LazyTipsv2(source.fetch(quiet=quiet, keep_stamps=spec.use_cache), dtype))
    from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone

    check_device(spec, dtype)  # before any download
    folder = source.fetch(quiet=quiet, keep_stamps=spec.use_cache)
    cache = cache_folder() if spec.use_cache else None
    backbone = Tipsv2Backbone(folder, spec.device, dtype, spec.batch_size, cache, lazy=lazy)
    if note is not None:
        backbone.on_less_memory = lambda size: note(
            f"Not enough memory on {backbone.device}: {size} windows at once from here on (argument `batch_size`={size})."
        )
    return Model(backbone)


def check_device(spec: ComputeOptions, dtype: str) -> None:
    """Raise DeviceError for a device that is not here, or that does not have the dtype."""
    # Only now torch, which takes its time.
    from tipsseg.backbones.devices import resolve_device, resolve_dtype

    device = resolve_device(spec.device)
    try:
        resolve_dtype(dtype, device)
    except DeviceError as error:
        if dtype == spec.dtype:
            raise
        raise DeviceError(
            error.device,
            f"the labels in the output folder were begun in {dtype}, and {error.message}",
            "Go on where that device is, or choose another output folder with argument `output`.",
        ) from error
