"""`--engine ray` on a Ray of this machine: the same files as a local run, and what is made of all that goes wrong."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
import ray
from entries import entry_of
from PIL import Image
from running import run_command

from tipsseg.errors import CheckpointError, ImageError, TipssegError
from tipsseg.formats import FORMATS, IMAGE_FORMATS
from tipsseg.options.run import Ray
from tipsseg.run.plan import plan_run
from tipsseg.run.record import run_context
from tipsseg.run.results import Failed, Labelled, Left, Unchanged
from tipsseg.run.spec import Counts, RunInfo, RunSpec
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.inputs import find
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine import ray_engine
from tipsseg.runs.engine.engine import Engine, LocalEngine
from tipsseg.runs.engine.ray_engine import RayEngine
from tipsseg.runs.label.run import run_label
from tipsseg.types import ImageRef
from tipsseg.vocabulary.vocabulary import make_vocabulary

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = REPOSITORY / "tipsseg" / "assets" / "tiny"
SCENES = REPOSITORY / "examples" / "scenes"
CPUS = 2


@pytest.fixture(scope="module", autouse=True)
def running_ray() -> Iterator[None]:
    """One Ray for all tests: to start it takes longer than to label."""
    ray.init("local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has the drawn scenes, one of them broken."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SCENES, "imgs")
    broken = Path("imgs/street/broken.png")
    broken.write_bytes(Path("imgs/desert.png").read_bytes()[:300])
    return Path("imgs")


def run_for(output: str, model: str = "tiny") -> RunInfo:
    vocabulary = make_vocabulary(["panda", "tree"])
    spec = RunSpec(model=model, vocabulary=vocabulary, formats=IMAGE_FORMATS, output=Path(output), device="cpu", jobs=2)
    spec.check()
    return plan_run(spec)


def label(info: RunInfo, engine: Engine) -> Counts:
    found = find([Path("imgs")], output=info.spec.output)
    with Progress(quiet=True) as progress:
        return run_label(info, Images(found.refs, found.root), engine, progress)


def label_with_ray(info: RunInfo, actors: int = 1) -> Counts:
    with RayEngine(info, Ray(actors)) as engine:
        return label(info, engine)


def contents(folder: str) -> dict[str, bytes]:
    """All files, but for times, and for the size of batches, which with Ray each actor has its own of."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name != "state.db"
    }
    lines = [json.loads(line) for line in found["manifest.jsonl"].splitlines()]
    run = json.loads(found["run.json"])
    for each in (written for line in lines for written in line["written"]):
        del each["mtime_ns"]
    run = {key: value for key, value in run.items() if key not in ("started", "ended", "batch_size")}
    run["command"] = re.sub(
        r" --(output|ray) \S+", "", run["command"]
    )  # the folders that are compared have other names
    found["manifest.jsonl"] = json.dumps([line | {"seconds": 0} for line in lines]).encode()
    found["run.json"] = json.dumps(run, sort_keys=True).encode()
    return found


def wait_for_free_cpus() -> None:
    """Wait until no actor holds a CPU any more."""
    until = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < CPUS:
        assert time.monotonic() < until, "actors are left"
        time.sleep(0.1)


def test_files_and_stdout_are_those_of_a_local_run() -> None:
    asked = f"label imgs -c panda,tree -m tiny -f {','.join(IMAGE_FORMATS)} --device cpu --jobs 2".split()
    local = run_command(*asked, "-o", "local")
    with_ray = run_command(*asked, "-o", "ray", "--ray", 2)
    assert (with_ray.code, local.code) == (1, 1)
    assert contents("ray") == contents("local")
    of_images = sum((each.link_folder is not None) for each in FORMATS.values())
    of_runs = sum(len(each.files) for each in FORMATS.values())
    lines = [json.loads(line) for line in Path("ray/manifest.jsonl").read_bytes().splitlines()]
    assert len(lines) == 12
    of_all = sum(of_images + len(line["files"]) for line in lines)
    assert len(contents("ray")) == of_all + of_runs + len(["classes", "run", "manifest", "errors"])
    assert with_ray.out == local.out.replace("local/", "ray/")
    assert "imgs/street/broken.png" in with_ray.err
    wait_for_free_cpus()


