"""`tipsseg weights` and `tipsseg label --model l14` against a hub on 127.0.0.1, with an installation of their own.

A copy of the package, because `weights lock` writes into the lock of the installation.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub, Fault
from PIL import Image

import tipsseg
from tipsseg.weights.lock import find_lock, read_lock

REPOSITORY = "google/tipsv2-l14"
PACKAGE = Path(tipsseg.__file__).parent


@dataclass
class Installation:
    hub: FakeHub
    folder: Path
    checkpoint: Path
    revision: str

    @property
    def lock(self) -> Path:
        return self.folder / "site" / "tipsseg" / "weights.lock"

    @property
    def snapshot(self) -> Path:
        return self.folder / "hf" / "hub" / "models--google--tipsv2-l14" / "snapshots" / self.revision

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_"))}
        ours = {
            "PYTHONPATH": str(self.folder / "site"),
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": self.hub.url,
            "TIPSSEG_CACHE": str(self.folder / "cache"),
        }
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "tipsseg", *arguments],
            env={**kept, **ours, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def installation(tmp_path: Path, mlp_checkpoint: Path) -> Iterator[Installation]:
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "tipsseg", ignore=shutil.ignore_patterns("__pycache__", "weights.lock"))
    shutil.copy(find_lock(), site / "tipsseg" / "weights.lock")
    revision = read_lock(site / "tipsseg" / "weights.lock")["l14"].revision
    assert revision is not None
    with FakeHub() as hub:
        for path in mlp_checkpoint.iterdir():
            hub.add(REPOSITORY, revision, path.name, path.read_bytes(), large=path.name != "config.json")
        yield Installation(hub, tmp_path, mlp_checkpoint, revision)


def test_list_download_path_verify_lock(installation: Installation) -> None:
    listed = installation.run("weights", "list")
    assert listed.returncode == 0, listed.stderr
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert list(rows) == ["b14", "l14", "so400m14", "g14", "tiny"]
    assert "487.9M parameters" in rows["l14"]
    assert f"{REPOSITORY}@{installation.revision[:12]}  not downloaded" in rows["l14"]
    assert "embedded" in rows["tiny"]

    absent = installation.run("weights", "path", "l14")
    assert absent.returncode == 1
    assert absent.stderr == "Error: the files of l14 are not downloaded\nHint: Run: tipsseg weights download l14\n"
    assert not installation.hub.requests

    downloaded = installation.run("weights", "download", "l14", "tiny")
    assert downloaded.returncode == 0, downloaded.stderr
    assert downloaded.stdout == f"{installation.snapshot}\n{installation.lock.parent / 'assets/tiny'}\n"
    asked = len(installation.hub.requests)
    for arguments in (["download", "l14", "-q"], ["path", "l14"]):
        again = installation.run("weights", *arguments, HF_HUB_OFFLINE="1")
        assert (again.stdout, again.stderr) == (f"{installation.snapshot}\n", "")
    verified = installation.run("weights", "verify", "l14")
    assert verified.returncode == 0
    assert [line.split() for line in verified.stdout.splitlines()] == [
        ["l14", name, "ok"] for name in ("config.json", "model.safetensors", "tokenizer.model")
    ]
    assert len(installation.hub.requests) == asked

    locked = installation.run("weights", "lock", "l14")
    assert (locked.returncode, locked.stdout) == (0, f"{installation.lock}\n"), locked.stderr
    after = read_lock(installation.lock)
    for file in after["l14"].files:
        content = (installation.checkpoint / file.name).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert all(file.sha256 is None for file in after["b14"].files)


def test_verify_names_what_is_wrong_and_removes_it(installation: Installation) -> None:
    installation.run("weights", "download", "l14", "-q")
    path = installation.snapshot / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.resolve().write_bytes(data)
    ran = installation.run("weights", "verify")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Error: {path} is not the pinned file: sha256 expected ")
    assert not path.exists()
    assert installation.run("weights", "verify", "l14").returncode == 1  # absent, and asked for


@pytest.mark.slow
def test_label_downloads_and_then_needs_no_network(installation: Installation) -> None:
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(installation.folder / "a.png")
    arguments = ["label", "a.png", "-c", "tree,sky", "--background", "none", "--device", "cpu", "--format", "png"]
    first = installation.run(*arguments, "-o", "first")
    assert first.returncode == 0, first.stderr
    asked = len(installation.hub.requests)
    assert asked >= 6  # each file: what is it, and give it
    second = installation.run(*arguments, "-o", "second", HF_HUB_OFFLINE="1")
    by_folder = installation.run(*arguments, "-o", "third", "--model", str(installation.checkpoint))
    assert (second.returncode, by_folder.returncode) == (0, 0), second.stderr
    assert len(installation.hub.requests) == asked
    masks = {(installation.folder / run / "masks/a.png").read_bytes() for run in ("first", "second", "third")}
    assert len(masks) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "environment", "message"),
    [
        pytest.param(Fault(status=404, code="EntryNotFound"), {}, "has no such file in that revision", id="no file"),
        pytest.param(
            Fault(status=404, code="RevisionNotFound"), {}, "the pinned revision {revision} does not exist on the hub",
            id="no revision",
        ),
        # Of these, test_weights tests the messages in this process.
        pytest.param(
            Fault(content=b"x" * 50_000), {}, "is not the pinned file: sha256 expected ", id="wrong bytes",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            None, {"HF_HUB_OFFLINE": "1"}, "offline mode is on, and the file is not in the cache at ", id="offline",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            None, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot reach http://127.0.0.1:9", id="refused",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_download_that_fails_ends_the_command_with_a_message(
    installation: Installation, fault: Fault | None, environment: dict[str, str], message: str
) -> None:
    if fault is not None:
        size = (installation.checkpoint / "tokenizer.model").stat().st_size
        if fault.content is not None:
            fault.content = fault.content[:1] * size
        installation.hub.faults["tokenizer.model"] = fault
    Image.new("RGB", (60, 60)).save(installation.folder / "a.png")
    ran = installation.run("label", "a.png", "-c", "tree", "--device", "cpu", "-q", **environment)
    assert ran.returncode == 1
    assert ran.stdout == ""
    error, hint = ran.stderr.splitlines()
    assert error.startswith("Error: ")
    assert message.format(revision=installation.revision) in error
    assert hint.startswith("Hint: ")
    assert not (installation.snapshot / "tokenizer.model").exists()
    assert not list(installation.folder.rglob("*.incomplete"))
