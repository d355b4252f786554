"""Editors and type checkers know the signature of every function: mypy checks programs that call them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

RIGHT = """
from pathlib import Path

import tipsseg
from tipsseg import learn, review

run = tipsseg.label_folder("photos", ["car"], model="tiny", scales="1,2", formats=["png"], shard="1/2", min_area="1%")
names: list[str] = [image.name for image in run]
for image in tipsseg.iter_label_folder(["a.jpg", Path("b.jpg")], {"car": ["auto"]}, vocab=None, background="none"):
    shares: dict[str, float] = dict(image.classes)
tipsseg.label_folder("photos", from_run="labels", output=Path("again"))
tipsseg.encode_folder("photos", "feats", feature_dtype="int8", every="1s", stretch=(2, 98)).count("failed")
tipsseg.write_dataset("labels", "set", shard_size="1GB").failed
failed: int = review.convert_folder("labels", ["yolo"], only=["a.jpg"], val_fraction=0.2)
review.convert_folder("labels", drop=["yolo"])
corrected: int = review.correct_folder("labels", "export.json", accept=True, dry_run=True).failed
review.correct_folder("labels", undo=["a.jpg"])
review.correct_folder("labels", remove=["a.jpg"])
iou: float = review.score_masks("labels", "masks", layout="voc21", jobs=2).scores.mean_iou
review.audit("labels", "coco.json", ["car"], limit=5).findings
problems = [problem.what for problem in review.check_folder("labels", images="photos")]
number: int = review.merge_folders(["a", "b"], "c")
best = review.rank("labels", limit=3)[0].path
page: int = review.report_folder("labels", truths="masks", zero_based=True)
table: str = learn.fit_folder("labels", "a.fit", device=0, overwrite=True).table()
model = tipsseg.load("tiny")
labels = model.label("a.jpg", ["car"], mode="whole", scales=[1, 2], stretch="2,98").labels
tipsseg.Labeller(model, ["car"], tipsseg.LabelOptions(refine="pamr"), min_confidence=0.5)
"""

#: Calls with the kind of the mistake that mypy finds.
WRONG = {
    'tipsseg.label_folder("photos", ["car"], min_confidense=0.5)': "call-arg",
    'tipsseg.label_folder("photos", ["car"], min_confidence="high")': "arg-type",
    'tipsseg.label_folder("photos", ["car"], mode="tile")': "arg-type",
    'tipsseg.iter_label_folder(ask=None, images="photos")': "call-arg",
    'tipsseg.encode_folder("photos")': "call-arg",
    'tipsseg.review.score_masks("labels", "masks", jobs="two")': "arg-type",
    'tipsseg.review.correct_folder("labels", "a.json", accept=1)': "arg-type",
    'tipsseg.label("a.jpg", ["car"], refine="sharp")': "arg-type",
}


@pytest.mark.slow
def test_a_program_that_calls_every_function_is_checked(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text("import tipsseg\n" + "\n".join(WRONG) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "right.py", "wrong.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = dict(re.findall(r"^wrong\.py:(\d+): error: .*\[([\w-]+)\]$", ran.stdout, re.MULTILINE))
    assert [found.get(str(line)) for line in range(2, len(WRONG) + 2)] == [*WRONG.values()], ran.stdout
    assert "right.py" not in ran.stdout, ran.stdout
