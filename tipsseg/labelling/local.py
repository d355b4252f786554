"""The engine of this process: load the model, open the feature store, label images, and write their files under temporary names.

A run that reads all features from a store does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Self

import numpy as np

from tipsseg.backbones.registry import open_backbone
from tipsseg.errors import DeviceError, Words
from tipsseg.features.file import Recipe
from tipsseg.features.folder import (
    DEFAULT_FEATURE_DTYPE,
    FeatureFiles,
    FeatureStore,
    StoreRecord,
    feature_path,
    read_store,
)
from tipsseg.folder.labels import RunContext
from tipsseg.folder.record import run_context
from tipsseg.folder.results import Deriver, ImageResult, Labelled, Triaged, find_grid, write_image
from tipsseg.folder.spec import RunInfo, model_identity
from tipsseg.label_map import LabelMap
from tipsseg.labelling.blocks import BlockTask
from tipsseg.labelling.features import find_features
from tipsseg.labelling.labeller import Labeller, Patches, Scored
from tipsseg.labelling.model import Model
from tipsseg.labelling.source import Digests, FeatureSource, Loaded
from tipsseg.labelling.stages import run_stages
from tipsseg.labelling.view import View, short_sides, view_of
from tipsseg.options import FEATURE_DTYPES, choose
from tipsseg.options.records import ComputeOptions, LabelOptions
from tipsseg.regions.naming import NamedRegions
from tipsseg.say import Progress
from tipsseg.types import LABELS_VERSION, ImageRef
from tipsseg.util.files import cache_folder
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import Vocabulary
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
    """Load the model of a planned run (see `plan_run`), and open its feature store.

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
        recipe = Recipe(identity, backbone.dtype_name, view.mode, view.base, LABELS_VERSION, spec.options.stretch)
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
        check_device(spec, dtype, note)  # before downloading the model
    folder = source.fetch(quiet=quiet, keep_stamps=spec.use_cache)
    backbone = open_backbone(folder, spec.device, dtype, spec.batch_size, lazy=lazy)
    backbone.on_less_memory = lambda size: note(
        Words(
            "Not enough memory on {device_name}: the batch size is now {size} windows ({batch_size}={size}).",
            device_name=backbone.device_name,
            size=size,
        )
    )
    return Model(backbone)


def check_device(spec: ComputeOptions, dtype: str, note: Note = lambda _: None) -> None:
    """Raise DeviceError if this machine lacks the device, or the device lacks the dtype. Note devices that do not work."""
    # Importing torch is slow, so it happens here.
    from tipsseg.backbones.devices import choose_device, resolve_device, resolve_dtype

    device, failed = choose_device() if spec.device == "auto" else (resolve_device(spec.device), "")
    if failed:
        note(f"{failed}. Using {device}.")
    try:
        resolve_dtype(dtype, device)
    except DeviceError as error:
        if dtype == spec.dtype:
            raise
        raise DeviceError(
            error.device,
            f"the run in the output folder uses {dtype}, but " + error.message,
            Words("Resume on a device that supports this dtype, or choose another output folder with {output}."),
        ) from None


#: The number of best classes per patch in formats that store them.
TOP_CLASSES = 5


