"""`tipsseg fit --precision`: thresholds from edited masks, in a file that labels by them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import Ran

import tipsseg
from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.scenes import draw_scene
from tipsseg import LabelOptions, UsageError
from tipsseg.cli.main import app
from tipsseg.commands.fit import masks as masked
from tipsseg.errors import InputError
from tipsseg.learn import FittedVocabulary
from tipsseg.vocabulary.fitted import Classes

NAMES = ("sky", "grass", "tree", "kite")
IMAGES = ("a", "b", "c", "d", "e")
SEEN = LabelOptions(short_side=112)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """imgs, five scenes, and out, a run with all of its masks edited; of the grass all that is not sure is wrong."""
    top = tmp_path_factory.mktemp("tune")
    (top / "imgs").mkdir()
    truths = {}
    for seed, name in enumerate(IMAGES, start=FIRST_SEED + 6100):
        scene = draw_scene(seed, 112, 112)
        Image.fromarray(scene.image).save(top / f"imgs/{name}.png")
        truths[name] = to_list(scene.truth, NAMES[:3])
    tipsseg.label_folder(
        top / "imgs", NAMES, output=top / "out", model="tiny", formats=("png",), short_side=112, device="cpu"
    )
    labeller = tipsseg.Labeller(tipsseg.load("tiny", device="cpu"), NAMES, SEEN)
    for name, truth in truths.items():
        found = labeller.label(top / f"imgs/{name}.png")
        truth[found.labels == 2] = np.where(found.confidence[found.labels == 2] < 0.7, 3, 2)
        Image.fromarray(truth).save(top / f"out/masks/{name}.png")
    return top


def test_thresholds_are_where_pixels_become_right(made: Path, tmp_path: Path) -> None:
    tuning = tipsseg.learn.fit_thresholds(made / "out", precision=0.99, device="cpu", features=tmp_path / "feats")
    assert (tuning.images, tuning.failed) == (5, 0)
    grass = tuning.thresholds[1]
    assert 0.5 < grass.min_confidence <= 0.705
    assert grass.precision is not None
    assert grass.precision >= 0.98 > (grass.precision_before or 0)
    assert not tuning.thresholds[3].images
    tuning.save(tmp_path / "farm.toml")
    read = tipsseg.read_vocabulary(tmp_path / "farm.toml")
    assert [each.min_confidence for each in read.classes] == [each.min_confidence for each in tuning.thresholds]
    assert (read.auto, [each.name for each in read.classes]) == (True, list(NAMES))
    assert "grass" in tuning.table()
    with pytest.raises(UsageError, match=r"must be a \.toml file"):
        tuning.save(tmp_path / "farm.fit")


def test_thresholds_belong_to_the_refinement_that_they_were_chosen_with(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fitted = tipsseg.learn.fit_folder(made / "out", device="cpu").fitted
    options: dict[str, Any] = {"model": "tiny", "formats": ("png",), "short_side": 112, "device": "cpu"}
    runs: dict[str, Classes] = {"text": NAMES, "fitted": fitted}
    for name, classes in runs.items():
        tipsseg.label_folder(made / "imgs", classes, output=name, refine="guided", **options)
        for path in (made / "out/masks").iterdir():
            shutil.copy(path, Path(name, "masks", path.name))
    tipsseg.learn.fit_thresholds("text", 0.99, device="cpu").save("farm.toml")
    tipsseg.learn.fit_thresholds("fitted", 0.99, fitted=fitted, device="cpu").save("farm.fit")
    assert 'refine = "guided"' in Path("farm.toml").read_text()
    assert FittedVocabulary.load("farm.fit").vocabulary.refine == "guided"
    Path("unknown.toml").write_text(Path("farm.toml").read_text().replace('refine = "guided"', ""))
    label = ("label", made / "imgs", "-m", "tiny", "--short-side", "112", "--device", "cpu", "-f", "png", "--dry-run")
    note = "minimum confidences"
    for file, refine, said in (
        ("farm.toml", "guided", ""),
        ("farm.fit", "guided", ""),
        ("farm.toml", "none", "were chosen with --refine guided, but these labels have --refine none"),
        ("farm.fit", "pamr", "were chosen with --refine guided, but these labels have --refine pamr"),
        ("unknown.toml", "none", ""),
        ("unknown.toml", "pamr", "does not say for which refinement its minimum confidences are"),
    ):
        ran = run(*label, "--vocab", file, "--refine", refine)
        assert (said in ran.err) if said else (note not in ran.err), ran.err


def test_a_run_by_a_fit_needs_that_fit(made: Path, tmp_path: Path) -> None:
    fitted = tipsseg.learn.fit_folder(made / "out", device="cpu").fitted
    tipsseg.label_folder(
        made / "imgs", fitted, output=tmp_path / "out", model="tiny", formats=("png",), short_side=112, device="cpu"
    )
    for path in (made / "out/masks").iterdir():
        shutil.copy(path, tmp_path / "out/masks" / path.name)
    with pytest.raises(UsageError, match="used fitted vectors"):
        tipsseg.learn.fit_thresholds(tmp_path / "out", 0.99, device="cpu")
    with pytest.raises(UsageError, match="used no fitted vectors"):
        tipsseg.learn.fit_thresholds(made / "out", 0.99, fitted=fitted, device="cpu")
    fitted.save(tmp_path / "a.fit")
    arguments = ("--precision", 0.999, "--vocab", tmp_path / "a.fit", "-o", tmp_path / "b.fit", "--device", "cpu")
    assert run("fit", tmp_path / "out", *arguments).code == 0
    both = FittedVocabulary.load(tmp_path / "b.fit")
    assert both.vocabulary.fit == fitted.vocabulary.fit
    assert np.array_equal(both.vectors, fitted.vectors)
    assert any(each.min_confidence for each in both.vocabulary.classes)


def _labels_again(folder: Path, names: tuple[str, ...]) -> None:
    """Only the masks of these images are edited."""
    shutil.move(folder / "out/masks", folder / "edited")
    shutil.rmtree(folder / "out")
    tipsseg.label_folder(
        folder / "imgs", NAMES, output=folder / "out", model="tiny", formats=("png",), short_side=112, device="cpu"
    )
    for name in names:
        shutil.copy(folder / f"edited/{name}.png", folder / "out/masks")


@pytest.mark.parametrize(
    ("edited", "broken", "precision", "message", "hint"),
    [
        pytest.param(
            "ab", "", 0.9, "/out: 2 corrected masks; 3 or more are required",
            "Correct the mask of one more image", id="two",
        ),
        pytest.param("a", "", 0.9, "only 1 corrected mask; 3 or more", "masks of 2 more", id="one"),
        pytest.param(
            "abc", "b", 0.9, "2 of 3 corrected masks can be used", "Fix this first: .*masks/b.png", id="broken"
        ),
        pytest.param("abc", "", 0.9, None, "", id="three"),
    ],
)  # fmt: skip
def test_few_masks_are_refused(
    made: Path, tmp_path: Path, edited: str, broken: str, precision: float, message: str | None, hint: str
) -> None:
    folder = tmp_path / "top"
    shutil.copytree(made, folder)
    _labels_again(folder, tuple(edited))
    for name in broken:
        (folder / f"out/masks/{name}.png").write_bytes(b"\x89PNG")
    if message is None:
        assert tipsseg.learn.fit_thresholds(folder / "out", precision, device="cpu").images == len(edited)
        return
    with pytest.raises(InputError, match=message) as caught:
        tipsseg.learn.fit_thresholds(folder / "out", precision, device="cpu")
    assert re.search(hint, caught.value.hint), caught.value.hint


def test_a_mask_that_is_ignored_as_a_whole_is_no_image(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "top"
    shutil.copytree(made, folder)
    _labels_again(folder, ("a", "b", "c"))
    by_three = tipsseg.learn.fit_thresholds(folder / "out", 0.9, device="cpu")
    Image.fromarray(np.full((112, 112), 255, np.uint8)).save(folder / "out/masks/d.png")
    by_four = tipsseg.learn.fit_thresholds(folder / "out", 0.9, device="cpu")
    assert (by_four.images, by_four.failed) == (3, 0)
    assert by_four.thresholds == by_three.thresholds
    shutil.copy(folder / "out/masks/d.png", folder / "out/masks/c.png")
    with pytest.raises(InputError, match="2 of 4 corrected masks can be used; 3 or more") as caught:
        tipsseg.learn.fit_thresholds(folder / "out", 0.9, device="cpu")
    assert "Pixels with id 255 are ignored" in caught.value.hint


def run(*arguments: object) -> Ran:
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, list(map(str, arguments)))
    return Ran(done.exit_code, done.stdout, done.stderr)


def test_thresholds_take_a_sample_of_many_masks(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked, "_MOST", 4)
    first, again = (tipsseg.learn.fit_thresholds(made / "out", device="cpu", features=tmp_path) for _ in range(2))
    assert (first.images, again.images) == (4, 4)
    assert first.record() == again.record()


def test_thresholds_by_the_command(made: Path, tmp_path: Path) -> None:
    arguments = ["fit", made / "out", "--precision", 0.99, "-o", tmp_path / "farm.toml", "--device", "cpu"]
    done = run(*arguments)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:5]] == list(NAMES)
    assert "farm.toml" in done.err
    assert "the file already exists" in run(*arguments).err
    again = run(*arguments, "--overwrite", "--json", "--quiet")
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out)["classes"][1]["min_confidence"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.toml", "--precision", "1"], "--precision 1.0 must be above 0 and below 1"),
        (["-o", "x.fit", "--precision", "0.9"], "with only words and thresholds must be a .toml file"),
        (["-o", "x.toml", "--precision", "0.9", "--gt", "masks"], "--precision and --gt exclude each other"),
        (["-o", "x.fit", "--precision", "0.9", "--vocab", "a.toml"], "--vocab a.toml is not a .fit file"),
    ],
)
def test_wrong_usage(made: Path, arguments: list[str], message: str) -> None:
    done = run("fit", made / "out", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
