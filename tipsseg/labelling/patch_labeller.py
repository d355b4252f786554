"""Define PatchLabeller, which labels patch features in two steps: `score` on the device, `assign` on any host thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import UsageError
from tipsseg.features.file import FeatureRecord
from tipsseg.label_map import LabelMap, label_map_of
from tipsseg.labelling.classifier import Classifier, fitted_classifier, make_classifier, make_classifiers
from tipsseg.labelling.encode import non_finite_error
from tipsseg.labelling.features import Features
from tipsseg.labelling.prepare import Prepared
from tipsseg.labelling.scoring.assign import Assignment, best_groups, crop, match, match_part, match_refined
from tipsseg.labelling.scoring.overlap import Contest, label_alone
from tipsseg.labelling.scoring.resample import Values
from tipsseg.labelling.scoring.scores import compute_cosines, make_scores
from tipsseg.labelling.view import view_of
from tipsseg.options import LabelOptions
from tipsseg.regions.naming import Regions, name_regions
from tipsseg.types import TopClasses, WindowPlan
from tipsseg.vocabulary.fitted import FITS_DO_NOT_OVERLAP, FittedVocabulary
from tipsseg.vocabulary.vocabulary import Vocabulary, vocabularies_of_classes
from tipsseg.weights.sources import file_hashes, find_model_id

if TYPE_CHECKING:
    from torch import Tensor

    from tipsseg.labelling.scoring.device_scores import DeviceLabels, DeviceScorer

#: Above this number of pixels, labels are not copied asynchronously: the host would hold those of several images at a time.
_MAX_ASYNC_PIXELS = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Cosines:
    """Cosine scores of one image, not yet turned into labels.

    Attributes:
        values: [B, h, w, P] float32 for each scale, on the model's device.
        plans: The windows at each scale.
        size: (height, width) of the image in pixels.
        top: The number of best classes to keep for each patch.
    """

    values: Sequence[Any]
    plans: Sequence[WindowPlan]
    size: tuple[int, int]
    top: int


#: The features of an image at one scale, on the model's device; on a CPU also a stored record, in float32.
Patches = Features | FeatureRecord

#: The result of `PatchLabeller.score`: cosines, or labels on their way from the device.
Scored = Union["Cosines", "DeviceLabels"]


class PatchLabeller:
    """Labels patch features with the phrases of a vocabulary.

    Attributes:
        backbone: The model.
        options: Labelling options.
        view: The sizes and windows at which the model sees images.
        vocabulary: The classes and background phrases that compete, without `dropped`.
        dropped: Removed automatic background phrases, each mapped to the class phrase with the same meaning.
    """

    def __init__(
        self,
        backbone: Backbone,
        vocabulary: Vocabulary | FittedVocabulary,
        options: LabelOptions,
        *,
        cache: Path | None = None,
        regions: bool = False,
    ) -> None:
        """Encode the phrases. See `Labeller` for arguments and errors.

        With `regions`, every image has regions, and the minimum confidence applies to the scores of regions.
        """
        self.backbone = backbone
        self.options = options
        self.view = view_of(backbone, options)
        self._contests: list[Contest] = []
        if options.overlap:
            if regions:
                raise UsageError(
                    "argument `overlap` and argument `regions` exclude each other: a region has one class",
                    "Use one of them.",
                )
            classifier, self._contests = _classify_alone(backbone, vocabulary, options.min_confidence, cache)
            self._temperature = backbone.temperature
        elif isinstance(vocabulary, FittedVocabulary):
            hashes = file_hashes(backbone.folder)
            vocabulary.check(hashes, find_model_id(backbone.folder, hashes), options.mode, self.view.base)
            classifier = fitted_classifier(backbone, vocabulary)
            self._temperature = vocabulary.temperature
        else:
            classifier = make_classifier(backbone, vocabulary, cache)
            self._temperature = backbone.temperature
        self.vocabulary, self.dropped = classifier.vocabulary, classifier.dropped
        self._classifier = classifier
        self._table = classifier.label_table(options.min_confidence)
        self._minimum = self._table.min_confidence
        if regions:
            self._table = replace(self._table, min_confidence=np.zeros_like(self._minimum))
        # On a CPU all threads compute already, and pruning makes `match` faster than the device scorer.
        self._scorer = None if self._on_cpu or self._contests else self._device_scorer()

    @property
    def _on_cpu(self) -> bool:
        return self.backbone.device_name == "cpu"

    def _device_scorer(self) -> DeviceScorer:
        from tipsseg.labelling.scoring.device_scores import DeviceScorer

        return DeviceScorer(self._table, self._temperature, self.backbone.device)

    @cached_property
    def vectors(self) -> Tensor:
        """[P, D] float32, the phrase vectors on the device: unit vectors, or fitted."""
        return self._on_device(self._classifier.vectors)

    @cached_property
    def _biases(self) -> Tensor | None:
        biases = self._classifier.biases
        return None if biases is None else self._on_device(biases)

    def _on_device(self, values: Values) -> Tensor:
        from tipsseg.backbones.transfers import to_device

        return to_device(values, self.backbone.device)

    def score(self, scales: Sequence[Patches], top: int = 0) -> Scored:
        """Compare the features of an image with the phrases, without waiting for the device.

        A GPU also computes the labels, unless they are refined or the image is large.

        Args:
            scales: The features at each scale, in ascending order.
            top: The number of best classes to keep for each patch, at most the number of classes.

        Returns:
            The scores to pass to `assign`.

        Raises:
            DeviceError: The device has too little memory.
        """
        scorer, size, plans = self._scorer, scales[0].size, plans_of(scales)
        values = self._compare(scales)
        if self._on_cpu or scorer is None or self.options.refine != "none" or prod(size) > _MAX_ASYNC_PIXELS:
            return Cosines(values, plans, size, top)
        from tipsseg.backbones.devices import as_device_error

        with self.backbone.at_work, as_device_error(self.backbone.device):
            return scorer.send(values, plans, size, self.view.grid(plans[0]), top)

    def _compare(self, scales: Sequence[Patches]) -> list[Any]:
        """Return the cosines of features with the phrases at each scale, [B, h, w, P] float32, on the device."""
        backbone = self.backbone
        if self._on_cpu:
            vectors, biases = self._classifier.vectors, self._classifier.biases
            with backbone.at_work:
                return [compute_cosines(np.asarray(scale.patches), vectors, biases) for scale in scales]
        from tipsseg.backbones.devices import as_device_error

        with backbone.at_work, as_device_error(backbone.device):
            values = [cast(Features, scale).cosines(self.vectors) for scale in scales]
            return values if self._biases is None else [cosines + self._biases for cosines in values]

    def encode_cosines(self, windows: Sequence[NDArray[np.uint8]]) -> Any:
        """Encode windows, each [side, side, 3], and compare them with the phrases: [B, h, w, P] float32, on the device.

        Raise DeviceError if the device has too little memory.
        """
        encoded, side = self.backbone.encode_windows(windows), len(windows[0])
        plan = WindowPlan((side, side), side, ((0, 0),) * len(windows))
        return self._compare([Features((side, side), plan, encoded.patches, encoded.class_tokens)])[0]

    def assign_part(self, cosines: Cosines, inner: tuple[int, int, int, int]) -> LabelMap:
        """Label a part of an image in windows of one scale: top, left, height and width in pixels. See `assign`."""
        values = self._fetch_cosines(cosines)
        if values is None:
            raise non_finite_error(self.backbone)
        scores = make_scores(values, cosines.plans, self._temperature)
        scorer = self._scorer
        if scorer is None:
            assigned = match_part(scores, cosines.size, self._table, inner)
        else:
            assigned = crop(self._fetch(scorer, cosines), inner)
        return LabelMap(assigned.labels, assigned.confidence, self.vocabulary.classes)

    def assign(
        self, scored: Scored, pixels: NDArray[np.uint8] | None = None, regions: Regions | None = None
    ) -> LabelMap:
        """Turn scores into labels. Safe to call from several threads.

        Args:
            scored: The result of `score`.
            pixels: The image as the model sees it at the finest scale, [h, w, 3]. Refinement needs it.
            regions: The regions of the image, if this labeller was set up for regions.

        Raises:
            DeviceError: The model returned infinity or NaN.
        """
        if self._contests:
            assert isinstance(scored, Cosines)
            return self._assign_alone(scored, pixels)
        result = self._assign_here(scored, pixels) if isinstance(scored, Cosines) else scored.wait()
        if result is None:
            raise non_finite_error(self.backbone)
        assigned, top = result
        if regions is None:
            return LabelMap(assigned.labels, assigned.confidence, self.vocabulary.classes, top)
        height, width = assigned.labels.shape
        named = name_regions(
            assigned.labels,
            assigned.confidence,
            regions,
            minimum=self._minimum,
            ignore=self._table.ignore,
            patch=self.view.patch_side((height, width)),
        )
        return LabelMap(named.labels, named.confidence, self.vocabulary.classes, top, instances=named.instances)

    def _assign_alone(self, cosines: Cosines, pixels: NDArray[np.uint8] | None) -> LabelMap:
        """Label each class as if it were the only one."""
        values = self._fetch_cosines(cosines)
        if values is None:
            raise non_finite_error(self.backbone)
        refined = (pixels, self._refine) if self.options.refine == "pamr" else (None, None)
        layers = label_alone(self._contests, values, cosines.plans, self._temperature, cosines.size, *refined)
        return label_map_of(layers, cosines.size, self.vocabulary.classes)

    def _assign_here(
        self, cosines: Cosines, pixels: NDArray[np.uint8] | None
    ) -> tuple[Assignment, TopClasses | None] | None:
        """Return the labels and the best classes of each patch; None if a cosine is infinite or NaN."""
        scorer, refine = self._scorer, self.options.refine == "pamr"
        values = self._fetch_cosines(cosines)
        if values is None:
            return None
        top = None
        scores = make_scores(values, cosines.plans, self._temperature)
        if cosines.top:
            groups = self._table.groups
            best, shares = best_groups(scores, self.view.grid(cosines.plans[0]), groups, min(cosines.top, len(groups)))
            top = TopClasses(self._table.label_ids[best], shares)
        if refine:
            assert pixels is not None
            return match_refined(scores, pixels, cosines.size, self._table, self._refine), top
        return (match(scores, cosines.size, self._table) if scorer is None else self._fetch(scorer, cosines)), top

    def _fetch_cosines(self, cosines: Cosines) -> list[Values] | None:
        """Return the cosines of each scale on the host; None if one is infinite or NaN."""
        values: list[Values] = [scale if self._on_cpu else scale.cpu().numpy() for scale in cosines.values]
        return values if all(np.isfinite(scale).all() for scale in values) else None

    def _fetch(self, scorer: DeviceScorer, cosines: Cosines) -> Assignment:
        from tipsseg.backbones.devices import as_device_error

        with self.backbone.at_work, as_device_error(self.backbone.device):
            return scorer.fetch(cosines.values, cosines.plans, cosines.size)

    def _refine(self, maps: Values, image: NDArray[np.uint8]) -> Values:
        from tipsseg.backbones.transfers import to_device
        from tipsseg.labelling.refine import pamr

        with self.backbone.at_work:
            return pamr(to_device(maps, self.backbone.device), image).cpu().numpy()


def _classify_alone(
    backbone: Backbone, vocabulary: Vocabulary | FittedVocabulary, min_confidence: float, cache: Path | None
) -> tuple[Classifier, list[Contest]]:
    """Return a contest for each class, and a classifier with the vectors of all contests.

    Its vocabulary has all background phrases: one that means the same as a class competes with the other classes.

    Raises:
        VocabularyError: There is no background.
        UsageError: The vocabulary is a fit.
    """
    if isinstance(vocabulary, FittedVocabulary):
        raise UsageError(FITS_DO_NOT_OVERLAP, "Remove argument `overlap`, or pass the class names.")
    classifiers = make_classifiers(backbone, vocabularies_of_classes(vocabulary), cache)
    numbers: dict[bytes, int] = {}
    vectors: list[Values] = []
    contests = []
    for class_id, classifier in enumerate(classifiers, start=1):
        for vector in classifier.vectors:
            if numbers.setdefault(vector.tobytes(), len(vectors)) == len(vectors):
                vectors.append(vector)
        phrases = np.array([numbers[vector.tobytes()] for vector in classifier.vectors], np.intp)
        contests.append(Contest(class_id=class_id, phrases=phrases, table=classifier.label_table(min_confidence)))
    dropped = {text: name for classifier in classifiers for text, name in classifier.dropped.items()}
    return Classifier(vocabulary.drop_background(()), dropped, np.stack(vectors)), contests


def plans_of(scales: Iterable[Patches | Prepared]) -> tuple[WindowPlan, ...]:
    return tuple(scale.plan for scale in scales)
