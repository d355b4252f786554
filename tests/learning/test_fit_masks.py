"""`tipsseg fit` on the folder of a run: which masks count, what is refused, and runs that label by a fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from masks import pixels
from PIL import Image

import tipsseg
from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.scenes import draw_scene
from tipsseg.errors import OtherRunError, TipssegError
from tipsseg.folder.outcome import FolderSummary
from tipsseg.learn import Fit, FittedVocabulary
from tipsseg.learning import masks as masked
from tipsseg.verbs.convert import convert_folder
from tipsseg.vocabulary.fitted import Classes

THINGS = ("sky", "grass", "tree")
NAMES = ("sky", "zoofle", "tree", "kite")  # a zoofle is grass; nobody draws a kite
CHANGED = ("a.png", "c.png", "d.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """imgs and gt, four scenes with grass and their truths, and out, a run with three of its masks edited."""
    top = tmp_path_factory.mktemp("fit")
    for folder in ("imgs", "gt"):
        (top / folder).mkdir()
    seed = FIRST_SEED + 6000
    for name in ("a", "b", "c", "d"):
        while (mask := to_list((scene := draw_scene(seed, 112, 112)).truth, THINGS)) is not None:
            seed += 1
            if (mask == 2).mean() > 0.1:
                break
        Image.fromarray(scene.image).save(top / f"imgs/{name}.png")
        Image.fromarray(mask).save(top / f"gt/{name}.png")
    _label(top / "imgs", NAMES, top / "out")
    for name in CHANGED:
        shutil.copy(top / "gt" / name, top / "out/masks" / name)
    return top


def _label(
    images: Path, classes: Classes, output: Path, model: str = "tiny", *, overwrite: bool = False
) -> FolderSummary:
    return tipsseg.label_folder(
        images,
        classes,
        output=output,
        model=model,
        formats=("png",),
        short_side=112,
        device="cpu",
        overwrite=overwrite,
    )


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "top")
    return tmp_path / "top"


@pytest.fixture(scope="module")
def fit(made: Path) -> Fit:
    return tipsseg.learn.fit_folder(made / "out", device="cpu")


def test_edited_masks_are_what_a_fit_learns_from(made: Path, fit: Fit) -> None:
    assert (fit.images, fit.failed) == (3, 0)
    names = [each["name"] for each in fit.record()["classes"]]  # type: ignore[attr-defined]
    assert names == ["background", *NAMES]
    sources = {each.name: each.source for each in fit.fitted.scores}
    assert sources["zoofle"] == "masks"
    assert (sources["kite"], fit.fitted.scores[4].images) == ("text", 0)
    assert "kite" in fit.table()


def test_images_without_masks_are_looked_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a fit makes of them is another test's; one that cannot be read is left out."""

    def notes() -> str:
        found = tipsseg.learn.fit_folder(folder / "out", images=folder / "imgs", device="cpu", verbose=True)
        assert found.failed == 0
        return capsys.readouterr().err

    assert "1 image without masks, model tiny on cpu" in (first := notes())
    assert "Could not read" not in first
    (folder / "imgs/b.png").unlink()
    assert "Could not read 1 of the 1 image without masks" in notes()


def test_masks_of_a_run_whose_formats_follow_them_still_count(folder: Path, fit: Fit) -> None:
    assert convert_folder(folder / "out", ("coco",), jobs=1, verbose=False) == 0
    again = tipsseg.learn.fit_folder(folder / "out", images=folder / "imgs", device="cpu")
    np.testing.assert_array_equal(again.fitted.vectors, fit.fitted.vectors)


