"""`tipsseg fit`, and --vocab with a fit, as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Command

import tipsseg
from tipsseg import say


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """imgs, their truth in gt, out, a run with these masks, and farm.fit."""
    top = tmp_path_factory.mktemp("fit")
    rng = np.random.default_rng(0)
    for folder in ("imgs", "gt"):
        (top / folder).mkdir()
    for name in ("a", "b"):
        picture = np.zeros((56, 56, 3), np.uint8)
        picture[:, :28] = (200, 40, 40)
        picture[:, 28:] = (40, 60, 200)
        Image.fromarray(picture + rng.integers(0, 20, picture.shape, np.uint8)).save(top / f"imgs/{name}.png")
        mask = np.full((56, 56), 2, np.uint8)
        mask[:, :28] = 1
        Image.fromarray(mask).save(top / f"gt/{name}.png")
    vocabulary = tipsseg.make_vocabulary(["blarg", "kwix"], "none")
    tipsseg.label_folder(
        top / "imgs", vocabulary, output=top / "out", model="tiny", short_side=56, device="cpu", formats=("png",)
    )
    assert len(tipsseg.review.correct_folder(top / "out", top / "gt").masks) == 2
    tipsseg.learn.fit_folder(top / "out", device="cpu").fitted.save(top / "farm.fit")
    return top


#: How the images of `made` are seen.
SEEN = ("-m", "tiny", "--short-side", "56", "--device", "cpu")


def test_scores_go_to_stdout_and_the_file_is_the_same_again(command: Command, made: Path, tmp_path: Path) -> None:
    arguments = ["fit", made / "out", "--device", "cpu"]
    done = command(*arguments, "-o", tmp_path / "x.fit")
    assert done.code == 0
    assert done.out.splitlines()[0].split() == ["in", "%", "text", "fitted", "images", "made", "from"]
    assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["blarg", "kwix"]
    assert f"Wrote {tmp_path}/x.fit" in done.err
    assert (tmp_path / "x.fit").read_bytes() == (made / "farm.fit").read_bytes()
    again = command(*arguments, "-o", tmp_path / "x.fit", "--json", "--quiet")
    assert again.code == 1
    assert "the file already exists" in again.err
    assert "--overwrite" in again.err
    replaced = command(*arguments, "-o", tmp_path / "x.fit", "--json", "--quiet", "--overwrite")
    assert (replaced.code, replaced.err) == (0, "")
    assert [each["id"] for each in json.loads(replaced.out)["classes"]] == [1, 2]


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_fit_that_takes_long_says_how_it_goes_on(
    command: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: tuple[str, ...]
) -> None:
    arguments = ["fit", made / "out", "--device", "cpu", *quiet]
    assert "steps" not in command(*arguments, "-o", tmp_path / "x.fit").err
    monkeypatch.setattr(say, "_LINE_EVERY", 0.0)
    told = command(*arguments, "-o", tmp_path / "y.fit").err
    first = "Fitting 2 classes to 2 images.\n1 of at most 15 fitting steps in 0:00.\n2 of at most 15 fitting"
    assert (first in told) == (not quiet)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(
            ["out", "-o", "x.toml"],
            2,
            "--output=x.toml: a vocabulary with fitted vectors must be a .fit file",
            id="suffix",
        ),
        pytest.param(["out", "-o", "gt/x.fit/y.fit"], 1, "gt/x.fit is a file", id="folder"),
        pytest.param(["imgs", "-o", "x.fit"], 1, "imgs: not an output folder of tipsseg label", id="images"),
    ],
)
def test_errors_of_fit(
    command: Command, made: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    for name in ("imgs", "gt"):
        (tmp_path / name).mkdir()
        for path in (made / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "gt/x.fit").touch()
    done = command("fit", *arguments, cwd=tmp_path)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert not (tmp_path / "x.fit").exists()


def test_label_eval_and_vocab_take_a_fit(command: Command, made: Path, tmp_path: Path) -> None:
    label = ("label", made / "imgs", "--vocab", made / "farm.fit", *SEEN, "-f", "png", "-o", tmp_path / "out")
    assert command(*label).code == 0
    shutil.copytree(tmp_path / "out/masks", tmp_path / "copied")
    scored = command("eval", tmp_path / "copied", "--gt", made / "gt", "--vocab", made / "farm.fit", "--json")
    assert scored.code == 0
    assert json.loads(scored.out)["mean_iou"] > 0.9
    assert "ok, 2 classes, 2 phrases, background none" in (checked := command("vocab", "check", made / "farm.fit")).out
    assert "fitted with the model tiny" in checked.out
    assert 'name = "kwix"' in (shown := command("vocab", "show", made / "farm.fit")).out
    assert shown.out.startswith("# ")
    refused = command("vocab", "show", made / "farm.fit", "--background", "sky")
    assert refused.code == 2
    assert "--background requires phrases to encode" in refused.err
    assert "not found" in command("vocab", "check", "gone.fit").err


def test_a_run_by_a_fit_is_repeated_with_the_fit(command: Command, made: Path, tmp_path: Path) -> None:
    first = command("label", made / "imgs", "--vocab", made / "farm.fit", *SEEN, "-f", "png", "-o", tmp_path / "out")
    assert first.code == 0
    again = ["label", made / "imgs", "--from", tmp_path / "out", "-o", tmp_path / "again"]
    assert "Name that file with --vocab farm.fit" in command(*again).err
    assert command(*again, "--vocab", made / "farm.fit").code == 0
    assert (tmp_path / "again/masks/a.png").read_bytes() == (tmp_path / "out/masks/a.png").read_bytes()
    assert command("label", made / "imgs", "--vocab", made / "farm.fit", "-o", tmp_path / "new").code == 2


def test_a_fit_that_improves_no_class_is_not_written(command: Command, made: Path, tmp_path: Path) -> None:
    """The masks are what the text says, and a person accepts them."""
    label = ("label", made / "imgs", "-c", "sky,grass", *SEEN, "-f", "png", "-o", tmp_path / "out")
    assert command(*label).code == 0
    shutil.copytree(tmp_path / "out/masks", tmp_path / "gt")
    assert command("correct", tmp_path / "out", "--from", tmp_path / "gt", "--accept").code == 0
    target = tmp_path / "my.fit"
    fit = ("fit", tmp_path / "out", "--device", "cpu", "-o", target)
    ran = command(*fit)
    assert (ran.code, "grass" in ran.out, target.exists()) == (1, True, False)
    assert "the masks improve no class over its text" in ran.err
    assert "Wrote" not in ran.err
    target.write_bytes(b"mine")
    ran = command(*fit, "--overwrite")
    assert (ran.code, f"{target} was left as it was" in ran.err, target.read_bytes()) == (1, True, b"mine")
