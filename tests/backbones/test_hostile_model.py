"""Model folders that somebody made to do harm: an error that names the file, in little time and memory.

All of them are loaded by one process, whose time and memory are limited: what has no end there ends the test.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.model"

# Loads each folder in a folder and prints, as JSON, what came of it; what is no CheckpointError ends it.
CHILD = """
import json, sys
from pathlib import Path
import torch
from tipsseg.errors import CheckpointError
from tipsseg.backbones.tipsv2 import checkpoint

outcomes = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        checkpoint.load_tipsv2(folder, torch.device("cpu"), torch.float32)
        outcomes[folder.name] = None
    except CheckpointError as error:
        outcomes[folder.name] = error.message.removeprefix(f"{folder}/")
print(json.dumps(outcomes))
"""

#: Bytes; torch itself maps a part of them.
ADDRESS_SPACE = 6 << 30


def load_all(folder: Path) -> dict[str, str | None]:
    """What came of each folder in a folder: the message, without the folder's path; None where it was loaded."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(folder)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    outcomes: dict[str, str | None] = json.loads(ran.stdout)
    return outcomes


def variant(checkpoint: Path, folder: Path, changed: str) -> Path:
    """A folder with links to the files of a model, but for one; gives the path for that one."""
    folder.mkdir(parents=True)
    for name in {CONFIG, WEIGHTS, TOKENIZER} - {changed}:
        (folder / name).symlink_to(checkpoint / name)
    return folder / changed


def with_number(config: Mapping[str, Any], key: str, value: str) -> str:
    """The JSON of a configuration with one value, given as JSON, in place of another."""
    changed = json.loads(json.dumps(config))
    *sections, last = key.split(".")
    inside = changed
    for section in sections:
        inside = inside.setdefault(section, {})
    inside[last] = "@"
    return json.dumps(changed).replace('"@"', value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_config.num_hidden_layers": 255}, "with 255 layers in the vision tower, but model.safetensors has 3"),
        ({"text_config.num_hidden_layers": 255}, "with 255 layers in the text tower, but model.safetensors has 2"),
        ({"vision_config.mlp_ratio": 64}, "with 4,096 channels in the MLP of the vision tower, but"),
        ({"vision_config.image_size": 112}, "with 65 positions in the vision tower, but model.safetensors has 17"),
        ({"vision_config.image_size": 4, "vision_config.patch_size": 1}, "with 1 pixels along a patch, but"),
        ({"vision_config.num_register_tokens": 4}, "with 4 register tokens, but model.safetensors has 1"),
        ({"text_config.vocab_size": 999_999}, "with 999,999 pieces of text, but model.safetensors has 1,200"),
        ({"text_config.intermediate_size": 131_072}, "channels in the MLP of the text tower, but"),
        (
            {"vision_config.hidden_size": 16_384, "text_config.hidden_size": 16_384},
            "with 16,384 channels in the vision tower, but model.safetensors has 64",
        ),
    ],
)
def test_numbers_that_are_not_those_of_the_tensors(
    mlp_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], message: str
) -> None:
    import torch

    from tipsseg.backbones.tipsv2 import checkpoint
    from tipsseg.errors import CheckpointError

    def build(*_: object) -> None:
        raise AssertionError("a model was built before the numbers were compared")

    monkeypatch.setattr(checkpoint, "Tipsv2", build)
    config = json.loads((mlp_checkpoint / CONFIG).read_text())
    for key, value in changes.items():
        config = json.loads(with_number(config, key, str(value)))
    variant(mlp_checkpoint, tmp_path / "model", CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_tipsv2(tmp_path / "model", torch.device("cpu"), torch.float32)
    assert caught.value.path == tmp_path / "model" / CONFIG
    assert message in caught.value.message


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], dtype: str = "F32", begin: int = 0, end: int = 0) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def blocks(number: int, shape: list[int]) -> dict[str, object]:
    return {f"vision_encoder.blocks.{index}.norm1.weight": tensor(shape) for index in range(number)}


