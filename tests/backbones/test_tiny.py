"""The embedded model: small, pinned, and right about scenes that it has not seen. The full measurement is evaluate.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tipsseg
from tinytips.data.scoring import FIRST_SEED, SIZES, iou, to_list
from tinytips.world.concepts import CLOSED_LIST, LEAF_LIST
from tinytips.world.scenes import draw_scene
from tipsseg.images.decoding import ImageReader
from tipsseg.options import Dtype
from tipsseg.weights import fetching, lock

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def tiny() -> tipsseg.Model:
    return tipsseg.load("tiny", device="cpu")


def test_tiny_is_small_and_pinned() -> None:
    spec = lock.get_model("tiny")
    folder = fetching.fetch(spec)
    assert sum(file.size or 0 for file in spec.files) <= 8_000_000
    assert {file.name for file in spec.files} == {"config.json", "model.safetensors", "tokenizer.model"}
    assert all(file.sha256 for file in spec.files)
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_config"]["image_size"] == 224
    assert set(fetching.verify(spec).values()) == {"ok"}


def test_tiny_labels_unseen_scenes(tiny: tipsseg.Model) -> None:
    labeller = tipsseg.Labeller(tiny, tipsseg.make_vocabulary(CLOSED_LIST, "none"))
    scenes = [draw_scene(FIRST_SEED + 1000 + index, *SIZES[index % len(SIZES)]) for index in range(21)]
    truths = [to_list(scene.truth, CLOSED_LIST) for scene in scenes]
    guesses = [labeller.label(scene.image).labels.astype(np.uint8) for scene in scenes]
    scores = dict(zip(CLOSED_LIST, iou(truths, guesses, len(CLOSED_LIST))[1:], strict=True))
    assert np.nanmean(list(scores.values())) >= 0.6, scores
    assert scores["tree"] >= 0.65
    assert scores["panda leg"] >= 0.45


@pytest.mark.parametrize("name", ["meadow/panda-and-tree.jpg", "street/turned.jpg", "desert.png"])
def test_two_phrases_on_the_example_scenes(tiny: tipsseg.Model, name: str) -> None:
    classes = ("panda leg", "tree")
    truth = to_list(np.asarray(Image.open(EXAMPLES / "truth" / Path(name).with_suffix(".png"))), classes)
    image = ImageReader().pixels(EXAMPLES / "scenes" / name)
    labels = tipsseg.Labeller(tiny, tipsseg.make_vocabulary(classes)).label(image).labels.astype(np.uint8)
    assert labels.shape == truth.shape
    present = [number for number in (1, 2) if (truth == number).any()]
    scores = iou([truth], [labels], len(classes))
    assert scores[0] >= 0.9  # what is neither
    assert all(scores[number] >= 0.5 for number in present), scores


def test_the_examples_are_twelve_scenes_of_many_formats_with_a_truth_each() -> None:
    scenes = sorted(path for path in (EXAMPLES / "scenes").rglob("*") if path.is_file())
    assert len(scenes) == 12
    assert len({path.suffix for path in scenes}) >= 5
    for path in scenes:
        truth = EXAMPLES / "truth" / path.relative_to(EXAMPLES / "scenes").with_suffix(".png")
        assert np.asarray(Image.open(truth)).shape == ImageReader().pixels(path).shape[:2]
    names = [entry.name for entry in tipsseg.read_vocabulary(EXAMPLES / "leaves.txt").classes]
    assert names == list(LEAF_LIST)  # the ids in the truth
    with Image.open(EXAMPLES / "scenes/street/turned.jpg") as turned:
        assert turned.getexif()[0x0112] == 6
        assert turned.size == ImageReader().pixels(EXAMPLES / "scenes/street/turned.jpg").shape[:2]  # on its side


@pytest.mark.slow
def test_other_dtypes_move_few_labels() -> None:
    """bfloat16 is what `--dtype auto` takes for larger models on GPUs and on CPUs with instructions for it."""
    vocabulary = tipsseg.make_vocabulary(CLOSED_LIST, "none")
    same: dict[Dtype, list[float]] = {"bfloat16": [], "float16": [], "int8": []}
    plain = tipsseg.Labeller(tipsseg.load("tiny", device="cpu", dtype="float32"), vocabulary)
    for dtype, shares in same.items():
        labeller = tipsseg.Labeller(tipsseg.load("tiny", device="cpu", dtype=dtype), vocabulary)
        for path in sorted((EXAMPLES / "scenes").rglob("*.png")):
            image = ImageReader().pixels(path)
            shares.append(float((labeller.label(image).labels == plain.label(image).labels).mean()))
    assert len(same["bfloat16"]) >= 4
    assert all(np.mean(shares) >= 0.99 for shares in same.values()), same
