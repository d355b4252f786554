"""`--dtype int8`: runs record it and compare nothing; doctor compares it with float32."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rasters import drawn
from running import Command

from tipsseg.backbones.tipsv2.checkpoint import Checkpoint
from tipsseg.backbones.tipsv2.vision import VisionTower

MODEL = ["-m", "tiny", "--device", "cpu"]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    (tmp_path / "imgs").mkdir()
    for number in range(4):
        Image.fromarray(drawn(224, 224 + 14 * number)).save(tmp_path / f"imgs/{number}.png")
    return tmp_path / "imgs"


def test_a_run_loads_one_model_and_records_its_dtype(
    command: Command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []
    read = Checkpoint.read_vision

    def reading(self: Checkpoint, *how: Any) -> VisionTower:
        loaded.append(how)
        return read(self, *how)

    monkeypatch.setattr(Checkpoint, "read_vision", reading)
    out = tmp_path / "out"
    ran = command("label", scenes, "-c", "tree,car", *MODEL, "--dtype", "int8", "--limit", 3, "-o", out)
    assert ("on cpu (int8)" in ran.err, "float32" in ran.err, len(loaded)) == (True, False, 1)
    assert json.loads((out / "run.json").read_text())["dtype"] == "int8"
    assert "1 image labelled, 3 unchanged" in command("label", scenes, "-c", "tree,car", *MODEL, "-o", out).err
    other = ["label", scenes, "-c", "tree,car", *MODEL, "--dtype", "float32", "-o", out]
    refused = command(*other)
    assert (refused.code, "dtype int8 -> float32" in refused.err) == (1, True)
    assert "4 images labelled" in command(*other, "--overwrite").err


def test_doctor_compares_a_model_with_float32(command: Command) -> None:
    ran = command("doctor", "--dtype", "int8", "-m", "tiny", "--device", "cpu")
    said = re.search(
        r"numbers of tiny: cpu in int8 against cpu in float32: .* wins in ([\d.]+)% of the patches", ran.out
    )
    assert ran.code == 0
    assert said is not None, ran.out
    assert 90 < float(said[1]) < 100
    ran = command("doctor", "-m", "nothing")
    assert (ran.code, ran.out) == (2, "")


def test_features_in_int8_do_not_label_a_folder_again_by_themselves(
    command: Command, scenes: Path, tmp_path: Path
) -> None:
    given, out, store = [scenes, "-c", "tree", *MODEL, "-f", "png"], tmp_path / "out", tmp_path / "store"
    assert command("label", *given, "-o", out).code == 0
    assert command("encode", scenes, *MODEL, "--dtype", "int8", "-o", store).code == 0
    refused = command("label", *given, "--features", store, "-o", out)
    assert refused.code == 1
    assert "it was labelled in float32, but the features" in refused.err
    other = ["label", *given, "--features", store, "--dtype", "int8", "-o", out]
    assert command(*other).code == 1
    assert "4 images labelled" in command(*other, "--overwrite").err
