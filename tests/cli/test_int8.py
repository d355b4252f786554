"""`--dtype`: what auto chooses on a CPU; runs in int8 record it and compare nothing; doctor compares it with float32."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rasters import drawn
from running import Command

from tipsseg.backbones.tipsv2.checkpoint import Checkpoint
from tipsseg.backbones.tipsv2.vision import VisionTower

MODEL = ["-m", "tiny", "--device", "cpu"]

#: As wide as those that `--dtype auto` looks at the processor for.
_SIZE = {"hidden_size": 384, "num_hidden_layers": 1, "num_attention_heads": 6}
WIDE: dict[str, object] = {
    "model_type": "tipsv2",
    "temperature_init_value": 0.02,
    "vision_config": {**_SIZE, "image_size": 56, "mlp_ratio": 1},
    "text_config": {**_SIZE, "vocab_size": 1200, "intermediate_size": 384},
}


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
    ran = command("label", scenes, "-c", "tree,car", *MODEL, "--dtype", "int8", "--sample", 3, "-o", out)
    assert ("on cpu (int8)" in ran.err, "float32" in ran.err, len(loaded)) == (True, False, 1)
    assert json.loads((out / "run.json").read_text())["dtype"] == "int8"
    assert "1 image labelled, 3 unchanged" in command("label", scenes, "-c", "tree,car", *MODEL, "-o", out).err
    other = ["label", scenes, "-c", "tree,car", *MODEL, "--dtype", "float32", "-o", out]
    refused = command(*other)
    assert (refused.code, "dtype int8 -> float32" in refused.err) == (1, True)
    assert "4 images labelled" in command(*other, "--overwrite").err


@pytest.mark.parametrize(
    ("instructions", "chosen"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, "bfloat16, as this CPU has AMX"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16, as this CPU has AVX512_BF16"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32, as this CPU has neither"),
        ({"bf16": True}, "float32, as this CPU has neither"),  # of ARM
    ],
    ids=["AMX", "AVX512_BF16", "AVX512", "ARM"],
)
def test_auto_takes_bfloat16_where_a_cpu_multiplies_in_it(
    command: Command,
    make_checkpoint: Callable[[str, Mapping[str, object]], Path],
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instructions: dict[str, bool],
    chosen: str,
) -> None:
    wide = make_checkpoint("wide", WIDE)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)

    def label(model: object, out: str, *more: object) -> str:
        ran = command("label", scenes, "-c", "tree", "-m", model, "--device", "cpu", "-o", tmp_path / out, *more)
        assert ran.code == 0, ran.err
        return ran.err

    assert f"on cpu ({chosen}" in label(wide, "out")
    assert "on cpu (float32)" in label("tiny", "narrow")
    # A folder goes on in its own dtype.
    for dtype in ("float32", "bfloat16"):
        label(wide, dtype, "--dtype", dtype, "--sample", 1)
        assert f"on cpu ({dtype})" in label(wide, dtype)


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
