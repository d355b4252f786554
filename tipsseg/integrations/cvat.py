"""An auto-annotation function for CVAT; cvat-cli takes this module as its function module, see examples/integrations.

It needs the package cvat-sdk, with which cvat-cli comes. The task must have labels with the names of the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import cvat_sdk.auto_annotation as cvataa
from cvat_sdk.masks import encode_mask

from tipsseg.errors import UsageError, VocabularyError
from tipsseg.labelling.labeller import Labeller
from tipsseg.labelling.model import load
from tipsseg.options import DTYPE_NAMES, REFINEMENTS, LabelOptions, choose
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import FittedVocabulary, is_fit
from tipsseg.vocabulary.vocabulary import Vocabulary, make_vocabulary, parse_background, split_names

if TYPE_CHECKING:
    from cvat_sdk.models import LabeledShapeRequest
    from PIL import Image

    from tipsseg.label_map import Segment


def create(
    classes: str = "",
    vocab: str = "",
    model: str = "l14",
    background: str = "",
    min_confidence: float = 0.0,
    refine: str = "none",
    min_area: int = 1,
    device: str = "auto",
    dtype: str = "auto",
) -> CvatFunction:
    """Make the function, as cvat-cli does with its options `-p NAME=TYPE:VALUE`.

    Args:
        classes: Names of classes with commas, as of `tipsseg label`.
        vocab: A vocabulary file, the name of a preset, or a file that `tipsseg fit` wrote, in place of `classes`. With a fit,
            images are shown to the model as those of the fit were.
        model: An id of weights.lock, or a folder in the hub layout.
        background: "auto", "none", or phrases with commas; "": as the vocabulary says, or "auto". A fit has its own.
        min_confidence: Pixels below this confidence, 0..1, are in no shape.
        refine: "none" or "pamr".
        min_area: Smaller objects are left out, in pixels.
        device: Where the model runs.
        dtype: What the model computes in.

    Raises:
        TipssegError: For a vocabulary, a model or an option that cannot be used.
    """
    if bool(classes) == bool(vocab):
        raise VocabularyError(
            "either `classes` or `vocab` says what to label", 'For example: -p classes=str:"panda leg,tree"'
        )
    options = LabelOptions(min_confidence=min_confidence, refine=choose(refine, REFINEMENTS, "refinement"))
    vocabulary = _read_classes(classes, vocab, background)
    if isinstance(vocabulary, FittedVocabulary):
        options = replace(options, mode=vocabulary.mode, short_side=vocabulary.short_side)
    return CvatFunction(
        Labeller(load(model, device=device, dtype=choose(dtype, DTYPE_NAMES, "dtype")), vocabulary, options), min_area
    )


def _read_classes(classes: str, vocab: str, background: str) -> Vocabulary | FittedVocabulary:
    phrases = parse_background(background) if background else None
    if not vocab:
        return make_vocabulary(split_names([classes]), "auto" if phrases is None else phrases)
    if not is_fit(vocab):
        return read_vocabulary(vocab, phrases)
    if background:
        raise UsageError(
            f"`background` is for phrases that are still to be encoded, and {vocab} has their vectors",
            "Leave it out, or fit again with another background.",
        )
    return FittedVocabulary.load(vocab)


class CvatFunction:
    """A detection function: each connected region of a class is a shape."""

    def __init__(self, labeller: Labeller, min_area: int = 1) -> None:
        """`min_area`: smaller objects are left out, in pixels."""
        self._labeller = labeller
        self._min_area = min_area

    @cached_property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The classes, as CVAT's labels for masks."""
        labels = [cvataa.label_spec(entry.name, entry.id, type="mask") for entry in self._labeller.vocabulary.classes]
        return cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[LabeledShapeRequest]:
        """Find the objects in an image, as masks, or as polygons if CVAT asks for these."""
        objects = self._labeller.label(image).find_objects(min_area=self._min_area)
        found = [entry for entry in objects if entry.score >= (context.conf_threshold or 0)]
        if context.conv_mask_to_poly:
            return [shape for entry in found for shape in _polygons(entry)]
        return [cvataa.mask(entry.class_id, _code(entry)) for entry in found]


def _code(found: Segment) -> list[float]:
    """Return CVAT's code of a mask: lengths of runs within the box, then its corners x1, y1, x2, y2."""
    left, top, right, bottom = found.xyxy
    *runs, _, _, _, _ = encode_mask(found.mask[top:bottom, left:right], [0, 0, right - left, bottom - top])
    return [*runs, left, top, right - 1, bottom - 1]


def _polygons(found: Segment) -> Iterator[LabeledShapeRequest]:
    for ring in found.polygons:  # [K, 2] of (x, y)
        yield cvataa.polygon(found.class_id, ring.ravel().tolist())