def test_the_store_has_the_features_or_gets_them(folder: Path) -> None:
    first = tipsseg.learn.fit_folder(folder / "out", features=folder / "feats", device="cpu")
    assert len(list((folder / "feats").rglob("*.safetensors"))) == 4
    files = []
    for number, each in enumerate(
        (first, tipsseg.learn.fit_folder(folder / "out", features=folder / "feats", device="cpu"))
    ):
        files.append(folder / f"{number}.fit")
        each.fitted.save(files[-1])
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", CHANGED)
def test_a_fit_takes_masks_with_rare_classes(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mask = np.array(Image.open(folder / "out/masks" / name))
    mask[:30, :30] = 4
    Image.fromarray(mask).save(folder / "out/masks" / name)
    monkeypatch.setattr(masked, "_MOST", 2)
    some, again = (tipsseg.learn.fit_folder(folder / "out", images=folder / "imgs", device="cpu") for _ in range(2))
    assert some.images == 2
    assert some.fitted.scores[4].images == 1
    assert some.fitted.vocabulary.fit == again.fitted.vocabulary.fit


def test_a_folder_is_labelled_again_by_the_fit_and_keeps_its_corrections(folder: Path, fit: Fit) -> None:
    found = _label(folder / "imgs", fit.fitted, folder / "out", overwrite=True)
    assert [image.path.name for image in found if image.status == "unchanged"] == list(CHANGED)
    for name in CHANGED:
        assert pixels(folder / "out/masks" / name) == pixels(folder / "gt" / name)
    grass = np.asarray(Image.open(folder / "gt/b.png")) == 2
    assert (np.asarray(Image.open(folder / "out/masks/b.png"))[grass] == 2).mean() > 0.8
    again = tipsseg.learn.fit_folder(folder / "out", device="cpu")
    np.testing.assert_array_equal(again.fitted.vectors, fit.fitted.vectors)


def test_a_run_labels_by_a_fit_and_goes_on_by_no_other(made: Path, fit: Fit, tmp_path: Path) -> None:
    fit.fitted.save(tmp_path / "farm.fit")
    fitted = FittedVocabulary.load(tmp_path / "farm.fit")
    _label(made / "imgs", fitted, tmp_path / "out")
    grass = np.asarray(Image.open(made / "gt/b.png")) == 2
    recall = [(np.asarray(Image.open(top / "out/masks/b.png"))[grass] == 2).mean() for top in (made, tmp_path)]
    assert recall[0] < 0.5
    assert recall[1] > 0.8
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["vocabulary"]["fit"] == fitted.vocabulary.fit != ""
    assert {image.status for image in _label(made / "imgs", fitted, tmp_path / "out")} == {"unchanged"}
    other = replace(fitted, biases=fitted.biases + np.float32(0.01))
    words = tipsseg.make_vocabulary(NAMES, fitted.vocabulary.background)
    _label(made / "imgs", words, tmp_path / "words")
    for each, output in ((other, "out"), (words, "out"), (fitted, "words")):
        with pytest.raises(OtherRunError, match="fit"):
            _label(made / "imgs", each, tmp_path / output)


def _undo(folder: Path, *names: str) -> None:
    """The masks are as the run wrote them again."""
    shutil.rmtree(folder / "out")
    _label(folder / "imgs", NAMES, folder / "out")
    for name in set(CHANGED) - set(names):
        shutil.copy(folder / "gt" / name, folder / "out/masks" / name)


def _all_ignored(folder: Path) -> None:
    for name in CHANGED:
        Image.fromarray(np.full((112, 112), 255, np.uint8)).save(folder / "out/masks" / name)


def _other_images(folder: Path) -> None:
    for name in CHANGED[:2]:
        Image.fromarray(np.zeros((112, 112, 3), np.uint8)).save(folder / "imgs" / name)


def _smaller_masks(folder: Path) -> None:
    for name in CHANGED[:2]:
        Image.fromarray(np.zeros((100, 112), np.uint8)).save(folder / "out/masks" / name)


def _broken_masks(folder: Path) -> None:
    for name in CHANGED[:2]:
        (folder / "out/masks" / name).write_bytes(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        pytest.param(
            lambda f: _undo(f, *CHANGED), "no mask was edited", "Correct some masks", id="no edited mask"
        ),
        pytest.param(
            lambda f: _undo(f, "a.png", "c.png"), "/out: only 1 corrected mask; 2 or more are required(?m:$)",
            "^Correct the mask of one more image: the result is validated on held-out images", id="one",
        ),
        pytest.param(
            _all_ignored, "/out: 0 of 3 corrected masks can be used; 2 or more are required(?m:$)",
            "^Correct the masks of 2 more images: .* Pixels with id 255 are ignored", id="nothing counts",
        ),
        pytest.param(
            _other_images, "/out: 1 of 3 corrected masks can be used",
            r"^Fix this first: .*imgs/a\.png: changed since .*\. 1 more image failed\.(?m:$)",
            id="images were changed",
        ),
        pytest.param(
            _smaller_masks, "1 of 3 corrected masks can be used", r"^Fix this first: .*masks/a.png",
            id="masks of another size",
        ),
        pytest.param(
            _broken_masks, "1 of 3 corrected masks can be used", r"^Fix this first: .*masks/a.png", id="broken masks"
        ),
        pytest.param(lambda f: shutil.rmtree(f / "out"), "no such folder", "", id="no folder"),
        pytest.param(lambda f: (f / "out/run.json").unlink(), "run.json is missing", "", id="no record"),
    ],
)  # fmt: skip
def test_unusable_runs_are_refused(folder: Path, change: Callable[[Path], object], message: str, hint: str) -> None:
    change(folder)
    with pytest.raises(TipssegError, match=message) as caught:
        tipsseg.learn.fit_folder(folder / "out", images=folder / "imgs", device="cpu")
    assert re.search(hint, caught.value.hint), caught.value.hint


def test_imported_ground_truth_is_learnt_from_as_edited_masks_are(folder: Path, fit: Fit) -> None:
    _undo(folder, *CHANGED)
    (folder / "gt/b.png").unlink()
    assert len(tipsseg.review.correct_folder(folder / "out", folder / "gt").masks) == 3
    again = tipsseg.learn.fit_folder(folder / "out", images=folder / "imgs", device="cpu")
    np.testing.assert_array_equal(again.fitted.vectors, fit.fitted.vectors)


def test_a_fit_of_another_model_is_refused_before_that_is_downloaded(made: Path, fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(tipsseg.UsageError, match="requires the model tiny, but this model is l14"):
        _label(made / "imgs", fit.fitted, tmp_path / "out", "l14")
