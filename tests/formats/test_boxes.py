"""Boxes, instance masks and the table agree with the labels, pixel for pixel."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from numpy.typing import NDArray
from output_folders import image_labels
from PIL import Image

from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels, RunFacts
from tipsseg.formats.yolo import oriented_box
from tipsseg.label_map import LabelMap
from tipsseg.options.records import FileOptions
from tipsseg.regions.components import count_labels
from tipsseg.types import ImageRef, LabelArray, LabelClass
from tipsseg.vocabulary.palette import colour

CLASSES = tuple(
    LabelClass(number, name, colour(number)) for number, name in enumerate(("panda", 'a,\r\n\t"b"', "c"), 1)
)
NAME = 'sub/a,\r "b"\t.jpg'


def turned(angle: float, centre: tuple[int, int] = (24, 20)) -> LabelArray:
    """A bar of 40 x 8 pixels around (y, x), turned by an angle in degrees, partly outside, and a few single pixels."""
    y, x = np.mgrid[:60, :80] - np.array(centre)[:, None, None]
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    labels = ((np.abs(cosine * x + sine * y) < 20) & (np.abs(cosine * y - sine * x) < 4)).astype(np.uint8)
    labels[50:, 70:] = 2
    labels[0, 79], labels[59, 0], labels[58, 1] = 3, 3, 255
    return labels


CASES = {f"turned by {angle}": turned(angle) for angle in (0, 17, 45, 90, 133)} | {
    "nothing": np.zeros((3, 5), np.uint8),
    "all": np.ones((3, 5), np.uint8),
}


def labelled(labels: LabelArray, options: FileOptions) -> tuple[ImageLabels, RunFacts]:
    label_map = LabelMap(labels, np.full(labels.shape, 0.25, np.float32), CLASSES)
    image = image_labels(ImageRef(Path("a.jpg"), PurePosixPath(NAME)), label_map, options)
    return image, RunFacts(classes=CLASSES, info={}, files=options)


def lines(name: str, image: ImageLabels, run: RunFacts) -> list[tuple[int, NDArray[np.float64]]]:
    """The class id and the numbers of each line, in pixels: pairs of (x, y)."""
    size = np.array(image.size[::-1])
    found = (line.split() for line in FORMATS[name].encode(image, run).decode().splitlines())
    return [(int(first) + 1, np.array(rest, float).reshape(-1, 2) * size) for first, *rest in found]


@pytest.mark.parametrize("options", [FileOptions(), FileOptions(instances="class")], ids=["component", "class"])
@pytest.mark.parametrize("case", CASES)
def test_boxes_hold_their_objects(case: str, options: FileOptions) -> None:
    image, run = labelled(CASES[case], options)
    upright, oriented = lines("yolo-boxes", image, run), lines("yolo-obb", image, run)
    assert len(upright) == len(oriented) == len(image.objects)
    for entry, (class_id, (centre, size)), (same_id, corners) in zip(image.objects, upright, oriented, strict=True):
        y, x, h, w = entry.region.box
        assert class_id == same_id == entry.region.class_id
        assert np.allclose((*(centre - size / 2), *size), (x, y, w, h), atol=1e-3)
        assert ((corners >= 0) & (corners <= np.array(image.size[::-1]) + 1e-3)).all()
        box = oriented_box(entry.region, image.size)[:, ::-1]
        assert np.allclose(corners, box, atol=1e-3)
        sides = np.roll(box, -1, 0) - box
        assert np.abs((sides * np.roll(sides, -1, 0)).sum(1)).max() < 0.1  # a rectangle
        lengths = np.linalg.norm(sides, axis=1)
        assert lengths[0] * lengths[1] <= w * h + 1e-2
        # Clockwise, with y down, from the topmost corner: each pixel's outer corners are on the right of each side.
        assert box[0, 1] == box[:, 1].min()
        rows, columns = np.nonzero(entry.region.mask)
        for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
            points = np.stack([columns + x + dx, rows + y + dy], 1)[:, None] - box  # [P, 4, 2]
            assert ((sides[:, 0] * points[..., 1] - sides[:, 1] * points[..., 0]) / lengths >= -1e-2).all()


def test_an_oriented_box_follows_a_turned_object() -> None:
    image, _ = labelled(turned(17, centre=(30, 40)), FileOptions())
    bar = next(entry.region for entry in image.objects if entry.region.class_id == 1)
    sides = np.linalg.norm(np.diff(oriented_box(bar, image.size), axis=0), axis=1)
    assert sorted(sides[:2]) == pytest.approx([8, 40], abs=2)


@pytest.mark.parametrize("case", CASES)
def test_an_instance_mask_numbers_the_objects(case: str) -> None:
    image, run = labelled(CASES[case], FileOptions())
    with Image.open(io.BytesIO(FORMATS["instances"].encode(image, run))) as picture:
        assert picture.mode == "I;16"
        ids = np.asarray(picture)
    assert np.array_equal(ids > 0, (image.labels > 0) & (image.labels < 255))
    assert ids.max(initial=0) == len(image.objects)
    for number, entry in enumerate(image.objects, 1):
        assert count_labels(image.labels[ids == number][None]).nonzero()[0].tolist() == [entry.region.class_id]
        assert (ids == number).sum() == entry.region.area


@pytest.mark.parametrize("case", CASES)
def test_the_table_counts_pixels_and_objects(case: str, tmp_path: Path) -> None:
    form = FORMATS["csv"]
    image, run = labelled(CASES[case], FileOptions())
    rows = form.image_rows(image, run)
    path = tmp_path / "labels.csv"
    path.write_bytes(b"".join(form.run_file("labels.csv", run, [NAME], lambda name: rows)))
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["image"] for row in table} == {NAME}
    counts = count_labels(image.labels)
    assert {int(row["class_id"]): int(row["pixels"]) for row in table} == {0: counts[0]} | {
        int(label): counts[label] for label in counts.nonzero()[0]
    }
    assert sum(float(row["share"]) for row in table) == pytest.approx(1, abs=1e-5)
    names = {0: "background", 255: "ignored", **{entry.id: entry.name for entry in run.classes}}
    for row in table:
        own = [entry for entry in image.objects if entry.region.class_id == int(row["class_id"])]
        assert row["class"] == names[int(row["class_id"])]
        assert int(row["objects"]) == len(own)
        assert row["confidence"] == ("0.25" if own else "")
