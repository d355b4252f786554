"""Write a labelled image: its labels, its record and its derived files, under temporary names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels
from tipsseg.label_map import LabelMap, find_objects
from tipsseg.options import MinArea
from tipsseg.run.derive import Deriver, stage_files
from tipsseg.run.entry import Facts, make_entry, object_scores
from tipsseg.run.files import discard
from tipsseg.run.labels import Labels, encode_labels
from tipsseg.run.results import Labelled
from tipsseg.run.summary import label_summary
from tipsseg.types import ImageRef
from tipsseg.util.fingerprint import Fingerprint


def write_image(
    deriver: Deriver,
    ref: ImageRef,
    fingerprint: Fingerprint,
    label_map: LabelMap,
    *,
    thumbnail: NDArray[np.uint8] | None,
    pixels: Callable[[], NDArray[np.uint8]],
    given: str | None = None,
) -> Labelled:
    """Write the files of an image under temporary names: all of them, or none. Safe in any thread or process.

    Args:
        deriver: Derives the files of the run.
        ref: The image.
        fingerprint: The fingerprint of its file.
        label_map: Its labels.
        thumbnail: [h, w, 3] uint8 RGB, see `ImageLabels`; None if no format needs it.
        pixels: Reads the image, if a format needs its pixels.
        given: See `Entry`.

    Raises:
        ImageError: A file cannot be written at its path.
        OutputError: The folder cannot be written.
    """
    context = deriver.context
    every = find_objects(label_map, replace(context.files, instances="component", min_area=MinArea(1)))
    labels = Labels(labels=label_map.labels, instances=label_map.instances, layers=label_map.layers)
    image = ImageLabels(
        ref=ref,
        labels=label_map.labels,
        objects=every,
        confidence=label_map.confidence,
        top=label_map.top,
        thumbnail=thumbnail,
        instances=label_map.instances,
        pixels=pixels() if any(FORMATS[name].needs_pixels for name in context.formats) else None,
        layers=label_map.layers,
    )
    contents = encode_labels(image, context)
    facts = Facts(label_summary(label_map), object_scores(every))
    digests = [sha256(data).hexdigest() for data in contents.values()]
    entry = make_entry(ref, fingerprint, facts, digests, context.formats, given=given)
    image = replace(image, objects=deriver.objects(entry, labels, every))
    derived = deriver.make(image, entry, [name for name in entry.formats if name not in context.labels])
    try:
        places = {name: (context.label_path(name, ref), data) for name, data in contents.items()}
        staged = stage_files(deriver.files, ref, places)
    except BaseException:
        discard(derived.files)
        raise
    return Labelled(ref, entry, staged, derived)
