"""Models that several of these tests label with."""

from __future__ import annotations

from pathlib import Path

import pytest

import tipsseg
from tipsseg import Model


@pytest.fixture(scope="module")
def tiny() -> Model:
    """The embedded model."""
    return tipsseg.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def random(mlp_checkpoint: Path) -> Model:
    """A model with random weights."""
    return tipsseg.load(str(mlp_checkpoint), device="cpu")
