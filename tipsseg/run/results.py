"""The results of images, and how a labelled one is written: its labels, its record and its derived files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels
from tipsseg.label_map import LabelMap, find_objects
from tipsseg.options import MinArea
from tipsseg.run.derive import Derived, Deriver, stage_files
from tipsseg.run.entry import Entry, Facts, make_entry, object_scores
from tipsseg.run.files import StagedFile, discard
from tipsseg.run.labels import Labels, encode_labels
from tipsseg.run.summary import label_summary
from tipsseg.types import Failed, ImageRef, Remark
from tipsseg.util.files import Fingerprint


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image that this run labelled.

    Attributes:
        ref: The image.
        entry: Its record.
        labels: Its label files, under temporary names.
        derived: Its other files.
        remarks: Differences between the file and what the model saw.
        damaged: The fault of its feature file, which was written again; "" if the file was intact.
        reason: Why it was labelled; set once it is recorded.
        files: Its files by format; set once it is recorded.
    """

    ref: ImageRef
    entry: Entry
    labels: tuple[StagedFile, ...]
    derived: Derived
    remarks: tuple[Remark, ...] = ()
    damaged: str = ""
    reason: str = field(default="", kw_only=True)
    files: Mapping[str, Path] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An image whose labels stay, with the reason, and its files by format once it is recorded."""

    ref: ImageRef
    entry: Entry
    reason: str = "done"
    files: Mapping[str, Path] = field(default_factory=dict, kw_only=True)

    @property
    def edited(self) -> bool:
        return self.reason != "done"


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image whose features are in the feature store.

    Attributes:
        ref: The image.
        file: Its feature file; with several scales, that of the coarsest.
        size: (height, width) of the upright image in pixels.
        windows: Number of windows; 1 for a whole image.
        bytes: Size of the features in bytes.
        made: True if this run computed features at one scale or more.
        damaged: See Labelled.
        finer: The feature files at larger scales, in ascending order.
        remarks: See Labelled; empty if this run did not encode the image.
    """

    ref: ImageRef
    file: Path
    size: tuple[int, int]
    windows: int
    bytes: int
    made: bool
    damaged: str = ""
    finer: tuple[Path, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the feature files, one per scale."""
        return (self.file, *self.finer)


ImageResult = Labelled | Unchanged | Failed

#: An image to be labelled, or its result.
Left = ImageRef | Unchanged | Failed


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
        pixels=pixels() if any("pixels" in FORMATS[name].needs for name in context.formats) else None,
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