HEADERS: dict[str, tuple[bytes, str]] = {
    "a length without end": (safetensors({}, length=(1 << 64) - 1), "is not a complete safetensors file"),
    "much of a header, of nothing": (
        safetensors(b"{" + b" " * (16 << 20) + b"}"),
        "is not a complete safetensors file (it declares a header of 16,777,218 bytes)",
    ),
    "nested": (safetensors(b"[" * 100_000), "is not a complete safetensors file"),
    "a shape without end": (safetensors({"a": tensor([1 << 62, 4])}), "is not a complete safetensors file"),
    "more than is there": (safetensors({"a": tensor([1 << 40], end=1 << 42)}), "is not a complete safetensors file"),
    "eight bits": (
        safetensors({"a": tensor([4], "F8_E4M3", end=4)}, bytes(4)),
        "tensor a is F8_E4M3, not floating point",
    ),
    "no tensors": (safetensors({}), "is missing (and "),
    "many tensors of nothing": (safetensors(blocks(20_000, [0])), "has 20,000 tensors, more than any TIPSv2 model has"),
    "a long name": (safetensors({"a" * 100_000: tensor([0])}), "has a tensor whose name has 100,000 characters"),
}


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, TOKENIZER])
def test_what_is_no_regular_file_is_not_opened(mlp_checkpoint: Path, tmp_path: Path, file: str) -> None:
    os.mkfifo(variant(mlp_checkpoint, tmp_path / "pipe", file))
    variant(mlp_checkpoint, tmp_path / "folder", file).mkdir()
    reasons = {"folder": "Is a directory", "pipe": "not a regular file"}
    assert load_all(tmp_path) == {name: f"{file}: cannot be read: {reason}" for name, reason in reasons.items()}


def test_headers_of_weights(mlp_checkpoint: Path, tmp_path: Path) -> None:
    for name, (content, _) in HEADERS.items():
        variant(mlp_checkpoint, tmp_path / name, WEIGHTS).write_bytes(content)
    outcomes = load_all(tmp_path)
    assert set(outcomes) == set(HEADERS)
    for name, (_, expected) in HEADERS.items():
        message = outcomes[name]
        assert message is not None, name
        assert message.startswith(f"{WEIGHTS}: "), name
        assert expected in message, name
        assert len(message) < 500, name


def test_as_many_layers_as_the_file_has_and_all_of_nothing(mlp_checkpoint: Path, tmp_path: Path) -> None:
    """A file that agrees with its configuration, in all that is compared: bounded all the same."""
    config = json.loads((mlp_checkpoint / CONFIG).read_text())
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(mlp_checkpoint / TOKENIZER, folder)
    (folder / CONFIG).write_text(with_number(config, "vision_config.num_hidden_layers", "256"))
    (folder / WEIGHTS).write_bytes(safetensors(blocks(256, [0])))
    message = load_all(tmp_path)["model"]
    assert message is not None
    assert "is missing" in message


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


TOKENIZERS: dict[str, Callable[[bytes], bytes]] = {
    "half of it": truncate,
    "a field without end": lambda data: data + b"\x0a\xff\xff\xff\xff\x0f",
    "a varint without end": lambda data: b"\xff" * 1000,
    "nothing but zeros": lambda data: bytes(1000),
    "groups in groups": lambda data: b"\x0b" * 100_000,
}


def test_tokenizers(mlp_checkpoint: Path, tmp_path: Path) -> None:
    content = (mlp_checkpoint / TOKENIZER).read_bytes()
    for name, change in TOKENIZERS.items():
        variant(mlp_checkpoint, tmp_path / name, TOKENIZER).write_bytes(change(content))
    with variant(mlp_checkpoint, tmp_path / "larger than any", TOKENIZER).open("wb") as file:
        file.truncate((64 << 20) + 1)
    outcomes = load_all(tmp_path)
    assert outcomes.pop("larger than any") == f"{TOKENIZER}: cannot be read: larger than 67,108,864 bytes"
    for name, message in outcomes.items():
        assert message == f"{TOKENIZER}: is not a SentencePiece model", name
