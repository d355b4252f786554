"""Images for training: drawn ones, somebody's own, and the views that are cut from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinytips.data import store
from tinytips.data.store import Store, drawn, pictures, read_list
from tinytips.data.views import LOCAL_CROPS, make_views
from tinytips.recipe.step import Recipe
from tinytips.world.captions import Captions
from tinytips.world.scenes import draw_scene
from tipsseg.errors import InputError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return drawn(tmp_path_factory.mktemp("store"), 12, 7_000, 84)


def test_drawn_scenes_are_those_of_their_seeds(scenes: Store) -> None:
    assert scenes.short == 84
    sides = set()
    for index in range(12):
        image, truth = scenes.image(index), scenes.truth(index)
        expected = draw_scene(7_000 + index, *image.shape[:2])
        assert (image == expected.image).all()
        assert (truth == expected.truth).all()
        sides.add(image.shape[:2])
    assert sides == {(84, 120), (120, 84)}


def listed(folder: Path, *lines: object) -> Path:
    file = folder / "list.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def test_training_pictures_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sizes = {"wide.png": (42, 200), "high.png": (60, 42), "square.png": (84, 84)}
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / name)
    three = {"alt": "a", "medium": "a b", "long": "a b c"}
    lines = [
        {"image": "wide.png", "caption": "x"},
        {"image": "high.png", **three},
        "",
        {"image": "square.png", **three},
    ]
    got = pictures(tmp_path / "kept", listed(tmp_path, *lines), 42)
    assert [record.captions for record in got.records] == [
        Captions("x", "x", "x"),
        *[Captions("a", "a b", "a b c")] * 2,
    ]
    assert [got.image(index).shape for index in range(3)] == [(42, 60, 3), (60, 42, 3), (42, 42, 3)]
    assert (got.image(0) == np.asarray(Image.open(tmp_path / "wide.png"))[:, 70:130]).all()  # its middle
    assert (got.image(1) == np.asarray(Image.open(tmp_path / "high.png"))).all()
    with pytest.raises(InputError, match="no ground-truth masks"):
        got.truth(0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "list.jsonl, line 2: not JSON: Expecting property name enclosed in double quotes at column 2"),
        ({"image": "gone.png", "caption": "x"}, "line 2: there is no .*gone.png"),
        ({"image": "a.png", "caption": 5}, "line 2: there is no caption, or one that is no text"),
        ({"image": "a.png"}, "line 2: there is no caption"),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, line: object, reason: str) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=reason):
        read_list(listed(tmp_path, {"image": "a.png", "caption": "x"}, line))


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not UTF-8"])
def test_lists_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "list.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.jsonl: cannot be read"):
        pictures(tmp_path, tmp_path / "list.jsonl", 42)


@pytest.mark.parametrize("captions", ["medium", "mixed"])
def test_views_depend_on_the_seed_alone(scenes: Store, captions: str) -> None:
    one, two, other = (make_views(scenes, seed, 9, 84, Recipe(captions=captions)) for seed in ((1, 5), (1, 5), (1, 6)))
    assert (one.whole == two.whole).all()
    assert (one.crops == two.crops).all()
    assert (one.alt, one.synthetic) == (two.alt, two.synthetic)
    assert (one.whole != other.whole).any()
    assert one.whole.shape == (9, 84, 84, 3)
    assert one.question is None
    assert one.crops.shape == (LOCAL_CROPS, 9, 28, 28, 3)


def test_captions_of_views_are_those_of_their_images(scenes: Store) -> None:
    known = [record.captions for record in scenes.records]
    medium, long = {(each.alt, each.medium) for each in known}, {(each.alt, each.long) for each in known}
    for choice in ("medium", "mixed"):
        views = make_views(scenes, (1, 1), 200, 42, Recipe(captions=choice))
        pairs = list(zip(views.alt, views.synthetic, strict=True))
        assert set(pairs) <= medium | long
        of_long = sum(pair in long for pair in pairs)
        assert of_long == 0 if choice == "medium" else 60 < of_long < 140


def test_local_crops_are_parts_of_the_whole_crop() -> None:
    """The colours of the picture are the coordinates of its pixels."""
    rows, columns = np.mgrid[0:120, 0:120].astype(np.uint8)
    image = np.stack([rows, columns, np.zeros_like(rows)], -1)[None]
    place = Store(image, None, [store.Record(False, 120, Captions("a", "b", "c"))])
    views = make_views(place, (1, 1), 40, 84, Recipe())
    for whole, crops in zip(views.whole, views.crops.transpose(1, 0, 2, 3, 4), strict=True):
        for axis in (0, 1):
            first, last = int(whole[..., axis].min()), int(whole[..., axis].max())
            assert 0.7 * 120 < last - first < 120
            for crop in crops:
                assert first - 1 <= crop[..., axis].min()
                assert crop[..., axis].max() <= last + 1
                assert 0.25 * (last - first) < int(crop[..., axis].max()) - int(crop[..., axis].min())


def test_questions_are_about_the_whole_crop(scenes: Store) -> None:
    """The picture has two halves, and its truth is its colour."""
    image = np.full((1, 84, 84, 3), 10, np.uint8)
    image[:, :, 40:] = 20
    halves = Store(image, np.ascontiguousarray(image[..., 0] // 10), [store.Record(False, 84, Captions("a", "b", "c"))])
    views = make_views(halves, (1, 1), 30, 56, Recipe("none", dense=True))
    assert views.question is not None
    for whole, truth in zip(views.whole, views.question.truth, strict=True):
        assert (np.abs(whole[..., 0] / 10.0 - truth) < 0.5).mean() > 0.97  # all but the edge