def test_actors_take_features_from_a_store_and_add_them() -> None:
    """The store is that of a local run, byte for byte; and the second time no actor reads a tower."""

    def with_store(output: str, store: str, *names: str) -> RunInfo:
        spec = replace(run_for(output).spec, features=Path(store), formats=("png", "coco"))
        return plan_run(replace(spec, vocabulary=make_vocabulary(names)))

    def features(store: str) -> dict[str, bytes]:
        return {str(path.relative_to(store)): path.read_bytes() for path in Path(store).rglob("*") if path.is_file()}

    def label_here(info: RunInfo) -> Counts:
        return label(info, LocalEngine(info, note=print))

    assert label_here(with_store("local", "own", "panda", "tree")) == Counts(labelled=12, failed=1)
    assert label_with_ray(with_store("ray", "shared", "panda", "tree"), actors=2) == Counts(labelled=12, failed=1)
    assert features("shared") == features("own")
    assert len(features("own")) == 13
    assert label_here(with_store("local again", "own", "boat")) == Counts(labelled=12, failed=1)
    before = features("shared")
    assert label_with_ray(with_store("ray again", "shared", "boat")) == Counts(labelled=12, failed=1)
    assert features("shared") == before
    for one, other in (("ray", "local"), ("ray again", "local again")):
        for path in Path(other).rglob("*.png"):
            assert path.read_bytes() == (Path(one) / path.relative_to(other)).read_bytes()


def test_outcomes_come_in_order_and_as_the_images_come() -> None:
    """An image is labelled though no other has come; and of many that have come, not all are taken at once."""
    taken = 0
    first_done = threading.Event()
    entry = entry_of("known", {})

    def items() -> Iterator[Left]:
        nonlocal taken
        for number in range(1000):
            if number == 1:
                assert first_done.wait(60)
            taken += 1
            ref = ImageRef(Path("imgs/desert.png"), PurePosixPath(f"{number}.png"))
            if number % 50 == 7:
                yield Unchanged(ref, entry)
            elif number % 50 == 8:
                yield Failed(ref, ImageError(ref.path, "no image"))
            else:
                yield ImageRef(Path("imgs/street/broken.png"), ref.relative) if number % 50 == 9 else ref

    info = run_for("out")
    with RayEngine(info, Ray(2)) as engine:
        engine.start(run_context(info))
        with closing(engine.results(items())) as outcomes:
            kinds = []
            for number, outcome in enumerate(outcomes):
                first_done.set()
                assert outcome.ref.name == f"{number}.png"
                assert taken - number <= 130
                kinds.append(type(outcome))
                if number == 20:
                    break
    assert kinds == [Labelled] * 7 + [Unchanged, Failed, Failed] + [Labelled] * 11
    assert not list(Path("out").rglob(".tipsseg-*"))
    wait_for_free_cpus()


def test_what_fails_in_a_local_run_fails_in_this_one_in_the_same_words() -> None:
    Path("elsewhere").mkdir()
    errors = []
    for run in (lambda info: label(info, LocalEngine(info, note=print)), label_with_ray):
        Path("out").mkdir()
        Path("out/masks").symlink_to("../elsewhere")
        assert run(run_for("out")) == Counts(failed=13)
        errors.append([json.loads(line) for line in Path("out/errors.jsonl").read_bytes().splitlines()])
        assert list(Path("elsewhere").iterdir()) == []
        shutil.rmtree("out")
    assert errors[0] == errors[1]
    assert errors[0][0]["reason"].startswith(
        "cannot write out/masks/beach/holiday.png: a link leads out of the output folder"
    )
    wait_for_free_cpus()


