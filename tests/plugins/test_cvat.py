"""The function for CVAT, checked by the objects of CVAT's own package: what it gives are the command's labels, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tipsseg

cvataa = pytest.importorskip("cvat_sdk.auto_annotation", reason="cvat-sdk is not installed")

from cvat_sdk.auto_annotation.driver import _AnnotationMapper
from cvat_sdk.masks import decode_mask

from tipsseg.plugins.serve import cvat

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
CLASSES = "panda leg,tree,sky"


@pytest.fixture(scope="module")
def function() -> cvat.CvatFunction:
    return cvat.create(classes=CLASSES, model="tiny", device="cpu", min_confidence=0.5)


def context(threshold: float | None = None, *, polygons: bool = False) -> Any:
    return SimpleNamespace(frame_name="a.png", conf_threshold=threshold, conv_mask_to_poly=polygons)


def remapped(function: cvat.CvatFunction, shapes: Sequence[Any], *, polygons: bool = False) -> list[Any]:
    """The shapes as CVAT takes them for a task with the same labels under other ids. Raises where they break CVAT's rules."""
    kind = "polygon" if polygons else "mask"
    labels = [
        SimpleNamespace(id=100 + each.id, name=each.name, type=kind, attributes=[], sublabels=[])
        for each in function.spec.labels
    ]
    mapper = _AnnotationMapper(
        SimpleNamespace(), function.spec.labels, labels, allow_unmatched_labels=False, conv_mask_to_poly=polygons
    )
    tags, found = mapper.validate_and_remap(shapes, 7)
    assert tags == []
    return list(found)


def painted(shapes: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    ids = np.zeros(size, np.uint8)
    for shape in shapes:
        mask = decode_mask(shape.points, image_height=size[0], image_width=size[1])
        assert not ids[mask].any()
        ids[mask] = shape.label_id - 100
    return ids


def test_the_masks_are_those_of_the_command(function: cvat.CvatFunction, tmp_path: Path) -> None:
    found = tipsseg.label_folder(
        SCENES / "meadow",
        CLASSES.split(","),
        output=tmp_path,
        formats=["png"],
        model="tiny",
        min_confidence=0.5,
        device="cpu",
    )
    assert (len(found), found.count("labelled")) == (3, 3)
    for result in found:
        with Image.open(result.files["png"]) as picture:
            wanted = np.array(picture)
        wanted[wanted == 255] = 0  # what is too unsure is in no shape
        with Image.open(result.path) as image:
            shapes = remapped(function, function.detect(context(), image))
        assert {shape.frame for shape in shapes} == {7}
        assert np.array_equal(painted(shapes, wanted.shape), wanted)
        assert wanted.any()


def test_objects_below_the_threshold_are_left_out(function: cvat.CvatFunction) -> None:
    labels = tipsseg.Labeller(
        tipsseg.load("tiny", device="cpu"), CLASSES.split(","), tipsseg.LabelOptions(min_confidence=0.5)
    ).label(SCENES / "desert.png")
    scores = sorted(each.score for each in labels.objects)
    middle = scores[len(scores) // 2]
    with Image.open(SCENES / "desert.png") as image:
        shapes = function.detect(context(middle), image)
    assert len(shapes) == sum(score >= middle for score in scores) < len(scores)


def test_polygons_where_cvat_asks_for_them(function: cvat.CvatFunction) -> None:
    with Image.open(SCENES / "desert.png") as image:
        masks, polygons = (function.detect(context(polygons=each), image) for each in (False, True))
        width, height = image.size
    shapes = remapped(function, polygons, polygons=True)
    assert len(shapes) >= len(masks)
    for shape in shapes:
        x, y = np.array(shape.points).reshape(-1, 2).T
        assert 0 <= x.min() < x.max() <= width
        assert 0 <= y.min() < y.max() <= height


@pytest.mark.parametrize(("classes", "vocab"), [("", ""), ("tree", "voc20")], ids=["none", "both"])
def test_one_of_classes_and_vocab_is_needed(classes: str, vocab: str) -> None:
    with pytest.raises(tipsseg.errors.VocabularyError, match="either `classes` or `vocab`"):
        cvat.create(classes, vocab, model="tiny")


def test_a_preset_and_a_background() -> None:
    function = cvat.create(vocab="voc21", background="none", model="tiny", device="cpu", min_area=50)
    assert [each.name for each in function.spec.labels][:2] == ["aeroplane", "bicycle"]
    with Image.open(SCENES / "desert.png") as image:
        shapes = function.detect(context(), image)
    size = image.size[::-1]
    assert all(decode_mask(each.points, image_height=size[0], image_width=size[1]).sum() >= 50 for each in shapes)


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a fit of made-up words, at a short side that is not the model's own: a blarg is sky, and a kwix is all else."""
    model = tipsseg.load("tiny", device="cpu")
    seen = tipsseg.LabelOptions(short_side=112)
    sky = tipsseg.Labeller(model, ["sky"], seen)
    images = sorted((SCENES / "meadow").glob("*.png"))[:2]
    masks = [np.where(sky.label(each).labels == 1, 1, 2).astype(np.uint8) for each in images]
    features = [model.encode(each, short_side=112) for each in images]
    path = tmp_path_factory.mktemp("fit") / "made-up.fit"
    tipsseg.learn.fit(model, features, masks, tipsseg.make_vocabulary(["blarg", "kwix"], "none"), seen).save(path)
    return path


def test_a_fit_labels_as_it_does_in_the_library(fit: Path) -> None:
    function = cvat.create(vocab=str(fit), model="tiny", device="cpu", min_confidence=0.7)
    assert [each.name for each in function.spec.labels] == ["blarg", "kwix"]
    labeller = tipsseg.Labeller(
        tipsseg.load("tiny", device="cpu"),
        tipsseg.learn.FittedVocabulary.load(fit),
        tipsseg.LabelOptions(short_side=112, min_confidence=0.7),
    )
    wanted = labeller.label(SCENES / "desert.png").labels
    assert {1, 2, 255} <= set(np.unique(wanted).tolist())
    with Image.open(SCENES / "desert.png") as image:
        shapes = remapped(function, function.detect(context(), image))
    assert np.array_equal(painted(shapes, wanted.shape), np.where(wanted == 255, 0, wanted))


def test_options_that_a_fit_excludes_are_refused(fit: Path, tmp_path: Path) -> None:
    with pytest.raises(tipsseg.UsageError, match="`background` cannot be changed"):
        cvat.create(vocab=str(fit), background="sky", model="tiny", device="cpu")
    (tmp_path / "no.fit").write_text("grass")
    with pytest.raises(tipsseg.errors.VocabularyError, match="not a vocabulary that tipsseg fit wrote"):
        cvat.create(vocab=str(tmp_path / "no.fit"), model="tiny", device="cpu")
