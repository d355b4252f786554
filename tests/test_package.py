"""The wheel and the sdist: their files, their description, and the same bytes each time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SUFFIXES = {
    ".py",
    ".md",
    ".typed",
    ".lock",
    ".toml",
    ".json",
    ".html",
    ".css",
    ".js",
    ".sha256",
    ".model",
    ".safetensors",
}


def build(folder: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist, as `python -m build` does."""
    command = [sys.executable, "-W", "default", "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def metadata(built: tuple[Path, Path]) -> Message:
    with zipfile.ZipFile(built[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
        return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_has_the_package_alone(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "tipsseg").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == {*expected, "tipsseg/weights.lock"}
    assert {Path(name).suffix for name in names} == SUFFIXES
    assert "tipsseg/assets/tiny/model.safetensors" in names


def test_the_files_are_small(built: tuple[Path, Path]) -> None:
    wheel, sdist = (path.stat().st_size for path in built)
    assert wheel < 9_000_000
    assert sdist < 14_000_000


def test_the_sdist_has_what_the_tests_need(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as sdist:
        tops = {name.split("/")[1] for name in sdist.getnames()}
    assert tops == {
        "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", ".gitignore", "examples", "pyproject.toml", "tests", "tipsseg",
        "weights.lock",
    }  # fmt: skip


def test_the_same_files_give_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    os.utime(REPOSITORY / "tipsseg" / "__init__.py")
    assert [path.read_bytes() for path in build(tmp_path)] == [path.read_bytes() for path in built]


def test_the_description_works_outside_of_the_repository(metadata: Message) -> None:
    description = str(metadata.get_payload())
    targets = re.findall(r"\]\(([^)]+)\)", description)
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith("https://")] == []
    for target in targets:
        _, is_ours, place = target.partition(".invalid/")
        if is_ours:
            kind, branch, path = place.split("/", 2)
            assert (kind, branch) == ("raw" if path.endswith(".jpg") else "blob", "main")
            assert (REPOSITORY / path).exists()


def test_the_metadata(metadata: Message) -> None:
    import tipsseg

    assert metadata["Version"] == tipsseg.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL") or ())
    assert {"Repository", "Documentation", "Changelog", "Issues", "Paper"} == {*urls}
    assert f"## {tipsseg.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()
