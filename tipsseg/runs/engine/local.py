"""The engine of this process: it labels images, and writes their files under temporary names."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod

import numpy as np

from tipsseg.features.folder import FeatureFiles
from tipsseg.formats import FORMATS
from tipsseg.images.decoding import open_pixels
from tipsseg.label_map import LabelMap
from tipsseg.labelling.features import find_features
from tipsseg.labelling.labeller import Labeller, Patches, Scored
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.regions.naming import NamedRegions
from tipsseg.run.derive import Deriver
from tipsseg.run.labels import RunContext
from tipsseg.run.results import ImageResult, Labelled, Left, write_image
from tipsseg.runs.engine.loading import LoadedModel
from tipsseg.runs.engine.pipeline import run_stages
from tipsseg.runs.engine.raster_task import RasterTask
from tipsseg.util.files import cache_folder
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import Vocabulary

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
        """Encode the class phrases of a run; `classes` are others than those of the run."""
        spec = loaded.info.spec
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
            max_pixels=spec.max_pixels,
            digests=loaded.digests,
            pixels=spec.options.refine != "none",
            thumbnails=any("thumbnail" in FORMATS[name].needs for name in context.formats),
        )
        self._deriver = Deriver(context)
        self._top = TOP_CLASSES if any("top" in FORMATS[name].needs for name in context.formats) else 0
        self._raster = RasterTask(self.labeller, self.info, context, note) if spec.is_raster else None

    @property
    def batch_size(self) -> int:
        return self._backbone.batch_size

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        """Yield the result of each image, in the order of `items`. Raises TipssegError if the run cannot continue."""
        if self._raster is not None:
            return self._raster.results(items)
        return run_stages(items, self.source, self.score, self.finish, self.info.spec.jobs)

    def score(self, scales: Sequence[Patches]) -> Scored:
        """Compare the features of an image with the phrases. Runs in the model's thread."""
        return self.labeller.score(scales, self._top, in_regions=self.info.spec.regions is not None)

    def finish(self, loaded: Loaded[Patches], scored: Scored) -> Labelled:
        """Label an image and write its files under temporary names. Thread-safe.

        Raises ImageError if this image fails, other errors if the run cannot continue.
        """
        began = time.monotonic()
        with self.alone(loaded):
            return self.write(loaded, self.label(loaded, scored), began)

    def alone(self, loaded: Loaded[Patches]) -> AbstractContextManager[object]:
        """Return a context that admits one large image at a time, to bound memory."""
        finest = loaded.picture.prepared.scales[-1]
        return self.source.alone(max(finest.size, finest.plan.size, key=prod))

    def label(self, loaded: Loaded[Patches], scored: Scored) -> LabelMap:
        """Label an image. Raises ImageError if the regions or labels that it is given cannot be used."""
        prepared, given = loaded.picture.prepared, self.info.spec.given
        regions = None if given is None else given.regions_of(loaded.ref, prepared.size)
        result = self.labeller.assign(scored, prepared.scales[-1].resized, regions)
        if given is None:
            return result
        instances = np.zeros(prepared.size, np.int32) if result.instances is None else result.instances
        kept = given.keep(
            loaded.ref, NamedRegions(labels=result.labels, confidence=result.confidence, instances=instances)
        )
        return replace(result, labels=kept.labels, confidence=kept.confidence, instances=kept.instances)

    def write(self, loaded: Loaded[Patches], label_map: LabelMap, began: float) -> Labelled:
        """Write the files of an image under temporary names. `began` is the time.monotonic() at which labelling began."""
        ref, picture, size, spec = loaded.ref, loaded.picture, label_map.shape, self.info.spec
        done = write_image(
            self._deriver,
            ref,
            loaded.fingerprint,
            label_map,
            thumbnail=picture.thumbnail,
            pixels=lambda: open_pixels(ref.path, size, spec.max_pixels, spec.options.stretch),
            given=None if spec.given is None else spec.given.digest(ref, size),
        )
        entry = replace(done.entry, seconds=round(loaded.seconds + time.monotonic() - began, 3))
        return replace(done, entry=entry, remarks=picture.remarks, damaged=loaded.damaged)
