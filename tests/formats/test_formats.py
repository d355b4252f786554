"""Every format says what the masks say, at the edges too, and the same bytes each time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from output_folders import make_run, save_inputs
from PIL import Image
from reading import EXACT, POLYGONS, WITHOUT_IGNORED, Ids
from running import run_command

import tipsseg
from tipsseg.formats import IMAGE_FORMATS, is_model_only
from tipsseg.options import MinArea
from tipsseg.options.records import DEFAULT_FILE_OPTIONS, FileOptions
from tipsseg.regions.components import components
from tipsseg.types import LabelArray

# pycocotools' decoder trips over numpy 2's newer protocol; the package does not call it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

#: Formats for machines; the others are for eyes, or hold no labels.
READABLE = tuple(name for name in IMAGE_FORMATS if name not in ("overlay", "confidence", "png-palette"))

#: Records with times in them.
TIMES = ("run.json", "manifest.jsonl", ".tipsseg/cache.db")

PANDA = ("panda leg", "tree", "bench")
HARD = ('it\'s "a" <b> & c', "\N{SNOWMAN} ü/é \\n", "- yes, %20 {x}")


@dataclass(frozen=True)
class Case:
    """Labels of images by name, and what the classes are called."""

    maps: Mapping[str, LabelArray]
    names: tuple[str, ...] = PANDA


def one(labels: LabelArray, names: tuple[str, ...] = PANDA) -> Case:
    return Case({"sub/a.png": labels}, names)


def blocks(
    seed: int, size: tuple[int, int], classes: int, dtype: type[np.uint8] | type[np.uint16] = np.uint8
) -> LabelArray:
    small = np.random.default_rng(seed).integers(0, classes + 1, (-(-size[0] // 8), -(-size[1] // 8)))
    return small.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]].astype(dtype)  # type: ignore[return-value]


SMALL: LabelArray = np.array([[1, 1, 0, 3], [0, 1, 0, 3], [255, 0, 0, 0], [2, 0, 0, 1]], np.uint8)
DONUT: LabelArray = np.array([[1] * 5, [1, 0, 0, 2, 1], [1, 0, 1, 0, 1], [1, 3, 0, 0, 1], [1] * 5], np.uint8)

CASES: Mapping[str, Case] = {
    "one pixel": one(np.array([[1]], np.uint8)),
    "one empty pixel": one(np.array([[0]], np.uint8)),
    "one row": one(np.array([[1, 0, 2, 2, 255, 3, 0]], np.uint8)),
    "one column": one(np.array([[1, 0, 2, 2, 255, 3, 0]], np.uint8).T),
    "one class everywhere": one(np.full((7, 5), 2, np.uint8)),
    "nothing": one(np.zeros((7, 5), np.uint8)),
    "all ignored": one(np.full((7, 5), 255, np.uint8)),
    "holes and islands": one(DONUT),
    "2,000 x 50": one(blocks(1, (2_000, 50), 3)),
    "50 x 2,000": one(blocks(2, (50, 2_000), 3)),
    "300 classes": one(blocks(3, (120, 160), 300, np.uint16), tuple(f"thing {number}" for number in range(1, 301))),
    "254 classes": one(blocks(4, (120, 160), 254), tuple(f"thing {number}" for number in range(1, 255))),
    "hard names of classes": one(SMALL, HARD),
    "hard names of images": Case(
        {"a b/\N{SNOWMAN} 'c' \"d\".e.jpg": SMALL, "images/images/ü%41&x.png": DONUT, "z#1?.png": SMALL.T}
    ),
    "a class called background": one(SMALL, ("background", "unlabelled", "x")),
    "no images": Case({}),
}  # fmt: skip


def strip(length: int) -> LabelArray:
    """[8, length], with objects at both ends alone: the further one has columns that 16 bits do not hold."""
    labels = np.zeros((8, length), np.uint8)
    labels[:, :400], labels[:, -400:] = blocks(1, (8, 400), 3), blocks(2, (8, 400), 3)
    return labels


STRIPS: Mapping[str, Case] = {
    "8 x 70,000": one(strip(70_000)),
    "70,000 x 8": one(strip(70_000).T),
}


def write(out: Path, case: Case, options: FileOptions = DEFAULT_FILE_OPTIONS) -> None:
    """All files of all readable formats, in the folder `out`, which is new."""
    images = out.parent / "in"
    save_inputs(images, case.maps)
    make_run(out, images, case.maps, case.names, READABLE, options=options)


def check(out: Path, case: Case, formats: Collection[str] = READABLE) -> None:
    ignored = 255 if len(case.names) <= 254 else 65535
    for image, labels in case.maps.items():
        size, names = labels.shape, list(case.names)
        assert len(size) == 2
        ids = labels.astype(np.int64)
        for read in (read for name, read in EXACT.items() if name in formats):
            assert np.array_equal(read(out, image, names, size), ids)
        ids[ids == ignored] = 0
        for read in WITHOUT_IGNORED.values():
            assert np.array_equal(read(out, image, names, size), ids)
        for name, read in POLYGONS.items():
            check_polygons(read(out, image, names, size), ids, name)


def check_polygons(found: Ids, ids: Ids, name: str) -> None:
    """Each object has an IoU of 0.99 at least; neighbours may take a pixel of each other's, so classes have a little less."""
    for class_id in np.unique(ids[ids > 0]).tolist():
        one, other = found == class_id, ids == class_id
        assert (one & other).sum() >= 0.97 * (one | other).sum(), (name, class_id)
    assert not set(np.unique(found).tolist()) - set(np.unique(ids).tolist())


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in {**CASES, **STRIPS}.items()])
def test_every_format_says_what_the_masks_say(case: Case, tmp_path: Path) -> None:
    write(tmp_path / "out", case)
    check(tmp_path / "out", case)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if case.maps])
