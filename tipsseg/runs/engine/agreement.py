"""Compare int8 with float32 on the first images of a run, so that users see what 8 bits cost with their model and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

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

#: Number of images that are compared, if the run has at least _MANY. In a short run, comparing would take longer than labelling.
_IMAGES, _MANY = 3, 20

#: Number of images that are tried, because some may be unreadable.
_TRIED = 10


def note_agreement(
    loaded: LoadedModel,
    images: Sequence[ImageRef],
    note: Callable[[str], None] | None,
    labeller: PatchLabeller | None = None,
    rasters: RasterTask | None = None,
) -> None:
    """Note how much int8 agrees with float32 in the first images of a run that uses it.

    Args:
        loaded: The model of the run.
        images: The images to encode. Those that have stored features, or cannot be read, are left out.
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

    def prepared_images() -> Iterator[Prepared]:
        for ref in images[:_TRIED]:
            try:
                prepared = source.load(ref).missing if rasters is None else rasters.window(ref)
            except ImageError:  # the run reports it
                continue
            if prepared is not None and len(prepared.scales) == len(loaded.view.short_sides):
                yield prepared

    first = list(islice(prepared_images(), _IMAGES if len(images) >= _MANY else 1))
    if not first:
        return
    note("Comparing int8 with float32 ...")
    exact = Tipsv2Backbone(backbone.folder, "cpu", "float32", lazy=True)
    same, total = 0.0, 0
    for prepared in first:
        both = [encode_prepared(each, prepared) for each in (backbone, exact)]
        values = _cosines(*both) if labeller is None else _equal_labels(labeller, prepared, *both)
        same, total = same + float(values.sum(dtype=np.float64)), total + values.size
    kind = "image" if rasters is None else "raster"
    of_images = f"of the first {kind if len(first) == 1 else pluralize(len(first), kind)}"
    if labeller is None:
        note(f"The patch features {of_images} in int8 and in float32 have a mean cosine of {same / total:.4f}.")
    else:
        share = f"{same / total:.2%}"
        # A few pixels must not be rounded away.
        share = "more than 99.99%" if share == "100.00%" and same < total else share
        note(
            f"int8 gives the same label as float32 to {share} of the pixels {'in the middle ' if rasters else ''}{of_images}."
        )


def _cosines(one: Features, other: Features) -> NDArray[np.float32]:
    """Return the cosines of the patch features at the first scale, which are unit vectors: [windows, h, w]."""
    cosines: NDArray[np.float32] = (one.patches * other.patches).sum(-1).numpy()
    return cosines


def _equal_labels(labeller: PatchLabeller, prepared: Prepared, *both: Features) -> NDArray[np.bool_]:
    """Return which pixels have the same label, [H, W]."""
    pixels = prepared.scales[-1].resized
    one, other = (labeller.assign(labeller.score(features.scales), pixels) for features in both)
    return one.labels == other.labels
