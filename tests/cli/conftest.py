from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from masks import PRED, TRUTH, save
from PIL import Image
from resuming import Run
from running import Command, Ran

from tipsseg.label_map import LabelMap
from tipsseg.labelling.labeller import Patches, Scored
from tipsseg.labelling.local import LocalEngine
from tipsseg.labelling.source import Loaded
from tipsseg.weights import fetching


@pytest.fixture
def process() -> Command:
    """Run `tipsseg` as a process of its own."""

    def run(*arguments: object, stdin: bytes | None = None, cwd: Path | None = None) -> Ran:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tipsseg", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            timeout=300,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def save_picture(path: Path, height: int, width: int) -> Path:
    """A picture of a few coloured patches, different for each size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([height, width])
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    coarse.resize((width, height), Image.Resampling.BILINEAR).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of different formats and sizes, in a folder with a sub-folder."""
    folder = tmp_path / "imgs"
    save_picture(folder / "a.png", 60, 90)
    save_picture(folder / "sub" / "b c.jpg", 120, 80)
    save_picture(folder / "sub" / "ü.bmp", 56, 56)
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def no_weights_in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is empty, and weights may not be fetched: models come from a local folder."""

    def never(spec: object, *, quiet: bool = False) -> Path:
        raise AssertionError("weights were fetched")

    monkeypatch.setattr(fetching, "fetch", never)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def masks(no_weights_in_folder: None) -> None:
    """Masks from elsewhere in pred, and their truth in gt."""
    save("pred/s/a.png", PRED)
    save("gt/s/a.png", TRUTH)


@pytest.fixture
def run(command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    labelled: list[str] = []
    plain = LocalEngine.label

    def watched(self: LocalEngine, loaded: Loaded[Patches], scored: Scored) -> LabelMap:
        labelled.append(loaded.ref.name)
        return plain(self, loaded, scored)

    monkeypatch.setattr(LocalEngine, "label", watched)
    return Run(command, mlp_checkpoint, labelled)
