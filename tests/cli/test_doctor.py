"""`tipsseg doctor` on sound and broken installations. Nothing here has network."""

from __future__ import annotations

import hashlib
import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from running import Command

from tipsseg.backbones.tipsv2.checkpoint import Checkpoint
from tipsseg.backbones.tipsv2.text import TextTower
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights import lock
from tipsseg.weights.lock import TIPSV2_FILES, write_lock

REVISION = "0123456789" * 4

CPU = ("doctor", "--device", "cpu", "--dtype", "float32")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache, and no stamps."""
    monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path / "stamps"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def failures(out: str) -> list[str]:
    return [line.removeprefix("FAIL  ") for line in out.splitlines() if line.startswith("FAIL")]


def test_a_sound_installation(process: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    ran = process("doctor", "--device", "cpu", "--dtype", "bfloat16", cwd=tmp_path)  # not the package of the checkout
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[-1] == "All checks passed."
    assert {line[:6] for line in lines[:-1]} == {"ok    ", "note  ", "      "}
    for line in (
        f"ok    torch: {metadata.version('torch').partition('+')[0]}",
        f"ok    weights.lock: {lock.find_lock()}, {len(lock.read_lock())} models",
        "ok    model tiny: in ",
        "note  model b14: not downloaded",
        "      Run: tipsseg weights download b14",
        "ok    numbers: cpu in bfloat16 against cpu in float32: ",
    ):
        assert any(each.startswith(line) for each in lines), line
    (cpu,) = (line for line in lines if line.startswith("ok    cpu: "))
    assert "float32 works, bfloat16 works" in cpu
    assert "int8 works" in cpu
    assert not (tmp_path / "cache").exists()


def test_an_unknown_device(command: Command) -> None:
    ran = command("doctor", "--device", "tpu")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "Error: unknown device 'tpu'\nHint: Use auto, cpu, cuda, cuda:N or mps.\n"


# ---- packages ----


@pytest.mark.parametrize(
    ("requirement", "detail", "hint"),
    [
        ("torch>=99", "is not supported; tipsseg requires >=99", "pip install 'torch>=99'"),
        ("torsh>=1", "torsh: is not installed", "pip install 'torsh>=1'"),
        ("pytest-xdist>=1", "cannot be imported: No module named 'pytest_xdist'", 'python -c "import pytest_xdist"'),
    ],
)
def test_a_package_that_does_not_work(
    command: Command, monkeypatch: pytest.MonkeyPatch, requirement: str, detail: str, hint: str
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: [requirement, "numpy>=1.9", 'absent>=3; extra == "test"'])
    ran = command(*CPU)
    assert ran.code == 1
    (failure,) = failures(ran.out)
    assert detail in failure
    assert hint in ran.out
    assert "ok    numpy: " in ran.out
    assert ran.out.endswith("note  other checks: skipped, because they require the packages above\n1 check failed.\n")


# ---- weights ----


def test_a_lock_that_cannot_be_read(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "weights.lock"
    path.write_text("[models.tiny]\nlicence = 3\n")
    monkeypatch.setattr(lock, "find_lock", lambda: path)
    ran = command(*CPU)
    assert ran.code == 1
    (failure,) = failures(ran.out)
    assert failure.startswith(f"weights.lock: {path}: models.tiny")
    assert "note  numbers: not compared" in ran.out


def test_an_embedded_file_that_is_not_the_pinned_one(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny = lock.get_model("tiny")
    wrong = tuple(LockedFile(file.name, file.size, "0" * 64) for file in tiny.files)
    path = tmp_path / "weights.lock"
    write_lock(path, {"tiny": ModelSpec("tiny", "Apache-2.0", 1, wrong, embedded=tiny.embedded)})
    monkeypatch.setattr(lock, "find_lock", lambda: path)
    ran = command(*CPU)
    assert ran.code == 1
    (failure,) = failures(ran.out)
    assert f"config.json is not the pinned file: sha256 expected {'0' * 64}" in failure
    assert "      Reinstall tipsseg.\n" in ran.out
    assert "note  numbers: not compared" in ran.out


@pytest.mark.parametrize("change", [b"shorter", b"CONFIG.JSON" * 100], ids=["size", "content"])
def test_a_download(
    command: Command, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: bytes
) -> None:
    """As the hub cache holds it: verified, then changed, then of unknown hash. Nothing is removed."""
    files = tuple(LockedFile(name) for name in TIPSV2_FILES)
    spec = ModelSpec("b14", "Apache-2.0", 1, files, "owner/demo", REVISION)
    storage = cache / "models--owner--demo"
    snapshot = storage / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (storage / "blobs").mkdir()
    for file in files:
        content = file.name.encode() * 100
        blob = storage / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / file.name).symlink_to(blob)
    write_lock(tmp_path / "weights.lock", {"b14": spec})
    monkeypatch.setattr(lock, "find_lock", lambda: tmp_path / "weights.lock")
    assert f"ok    model b14: in {snapshot}; verified by hash" in command(*CPU).out  # so that there is a stamp
    (snapshot / "config.json").write_bytes(change)
    ran = command(*CPU)
    assert ran.code == 1
    assert f"{snapshot / 'config.json'} is not the pinned file" in failures(ran.out)[0]
    assert "`tipsseg weights verify b14` removes it." in ran.out
    assert (snapshot / "config.json").read_bytes() == change
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_bytes(b"a copy")
    assert "note  model b14: " in (out := command(*CPU).out)
    assert "the hash of config.json is unknown here" in out


def test_a_model_without_weights(command: Command) -> None:
    ran = command(*CPU, "-m", "b14")
    assert failures(ran.out) == ["numbers of b14: no weights"]
    assert ran.code == 1


# ---- devices and numbers ----


def test_a_device_that_is_absent(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ran = command("doctor", "--device", "cuda:7")
    assert ran.code == 1
    (failure,) = failures(ran.out)
    assert failure.startswith("numbers: device 'cuda:7' is not available")
    assert "note  cuda: device 'cuda' is not available" in ran.out


def test_a_gpu_that_does_not_answer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("CUDA error: all devices are busy\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    ran = command(*CPU)
    assert failures(ran.out) == [f"cuda:{index}: CUDA error: all devices are busy" for index in (0, 1)]
    assert "Or use --device=cpu." in ran.out


def test_a_dtype_that_computes_something_else(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Checkpoint.read_text

    def read_text(self: Checkpoint, device: torch.device, dtype: torch.dtype) -> TextTower:
        tower = plain(self, device, dtype)
        if dtype == torch.bfloat16:
            attention = tower.transformer.resblocks[1].attn
            attention.out_proj.weight.zero_()  # type: ignore[union-attr, operator]
        return tower

    monkeypatch.setattr(Checkpoint, "read_text", read_text)
    ran = command("doctor", "--device", "cpu", "--dtype", "bfloat16")
    assert ran.code == 1
    (failure,) = failures(ran.out)
    assert failure.startswith("numbers: cpu in bfloat16 against cpu in float32: ")
    assert "use --device=cpu --dtype=float32" in ran.out


def test_the_model_runs_on_the_cpu_too(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ok    numbers: cpu in float32 against cpu in float32: " in command(*CPU).out
    plain = Checkpoint.read_text

    def read_text(self: Checkpoint, device: torch.device, dtype: torch.dtype) -> TextTower:
        tower = plain(self, device, dtype)
        tower.transformer.resblocks[1].attn.out_proj.weight.fill_(torch.nan)  # type: ignore[union-attr, operator]
        return tower

    monkeypatch.setattr(Checkpoint, "read_text", read_text)
    ran = command(*CPU)
    assert ran.code == 1
    (failure,) = failures(ran.out)
    assert failure.startswith("numbers: ")


def test_a_model_folder_that_is_damaged(command: Command, mlp_checkpoint: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(mlp_checkpoint, tmp_path / "model"))
    (model / "model.safetensors").write_bytes(b"damaged")
    ran = command(*CPU, "-m", model)
    assert ran.code == 1
    (failure,) = failures(ran.out)
    assert "model.safetensors: is not a complete safetensors file" in failure
