"""The tests run the tipsseg of the tree, or a copy that is equal to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

PYTEST = ("-P", "-m", "pytest")  # as the program `pytest` does, which does not look for modules where it is run
PYTHON_M_PYTEST = ("-m", "pytest")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tipsseg as a wheel installs it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(REPOSITORY / "tipsseg", folder / "tipsseg", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "weights.lock", folder / "tipsseg")
    return folder


def collect(command: Sequence[str], site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command, "--collect-only", "-p", "no:cacheprovider", "tests/test_links.py"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )


def test_a_copy_that_is_equal_to_the_tree_is_tested(copy: Path) -> None:
    ran = collect(PYTEST, copy)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("command", "name", "change"),
    [
        pytest.param(PYTEST, "types.py", lambda path: path.write_text(""), id="changed"),
        pytest.param(PYTHON_M_PYTEST, "types.py", lambda path: path.write_text(""), id="changed, python -m pytest"),
        pytest.param(PYTEST, "weights.lock", Path.unlink, id="missing"),
        pytest.param(PYTEST, "util/gone.py", Path.touch, id="no longer in the tree"),
    ],
)
def test_a_copy_that_differs_from_the_tree_is_refused(
    copy: Path, tmp_path: Path, command: Sequence[str], name: str, change: Callable[[Path], object]
) -> None:
    site = shutil.copytree(copy, tmp_path / "site")
    change(site / "tipsseg" / name)
    ran = collect(command, site)
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"the tests would run {site / 'tipsseg'}, which differs from the tree in {name}. Run: pip" in ran.stderr
