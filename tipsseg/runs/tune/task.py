"""The task of the pipeline that labels an image and compares its labels with its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tipsseg.evaluation.thresholds import Tally, tally
from tipsseg.labelling.patch_labeller import Patches, Scored
from tipsseg.labelling.source import Loaded
from tipsseg.runs.engine.label_task import LabelTask
from tipsseg.runs.fit.masked import Masks, size_mismatch


@dataclass(frozen=True, slots=True, eq=False)
class TalliedImage:
    """An image compared with its mask.

    Attributes:
        tally: Pixel counts at every threshold; None if the mask ignores all pixels.
        damaged: The fault of the image's feature file; "" if it was read, or absent.
    """

    tally: Tally | None
    damaged: str


class TallyTask:
    """Label images without writing them, and count right pixels at every threshold."""

    def __init__(self, label_task: LabelTask, masks: Masks) -> None:
        self.source = label_task.source
        self._label_task = label_task
        self._masks = masks

    def score(self, scales: Sequence[Patches]) -> Scored:
        return self._label_task.score(scales)

    def finish(self, loaded: Loaded[Patches], scored: Scored) -> TalliedImage:
        """Label the image, read its mask and compare the two. Thread-safe. Raises ImageError if their sizes differ."""
        with self._label_task.alone(loaded):
            label_map = self._label_task.label(loaded, scored)
            mask = self._masks.read(loaded.ref)
            if mask.shape != label_map.labels.shape:
                raise size_mismatch(loaded.ref, label_map.labels.shape, mask.shape)
            classes = len(label_map.classes)
            if not (mask <= classes).any():
                return TalliedImage(None, loaded.damaged)
            return TalliedImage(tally(label_map.labels, label_map.confidence, mask, classes), loaded.damaged)
