"""The objects that a correction is compared with are those that come back from a file that nobody edited, pixel for pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from output_folders import make_run, save_inputs

from tipsseg.formats import FORMATS
from tipsseg.formats.records import ClassNames, Objects
from tipsseg.formats.source import Source
from tipsseg.options.records import FileOptions
from tipsseg.regions.objects import labelled_objects
from tipsseg.types import LabelArray, LabelClass
from tipsseg.vocabulary.vocabulary import make_vocabulary

PLACES = {
    "coco": "annotations.json",
    "coco-polygon": "annotations-polygon.json",
    "yolo": "yolo",
    "labelme": "labelme",
    "label-studio": "label-studio.json",
}
OPTIONS = {
    "components": FileOptions(),
    "classes": FileOptions(instances="class"),
    "simplified": FileOptions(simplify=3.0),
}


def blobs(size: tuple[int, int]) -> LabelArray:
    """Labels of sides that no share of them is a round number of, with slanted and touching edges, holes and thin parts."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.sin(x / 7 + y / 11) + np.cos(x / 13 - y / 5) + 0.7 * np.sin((x * y) / 997)
    return np.digitize(waves, [-0.9, 0.2, 1.1]).astype(np.uint8)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", PLACES)
def test_a_file_that_nobody_edited_gives_back_the_same_objects(tmp_path: Path, name: str, options: str) -> None:
    labels = blobs((197, 509))
    save_inputs(tmp_path / "imgs", {"a.png": labels})
    make_run(tmp_path / "out", tmp_path / "imgs", {"a.png": labels}, formats=("png", name), options=OPTIONS[options])
    place = tmp_path / "out" / PLACES[name]
    if name == "label-studio":  # as if a person had accepted all
        place.write_bytes(place.read_bytes().replace(b'"predictions"', b'"annotations"'))
    classes: tuple[LabelClass, ...] = make_vocabulary(("panda leg", "tree", "sky"), "none").classes
    with Source(place) as source:
        (found,) = [each for each in FORMATS[name].read(source, ClassNames(classes, add=False)) if not each.by_list]
        read = found.read(labels.shape)
    assert isinstance(read, Objects)
    objects = labelled_objects(labels, [np.ones(labels.shape, np.float32)], classes, OPTIONS[options])
    wanted = FORMATS[name].reread_shapes(objects, labels.shape)
    assert len(read.shapes) == len(wanted) >= 3
    for one, other in zip(read.shapes, wanted, strict=True):
        assert one.class_id == other.class_id
        assert one.iou(other) == 1
