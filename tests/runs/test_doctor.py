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

from tipsseg.backbones.protocol import Backbone
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.backbones.tipsv2.checkpoint import Checkpoint
from tipsseg.backbones.tipsv2.text import TextTower
from tipsseg.errors import UsageError
from tipsseg.labelling import golden
from tipsseg.labelling.golden import Agreement
from tipsseg.runs.doctor import installation
from tipsseg.runs.doctor.installation import Diagnostic, examine_packages
from tipsseg.runs.doctor.report import examine
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights import digests, lock
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
    wanted = "float32" if dtype == "auto" else dtype
    assert diagnostics["numbers"].detail.startswith(f"cpu in {wanted} against cpu in float32: ")
    assert not cache.exists()


# ---- packages ----

PACKAGES = {
    "new enough": ("numpy>=1.26", "1.26", "ok", "1.26"),
    "newer, two digits": ("numpy>=1.9", "1.10", "ok", "1.10"),
    "longer by a zero": ("numpy>=1.26", "1.26.0", "ok", "1.26.0"),
    "shorter by a zero": ("numpy>=1.26.0", "1.26", "ok", "1.26"),
    "local version": ("numpy>=1.26", "2.0+cpu", "ok", "2.0+cpu"),
    "an upper bound too": ("numpy<9,>=1.26", "1.25", "fail", "1.25 is too old; tipsseg needs 1.26 or newer"),
    "a build before the release": ("numpy>=2.10", "2.10.0a0+git", "ok", "2.10.0a0+git"),
    "a marker that holds": ('numpy>=1.26; python_version >= "3"', "1.26", "ok", "1.26"),
    "no floor": ("numpy", "0.1", "ok", "0.1"),
    "too old": ("numpy>=1.26.1", "1.26", "fail", "1.26 is too old; tipsseg needs 1.26.1 or newer"),
    "too old by a digit": ("numpy>=1.10", "1.9.9", "fail", "1.9.9 is too old; tipsseg needs 1.10 or newer"),
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


def test_another_build_of_opencv_will_do() -> None:
    def version_of(name: str) -> str:
        if name == "opencv-python-headless":
            return "4.12.0.88"
        raise PackageNotFoundError(name)

    diagnostics = list(examine_packages(["opencv-python>=4.10"], version_of))
    assert diagnostics == [Diagnostic("ok", "opencv-python-headless", "4.12.0.88")]


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


def test_an_embedded_model_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny = lock.get_model("tiny")
    path = tmp_path / "weights.lock"
    write_lock(path, {"tiny": ModelSpec("tiny", "Apache-2.0", 1, tiny.files, embedded="assets/gone")})
    use_lock(monkeypatch, path)
    assert failed(report()) == ["model tiny"]


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


def test_a_downloaded_model_is_hashed_once(cache: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    plain = digests.hash_file

    def counted(path: Path, kind: digests.Kind) -> str:
        hashed.append(path)
        return plain(path, kind)

    monkeypatch.setattr(digests, "hash_file", counted)
    spec = downloaded("config.json", "model.safetensors")
    snapshot = fill_cache(cache, spec, files, links=True)
    for _ in range(2):
        diagnostic, folder = installation.examine_model(spec)
        assert (diagnostic.state, folder) == ("ok", snapshot)
    assert len(hashed) == 2


@pytest.mark.parametrize("change", [b"shorter", b"CONFIG.JSON" * 100], ids=["size", "content"])
def test_a_wrong_download_is_a_failure_and_stays(cache: Path, files: Path, change: bytes) -> None:
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
    # What was verified before, the hub's statement being lost since, needs no hub.
    for file in spec.files:
        path = snapshot / file.name
        digests.sha256_of(path, keep_stamp=True)
    assert installation.examine_model(spec)[0].state == "ok"
    (snapshot / "config.json").write_bytes(b"another")
    assert installation.examine_model(spec)[0].state == "fail"


def test_a_file_that_cannot_be_read_is_a_failure(cache: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, expected: digests.Expected, *, keep_stamp: bool) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    spec = downloaded("config.json")
    snapshot = fill_cache(cache, spec, files, links=True)
    monkeypatch.setattr(digests, "find_mismatch", refuse)
    diagnostic, _ = installation.examine_model(spec)
    assert diagnostic.state == "fail"
    assert diagnostic.detail == f"{snapshot / 'config.json'} cannot be read: Permission denied"


# ---- devices ----


@pytest.mark.parametrize(
    ("device", "dtype"), [("gpu", "auto"), ("cuda:x", "auto"), ("cpu", "int4"), ("cuda:77", "int4")]
)
def test_names_that_are_none_are_refused_before_the_first_finding(device: str, dtype: str) -> None:
    with pytest.raises(UsageError):
        next(examine(device, dtype))


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


@pytest.mark.parametrize(
    ("capabilities", "text"),
    [({"avx512_bf16": True}, "works (native)"), ({"bf16": False}, "works (emulated, slow)"), (None, "works")],
)
def test_bfloat16_of_the_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool] | None, text: str) -> None:
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert f"bfloat16 {text}, float16" in devices()["cpu"].detail


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


