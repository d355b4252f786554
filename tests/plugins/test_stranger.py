"""A package of somebody else brings a format, a container, a model and a command, by entry points alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image
from tipsseg_stranger.colours import save_model

PACKAGE = Path(__file__).parent / "stranger"

Run = subprocess.CompletedProcess[str]


class Installed:
    """An environment that has tipsseg and the package."""

    def __init__(self, folder: Path) -> None:
        self.python, self.folder = folder / "bin" / "python", folder
        venv.create(folder, with_pip=True)
        (site,) = folder.glob("lib/*/site-packages")
        (site / "whatever-is-here.pth").write_text("\n".join([*sys.path, sysconfig.get_path("purelib")]))
        source = shutil.copytree(PACKAGE, folder / "source")
        self(
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
            str(source),
            cwd=folder,
        )

    def __call__(self, *words: str, cwd: Path, code: int = 0, asked: Mapping[str, str] = MappingProxyType({})) -> Run:
        known = {"PATH": os.environ["PATH"], "HOME": str(cwd), **asked}
        ran = subprocess.run([self.python, *words], cwd=cwd, env=known, capture_output=True, text=True)
        assert ran.returncode == code, ran.stderr
        return ran

    def tipsseg(self, *words: str, cwd: Path, code: int = 0, asked: Mapping[str, str] = MappingProxyType({})) -> Run:
        main = "import sys, tipsseg.__main__ as start; sys.argv[0] = 'tipsseg'; sys.exit(start.main())"
        return self("-c", main, *words, cwd=cwd, code=code, asked=asked)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def folder(installed: Installed, tmp_path: Path) -> Path:
    """A folder with pictures in a bag, a model, and the labels of the pictures."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48, 0], pixels[:, 48:, 2] = 220, 220
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    (tmp_path / "flags.bag").write_text(json.dumps({"one.png": base64.b64encode(file.getvalue()).decode()}))
    save_model(tmp_path / "model")
    words = [
        "flags.bag",
        "-m",
        "model",
        "-c",
        "red,blue",
        "--background",
        "none",
        "--device",
        "cpu",
        "-f",
        "png,counts",
    ]
    assert "out/counts/flags/one.counts\n" in installed.tipsseg("label", *words, "-o", "out", cwd=tmp_path).stdout
    return tmp_path


def test_what_a_package_brings_labels_images_and_is_checked(installed: Installed, folder: Path) -> None:
    labels = np.array(Image.open(folder / "out/masks/flags/one.png"))
    assert (labels[:, :40] == 1).all()
    assert (labels[:, 56:] == 2).all()
    rows = (folder / "out/counts/flags/one.counts").read_text().splitlines()
    assert [list(map(int, row.split())) for row in rows] == labels.tolist()
    assert "nothing wrong" in installed.tipsseg("check", "out", cwd=folder).stderr
    installed.tipsseg("convert", "out", "--drop", "counts", cwd=folder)
    assert not (folder / "out/counts").exists()
    installed.tipsseg("convert", "out", "-f", "counts", cwd=folder)
    assert (folder / "out/counts/flags/one.counts").read_text().splitlines() == rows
    assert installed.tipsseg("total", "out", "--unit", "flags", cwd=folder).stdout == "1 flags\n"


def test_names_of_tipsseg_stay_what_they_are(installed: Installed, folder: Path) -> None:
    """The package declares a format, a container and a command of these names too."""
    with zipfile.ZipFile(folder / "flags.zip", "w") as archive:
        archive.write(folder / "out/masks/flags/one.png", "two.png")
    words = ["-m", "model", "-c", "red", "--background", "none", "--device", "cpu", "-f", "png", "-o", "zipped"]
    installed.tipsseg("label", "flags.zip", *words, cwd=folder)
    assert np.array(Image.open(folder / "zipped/masks/flags/two.png")).shape == (64, 96)
    shown = installed.tipsseg("--help", cwd=folder).stdout
    assert shown.count("\n  label ") == 1


