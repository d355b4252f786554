"""The order of review of an output folder: what is in it, what is left out, and that it is always the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from entries import read_entries
from kept_features import keep_features
from output_folders import NOTHING, A, B, edit_json, make_run, save_inputs
from PIL import Image

import tipsseg
from tipsseg.options.shard import Shard
from tipsseg.runs.rank.expected import expected_error

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


def test_the_worst_come_first(out: Path) -> None:
    ranked = tipsseg.review.rank(out)
    entries = read_entries(out)
    assert sorted(each.image for each in ranked) == sorted(LABELS)
    for each in ranked:
        assert each.score == expected_error(entries[each.image])
        assert each.path == out.parent / "imgs" / each.image
        assert each.reasons
    assert ranked[0].score == max(each.score for each in ranked)
    assert tipsseg.review.rank(out) == ranked
    assert json.loads(json.dumps(ranked[0].record()))["image"] == ranked[0].image


def test_corrected_images_and_failed_ones_are_left_out(out: Path) -> None:
    Image.fromarray(np.full(A.shape, 2, np.uint8)).save(out / "masks/a.png")
    line = {"image": "e.png", "path": "/e.png", "reason": "not an image", "hint": ""}
    (out / "errors.jsonl").write_text(json.dumps(line) + "\n")
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


def test_shards_that_are_not_joined_yet(tmp_path: Path) -> None:
    save_inputs(tmp_path / "imgs", LABELS)
    for number in (1, 2):
        make_run(tmp_path / "out", tmp_path / "imgs", LABELS, formats=("png",), shard=Shard(number, 2))
    assert sorted(names(tmp_path / "out")) == sorted(LABELS)
    edit_json("out/shards/2-of-2/run.json", lambda record: record.update(digest="other"))(tmp_path)
    with pytest.raises(tipsseg.errors.InputError, match="out: its shards were labelled with different settings"):
        names(tmp_path / "out")


def test_class_tokens_tell_which_images_are_alike(out: Path) -> None:
    plain = names(out)
    apart = {image: [float(place == number) for place in range(4)] for number, image in enumerate(plain)}
    errors = {each.image: each.score for each in tipsseg.review.rank(out)}
    by_error = sorted(errors, key=lambda each: -errors[each])
    # All alike but for one pair, of which the second then comes last.
    pair = {**apart, by_error[1]: apart[by_error[0]]}
    folder = keep_features(out, pair)
    assert names(out, features=folder)[-1] == by_error[1]


def test_images_without_features_are_in_the_order_too(out: Path) -> None:
    folder = keep_features(out, {"a.png": [1, 0], "b.png": [0, 1]})
    path = next((folder / "feats").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-4])  # one of them damaged
    assert sorted(names(out, features=folder)) == sorted(LABELS)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: None, "not a feature store"),
        (lambda folder: folder.mkdir(), "not a feature store"),
        (lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("a")), "no features.json"),
    ],
    ids=["no folder", "an empty one", "something else"],
)
def test_what_is_no_feature_store(out: Path, make: Callable[[Path], object], part: str) -> None:
    make(out.parent / "feats")
    with pytest.raises(tipsseg.TipssegError, match=part):
        tipsseg.review.rank(out, features=out.parent / "feats")


def test_ranking_needs_no_torch() -> None:
    code = "import sys, tipsseg.runs.rank.rank; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
