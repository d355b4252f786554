"""EncodeSpec: what an encoding run is asked for, beside its images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE, StoreRecord
from tipsseg.options import (
    DEFAULT_FILE_OPTIONS,
    DEFAULT_LABEL_OPTIONS,
    FEATURE_DTYPES,
    MAX_PIXELS,
    FeatureDtype,
    FileOptions,
    LabelOptions,
    check_work,
    choose,
    default_jobs,
)
from tipsseg.store.run_record import plan_features
from tipsseg.store.shards import Shard, state_folder
from tipsseg.store.spec import check_folder
from tipsseg.weights.sources import find_model


@dataclass(frozen=True, slots=True)
class EncodeSpec:
    """What an encoding run is asked for.

    Attributes:
        output: The folder of the feature store.
        model: An id or a repository of weights.lock, or a folder in the hub layout.
        options: How images are shown to the model; the rest of it is for labels.
        feature_dtype: What features are kept in. None: as the store has them, float16 in a new one.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: What the model computes in. "auto": as in the store, in a new one as it suits the device.
        batch_size: Windows that a GPU takes at once.
        jobs: Threads that decode images and write files.
        max_pixels: Larger images are refused.
        shard: The part of the images that this run encodes. None: all of them.
        use_cache: Whether the user's cache keeps what saves time the next time.
    """

    output: Path
    model: str = "l14"
    options: LabelOptions = DEFAULT_LABEL_OPTIONS
    feature_dtype: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 8
    jobs: int = field(default_factory=default_jobs)
    max_pixels: int = MAX_PIXELS
    shard: Shard | None = None
    use_cache: bool = False

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
        if self.feature_dtype is not None:
            choose(self.feature_dtype, FEATURE_DTYPES, "dtype of features")
        check_work(self.device, self.dtype, self.batch_size, self.jobs, self.max_pixels)
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
