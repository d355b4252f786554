"""Review labels: rank images for a person, import corrections, audit labels, and score them against truth masks."""

from __future__ import annotations

from tipsseg.commands.audit import Audit, audit
from tipsseg.commands.correct.take import Corrections, correct_folder
from tipsseg.commands.evaluate import Evaluation, evaluate, score_masks
from tipsseg.commands.rank import Ranked, rank

__all__ = [
    "Audit",
    "Corrections",
    "Evaluation",
    "Ranked",
    "audit",
    "correct_folder",
    "evaluate",
    "rank",
    "score_masks",
]
