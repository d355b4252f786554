"""Weights from a hub on 127.0.0.1, through the real huggingface_hub, each run in a process of its own.

A process of its own, because huggingface_hub reads its environment at import, and because that is how it runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, Fault

from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights.lock import read_lock, write_lock

REPOSITORY = "owner/demo"
REVISION = "0123456789" * 4
CONFIG, MODEL, TOKENIZER = "config.json", "model.safetensors", "tokenizer.model"
CONTENT = {CONFIG: b'{"model_type": "tipsv2"}\n', MODEL: bytes(range(256)) * 1200, TOKENIZER: b"pieces" * 20_000}
WRONG = b"wrong!" * 20_000  # as long as the tokenizer

# Runs actions and prints what came of each, as JSON. Warnings are errors, and waiting is fifty times as fast.
CHILD = """
import json, os, sys, time

def no_links(*arguments):
    raise OSError("this system has no symbolic links")
if "NO_LINKS" in os.environ:
    os.symlink = no_links
if "NO_LOCKS" in os.environ:
    import fcntl
    fcntl.flock = lambda *arguments: None
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds / 50)
from pathlib import Path
from tipsseg.weights import digests, fetching
from tipsseg.weights.lock import read_lock, write_lock
from tipsseg.errors import TipssegError

hashed = []
def counted(path, kind, plain=digests.hash_file):
    hashed.append(path.name)
    return plain(path, kind)
digests.hash_file = counted

lock = Path(sys.argv[1])
spec = read_lock(lock)["demo"]
for action in sys.argv[2:]:
    hashed.clear()
    try:
        match action:
            case "fetch" | "quiet":
                value = fetching.fetch(spec, quiet=action == "quiet", keep_stamps=True)
            case "locate":
                value = fetching.locate(spec)
            case "verify":
                value = fetching.verify(spec)
            case "lock":
                write_lock(lock, {"demo": fetching.resolve_hashes(spec)})
                value = None
            case "transformers":  # or whatever else fills the cache
                from huggingface_hub import hf_hub_download
                for file in spec.files:
                    value = hf_hub_download(spec.repository, file.name, revision=spec.revision)
        outcome = {"value": value}
    except TipssegError as error:
        outcome = {"error": type(error).__name__, **vars(error)}
    print(json.dumps({**outcome, "hashed": hashed, "torch": "torch" in sys.modules}, default=str), flush=True)
"""


@dataclass
class Bench:
    """A hub with one model, an empty cache, and a lock without hashes."""

    hub: FakeHub
    folder: Path
    files: tuple[LockedFile, ...] = tuple(LockedFile(name) for name in CONTENT)
    revision: str = REVISION
    repository: str = REPOSITORY
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def lock(self) -> Path:
        return self.folder / "weights.lock"

    @property
    def storage(self) -> Path:
        return self.folder / "hf" / "hub" / "models--owner--demo"

    @property
    def snapshot(self) -> Path:
        return self.storage / "snapshots" / REVISION

    def stated(self, name: str) -> str:
        found = self.hub.find(REPOSITORY, REVISION, name)
        assert not isinstance(found, tuple)
        return found.etag

    def start(self, *actions: str) -> subprocess.Popen[str]:
        spec = ModelSpec("demo", "Apache-2.0", 1, self.files, self.repository, self.revision)
        write_lock(self.lock, {"demo": spec})
        foreign = (
            "HF_",
            "XDG_",
            "HUGGING",
            "TRANSFORMERS",
            "TQDM",
            "TIPSSEG",
            "HTTP",
            "http",
            "ALL_PROXY",
            "all_proxy",
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        environment |= {
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": self.hub.url,
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CHILD, str(self.lock), *actions],
            env=environment | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *actions: str) -> list[dict[str, Any]]:
        return self.finish(self.start(*actions))

    def finish(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        output, self.stderr = process.communicate(timeout=60)
        assert process.returncode == 0, self.stderr
        assert "Traceback" not in self.stderr
        outcomes = [json.loads(line) for line in output.splitlines()]  # nothing else on stdout
        assert not any(outcome["torch"] for outcome in outcomes)
        return outcomes

    def in_cache(self) -> dict[str, bytes]:
        """Every file that holds content in the hub cache, by name."""
        beside = (".lock", ".refs", ".TAG")
        return {
            path.name: path.read_bytes()
            for path in self.storage.parent.rglob("*")
            if path.is_file() and not path.is_symlink() and path.suffix not in beside and path.name[0] != "."
        }

    def assert_right(self) -> None:
        assert {path.name: path.read_bytes() for path in self.snapshot.iterdir()} == CONTENT


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with FakeHub() as hub:
        for name, content in CONTENT.items():
            hub.add(REPOSITORY, REVISION, name, content, large=name != CONFIG)
        yield Bench(hub, tmp_path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def locked(**sizes_and_hashes: tuple[int | None, str | None]) -> tuple[LockedFile, ...]:
    """Lock entries of the demo's files; by the first word of the name."""
    return tuple(LockedFile(name, *sizes_and_hashes.get(name.split(".")[0], (None, None))) for name in CONTENT)


