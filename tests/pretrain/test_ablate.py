"""The ablation: its runs, its table and its picture."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from drawn_scenes import SCENES, ShareImages
from PIL import Image

from tinytips import ablate, evaluate
from tinytips.ablate import ARMS, table
from tinytips.ablate import run as run_as_a_process
from tinytips.data.held_out import held_out
from tinytips.plot import curve, plot
from tinytips.recipe.network import SIZES, make_config
from tinytips.recipe.step import Recipe
from tinytips.world.concepts import WHOLE_LIST

PRETRAIN = Path(ablate.__file__).parents[1]


def run_of(miou: float, *, distils: bool = True) -> dict[str, Any]:
    """What is known of a run of nine steps."""
    log: list[dict[str, float]] = [
        {"step": 3, "seconds_a_step": 1.5, "peak_mb": 1000},
        {"step": 6, "seconds_a_step": 1.7, "peak_mb": 1500, "miou_whole": miou / 2},
        {"step": 9, "seconds_a_step": 9.0, "peak_mb": 2000, "miou_whole": miou},  # disturbed by something
    ]
    if distils:
        log = [{**line, "masked": 10 - line["step"] + miou, "visible": 10 - line["step"]} for line in log]
    recall = {"medium, image to text": 0.5, "medium, text to image": 0.7}
    recall |= {"long, image to text": 0.1, "long, text to image": 0.4}
    prototypes = {"in use": 100 * miou, "purity": miou} if distils else None
    return {"miou": miou, "probe": miou * 2, "recall": recall, "prototypes": prototypes, "log": log}


RESULTS = {
    name: [run_of(miou, distils=recipe.patches != "none") for miou in (0.1, 0.3)] for name, recipe in ARMS.items()
}


def test_the_table() -> None:
    learnt, took = (
        [row.strip("| ").split(" | ") for row in part.splitlines()] for part in table(RESULTS).split("\n\n")
    )
    assert [row[0] for row in learnt[2:]] == [row[0] for row in took[2:]] == list(ARMS)
    assert learnt[3][1:] == ["0.200", "0.100, 0.300", "0.600", "0.250", "0.400", "1.20", "1.00", "20", "0.20"]
    assert learnt[2][1:6] == learnt[7][1:6] == ["0.200", "0.100, 0.300", "0.600", "0.250", "0.400"]
    assert not any(cell.strip(" |") for row in (learnt[2], learnt[7]) for cell in row[6:])
    assert {len(row) for row in took[2:]} == {5}
    assert took[3][1:3] == ["1.70", "2000"]
    trained, kept = ([float(row[column]) for row in took[2:]] for column in (3, 4))
    assert trained[0] == trained[5] == kept[0]  # no head, no averages
    assert trained[0] < trained[1] == trained[2] == trained[3] == trained[4] < kept[4]
    assert kept[0] == kept[5] < kept[4] < kept[1] == kept[2] == kept[3]


def test_each_arm_adds_one_idea() -> None:
    arms = list(ARMS.values())
    ideas = [(recipe.patches, recipe.captions, recipe.teacher, recipe.dense) for recipe in arms[:5]]
    changes = [sum(one != two for one, two in zip(*pair, strict=True)) for pair in pairwise(ideas)]
    assert changes == [1, 1, 1, 1]
    assert ideas[-1] == ("all", "mixed", "head", False)


def test_curves_are_of_steps_that_all_runs_tell() -> None:
    runs = [run_of(0.1), run_of(0.3)]
    del runs[1]["log"][1]
    assert curve(runs, "miou_whole") == ([9], [[0.1], [0.3]])
    assert curve(RESULTS["+ DINO and iBOT"], "visible") == ([3, 6, 9], [[7, 4, 1]] * 2)


def test_the_picture(tmp_path: Path) -> None:
    plot(RESULTS, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height > 300
        colours = picture.convert("RGB").resize((200, 100)).getcolors(20_000)
        assert colours is not None
        assert len(colours) > 50  # an empty one has a few


def run(name: str, options: dict[str, object]) -> str:
    """As `ablate.run`, but all commands except one in this process: each process imports torch again."""
    if name == "probe":
        return run_as_a_process(name, options)
    command = import_module(f"tinytips.{name}")
    words = [word for key, value in options.items() for word in (f"--{key}", *([] if value is None else [str(value)]))]
    with redirect_stdout(StringIO()) as printed:
        command.main(words)
    return printed.getvalue()


@pytest.mark.slow
def test_an_ablation_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], share_images: ShareImages
) -> None:
    """One arm, one step; what is done is not done again, and other options are refused."""
    monkeypatch.setattr(ablate, "ARMS", {"truth": Recipe("all", "mixed", "full", dense=True)})
    monkeypatch.setattr(evaluate, "LISTS", {"every thing whole": WHOLE_LIST})
    share_images(tmp_path)
    held_out(
        tmp_path, 2, make_config(SIZES["small"], 1200).vision
    )  # in a thread, processes that draw cannot be started
    options = ["--steps", "1", "--batch-size", "2", "--scenes", str(SCENES), "--held-out", "2", "--seeds", "4"]
    monkeypatch.setattr(ablate, "run", run)
    ablate.main(["--work", str(tmp_path), *options])
    (first,) = json.loads((tmp_path / "results.json").read_text())["truth"]
    assert 0 <= first["miou"] < 0.1
    assert tuple(first["iou"]) == WHOLE_LIST
    assert 0 <= first["probe"] < 0.3
    assert set(first["recall"]) >= {"alt, image to text", "long, text to image"}
    assert 1 <= first["prototypes"]["in use"] <= 256
    assert [line["step"] for line in first["log"]] == [1]
    assert first["log"][0]["dense"] > 0
    assert "| truth | 0.0" in capfd.readouterr().out
    model = tmp_path / "0-4" / "model" / "model.safetensors"
    before = model.read_bytes()
    ablate.main(["--work", str(tmp_path), *options])
    assert json.loads((tmp_path / "results.json").read_text())["truth"] == [first]
    assert model.read_bytes() == before
    monkeypatch.setattr(ablate, "run", run_as_a_process)
    with pytest.raises(SystemExit) as caught:
        ablate.main(["--work", str(tmp_path), *options[2:], "--steps", "2"])
    assert caught.value.code == 2
    assert "holds a run with other --steps" in " ".join(capfd.readouterr().err.split())


def test_the_tables_of_the_readme() -> None:
    """They are what the recorded runs come to: two seeds of each arm, as many steps of each."""
    recorded = json.loads((PRETRAIN / "ablation.json").read_text())
    assert list(recorded) == list(ARMS)
    assert {len(runs) for runs in recorded.values()} == {2}
    assert {run["log"][-1]["step"] for runs in recorded.values() for run in runs} == {1500}
    readme = (PRETRAIN / "README.md").read_text()
    assert [part in readme for part in table(recorded).split("\n\n")] == [True, True]
