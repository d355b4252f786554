"""Each script of the measurements runs, in a small form, and prints its numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent

SMALL = {
    "corrections": "",
    "encoder": "--rounds 1 --batch 1 --layers 1 --dtypes float32,int8",
    "labels": "--scenes 2 --device cpu",
    "memory": "--images 20",
    "quality": "--scenes 2 --tables refinements,regions,parts,names",
    "cards": "--models tiny --phrases 3 --images 3 --compared 1 --device cpu",
    "costs": "--models tiny --dtypes float32,int8 --rounds 1",
    "folders": "--images 24 --shards 2",
}

#: Other scripts are imported by these.
PARTS = {"models"}


def test_every_script_is_run() -> None:
    assert {path.stem for path in HERE.glob("*.py")} - {Path(__file__).stem} == SMALL.keys() | PARTS


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_script_in_a_small_form(name: str, tmp_path: Path) -> None:
    path = os.pathsep.join(map(str, (TESTS.parent / "examples/pretrain", TESTS / "support")))
    ran = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *SMALL[name].split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
