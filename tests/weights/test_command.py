"""`tipsseg weights` and `tipsseg label --model l14` against a hub on 127.0.0.1, with an installation of their own.

A copy of the package, because `weights lock` writes into the lock of the installation.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_hub import FakeHub, Fault
from PIL import Image

import tipsseg
from tipsseg.types import LockedFile
from tipsseg.weights.lock import find_lock, read_lock, write_lock

REPOSITORY = "google/tipsv2-l14"
REVISION = str(read_lock()["l14"].revision)
PACKAGE = Path(tipsseg.__file__).parent
CONFIG, MODEL, TOKENIZER = "config.json", "model.safetensors", "tokenizer.model"
CONTENT = {CONFIG: b'{"model_type": "tipsv2"}\n', MODEL: bytes(range(256)) * 1200, TOKENIZER: b"pieces" * 20_000}
WRONG = b"wrong!" * 20_000  # as long as the tokenizer
BIG = bytes(range(256)) * (24 << 12)  # 24 MiB: huggingface_hub writes in pieces of 10 MiB

# Python runs this before the command.
SITE = """
import os, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds / 50)
def no_links(*arguments):
    raise OSError("this system has no symbolic links")
if "NO_LINKS" in os.environ:
    os.symlink = no_links
"""


@dataclass
class Installation:
    """An installed tipsseg, an empty hub cache, and a hub with one model."""

    hub: FakeHub
    folder: Path
    site: Path

    @property
    def lock(self) -> Path:
        return self.site / "tipsseg" / "weights.lock"

    @property
    def snapshot(self) -> Path:
        return self.folder / "hf" / "hub" / "models--google--tipsv2-l14" / "snapshots" / REVISION

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        foreign = ("HF_", "HUGGING", "XDG_", "TQDM", "TIPSSEG", "HTTP", "http", "ALL_PROXY", "all_proxy")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        ours = {
            "PYTHONPATH": str(self.site),
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": self.hub.url,
            "TIPSSEG_CACHE": str(self.folder / "cache"),
        }
        return subprocess.Popen(
            [sys.executable, "-W", "error", *command],
            env={**kept, **ours, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start("-m", "tipsseg", *arguments, **environment)
        output, errors = process.communicate(timeout=300)
        assert "Traceback" not in errors
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def download(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("weights", "download", "l14", **environment)

    def pin(self, files: dict[str, str | None], **changes: Any) -> None:
        """Write these hashes to the lock."""
        models = read_lock(self.lock)
        entries = tuple(LockedFile(name, None, sha256) for name, sha256 in files.items())
        write_lock(self.lock, {**models, "l14": replace(models["l14"], files=entries, **changes)})

    def assert_right(self) -> None:
        assert {path.name: path.read_bytes() for path in self.snapshot.iterdir()} == CONTENT

    def assert_nothing_wrong(self) -> None:
        """Nothing in the cache is wrong or a part, but files of huggingface_hub's own."""
        beside = (".lock", ".refs", ".TAG")
        paths = [path for path in (self.folder / "hf" / "hub").rglob("*") if path.is_file()]
        assert {path.read_bytes() for path in paths if path.suffix not in beside and path.name[0] != "."} <= set(
            CONTENT.values()
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, site / "tipsseg", ignore=shutil.ignore_patterns("__pycache__", "weights.lock"))
    (site / "sitecustomize.py").write_text(SITE)
    return site


@pytest.fixture
def installation(tmp_path: Path, site: Path) -> Iterator[Installation]:
    shutil.copy(find_lock(), site / "tipsseg" / "weights.lock")
    with FakeHub() as hub:
        for name, content in CONTENT.items():
            hub.add(REPOSITORY, REVISION, name, content, large=name != CONFIG)
        yield Installation(hub, tmp_path, site)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


HASHES: dict[str, str | None] = {name: sha256(content) for name, content in CONTENT.items()}


