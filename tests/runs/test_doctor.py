"""`examine` on sound and broken installations. Nothing here has network."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import socket
from collections.abc import Mapping
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from tipsseg.backbones.tipsv2.checkpoint import Checkpoint
from tipsseg.backbones.tipsv2.text import TextTower
from tipsseg.labelling import golden
from tipsseg.labelling.golden import Agreement
from tipsseg.runs.doctor import installation
from tipsseg.runs.doctor.installation import Diagnostic, examine_packages
from tipsseg.runs.doctor.report import examine
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights import lock
from tipsseg.weights.lock import write_lock

REVISION = "0123456789" * 4


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache, no stamps, and no network."""

    def refuse(*_: object) -> None:
        raise AssertionError("doctor must not use the network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path / "stamps"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def report(device: str = "cpu", dtype: str = "float32") -> dict[str, Diagnostic]:
    diagnostics = list(examine(device, dtype))
    assert len({diagnostic.what for diagnostic in diagnostics}) == len(diagnostics)
    return {diagnostic.what: diagnostic for diagnostic in diagnostics}


def devices() -> dict[str, Diagnostic]:
    """What is found up to the last kind of device: the numbers, which come next, take most of the time."""
    found: dict[str, Diagnostic] = {}
    for diagnostic in examine("cpu", "float32"):
        found[diagnostic.what] = diagnostic
        if diagnostic.what == "mps":
            break
    return found


def failed(diagnostics: Mapping[str, Diagnostic]) -> list[str]:
    return [diagnostic.what for diagnostic in diagnostics.values() if diagnostic.state == "fail"]


def use_lock(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(lock, "find_lock", lambda: path)


# ---- all in order ----


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_a_sound_installation_has_no_failure(dtype: str, cache: Path) -> None:
    diagnostics = report(dtype=dtype)
    assert failed(diagnostics) == []
    assert list(diagnostics)[:2] == ["tipsseg", "Python"]
    assert diagnostics["torch"].detail.startswith(f"{metadata.version('torch')} (")
    assert diagnostics["opencv-python"].state == diagnostics["typer"].state == "ok"
    assert diagnostics["cache"] == Diagnostic("ok", "cache", diagnostics["cache"].detail)
    assert diagnostics["cache"].detail.startswith(f"{cache} (to be created), ")
    assert diagnostics["weights.lock"].detail == f"{lock.find_lock()}, {len(lock.read_lock())} models"
    assert diagnostics["model tiny"].state == "ok"
    assert diagnostics["model b14"].state == "note"
    assert diagnostics["model b14"].hint == "Run: tipsseg weights download b14"
    assert "float32 works, bfloat16 works" in diagnostics["cpu"].detail
    assert "int8 works" in diagnostics["cpu"].detail
    compared = f"cpu in {dtype} against cpu in float32: " if dtype.endswith("16") else "cpu in float32; "
    assert diagnostics["numbers"].detail.startswith(compared)
    assert not cache.exists()


# ---- packages ----

PACKAGES = {
    "new enough": ("numpy>=1.26", "1.26", "ok", "1.26"),
    "newer, two digits": ("numpy>=1.9", "1.10", "ok", "1.10"),
    "too old": ("numpy>=1.26.1", "1.26", "fail", "1.26 is too old; tipsseg needs 1.26.1 or newer"),
    "not installed": ("numpy>=1.26", None, "fail", "is not installed"),
    "not importable": ("no-such-module>=1", "1.0", "fail", "1.0 cannot be imported: No module named 'no_such_module'"),
}


@pytest.mark.parametrize(("requirement", "version", "state", "detail"), PACKAGES.values(), ids=PACKAGES)
def test_packages(requirement: str, version: str | None, state: str, detail: str) -> None:
    def version_of(name: str) -> str:
        assert name in requirement
        if version is None:
            raise PackageNotFoundError(name)
        return version

    (diagnostic,) = examine_packages([requirement, 'absent>=3; extra == "test"'], version_of)
    assert (diagnostic.state, diagnostic.detail) == (state, detail)
    assert (requirement in diagnostic.hint) == (detail == "is not installed" or "too old" in detail)


def test_what_needs_a_package_that_is_too_old_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tipsseg.runs.doctor.report.metadata.requires", lambda _: ["torch>=99"])
    diagnostics = report()
    assert failed(diagnostics) == ["torch"]
    assert list(diagnostics) == ["tipsseg", "Python", "torch", "memory", "other checks"]


# ---- the cache ----


def test_a_cache_that_cannot_be_made(cache: Path) -> None:
    cache.write_text("a file")
    (diagnostic, _) = installation.examine_cache()
    assert (diagnostic.state, diagnostic.detail) == ("fail", f"{cache} cannot be created: {cache} is not a folder")


@pytest.mark.parametrize(("exists", "state"), [(True, "note"), (False, "fail")])
def test_a_cache_that_cannot_be_written_to(
    cache: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, state: str
) -> None:
    if exists:
        cache.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)  # permissions do not hold for root
    (diagnostic, _) = installation.examine_cache()
    assert diagnostic.state == state
    assert "read-only" in diagnostic.detail
    assert "HF_HOME" in diagnostic.hint


def test_offline_mode_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [diagnostic.state for diagnostic in installation.examine_cache()] == ["ok", "note"]


# ---- weights ----


def test_a_lock_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "weights.lock"
    path.write_text("[models.tiny]\nlicence = 3\n")
    use_lock(monkeypatch, path)
    diagnostics = report()
    assert failed(diagnostics) == ["weights.lock"]
    assert diagnostics["weights.lock"].detail.startswith(f"{path}: models.tiny")
    assert diagnostics["weights.lock"].hint
    assert diagnostics["numbers"].state == "note"


def test_an_embedded_file_that_is_not_the_pinned_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny = lock.get_model("tiny")
    wrong = tuple(LockedFile(file.name, file.size, "0" * 64) for file in tiny.files)
    path = tmp_path / "weights.lock"
    write_lock(path, {"tiny": ModelSpec("tiny", "Apache-2.0", 1, wrong, embedded=tiny.embedded)})
    use_lock(monkeypatch, path)
    diagnostics = report()
    assert failed(diagnostics) == ["model tiny"]
    assert f"config.json is not the pinned file: sha256 expected {'0' * 64}" in diagnostics["model tiny"].detail
    assert diagnostics["model tiny"].hint == "Reinstall tipsseg."
    assert diagnostics["numbers"].state == "note"


def fill_cache(cache: Path, spec: ModelSpec, source: Path, *, links: bool) -> Path:
    """The files of `source` as the hub cache holds them; gives the snapshot's folder."""
    storage = cache / f"models--{str(spec.repository).replace('/', '--')}"
    snapshot = storage / "snapshots" / str(spec.revision)
    for folder in (snapshot, storage / "blobs"):
        folder.mkdir(parents=True)
    for file in spec.files:
        content = source / file.name
        if links:
            blob = storage / "blobs" / hashlib.sha256(content.read_bytes()).hexdigest()
            shutil.copy(content, blob)
            (snapshot / file.name).symlink_to(blob)
        else:
            shutil.copy(content, snapshot)
    return snapshot


def downloaded(*names: str) -> ModelSpec:
    return ModelSpec("b14", "Apache-2.0", 1, tuple(LockedFile(name) for name in names), "owner/demo", REVISION)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def test_a_wrong_download_is_a_failure_and_stays(cache: Path, files: Path) -> None:
    change = b"CONFIG.JSON" * 100
    spec = downloaded("config.json", "model.safetensors")
    snapshot = fill_cache(cache, spec, files, links=True)
    assert installation.examine_model(spec)[0].state == "ok"  # so that there is a stamp
    (snapshot / "config.json").write_bytes(change)
    diagnostic, folder = installation.examine_model(spec)
    assert (diagnostic.state, folder) == ("fail", None)
    assert f"{snapshot / 'config.json'} is not the pinned file" in diagnostic.detail
    assert diagnostic.hint == "`tipsseg weights verify b14` removes it."
    assert (snapshot / "config.json").read_bytes() == change


def test_a_download_whose_hash_is_not_stated_here_is_a_note(cache: Path, files: Path) -> None:
    spec = downloaded("config.json", "model.safetensors")
    snapshot = fill_cache(cache, spec, files, links=False)
    diagnostic, folder = installation.examine_model(spec)
    assert (diagnostic.state, folder) == ("note", snapshot)
    assert "the hash of config.json, model.safetensors" in diagnostic.detail
    assert diagnostic.hint == "With a network, run: tipsseg weights lock b14"


# ---- devices ----


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_absent_is_a_failure(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    diagnostics = report(device)
    assert failed(diagnostics) == ["numbers"]
    assert diagnostics["numbers"].detail.startswith(f"device {device!r} is not available")
    assert "device cpu" in diagnostics["numbers"].hint
    assert diagnostics["cuda"].state == diagnostics["mps"].state == "note"


def test_a_gpu_that_does_not_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("CUDA error: all devices are busy\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    diagnostics = report()
    assert failed(diagnostics) == ["cuda:0", "cuda:1"]
    assert diagnostics["cuda:0"].detail == "CUDA error: all devices are busy"


# ---- numbers ----


def test_a_device_that_computes_something_else_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Checkpoint.read_text

    def read_text(self: Checkpoint, device: torch.device, dtype: torch.dtype) -> TextTower:
        tower = plain(self, device, dtype)
        if dtype == torch.bfloat16:
            attention = tower.transformer.resblocks[1].attn
            attention.out_proj.weight.zero_()  # type: ignore[union-attr, operator]
        return tower

    monkeypatch.setattr(Checkpoint, "read_text", read_text)
    diagnostics = report(dtype="bfloat16")
    assert failed(diagnostics) == ["numbers"]
    assert "argument `dtype`=float32" in diagnostics["numbers"].hint
    assert failed(report()) == []


def test_a_cpu_that_computes_something_else_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = golden._cosines
    monkeypatch.setattr(golden, "_cosines", lambda backbone: plain(backbone) + 5e-4)
    diagnostics = report()
    assert failed(diagnostics) == ["recorded numbers"]
    assert "5.0e-04" in diagnostics["recorded numbers"].detail


@pytest.mark.parametrize(
    ("found", "within"),
    [((0.1, 0.9), True), ((0.2, 0.9), False), ((0.05, 0.8), False), ((0.0, 1.0), True), ((math.nan, 1.0), False)],
)
def test_agreement_within_a_limit(found: tuple[float, float], within: bool) -> None:
    assert Agreement(*found).within(Agreement(0.1, 0.9)) == within


# content of /proc/meminfo (None: no such file), what is said