def test_its_files_bring_corrections_back(installed: Installed, folder: Path) -> None:
    file = folder / "out/counts/flags/one.counts"
    file.write_text(file.read_text().replace("1", "2"))
    assert "1 mask corrected" in installed.tipsseg("correct", "out", "--from", "out/counts", cwd=folder).stderr
    assert (np.array(Image.open(folder / "out/masks/flags/one.png")) == 2).all()


def test_its_format_has_an_option(installed: Installed, folder: Path) -> None:
    """The folder keeps the value, its files follow it, and a wrong option is named."""
    file = folder / "out/counts/flags/one.counts"
    installed.tipsseg("convert", "out", "-x", "counts.separator=comma", cwd=folder)
    assert file.read_text().startswith("1,1,1,")
    installed.tipsseg("convert", "out", "-f", "csv", cwd=folder)
    file.write_text(file.read_text().replace("1", "2"))
    installed.tipsseg("correct", "out", "--from", "out/counts", cwd=folder)
    assert file.read_text().startswith("2,2,2,")
    assert json.loads((folder / "out/run.json").read_text())["options"]["extra"] == ["counts.separator=comma"]
    installed.tipsseg("convert", "out", "-x", "counts.width=2", cwd=folder)
    assert file.read_text().startswith(" 2, 2, 2,")
    for value, said in {
        "counts.separator=tab": "--extra=counts.separator=tab: write one of space, comma",
        "counts.height=3": "the format counts has no option 'height'",
        "csv.width=3": "the format csv has no option 'width'",
        "counts": "--extra must be FORMAT.NAME=VALUE, not 'counts'",
        "cuonts.separator=comma": "Did you mean 'counts'?",
    }.items():
        assert said in installed.tipsseg("convert", "out", "-x", value, cwd=folder, code=2).stderr
    installed.tipsseg("convert", "out", "--drop", "counts", cwd=folder)
    installed.tipsseg("convert", "out", "-f", "counts", cwd=folder)
    assert file.read_text().startswith("2 2 2 ")


def test_help_and_completion_name_what_it_brings(installed: Installed, tmp_path: Path) -> None:
    shown = installed.tipsseg("--help", cwd=tmp_path).stdout
    assert "  total    Count the labelled images of a folder.\n" in shown
    assert shown.index("  doctor ") < shown.index("  total ")
    assert "counts" in installed.tipsseg("label", "--help", cwd=tmp_path).stdout
    assert "--unit WORD" in installed.tipsseg("total", "--help", cwd=tmp_path).stdout
    asked = {"_TIPSSEG_COMPLETE": "complete_bash", "COMP_WORDS": "tipsseg tot", "COMP_CWORD": "1"}
    assert "total" in installed.tipsseg(cwd=tmp_path, asked=asked).stdout
    asked |= {"COMP_WORDS": "tipsseg label -f cou", "COMP_CWORD": "3"}
    assert installed.tipsseg(cwd=tmp_path, asked=asked).stdout == "counts\n"


def test_a_broken_package_is_named_where_it_is_used(installed: Installed, folder: Path) -> None:
    (site,) = installed.folder.glob("lib/*/site-packages/tipsseg_stranger")
    file = site / "total.py"
    before = file.read_text()
    try:
        file.write_text("import nothing_of_this_name")
        shown = installed.tipsseg("--help", cwd=folder).stdout
        assert "\n  label " in shown
        assert "\n  total    Cannot be loaded: tipsseg_stranger.total:total\n" in shown
        ran = installed.tipsseg("total", "out", cwd=folder, code=1)
        assert "ModuleNotFoundError" in ran.stderr
        asked = {"_TIPSSEG_COMPLETE": "complete_bash", "COMP_WORDS": "tipsseg total --", "COMP_CWORD": "2"}
        assert installed.tipsseg(cwd=folder, asked=asked).stderr == ""
        assert "Hint: Update the package tipsseg_stranger, or uninstall it." in ran.stderr
        installed.tipsseg("check", "out", cwd=folder)
    finally:
        file.write_text(before)