def dead_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_list_download_path_verify_lock(installation: Installation) -> None:
    listed = installation.run("weights", "list")
    assert listed.returncode == 0, listed.stderr
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert list(rows) == ["b14", "l14", "so400m14", "g14", "tiny"]
    assert "487.9M parameters" in rows["l14"]
    assert f"{REPOSITORY}@{REVISION[:12]}  not downloaded" in rows["l14"]
    assert "embedded" in rows["tiny"]

    absent = installation.run("weights", "path", "l14")
    assert absent.returncode == 1
    assert absent.stderr == "Error: the files of l14 are not downloaded\nHint: Run: tipsseg weights download l14\n"
    assert installation.run("weights", "verify", "l14").returncode == 1
    assert not installation.hub.requests

    downloaded = installation.run("weights", "download", "l14", "tiny")
    assert downloaded.returncode == 0, downloaded.stderr
    assert downloaded.stdout == f"{installation.snapshot}\n{installation.lock.parent / 'assets/tiny'}\n"
    installation.assert_right()

    installation.hub.requests.clear()
    for arguments in (["download", "l14", "-q"], ["path", "l14"]):
        for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": dead_port()}):
            again = installation.run("weights", *arguments, **environment)
            assert (again.stdout, again.stderr) == (f"{installation.snapshot}\n", "")
    verified = installation.run("weights", "verify", "l14")
    assert verified.returncode == 0
    assert [line.split() for line in verified.stdout.splitlines()] == [["l14", name, "ok"] for name in CONTENT]
    assert not installation.hub.requests

    locked = installation.run("weights", "lock", "l14")
    assert (locked.returncode, locked.stdout) == (0, f"{installation.lock}\n"), locked.stderr
    after = read_lock(installation.lock)
    assert after["l14"].files == tuple(
        LockedFile(name, len(content), sha256(content)) for name, content in CONTENT.items()
    )
    assert all(file.sha256 is None for file in after["b14"].files)
    installation.hub.requests.clear()
    assert installation.download().returncode == 0
    assert not installation.hub.requests


def test_lock_does_not_replace_a_hash(installation: Installation) -> None:
    installation.pin({**HASHES, TOKENIZER: "a" * 64})
    before = installation.lock.read_text()
    refused = installation.run("weights", "lock", "l14")
    assert refused.returncode == 1
    assert f"sha256 expected {'a' * 64}, got {HASHES[TOKENIZER]}" in refused.stderr
    assert installation.lock.read_text() == before
    assert not installation.hub.bodies(MODEL)  # the hub states the hashes of large files


@pytest.mark.slow
def test_label_downloads_and_then_needs_no_network(installation: Installation, mlp_checkpoint: Path) -> None:
    for path in mlp_checkpoint.iterdir():
        installation.hub.add(REPOSITORY, REVISION, path.name, path.read_bytes(), large=path.name != CONFIG)
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(installation.folder / "a.png")
    arguments = ["label", "a.png", "-c", "tree,sky", "--background", "none", "--device", "cpu", "--format", "png"]
    first = installation.run(*arguments, "-o", "first")
    assert first.returncode == 0, first.stderr
    installation.hub.requests.clear()
    second = installation.run(*arguments, "-o", "second", HF_HUB_OFFLINE="1")
    by_folder = installation.run(*arguments, "-o", "third", "--model", str(mlp_checkpoint))
    assert (second.returncode, by_folder.returncode) == (0, 0), second.stderr
    assert not installation.hub.requests
    first_mask, second_mask, third_mask = (
        installation.folder / run / "masks/a.png" for run in ("first", "second", "third")
    )
    assert first_mask.read_bytes() == second_mask.read_bytes()
    assert (np.asarray(Image.open(first_mask)) == np.asarray(Image.open(third_mask))).all()  # of another question


