"""One image -> its LabelMap: the engine behind the command and the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tipsseg.backbones.tipsv2.encoder import Encoder
from tipsseg.errors import DeviceError, InputError, UsageError
from tipsseg.images.upright import upright_image
from tipsseg.labelling.assign import Assignment, LabelTable, best_groups, match, match_refined
from tipsseg.labelling.prepare import MAX_WORKING_PIXELS, Prepared, prepare
from tipsseg.labelling.refine import pamr
from tipsseg.labelling.resample import Values
from tipsseg.labelling.scores import Scores, WholeScores, WindowScores
from tipsseg.labelling.text_cache import remembered
from tipsseg.labelling.windows import WindowPlan, cut_windows, stretched_size
from tipsseg.options import LabelOptions
from tipsseg.types import BACKGROUND, LabelArray, LabelMap, TopClasses, ignore_id, label_dtype
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.background import GENERAL_BACKGROUND, meaning_threshold, same_meaning
from tipsseg.vocabulary.vocabulary import ClassSpec, Phrase, Vocabulary, make_vocabulary


class Labeller:
    """A model, a vocabulary and options, ready to label images one after the other.

    vocabulary  what competes, without the phrases of an automatic background that mean the same as a class
    dropped     those background phrases, each with the phrase of a class that it means the same as
    vectors     of the phrases of the vocabulary, [P, D] float32 of unit length, on the device
    """

    def __init__(
        self,
        encoder: Encoder,
        vocabulary: Vocabulary | Sequence[str | ClassSpec],
        options: LabelOptions | None = None,
    ) -> None:
        """Encodes the vocabulary's phrases, once.

        encoder     as `tipsseg.load` gives it
        vocabulary  classes alone stand for the vocabulary that `make_vocabulary` makes of them

        Raises VocabularyError for classes that cannot be, UsageError for a short side below one patch or beyond all measure.
        """
        if not isinstance(encoder, Encoder):
            raise UsageError(
                f"the model must be an Encoder, not {quoted(encoder)}", 'For example: tipsseg.load("l14").'
            )
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = make_vocabulary(vocabulary)
        if not isinstance(options, LabelOptions | None):
            raise UsageError(
                f"options must be LabelOptions, not {quoted(options)}", 'For example: LabelOptions(mode="whole").'
            )
        self.encoder = encoder
        self.options = options or LabelOptions()
        self.short_side = self.options.short_side or encoder.native_size
        if self.short_side < encoder.patch_size:
            raise UsageError(
                f"short side {self.short_side} is smaller than one patch ({encoder.patch_size} pixels)",
                f"The model's native size is {encoder.native_size}.",
            )
        vectors = _text_vectors(encoder, vocabulary)
        if self.short_side**2 > MAX_WORKING_PIXELS:
            raise UsageError(
                f"short side {self.short_side} is too large: a square image would have more than {MAX_WORKING_PIXELS:,} pixels",
                f"The model's native size is {encoder.native_size}.",
            )
        self.dropped = _same_meaning(vocabulary, vectors)
        self.vocabulary = vocabulary = vocabulary.resolved(self.dropped)
        chosen = np.stack([vectors[phrase] for phrase in vocabulary.phrases])
        self.vectors = torch.from_numpy(chosen).to(encoder.device)
        self._classes = vocabulary.classes
        ids = [
            (label_id, len(list(group))) for label_id, group in groupby(each.label_id for each in vocabulary.phrases)
        ]
        least = [each.min_confidence for each in self._classes]
        self._naming = LabelTable(
            [count for _, count in ids],
            cast(LabelArray, np.array([label_id for label_id, _ in ids], label_dtype(len(self._classes)))),
            np.array(
                [self.options.min_confidence, *(self.options.min_confidence if own is None else own for own in least)],
                np.float32,
            ),
            ignore_id(len(self._classes)),
        )

    def label(self, image: Image.Image | NDArray[np.uint8]) -> LabelMap:
        """Label a Pillow image (turned upright by its EXIF data), or an array [H, W, 3] uint8 RGB.

        Raises InputError for an array of another shape or dtype and for an image that is too elongated.
        """
        prepared = self.prepare(image)
        return self.label_encoded(prepared, self.encode(prepared))

    def prepare(self, image: Image.Image | NDArray[np.uint8]) -> Prepared:
        """The part of `label` before the model; may be called from several threads."""
        upright = upright_image(image) if isinstance(image, Image.Image) else Image.fromarray(_checked(image))
        return self.prepare_upright(upright)

    def prepare_upright(self, upright: Image.Image) -> Prepared:
        """The same for an image in mode RGB that is upright, whatever its EXIF data say."""
        return prepare(upright, self.encoder.native_size, self.short_side, self.encoder.patch_size)

    def windows(self, prepared: Prepared) -> list[NDArray[np.uint8]]:
        """What the model sees of an image, [side, side, 3] each; none where it sees the image as a whole."""
        plan = prepared.plan
        return [] if self.options.mode == "whole" else cut_windows(prepared.resized, plan.corners, plan.side)

    def encode(self, prepared: Prepared) -> Tensor:
        """The cosines of an image with the phrases, on the device: [windows, h, w, P], or [h, w, P] of it as a whole."""
        if self.options.mode == "whole":
            size = stretched_size(prepared.plan.size, self.encoder.patch_size)
            return self.encoder.whole_cosines(prepared.resized, size, self.vectors)
        return self.encoder.window_cosines(self.windows(prepared), self.vectors)

    def label_encoded(self, prepared: Prepared, cosines: Tensor, top: int = 0) -> LabelMap:
        """The part of `label` behind the model; with the best `top` classes of each patch, or as many as there are.

        cosines  as `encode` makes them

        May be called from several threads. Raises DeviceError for cosines that are no numbers.
        """
        values = cosines.cpu().numpy()
        if not np.isfinite(values).all():
            raise DeviceError(
                str(self.encoder.device),
                f"the model gives values that are no numbers in {self.encoder.dtype_name} on {self.encoder.device}",
                "Use dtype float32, and see tipsseg doctor.",
            )
        scores = self._scores(prepared, values)
        matched = self._match(scores, prepared)
        best = self._top(scores, prepared.plan, top) if top else None
        return LabelMap(matched.labels, matched.confidence, self._classes, best)

    def _top(self, scores: Scores, plan: WindowPlan, count: int) -> TopClasses:
        height, width = (max(round(side / self.encoder.patch_size), 1) for side in plan.size)
        groups, shares = best_groups(scores, (height, width), self._naming.groups, min(count, len(self._naming.groups)))
        return TopClasses(self._naming.label_ids[groups], shares)

    def _match(self, scores: Scores, prepared: Prepared) -> Assignment:
        if self.options.refine == "pamr":
            return match_refined(scores, prepared.resized, prepared.size, self._naming, self._refine)
        return match(scores, prepared.size, self._naming)

    def _refine(self, maps: Values, image: NDArray[np.uint8]) -> Values:
        encoder = self.encoder
        with encoder.at_work:
            return pamr(torch.from_numpy(maps).to(encoder.device), image).cpu().numpy()

    def _scores(self, prepared: Prepared, cosines: Values) -> Scores:
        if self.options.mode == "whole":
            return WholeScores(cosines, prepared.plan.size, self.encoder.temperature)
        return WindowScores(cosines, prepared.plan, self.encoder.temperature)


def _general(vocabulary: Vocabulary) -> list[Phrase]:
    return [Phrase(stuff, BACKGROUND, vocabulary.templates) for stuff in GENERAL_BACKGROUND]


def _same_meaning(vocabulary: Vocabulary, vectors: Mapping[Phrase, Values]) -> Mapping[str, str]:
    """The phrases of an automatic background that mean the same as a class, each with that class's phrase."""
    if not vocabulary.auto:
        return {}
    general = np.stack([vectors[phrase] for phrase in _general(vocabulary)])
    named = [phrase for phrase in vocabulary.phrases if phrase.label_id != BACKGROUND]
    classes = np.stack([vectors[phrase] for phrase in named])
    closest = same_meaning(classes, general, meaning_threshold(general))
    pairs = zip(GENERAL_BACKGROUND, closest.tolist(), strict=True)
    return {stuff: named[index].text for stuff, index in pairs if index >= 0 and stuff in vocabulary.background}


def _text_vectors(encoder: Encoder, vocabulary: Vocabulary) -> Mapping[Phrase, Values]:
    """The unit vectors, [D] each, of all phrases and of all that an automatic background is measured by."""
    # Each goes through the text tower once, whatever becomes of it.
    phrases = list(dict.fromkeys([*vocabulary.phrases, *(_general(vocabulary) if vocabulary.auto else ())]))

    def compute() -> Values:
        parts = [
            encoder.encode_text([phrase.text for phrase in group], templates)
            for templates, group in groupby(phrases, lambda phrase: phrase.templates)
        ]
        vectors: Values = torch.cat(parts).cpu().numpy()
        return vectors

    return dict(zip(phrases, remembered(encoder, phrases, compute), strict=True))


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
