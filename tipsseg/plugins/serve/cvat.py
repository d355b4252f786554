"""An auto-annotation function for CVAT. Pass this module to cvat-cli as its function module; see examples/integrations.

Requires the package cvat-sdk, which cvat-cli installs. The labels of the CVAT task must be named after the classes.
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
from tipsseg.options import DTYPE_NAMES, REFINEMENTS, choose
from tipsseg.options.records import LabelOptions
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import FittedVocabulary, is_fit
from tipsseg.vocabulary.vocabulary import Vocabulary, make_vocabulary, parse_background, split_phrases

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
    """Create the function. cvat-cli passes its options `-p NAME=TYPE:VALUE` as arguments.

    Args:
        classes: Comma-separated class names, like `tipsseg label --classes`.
        vocab: A vocabulary file, a preset or a fit file, in place of `classes`. A fit also sets the mode and the short side.
        model: A model id from weights.lock, or a folder in the hub layout.
        background: "auto", "none", or comma-separated phrases. "" uses the background of the vocabulary, or else "auto". Not
            allowed with a fit.
        min_confidence: Exclude pixels below this confidence, 0..1.
        refine: "none", "guided", "pamr" or "pamr-guided".
        min_area: Exclude objects below this area in pixels.
        device: The device to run the model on.
        dtype: The dtype to run the model in.

    Raises:
        TipssegError: The vocabulary, the model or an option is invalid.
    """
    if bool(classes) == bool(vocab):
        raise VocabularyError("set either `classes` or `vocab`", 'For example: -p classes=str:"panda leg,tree"')
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
        return make_vocabulary(split_phrases([classes]), "auto" if phrases is None else phrases)
    if not is_fit(vocab):
        return read_vocabulary(vocab, phrases)
    if background:
        raise UsageError(
            f"`background` cannot be changed: the fitted vocabulary {vocab} contains its vectors",
            "Omit `background`, or fit again with another background.",
        )
    return FittedVocabulary.load(vocab)


class CvatFunction:
    """A CVAT detection function. Every connected region of a class becomes a shape."""

    def __init__(self, labeller: Labeller, min_area: int = 1) -> None:
        self._labeller = labeller
        self._min_area = min_area

    @cached_property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The classes as CVAT labels of type mask."""
        labels = [cvataa.label_spec(entry.name, entry.id, type="mask") for entry in self._labeller.vocabulary.classes]
        return cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[LabeledShapeRequest]:
        """Return the objects in an image as masks, or as polygons if CVAT requests them."""
        objects = self._labeller.label(image).find_objects(min_area=self._min_area)
        segments = [segment for segment in objects if segment.score >= (context.conf_threshold or 0)]
        if context.conv_mask_to_poly:
            return [shape for segment in segments for shape in _polygons(segment)]
        return [cvataa.mask(segment.class_id, _encode_mask(segment)) for segment in segments]


def _encode_mask(segment: Segment) -> list[float]:
    """Encode a mask for CVAT: run lengths inside the bounding box, then x1, y1, x2, y2 of the box."""
    left, top, right, bottom = segment.xyxy
    *runs, _, _, _, _ = encode_mask(segment.mask[top:bottom, left:right], [0, 0, right - left, bottom - top])
    return [*runs, left, top, right - 1, bottom - 1]


def _polygons(segment: Segment) -> Iterator[LabeledShapeRequest]:
    for ring in segment.polygons:  # [K, 2] of (x, y)
        yield cvataa.polygon(segment.class_id, ring.ravel().tolist())
