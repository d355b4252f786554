"""LabelMap in the hands of numpy, Pillow, notebooks, supervision and Hugging Face's users."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tipsseg.errors import InputError, UsageError
from tipsseg.label_map import LabelMap
from tipsseg.types import LabelClass

CLASSES = (
    LabelClass(1, "panda leg", (255, 0, 0)),
    LabelClass(2, "tree", (0, 255, 0)),
    LabelClass(3, "sky", (0, 0, 255)),
)

#: Two trees, a panda's leg between them, and an ignored pixel.
LABELS = np.array([[2, 0, 1, 1, 0, 2], [2, 0, 1, 1, 0, 2], [2, 0, 0, 0, 0, 255]], np.uint8)


@pytest.fixture
def labels() -> LabelMap:
    return LabelMap(LABELS, np.where(LABELS == 1, np.float32(0.75), np.float32(0.5)), CLASSES)


@pytest.fixture
def picture() -> Image.Image:
    return Image.new("RGB", (6, 3), (90, 120, 150))


def test_labels_are_an_array(labels: LabelMap) -> None:
    assert np.array_equal(np.asarray(labels), LABELS)
    assert np.asarray(labels).dtype == np.uint8
    assert np.asarray(labels, np.int64).dtype == np.int64
    copy = np.array(labels)
    copy[:] = 9
    assert labels.labels.max() == 255
    assert np.unique(labels).tolist() == [0, 1, 2, 255]


def test_masks_by_name_and_id(labels: LabelMap) -> None:
    assert labels.shape == (3, 6)
    assert labels.names == {1: "panda leg", 2: "tree", 3: "sky"}
    assert np.array_equal(labels.mask("tree"), LABELS == 2)
    assert np.array_equal(labels.mask(labels.ignore), LABELS == 255)
    assert labels.mask(np.uint8(1)).dtype == bool
    assert not labels.mask("sky").any()
    for name in ("trees", 4, -1):
        with pytest.raises(UsageError, match="the labels have no class") as caught:
            labels.mask(name)
        assert caught.value.hint == (
            "The classes are panda leg, tree, sky." if isinstance(name, str) else "The ids are 0 to 3."
        )


def test_objects_are_flat(labels: LabelMap) -> None:
    leg, left, right = labels.objects
    assert [(entry.name, entry.class_id, entry.score, entry.area) for entry in labels.objects] == [
        ("panda leg", 1, 0.75, 4),
        ("tree", 2, 0.5, 3),
        ("tree", 2, 0.5, 2),
    ]
    assert (leg.xyxy, left.xyxy, right.xyxy) == ((2, 0, 4, 2), (0, 0, 1, 3), (5, 0, 6, 2))
    assert np.array_equal(leg.mask, LABELS == 1)
    assert np.array_equal(left.mask | right.mask, LABELS == 2)
    (ring,) = leg.polygons
    assert (ring[:, 0].min() > 2, ring[:, 1].max() < 2) == (True, True)  # (x, y)


@pytest.mark.parametrize("min_area", [3, np.int64(3), "3", "15%"])
def test_small_objects_are_left_out(labels: LabelMap, min_area: int | str) -> None:
    assert [entry.area for entry in labels.find_objects(min_area=min_area)] == [4, 3]
    assert [entry.area for entry in labels.find_objects(instances="class", min_area=min_area)] == [4, 5]


def test_as_the_pipeline_of_hugging_face(labels: LabelMap) -> None:
    leg, tree = labels.to_dicts()
    assert (leg["label"], leg["score"], tree["label"], tree["score"]) == ("panda leg", 0.75, "tree", 0.5)
    assert tree["mask"].mode == "L"
    assert np.array_equal(np.asarray(tree["mask"]), np.where(LABELS == 2, 255, 0))
    assert [entry["label"] for entry in labels.to_dicts(instances="component")] == ["panda leg", "tree", "tree"]


@pytest.mark.filterwarnings("ignore")
def test_as_detections_of_supervision(labels: LabelMap) -> None:
    import supervision

    found = labels.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert len(found) == 3
    assert found.xyxy.tolist() == [[2, 0, 4, 2], [0, 0, 1, 3], [5, 0, 6, 2]]
    assert found.mask is not None
    assert found.mask.shape == (3, 3, 6)
    assert found.area.tolist() == [4, 3, 2]
    assert found.class_id is not None
    assert found.class_id.tolist() == [1, 2, 2]
    assert list(found.data["class_name"]) == ["panda leg", "tree", "tree"]
    assert len(labels.to_supervision(min_area=100)) == 0


def test_overlays_need_no_image_twice(labels: LabelMap, picture: Image.Image, tmp_path: Path) -> None:
    known = LabelMap(labels.labels, labels.confidence, CLASSES, image=picture)
    assert known.image is picture
    assert known.overlay().tobytes() == labels.overlay(picture).tobytes()
    for name, kind in (("a.png", "PNG"), ("new/a.JPG", "JPEG"), ("a.webp", "WEBP")):
        known.save_overlay(tmp_path / name, title="a")
        with Image.open(tmp_path / name) as saved:
            assert (saved.format, saved.size) == (kind, known.overlay(title="a").size)
    picture.save(tmp_path / "in.png")
    labels.save_overlay(tmp_path / "b.png", tmp_path / "in.png")
    assert (tmp_path / "b.png").is_file()


REFUSED: dict[str, tuple[Callable[[LabelMap, Image.Image], object], type[Exception], str]] = {
    "no image": (lambda labels, _: labels.overlay(), UsageError, "labels from features have no image"),
    "another image": (lambda labels, _: labels.overlay(Image.new("L", (3, 6))), InputError, "its labels are 3 x 6"),
    "suffix": (
        lambda labels, picture: labels.save_overlay("a.bmp", picture),
        UsageError,
        "cannot save an overlay as a.bmp",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_overlays_that_cannot_be(labels: LabelMap, picture: Image.Image, name: str) -> None:
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call(labels, picture)


def test_a_notebook_shows_it(labels: LabelMap, tmp_path: Path) -> None:
    large = LabelMap(
        np.ones((1500, 900), np.uint8), np.ones((1500, 900), np.float32), CLASSES, image=Image.new("L", (900, 1500))
    )
    for shown, mode, longest in ((large, "RGB", 1024), (labels, "RGB", 6)):
        with Image.open(io.BytesIO(shown._repr_png_())) as picture:
            assert (picture.mode, max(picture.size)) == (mode, longest)
    gone = LabelMap(LABELS, labels.confidence, CLASSES, image=tmp_path / "gone.jpg")
    assert gone._repr_png_() == labels._repr_png_()
