"""Scenes that are drawn once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_scenes import SCENES, ShareImages

from tinytips.check import Check
from tinytips.data.store import drawn, stored_short
from tinytips.pretrain import FIRST_SEED
from tinytips.recipe.network import SIZES


@pytest.fixture(scope="session")
def shared_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn images: SCENES to train on, and those of the check."""
    folder = tmp_path_factory.mktemp("images")
    side = SIZES["small"].side
    drawn(folder, SCENES, FIRST_SEED, stored_short(side))
    Check(folder, side)
    return folder


@pytest.fixture
def share_images(shared_images: Path) -> ShareImages:
    """Let the runs in a folder have these images."""

    def share(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "images").symlink_to(shared_images)

    return share
