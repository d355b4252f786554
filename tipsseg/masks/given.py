"""All that a run is given for an image: regions to name, labels to keep, and the names of what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tipsseg.formats.records import Objects, Size
from tipsseg.masks.labels import LabelSource, keep_labels
from tipsseg.masks.present import PresentNames
from tipsseg.masks.regions import RegionSource
from tipsseg.regions.naming import NamedRegions, Regions
from tipsseg.regions.objects import ancestors
from tipsseg.types import ImageRef, LabelClass
from tipsseg.vocabulary.vocabulary import Present


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Given:
    """The regions, the labels and the names that a run is given. Thread-safe.

    Attributes:
        regions: The regions; None without regions.
        only: True if pixels outside all regions become background.
        margin: See `naming.Regions`.
        labels: The labels to keep; None without labels.
        added: The ids of the classes to add to them. Their parts are added inside existing wholes.
        present: The classes that may be in each image; None for all classes.
        classes: The classes.
    """

    regions: RegionSource | None
    only: bool
    margin: float
    labels: LabelSource | None
    added: Sequence[int]
    present: PresentNames | None
    classes: Sequence[LabelClass]

    def expect(self, refs: Iterable[ImageRef]) -> bool:
        """Pass the images of the run, if they are known, to find regions and labels that could belong to several of them.

        Return False if there are labels to keep, but none of these images.
        """
        refs = list(refs)
        if self.regions is not None:
            self.regions.names.expect(refs)
        return self.labels is None or bool(self.labels.names.expect(refs)) or not refs

    def follow(self, previous: Mapping[str, Sequence[str]]) -> None:
        """Set the previous names of images, by their name of now: what is given for an image is found by these too."""
        for source in (self.regions, self.labels, self.present):
            if source is not None and source.names is not None:
                source.names.previous = previous

    def digest(self, ref: ImageRef, size: Size) -> str:
        """Return the sha256 of all that is given for an image. Raise ImageError if it cannot be read."""
        parts = [] if self.regions is None else [self.regions.find(ref).digest()]
        if self.labels is not None:
            labels = self.labels.read(ref, size)
            parts.append("" if labels is None else labels.digest())
        if self.present is not None:
            names = self.present.find(ref)
            parts.append("all" if names is None else ",".join(map(str, sorted(names.ids))))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def regions_of(self, ref: ImageRef, size: Size) -> Regions | None:
        """Return the regions of an image; None without regions. Raise ImageError if they cannot be read."""
        if self.regions is None:
            return None
        return Regions(ids=self.regions.find(ref).read(size), only=self.only, margin=self.margin)

    def present_in(self, ref: ImageRef) -> Present | None:
        """Return the classes that are in an image; None if nothing is known. Raise ImageError (see `PresentNames.find`)."""
        return None if self.present is None else self.present.find(ref)

    def keep(self, ref: ImageRef, result: NamedRegions) -> NamedRegions:
        """Return the labels of an image with its existing labels. Raise ImageError if these cannot be read."""
        if self.labels is None:
            return result
        height, width = result.labels.shape
        labels = self.labels.read(ref, (height, width)) or Objects((), "")
        if isinstance(labels, Objects):
            self.labels.skipped.update(labels.skipped)
        chains = ancestors(self.classes)
        added = [number for number in self.added if set(chains[number - 1]) <= {*self.added}]
        return keep_labels(result, labels, added, self.classes)
