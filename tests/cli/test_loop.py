"""The whole loop on a few drawn scenes: encode, label, look, correct, learn, label again, score, convert and check."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from running import Command, Ran

from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.scenes import draw_scene

#: "blarg" is what the person calls the grass; the model does not know the word.
NAMES = ("blarg", "sky", "tree")
TRUTH = ("grass", "sky", "tree")

#: Scenes with much grass, by the names of their images.
IMAGES = {"a.png": 6104, "far/b.png": 6107, "far/c.png": 6108, "d.png": 6114}

#: The person corrects all images but one.
*CORRECTED, NEW = IMAGES


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as mask:
        return np.array(mask)


def accuracy(output: Path, gt: Path) -> float:
    """The share of the truth's pixels that have their label, in the image that nobody corrected."""
    truth = read(gt / NEW)
    found = read(output / "masks" / NEW)
    return float((found == truth)[(truth > 0) & (truth < 255)].mean())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """imgs, their truth in gt, and the part of it that a person drew in drawn."""
    top = tmp_path_factory.mktemp("loop")
    for name, seed in IMAGES.items():
        scene = draw_scene(FIRST_SEED + seed, 112, 112)
        save(top / "imgs" / name, scene.image)
        truth = to_list(scene.truth, TRUTH)
        save(top / "gt" / name, truth)
        if name in CORRECTED:
            save(top / "drawn" / name, truth)
    return top


def test_the_loop_by_commands(command: Command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    imgs, gt = scenes / "imgs", scenes / "gt"
    seen = ("-m", "tiny", "--short-side", 112, "--device", "cpu")
    store = ("--features", "feats")
    words = ("-c", ",".join(NAMES), "-f", "png,coco", *store)

    def run(*arguments: object) -> Ran:
        ran = command(*arguments)
        assert ran.code == 0, (arguments, ran.out, ran.err)
        return ran

    assert "4 images encoded" in run("encode", imgs, *seen, "-o", "feats").err
    kept = {path: path.stat().st_mtime_ns for path in Path("feats").rglob("*.safetensors")}
    assert len(kept) == 4

    assert "4 images labelled" in run("label", imgs, *seen, *words, "-o", "out").err
    before = accuracy(Path("out"), gt)
    assert run("report", "out").out.split() == ["out/report/index.html"]
    ranked = run("rank", "out").out.splitlines()
    assert sorted(ranked) == sorted(str(imgs / name) for name in IMAGES)

    assert "3 masks corrected" in run("correct", "out", "--from", scenes / "drawn").err
    assert run("rank", "out").out.splitlines() == [str(imgs / NEW)]

    fit = run("fit", "out", *store, "-o", "own.fit", "--device", "cpu", "--json")
    classes = {each["name"]: each for each in json.loads(fit.out)["classes"]}
    assert set(NAMES) <= classes.keys()

    again = ("label", imgs, *seen, "--vocab", "own.fit", "-f", "png,coco", *store, "-o", "out")
    assert "Kept 3 edited images" in run(*again, "--overwrite").err
    assert accuracy(Path("out"), gt) > before + 0.2
    for name in CORRECTED:
        np.testing.assert_array_equal(read(Path("out/masks") / name), read(gt / name))
    assert {path: path.stat().st_mtime_ns for path in Path("feats").rglob("*.safetensors")} == kept

    assert "4 masks of out" in run("eval", "out", "--gt", gt).err
    run("convert", "out", "-f", "png,coco,cvat,yolo")
    assert "0 masks corrected, 4 unchanged" in run("correct", "out", "--from", "out/cvat").err
    ran = run("check", "out")
    assert ran.out == ""
    assert "4 images" in ran.err
    assert "nothing wrong" in ran.err
    assert "0 images labelled, 4 unchanged" in run(*again).err
