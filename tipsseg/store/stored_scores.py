"""The objects that labels show which were read back, with their scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tipsseg.options import FileOptions
from tipsseg.regions.components import Region
from tipsseg.regions.objects import LabelledObject, mean_score, object_regions
from tipsseg.store.stored_labels import is_known
from tipsseg.store.stored_rows import StoredObject
from tipsseg.types import LabelMap

#: Class, area and box: no two objects have the same, as regions of one class that touch all four sides of one box meet.
_Key = tuple[int, int, tuple[int, ...]]


class ObjectScores:
    """What is known of the scores of an image's objects.

    rough  how many objects got the mean of their class, for want of anything better
    """

    def __init__(self, listed: Iterable[StoredObject], means: Mapping[int, float], options: FileOptions) -> None:
        """`listed` are objects whose scores were written; `means` the mean confidence over all pixels of each class."""
        self.rough = 0
        self._listed: dict[_Key, float] = {(each.class_id, each.area, each.box): each.score for each in listed}
        self._means = means
        self._options = options

    def objects(self, label_map: LabelMap) -> list[LabelledObject]:
        """The objects that the labels show, as `image_labels.labelled_objects` finds them.

        A score that was written is taken as it is. Else it is the mean of the confidence, as 8 bits a pixel have kept it; or else
        that of all pixels of the class, which is what an object is where `options` say so.
        """
        return [
            LabelledObject(region, self._score(region, label_map), self._options.simplify)
            for region in object_regions(label_map, self._options)
        ]

    def _score(self, region: Region, label_map: LabelMap) -> float:
        y, x, h, w = region.box
        listed = self._listed.get((region.class_id, region.area, (x, y, w, h)))
        if listed is not None:
            return listed
        if self._options.instances != "class":
            if is_known(label_map.confidence):
                return mean_score(region, label_map.confidence)
            self.rough += 1
        return self._means[region.class_id]
