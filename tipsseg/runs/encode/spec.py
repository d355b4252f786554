"""EncodeSpec: what an encoding run is asked for, beside its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE, StoreRecord
from tipsseg.options import (
    DEFAULT_FILE_OPTIONS,
    DEFAULT_LABEL_OPTIONS,
    FEATURE_DTYPES,
    FeatureDtype,
    FileOptions,
    LabelOptions,
    choose,
)
from tipsseg.options.run import ComputeOptions, StoreOptions
from tipsseg.store.run_record import plan_features
from tipsseg.store.shards import state_folder
from tipsseg.store.spec import check_folder
from tipsseg.weights.sources import find_model


@dataclass(frozen=True, kw_only=True)
class EncodeSpec(ComputeOptions, StoreOptions):
    """What an encoding run is asked for.

    Attributes:
        options: How images are shown to the model; the rest of it is for labels.
    """

    options: LabelOptions = DEFAULT_LABEL_OPTIONS

    def __post_init__(self) -> None:
        ComputeOptions.__post_init__(self)
        StoreOptions.__post_init__(self)

    @property
    def state(self) -> Path:
        """The folder of errors.jsonl."""
        return state_folder(self.output, self.shard)

    @property
    def files(self) -> FileOptions:
        """Of no use to features."""
        return DEFAULT_FILE_OPTIONS

    @property
    def formats(self) -> tuple[str, ...]:
        """None: features are named by the content of the image, so that no two names clash."""
        return ()

    @property
    def overwrite(self) -> bool:
        """Never: features that are there are those of the images."""
        return False

    def check(self) -> None:
        """Raise an error for all that can be seen to be wrong without torch and without images, see `RunSpec.check`."""
        find_model(self.model)
        check_folder(self.output)


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """What is known of an encoding run before its model is loaded.

    Attributes:
        model: See `ModelSource.facts`.
        dtype: What the model is to compute in; "auto" where the store is new and nobody said.
        feature_dtype: What features are kept in.
        there: What the store says that is there already; None for a new one.
    """

    model: dict[str, object]
    dtype: str
    feature_dtype: FeatureDtype
    there: StoreRecord | None


def plan_encoding(spec: EncodeSpec) -> EncodePlan:
    """Look at the model and the store. Raises CheckpointError, and OutputError where the store has features of another kind."""
    facts = find_model(spec.model).facts(keep_stamps=spec.use_cache)
    there = plan_features(spec.output, spec.feature_dtype, facts, spec.dtype, spec.options)
    if there is not None:
        return EncodePlan(facts, there.recipe.dtype, there.dtype, there)
    kept = choose(spec.feature_dtype or DEFAULT_FEATURE_DTYPE, FEATURE_DTYPES, "dtype of features")
    return EncodePlan(facts, spec.dtype, kept, None)
