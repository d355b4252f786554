"""Model folders that somebody made to do harm: an error that names the file, in little time and memory.

All of them are loaded by one process, whose time and memory are limited: what has no end there ends the test.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.model"

# Loads each folder in a folder and prints, as JSON, what came of it; what is no CheckpointError ends it.
CHILD = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, 2 * (int(sys.argv[2]),))
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

    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(folder), str(ADDRESS_SPACE)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
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


#: Numbers within their limits that are not those of the tensors, with the beginning of the message.
CONFIGS: dict[str, tuple[dict[str, int], str]] = {
    "layers": ({"vision_config.num_hidden_layers": 256}, "vision_encoder.blocks.3.norm1.weight is missing"),
    "channels": (
        {"vision_config.hidden_size": 131_072, "text_config.hidden_size": 131_072},
        "vision_encoder.patch_embed.proj.weight has shape [64, 3, 14, 14], but config.json requires [131072, 3, 14, 14]",
    ),
    "a large window": (
        {"vision_config.image_size": 131_068},
        "vision_encoder.pos_embed has shape [1, 17, 64], but config.json requires [1, 87647045, 64]",
    ),
}


def test_numbers_that_are_not_those_of_the_tensors(mlp_checkpoint: Path, tmp_path: Path) -> None:
    for name, (changes, _) in CONFIGS.items():
        config = json.loads((mlp_checkpoint / CONFIG).read_text())
        for key, value in changes.items():
            section, _, field = key.partition(".")
            config.setdefault(section, {})[field] = value
        variant(mlp_checkpoint, tmp_path / name, CONFIG).write_text(json.dumps(config))
    outcomes = load_all(tmp_path)
    assert outcomes.keys() == CONFIGS.keys()
    for name, (_, expected) in CONFIGS.items():
        assert str(outcomes[name]).startswith(f"{WEIGHTS}: tensor {expected}"), (name, outcomes[name])


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], end: int = 0) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


HEADERS: dict[str, tuple[bytes, str]] = {
    "a length without end": (safetensors({}, length=(1 << 64) - 1), "is not a complete safetensors file"),
    "a shape without end": (safetensors({"a": tensor([1 << 62, 4])}), "is not a complete safetensors file"),
    "many tensors of nothing": (safetensors({str(index): tensor([0]) for index in range(20_000)}), "is missing"),
}


def test_hostile_headers_of_weights_are_refused(mlp_checkpoint: Path, tmp_path: Path) -> None:
    for name, (content, _) in HEADERS.items():
        variant(mlp_checkpoint, tmp_path / name, WEIGHTS).write_bytes(content)
    outcomes = load_all(tmp_path)
    assert outcomes.keys() == HEADERS.keys()
    for name, (_, expected) in HEADERS.items():
        message = str(outcomes[name])
        assert message.startswith(f"{WEIGHTS}: "), name
        assert expected in message, name
        assert len(message) < 500, name


TOKENIZERS: dict[str, Callable[[bytes], bytes]] = {
    "a field without end": lambda data: data + b"\x0a\xff\xff\xff\xff\x0f",
    "groups in groups": lambda data: b"\x0b" * 100_000,
}


def test_hostile_tokenizers_are_refused(mlp_checkpoint: Path, tmp_path: Path) -> None:
    content = (mlp_checkpoint / TOKENIZER).read_bytes()
    for name, change in TOKENIZERS.items():
        variant(mlp_checkpoint, tmp_path / name, TOKENIZER).write_bytes(change(content))
    with variant(mlp_checkpoint, tmp_path / "larger than any", TOKENIZER).open("wb") as file:
        file.truncate((64 << 20) + 1)
    outcomes = load_all(tmp_path)
    assert outcomes.pop("larger than any") == f"{TOKENIZER}: cannot be read: larger than 67,108,864 bytes"
    for name, message in outcomes.items():
        assert message == f"{TOKENIZER}: is not a SentencePiece model", name


@pytest.mark.parametrize("file", [CONFIG, TOKENIZER])
def test_a_pipe_is_not_opened(mlp_checkpoint: Path, tmp_path: Path, file: str) -> None:
    os.mkfifo(variant(mlp_checkpoint, tmp_path / "pipe", file))
    assert load_all(tmp_path) == {"pipe": f"{file}: cannot be read: not a regular file"}
