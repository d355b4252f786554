"""Compare int8 with float32 on the first images of a run, so that users see what 8 bits cost with their model and images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.features.folder import FeatureFiles
from tipsseg.labelling.encode import encode_prepared
from tipsseg.labelling.features import Features
from tipsseg.labelling.patch_labeller import PatchLabeller
from tipsseg.labelling.prepare import Prepared
from tipsseg.labelling.source import FeatureSource
from tipsseg.runs.engine.loading import LoadedModel
from tipsseg.runs.engine.raster_task import RasterTask
from tipsseg.types import ImageRef
from tipsseg.util.printable import pluralize

#: Number of images that are compared.
_IMAGES = 3


def note_agreement(
    loaded: LoadedModel,
    images: Iterable[ImageRef],
    note: Callable[[str], None] | None,
    labeller: PatchLabeller | None = None,
    rasters: RasterTask | None = None,
) -> None:
    """Note how much int8 agrees with float32 in the first images of a run that uses it.

    Args:
        loaded: The model of the run.
        images: The images. Those that need not be encoded, or cannot be read, are left out.
        note: Prints the note. None: do nothing.
        labeller: Labels the images in both, to compare labels. None: compare features.
        rasters: Reads the images if they are rasters; only their middles are compared.
    """
    backbone = loaded.model.backbone
    if note is None or backbone.dtype_name != "int8":
        return
    from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone

    source = FeatureSource(
        backbone, loaded.view, loaded.store, FeatureFiles.find_header, max_pixels=loaded.info.spec.max_pixels
    )
    exact = Tipsv2Backbone(backbone.folder, "cpu", "float32", lazy=True)
    shares = []
    for ref in islice(images, _IMAGES):
        try:
            prepared = source.load(ref).missing if rasters is None else rasters.window(ref)
        except ImageError:  # the run reports it
            continue
        if prepared is not None and len(prepared.scales) == len(loaded.view.short_sides):
            both = [encode_prepared(each, prepared) for each in (backbone, exact)]
            shares.append(_cosine(*both) if labeller is None else _same_labels(labeller, prepared, *both))
    if not shares:
        return
    kind = "image" if rasters is None else "raster"
    first = f"the first {kind}" if len(shares) == 1 else f"the first {pluralize(len(shares), kind)}"
    mean = sum(shares) / len(shares)
    if labeller is None:
        note(f"The patch features of {first} in int8 and in float32 have a mean cosine of {mean:.4f}.")
    else:
        note(f"int8 gives the same label as float32 to {mean:.2%} of the pixels of {first}.")


def _cosine(one: Features, other: Features) -> float:
    """Return the mean cosine of the patch features at the first scale, which are unit vectors."""
    return float((one.patches * other.patches).sum(-1).mean())


def _same_labels(labeller: PatchLabeller, prepared: Prepared, *both: Features) -> float:
    """Return the share of pixels with the same label."""
    pixels = prepared.scales[-1].resized
    one, other = (labeller.assign(labeller.score(features.scales), pixels) for features in both)
    return float(np.mean(one.labels == other.labels))
