"""`--ray` on a Ray cluster of this machine: the files of a local run, also if a task dies."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from masks import pixels
from PIL import Image
from resuming import contents
from running import Command

from tipsseg.formats import IMAGE_FORMATS
from tipsseg.options.values import index_of
from tipsseg.plugins.cloud import ray as engine

pytestmark = pytest.mark.slow

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
LABEL = ["label", "imgs", "-c", "panda,tree", "-m", "tiny", "--device", "cpu", "-f", ",".join(IMAGE_FORMATS), "-o"]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster with room for two tasks."""
    ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has the drawn scenes, one of them broken."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SCENES, "imgs")
    Path("imgs/street/broken.png").write_bytes(Path("imgs/desert.png").read_bytes()[:300])


def files(folder: str) -> dict[str, bytes]:
    return {
        name: re.sub(rb' --ray \S+| "batch_size": [^,]*,', b"", data) for name, data in contents(Path(folder)).items()
    }


def processes(name: str) -> list[int]:
    """The processes of tasks that are at work on a function."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(f"ray::{name}".encode()):
                found.append(int(path.parent.name))
    return found


def test_files_and_stdout_are_those_of_a_local_run(command: Command) -> None:
    local, with_ray = command(*LABEL, "local"), command(*LABEL, "out", "--ray", "auto")
    assert (with_ray.code, local.code) == (1, 1)
    assert files("out") == files("local")
    assert sorted(with_ray.out.splitlines()) == sorted(local.out.replace("local/", "out/").splitlines())
    assert ("imgs/street/broken.png" in with_ray.err, "12 images labelled, 1 failed" in with_ray.err) == (True, True)
    again = command(*LABEL, "out", "--ray", "auto", "--jsonl")
    assert [json.loads(line)["reason"] for line in again.out.splitlines()] == ["done"] * 12
    assert not Path("out/shards").exists()


@pytest.mark.parametrize("given", ["--regions", "--onto"])
def test_tasks_list_regions_and_labels_themselves(command: Command, given: str) -> None:
    shutil.copytree(SCENES.parent / "truth", "given")
    local, with_ray = (
        command(*LABEL, out, given, "given", *more) for out, *more in (("local",), ("out", "--ray", "auto"))
    )
    assert (with_ray.code, local.code) == (1, 1)
    assert "12 images labelled, 1 failed" in with_ray.err
    assert files("out") == files("local")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for tasks in /proc")
def test_a_task_that_is_killed_is_started_again(command: Command) -> None:
    for number in range(60):
        with Image.open("imgs/desert.png") as image:
            image.convert("RGB").rotate(6 * number).resize((300, 300)).save(f"imgs/{number}.png")
    assert command(*LABEL, "local").code == 1
    killed = list[int]()

    def kill() -> None:
        """Kill one of two tasks, once it has labelled an image."""
        until = time.monotonic() + 120
        while time.monotonic() < until and not killed:
            if list(Path("out").glob("masks/*.png")) and len(tasks := processes("_label")) > 1:
                os.kill(tasks[0], signal.SIGKILL)
                killed.append(tasks[0])
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    ran = command(*LABEL, "out", "--ray", "auto")
    killer.join()
    assert (len(killed), ran.code) == (1, 1)
    assert files("out") == files("local")


def test_a_killed_run_goes_on_and_corrections_stay(command: Command) -> None:
    assert command(*LABEL, "out", "--shard", f"{index_of('desert.png', 8)}/8").code in (0, 1)
    before = Path("out/masks/desert.png").stat()
    assert command(*LABEL, "out", "--ray", "auto").code == 1
    assert Path("out/masks/desert.png").stat().st_ino == before.st_ino
    assert command(*LABEL, "local").code == 1
    assert files("out") == files("local")
    mask = Path("out/masks/desert.png")
    with Image.open(mask) as image:
        Image.new("L", image.size, 2).save(mask)
    mine = pixels(mask)
    shutil.copy("imgs/desert.png", "imgs/new.png")
    assert command(*LABEL, "out", "--ray", "auto", "--min-confidence", "0.5", "--overwrite").code == 1
    lines = list(map(json.loads, Path("out/manifest.jsonl").read_bytes().splitlines()))
    assert (pixels(mask), len(lines)) == (mine, 13)


def test_an_error_that_ends_the_run_is_told_as_in_a_local_run(command: Command) -> None:
    Path("empty").mkdir()
    asked = ["label", "imgs", "-c", "panda", "-m", "empty", "--device", "cpu", "-o"]
    local, with_ray = command(*asked, "local"), command(*asked, "out", "--ray", "auto")
    assert (local.code, with_ray.code, with_ray.err) == (1, 1, local.err)


def test_options_that_ray_excludes_are_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = command(*LABEL, "out", "--ray", "auto", "--shard", "1/2")
    assert (ran.code, "--ray and --shard exclude each other" in ran.err) == (2, True)
    ran = command("label", "-", *LABEL[2:], "out", "--ray", "auto", stdin=b"imgs/desert.png\n")
    assert (ran.code, "list on stdin" in ran.err, "--shard 1/8" in ran.err) == (2, True, True)
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    ran = command(*LABEL, "out", "--ray", "auto")
    assert (ran.code, "pip install 'tipsseg[ray]'" in ran.err) == (2, True)