class LocalEngine:
    """Label images in this process, and write their files under temporary names.

    Attributes:
        info: The run, with its device, dtype and vocabulary.
        labeller: The labeller.
        source: Reads and encodes images.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        context: RunContext,
        note: Callable[[str], None],
        classes: Vocabulary | FittedVocabulary | None = None,
    ) -> None:
        """Encode the class phrases of a run; `classes` may differ from the run's."""
        spec, context = loaded.info.spec, replace(context, question=loaded.info.digest)
        self.labeller = Labeller(
            loaded.model,
            classes or spec.fitted or spec.vocabulary,
            spec.options,
            cache=cache_folder() if spec.use_cache else None,
        )
        self.info = replace(loaded.info, vocabulary=self.labeller.vocabulary, dropped=self.labeller.dropped)
        self._backbone = loaded.model.backbone
        on_device = None if self._backbone.device_name == "cpu" else find_features(self._backbone.device)
        self.source: FeatureSource[Patches] = FeatureSource(
            self._backbone,
            self.labeller.view,
            loaded.store,
            on_device or FeatureFiles.find,
            spec.reader,
            digests=loaded.digests,
            pixels=spec.options.refine != "none",
            thumbnails=context.need("thumbnail"),
        )
        self._deriver = Deriver(context)
        self._top = TOP_CLASSES if context.need("top") else 0
        mask = context.block_mask
        self._blocks = None if mask is None else BlockTask(mask, self.labeller, self.info, context, note)

    @classmethod
    def of(cls, info: RunInfo, progress: Progress, images: Sequence[ImageRef]) -> Self:
        """Load the model of a run that writes no folder (see `load_for`)."""
        loaded = load_for(info, progress.say, quiet=progress.quiet, images=images)
        return cls(loaded, run_context(loaded.info), progress.say)

    @property
    def batch_size(self) -> int:
        return self._backbone.batch_size

    def results(self, items: Iterable[Triaged]) -> Generator[ImageResult, None, None]:
        """Yield the result of each image, in the order of `items`. Raise TipssegError if the run cannot continue."""
        if self._blocks is not None:
            return self._blocks.results(items)
        return run_stages(items, self.source, self.score, self.finish, self.info.spec.jobs)

    def score(self, scales: Sequence[Patches]) -> Scored:
        """Compare the features of an image with the phrases. Runs in the model's thread."""
        spec = self.info.spec
        return self.labeller.score(
            scales, self._top, in_regions=spec.regions is not None, some=spec.present is not None
        )

    def finish(self, loaded: Loaded[Patches], scored: Scored) -> Labelled:
        """Label an image and write its files under temporary names. Thread-safe.

        Raise ImageError if this image fails, other errors if the run cannot continue.
        """
        with self.alone(loaded):
            return self.write(loaded, self.label(loaded, scored))

    def alone(self, loaded: Loaded[Patches]) -> AbstractContextManager[object]:
        """Return a context that admits one large image at a time, to bound memory."""
        finest = loaded.picture.prepared.scales[-1]
        return self.source.alone(max(finest.size, finest.plan.size, key=prod))

    def label(self, loaded: Loaded[Patches], scored: Scored) -> LabelMap:
        """Label an image. Raise ImageError if the regions, labels or names that it is given cannot be used."""
        prepared, given = loaded.picture.prepared, self.info.spec.given
        regions = None if given is None else given.regions_of(loaded.ref, prepared.size)
        present = None if given is None else given.present_in(loaded.ref)
        result = self.labeller.assign(scored, prepared, regions, present=present)
        if given is None or (given.regions is None and given.labels is None):
            return result
        instances = np.zeros(prepared.size, np.int32) if result.instances is None else result.instances
        kept = given.keep(
            loaded.ref, NamedRegions(labels=result.labels, confidence=result.confidence, instances=instances)
        )
        result = replace(result, labels=kept.labels, confidence=kept.confidence, instances=kept.instances)
        if given.labels is None:
            return result
        exists = kept.confidence == 1
        known = [np.where(exists, np.ones_like(each), each) for each in result.whole_confidences]
        result = replace(result, whole_confidences=tuple(known))
        return self.labeller.add_parts(result, scored, prepared, only=given.added)

    def write(self, loaded: Loaded[Patches], label_map: LabelMap) -> Labelled:
        """Write the files of an image under temporary names."""
        ref, picture, size, spec = loaded.ref, loaded.picture, label_map.shape, self.info.spec
        done = write_image(
            self._deriver,
            ref,
            loaded.fingerprint,
            label_map,
            thumbnail=picture.thumbnail,
            pixels=lambda: spec.reader.pixels(ref.path, size),
            grid=lambda: find_grid(self._deriver.context.formats, ref.path, size, len(label_map.classes), spec.reader),
            pixel_digest=picture.pixels,
            given="" if spec.given is None else spec.given.digest(ref, size),
        )
        return replace(done, remarks=(*picture.remarks, *label_map.remarks), damaged=loaded.damaged)
