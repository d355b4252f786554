"""The ablation: its runs, its table and its picture."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from drawn_scenes import SCENES, ShareImages
from PIL import Image

from tinytips import ablate, evaluate
from tinytips.ablate import ARMS, table
from tinytips.ablate import run as run_as_a_process
from tinytips.data.held_out import held_out
from tinytips.plot import plot
from tinytips.recipe.network import SIZES, make_config
from tinytips.recipe.step import Recipe
from tinytips.world.concepts import WHOLE_LIST

PRETRAIN = Path(ablate.__file__).parents[1]


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


def test_the_tables_of_the_readme(tmp_path: Path) -> None:
    """The README shows the results of ablation.json: two seeds of each arm, with the same number of steps."""
    recorded = json.loads((PRETRAIN / "ablation.json").read_text())
    assert list(recorded) == list(ARMS)
    assert {len(runs) for runs in recorded.values()} == {2}
    assert {run["log"][-1]["step"] for runs in recorded.values() for run in runs} == {1500}
    readme = (PRETRAIN / "README.md").read_text()
    assert table(recorded).split("\n\n")[0] in readme
    plot(recorded, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        colours = picture.convert("RGB").resize((200, 100)).getcolors(20_000)
        assert colours is not None
        assert len(colours) > 50  # an empty one has a few
