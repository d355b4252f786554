"""Define Labeller: a model, classes and options, ready to label images.

It works in two steps, for callers that overlap the work on several images: `score` compares features with the classes on the
device, and `assign` turns the scores into labels, on any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Union, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import ImageError, InputError, UsageError, Words
from tipsseg.features.file import FeatureRecord
from tipsseg.images.decoding import ImageInput, ImageReader
from tipsseg.label_map import LabelMap
from tipsseg.labelling.assign import (
    Assignment,
    LabelTable,
    ReadyContest,
    add_parts,
    best_groups,
    crop,
    match,
    probabilities,
)
from tipsseg.labelling.classifier import fitted_classifier, make_classifier
from tipsseg.labelling.edges import REFINEMENT_STEPS, Guide, match_refined
from tipsseg.labelling.features import Batches, Features, encode_prepared, unsound_error
from tipsseg.labelling.scores import compute_cosines
from tipsseg.labelling.sums import Values
from tipsseg.labelling.view import Prepared, view_of
from tipsseg.options import MAX_PIXELS, choose
from tipsseg.options import declared as opt
from tipsseg.options.fields import check_whole_number
from tipsseg.options.records import LabelOptions
from tipsseg.options.signature import takes_options
from tipsseg.regions.naming import Regions, are_rough, as_regions, name_regions
from tipsseg.regions.objects import ancestors
from tipsseg.types import ConfidenceArray, LabelArray, Remark, TopClasses, WindowPlan
from tipsseg.util.text import quote
from tipsseg.vocabulary.fitted import Classes, as_vocabulary
from tipsseg.vocabulary.vocabulary import Present
from tipsseg.weights.sources import file_hashes, find_model_id

if TYPE_CHECKING:
    from torch import Tensor

    from tipsseg.backbones.devices import HostCopy
    from tipsseg.labelling.device_scores import DeviceLabels, DeviceScorer

#: Above this number of pixels, labels are not copied asynchronously: the host would hold the labels of several images at a time.
_MAX_ASYNC_PIXELS = 1 << 22


#: The number of lists of names whose contests are kept.
_MOST_LISTS = 1000


@dataclass(slots=True, eq=False)
class Cosines:
    """Cosine scores of one image, not yet turned into labels.

    Attributes:
        values: [B, h, w, P] float32 for each scale, on the model's device.
        norms: The lengths of the features on their way from the device (see `device_scores.feature_norms`); none on a CPU.
        plans: The windows at each scale.
        size: (height, width) of the image in pixels.
        top: The number of best classes to keep for each patch.
        host: The values on the host, once they are needed there.
    """

    values: Sequence[Any]
    norms: Sequence[HostCopy]
    plans: Sequence[WindowPlan]
    size: tuple[int, int]
    top: int = 0
    host: Sequence[Values] | None = None


#: The features of an image at one scale, on the model's device; on a CPU also a stored record, in float32.
Patches = Features | FeatureRecord

#: The result of `Labeller.score`: cosines, or labels on their way from the device.
Scored = Union["Cosines", "DeviceLabels"]

#: An image that waits in a batch: as it was passed, and as the model sees it.
_Pending = tuple[ImageInput, Prepared]


class ModelLike(Protocol):
    """A model (see `tipsseg.load`)."""

    @property
    def backbone(self) -> Backbone:
        """Its two towers, on the device."""

    @property
    def encode(self) -> Callable[..., Features]:
        """Encode an image (see `Model.encode`)."""


class Labeller:
    """A model, classes and options, ready to label images.

    Attributes:
        model: The model.
        options: Labelling options.
        view: The sizes and windows at which the model sees images.
        vocabulary: The classes and background phrases that compete, without `dropped`.
        dropped: Removed automatic background phrases, each mapped to the class phrase with the same meaning.
    """

    @takes_options
    def __init__(
        self,
        model: ModelLike,
        classes: Classes,
        options: LabelOptions | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        cache: Path | None = None,
        mode: opt.ViewMode | None = None,
        short_side: opt.ShortSide = None,
        stretch: opt.Stretch = None,
        min_confidence: opt.MinConfidence | None = None,
        refine: opt.Refine | None = None,
        scales: opt.Scales | None = None,
    ) -> None:
        """Encode the class phrases once.

        Args:
            model: The model (see `tipsseg.load`).
            classes: Class names, ClassSpecs, a dict that maps names to synonyms, a Vocabulary, or a fit (see `tipsseg.learn`).
                Names alone get an automatic background (see `make_vocabulary`).
            options: Labelling options. None: the published protocol. Keywords that are not None override them.
            max_pixels: Reject image files with more pixels than this.
            cache: Folder to cache phrase vectors in. None: no cache.

        Raises:
            VocabularyError: The classes are invalid.
            UsageError: An argument has a wrong type, or the short side is too small or too large, or the vocabulary was fitted
                with a different model, mode or short side.
        """
        if not hasattr(model, "backbone"):
            raise UsageError(
                f"the model must be the result of tipsseg.load, not {quote(model)}",
                'For example: tipsseg.load("l14").',
            )
        vocabulary, fitted = as_vocabulary(classes)
        if not isinstance(options, LabelOptions | None):
            raise UsageError(
                f"options must be LabelOptions, not {quote(options)}", 'For example: LabelOptions(mode="whole").'
            )
        self.model = model
        given: dict[str, Any] = {
            "mode": mode,
            "short_side": short_side,
            "stretch": stretch,
            "min_confidence": min_confidence,
            "refine": refine,
            "scales": scales,
        }
        self.options = replace(
            options or LabelOptions(), **{name: value for name, value in given.items() if value is not None}
        )
        self._reader = ImageReader(check_whole_number(Words("{max_pixels}"), max_pixels), self.options.stretch)
        self.view = view_of(model.backbone, self.options)
        self._temperature = model.backbone.temperature
        if fitted is not None:
            hashes = file_hashes(model.backbone.folder)
            model_id = find_model_id(model.backbone.folder, hashes)
            fitted.check(hashes, model_id, self.options.mode, self.view.base)
            classifier, self._temperature = fitted_classifier(model.backbone, fitted), fitted.temperature
        else:
            classifier = make_classifier(model.backbone, vocabulary, cache)
        self.vocabulary, self.dropped = classifier.vocabulary, classifier.dropped
        self._classifier = classifier
        self._levels = classifier.levels(self.options.min_confidence, self._temperature)
        self._table = self._levels[0].table
        self._levels_of: dict[Present | None, tuple[ReadyContest, ...]] = {None: self._levels}
        self._scorers: dict[tuple[ReadyContest, bool], DeviceScorer] = {}

    def __repr__(self) -> str:
        return f"Labeller({self.model!r}, {self.vocabulary!r}, {self.options!r})"

    def label(
        self,
        image: ImageInput | Features,
        *,
        guide: ImageInput | None = None,
        regions: ArrayLike | Regions | None = None,
        names: Iterable[str] | Present | None = None,
    ) -> LabelMap:
        """Label one image.

        Args:
            image: An address (a path, a URL, or a member of a file such as "shard.tar/a.jpg"), a file open in binary mode, a Pillow
                image (turned upright by its EXIF orientation), pixels uint8 RGB [H, W, 3] or [3, H, W], RGBA [H, W, 4] or
                [4, H, W], or grey [H, W], or the features from `Model.encode`. Features can be labelled several times without
                encoding the image again.
            guide: The encoded image, if `image` is features. Refinement needs its colours.
            regions: Regions of the upright image, each to get one class: ids [H, W], 0 for none; masks [R, H, W] or [R, 1, H, W]
                of bool; a list of masks or of SAM's records, a result of transformers (see `regions.naming.as_regions`), or
                `regions.naming.Regions`, which also have a margin. Smaller masks are on top. Pixels outside are labelled as
                without regions.
            names: The names of the classes that are in the image, as far as you know: the others get a handicap of 2 temperatures.
                A whole names its parts, and a part its whole. No names: no class is there. None: nothing is known. Where the list
                is surely whole, pass `vocabulary.present(names, surely=True)`: the others then compete as background.

        Returns:
            The labels of the image.

        Raises:
            ImageError: The file cannot be read.
            InputError: The image has a wrong shape or dtype, or is too elongated.
            UsageError: The features have a different model, mode or short side; refinement needs `guide`; the regions are not
                arrays of the size of the image, or `names` has no class, and the vocabulary has no background.
            VocabularyError: One of `names` is not a class.
            DeviceError: The device has too little memory.
        """
        present = self._parse_names(names)
        if not isinstance(image, Features):
            prepared = self._prepare(image)
            return self._label(image, prepared, encode_prepared(self.model.backbone, prepared), regions, present)
        self._check(image)
        return self._label(guide, self._prepare_guide(image, guide), image, regions, present)

    def _parse_names(self, names: Iterable[str] | Present | None) -> Present | None:
        if names is None:
            return None
        if isinstance(names, Present):
            return names
        if isinstance(names, str):
            raise UsageError(f"names must be a list, not {quote(names)}", 'For example: names=["tree"].')
        found = self.vocabulary.present(names)
        if not found.ids and not self.vocabulary.has_background:
            raise UsageError(
                "`names` has no class, and the vocabulary has no background",
                "Pass at least one class, or use a background.",
            )
        return found

    @overload
    def label_many(self, images: Iterable[ImageInput], *, errors: Literal["raise"] = "raise") -> Iterator[LabelMap]: ...

    @overload
    def label_many(
        self, images: Iterable[ImageInput], *, errors: Literal["yield"]
    ) -> Iterator[LabelMap | ImageError | InputError]: ...

    def label_many(
        self, images: Iterable[ImageInput], *, errors: Literal["raise", "yield"] = "raise"
    ) -> Iterator[LabelMap | ImageError | InputError]:
        """Label images one after another. Small images share batches, which is faster on a GPU.

        Args:
            images: See `label`. They are read one by one; at most one batch of them is in memory.
            errors: "raise": yield the results before a bad image, then raise its error. "yield": yield the error in place of
                the result, and continue.

        Yields:
            The labels of each image, in the order of the images.

        Raises:
            TipssegError: See `label`.
        """
        choose(errors, ("raise", "yield"), "value of `errors`")
        if isinstance(images, str | Path) or not isinstance(images, Iterable):
            raise UsageError(f"images must be a list, not {quote(images)}", "Use Labeller.label for one image.")
        return self._label_many(images, errors == "yield")

    def _label_many(
        self, images: Iterable[ImageInput], yield_errors: bool
    ) -> Iterator[LabelMap | ImageError | InputError]:
        batches: Batches[_Pending] = Batches(self.model.backbone)
        for image in images:
            try:
                prepared = self._prepare(image)
            except Exception as error:
                for pending, features in batches.flush():
                    yield self._label(*pending, features)
                if not (yield_errors and isinstance(error, ImageError | InputError)):
                    raise
                yield error
                continue
            for pending, features in batches.add((image, prepared), prepared):
                yield self._label(*pending, features)
        for pending, features in batches.flush():
            yield self._label(*pending, features)

    def _label(
        self,
        image: ImageInput | None,
        prepared: Prepared | None,
        features: Features,
        regions: ArrayLike | Regions | None = None,
        present: Present | None = None,
    ) -> LabelMap:
        given = None if regions is None else as_regions(regions, features.size)
        scored = self.score(features.scales, in_regions=given is not None, some=present is not None)
        return replace(self.assign(scored, prepared, given, present=present), image=image)

    def _prepare_guide(self, features: Features, guide: ImageInput | None) -> Prepared | None:
        """Return the image that refinement follows; None without refinement."""
        if self.options.refine == "none":
            return None
        if guide is None:
            raise UsageError(
                "refinement requires the colours of the image, which features do not contain",
                Words("Pass the encoded image as {guide}."),
            )
        prepared = self._prepare(guide)
        if (prepared.size, _plans_of(prepared.scales)) != (features.size, _plans_of(features.scales)):
            height, width = features.size
            raise UsageError(f"the guide must have the {height} x {width} (height x width) pixels of the encoded image")
        return prepared

    def _prepare(self, image: ImageInput) -> Prepared:
        return self.view.prepare(self._reader.upright(image))

    def _check(self, features: Features) -> None:
        """Raise UsageError if the features do not match this labeller's model and options."""
        dim, plans = features.patches.shape[-1], _plans_of(features.scales)
        if dim != self.model.backbone.embed_dim:
            raise UsageError(
                f"the features have {dim} dimensions, but this model has {self.model.backbone.embed_dim}",
                "Encode the image with the labeller's model.",
            )
        expected = self.view.plans(features.size)
        if plans != expected:
            raise UsageError(
                f"the image was encoded at {_sizes(plans)}, but this labeller expects {_sizes(expected)}",
                "Encode the image with the labeller's mode, short side and scales.",
            )

    # ---- in two steps ----

    @cached_property
    def vectors(self) -> Tensor:
        """[P, D] float32, the phrase vectors on the device: unit vectors, or fitted."""
        return self._on_device(self._classifier.vectors)

    @cached_property
    def _biases(self) -> Tensor | None:
        biases = self._classifier.biases
        return None if biases is None else self._on_device(biases)

    @property
    def _on_cpu(self) -> bool:
        return self.model.backbone.device_name == "cpu"

    def _on_device(self, values: Values) -> Tensor:
        from tipsseg.backbones.devices import to_device

        return to_device(values, self.model.backbone.device)

    def _levels_for(self, present: Present | None) -> tuple[ReadyContest, ...]:
        """Return the contests among some classes; None for all."""
        found = self._levels_of.get(present)
        if found is None:
            if len(self._levels_of) >= _MOST_LISTS:
                self._levels_of = {None: self._levels}
                self._scorers.clear()
            found = self._classifier.levels(self.options.min_confidence, self._temperature, present)
            self._levels_of[present] = found
        return found

    def _scorer(self, level: ReadyContest, *, raw: bool) -> DeviceScorer | None:
        """Return what computes labels on a GPU. On a CPU all threads compute already, and pruning makes `match` faster."""
        if self._on_cpu:
            return None
        from tipsseg.labelling.device_scores import DeviceScorer

        found = self._scorers.get((level, raw))
        if found is None:
            device = self.model.backbone.device
            with self._at_work():
                found = DeviceScorer(_table_of(level, raw), self._temperature, device, level.phrases, level.biases)
            self._scorers[level, raw] = found
        return found

    def score(self, scales: Sequence[Patches], top: int = 0, *, in_regions: bool = False, some: bool = False) -> Scored:
        """Compare the features of an image with the phrases, without waiting for the device.

        A GPU also computes the labels, unless they are refined, some are parts, or the image is large.

        Args:
            scales: The features at each scale, in ascending order.
            top: The number of best classes to keep for each patch, at most the number of classes.
            in_regions: True if `assign` gets regions.
            some: True if `assign` may get `present`.

        Returns:
            The scores to pass to `assign`.

        Raises:
            DeviceError: The device has too little memory.
        """
        size, plans = scales[0].size, _plans_of(scales)
        values, norms = self._compare(scales)
        scorer = self._scorer(self._levels[0], raw=in_regions)
        later = self.options.refine != "none" or len(self._levels) > 1 or some or prod(size) > _MAX_ASYNC_PIXELS
        if norms is None:
            return Cosines(values, (), plans, size, top)
        with self._at_work():
            if scorer is None or later:
                return Cosines(values, (self._send(norms),), plans, size, top)
            return scorer.send(values, plans, size, norms, self.view.grid(plans[0]), top)

    def score_windows(self, windows: Sequence[NDArray[np.uint8]]) -> tuple[Any, Sequence[HostCopy]]:
        """Encode windows, each [side, side, 3], and compare them with the phrases.

        Return the cosines [B, h, w, P] float32 on the device, and the lengths of the features, see Cosines.

        Raise DeviceError if the device has too little memory.
        """
        encoded, side = self.model.backbone.encode_windows(windows), len(windows[0])
        plan = WindowPlan((side, side), side, ((0, 0),) * len(windows))
        (values,), norms = self._compare([Features((side, side), plan, encoded.patches, encoded.class_tokens)])
        with self._at_work():
            return values, () if norms is None else (self._send(norms),)

    def assign(
        self,
        scored: Scored,
        prepared: Prepared | None = None,
        regions: Regions | None = None,
        inner: tuple[int, int, int, int] | None = None,
        present: Present | None = None,
    ) -> LabelMap:
        """Turn scores into labels. Safe to call from several threads.

        Args:
            scored: The result of `score`.
            prepared: The image, as `View.prepare` returns it. Refinement needs it.
            regions: The regions of the image (see `score`).
            inner: The part of the image to label: top, left, height and width in pixels. None: all of it.
            present: The classes that are in the image; None if nothing is known.

        Raises:
            DeviceError: The model returned infinity, NaN or zeros.
        """
        classes, top, guide = self.vocabulary.classes, None, self._guide(prepared)
        if isinstance(scored, Cosines):
            if not scored.norms:
                self._on_host(scored)  # checks the cosines
            levels = self._levels_for(present)
            if scored.top:
                top = self._best_classes(levels, scored, self.view.grid(scored.plans[0]))
            assigned = self._assign(levels[0], scored, guide, inner, raw=regions is not None)
            self._check_norms(scored)  # they have arrived by now
        else:
            arrived = scored.wait()
            if arrived is None:
                raise unsound_error(self.model.backbone)
            assigned, top = arrived
        found = LabelMap(assigned.labels, assigned.confidence, classes, top, present=present)
        if regions is not None:
            height, width = assigned.labels.shape
            patch = self.view.patch_side((height, width))
            named = name_regions(
                assigned.labels,
                assigned.confidence,
                regions,
                minimum=self._table.min_confidence,
                ignore=self._table.ignore,
                patch=patch,
            )
            rough = not regions.margin and are_rough(
                assigned.labels, regions.ids, named.labels, patch, refined=guide is not None
            )
            remarks: tuple[Remark, ...] = ("rough",) if rough else ()
            found = replace(
                found,
                labels=named.labels,
                confidence=named.confidence,
                instances=named.instances,
                remarks=remarks,
            )
        return self.add_parts(found, scored, prepared, inner)

    def add_parts(
        self,
        label_map: LabelMap,
        scored: Scored,
        prepared: Prepared | None = None,
        inner: tuple[int, int, int, int] | None = None,
        only: Collection[int] | None = None,
    ) -> LabelMap:
        """Return labels in which the parts of each whole have the pixels that they win in it.

        Args:
            label_map: The labels.
            scored: See `assign`.
            prepared: See `assign`.
            inner: See `assign`.
            only: The label ids of the parts to add. None: all parts.
        """
        labels, confidence = label_map.labels, label_map.confidence
        known, before = label_map.whole_confidences, list[ConfidenceArray]()
        depths = [0, *(len(chain) for chain in ancestors(label_map.classes))]  # of the parts of a class
        guide = self._guide(prepared)
        for level in self._levels_for(label_map.present)[1:]:
            if not (labels == level.whole).any():
                continue
            assert isinstance(scored, Cosines)
            if labels is label_map.labels:
                labels = labels.copy()
            while len(before) < depths[level.whole]:
                before.append(known[len(before)] if len(before) < len(known) else confidence)
                confidence = confidence.copy()
            found = self._assign(level, scored, guide, inner, raw=True, where=labels == level.whole)
            if only is not None:
                found.labels[~np.isin(found.labels, [*only])] = level.whole
            add_parts(labels, confidence, level, found, self._table.min_confidence)
        if labels is label_map.labels:
            return label_map
        return replace(
            label_map,
            labels=labels,
            confidence=confidence,
            whole_confidences=(*before, *known[len(before) :]),
        )

    def _assign(
        self,
        level: ReadyContest,
        cosines: Cosines,
        guide: Guide | None,
        inner: tuple[int, int, int, int] | None,
        *,
        raw: bool,
        where: NDArray[np.bool_] | None = None,
    ) -> Assignment:
        """Return the label and the confidence of each pixel in a contest (see `assign.match`).

        `raw` leaves out minimum confidences: with regions, they apply to the scores of these; with parts, to a product.
        """
        table, scorer = _table_of(level, raw), self._scorer(level, raw=raw)
        if scorer is not None and guide is None:
            assigned = scorer.fetch(cosines.values, cosines.plans, cosines.size, self._at_work)
            return assigned if inner is None else crop(assigned, inner)
        scores = level.scores(self._on_host(cosines), cosines.plans, self._temperature)
        if guide is not None:
            return match_refined(scores, guide, cosines.size, table)
        return match(scores, cosines.size, table, inner, where)

    def _compare(self, scales: Sequence[Patches]) -> tuple[list[Any], Tensor | None]:
        """Return the cosines of features with the phrases at each scale, [B, h, w, P] float32, on the device.

        With them, return the lengths of the features there (see `device_scores.feature_norms`); None on a CPU.
        """
        if self._on_cpu:
            vectors, biases = self._classifier.vectors, self._classifier.biases
            with self.model.backbone.at_work:
                return [compute_cosines(np.asarray(scale.patches), vectors, biases) for scale in scales], None
        from tipsseg.labelling.device_scores import feature_norms

        features = cast(Sequence[Features], scales)
        with self._at_work():
            values = [scale.cosines(self.vectors) for scale in features]
            values = values if self._biases is None else [cosines + self._biases for cosines in values]
            return values, feature_norms([scale.patches for scale in features])

    def _send(self, norms: Tensor) -> HostCopy:
        from tipsseg.backbones.devices import HostCopy

        return HostCopy(norms)

    def _check_norms(self, scored: Cosines) -> None:
        """Raise DeviceError if a feature is no unit vector."""
        if scored.norms:
            from tipsseg.labelling.device_scores import are_unit

            if not all(are_unit(arriving.arrays()[0]) for arriving in scored.norms):
                raise unsound_error(self.model.backbone)

    def _at_work(self) -> AbstractContextManager[None]:
        """Use the device (see `Backbone.at_device`)."""
        return self.model.backbone.at_device()

    def _on_host(self, scored: Cosines) -> Sequence[Values]:
        """Return the cosines of each scale on the host. Raise DeviceError if one is infinite or NaN."""
        if scored.host is None:
            scored.host = scored.values
            if not self._on_cpu:
                from tipsseg.backbones.devices import HostCopy

                with self._at_work():
                    arriving = HostCopy(*scored.values)
                scored.host = arriving.arrays()
            if not all(np.isfinite(scale).all() for scale in scored.host):
                raise unsound_error(self.model.backbone)
        return scored.host

    def _best_classes(
        self,
        levels: Sequence[ReadyContest],
        scored: Cosines,
        grid: tuple[int, int],
    ) -> TopClasses:
        """Return the best classes of each patch. A part has p(whole) * p(part in the whole), and its whole p(whole)."""
        first, *inside = levels
        values, plans, table = self._on_host(scored), scored.plans, first.table
        scores = first.scores(values, plans, self._temperature)
        most = min(scored.top, len(table.label_ids) + sum(len(level.table.label_ids) - 1 for level in inside))
        if not inside:
            best, shares = best_groups(scores, grid, table.groups, most)
            return TopClasses(table.label_ids[best], shares)
        every: dict[int, Values] = {}
        for level in levels:
            own_scores, groups = level.scores(values, plans, self._temperature), level.table.groups
            share = probabilities(own_scores, grid, groups, np.arange(len(groups)))
            for label_id, own in zip(level.table.label_ids.tolist(), share, strict=True):
                if label_id != level.whole or not level.whole:
                    every[label_id] = own * every[level.whole] if level.whole else own
        ids, stacked = np.array([*every], table.label_ids.dtype), np.stack([*every.values()])
        order = np.argsort(-stacked, axis=0, kind="stable")[:most]
        return TopClasses(cast(LabelArray, ids[order]), np.take_along_axis(stacked, order, 0).astype(np.float16))

    def _guide(self, prepared: Prepared | None) -> Guide | None:
        """Return what refinement follows; None without refinement."""
        if self.options.refine == "none":
            return None
        assert prepared is not None
        steps = REFINEMENT_STEPS[self.options.refine]
        return Guide(small=prepared.scales[-1].resized, full=prepared.full, steps=steps, pamr=self._refine)

    def _refine(self, maps: Values, image: NDArray[np.uint8]) -> Values:
        from tipsseg.backbones.devices import as_device_error, to_device
        from tipsseg.labelling.refine import pamr

        with self.model.backbone.at_work, as_device_error(self.model.backbone.device):
            return pamr(to_device(maps, self.model.backbone.device), image).cpu().numpy()


def _table_of(level: ReadyContest, raw: bool) -> LabelTable:
    """Return the label table of a contest; `raw` leaves out minimum confidences."""
    table = level.table
    return replace(table, min_confidence=np.zeros_like(table.min_confidence)) if raw else table


def _plans_of(scales: Iterable[Patches | Prepared]) -> tuple[WindowPlan, ...]:
    return tuple(scale.plan for scale in scales)


def _sizes(plans: Sequence[WindowPlan]) -> str:
    sizes = " and ".join(f"{height} x {width}" for height, width in (plan.size for plan in plans))
    return f"{sizes} (height x width) pixels in {'one piece' if plans[0].whole else 'windows'}"
