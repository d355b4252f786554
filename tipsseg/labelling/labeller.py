"""Define Labeller: a model, classes and options, ready to label images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

from numpy.typing import ArrayLike

from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.images.decoding import ImageInput, to_upright
from tipsseg.label_map import LabelMap
from tipsseg.labelling.batches import Batches
from tipsseg.labelling.encode import encode_prepared
from tipsseg.labelling.features import Features
from tipsseg.labelling.patch_labeller import PatchLabeller, plans_of
from tipsseg.labelling.prepare import Prepared
from tipsseg.options import MAX_PIXELS, LabelOptions, check_whole_number, choose
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import LabelKeywords, with_keywords
from tipsseg.regions.naming import as_regions
from tipsseg.types import WindowPlan
from tipsseg.util.printable import quote
from tipsseg.vocabulary.fitted import Classes, as_vocabulary

if TYPE_CHECKING:
    from tipsseg.labelling.model import Model

#: An image that waits in a batch: as it was passed, and as the model sees it.
_Pending = tuple[ImageInput, Prepared]


class Labeller:
    """A model, classes and options, ready to label images.

    Attributes:
        model: The model.
        options: Labelling options.
        vocabulary: The classes and background phrases that compete, without `dropped`.
        dropped: Removed automatic background phrases, each mapped to the class phrase with the same meaning.
    """

    @with_keywords(LabelKeywords, LabelOptions)
    def __init__(
        self,
        model: Model,
        classes: Classes,
        options: LabelOptions | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        cache: Path | None = None,
        **keywords: Unpack[LabelKeywords],
    ) -> None:
        """Encode the class phrases once.

        Args:
            model: The model, see `tipsseg.load`.
            classes: Class names; ClassSpecs; a dict that maps names to synonyms; a Vocabulary; or a fit, see `tipsseg.learn`.
                Names alone get an automatic background, see `make_vocabulary`.
            options: Labelling options. None: those of the published protocol. Keywords override them.
            max_pixels: Reject image files with more pixels than this.
            cache: Folder to cache phrase vectors in. None: no cache.

        Raises:
            VocabularyError: The classes are invalid.
            UsageError: An argument has a wrong type, or the short side is too small or too large; or the vocabulary was fitted
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
        self.options = (
            take_options(LabelOptions, keywords) if options is None else replace(options, **cast(Any, keywords))
        )
        self._max_pixels = check_whole_number("argument `max_pixels`", max_pixels)
        self._classes, self._cache = fitted or vocabulary, cache
        self._patches = self._make_patches(regions=False)
        self.vocabulary, self.dropped = self._patches.vocabulary, self._patches.dropped

    def __repr__(self) -> str:
        return f"Labeller({self.model!r}, {self.vocabulary!r}, {self.options!r})"

    def label(
        self, image: ImageInput | Features, *, guide: ImageInput | None = None, regions: ArrayLike | None = None
    ) -> LabelMap:
        """Label one image.

        Args:
            image: An address (a path, a URL, or a member of a file such as "shard.tar/a.jpg"), a file open in binary mode, a Pillow
                image (turned upright by its EXIF orientation), pixels uint8 RGB [H, W, 3], RGBA [H, W, 4] or grey [H, W], or the
                features from `Model.encode`. Features can be labelled several times without encoding the
                image again.
            guide: The encoded image, if `image` is features. Refinement needs its colours.
            regions: Regions of the upright image, each to get one class: ids [H, W], 0 for none, or masks [R, H, W] of bool, where
                smaller ones are on top. Pixels outside are labelled as without regions.

        Returns:
            The labels of the image.

        Raises:
            ImageError: The file cannot be read.
            InputError: The image has a wrong shape or dtype, or is too elongated.
            UsageError: The features have a different model, mode or short side; refinement needs `guide`; or the regions are not
                arrays of the size of the image.
            DeviceError: The device has too little memory.
        """
        if not isinstance(image, Features):
            prepared = self._prepare(image)
            return self._label(image, prepared, encode_prepared(self.model.backbone, prepared), regions)
        self._check(image)
        return self._label(guide, self._prepare_guide(image, guide), image, regions)

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
        regions: ArrayLike | None = None,
    ) -> LabelMap:
        pixels = None if prepared is None else prepared.scales[-1].resized
        patches = self._patches if regions is None else self._patches_in_regions
        given = None if regions is None else as_regions(regions, features.size)
        return replace(patches.assign(patches.score(features.scales), pixels, given), image=image)

    @cached_property
    def _patches_in_regions(self) -> PatchLabeller:
        return self._make_patches(regions=True)

    def _make_patches(self, *, regions: bool) -> PatchLabeller:
        return PatchLabeller(self.model.backbone, self._classes, self.options, cache=self._cache, regions=regions)

    def _prepare_guide(self, features: Features, guide: ImageInput | None) -> Prepared | None:
        """Return the image that refinement follows; None without refinement."""
        if self.options.refine == "none":
            return None
        if guide is None:
            raise UsageError(
                "refinement needs the colours of the image, which features do not contain",
                "Pass the encoded image as argument `guide`.",
            )
        prepared = self._prepare(guide)
        if (prepared.size, plans_of(prepared.scales)) != (features.size, plans_of(features.scales)):
            height, width = features.size
            raise UsageError(f"the guide must have the {height} x {width} (height x width) pixels of the encoded image")
        return prepared

    def _prepare(self, image: ImageInput) -> Prepared:
        return self._patches.view.prepare(to_upright(image, self._max_pixels, self._patches.view.stretch))

    def _check(self, features: Features) -> None:
        """Raise UsageError if the features do not match this labeller's model and options."""
        dim, plans = features.patches.shape[-1], plans_of(features.scales)
        if dim != self.model.backbone.embed_dim:
            raise UsageError(
                f"the features have {dim} dimensions, but this model has {self.model.backbone.embed_dim}",
                "Encode the image with the labeller's model.",
            )
        expected = self._patches.view.plans(features.size)
        if plans != expected:
            raise UsageError(
                f"the image was encoded at {_sizes(plans)}, but this labeller expects {_sizes(expected)}",
                "Encode the image with the labeller's mode, short side and scales.",
            )


def _sizes(plans: Sequence[WindowPlan]) -> str:
    sizes = " and ".join(f"{height} x {width}" for height, width in (plan.size for plan in plans))
    return f"{sizes} (height x width) pixels in {'one piece' if plans[0].whole else 'windows'}"
