"""What labels the images of a run: this process, or others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tipsseg.errors import DeviceError
from tipsseg.features.file import Recipe
from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE, FeatureStore, StoreRecord
from tipsseg.label_map import LabelMap
from tipsseg.options import FEATURE_DTYPES, Mode, choose
from tipsseg.options.run import ComputeOptions
from tipsseg.store.results import ImageResult, Left
from tipsseg.store.spec import LABELS_VERSION, RunInfo, model_identity
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef
from tipsseg.util.files import cache_folder
from tipsseg.weights.sources import file_hashes, find_model

if TYPE_CHECKING:
    from tipsseg.labelling.model import Model


class Engine(Protocol):
    """Labels images and writes their per-image files."""

    def start(self, context: RunContext) -> RunInfo:
        """Get the model ready, and return what the run came to by that. Call it once, before `results`.

        Args:
            context: What the writers have to know of the run.

        Raises:
            TipssegError: For what ends the run.
        """

    def batch_size(self) -> int | None:
        """How many windows make a batch, after batches were halved for want of memory; None where that is not known."""

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        """The result of each image, in the order of `items`. Raises TipssegError for what ends the run."""


class LocalEngine:
    """Labels images in this process."""

    def __init__(
        self,
        info: RunInfo,
        *,
        inspect: Callable[[ImageRef, LabelMap], None] | None = None,
        note: Callable[[str], None] | None = None,
        quiet: bool = False,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            info: The run, as `plan_run` gives it.
            inspect: Sees each image's labels before anything is written, in one of several threads; it may raise ImageError.
            note: Takes lines on what a user may want to change.
            quiet: Whether a download of the model shows no progress.
        """
        self._info = info
        self._inspect = inspect
        self._note = note
        self._quiet = quiet

    def start(self, context: RunContext) -> RunInfo:
        """Load the model, see Engine."""
        from tipsseg.labelling.labeller import Labeller
        from tipsseg.labelling.scoring.compiled.match import to_be_compiled
        from tipsseg.runs.engine.image_task import ImageTask

        spec = self._info.spec
        cache = cache_folder() if spec.use_cache else None
        loaded = load_for(self._info, self._note, quiet=self._quiet)
        labeller = Labeller(loaded.model, spec.fitted or spec.vocabulary, spec.options, cache=cache)
        info = replace(loaded.info, vocabulary=labeller.vocabulary, dropped=labeller.dropped)
        self._task = ImageTask(
            labeller, spec.formats, context, info.digest, self._inspect, spec.max_pixels, loaded.store
        )
        self._backbone = loaded.model.backbone
        if self._note is not None and labeller.scores_windows and to_be_compiled():
            self._note("numba compiles the loops that make labels. It takes some seconds, and is done once.")
        return info

    def batch_size(self) -> int | None:
        """The batch size of the model, see Engine."""
        return self._backbone.batch_size

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        """Label the images, see Engine."""
        from tipsseg.runs.engine.pipeline import label_images

        return label_images(items, self._task, self._info.spec.jobs)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """The model of a run.

    Attributes:
        model: The model.
        info: The run, with what is known once its model is loaded.
        store: Where features are taken from and kept; None: nowhere.
    """

    model: Model
    info: RunInfo
    store: FeatureStore | None


def load_for(info: RunInfo, note: Callable[[str], None] | None, *, quiet: bool) -> LoadedModel:
    """Load the model of a run that `plan_run` planned, and open its feature store. Raises TipssegError."""
    spec = info.spec
    model = load_model(spec, info.dtype, note, quiet=quiet, lazy=spec.features is not None)
    backbone = model.backbone
    facts = {**info.model, "sha256": file_hashes(backbone.folder, keep_stamps=spec.use_cache)}
    store = None
    if spec.features is not None:
        side = model.check_short_side(spec.options.short_side)
        store = open_store(spec.features, spec.feature_dtype, facts, backbone.dtype_name, spec.options.mode, side)
    known = replace(info, model=facts, device=str(backbone.device), dtype=backbone.dtype_name)
    return LoadedModel(model, known, store)


def load_model(
    spec: ComputeOptions, dtype: str, note: Callable[[str], None] | None, *, quiet: bool, lazy: bool = False
) -> Model:
    """Load the model of a run. Raises TipssegError.

    Args:
        spec: What is said of it.
        dtype: What it computes in; that may be the dtype of an earlier run.
        note: Takes lines on what a user may want to change.
        quiet: Whether a download shows no progress.
        lazy: Whether each tower is read when it is first needed: a run whose features are all kept needs none.
    """
    from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
    from tipsseg.labelling.model import Model

    check_device(spec, dtype)  # before any download
    folder = find_model(spec.model).fetch(quiet=quiet, keep_stamps=spec.use_cache)
    cache = cache_folder() if spec.use_cache else None
    backbone = Tipsv2Backbone(folder, spec.device, dtype, spec.batch_size, cache, lazy=lazy)
    if note is not None:
        backbone.on_less_memory = lambda size: note(
            f"Not enough memory on {backbone.device}: {size} windows at once from here on (argument `batch_size`={size})."
        )
    return Model(backbone)


def open_store(
    folder: Path, feature_dtype: str | None, model: Mapping[str, object], dtype: str, mode: Mode, short_side: int
) -> FeatureStore:
    """Open the feature store of a run whose model is loaded. Raises OutputError.

    Args:
        folder: Its folder.
        feature_dtype: What features are kept in.
        model: See `ModelSource.facts`.
        dtype: What the model computes in.
        mode: How images are shown to it.
        short_side: Of the images as it sees them, in pixels.
    """
    recipe = Recipe(model_identity(model), dtype, mode, short_side, LABELS_VERSION)
    kept = choose(feature_dtype or DEFAULT_FEATURE_DTYPE, FEATURE_DTYPES, "dtype of features")
    return FeatureStore(folder, StoreRecord(str(model["id"]), recipe, kept))


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
