"""The order of review of an output folder: what is in it, what is left out, and that it is always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from output_folders import NOTHING, A, B, make_run, save_inputs
from PIL import Image

import tipsseg
from tipsseg.folder.entry import Failure, Failures
from tipsseg.options.values import Shard

LABELS = {"a.png": A, "b.png": B, "sub/c.png": NOTHING, "sub/d.png": A.T.copy()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    save_inputs(tmp_path / "imgs", LABELS)
    for name in LABELS:  # each with its own content
        path = tmp_path / "imgs" / name
        with Image.open(path) as picture:
            pixels = np.array(picture)
        pixels[0, 0] = len(name) * 7 + ord(path.stem)
        Image.fromarray(pixels).save(path)
    make_run(tmp_path / "out", tmp_path / "imgs", LABELS, formats=("png", "coco"))
    return tmp_path / "out"


def names(out: Path, **arguments: object) -> list[str]:
    return [each.image for each in tipsseg.review.rank(out, **arguments)]  # type: ignore[arg-type]


def test_corrected_images_and_failed_ones_are_left_out(out: Path) -> None:
    Image.fromarray(np.full(A.shape, 2, np.uint8)).save(out / "masks/a.png")
    failed = Failures(out)
    failed.add(Failure(image="e.png", path="/e.png", reason="not an image", hint=""))
    failed.write()
    assert sorted(names(out)) == sorted(LABELS.keys() - {"a.png"})


def test_a_list_of_images(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = out.parent / "imgs"
    monkeypatch.chdir(folder)
    wanted = {"a.png", "sub/c.png", "sub/d.png"}
    for paths in (["a.png", folder / "sub/c.png", "./sub/../sub/d.png"], [str(folder / each) for each in wanted]):
        assert names(out, only=paths) == [each for each in names(out) if each in wanted]
    monkeypatch.chdir(out)
    assert names(out, only=["sub/c.png"]) == ["sub/c.png"]  # by the name in the run
    with pytest.raises(tipsseg.errors.InputError, match=r"nope\.png: not labelled in"):
        tipsseg.review.rank(out, only=["a.png", "nope.png"])


def test_images_that_moved(out: Path) -> None:
    moved = out.parent / "moved"
    (out.parent / "imgs").rename(moved)
    ranked = tipsseg.review.rank(out, images=moved, only=[moved / "b.png"])
    assert [each.path for each in ranked] == [moved / "b.png"]
    with pytest.raises(tipsseg.TipssegError, match="nowhere"):
        tipsseg.review.rank(out, images=out / "nowhere")


def test_two_images_are_alike_by_their_background_too(tmp_path: Path) -> None:
    """An object of 8% against none differs in 16% of the labels, with the pixels that are background instead."""
    labels = {
        "a.png": np.zeros((5, 5), np.uint8),
        "b.png": np.zeros((10, 10), np.uint8),
        "c.png": np.full((20, 20), 2, np.uint8),
    }
    labels["b.png"][4:6, 3:7] = 1
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, formats=("png",))
    assert names(tmp_path / "out") == ["a.png", "b.png", "c.png"]  # by their confidence; a near-duplicate would be last


def test_a_folder_of_which_some_shards_are_done(tmp_path: Path) -> None:
    save_inputs(tmp_path / "imgs", LABELS)
    shards = [Shard(number, 2) for number in (1, 2)]
    for number, shard in enumerate(shards, 1):
        make_run(tmp_path / "out", tmp_path / "imgs", LABELS, formats=("png",), shard=shard)
        assert sorted(names(tmp_path / "out")) == sorted(
            name for name in LABELS if any(done.takes(name) for done in shards[:number])
        )
