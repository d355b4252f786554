"""The task of the pipeline for `label` and `eval`: from the features of an image to its label files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod

import numpy as np

from tipsseg.features.folder import FeatureFiles, FeatureStore
from tipsseg.formats import FORMATS
from tipsseg.formats.reading.given import Given
from tipsseg.images.decoding import open_pixels
from tipsseg.label_map import LabelMap
from tipsseg.labelling.features import find_features
from tipsseg.labelling.patch_labeller import Patches, PatchLabeller, Scored
from tipsseg.labelling.source import Digests, FeatureSource, Loaded
from tipsseg.options import MAX_PIXELS
from tipsseg.regions.naming import NamedRegions
from tipsseg.run.derive import Deriver
from tipsseg.run.labels import RunContext
from tipsseg.run.results import Labelled, write_image
from tipsseg.runs.engine.loading import LoadedModel
from tipsseg.util.files import cache_folder
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import Vocabulary

#: The number of best classes per patch in formats that store them.
TOP_CLASSES = 5


class LabelTask:
    """Label images and write their files.

    Attributes:
        source: The source of the features.
        labeller: The labeller.
    """

    def __init__(
        self,
        labeller: PatchLabeller,
        context: RunContext,
        max_pixels: int = MAX_PIXELS,
        store: FeatureStore | None = None,
        digests: Digests | None = None,
        given: Given | None = None,
    ) -> None:
        """Set up the task.

        If `store` is None, all images are encoded. `given` has the regions and labels of the images.
        """
        backbone = labeller.backbone
        on_device = None if backbone.device_name == "cpu" else find_features(backbone.device)
        self.source: FeatureSource[Patches] = FeatureSource(
            backbone,
            labeller.view,
            store,
            on_device or FeatureFiles.find,
            max_pixels=max_pixels,
            digests=digests,
            pixels=labeller.options.refine != "none",
            thumbnails=any(FORMATS[name].needs_thumbnail for name in context.formats),
        )
        self.labeller = labeller
        self._deriver = Deriver(context)
        self._given = given
        self._max_pixels = max_pixels
        self._top = TOP_CLASSES if any(FORMATS[name].needs_top_classes for name in context.formats) else 0

    def score(self, scales: Sequence[Patches]) -> Scored:
        """Compare the features of an image with the phrases. Runs in the model's thread."""
        return self.labeller.score(scales, self._top)

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
        prepared, given = loaded.picture.prepared, self._given
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
        ref, picture, size = loaded.ref, loaded.picture, label_map.shape
        done = write_image(
            self._deriver,
            ref,
            loaded.fingerprint,
            label_map,
            thumbnail=picture.thumbnail,
            pixels=lambda: open_pixels(ref.path, size, self._max_pixels, self.labeller.options.stretch),
            given=None if self._given is None else self._given.digest(ref, size),
        )
        entry = replace(done.entry, seconds=round(loaded.seconds + time.monotonic() - began, 3))
        return replace(done, entry=entry, remarks=picture.remarks, damaged=loaded.damaged)


def make_label_task(
    loaded: LoadedModel,
    vocabulary: Vocabulary | FittedVocabulary,
    context: RunContext,
) -> LabelTask:
    """Encode the phrases of a vocabulary, and set up the task of a run."""
    spec = loaded.info.spec
    cache = cache_folder() if spec.use_cache else None
    regions = spec.regions is not None
    labeller = PatchLabeller(loaded.model.backbone, vocabulary, spec.options, cache=cache, regions=regions)
    return LabelTask(
        labeller,
        context,
        spec.max_pixels,
        loaded.store,
        loaded.digests,
        spec.given,
    )
