"""The packages are what their pages say; who may import whom, `lint-imports` tells."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import tipsseg

REPOSITORY = Path(__file__).resolve().parents[1]
TOP = Path(tipsseg.__file__).parent
TINYTIPS = REPOSITORY / "examples" / "pretrain" / "tinytips"

PACKAGES = [folder.parent for top in (TOP, TINYTIPS) for folder in sorted(top.rglob("__init__.py"))]


def test_the_top_has_few_files() -> None:
    files = sorted(path.name for path in TOP.glob("*.py"))
    assert len(files) <= 11, files


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for top in (TOP, TINYTIPS) for path in top.rglob("*.py")}
    assert folders == set(PACKAGES)


def test_the_tests_mirror_the_packages() -> None:
    """A folder of tests has the name of a package, or is one of the others below."""
    packages = {package.name for package in PACKAGES if package.parent == TOP} - {"verbs"}  # tested by command
    others = {"benchmarks", "gpu", "parity", "pretrain", "readers", "real", "recorded", "support"}
    folders = {path.parent.name for path in (REPOSITORY / "tests").glob("*/*.py")}
    assert folders <= packages | others
    assert packages <= folders


def test_the_page_of_the_architecture_names_what_is_there() -> None:
    page = (TOP / "README.md").read_text("utf-8")
    layers = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    rooms = {room for line in layers["layers"] for room in line.split(" | ")}
    table = page.partition("## Packages")[2].partition("## ")[0]
    assert set(re.findall(r"`([a-z_]+)`", table)) >= rooms - {"_version"}
    folder = TOP
    for place in re.findall(r"`((?:[a-z_0-9]+/)*(?:[a-z_0-9]+\.py|[a-z_0-9]+/))`", page):
        found = TOP / place if (TOP / place).exists() else folder / place
        assert found.exists(), place
        folder = found.parent
