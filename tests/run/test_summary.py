from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tipsseg.label_map import LabelMap
from tipsseg.run.summary import image_summary, label_summary
from tipsseg.types import ImageRef, LabelArray, LabelClass, ignore_id, label_dtype

REF = ImageRef(Path("../in/sub/a.jpg"), PurePosixPath("sub/a.jpg"))
OUT = Path("out")


def classes(count: int) -> tuple[LabelClass, ...]:
    return tuple(LabelClass(number, f"c{number}", (1, 2, 3)) for number in range(1, count + 1))


def test_the_record_of_an_image() -> None:
    labels = np.array([[0, 2, 2], [0, 2, 255]], np.uint8)
    confidence = np.array([[0.5, 0.75, 0.25], [1, 0.5, 0.125]], np.float32)
    files = {"png": OUT / "masks/sub/a.png", "overlay": OUT / "overlays/sub/a.jpg"}
    assert image_summary(REF, label_summary(LabelMap(labels, confidence, classes(3))), files, "new") == {
        "path": "../in/sub/a.jpg",
        "image": "sub/a.jpg",
        "mask": "out/masks/sub/a.png",
        "files": ["out/masks/sub/a.png", "out/overlays/sub/a.jpg"],
        "reason": "new",
        "height": 2,
        "width": 3,
        "classes": [{"id": 2, "name": "c2", "pixels": 3, "share": 0.5, "confidence": 0.5}],
        "background": {"pixels": 2, "share": 0.333333, "confidence": 0.75},
        "ignored": 1,
    }
    without = label_summary(LabelMap(np.full((2, 3), 3, np.uint8), confidence, classes(3)))
    assert image_summary(REF, without, {"overlay": OUT / "a.jpg"}, "new")["mask"] is None
    assert without["background"] == {"pixels": 0, "share": 0.0, "confidence": None}


@given(st.sampled_from([1, 3, 254, 300]), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_pixels_add_up_to_the_image(count: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.array([*range(count + 1), ignore_id(count)])
    labels = cast(LabelArray, rng.choice(ids, (height, width)).astype(label_dtype(count)))
    label_map = LabelMap(labels, rng.random((height, width), np.float32), classes(count))
    record = json.loads(json.dumps(label_summary(label_map)))
    parts = [*record["classes"], record["background"]]
    assert sum(part["pixels"] for part in parts) + record["ignored"] == height * width
    for entry in record["classes"]:
        here = labels == entry["id"]
        assert entry["pixels"] == here.sum() > 0
        assert entry["confidence"] == pytest.approx(label_map.confidence[here].mean(), abs=1e-4)
    assert [entry["id"] for entry in record["classes"]] == sorted(set(np.unique(labels)) - {0, ignore_id(count)})
