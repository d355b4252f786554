from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tipsseg.backbones.tipsv2 import checkpoint
from tipsseg.errors import CheckpointError
from tipsseg.weights.lock import TIPSV2_FILES

CPU = torch.device("cpu")
Tensors = dict[str, Tensor]


@pytest.fixture
def copy(mlp_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mlp_checkpoint, tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


LAST = "vision_encoder.norm.weight"


@pytest.mark.parametrize(
    ("change", "tensor", "message"),
    [
        (lambda t: t.pop(LAST), LAST, "is missing"),
        (lambda t: t.update({"head.weight": torch.zeros(2)}), "head.weight", "is not part of the model"),
        (lambda t: t.update({LAST: torch.zeros(65)}), LAST, "has shape [65], but config.json requires [64]"),
        (lambda t: t.update({LAST: t[LAST].to(torch.int64)}), LAST, "is I64, not floating point"),
    ],
    ids=["missing", "unexpected", "shape", "integer"],
)
def test_a_wrong_tensor_is_named(copy: Path, change: Callable[[Tensors], object], tensor: str, message: str) -> None:
    rewrite(copy, change)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_tipsv2(copy, CPU, torch.float32)
    assert caught.value.tensor == tensor
    assert tensor in caught.value.message
    assert message in caught.value.message
    assert str(copy / "model.safetensors") in caught.value.message


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_files_of_other_precision_load(copy: Path, stored: torch.dtype) -> None:
    full, _ = checkpoint.load_tipsv2(copy, CPU, torch.float32)
    # Beside the file and then over it: the tensors of `full` may still lie in the old one, mapped.
    save_file({name: tensor.to(stored) for name, tensor in full.state_dict().items()}, copy / "new")
    (copy / "new").replace(copy / "model.safetensors")
    model, _ = checkpoint.load_tipsv2(copy, CPU, torch.float32)
    for (name, tensor), expected in zip(model.state_dict().items(), full.state_dict().values(), strict=True):
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected.to(stored).float()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_of_the_dtype_asked_for_and_frozen(mlp_checkpoint: Path, dtype: torch.dtype) -> None:
    model, _ = checkpoint.load_tipsv2(mlp_checkpoint, CPU, dtype)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


@pytest.mark.parametrize("file", TIPSV2_FILES)
def test_an_absent_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_tipsv2(copy, CPU, torch.float32)
    assert str(copy / file) in caught.value.message
    assert "its entry in weights.lock, if any, lists all three" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"garbage, and not a little of it", "is not a complete safetensors file"),
        ("tokenizer.model", b"", "SentencePiece model"),
        ("tokenizer.model", b"garbage, and not a little of it", "is not a SentencePiece model"),
    ],
)
def test_a_broken_file_is_named(copy: Path, file: str, content: bytes, message: str) -> None:
    (copy / file).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_tipsv2(copy, CPU, torch.float32)
    assert str(copy / file) in caught.value.message
    assert message in caught.value.message


def test_a_tokenizer_larger_than_the_embedding_is_refused(copy: Path) -> None:
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"vocab_size": 1200', '"vocab_size": 300'))
    embedding = "text_encoder.token_embedding.weight"
    rewrite(copy, lambda t: t.update({embedding: t[embedding][:300].clone()}))
    with pytest.raises(CheckpointError, match=r"pieces, but config\.json states 300"):
        checkpoint.load_tipsv2(copy, CPU, torch.float32)
