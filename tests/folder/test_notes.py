"""The images that the embedded model knows; notes are tested from the command line, in cli/test_label.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tipsseg.folder.notes import example_hashes

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"


def test_the_examples_are_those_of_the_repository() -> None:
    files = [path for path in SCENES.rglob("*") if path.is_file()]
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == example_hashes()