def test_a_model_that_cannot_be_loaded_is_told_as_in_a_local_run() -> None:
    shutil.copytree(TINY, "model")
    info = run_for("out", "./model")
    Path("model/model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError) as local:
        LocalEngine(info, note=print).start(run_context(info))
    with pytest.raises(CheckpointError) as raised, RayEngine(info, Ray(1)) as engine:
        engine.start(run_context(info))
    assert vars(raised.value) == vars(local.value)
    wait_for_free_cpus()


def actors_alive() -> list[int]:
    """The processes of actors, of any that are no zombies."""
    return [pid for pid, line in processes() if line.startswith("ray::LabelActor")]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for actors in /proc")
def test_actors_that_are_killed_are_replaced_and_the_files_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_BATCH", 2)  # few images are under way, so that many come after each kill
    for number, path in enumerate(sorted(each for each in Path("imgs").rglob("*.*g") if each.name != "broken.png")):
        for turn in range(4):
            with Image.open(path) as image:
                image.convert("RGB").resize((60, 40)).rotate(90 * turn).save(f"imgs/{number}-{turn}.png")
    shutil.rmtree("imgs/meadow")
    found = find([Path("imgs")], output=Path("ray"))
    local = run_for("local")
    wanted = label(local, LocalEngine(local, note=print))
    assert wanted.labelled >= 40

    chance, killed = random.Random(1), list[int]()
    moments = chance.sample(range(10, 40), 3)

    def refs(found: Iterable[ImageRef | Failed]) -> Iterator[ImageRef | Failed]:
        for number, ref in enumerate(found):
            if number in moments:
                until = time.monotonic() + 60
                while not (alive := [pid for pid in actors_alive() if pid not in killed]):
                    assert time.monotonic() < until, "no actor is left"
                    time.sleep(0.05)
                killed.append(chance.choice(alive))
                os.kill(killed[-1], signal.SIGKILL)
            yield ref

    info = run_for("ray")
    with Progress(quiet=True) as progress, RayEngine(info, Ray(CPUS)) as engine:
        counts = run_label(info, Images(refs(found.refs), found.root), engine, progress)
    assert len(killed) == 3
    assert counts == wanted
    assert contents("ray") == contents("local")
    wait_for_free_cpus()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for actors in /proc")
def test_actors_that_die_over_and_over_end_the_run() -> None:
    ended = threading.Event()

    def kill_all() -> None:
        while not ended.wait(0.05):
            for pid in actors_alive():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with (
            pytest.raises(TipssegError, match=r"^4 actors died while they loaded the model: ") as raised,
            RayEngine(run_for("out"), Ray(1)) as engine,
        ):
            engine.start(run_context(run_for("out")))
    finally:
        ended.set()
        killer.join()
    assert "out of memory" in raised.value.hint
    wait_for_free_cpus()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for actors in /proc")
def test_an_image_that_kills_each_actor_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_DEATHS", 2)  # each actor imports torch
    first_done = threading.Event()

    def items() -> Iterator[Left]:
        yield ImageRef(Path("imgs/desert.png"), PurePosixPath("0.png"))
        assert first_done.wait(60)
        Image.new("L", (8000, 8000)).save("large.png")  # so large that an actor is met at work on it
        Path("large.png").rename("die.png")
        yield ImageRef(Path("die.png"), PurePosixPath("1.png"))

    info = run_for("out")
    with RayEngine(info, Ray(1)) as engine:
        engine.start(run_context(info))
        stopped = threading.Event()

        def kill_at_work() -> None:
            while not stopped.wait(0.05):
                for pid, line in processes():
                    if Path("die.png").exists() and line.startswith("ray::LabelActor.label"):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_at_work)
        killer.start()
        try:
            with closing(engine.results(items())) as results:
                assert next(results).ref.name == "0.png"
                first_done.set()
                with pytest.raises(TipssegError, match=r"^2 actors died while they labelled die\.png: "):
                    next(results)
        finally:
            stopped.set()
            killer.join()
    wait_for_free_cpus()


def processes() -> Iterator[tuple[int, str]]:
    """The number and the command line of each process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue


@pytest.fixture
def own_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where processes below start a Ray of their own; at the end none of its processes may live."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # the names of sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    until = time.monotonic() + 30
    while left := [line for _, line in processes() if str(folder) in line]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
    shutil.rmtree(folder)


def with_own_ray(actors: int) -> list[str]:
    asked = "label imgs -c panda,tree -m tiny -f png -o out --device cpu --jobs 1 --ray"
    return [sys.executable, "-W", "error", "-m", "tipsseg", *asked.split(), str(actors)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_ray_is_started_where_there_is_none_and_ended_by_a_signal(own_ray: Path) -> None:
    for number in range(300):
        shutil.copy("imgs/desert.png", f"imgs/{number:03}.png")
    with subprocess.Popen(with_own_ray(2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == "out/masks/000.png\n"
        assert any(str(own_ray) in line for _, line in processes())
        run.send_signal(signal.SIGTERM)
        out, err = run.stdout.read(), run.stderr.read()
    assert run.returncode == 143, err
    assert "Traceback" not in err
    assert "same command" in err
    assert len(out.splitlines()) < 300
    assert [line for line in out.splitlines() if not line.startswith("out/masks/")] == []
    assert not list(Path("out").rglob(".tipsseg-*.png"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_more_actors_than_the_machine_has_room_for(own_ray: Path) -> None:
    ran = subprocess.run(with_own_ray(9999), capture_output=True, text=True)
    assert ran.returncode == 2, ran.stderr
    assert ran.stdout == ""
    assert "Error: --ray 9999 needs 9999 CPUs, but this machine has " in ran.stderr
