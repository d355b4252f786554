"""Review labels, and work with output folders: rank, correct, check, convert, merge, report, audit and score labels."""

from __future__ import annotations

from tipsseg.commands.audit import Audit
from tipsseg.commands.correct.take import Corrections
from tipsseg.commands.evaluate import Evaluation
from tipsseg.commands.rank import Ranked
from tipsseg.verbs.audit import audit
from tipsseg.verbs.check import check_folder
from tipsseg.verbs.convert import convert_folder, drop_formats
from tipsseg.verbs.correct import correct_folder, remove_images, undo_corrections
from tipsseg.verbs.eval import score_masks
from tipsseg.verbs.merge import merge_folders
from tipsseg.verbs.rank import rank
from tipsseg.verbs.report import report_folder

__all__ = [
    "Audit",
    "Corrections",
    "Evaluation",
    "Ranked",
    "audit",
    "check_folder",
    "convert_folder",
    "correct_folder",
    "drop_formats",
    "merge_folders",
    "rank",
    "remove_images",
    "report_folder",
    "score_masks",
    "undo_corrections",
]
