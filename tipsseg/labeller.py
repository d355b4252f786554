"""One image -> its LabelMap: the engine behind the command and the library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.encode import Encoder
from tipsseg.errors import InputError, UsageError
from tipsseg.images import MAX_PIXELS, upright_rgb
from tipsseg.match import Winners, match_whole, match_windows
from tipsseg.records import LabelArray, LabelMap, LabelOptions, ignore_id, label_dtype
from tipsseg.vocabulary import Vocabulary
from tipsseg.windows import WindowPlan, plan_windows, stretched_size


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image resized for the model; needs no device, so threads can make it ahead.

    size     (height, width) of the original
    resized  [h, w, 3] uint8 RGB, at the working size of `plan`
    """

    size: tuple[int, int]
    resized: NDArray[np.uint8]
    plan: WindowPlan


class Labeller:
    """A model, a vocabulary and options, ready to label images one after the other."""

    def __init__(self, encoder: Encoder, vocabulary: Vocabulary, options: LabelOptions | None = None) -> None:
        """Encodes the vocabulary's phrases, once. Raises UsageError for a short side below one patch."""
        self.encoder = encoder
        self.vocabulary = vocabulary
        self.options = options or LabelOptions()
        self.short_side = self.options.short_side or encoder.native_size
        if self.short_side < encoder.patch_size:
            raise UsageError(
                f"short side {self.short_side} is smaller than one patch ({encoder.patch_size} pixels)",
                f"The model's native size is {encoder.native_size}.",
            )
        self._vectors = encoder.text_vectors(vocabulary.phrases, vocabulary.templates)
        classes = len(vocabulary.classes)
        self._label_ids = cast(LabelArray, np.array(vocabulary.label_ids, label_dtype(classes)))
        self._ignore = ignore_id(classes)

    def label(self, image: Image.Image | NDArray[np.uint8]) -> LabelMap:
        """Label a Pillow image (turned upright by its EXIF data), or an array [H, W, 3] uint8 RGB.

        Raises InputError for an array of another shape or dtype and for an image that is too elongated.
        """
        return self.label_prepared(self.prepare(image))

    def prepare(self, image: Image.Image | NDArray[np.uint8]) -> Prepared:
        """The part of `label` before the model; may be called from several threads."""
        pixels = upright_rgb(image) if isinstance(image, Image.Image) else _checked(image)
        height, width = pixels.shape[:2]
        plan = plan_windows((height, width), self.encoder.native_size, self.short_side, self.encoder.patch_size)
        if plan.size[0] * plan.size[1] > MAX_PIXELS:
            raise InputError(
                f"{width} x {height} pixels are too elongated: at a short side of {self.short_side} this would be "
                f"{plan.size[1]} x {plan.size[0]} pixels, more than {MAX_PIXELS}",
                "Cut it into pieces, or use a smaller --short-side.",
            )
        return Prepared((height, width), _resize(pixels, plan.size), plan)

    def label_prepared(self, prepared: Prepared) -> LabelMap:
        """The part of `label` from the model on."""
        winners = self._winners(prepared)
        labels = self._label_ids[winners.phrase]
        if self.options.min_confidence > 0:
            labels[winners.confidence < self.options.min_confidence] = self._ignore
        return LabelMap(labels, winners.confidence, self.vocabulary.classes)

    def _winners(self, prepared: Prepared) -> Winners:
        encoder, plan = self.encoder, prepared.plan
        if self.options.mode == "whole":
            stretched = stretched_size(plan.size, encoder.patch_size)
            cosines = encoder.whole_cosines(prepared.resized, stretched, self._vectors)
            return match_whole(cosines, prepared.size, encoder.temperature)
        cosines = encoder.window_cosines(prepared.resized, plan.corners, plan.side, self._vectors)
        return match_windows(cosines, plan, prepared.size, encoder.temperature)


def _checked(image: object) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"a Pillow image or an array can be labelled, not {type(image).__name__}",
            "Open a file first: PIL.Image.open(path).",
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"an image array must be [H, W, 3] uint8 RGB, got {list(image.shape)} {image.dtype}",
            "Pillow images of any mode are converted.",
        )
    return image


def _resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if pixels.shape[:2] == size:
        return pixels
    resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized)
