"""One image -> its LabelMap: the engine behind the command and the library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tipsseg.backbones.devices import enough_memory
from tipsseg.backbones.transfers import sent
from tipsseg.errors import UsageError
from tipsseg.images.decoding import ImageInput, to_upright
from tipsseg.label_map import LabelMap
from tipsseg.labelling.batches import Batches
from tipsseg.labelling.classifier import fitted_classifier, make_classifier
from tipsseg.labelling.features import Features
from tipsseg.labelling.model import Model
from tipsseg.labelling.prepare import Prepared
from tipsseg.labelling.refine import pamr
from tipsseg.labelling.scoring.assign import Assignment, best_groups, match_refined
from tipsseg.labelling.scoring.compiled.match import match
from tipsseg.labelling.scoring.device_scores import DeviceLabels, DeviceScorer
from tipsseg.labelling.scoring.resample import Values
from tipsseg.labelling.scoring.scores import FusedScores, Scores, WholeScores, WindowScores
from tipsseg.options import MAX_PIXELS, LabelOptions, check_whole_number
from tipsseg.types import TopClasses, WindowPlan
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary
from tipsseg.weights.sources import file_hashes, name_of

#: Labels of more pixels than this are not sent while others are made: of so many the host has those of several images at a time.
_SENT = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Cosines:
    """What labels are still to be made of.

    Attributes:
        values: [B, h, w, P] float32 on the device, as `Features.cosines` makes them.
        top: How many of the best classes of each patch are kept.
        finer: Those of each larger scale, likewise.
    """

    values: Tensor
    top: int
    finer: tuple[Tensor, ...] = ()


#: What `Labeller.score` makes of features: cosines, or labels on their way from the device.
Scored = Cosines | DeviceLabels


class Labeller:
    """A model, a vocabulary and options, ready to label images.

    Attributes:
        model: The model.
        options: How images are labelled.
        vocabulary: The classes and background phrases that compete. Phrases of an automatic background that mean the same as a
            class are left out.
        dropped: The phrases that were left out, each with the phrase of the class that it means the same as.
        vectors: [P, D] float32, the vectors of the phrases of the vocabulary, on the device; of unit length, or fitted.
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
        self.model = model
        self.options = options or LabelOptions()
        check_whole_number("argument `max_pixels`", max_pixels)
        self._max_pixels = max_pixels
        self._short_side = model.check_short_side(self.options.short_side)
        self._short_sides = model.short_sides(self.options)
        if isinstance(vocabulary, FittedVocabulary):
            hashes = file_hashes(model.backbone.folder)
            vocabulary.check(hashes, name_of(model.backbone.folder, hashes), self.options.mode, self._short_side)
            classifier = fitted_classifier(model.backbone, vocabulary)
            self._temperature = vocabulary.temperature
        else:
            classifier = make_classifier(model.backbone, vocabulary, cache)
            self._temperature = model.backbone.temperature
        self._biases = classifier.biases
        self.vocabulary, self.dropped, self.vectors = classifier.vocabulary, classifier.dropped, classifier.vectors
        self._table = classifier.label_table(self.options.min_confidence)
        device = model.backbone.device
        # On a CPU the device would be what all of the threads compute on already, and pruning makes `match` faster.
        self._scorer = None if device.type == "cpu" else DeviceScorer(self._table, self._temperature, device)

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
        return self._labels(self._seen_again(image, guide), image)

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

    def _labels(self, image: Prepared | Features, features: Features) -> LabelMap:
        return self.assign(image, self.score(features))

    def _seen_again(self, features: Features, guide: ImageInput | None) -> Prepared | Features:
        """What the labels of features are assigned to: the prepared image where refinement needs pixels."""
        if self.options.refine == "none":
            return features
        if guide is None:
            raise UsageError(
                "refinement follows the colours of the image, and features have none",
                "Give the image of the features as argument `guide`.",
            )
        prepared = self._prepared(guide)
        if (prepared.size, _plans(prepared)) != (features.size, _plans(features)):
            height, width = features.size
            raise UsageError(f"the guide is not of the {height} x {width} (height x width) pixels of the features")
        return prepared

    def _prepared(self, image: ImageInput) -> Prepared:
        return self.prepare(to_upright(image, self._max_pixels))

    def prepare(self, upright: Image.Image) -> Prepared:
        """Bring an upright image in mode RGB to the size at which the model sees it; may be called from several threads."""
        return self.model.prepare(upright, self.options.mode, *self._short_sides)

    @property
    def scores_windows(self) -> bool:
        """Whether this processor makes labels from the windows of one scale, which numba is quicker at."""
        options = self.options
        return self._scorer is None and (options.mode, options.refine, len(self._short_sides)) == ("slide", "none", 1)

    @property
    def short_sides(self) -> tuple[int, ...]:
        """The short side of each scale in pixels, in ascending order."""
        return self._short_sides

    def plans(self, size: tuple[int, int]) -> tuple[WindowPlan, ...]:
        """Plan how an image of `size` (height, width) in pixels is cut into windows at each scale."""
        return tuple(self.model.plan(size, self.options.mode, side) for side in self._short_sides)

    def score(self, features: Features, top: int = 0) -> Scored:
        """Compare the features of an image with the phrases, without waiting for the device.

        On a GPU that goes as far as the labels, but for those that are refined or large.

        Args:
            features: The features.
            top: How many of the best classes of each patch are kept, or as many as there are.

        Returns:
            What `assign` takes.

        Raises:
            DeviceError: The memory of the device is too small.
        """
        plan, backbone = features.plan, self.model.backbone
        with backbone.at_work, enough_memory(backbone.device):
            cosines, *finer = (self._cosines(each) for each in features.scales)
            if self._scorer is None or self.options.refine != "none" or prod(features.size) > _SENT:
                return Cosines(cosines, top, tuple(finer))
            more = list(zip(finer, _plans(features)[1:], strict=True))
            return self._scorer.send(cosines, plan, features.size, self._grid(plan), top, more)

    def _cosines(self, features: Features) -> Tensor:
        """The cosines of one scale, or what stands for them."""
        cosines = features.cosines(self.vectors)
        return cosines if self._biases is None else cosines + self._biases

    def assign(self, image: Prepared | Features, scored: Scored) -> LabelMap:
        """The part of `label` behind the model; may be called from several threads.

        Args:
            image: The image; without refinement its features are enough.
            scored: As `score` makes it.

        Returns:
            The labels.

        Raises:
            DeviceError: The model's values are no numbers.
        """
        made = self._made(image, scored) if isinstance(scored, Cosines) else scored.wait()
        if made is None:
            raise self.model.gives_no_numbers()
        assigned, top = made
        return LabelMap(assigned.labels, assigned.confidence, self.vocabulary.classes, top)

    def _made(self, image: Prepared | Features, cosines: Cosines) -> tuple[Assignment, TopClasses | None] | None:
        """The labels and the best classes of each patch, made here and now; None where cosines are no numbers."""
        values = [each.cpu().numpy() for each in (cosines.values, *cosines.finer)]
        if not all(np.isfinite(each).all() for each in values):
            return None
        refined = isinstance(image, Prepared) and self.options.refine == "pamr"
        scorer = None if refined else self._scorer
        if scorer is not None and not cosines.top:  # scores of the host take their time, and nobody asks for them
            return self._fetched(scorer, image, cosines), None
        scores = self._scores(_plans(image), values)
        top = self._top(best_groups(scores, *self._wanted(image, cosines))) if cosines.top else None
        if scorer is not None:
            return self._fetched(scorer, image, cosines), top
        if isinstance(image, Prepared) and refined:
            return match_refined(scores, image.scales[-1].resized, image.size, self._table, self._refine), top
        return match(scores, image.size, self._table), top

    def _wanted(self, image: Prepared | Features, cosines: Cosines) -> tuple[tuple[int, int], Sequence[int], int]:
        """What the best classes are asked of: the patches of the whole image, the groups, and how many of them."""
        groups = self._table.groups
        return self._grid(image.plan), groups, min(cosines.top, len(groups))

    def _fetched(self, scorer: DeviceScorer, image: Prepared | Features, cosines: Cosines) -> Assignment:
        backbone = self.model.backbone
        with backbone.at_work, enough_memory(backbone.device):
            more = list(zip(cosines.finer, _plans(image)[1:], strict=True))
            return scorer.fetch(cosines.values, image.plan, image.size, more)

    def _check(self, features: Features) -> None:
        """Raise UsageError for features that this labeller would not have made."""
        dim, plans = features.patches.shape[-1], _plans(features)
        if dim != self.model.backbone.embed_dim:
            raise UsageError(
                f"the features have {dim} numbers for each patch, and those of this model {self.model.backbone.embed_dim}",
                "Encode the image with the model of the labeller.",
            )
        wanted = self.plans(features.size)
        if plans != wanted:
            raise UsageError(
                f"the features are of an image at {_seen(plans)}, and this labeller sees it at {_seen(wanted)}",
                "Give encode the mode, the short side and the scales of the labeller's options.",
            )

    def _top(self, found: tuple[NDArray[np.intp], NDArray[np.float16]]) -> TopClasses:
        """The best groups and their shares, with the label ids that the groups stand for."""
        groups, shares = found
        return TopClasses(self._table.label_ids[groups], shares)

    def _grid(self, plan: WindowPlan) -> tuple[int, int]:
        """How many patches, down and across, the working image has in one piece."""
        height, width = (max(round(side / self.model.backbone.patch_size), 1) for side in plan.size)
        return height, width

    def _refine(self, maps: Values, image: NDArray[np.uint8]) -> Values:
        backbone = self.model.backbone
        with backbone.at_work:
            return pamr(sent(maps, backbone.device), image).cpu().numpy()

    def _scores(self, plans: Sequence[WindowPlan], cosines: Sequence[Values]) -> Scores:
        temperature = self._temperature
        if len(plans) > 1:
            return FusedScores(cosines, plans, temperature)
        if plans[0].whole:
            return WholeScores(cosines[0][0], plans[0].size, temperature)
        return WindowScores(cosines[0], plans[0], temperature)


def _plans(image: Prepared | Features) -> tuple[WindowPlan, ...]:
    """How the model sees an image at each scale."""
    return tuple(each.plan for each in image.scales)


def _seen(plans: Sequence[WindowPlan]) -> str:
    sizes = " and ".join(f"{height} x {width}" for height, width in (plan.size for plan in plans))
    return f"{sizes} (height x width) pixels in {'one piece' if plans[0].whole else 'windows'}"