def test_the_cache_is_shared_and_only_absent_files_are_downloaded(installation: Installation) -> None:
    load = "from huggingface_hub import hf_hub_download as get\n" + "".join(
        f"get({REPOSITORY!r}, {name!r}, revision={REVISION!r})\n" for name in CONTENT
    )
    process = installation.start("-c", load)  # as transformers does
    assert process.communicate(timeout=60)[1] == ""
    installation.hub.requests.clear()
    assert installation.download().returncode == 0
    assert not installation.hub.requests

    (installation.snapshot / MODEL).unlink()
    (installation.snapshot / TOKENIZER).resolve().unlink()
    states = [line.split()[-1] for line in installation.run("weights", "verify", "l14").stdout.splitlines()]
    assert states == ["ok", "absent", "absent"]
    assert installation.download().returncode == 0
    installation.assert_right()
    # The model's blob was still there: only the link was made again.
    assert [len(installation.hub.bodies(name)) for name in CONTENT] == [0, 0, 1]


@dataclass(frozen=True)
class Refusal:
    """What goes wrong, and what the user is told."""

    message: str
    hint: str
    faults: dict[str, Fault] = field(default_factory=dict)
    changes: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


REFUSALS = {
    "unknown revision": Refusal("no such revision", "weights.lock", changes={"revision": "f" * 40}),
    "gated": Refusal("gated", f"/{REPOSITORY}", faults={CONFIG: Fault(status=403, code="GatedRepo")}),
    "no network": Refusal("the download from http", "--model=tiny", environment={"HF_ENDPOINT": dead_port()}),
    "broken off": Refusal("the download from http", "run the command again", faults={MODEL: Fault(cut=1000)}),
    "wrong bytes": Refusal(
        f"sha256 expected {HASHES[TOKENIZER]}, got {sha256(WRONG)}", "again", faults={TOKENIZER: Fault(content=WRONG)}
    ),
}  # fmt: skip


@pytest.mark.slow  # a process per case
@pytest.mark.parametrize("case", REFUSALS)
def test_a_download_that_fails_says_why_and_leaves_nothing_wrong(installation: Installation, case: str) -> None:
    refusal = REFUSALS[case]
    installation.hub.faults = refusal.faults
    installation.pin(HASHES, **refusal.changes)
    Image.new("RGB", (60, 60)).save(installation.folder / "a.png")
    ran = installation.run("label", "a.png", "-c", "tree", "--device", "cpu", "-q", **refusal.environment)
    assert (ran.returncode, ran.stdout) == (1, "")
    error, hint = ran.stderr.splitlines()[-2:]  # after what huggingface_hub says
    assert error.startswith("Error: ")
    assert hint.startswith("Hint: ")
    assert refusal.message in error
    assert refusal.hint in hint
    installation.assert_nothing_wrong()
    if refusal.faults:  # when the hub has recovered, so has the rest
        installation.hub.faults = {}
        assert installation.download().returncode == 0
        installation.assert_right()


def test_a_broken_connection_is_taken_up_again(installation: Installation) -> None:
    installation.hub.add(REPOSITORY, REVISION, MODEL, BIG, large=True)
    installation.hub.faults = {MODEL: Fault(cut=15 << 20, methods=("GET",), times=1)}
    assert installation.download().returncode == 0
    assert [request.range for request in installation.hub.bodies(MODEL)] == [None, f"bytes={10 << 20}-"]
    assert (installation.snapshot / MODEL).read_bytes() == BIG


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_download_ends_at_once_on_a_signal_and_can_be_repeated(
    installation: Installation, number: signal.Signals
) -> None:
    installation.hub.faults = {MODEL: Fault(stall=150_000, methods=("GET",), times=1)}
    process = installation.start("-m", "tipsseg", "weights", "download", "l14")
    assert installation.hub.stalled.wait(30)
    process.send_signal(number)
    process.communicate(timeout=5)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert not (installation.snapshot / MODEL).exists()
    assert installation.download().returncode == 0
    installation.assert_right()