@pytest.mark.parametrize("cosine", [math.nan, 0.0])
def test_cosines_that_are_no_numbers_or_all_alike_are_a_failure(monkeypatch: pytest.MonkeyPatch, cosine: float) -> None:
    plain = golden._cosines

    def broken(backbone: Backbone) -> torch.Tensor:
        cosines = plain(backbone)
        return cosines if backbone.dtype_name == "float32" else torch.full_like(cosines, cosine)

    monkeypatch.setattr(golden, "_cosines", broken)
    assert failed(report(dtype="float16")) == ["numbers"]


def test_a_device_that_cannot_run_the_model_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory\nmore")

    monkeypatch.setattr(Tipsv2Backbone, "encode_windows", broken)
    diagnostics = report()
    assert failed(diagnostics) == ["recorded numbers", "numbers"]
    assert diagnostics["numbers"].detail == "does not run: out of memory"


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


def test_a_package_whose_library_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("tipsseg.runs.doctor.installation.importlib.import_module", refuse)
    (diagnostic,) = examine_packages(["opencv-python>=4"], lambda _: "5.0")
    assert diagnostic.state == "fail"
    assert diagnostic.detail == "5.0 cannot be imported: libGL.so.1: cannot open shared object file"
    assert 'python -c "import cv2"' in diagnostic.hint


# content of /proc/meminfo (None: no such file), what is said
MEMORY = {
    "told": ("MemTotal: 9 kB\nMemAvailable:  2000000 kB\n", Diagnostic("ok", "memory", "2.0 GB of 8.2 GB available")),
    "an old kernel": ("MemTotal: 9 kB\n", None),
    "another system": (None, None),
    "nonsense": ("MemAvailable: much kB\n", None),
}


@pytest.mark.parametrize(("content", "expected"), MEMORY.values(), ids=MEMORY)
def test_memory(monkeypatch: pytest.MonkeyPatch, content: str | None, expected: Diagnostic | None) -> None:
    def read_text(path: Path, **_: object) -> str:
        assert path == Path("/proc/meminfo")
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2_000_000, "SC_PAGE_SIZE": 4096}.__getitem__)
    monkeypatch.setattr(Path, "read_text", read_text)
    unknown = Diagnostic("note", "memory", "8.2 GB; available memory unknown on this system")
    assert installation.examine_memory() == (expected or unknown)


def test_a_cache_that_cannot_even_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    first, second = installation.examine_cache()
    assert (first.state, second.what) == ("fail", "offline mode")
    assert first.detail.endswith(" cannot be used: Permission denied")


def test_a_lock_that_pins_some_files_only_leaves_the_rest_to_the_hub(cache: Path) -> None:
    files = LockedFile("config.json", 1, "0" * 64), LockedFile("model.safetensors")
    for pinned, origin in ((files, "the hashes on the hub"), (files[:1], "the hashes in weights.lock")):
        spec = ModelSpec("b14", "Apache-2.0", 1, pinned, "owner/demo", REVISION)
        assert installation.examine_model(spec)[0].detail == f"not downloaded; downloads are verified against {origin}"


def test_a_pinned_size_is_checked_too() -> None:
    tiny = lock.get_model("tiny")
    files = tuple(LockedFile(file.name, (file.size or 0) + 1, file.sha256) for file in tiny.files)
    diagnostic, folder = installation.examine_model(ModelSpec("tiny", "Apache-2.0", 1, files, embedded=tiny.embedded))
    assert (diagnostic.state, folder) == ("fail", None)
    assert "size expected" in diagnostic.detail
