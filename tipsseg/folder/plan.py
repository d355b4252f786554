"""Plan a run: resolve the settings that follow from its options, feature store and output folder, before the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tipsseg import types
from tipsseg.errors import OutputError, Words
from tipsseg.features.file import Recipe
from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE, StoreRecord, check_same, read_store
from tipsseg.folder.spec import RunInfo, RunSpec, model_identity
from tipsseg.options import DTYPE_NAMES, FEATURE_DTYPES, choose
from tipsseg.options.records import LabelOptions
from tipsseg.weights.lock import read_lock
from tipsseg.weights.sources import find_model


def plan_run(spec: RunSpec, before: RunInfo | None = None) -> RunInfo:
    """Resolve the settings of a run before its model is loaded; `before` is the run that its folder records.

    Raises:
        UsageError: The vocabulary was fitted with another model or in another mode, or the formats of the folder do not fit.
        CheckpointError: The files of a local model cannot be read.
        OutputError: The folder is not a feature store, or has features of a different kind, or the labels were computed in another
            dtype than the features, and no dtype is given.
        InputError, ImageError: Regions or labels cannot be listed.
    """
    dtype, labelled_in = spec.dtype, None if before is None or before.dtype not in DTYPE_NAMES else before.dtype
    facts = find_model(spec.model).facts(keep_stamps=spec.use_cache)
    _check_fitted(spec, facts)
    if not spec.formats_given:
        known = () if before is None else before.spec.formats
        spec = replace(spec, formats=known or spec.formats)
        spec.check_formats()
    if spec.features is not None:
        kept = _plan_features(spec.features, spec.feature_dtype, facts, dtype, spec.options)
        if kept is not None:
            if dtype == "auto" and labelled_in not in (None, kept.recipe.dtype):
                raise OutputError(
                    spec.output,
                    f"it was labelled in {labelled_in}, but the features in {spec.features} were computed in {kept.recipe.dtype}",
                    Words("Use other features, or start over in this dtype with {overwrite}."),
                )
            dtype, spec = kept.recipe.dtype, replace(spec, feature_dtype=kept.dtype)
        else:
            stored = None if before is None or before.spec.features is None else before.spec.feature_dtype
            spec = replace(spec, feature_dtype=spec.feature_dtype or stored or DEFAULT_FEATURE_DTYPE)
    if dtype == "auto":
        dtype = labelled_in or "auto"
    if spec.device == "auto" and spec.shard is not None and before is not None:
        spec = replace(spec, device=before.device.partition(":")[0])
    _ = spec.given  # lists their files, for the final settings
    return RunInfo(spec, facts, dtype)


def _check_fitted(spec: RunSpec, model: Mapping[str, object]) -> None:
    """Raise UsageError if the vocabulary was fitted with another model or mode. `model` is from `ModelSource.facts`."""
    fitted, known = spec.fitted, model.get("sha256")
    if fitted is None:
        return
    if fitted.model_id != model["id"] and {fitted.model_id, model["id"]} <= read_lock().keys():
        raise fitted.wrong_model_error(str(model["id"]))  # before the other model is downloaded
    if isinstance(known, Mapping):
        fitted.check(known, str(model["id"]), spec.options.mode, spec.options.short_side)


def _plan_features(
    folder: Path, feature_dtype: str | None, model: Mapping[str, object], dtype: str, options: LabelOptions
) -> StoreRecord | None:
    """Read a feature store's record and check the options against it; return None for a new folder.

    Args:
        folder: The folder of the store.
        feature_dtype: The dtype to store features in; None for the dtype of the store.
        model: See `ModelSource.facts`.
        dtype: The dtype of the model; "auto" for the store's.
        options: How images are shown to the model. If the short side is None, use the store's, as the model is not loaded yet.

    Raises:
        OutputError: The folder is not a store, or has features of a different kind.
    """
    stored = read_store(folder)
    if stored is None:
        return None
    recipe = Recipe(
        model_identity(model),
        stored.recipe.dtype if dtype == "auto" else dtype,
        options.mode,
        stored.recipe.short_side if options.short_side is None else options.short_side,
        types.LABELS_VERSION,
        options.stretch,
    )
    kept = stored.dtype if feature_dtype is None else choose(feature_dtype, FEATURE_DTYPES, "feature dtype")
    check_same(folder, stored, StoreRecord(str(model["id"]), recipe, kept))
    return stored
