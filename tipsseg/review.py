"""Review labels, and work with output folders: rank, correct, check, convert, merge, report, audit and score labels."""

from __future__ import annotations

from tipsseg.folder.correct.take import Corrections
from tipsseg.folder.rank import Ranked
from tipsseg.learning.evaluate import Evaluation
from tipsseg.plugins.audit.findings import Audit
from tipsseg.plugins.audit.verb import audit
from tipsseg.plugins.page.verb import report_folder
from tipsseg.verbs.check import check_folder
from tipsseg.verbs.convert import convert_folder
from tipsseg.verbs.correct import correct_folder
from tipsseg.verbs.eval import score_masks
from tipsseg.verbs.merge import merge_folders
from tipsseg.verbs.rank import rank

__all__ = [
    "Audit",
    "Corrections",
    "Evaluation",
    "Ranked",
    "audit",
    "check_folder",
    "convert_folder",
    "correct_folder",
    "merge_folders",
    "rank",
    "report_folder",
    "score_masks",
]
