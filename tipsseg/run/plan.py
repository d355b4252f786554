"""Plan a run: resolve the settings that follow from its options, feature store and output folder, before the model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import OutputError
from tipsseg.features.file import Recipe
from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE, StoreRecord, check_same, read_store
from tipsseg.formats import FORMATS
from tipsseg.options import DEFAULT_FORMATS, DTYPE_NAMES, FEATURE_DTYPES, OVERLAP_FORMATS, LabelOptions, choose
from tipsseg.options.run import OutputOptions
from tipsseg.run import spec as specs
from tipsseg.run.question import shared_run
from tipsseg.run.record import find_run
from tipsseg.run.shards import state_folder
from tipsseg.run.spec import RunInfo, RunSpec, model_identity
from tipsseg.weights.lock import read_lock
from tipsseg.weights.sources import find_model


def plan_run(spec: RunSpec) -> RunInfo:
    """Resolve the settings of a run before its model is loaded.

    Raises:
        UsageError: The vocabulary was fitted with another model or in another mode.
        CheckpointError: The files of a local model cannot be read.
        OutputError: The folder is not a feature store, or has features of a different kind; or the labels were computed in another
            dtype than the features, and no dtype is given.
        InputError, ImageError: Regions or labels cannot be listed.
    """
    dtype = spec.dtype
    facts = find_model(spec.model).facts(keep_stamps=spec.use_cache)
    _check_fitted(spec, facts)
    if spec.features is not None:
        kept = _plan_features(spec.features, spec.feature_dtype, facts, dtype, spec.options)
        if kept is not None:
            _refuse_other_dtype(spec, kept)
            dtype, spec = kept.recipe.dtype, replace(spec, feature_dtype=kept.dtype)
        else:
            begun = (info.spec.feature_dtype for info in begun_runs(spec) if info.spec.features is not None)
            known = next(begun, None) if spec.formats else None
            spec = replace(spec, feature_dtype=spec.feature_dtype or known or DEFAULT_FEATURE_DTYPE)
    if dtype == "auto" and spec.formats:
        dtype = _begun_dtype(spec) or "auto"
    if spec.formats and spec.device == "auto" and (first := shared_run(spec.output)) is not None:
        spec = replace(spec, device=first.device.partition(":")[0])
    _ = spec.given  # lists their files, for the final settings
    return RunInfo(spec, facts, dtype)


def _refuse_other_dtype(spec: RunSpec, kept: StoreRecord) -> None:
    """Raise OutputError if the dtype of a feature store differs from that of the folder."""
    begun = _begun_dtype(spec) if spec.dtype == "auto" and spec.formats else None
    if begun not in (None, kept.recipe.dtype):
        raise OutputError(
            spec.output,
            f"it was labelled in {begun}, but the features in {spec.features} were computed in {kept.recipe.dtype}",
            f"Use other features, or label all images again with dtype {kept.recipe.dtype}.",
        )


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
        specs.LABELS_VERSION,
        options.stretch,
    )
    kept = stored.dtype if feature_dtype is None else choose(feature_dtype, FEATURE_DTYPES, "feature dtype")
    check_same(folder, stored, StoreRecord(str(model["id"]), recipe, kept))
    return stored


def _begun_dtype(spec: RunSpec) -> str | None:
    """Return the dtype that this run or its first shard has labelled with; None if nothing is labelled yet."""
    return next((info.dtype for info in begun_runs(spec) if info.dtype in DTYPE_NAMES), None)


def with_formats(asked: OutputOptions, *, overlap: bool) -> OutputOptions:
    """Fill in the formats. If the user named none, use those that all images in the folder have, or else the default."""
    if asked.formats is not None:
        return asked
    default = OVERLAP_FORMATS if overlap else DEFAULT_FORMATS
    begun = next(begun_runs(asked), None)
    if begun is None:
        return replace(asked, formats=default)
    able = tuple(name for name in begun.spec.formats if FORMATS[name].overlaps or not overlap)
    return replace(asked, formats=able or default)


def begun_runs(asked: OutputOptions) -> Iterator[RunInfo]:
    """Yield the runs in the output folder: the requested one, then the whole one and the first shard's."""
    states = dict.fromkeys((state_folder(asked.output, asked.shard), asked.output))
    found = (*map(find_run, states), shared_run(asked.output))
    return (info for info in found if info is not None)
