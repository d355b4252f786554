"""The tests run the tipsseg of the tree, or a copy that is equal to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

PYTEST = ("-P", "-m", "pytest")  # as the program `pytest` does, which does not look for modules where it is run


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tipsseg as a wheel installs it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(REPOSITORY / "tipsseg", folder / "tipsseg", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "weights.lock", folder / "tipsseg")
    return folder


def collect(site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *PYTEST, "--collect-only", "-p", "no:cacheprovider", "tests/test_links.py"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )


def test_a_copy_that_is_equal_to_the_tree_is_tested(copy: Path) -> None:
    ran = collect(copy)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("types.py", lambda path: path.write_text(""), id="changed"),
        pytest.param("weights.lock", Path.unlink, id="missing"),
    ],
)
def test_a_copy_that_differs_from_the_tree_is_refused(
    copy: Path, tmp_path: Path, name: str, change: Callable[[Path], object]
) -> None:
    site = shutil.copytree(copy, tmp_path / "site")
    change(site / "tipsseg" / name)
    ran = collect(site)
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"the tests would run {site / 'tipsseg'}, which differs from the tree in {name}. Run: pip" in ran.stderr
