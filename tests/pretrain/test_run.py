"""Training by the recipe from the command line: drawn scenes and own pictures, going on after a break, and what comes out."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from drawn_scenes import SCENES, ShareImages
from PIL import Image

import tipsseg
from tinytips import ablate, evaluate, plot, pretrain, probe, prototypes, retrieval
from tinytips.data.store import drawn
from tinytips.data.views import make_views
from tinytips.pretrain import FIRST_SEED, Plan, Run, load_run
from tinytips.prototypes import answers, describe
from tinytips.recipe.network import SIZES, make_model
from tinytips.recipe.step import Recipe
from tinytips.retrieval import recall_at_1
from tipsseg.backbones.tipsv2 import checkpoint
from tipsseg.weights import fetching, lock

PRETRAIN = Path(__file__).resolve().parents[2] / "examples" / "pretrain"
TINY = Path(tipsseg.__file__).parent / "assets" / "tiny"


README = PRETRAIN / "README.md"
COMMANDS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (pretrain, evaluate, retrieval, probe, prototypes, ablate, plot)
}

#: A command of the package, as a process.
PROCESS = (sys.executable, "-m")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PRETRAIN), os.environ.get("PYTHONPATH", "")])}


class Train(Protocol):
    """`tinytips.pretrain` in this process: the lines of the log that it prints, and a batch of three."""

    def __call__(self, work: Path, *options: object) -> list[dict[str, Any]]: ...


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Train:
    def run(work: Path, *options: object) -> list[dict[str, Any]]:
        arguments = ["--work", work / "run", "--out", work / "model", "--batch-size", 3, *options]
        pretrain.main([str(argument) for argument in arguments])
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def copy_tokenizer(folder: Path) -> None:
    """The one of the embedded model: to train one takes longer than all else here."""
    folder.mkdir(exist_ok=True)
    shutil.copy(TINY / "tokenizer.model", folder)


def said(capture: pytest.CaptureFixture[str]) -> str:
    """What is on stderr, in one line: argparse breaks it at the terminal's width."""
    return " ".join(capture.readouterr().err.split())


@pytest.mark.slow
def test_a_trained_model_labels(tmp_path: Path, share_images: ShareImages) -> None:
    """Train in a process of its own, with a tokenizer trained there; the log has its memory."""
    share_images(tmp_path)
    options = ["--work", "run", "--out", "model", "--batch-size", "3", "--scenes", str(SCENES), "--steps", "2"]
    command = [*PROCESS, "tinytips.pretrain", *options]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    line = json.loads(ran.stdout)
    assert line["step"] == 2
    assert line["total"] == pytest.approx(line["contrastive"])  # the others begin later
    assert min(line[name] for name in ("dino", "masked", "visible")) > 1
    assert 0 <= line["miou_parts"] < 0.1
    assert 0 <= line["miou_whole"] < 0.1
    assert line["seconds_a_step"] > 0
    assert 50 < line["peak_mb"] < 3000
    labeller = tipsseg.Labeller(tipsseg.load(str(tmp_path / "model"), device="cpu"), tipsseg.make_vocabulary(["tree"]))
    assert labeller.label(np.zeros((60, 80, 3), np.uint8)).labels.shape == (60, 80)