ALL_LOCKED = tuple(LockedFile(name, len(content), sha256(content)) for name, content in CONTENT.items())


def dead_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("files", [locked(), ALL_LOCKED], ids=["no hashes in the lock", "hashes in the lock"])
def test_first_download_then_cached_then_offline(bench: Bench, files: tuple[LockedFile, ...]) -> None:
    bench.files = files
    before, first, after = bench.run("locate", "fetch", "locate")
    assert before["value"] is None
    assert first["value"] == after["value"] == str(bench.snapshot)
    bench.assert_right()
    assert sorted(path.name for path in (bench.storage / "blobs").iterdir()) == sorted(map(bench.stated, CONTENT))
    # Each file was hashed once, and transferred once.
    assert sorted(first["hashed"]) == sorted(CONTENT)
    assert [len(bench.hub.bodies(name)) for name in CONTENT] == [1, 1, 1]

    bench.hub.requests.clear()
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": dead_port()}):
        bench.environment = environment
        cached, located, verified = bench.run("fetch", "locate", "verify")
        assert cached["value"] == located["value"] == str(bench.snapshot)
        assert cached["hashed"] == []
        assert verified["value"] == dict.fromkeys(CONTENT, "ok")
        assert len(verified["hashed"]) >= 3
    assert bench.hub.requests == []


def test_the_cache_is_shared(bench: Bench) -> None:
    assert bench.run("transformers")[0]["value"] == str(bench.snapshot / TOKENIZER)
    bench.hub.requests.clear()
    outcomes = bench.run("fetch", "fetch")
    assert outcomes[0]["value"] == str(bench.snapshot)
    assert [len(outcome["hashed"]) for outcome in outcomes] == [3, 0]
    assert bench.hub.requests == []


def test_only_absent_files_are_downloaded(bench: Bench) -> None:
    bench.run("fetch")
    (bench.snapshot / MODEL).unlink()
    (bench.snapshot / TOKENIZER).resolve().unlink()
    bench.hub.requests.clear()
    located, verified, fetched = bench.run("locate", "verify", "fetch")
    assert located["value"] is None
    assert verified["value"] == {CONFIG: "ok", MODEL: "absent", TOKENIZER: "absent"}
    assert fetched["value"] == str(bench.snapshot)
    bench.assert_right()
    # The model's blob was still there: only the link was made again.
    assert [len(bench.hub.bodies(name)) for name in CONTENT] == [0, 0, 1]


@dataclass(frozen=True)
class Refusal:
    """What goes wrong, and what the user is told."""

    error: str
    message: str
    hint: str
    faults: dict[str, Fault] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    asked: int | None = None  # how often the hub was asked, where that matters


