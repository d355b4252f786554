"""The task of the pipeline that labels an image and compares its labels with its mask."""

from __future__ import annotations

from collections.abc import Sequence

from tipsseg.evaluation.thresholds import Tally, tally
from tipsseg.labelling.patch_labeller import Patches, Scored
from tipsseg.labelling.source import Loaded
from tipsseg.runs.engine.label_task import LabelTask
from tipsseg.runs.fit.masked import Learnt, Masks, size_mismatch


class TallyTask:
    """Label images without writing them, and count right pixels at every threshold."""

    def __init__(self, label_task: LabelTask, masks: Masks) -> None:
        self.source = label_task.source
        self._label_task = label_task
        self._masks = masks

    def score(self, scales: Sequence[Patches]) -> Scored:
        return self._label_task.score(scales)

    def finish(self, loaded: Loaded[Patches], scored: Scored) -> Learnt[Tally | None]:
        """Compare the labels of the image with its mask; None if the mask ignores all pixels. Raises ImageError."""
        with self._label_task.alone(loaded):
            label_map = self._label_task.label(loaded, scored)
            mask = self._masks.read(loaded.ref)
            if mask.shape != label_map.labels.shape:
                raise size_mismatch(loaded.ref, label_map.labels.shape, mask.shape)
            classes = len(label_map.classes)
            if not (mask <= classes).any():
                return Learnt(None, loaded.damaged)
            return Learnt(tally(label_map.labels, label_map.confidence, mask, classes), loaded.damaged)