def test_a_run_that_was_broken_off_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    """Both runs plan four steps, because the learning rate depends on the plan."""
    store = tmp_path / "store"

    def run(work: str, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
        images = drawn(store, 4, 1, 168)
        copy_tokenizer(tmp_path / work)
        for stop in stops:
            made = Run(tmp_path / work, Plan(Recipe(), 4))
            for step in range(made.done, stop):
                made.step(make_views(images, (1, step), 3, 112, Recipe()))
            made.save()
        return made.module.state_dict()

    whole, broken = run("whole", (4,)), run("broken", (2, 4))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


@pytest.mark.slow
def test_a_model_can_be_trained_on_smaller_images_first(
    train: Train, tmp_path: Path, share_images: ShareImages
) -> None:
    """With positions that are interpolated; what is written has its own size still. In half precision, as one would."""
    share_images(tmp_path / "later")
    copy_tokenizer(tmp_path / "run")
    options = "--scenes", SCENES, "--steps", 1, "--side", 56, "--bfloat16"
    (line,) = train(tmp_path, *options)
    run = load_run(tmp_path / "run")
    assert (run.side, run.plan.bfloat16, run.module.student.config.vision.image_size) == (56, True, 112)
    (later,) = train(tmp_path / "later", "--start", tmp_path / "model", "--scenes", SCENES, "--steps", 1)
    assert 0 < line["contrastive"] < 5 > later["contrastive"] > 0
    assert checkpoint.load_tipsv2(tmp_path / "later" / "model", torch.device("cpu"), torch.float32)[0].config == (
        run.module.student.config
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--patches", "masked", "--seed", "7"], "holds a run with other --patches, --seed"),
    ],
)
def test_a_run_goes_on_with_its_own_options_only(
    options: list[str], reason: str, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that ended before its first step, here by a list of pictures that is empty."""
    (tmp_path / "list.jsonl").touch()
    asked = ["--pictures", tmp_path / "list.jsonl", "--start", TINY, "--steps", 1]
    for more, expected in ([], "list.jsonl: no pictures"), (options, reason), ([], "list.jsonl: no pictures"):
        with pytest.raises(SystemExit) as caught:
            train(tmp_path, *asked, *more)
        assert caught.value.code == 2
        assert expected in said(capsys)


def test_own_pictures_and_a_model_to_start_from(train: Train, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (230, 300, 3), np.uint8)).save(tmp_path / name)
    lines = [
        {"image": name, "caption": f"a {colour} picture"} for name, colour in (("a.png", "red"), ("b.png", "blue"))
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    start = fetching.fetch(lock.get_model("tiny"))
    (line,) = train(tmp_path, "--pictures", tmp_path / "list.jsonl", "--start", start, "--steps", 1)
    assert line["step"] == 1
    before, _ = checkpoint.load_tipsv2(start, torch.device("cpu"), torch.float32)
    after, _ = checkpoint.load_tipsv2(tmp_path / "model", torch.device("cpu"), torch.float32)
    assert before.config == after.config
    old, new = before.state_dict(), after.state_dict()
    moved = {name: (old[name] - new[name]).abs().max().item() for name in old}
    assert 0 < max(moved.values()) < 0.05  # one small step away


@pytest.mark.parametrize(
    ("names", "expected"), [(("a", "b", "c"), 1 / 3), (("a", "b", "b"), 1.0), (("a", "a", "b"), 1 / 3)]
)
def test_recall_counts_the_own_caption(names: tuple[str, ...], expected: float) -> None:
    queries = torch.eye(3)
    found = torch.tensor([[2.0, 0, 0], [0, 0, 1], [0, 1, 0]])  # the second and the third find each other
    assert recall_at_1(queries, found, names) == pytest.approx(expected)


def test_a_probe_separates_features_that_are_the_truth() -> None:
    """Features that are the truth plus a constant are classified without an error."""
    labels = torch.randint(0, 5, (400,), generator=torch.Generator().manual_seed(1))
    features = torch.nn.functional.one_hot(labels, 5) + torch.tensor([3.0, 1, 0, 0, 0])
    weights = probe.fit(torch.nn.functional.pad(features, (0, 1), value=1.0), labels, 5)
    assert weights.shape == (6, 5)
    assert (torch.nn.functional.pad(features, (0, 1), value=1.0) @ weights).argmax(1).equal(labels)


def test_a_probe_measures_the_features(tmp_path: Path) -> None:
    store = drawn(tmp_path, 24, 30_000_000, 168)
    torch.manual_seed(1)
    tower = make_model(SIZES["small"], 100).vision_encoder
    before = probe.probe(tower, store)
    assert before == probe.probe(tower, store)
    assert 0.05 < before < 0.6  # colours alone tell something
    torch.nn.init.zeros_(tower.patch_embed.proj.weight)  # blind
    assert probe.probe(tower, store) < before / 2


def test_prototypes_by_hand() -> None:
    """Four patches of two kinds, three prototypes: the first two answers are one half of each kind, the others are sure."""
    targets = torch.tensor([[0.9, 0.1, 0], [0.9, 0.1, 0], [0, 0, 1], [0, 0, 1]])
    found = describe(targets, torch.tensor([1, 2, 2, 2]))
    mean = [0.45, 0.05, 0.5]
    assert found["in use"] == pytest.approx(np.exp(-sum(p * np.log(p) for p in mean)), rel=1e-5)
    assert found["an answer"] == pytest.approx(np.exp(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)) / 2), rel=1e-5)
    assert found["purity"] == 0.75
    assert found["one for all"] == 0.75


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["head", "full"])
def test_a_run_is_read_back_with_its_teacher(
    teacher: str, train: Train, tmp_path: Path, share_images: ShareImages
) -> None:
    share_images(tmp_path)
    copy_tokenizer(tmp_path / "run")
    train(tmp_path, "--scenes", SCENES, "--steps", 1, "--teacher", teacher, "--seed", 5)
    run = load_run(tmp_path / "run")
    assert run.done == 1
    assert (run.module.teacher_backbone is None) == (teacher == "head")
    store = drawn(tmp_path / "images", SCENES, FIRST_SEED, 168)
    before = answers(run, store)
    assert before.shape == (3, 64, 256)
    with torch.no_grad():  # the student is not asked where there is an average of it
        run.module.student.vision_encoder.norm.weight[::2].neg_()
    assert torch.equal(before, answers(run, store)) == (teacher == "full")


@pytest.mark.parametrize(
    ("command", "options", "reason"),
    [
        (pretrain, "--work w --out m --dense --pictures x.jsonl", "--dense needs ground-truth masks"),
        (pretrain, "--work w --out m --steps 0", "argument --steps: '0' is no whole number above 0"),
        (prototypes, "--work w --run gone", "gone: no run of tinytips.pretrain"),
        (plot, "--results w/results.json --out x.png", "tinytips.ablate writes it when all its runs are done"),
        (retrieval, "--work w --model gone", "error: gone/config.json: no such file"),
        (evaluate, "--model gone --scenes 1", "Error: unknown model 'gone'"),  # as a process of tipsseg says it
    ],
)
def test_mistakes_on_the_command_line(
    command: ModuleType,
    options: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        command.main(options.split())
    assert caught.value.code == 2
    assert reason in said(capfd)
    assert not list(tmp_path.iterdir())


def test_the_commands_of_the_readme_are_those_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command in the README exists and has the options written there."""
    found = re.findall(r"python -m tinytips\.(\w+)((?: --?[\w-]+(?: [\w./]+)?)+)", README.read_text("utf-8"))
    for name, options in found:
        with pytest.raises(SystemExit):
            COMMANDS[name].main(["--help"])
        described = capsys.readouterr().out
        assert all(option in described for option in re.findall(r"--[\w-]+", options)), (name, options)
    assert {name for name, _ in found} == set(COMMANDS)


def interruptible(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """A command with a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_ctrl_c_keeps_what_the_log_tells(tmp_path: Path, share_images: ShareImages) -> None:
    share_images(tmp_path)
    copy_tokenizer(tmp_path / "run")
    options = ["--work", "run", "--out", "model", "--scenes", str(SCENES), "--batch-size", "1", "--patches", "none"]
    command = [*PROCESS, "tinytips.pretrain", *options, "--steps", "100"]
    with interruptible(command, tmp_path) as process:
        first = json.loads(process.stdout.readline() if process.stdout else "")
        os.killpg(process.pid, signal.SIGINT)
        rest, errors = process.communicate()
    assert (first["step"], rest, process.returncode) == (50, "", 130)
    assert "stopped; the same command goes on" in errors
    assert "Traceback" not in errors
    ran = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "run: 50 of 100 steps are done" in ran.stderr
    assert [json.loads(line)["step"] for line in ran.stdout.splitlines()] == [100]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == [50, 100]
