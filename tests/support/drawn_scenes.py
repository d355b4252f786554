"""The scenes that all tests of training share; `share_images` of tests/pretrain/conftest.py draws them once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

#: How many are trained on.
SCENES = 3

#: (the folder that a run's folder is in) -> it has the images of all runs.
ShareImages = Callable[[Path], None]
