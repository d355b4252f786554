"""NumPy archives: one compressed .npz an image, with all that the labels come from.

labels      [H, W] uint8 (uint16 above 254 classes): the label ids, as in the index masks
confidence  [H, W] uint8: round(255 * confidence)
top_ids     [K, h, w] as labels: the ids of the best K classes of each patch, the best first; 0 is the background
top_scores  [K, h, w] float16: their probabilities, before any refinement
"""

from __future__ import annotations

import io

import numpy as np

from tipsseg.formats import RunContext
from tipsseg.formats.confidence import quantized
from tipsseg.formats.image_file import ImageFileWriter
from tipsseg.regions.objects import ImageLabels
from tipsseg.types import label_dtype


def encode(labels: ImageLabels) -> bytes:
    """The archive of an image. Raises ValueError for labels without the best classes of patches."""
    label_map = labels.label_map
    if label_map.top is None:
        raise ValueError("the format npz needs the best classes of each patch")
    ids = label_dtype(len(label_map.classes))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        # In one order whatever they come in, for the same bytes.
        labels=np.ascontiguousarray(label_map.labels, ids),
        confidence=np.ascontiguousarray(quantized(label_map.confidence)),
        top_ids=np.ascontiguousarray(label_map.top.ids, ids),
        top_scores=np.ascontiguousarray(label_map.top.scores),
    )
    return buffer.getvalue()


def create(context: RunContext) -> ImageFileWriter:
    """The writer of format "npz"."""
    return ImageFileWriter(context, "npz", encode)
