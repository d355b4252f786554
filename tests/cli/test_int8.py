"""`--dtype int8`: the agreement with float32 that each run prints, and the records that know the dtype."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasters import drawn, write_raster
from running import Command

import tipsseg
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.runs.engine import agreement

SCENES = Path(__file__).parents[2] / "examples"
MODEL = ["-m", "tiny", "--device", "cpu"]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Five images; the first cannot be read."""
    (tmp_path / "imgs").mkdir()
    for number in range(4):
        Image.fromarray(drawn(224, 224 + 14 * number)).save(tmp_path / f"imgs/{number}.png")
    (tmp_path / "imgs/-.png").write_text("nothing")
    return tmp_path / "imgs"


def test_a_run_prints_its_agreement_and_records_its_dtype(
    command: Command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "_MANY", 4)
    out = tmp_path / "out"
    ran = command("label", scenes, "-c", "tree,car", *MODEL, "--dtype", "int8", "--limit", 4, "-o", out)
    said = re.search(
        r"^int8 gives the same label as float32 to ([\d.]+)% of the pixels of the first 3 images\.$", ran.err, re.M
    )
    assert said is not None, ran.err
    exact = tipsseg.load("tiny", device="cpu", dtype="float32").labeller(["tree", "car"])
    same = [
        np.asarray(Image.open(out / f"masks/{number}.png")) == exact.label(scenes / f"{number}.png").labels
        for number in (0, 1, 2)
    ]
    assert float(said[1]) == pytest.approx(100 * np.concatenate(same, None).mean(), abs=0.006)
    assert json.loads((out / "run.json").read_text())["dtype"] == "int8"
    with monkeypatch.context() as patch:  # nobody would read it
        patch.setattr("tipsseg.runs.engine.agreement.encode_prepared", None)
        assert (
            command("label", scenes / "0.png", "-c", "tree", *MODEL, "--dtype", "int8", "-q", "-o", tmp_path / "q").code
            == 0
        )
    (scenes / "-.png").unlink()
    again = command("label", scenes, "-c", "tree,car", *MODEL, "-o", out)
    assert "(int8)" in again.err
    assert "1 image labelled" in again.err  # the one that --limit left out, and so the one that is compared
    assert "of the pixels of the first image." in again.err
    merged = command("label", scenes, "-c", "tree,car", *MODEL, "--dtype", "float32", "-o", out)
    assert "4 images labelled" in merged.err


def test_stored_features_are_not_compared(
    command: Command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scenes / "-.png").unlink()
    monkeypatch.setattr(agreement, "_MANY", 4)
    store = tmp_path / "store"
    ran = command("encode", scenes, *MODEL, "--dtype", "int8", "-o", store)
    said = re.search(
        r"features of the first 3 images in int8 and in float32 have a mean cosine of (0\.\d{4})\.$", ran.err, re.M
    )
    assert said is not None, ran.err
    assert 0.99 < float(said[1]) < 1

    def refuse(*_: object) -> None:
        raise AssertionError("nothing need be encoded")

    monkeypatch.setattr(Tipsv2Backbone, "encode_windows", refuse)
    ran = command("label", scenes, "-c", "tree", *MODEL, "--features", store, "-o", tmp_path / "out")
    assert (ran.code, "(int8)" in ran.err, "float32" in ran.err) == (0, True, False), ran.err
    ran = command(
        "label", scenes, "-c", "tree", *MODEL, "--features", store, "--dtype", "float32", "-o", tmp_path / "x"
    )
    assert (ran.code, "Choose another feature folder, or dtype int8." in ran.err) == (1, True), ran.err


def test_features_in_int8_do_not_label_a_folder_again_by_themselves(
    command: Command, scenes: Path, tmp_path: Path
) -> None:
    (scenes / "-.png").unlink()
    given, out, store = [scenes, "-c", "tree", *MODEL, "-f", "png"], tmp_path / "out", tmp_path / "store"
    assert command("label", *given, "-o", out).code == 0
    assert command("encode", scenes, *MODEL, "--dtype", "int8", "-o", store).code == 0
    refused = command("label", *given, "--features", store, "-o", out)
    assert refused.code == 1
    assert "it was labelled in float32, but the features" in refused.err
    again = command("label", *given, "--features", store, "--dtype", "int8", "-o", out)
    assert "4 images labelled" in again.err, again.err


def test_a_few_other_pixels_are_not_rounded_away(
    monkeypatch: pytest.MonkeyPatch, scenes: Path, command: Command
) -> None:
    def all_but_one(*_: object) -> np.ndarray:
        equal = np.ones(100_000, bool)
        equal[0] = False
        return equal

    monkeypatch.setattr(agreement, "_equal_labels", all_but_one)
    ran = command("label", scenes / "0.png", "-c", "tree", *MODEL, "--dtype", "int8", "-o", scenes.parent / "out")
    assert "to more than 99.99% of the pixels of the first image." in ran.err


def test_rasters_masks_and_scores(command: Command, tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", drawn(600, 700))
    ran = command(
        "label", tmp_path / "scene.tif", "-c", "tree", *MODEL, "--dtype", "int8", "-f", "geotiff", "-o", tmp_path / "r"
    )
    assert "of the pixels in the middle of the first raster." in ran.err, ran.err
    shutil.copytree(SCENES / "scenes/street", tmp_path / "imgs")
    shutil.copytree(SCENES / "truth/street", tmp_path / "gt")
    given = [tmp_path / "imgs", "--gt", tmp_path / "gt", "--vocab", SCENES / "leaves.txt", *MODEL, "--dtype", "int8"]
    assert "int8 gives the same label" in command("eval", *given).err
    ran = command("fit", *given, "-o", tmp_path / "a.fit")
    assert "in int8 and in float32" in ran.err, ran.err
    out = tmp_path / "out"
    given = [tmp_path / "imgs", "--vocab", SCENES / "leaves.txt", *MODEL, "--dtype", "int8", "-f", "png", "-o", out]
    assert command("label", *given).code == 0
    shutil.copytree(tmp_path / "gt", out / "masks", dirs_exist_ok=True)
    ran = command("tune", out, "--temperature", "-o", tmp_path / "b.fit")
    assert "in int8 and in float32" in ran.err, ran.err