def test_formats_converted_from_edited_masks_say_the_same(case: Case, tmp_path: Path) -> None:
    save_inputs(tmp_path / "in", {name: np.zeros_like(labels) for name, labels in case.maps.items()})
    names = [tipsseg.ClassSpec(name) for name in case.names]
    for image in tipsseg.label_folder(tmp_path / "in", names, output=tmp_path, model="tiny", formats=("png",)):
        Image.fromarray(case.maps[str(image.path.relative_to(tmp_path / "in"))]).save(image.files["png"])
    others = {name for name in READABLE if not is_model_only(name)}
    ran = run_command("convert", tmp_path, "-f", ",".join(others))
    assert ran.code == 0, ran.err
    check(tmp_path, case, others)


@settings(max_examples=40)
@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=10), elements=st.sampled_from([0, 1, 2, 3, 255])
    )
)
def test_every_format_says_what_the_masks_say_of_anything(labels: LabelArray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "out"), one(labels))
        check(Path(folder, "out"), one(labels))


@pytest.mark.parametrize("options", [DEFAULT_FILE_OPTIONS, FileOptions(instances="class")], ids=["component", "class"])
def test_the_same_labels_give_the_same_bytes(tmp_path: Path, options: FileOptions) -> None:
    found = []
    for name, order in (("1", "C"), ("2", "F")):
        case = Case({"b/a.jpg": np.array(blocks(5, (64, 80), 3), order=order), "c.png": DONUT})  # type: ignore[call-overload]
        write(tmp_path / name, case, options)
        paths = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file() and not path.is_symlink()]
        files = {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in paths}
        found.append({file: data for file, data in files.items() if file not in TIMES})
    assert found[0] == found[1]
    assert len(found[0]) > len(READABLE)


def test_one_object_a_class(tmp_path: Path) -> None:
    case, out = one(DONUT), tmp_path / "out"
    write(out, case, FileOptions(instances="class"))
    check(out, case)
    for file in ("annotations.json", "annotations-polygon.json"):
        record = json.loads((out / file).read_bytes())
        assert [each["category_id"] for each in record["annotations"]] == [1, 2, 3]
        assert record["info"]["description"] == "Labels made by tipsseg; one annotation per class and image."
    assert [len(each["segmentation"]) for each in record["annotations"]] == [2, 1, 1]
    assert [each["category_id"] for each in json.loads((out / "results.json").read_bytes())] == [1, 2, 3]
    panoptic = json.loads((out / "panoptic.json").read_bytes())
    assert [each["category_id"] for each in panoptic["annotations"][0]["segments_info"]] == [1, 2, 3]
    assert {each["isthing"] for each in panoptic["categories"]} == {0}
    shapes = json.loads((out / "labelme/sub/a.json").read_bytes())["shapes"]
    assert [(each["label"], each["group_id"]) for each in shapes] == [
        ("panda leg", 1),
        ("panda leg", 1),
        ("tree", None),
        ("bench", None),
    ]
    assert len((out / "yolo/labels/train/sub/a.txt").read_text().splitlines()) == 4


def test_an_object_of_the_minimum_area_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "out", one(SMALL), FileOptions(min_area=MinArea(2)))
    objects = json.loads((tmp_path / "out/annotations.json").read_bytes())["annotations"]
    assert sorted(each["area"] for each in objects) == [2, 3]


def test_objects_below_the_minimum_area_are_in_no_list(tmp_path: Path) -> None:
    labels, out = blocks(6, (64, 80), 3), tmp_path / "out"
    labels[0, 0], labels[0, 1] = 0, 3
    write(out, one(labels), FileOptions(min_area=MinArea(1, percent=True)))
    wanted = len(components(labels, 3, 52))  # 51.2 pixels are one percent
    assert 0 < wanted < len(components(labels, 3))
    for file, key in (("annotations.json", "annotations"), ("annotations-polygon.json", "annotations")):
        assert len(json.loads((out / file).read_bytes())[key]) == wanted
    assert len(json.loads((out / "results.json").read_bytes())) == wanted
    assert len(json.loads((out / "panoptic.json").read_bytes())["annotations"][0]["segments_info"]) == wanted
    assert len(json.loads((out / "labelme/sub/a.json").read_bytes())["shapes"]) == wanted
    assert len((out / "yolo/labels/train/sub/a.txt").read_text().splitlines()) == wanted
    assert len(json.loads((out / "label-studio.json").read_bytes())[0]["predictions"][0]["result"]) == wanted
