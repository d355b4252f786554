"""The task of the pipeline that labels an image, compares its labels with the truth, and writes its files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tipsseg.evaluation.pairing import Pair
from tipsseg.labelling.patch_labeller import Patches, Scored
from tipsseg.labelling.source import Loaded
from tipsseg.runs.engine.label_task import LabelTask
from tipsseg.store.results import Labelled
from tipsseg.types import ImageRef

if TYPE_CHECKING:
    from tipsseg.runs.evaluate.run import Scorer


class EvaluationTask:
    """Label images as `label_task` does, and score the labels before they are written."""

    def __init__(self, label_task: LabelTask, pairs: Mapping[ImageRef, Pair], scorer: Scorer) -> None:
        self.source = label_task.source
        self._label_task = label_task
        self._pairs = pairs
        self._scorer = scorer

    def score(self, scales: Sequence[Patches]) -> Scored:
        return self._label_task.score(scales)

    def finish(self, loaded: Loaded[Patches], scored: Scored) -> Labelled:
        """Label, score and write an image. Thread-safe. Raises ImageError if its truth cannot be used."""
        began = time.monotonic()
        with self._label_task.alone(loaded):
            label_map = self._label_task.label(loaded, scored)
            self._scorer.add(self._pairs[loaded.ref], label_map.labels)
            return self._label_task.write(loaded, label_map, began)
