"""What is done to one image of `label` and `eval`, from its features to its label files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import prod

from tipsseg.features.folder import FeatureFiles, FeatureStore
from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels
from tipsseg.label_map import LabelMap
from tipsseg.labelling.features import find_features
from tipsseg.labelling.labeller import Labeller, Patches, Scored
from tipsseg.labelling.source import Digests, FeatureSource, Loaded
from tipsseg.options import MAX_PIXELS
from tipsseg.regions.objects import labelled_objects
from tipsseg.store.manifest import ManifestEntry, input_path
from tipsseg.store.results import Labelled
from tipsseg.store.stored_image import object_scores
from tipsseg.store.summary import label_summary
from tipsseg.store.writing import RunContext, finish_image
from tipsseg.types import ImageRef

#: How many classes of each patch are kept, for formats that have them.
TOP_CLASSES = 5

#: Sees the labels of an image before anything is written, in one of several threads, and may raise ImageError.
Inspect = Callable[[ImageRef, LabelMap], None]


class LabelTask:
    """Labels images and writes their files.

    Attributes:
        source: Where the features of images come from.
    """

    def __init__(
        self,
        labeller: Labeller,
        formats: tuple[str, ...],
        context: RunContext,
        digest: str,
        inspect: Inspect | None = None,
        max_pixels: int = MAX_PIXELS,
        store: FeatureStore | None = None,
        digests: Digests | None = None,
    ) -> None:
        """Say how it is done.

        Args:
            labeller: Makes the labels.
            formats: That the labels are written in.
            context: Of the run.
            digest: Of all that decides the labels.
            inspect: Is shown the labels of each image.
            max_pixels: Images of more pixels are refused.
            store: Features are taken from it and added to it; None: all are made, and kept nowhere.
            digests: Hashes of images that were taken already.
        """
        backbone = labeller.model.backbone
        on_device = None if backbone.device_name == "cpu" else find_features(backbone.device)
        self.source: FeatureSource[Patches] = FeatureSource(
            labeller.model,
            labeller.view,
            store,
            on_device or FeatureFiles.find,
            max_pixels=max_pixels,
            digests=digests,
            pixels=labeller.options.refine != "none",
            thumbnails=any(FORMATS[name].needs_thumbnail for name in formats),
        )
        self._labeller = labeller
        self._formats = formats
        self._context = context
        self._digest = digest
        self._inspect = inspect
        self._top = TOP_CLASSES if any(FORMATS[name].needs_top_classes for name in formats) else 0

    def score(self, scales: Sequence[Patches]) -> Scored:
        """Compare the features of an image with the phrases; for the thread of the model."""
        return self._labeller.score(scales, self._top)

    def finish(self, loaded: Loaded[Patches], scored: Scored) -> Labelled:
        """Label an image and write its files, under temporary names; several threads may call this.

        Raises ImageError for what is wrong with this one, others for what ends a run.
        """
        began = time.monotonic()
        ref, picture = loaded.ref, loaded.picture
        finest = picture.prepared.scales[-1]
        with self.source.alone(max(finest.size, finest.plan.size, key=prod)):
            label_map = self._labeller.assign(scored, finest.resized)
            if self._inspect is not None:
                self._inspect(ref, label_map)
            labels, confidence = label_map.labels, label_map.confidence
            objects = labelled_objects(labels, confidence, len(label_map.classes), self._context.files)
            image = ImageLabels(
                ref=ref,
                labels=labels,
                objects=objects,
                confidence=confidence,
                top=label_map.top,
                thumbnail=picture.thumbnail,
            )
            done = finish_image(image, self._formats, self._context)
            summary = label_summary(label_map)
        seconds = round(loaded.seconds + time.monotonic() - began, 3)
        entry = ManifestEntry(
            ref.name,
            input_path(ref),
            loaded.fingerprint,
            self._digest,
            summary,
            done.files,
            self._formats,
            seconds,
            done.written,
            object_scores(objects),
        )
        return Labelled(
            ref, entry, done.rows, done.polygon_quality, picture.remarks, loaded.damaged, staged=done.staged
        )
