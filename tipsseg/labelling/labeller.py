"""One image -> its LabelMap: the engine behind the command and the library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import UsageError
from tipsseg.features.file import FeatureRecord
from tipsseg.images.decoding import ImageInput, to_upright
from tipsseg.label_map import LabelMap
from tipsseg.labelling.batches import Batches
from tipsseg.labelling.classifier import fitted_classifier, make_classifier
from tipsseg.labelling.features import Features
from tipsseg.labelling.model import Model
from tipsseg.labelling.prepare import Prepared
from tipsseg.labelling.scoring.assign import Assignment, best_groups, match_refined
from tipsseg.labelling.scoring.compiled.match import match
from tipsseg.labelling.scoring.resample import Values
from tipsseg.labelling.scoring.scores import cosines_with, make_scores
from tipsseg.options import MAX_PIXELS, LabelOptions, check_whole_number
from tipsseg.types import TopClasses, WindowPlan
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary
from tipsseg.weights.sources import file_hashes, name_of

if TYPE_CHECKING:
    from torch import Tensor

    from tipsseg.labelling.scoring.device_scores import DeviceLabels, DeviceScorer

#: Labels of more pixels than this are not sent while others are made: of so many the host has those of several images at a time.
_SENT = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Cosines:
    """What labels are still to be made of.

    Attributes:
        values: [B, h, w, P] float32 of each scale, on the device of the model.
        plans: How the model saw the image at each scale.
        size: (height, width) of the image in pixels.
        top: How many of the best classes of each patch are kept.
    """

    values: Sequence[Any]
    plans: Sequence[WindowPlan]
    size: tuple[int, int]
    top: int


#: The features of an image at one scale, on the device of the model; on a CPU they may be those of a store, in float32.
Patches = Features | FeatureRecord

#: What `Labeller.score` makes of features: cosines, or labels on their way from the device.
Scored = Union["Cosines", "DeviceLabels"]


class Labeller:
    """A model, a vocabulary and options, ready to label images.

    Attributes:
        model: The model.
        options: How images are labelled.
        vocabulary: The classes and background phrases that compete. Phrases of an automatic background that mean the same as a
            class are left out.
        dropped: The phrases that were left out, each with the phrase of the class that it means the same as.
        view: How the model sees images.
    """

    def __init__(
        self,
        model: Model,
        vocabulary: Vocabulary | FittedVocabulary | Sequence[str | ClassSpec],
        options: LabelOptions | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        cache: Path | None = None,
    ) -> None:
        """Encode the phrases of the vocabulary, once.

        Args:
            model: As `tipsseg.load` gives it.
            vocabulary: Names of classes, `ClassSpec`s, a `Vocabulary`, or what `tipsseg.fit` gives. Names alone get an automatic
                background, see `make_vocabulary`.
            options: How images are labelled; None: as published.
            max_pixels: Image files of more pixels are refused.
            cache: A folder that keeps the vectors of phrases for the next time. None: nothing is written.

        Raises:
            VocabularyError: The classes cannot be used.
            UsageError: An argument has a wrong type, or the short side is too small or too large; or the vocabulary was fitted with
                another model, in another mode or with another short side.
        """
        if not isinstance(model, Model):
            raise UsageError(
                f"the model must be what tipsseg.load gives, not {quoted(model)}", 'For example: tipsseg.load("l14").'
            )
        if not isinstance(vocabulary, Vocabulary | FittedVocabulary):
            vocabulary = make_vocabulary(vocabulary)
        if not isinstance(options, LabelOptions | None):
            raise UsageError(
                f"options must be LabelOptions, not {quoted(options)}", 'For example: LabelOptions(mode="whole").'
            )
        check_whole_number("argument `max_pixels`", max_pixels)
        self.model = model
        self.options = options or LabelOptions()
        self.view = model.view(self.options)
        self._max_pixels = max_pixels
        backbone = model.backbone
        if isinstance(vocabulary, FittedVocabulary):
            hashes = file_hashes(backbone.folder)
            vocabulary.check(hashes, name_of(backbone.folder, hashes), self.options.mode, self.view.base)
            classifier = fitted_classifier(backbone, vocabulary)
            self._temperature = vocabulary.temperature
        else:
            classifier = make_classifier(backbone, vocabulary, cache)
            self._temperature = backbone.temperature
        self.vocabulary, self.dropped = classifier.vocabulary, classifier.dropped
        self._classifier = classifier
        self._table = classifier.label_table(self.options.min_confidence)
        # On a CPU the device would be what all of the threads compute on already, and pruning makes `match` faster.
        self._scorer = None if backbone.device_name == "cpu" else self._device_scorer()

    def _device_scorer(self) -> DeviceScorer:
        from tipsseg.labelling.scoring.device_scores import DeviceScorer

        return DeviceScorer(self._table, self._temperature, self.model.backbone.device)

    @cached_property
    def vectors(self) -> Tensor:
        """[P, D] float32, the vectors of the phrases of the vocabulary, on the device; of unit length, or fitted."""
        return self._on_device(self._classifier.vectors)

    @cached_property
    def _biases(self) -> Tensor | None:
        biases = self._classifier.biases
        return None if biases is None else self._on_device(biases)

    def _on_device(self, values: Values) -> Tensor:
        from tipsseg.backbones.transfers import sent

        return sent(values, self.model.backbone.device)

    def label(self, image: ImageInput | Features, *, guide: ImageInput | None = None) -> LabelMap:
        """Label one image.

        Args:
            image: A path, a Pillow image (turned upright by its EXIF orientation), pixels [H, W, 3] uint8 RGB, or features, as
                `Model.encode` gives them. Features make a second question about the same image cheap.
            guide: With features: the image that they are of. Refinement needs it, as features have no pixels.

        Returns:
            The labels of its pixels.

        Raises:
            ImageError: The file cannot be read.
            InputError: The image has a wrong shape or dtype, or is too elongated.
            UsageError: The features were made by another model, in another mode or with another short side; or refinement
                lacks the image that they are of.
            DeviceError: The memory of the device is too small.
        """
        if not isinstance(image, Features):
            prepared = self._prepared(image)
            return self._labels(prepared, self.model.encode_prepared(prepared))
        self._check(image)
        return self._labels(self._guide(image, guide), image)

    def label_many(self, images: Iterable[ImageInput]) -> Iterator[LabelMap]:
        """Label images as they come. Small images share batches of the model, which makes a GPU faster.

        Args:
            images: As for `label`. They are read one by one; no more are in memory than fill a batch.

        Yields:
            The labels of each image, in the order of the images.

        Raises:
            TipssegError: As `label`, for the image whose turn it is; the images before it are yielded first.
        """
        if isinstance(images, str | Path) or not isinstance(images, Iterable):
            raise UsageError(f"images must be a list, not {quoted(images)}", "For one image: Labeller.label.")
        batches: Batches[Prepared] = Batches(self.model)
        for image in images:
            try:
                prepared = self._prepared(image)
            except Exception:
                yield from starmap(self._labels, batches.flush())
                raise
            yield from starmap(self._labels, batches.add(prepared, prepared))
        yield from starmap(self._labels, batches.flush())

    def _labels(self, guide: Prepared | None, features: Features) -> LabelMap:
        pixels = None if guide is None else guide.scales[-1].resized
        return self.assign(self.score(features.scales), pixels)

    def _guide(self, features: Features, guide: ImageInput | None) -> Prepared | None:
        """Return the image that refinement follows; None without refinement."""
        if self.options.refine == "none":
            return None
        if guide is None:
            raise UsageError(
                "refinement follows the colours of the image, and features have none",
                "Give the image of the features as argument `guide`.",
            )
        prepared = self._prepared(guide)
        if (prepared.size, _plans(prepared.scales)) != (features.size, _plans(features.scales)):
            height, width = features.size
            raise UsageError(f"the guide is not of the {height} x {width} (height x width) pixels of the features")
        return prepared

    def _prepared(self, image: ImageInput) -> Prepared:
        return self.view.prepare(to_upright(image, self._max_pixels))

    @property
    def scores_windows(self) -> bool:
        """Whether this processor makes labels from the windows of one scale, which numba is quicker at."""
        options = self.options
        one_scale = len(self.view.short_sides) == 1
        return self._scorer is None and one_scale and (options.mode, options.refine) == ("slide", "none")

    def score(self, scales: Sequence[Patches], top: int = 0) -> Scored:
        """Compare the features of an image with the phrases, without waiting for the device.

        On a GPU that goes as far as the labels, but for those that are refined or large.

        Args:
            scales: The features at each scale, in ascending order.
            top: How many of the best classes of each patch are kept, or as many as there are.

        Returns:
            What `assign` takes.

        Raises:
            DeviceError: The memory of the device is too small.
        """
        backbone, scorer = self.model.backbone, self._scorer
        size, plans = scales[0].size, _plans(scales)
        if scorer is None:
            vectors, biases = self._classifier.vectors, self._classifier.biases
            with backbone.at_work:
                return Cosines(
                    [cosines_with(np.asarray(each.patches), vectors, biases) for each in scales], plans, size, top
                )
        from tipsseg.backbones.devices import enough_memory

        with backbone.at_work, enough_memory(backbone.device):
            values = [cast(Features, each).cosines(self.vectors) for each in scales]
            values = values if self._biases is None else [each + self._biases for each in values]
            if self.options.refine != "none" or prod(size) > _SENT:
                return Cosines(values, plans, size, top)
            return scorer.send(values, plans, size, self.view.grid(plans[0]), top)

    def assign(self, scored: Scored, pixels: NDArray[np.uint8] | None = None) -> LabelMap:
        """Do the part of `label` behind the model; several threads may call this.

        Args:
            scored: As `score` makes it.
            pixels: The image as the model sees it at the finest scale, [h, w, 3]; only refinement needs it.

        Returns:
            The labels.

        Raises:
            DeviceError: The model's values are no numbers.
        """
        made = self._made(scored, pixels) if isinstance(scored, Cosines) else scored.wait()
        if made is None:
            raise self.model.gives_no_numbers()
        assigned, top = made
        return LabelMap(assigned.labels, assigned.confidence, self.vocabulary.classes, top)

    def _made(self, cosines: Cosines, pixels: NDArray[np.uint8] | None) -> tuple[Assignment, TopClasses | None] | None:
        """Make the labels and the best classes of each patch here and now; None if cosines are no numbers."""
        scorer, refine = self._scorer, self.options.refine == "pamr"
        values: list[Values] = [each if scorer is None else each.cpu().numpy() for each in cosines.values]
        if not all(np.isfinite(each).all() for each in values):
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
        return (match(scores, cosines.size, self._table) if scorer is None else self._fetched(scorer, cosines)), top

    def _fetched(self, scorer: DeviceScorer, cosines: Cosines) -> Assignment:
        from tipsseg.backbones.devices import enough_memory

        backbone = self.model.backbone
        with backbone.at_work, enough_memory(backbone.device):
            return scorer.fetch(cosines.values, cosines.plans, cosines.size)

    def _check(self, features: Features) -> None:
        """Raise UsageError for features that this labeller would not have made."""
        dim, plans = features.patches.shape[-1], _plans(features.scales)
        if dim != self.model.backbone.embed_dim:
            raise UsageError(
                f"the features have {dim} numbers for each patch, and those of this model {self.model.backbone.embed_dim}",
                "Encode the image with the model of the labeller.",
            )
        wanted = self.view.plans(features.size)
        if plans != wanted:
            raise UsageError(
                f"the features are of an image at {_seen(plans)}, and this labeller sees it at {_seen(wanted)}",
                "Give encode the mode, the short side and the scales of the labeller's options.",
            )

    def _refine(self, maps: Values, image: NDArray[np.uint8]) -> Values:
        from tipsseg.backbones.transfers import sent
        from tipsseg.labelling.refine import pamr

        backbone = self.model.backbone
        with backbone.at_work:
            return pamr(sent(maps, backbone.device), image).cpu().numpy()


def _plans(scales: Iterable[Patches | Prepared]) -> tuple[WindowPlan, ...]:
    """Return how the model sees an image at each scale."""
    return tuple(each.plan for each in scales)


def _seen(plans: Sequence[WindowPlan]) -> str:
    sizes = " and ".join(f"{height} x {width}" for height, width in (plan.size for plan in plans))
    return f"{sizes} (height x width) pixels in {'one piece' if plans[0].whole else 'windows'}"