@pytest.mark.parametrize("wrong", [False, True])
def test_downloads_by_xet_are_verified(installation: Installation, wrong: bool) -> None:
    installation.hub.add(REPOSITORY, REVISION, MODEL, CONTENT[MODEL], large=True, xet=True)
    installation.hub.faults = {MODEL: Fault(content=CONTENT[MODEL][::-1])} if wrong else {}
    ran = installation.download()
    assert ran.returncode == wrong
    assert "hf_xet" in (installation.hub.bodies(MODEL)[0].agent or "")
    if wrong:  # Xet does not verify the hash
        assert f"{MODEL} is not the pinned file: sha256 expected {HASHES[MODEL]}" in ran.stderr
        installation.assert_nothing_wrong()
    else:
        installation.assert_right()


@pytest.mark.parametrize("arguments", [["download", "l14"], ["verify"]], ids=["download", "verify"])
def test_a_cached_file_that_changed_is_refused_and_removed(installation: Installation, arguments: list[str]) -> None:
    installation.download()
    path = installation.snapshot / MODEL
    path.resolve().write_bytes(CONTENT[MODEL][::-1])
    ran = installation.run("weights", *arguments)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Error: {path} is not the pinned file: ")
    assert "It was removed. Run the command again" in ran.stderr
    assert not path.exists()
    assert installation.download().returncode == 0
    installation.assert_right()


def test_nothing_outside_the_cache_is_removed(installation: Installation) -> None:
    installation.download()
    mine = installation.folder / "mine.model"
    mine.write_bytes(WRONG)
    link = installation.snapshot / TOKENIZER
    link.unlink()
    link.symlink_to(mine)
    assert "is not the pinned file" in installation.download().stderr
    assert not link.is_symlink()
    assert mine.read_bytes() == WRONG


def test_an_embedded_file_that_changed_is_refused_and_stays(installation: Installation) -> None:
    path = installation.lock.parent / "assets" / "tiny" / CONFIG
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    ran = installation.run("weights", "verify", "tiny")
    assert ran.returncode == 1
    assert f"{path} is not the pinned file: sha256 expected " in ran.stderr
    assert "Reinstall tipsseg." in ran.stderr
    path.unlink()
    assert f"{path} is missing from the installation" in installation.run("weights", "download", "tiny").stderr
    path.write_bytes(content)


def test_a_cache_without_symbolic_links(installation: Installation) -> None:
    no_links = {"NO_LINKS": "1", "HF_HUB_DISABLE_SYMLINKS_WARNING": "1"}
    offline = {**no_links, "HF_HUB_OFFLINE": "1"}
    assert installation.download(**no_links).returncode == 0
    installation.assert_right()
    assert not any(path.is_symlink() for path in installation.snapshot.iterdir())
    # Only the hub states the hashes, until they are in the lock.
    refused = installation.download(**offline)
    assert "neither weights.lock nor the cache states its hash, and offline mode is on" in refused.stderr
    assert "`tipsseg weights lock l14`" in refused.stderr
    assert installation.run("weights", "lock", "l14", **no_links).returncode == 0
    assert installation.download(**offline).returncode == 0
    (installation.snapshot / MODEL).write_bytes(b"changed")
    assert "is not the pinned file" in installation.download(**offline).stderr
    assert not (installation.snapshot / MODEL).exists()


@pytest.mark.parametrize("options", [[], ["-q"]])
def test_progress_is_on_stderr(installation: Installation, options: list[str]) -> None:
    # TQDM_POSITION shows bars though stderr is no terminal.
    ran = installation.run("weights", "download", "l14", *options, TQDM_POSITION="-1")
    assert ran.stdout == f"{installation.snapshot}\n"
    assert (MODEL in ran.stderr) is (not options)
    assert not options or ran.stderr == ""


def test_the_library_shows_a_download(installation: Installation) -> None:
    load = "import tipsseg\ntry: tipsseg.load('l14', device='cpu')\nexcept tipsseg.errors.CheckpointError: pass"
    errors = installation.start("-c", load, TQDM_POSITION="-1").communicate(timeout=300)[1]
    assert MODEL in errors
    assert "Traceback" not in errors