REFUSALS = {
    "unknown revision": Refusal(
        "DownloadError", f"the pinned revision {'f' * 40} does not exist", "weights.lock",
        changes={"revision": "f" * 40},
    ),
    "unknown repository": Refusal(
        "DownloadError", "no such repository", "HF_TOKEN", changes={"repository": "owner/none"}, asked=1
    ),
    "gated": Refusal(
        "DownloadError", "gated", "/owner/demo", faults={CONFIG: Fault(status=403, code="GatedRepo")}, asked=1
    ),
    "429": Refusal(
        "DownloadError", "HTTP 429", "wait", faults={CONFIG: Fault(status=429, headers={"Retry-After": "97200"})},
        asked=1,
    ),
    "500": Refusal("DownloadError", "HTTP 500", "later", faults={CONFIG: Fault(status=500)}, asked=3),
    "connection refused": Refusal(
        "DownloadError", "cannot reach http://127.0.0.1:", "use argument `model`=tiny, which needs no download",
        environment={"HF_ENDPOINT": dead_port()},
    ),
    "offline and not in the cache": Refusal(
        "DownloadError", "offline mode is on, and the file is not in the cache at",
        "`tipsseg weights download demo` on another machine and copy its cache to /",
        environment={"HF_HUB_OFFLINE": "1"}, asked=0,
    ),
    "cache cannot be written": Refusal(
        "DownloadError", "cannot use the cache", "HF_HOME", environment={"HF_HOME": "/dev/null/hf"}
    ),
    "too large for the disk": Refusal(
        "DownloadError",
        "the download needs 1,152,921,504,606,967,000 bytes",  # all of them together
        "Free some space",
        faults={MODEL: Fault(headers={"X-Linked-Size": str((1 << 60) - 1)})},
        asked=3,
    ),
    "broken off again and again": Refusal(
        "DownloadError", "the transfer failed", "Run the command again", faults={MODEL: Fault(cut=1000)}
    ),
    "wrong bytes, by the lock's hash": Refusal(
        "IntegrityError", f"sha256 expected {sha256(CONTENT[TOKENIZER])}, got {sha256(WRONG)}", "again",
        faults={TOKENIZER: Fault(content=WRONG)}, changes={"files": ALL_LOCKED},
    ),
    "the hub states another hash than the lock": Refusal(
        "IntegrityError", f"sha256 expected {'a' * 64}, got {sha256(CONTENT[MODEL])}", "disagree",
        changes={"files": locked(model=(None, "a" * 64))},
    ),
}  # fmt: skip


@pytest.mark.slow  # a process per case
@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(bench: Bench, case: str) -> None:
    refusal = REFUSALS[case]
    bench.hub.faults = refusal.faults
    address = bench.hub.url.removeprefix("http://")
    bench.environment = {name: value.replace("{hub}", address) for name, value in refusal.environment.items()}
    for name, value in refusal.changes.items():
        setattr(bench, name, value)
    started = time.monotonic()
    (outcome,) = bench.run("fetch")
    assert time.monotonic() - started < 20
    assert outcome.get("error") == refusal.error, outcome
    assert refusal.message in outcome["message"]
    assert refusal.hint in outcome["hint"]
    assert "\n" not in outcome["message"] + outcome["hint"]
    if refusal.asked is not None:
        assert len(bench.hub.requests) == refusal.asked
    if refusal.error == "IntegrityError":
        assert Path(outcome["path"]).parent == bench.snapshot
        assert not Path(outcome["path"]).exists()
        # Nothing is kept of it: what is there is right, and no part lies about.
        assert set(bench.in_cache().values()) <= set(CONTENT.values())
    if MODEL in refusal.faults or TOKENIZER in refusal.faults:  # when the hub has recovered, so has the rest
        bench.hub.faults = {}
        bench.environment = {}
        assert bench.run("fetch")[0].get("value") == str(bench.snapshot)
        bench.assert_right()


BIG = bytes(range(256)) * (24 << 12)  # 24 MiB: huggingface_hub writes in pieces of 10 MiB


def test_a_broken_connection_is_taken_up_again(bench: Bench) -> None:
    bench.hub.add(REPOSITORY, REVISION, MODEL, BIG, large=True)
    bench.hub.faults = {MODEL: Fault(cut=15 << 20, methods=("GET",), times=1)}
    assert bench.run("fetch")[0]["value"] == str(bench.snapshot)
    assert [request.range for request in bench.hub.bodies(MODEL)] == [None, f"bytes={10 << 20}-"]
    assert (bench.snapshot / MODEL).read_bytes() == BIG


