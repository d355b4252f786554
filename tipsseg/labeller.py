"""One image -> its LabelMap: the engine behind the command and the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tipsseg.background import GENERAL_BACKGROUND, meaning_threshold, same_meaning
from tipsseg.encode import Encoder
from tipsseg.errors import InputError, UsageError
from tipsseg.images import MAX_PIXELS, upright_rgb
from tipsseg.match import Scores, WholeScores, WindowScores, Winners, best_groups, match, match_refined
from tipsseg.records import BACKGROUND, LabelArray, LabelMap, LabelOptions, TopClasses, ignore_id, label_dtype
from tipsseg.vocabulary import Phrase, Vocabulary
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
    """A model, a vocabulary and options, ready to label images one after the other.

    vocabulary  what competes, without the phrases of an automatic background that mean the same as a class
    dropped     those background phrases, each with the phrase of a class that it means the same as
    """

    def __init__(self, encoder: Encoder, vocabulary: Vocabulary, options: LabelOptions | None = None) -> None:
        """Encodes the vocabulary's phrases, once. Raises UsageError for a short side below one patch."""
        self.encoder = encoder
        self.options = options or LabelOptions()
        self.short_side = self.options.short_side or encoder.native_size
        if self.short_side < encoder.patch_size:
            raise UsageError(
                f"short side {self.short_side} is smaller than one patch ({encoder.patch_size} pixels)",
                f"The model's native size is {encoder.native_size}.",
            )
        self.dropped = _same_meaning(encoder, vocabulary)
        self.vocabulary = vocabulary = vocabulary.resolved(self.dropped)
        self._vectors = _text_vectors(encoder, vocabulary.phrases)
        self._classes = vocabulary.classes
        ids = [
            (label_id, len(list(group))) for label_id, group in groupby(each.label_id for each in vocabulary.phrases)
        ]
        self._groups = [count for _, count in ids]
        self._label_ids = cast(LabelArray, np.array([label_id for label_id, _ in ids], label_dtype(len(self._classes))))
        self._ignore = ignore_id(len(self._classes))
        # By label id.
        least = [each.min_confidence for each in self._classes]
        self._least = np.array(
            [self.options.min_confidence, *(self.options.min_confidence if own is None else own for own in least)],
            np.float32,
        )

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

    def label_prepared(self, prepared: Prepared, top: int = 0) -> LabelMap:
        """The part of `label` from the model on; with the best `top` classes of each patch, or as many as there are."""
        scores = self._scores(prepared)
        winners = self._winners(scores, prepared)
        labels = self._label_ids[winners.group]
        if self._least.any():
            labels[winners.confidence < self._least[labels]] = self._ignore
        return LabelMap(
            labels, winners.confidence, self._classes, self._top(scores, prepared.plan, top) if top else None
        )

    def _top(self, scores: Scores, plan: WindowPlan, count: int) -> TopClasses:
        height, width = (max(round(side / self.encoder.patch_size), 1) for side in plan.size)
        groups, shares = best_groups(scores, (height, width), self._groups, min(count, len(self._groups)))
        return TopClasses(self._label_ids[groups], shares)

    def _winners(self, scores: Scores, prepared: Prepared) -> Winners:
        if self.options.refine == "pamr":
            return match_refined(scores, prepared.resized, prepared.size, self._groups)
        return match(scores, prepared.size, self._groups)

    def _scores(self, prepared: Prepared) -> Scores:
        encoder, plan = self.encoder, prepared.plan
        if self.options.mode == "whole":
            stretched = stretched_size(plan.size, encoder.patch_size)
            cosines = encoder.whole_cosines(prepared.resized, stretched, self._vectors)
            return WholeScores(cosines, encoder.temperature)
        cosines = encoder.window_cosines(prepared.resized, plan.corners, plan.side, self._vectors)
        return WindowScores(cosines, plan, encoder.temperature)


def _same_meaning(encoder: Encoder, vocabulary: Vocabulary) -> Mapping[str, str]:
    """The phrases of an automatic background that mean the same as a class, each with that class's phrase."""
    if not vocabulary.auto:
        return {}
    general = encoder.text_vectors(GENERAL_BACKGROUND, vocabulary.templates).cpu().numpy()
    named = [phrase for phrase in vocabulary.phrases if phrase.label_id != BACKGROUND]
    closest = same_meaning(_text_vectors(encoder, named).cpu().numpy(), general, meaning_threshold(general))
    pairs = zip(GENERAL_BACKGROUND, closest.tolist(), strict=True)
    return {stuff: named[index].text for stuff, index in pairs if index >= 0 and stuff in vocabulary.background}


def _text_vectors(encoder: Encoder, phrases: Sequence[Phrase]) -> Tensor:
    """Unit vectors of the phrases, [P, D], each by its own templates."""
    parts = [
        encoder.text_vectors([phrase.text for phrase in group], templates)
        for templates, group in groupby(phrases, lambda phrase: phrase.templates)
    ]
    return torch.cat(parts)


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