def test_a_hub_that_is_down_for_a_moment_is_asked_again(bench: Bench) -> None:
    bench.hub.faults = {MODEL: Fault(status=503, times=2), TOKENIZER: Fault(status=503, times=2, methods=("GET",))}
    assert bench.run("fetch")[0].get("value") == str(bench.snapshot)
    bench.assert_right()


def test_killed_half_way(bench: Bench) -> None:
    bench.hub.faults = {MODEL: Fault(stall=150_000, methods=("GET",), times=1)}
    process = bench.start("fetch")
    assert bench.hub.stalled.wait(30)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (bench.snapshot / MODEL).exists()
    assert bench.run("fetch")[0]["value"] == str(bench.snapshot)
    bench.assert_right()


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "a file system without locks"])
def test_two_processes_at_once(bench: Bench, locks: bool) -> None:
    bench.environment = {} if locks else {"NO_LOCKS": "1"}
    bench.hub.faults = {MODEL: Fault(delay=1.0, methods=("GET",))}
    processes = [bench.start("fetch") for _ in range(2)]
    for process in processes:
        assert bench.finish(process)[0].get("value") == str(bench.snapshot)
    bench.assert_right()
    if locks:
        assert [len(bench.hub.bodies(name)) for name in CONTENT] == [1, 1, 1]  # one downloads, the other waits
    assert len(bench.hub.bodies(MODEL)) == (1 if locks else 2)
    assert sorted(bench.in_cache().values()) == sorted(CONTENT.values())


def test_xet_brings_a_file(bench: Bench) -> None:
    bench.environment = {"HF_TOKEN": "hf_secret"}
    bench.hub.add(REPOSITORY, REVISION, MODEL, CONTENT[MODEL], large=True, xet=True)
    assert bench.run("fetch")[0].get("value") == str(bench.snapshot)
    bench.assert_right()
    (body,) = bench.hub.bodies(MODEL)
    assert "hf_xet" in (body.agent or "")
    assert not [request for request in bench.hub.requests if request.content_server and "hf_" in (request.token or "")]
    assert bench.run("fetch", "verify")[1]["value"][MODEL] == "ok"


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault(content=CONTENT[MODEL][::-1]), "IntegrityError"), (Fault(status=404, methods=("GET",)), "DownloadError")],
    ids=["wrong bytes", "unknown to it"],
)
def test_what_xet_does_wrong_does_not_stay(bench: Bench, fault: Fault, error: str) -> None:
    bench.hub.add(REPOSITORY, REVISION, MODEL, CONTENT[MODEL], large=True, xet=True)
    bench.hub.faults = {MODEL: fault}
    (outcome,) = bench.run("fetch")
    assert outcome.get("error") == error, outcome
    assert set(bench.in_cache().values()) <= set(CONTENT.values())
    bench.hub.faults = {}
    assert bench.run("fetch")[0].get("value") == str(bench.snapshot)
    bench.assert_right()


@pytest.mark.slow
@dataclass(frozen=True)
class Damage:
    """What became of a cached file, and which check finds it."""

    files: tuple[LockedFile, ...]
    name: str
    content: bytes
    what: str


DAMAGES = {
    "other bytes": Damage(ALL_LOCKED, MODEL, CONTENT[MODEL][::-1], "sha256"),
    "truncated": Damage(ALL_LOCKED, CONFIG, CONTENT[CONFIG][:9], "size"),
}


@pytest.mark.parametrize(
    ("case", "action"), [*((case, "fetch") for case in DAMAGES), ("other bytes", "verify"), ("truncated", "verify")]
)
def test_a_cached_file_that_changed(bench: Bench, case: str, action: str) -> None:
    damage = DAMAGES[case]
    name, content, what = damage.name, damage.content, damage.what
    bench.files = damage.files
    bench.run("fetch")
    blob = (bench.snapshot / name).resolve()
    blob.write_bytes(content)
    bench.hub.requests.clear()
    refused, again = bench.run(action, "fetch")
    assert (refused["error"], refused["what"]) == ("IntegrityError", what)
    assert refused["path"] == str(bench.snapshot / name)
    if what == "size":
        assert (refused["expected"], refused["got"]) == (f"{len(CONTENT[name])} bytes", f"{len(content)} bytes")
    if what == "sha256":
        assert (refused["expected"], refused["got"]) == (sha256(CONTENT[name]), sha256(content))
    assert again["value"] == str(bench.snapshot)
    bench.assert_right()
    assert {request.name for request in bench.hub.requests} == {name}


def test_nothing_outside_the_cache_is_removed(bench: Bench) -> None:
    bench.run("fetch")
    mine = bench.folder / "mine.model"
    mine.write_bytes(WRONG)
    link = bench.snapshot / TOKENIZER
    link.unlink()
    link.symlink_to(mine)
    bench.files = ALL_LOCKED
    (refused,) = bench.run("fetch")
    assert refused["error"] == "IntegrityError"
    assert not link.is_symlink()
    assert mine.read_bytes() == WRONG


def test_a_cache_without_symbolic_links(bench: Bench) -> None:
    bench.environment = no_links = {"NO_LINKS": "1", "HF_HUB_DISABLE_SYMLINKS_WARNING": "1"}
    assert bench.run("fetch")[0].get("value") == str(bench.snapshot)
    bench.assert_right()
    assert not any(path.is_symlink() for path in bench.snapshot.iterdir())
    assert len(bench.in_cache()) == 3  # and not each file twice

    bench.hub.requests.clear()
    bench.environment = offline = {**no_links, "HF_HUB_OFFLINE": "1"}
    cached, verified = bench.run("fetch", "verify")
    assert (cached.get("value"), cached["hashed"]) == (str(bench.snapshot), [])
    assert verified["value"] == dict.fromkeys(CONTENT, "ok")

    for stamp in (bench.folder / "cache").rglob("*.json"):
        stamp.unlink()
    refused, unknown = bench.run("fetch", "verify")
    assert refused["error"] == "DownloadError"
    assert "cannot verify" in refused["message"]
    assert "offline mode is on" in refused["message"]
    assert "tipsseg weights download demo" in refused["hint"]
    assert unknown["value"] == dict.fromkeys(CONTENT, "unknown")
    assert bench.hub.requests == []

    bench.environment = no_links
    assert bench.run("fetch")[0].get("value") == str(bench.snapshot)
    assert {request.method for request in bench.hub.requests} == {"HEAD"}

    bench.environment = offline
    (bench.snapshot / MODEL).write_bytes(b"changed")
    assert bench.run("fetch")[0]["error"] == "IntegrityError"
    assert not (bench.snapshot / MODEL).exists()


def test_lock_writes_what_the_hub_states(bench: Bench) -> None:
    assert "error" not in bench.run("lock")[0]
    assert read_lock(bench.lock)["demo"].files == ALL_LOCKED
    # Only the small file, whose sha256 the hub does not state, was downloaded.
    assert [len(bench.hub.bodies(name)) for name in CONTENT] == [1, 0, 0]

    bench.files = locked(tokenizer=(None, "a" * 64))
    outcome = bench.run("lock")[0]
    assert (outcome["error"], outcome["expected"], outcome["got"]) == (
        "IntegrityError", "a" * 64, sha256(CONTENT[TOKENIZER]),
    )  # fmt: skip
    assert read_lock(bench.lock)["demo"].files == bench.files

    bench.files = locked()
    bench.hub.faults = {MODEL: Fault(status=500)}
    assert bench.run("lock")[0]["error"] == "DownloadError"
    assert read_lock(bench.lock)["demo"].files == bench.files


def test_the_token_goes_to_the_hub_only(bench: Bench) -> None:
    bench.environment = {"HF_TOKEN": "hf_secret"}
    bench.run("fetch")
    assert {request.token for request in bench.hub.requests if not request.content_server} == {"Bearer hf_secret"}
    assert {request.token for request in bench.hub.requests if request.content_server} == {None}


@pytest.mark.parametrize(("action", "bars"), [("fetch", True), ("quiet", False)])
def test_progress_is_on_stderr(bench: Bench, action: str, bars: bool) -> None:
    bench.environment = {"TQDM_POSITION": "-1"}  # shows bars though stderr is no terminal
    bench.run(action)
    assert (MODEL in bench.stderr) is bars
    assert bars or bench.stderr == ""
