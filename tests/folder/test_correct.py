"""Corrections come back from every format that they are read from: the change is there, and nothing else moved."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from entries import read_entries
from masks import read
from output_folders import CLASSES, LABELS, A, B, make_run, problems, save_inputs, tree
from PIL import Image
from pycocotools import mask as coco_mask
from saying import Said

from tipsseg.errors import InputError, TipssegError
from tipsseg.folder.correct.take import Corrections
from tipsseg.folder.files import Files, StagedFile
from tipsseg.formats.mask import read_sealed
from tipsseg.options import MinArea
from tipsseg.options.records import DEFAULT_FILE_OPTIONS, FileOptions
from tipsseg.say import Silence
from tipsseg.types import LabelArray
from tipsseg.verbs.convert import convert_folder
from tipsseg.verbs.correct import correct_folder

#: pycocotools 2.0.11 with numpy 2, where it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FORMATS = ("png", "coco", "coco-polygon", "cvat", "labelme", "label-studio", "yolo", "yolo-obb", "hf")

#: Polygons with few corners, so that they are off the pixels, and small objects in no list of objects.
OPTIONS = FileOptions(simplify=2.0, min_area=MinArea(4))


def _scene() -> LabelArray:
    """Discs, a ring and a bar of classes 1, 2 and 3, ignored pixels, and one pixel of class 2 that no list of objects has."""
    ids: LabelArray = np.zeros((60, 80), np.uint8)
    cv2.circle(ids, (16, 16), 11, 1, -1)
    cv2.circle(ids, (46, 40), 13, 2, -1)
    cv2.circle(ids, (46, 40), 5, 0, -1)
    cv2.circle(ids, (16, 46), 9, 1, -1)
    ids[50:58, 60:78] = 3
    ids[0:3, 40:70] = 255
    ids[30, 2] = 2
    return ids


SCENE = _scene()
IMAGES: Mapping[str, LabelArray] = {**LABELS, "scene.png": SCENE}

#: A new object of class 1: the first row and column, and those after the last.
BOX = (5, 50, 15, 66)


def _wanted() -> LabelArray:
    """The ring is gone, the upper disc is of class 3, and there is a new box."""
    ids = SCENE.copy()
    ids[(SCENE == 2) & (np.arange(60)[:, None] > 25) & (np.arange(80) > 20)] = 0
    ids[(SCENE == 1) & (np.arange(60)[:, None] < 30)] = 3
    ids[BOX[0] : BOX[2], BOX[1] : BOX[3]] = 1
    return ids


WANTED = _wanted()


def build(root: Path, *formats: str, labels: Mapping[str, LabelArray] = IMAGES, options: FileOptions = OPTIONS) -> Path:
    """A run, and a copy of what it exported, without its record; returns the copy."""
    save_inputs(root / "imgs", labels)
    make_run(root / "out", root / "imgs", labels, formats=formats or FORMATS, options=options)
    record = shutil.ignore_patterns(".tipsseg", "manifest.jsonl", "run.json")
    return Path(shutil.copytree(root / "out", root / "export", symlinks=True, ignore=record))


def take(root: Path, source: Path, **options: bool | Path) -> Corrections:
    return correct_folder(root / "out", source, verbose=False, **options)  # type: ignore[arg-type]


def labels_of(root: Path, image: str = "scene") -> np.ndarray:
    return read(root / "out" / "masks" / f"{image}.png")


def save(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def edit(path: Path, change: Callable[[Any], object]) -> Path:
    """Change a JSON file in place; return its path."""
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))
    return path


def corners_of(box: tuple[int, int, int, int]) -> list[list[float]]:
    """The corners (x, y) of a polygon around a box."""
    top, left, bottom, right = (side + inset for side, inset in zip(box, (0.1, 0.1, -0.1, -0.1), strict=True))
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def mask_of(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(SCENE.shape, np.uint8)
    mask[box[0] : box[2], box[1] : box[3]] = 1
    return mask


def rle_of(mask: np.ndarray) -> dict[str, object]:
    code = coco_mask.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode()}


def scene_of(coco: Any) -> int:
    return next(image["id"] for image in coco["images"] if image["file_name"] == "scene.png")


def upper(objects: list[Any], points: Callable[[Any], list[list[float]]]) -> Any:
    """The topmost object of some objects."""
    return min(objects, key=lambda each: min(y for _, y in points(each)))


# ---- people at work: each makes the change of WANTED in an export, and says where the result is ----


def in_masks(export: Path) -> Path:
    picture = Image.fromarray(WANTED)
    picture.putpalette(
        [value for index in range(256) for value in (index, 255 - index, 7)]
    )  # as painting programs save
    picture.save(export / "masks/scene.png")
    return export / "masks"


def in_cvat(export: Path) -> Path:
    names = {}
    for line in (export / "cvat/labelmap.txt").read_text().splitlines()[1:]:
        name, rgb, *_ = line.split(":")
        names[name] = tuple(map(int, rgb.split(",")))
    colours = np.array([(0, 0, 0), *(names[name] for name in CLASSES)], np.uint8)
    save(export / "cvat/SegmentationClass/scene.png", colours[np.where(WANTED == 255, 0, WANTED)])
    with zipfile.ZipFile(export / "task.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((export / "cvat").rglob("*")):
            archive.write(path, path.relative_to(export / "cvat"))
    return export / "task.zip"


def in_coco(export: Path) -> Path:
    """Other tools number the categories by themselves."""

    def change(value: Any) -> None:
        image = scene_of(value)
        for each in value["annotations"]:
            if each["image_id"] == image and each["category_id"] == 1 and each["bbox"][1] < 20:
                each["category_id"] = 3
        gone = [each for each in value["annotations"] if each["image_id"] == image and each["category_id"] == 2]
        kept = [each for each in value["annotations"] if each not in gone]
        new = {"id": 9000, "image_id": image, "category_id": 1, "segmentation": rle_of(mask_of(BOX)), "iscrowd": 0}
        value["annotations"] = [{**each, "category_id": 10 * each["category_id"]} for each in [*kept, new]]
        value["categories"] = [{"id": 10 * each["id"], "name": each["name"]} for each in reversed(value["categories"])]

    return edit(export / "annotations.json", change)


def submitted(export: Path, change: Callable[[list[Any]], list[Any]]) -> Path:
    """Label Studio's project, in which a person submitted all images, the scene with changed results."""
    tasks = json.loads((export / "label-studio.json").read_bytes())
    for task in tasks:
        results = task.pop("predictions")[0]["result"]
        if task["data"]["file_name"] == "scene.png":
            task["data"] = {"image": "/data/local-files/?d=imgs/scene.png"}
            results = change(results)
        task["annotations"] = [
            {"id": 1, "was_cancelled": True, "result": []},
            {"id": 2, "was_cancelled": False, "result": results},
        ]
    (export / "project.json").write_text(json.dumps(tasks))
    return export / "project.json"


def in_label_studio(export: Path) -> Path:
    """A brush stroke, and the answer to a question about the whole image."""

    def change(results: list[Any]) -> list[Any]:
        results = [each for each in results if each["value"]["polygonlabels"] != [CLASSES[1]]]
        legs = [each for each in results if each["value"]["polygonlabels"] == [CLASSES[0]]]
        upper(legs, lambda each: each["value"]["points"])["value"]["polygonlabels"] = [CLASSES[2]]
        code = brush_code(np.repeat(255 * mask_of(BOX).reshape(-1), 4))
        value = {"format": "rle", "rle": code, "brushlabels": [CLASSES[0]]}
        size = {"original_width": 80, "original_height": 60, "image_rotation": 0}
        stroke = {**size, "type": "brushlabels", "value": value}
        return [*results, stroke, {"type": "choices", "value": {"choices": ["good"]}}]

    return submitted(export, change)


def brush_code(data: np.ndarray) -> list[int]:
    """The code of bytes, all of them in lengths of 16 bits, whose runs are repeated or spelled out in turn."""
    bits = f"{len(data):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    starts = [0, *np.flatnonzero(np.diff(data.astype(int))) + 1, len(data)]
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        bits += f"{number % 2:b}11{end - start - 1:016b}"
        bits += "".join(f"{value:08b}" for value in data[start : start + 1 if number % 2 else end].tolist())
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


EDITORS = {"png": in_masks, "cvat": in_cvat, "coco": in_coco, "label-studio": in_label_studio}


#: The images of a run, and which of them a text file of YOLO is of, relative to data.yaml.
YOLO_FILES: Mapping[str, tuple[list[str], str, str]] = {
    "below train": (["a.png", "sub/a.png"], "labels/train/sub/a.txt", "sub/a.png"),
    "below val": (["a.png", "sub/b.png"], "labels/val/a.txt", "a.png"),
    "of parts of its own": (["train/a.png", "val/a.png"], "labels/train/val/a.txt", "val/a.png"),
    "of a data set with these parts": (["train/a.png", "val/a.png"], "labels/val/a.txt", "val/a.png"),
    "below a folder of labels": (["labels/a.png", "a.png"], "labels/train/labels/a.txt", "labels/a.png"),
    "below a folder of images": (["images/a.png", "images_/a.png"], "labels/train/images_/a.txt", "images/a.png"),
    "in the old layout": (["sub/a.png", "a.png"], "sub/labels/a.txt", "sub/a.png"),
    "in the old layout, at the top": (["sub/a.png", "a.png"], "labels/a.txt", "a.png"),
    "as Roboflow has it": (["sub/a.png", "b.png"], "valid/labels/b.txt", "b.png"),
}


@pytest.mark.parametrize(("images", "file", "image"), YOLO_FILES.values(), ids=YOLO_FILES)
def test_the_folders_of_a_yolo_file_name_its_image(tmp_path: Path, images: list[str], file: str, image: str) -> None:
    build(tmp_path, "png", labels={name: np.zeros_like(SCENE) for name in images})
    path = tmp_path / "new" / file
    path.parent.mkdir(parents=True)
    path.write_text("0 0 0 0 1 1 1\n")
    (tmp_path / "new/data.yaml").write_text(f"names: {json.dumps(list(CLASSES))}\n")
    assert [mask.image for mask in take(tmp_path, tmp_path / "new").masks] == [image]


@pytest.mark.parametrize("name", EDITORS)
def test_a_round_trip(tmp_path: Path, name: str) -> None:
    source = EDITORS[name](build(tmp_path))
    before = tree(tmp_path / "out")
    found = take(tmp_path, source)
    assert (found.format, [mask.image for mask in found.masks]) == (name, ["scene.png"])
    assert found.masks[0].changed == np.count_nonzero(WANTED != SCENE)
    assert np.array_equal(labels_of(tmp_path), WANTED)
    entries = read_entries(tmp_path / "out")
    assert {image for image, entry in entries.items() if entry.corrected} == {"scene.png"}
    correction = entries["scene.png"].correction
    assert correction is not None
    assert (correction.format, correction.source) == (name, str(source))

    # All formats followed, and only this image changed in them.
    after = tree(tmp_path / "out")
    changed = {path for path in after if after[path] != before.get(path)} - {"manifest.jsonl", "run.json"}
    runs = {"annotations.json", "annotations-polygon.json", "label-studio.json"}
    assert changed - runs == {
        "masks/scene.png", "hf/masks/scene.png", "cvat/SegmentationClass/scene.png", "labelme/scene.json",
        "yolo/labels/train/scene.txt", "yolo-obb/labels/train/scene.txt",
    }  # fmt: skip
    assert problems(tmp_path / "out") == []

    # Once more: nothing is left to do.
    again = take(tmp_path, source)
    assert (again.masks, set(again.unchanged)) == ((), {"scene.png", *found.unchanged})
    assert convert_folder(tmp_path / "out", FORMATS, jobs=2, verbose=False) == 0
    assert tree(tmp_path / "out") == after


def in_panoptic(export: Path) -> Path:
    value = json.loads((export / "panoptic.json").read_bytes())
    image = scene_of(value)
    (own,) = (each for each in value["annotations"] if each["image_id"] == image)
    with Image.open(export / "panoptic/scene.png") as picture:
        ids = np.array(picture)
    ids[(SCENE == 2) & (WANTED == 0)] = 0
    ids[BOX[0] : BOX[2], BOX[1] : BOX[3]] = (0, 2, 1)
    save(export / "panoptic/scene.png", ids)
    upper = ids[16, 16, 0]
    changed = [{**each, "category_id": 3} if each["id"] == upper else each for each in own["segments_info"]]
    own["segments_info"] = [*changed, {"id": 512 + 65536, "category_id": 1}]
    (export / "panoptic.json").write_text(json.dumps(value))
    shutil.copytree(export / "panoptic", export / "set/panoptic")
    shutil.copy(export / "panoptic.json", export / "set")
    return export / "set"


def test_panoptic_pictures_that_tools_export(tmp_path: Path) -> None:
    found = take(tmp_path, in_panoptic(build(tmp_path, *FORMATS, "panoptic")))
    assert (found.format, [mask.image for mask in found.masks]) == ("panoptic", ["scene.png"])
    assert np.array_equal(labels_of(tmp_path), WANTED)


@pytest.mark.parametrize("place", ["annotations.json", "label-studio.json", "yolo-obb", "panoptic"])
def test_an_unedited_export_changes_nothing(tmp_path: Path, place: str) -> None:
    export = build(tmp_path, *FORMATS, *(["panoptic"] if place == "panoptic" else []))
    source = submitted(export, lambda results: results) if place == "label-studio.json" else export / place
    if place == "panoptic":
        source = export / "panoptic.json"
        shutil.move(source, export / "panoptic")  # a folder of its own
        source = export / "panoptic"
    before = tree(tmp_path / "out")
    assert take(tmp_path, source).masks == ()
    assert tree(tmp_path / "out") == before
    accepted = take(tmp_path, source, accept=True)
    entries = read_entries(tmp_path / "out")
    assert {image for image, entry in entries.items() if entry.corrected} == set(accepted.unchanged) == set(IMAGES)


def test_a_moved_corner_changes_only_its_pixels(tmp_path: Path) -> None:
    def widen(value: Any) -> None:
        bar = next(each for each in value["shapes"] if each["label"] == CLASSES[2])
        bar["points"] = [[x - 4 if x < 65 else x, y] for x, y in bar["points"]]  # four pixels more on the left

    take(tmp_path, edit(build(tmp_path) / "labelme/scene.json", widen).parent)
    wanted = SCENE.copy()
    wanted[50:58, 56:60] = 3
    assert np.array_equal(labels_of(tmp_path), wanted)


def _halves(ring: list[list[float]], at: float) -> tuple[list[list[float]], list[list[float]]]:
    """The parts of a ring to the left and to the right of a column, each a ring."""
    halves: tuple[list[list[float]], list[list[float]]] = [], []
    for (x0, y0), (x1, y1) in zip([ring[-1], *ring[:-1]], ring, strict=True):
        if (x0 < at) != (x1 < at):
            cut = [at, y0 + (at - x0) / (x1 - x0) * (y1 - y0)]
            for half in halves:
                half.append(cut)
        halves[x1 >= at].append([x1, y1])
    return halves


@pytest.mark.parametrize("simplify", [0, 2, 4])
@pytest.mark.parametrize("left", [CLASSES[0], None], ids=["kept", "deleted"])
def test_each_pixel_of_a_cut_object_follows_its_half(tmp_path: Path, simplify: float, left: str | None) -> None:
    """The larger half is renamed. Some pixels are outside the polygon, and some of the background inside."""

    def cut(value: Any) -> None:
        patch = next(each for each in value["shapes"] if each["points"][0][0] < 75 and each["points"][0][1] < 70)
        halves = zip(_halves(patch["points"], 32), (left, CLASSES[1]), strict=True)
        value["shapes"].remove(patch)
        value["shapes"][:0] = [{**patch, "points": points, "label": label} for points, label in halves if label]

    options = FileOptions(simplify=float(simplify))
    export = build(tmp_path, "png", "labelme", labels={"tools.png": TOOLS}, options=options)
    assert len(take(tmp_path, edit(export / "labelme/tools.json", cut).parent).masks) == 1
    patch = (TOOLS == 1) & (np.arange(120)[:, None] < 70)
    wanted = np.where(patch, np.where(np.arange(160) < 32, 1 if left else 0, 2), TOOLS)
    assert np.count_nonzero(labels_of(tmp_path, "tools") != wanted) <= 2  # at the ends of the cut


# ---- what lies above ----

#: A new object over the upper disc and the background, (top, left, bottom, right): IoU with the disc below one half.
OVER = (2, 2, 26, 40)


@pytest.mark.parametrize("place", ["behind", "in front"])
def test_a_new_object_lies_where_it_stands_in_the_file(tmp_path: Path, place: str) -> None:
    def change(value: Any) -> None:
        new = {"label": CLASSES[1], "points": corners_of(OVER), "shape_type": "polygon"}
        value["shapes"].insert(0 if place == "behind" else len(value["shapes"]), new)

    take(tmp_path, edit(build(tmp_path) / "labelme/scene.json", change).parent)
    new = mask_of(OVER) > 0
    wanted = np.where(new & ((SCENE == 0) | (place == "in front") | (SCENE == 255)), 2, SCENE)
    assert np.array_equal(labels_of(tmp_path), wanted)


def test_a_changed_object_lies_above_those_that_stayed_and_below_later_new_ones(tmp_path: Path) -> None:
    def change(value: Any) -> None:
        points = upper(value["shapes"], lambda each: each["points"])["points"]
        corner = max(range(len(points)), key=lambda index: sum(points[index]))
        x, y = points[corner]
        points[corner : corner + 1] = [[x + 2, y - 2], [40, 40], [37, 42], [x - 2, y + 2]]  # an arm, over the ring
        new = {"label": CLASSES[2], "points": [[30, 26], [36, 38]], "shape_type": "rectangle"}
        value["shapes"] += [new, {**new, "label": CLASSES[1], "points": [[32, 30], [34, 36]]}]

    assert SCENE[40, 38] == 2
    take(tmp_path, edit(build(tmp_path) / "labelme/scene.json", change).parent)
    found = labels_of(tmp_path)
    assert (found[40, 38], found[27, 31], found[33, 33], found[40, 50]) == (1, 3, 2, SCENE[40, 50])


# ---- tools that redraw what they were given ----


def _tools_scene() -> LabelArray:
    """A ragged patch, a ring with a disc of another class in its hole, a box, a small one, and a line two pixels wide."""
    ids: LabelArray = np.zeros((120, 160), np.uint8)
    noise = cv2.GaussianBlur(np.random.default_rng(5).random((60, 70)).astype(np.float32), (0, 0), 3)
    patch = cv2.circle(np.zeros((60, 70), np.float32), (35, 30), 22, 1, -1)
    _, regions, stats, _ = cv2.connectedComponentsWithStats((patch + 6 * (noise - 0.5) > 0.5).astype(np.uint8))
    ids[5:65, 5:75][regions == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])] = 1
    cv2.circle(ids, (115, 35), 28, 2, -1)
    cv2.circle(ids, (115, 35), 15, 0, -1)
    cv2.circle(ids, (115, 35), 8, 3, -1)
    ids[80:110, 20:60] = 3
    ids[90:97, 80:87] = 1
    ids[100:102, 95:140] = 2
    ids[117:, :] = 255
    return ids


TOOLS = _tools_scene()


def build_tools(root: Path) -> Path:
    """A run of TOOLS, and a copy of what it exported."""
    return build(root, labels={"tools.png": TOOLS}, options=DEFAULT_FILE_OPTIONS)


Annotations = list[dict[str, Any]]


def _mask_of(annotation: Mapping[str, object]) -> np.ndarray:
    found = annotation["segmentation"]
    if isinstance(found, list):
        found = coco_mask.merge(coco_mask.frPyObjects(found, *TOOLS.shape))
    return np.asarray(coco_mask.decode(found))


def _drawn(class_id: int, mask: np.ndarray) -> dict[str, Any]:
    """An annotation as CVAT's reader makes it of a mask: outer contours through the centres of pixels."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_KCOS)
    x, y, w, h = cv2.boundingRect(mask)
    rings = [np.ravel(each).tolist() for each in contours if len(each) > 2]
    return {"category_id": class_id, "segmentation": rings, "bbox": [x, y, w, h], "area": int(mask.sum())}


def _redrawn(export: Path) -> Annotations:
    value = json.loads((export / "annotations.json").read_bytes())
    return [_drawn(each["category_id"], _mask_of(each)) for each in value["annotations"]]


def save_coco(export: Path, annotations: Annotations) -> Path:
    value = json.loads((export / "annotations.json").read_bytes())
    value["annotations"] = [
        {"id": number, "image_id": 1, "iscrowd": 0, **each} for number, each in enumerate(annotations, 1)
    ]
    (export / "redrawn.json").write_text(json.dumps(value))
    return export / "redrawn.json"


def by_supervision(export: Path) -> Path:
    import supervision

    images = export.parent / "imgs"
    read = supervision.DetectionDataset.from_coco(str(images), str(export / "annotations.json"), force_masks=True)
    read.as_coco(annotations_path=str(export / "redrawn.json"))
    return export / "redrawn.json"


def by_contours(export: Path) -> Path:
    return save_coco(export, [each for each in _redrawn(export) if each["segmentation"]])


def by_contours_and_boxes(export: Path) -> Path:
    """Things that are too thin as boxes without polygons, as FiftyOne, supervision and datumaro write them."""
    found = _redrawn(export)
    assert any(not each["segmentation"] for each in found)
    return save_coco(export, found)


def by_contours_alone(export: Path) -> Path:
    """Each contour is an object, those of holes too, as in YOLO files that FiftyOne writes of polylines."""
    value = json.loads((export / "annotations.json").read_bytes())
    found = []
    for each in value["annotations"]:
        contours, _ = cv2.findContours(_mask_of(each), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        rings = [np.ravel(contour).tolist() for contour in contours if len(contour) > 2]
        found += [{**each, "segmentation": [ring]} for ring in rings]
    return save_coco(export, found)


def by_stretching(export: Path) -> Path:
    """Boxes that are smaller by a pixel, with masks resized to them, as FiftyOne does for run-length codes."""
    value = json.loads((export / "annotations.json").read_bytes())
    for each in value["annotations"]:
        x, y, w, h = each["bbox"]
        if each["area"] == w * h:  # of which nobody could tell
            continue
        mask = np.zeros(TOOLS.shape, np.uint8)
        mask[y : y + h - 1, x : x + w] = cv2.resize(_mask_of(each)[y : y + h, x : x + w], (w, h - 1))
        each["segmentation"] = rle_of(mask)
    return save_coco(export, value["annotations"])


def painted_masks(export: Path, annotations: Annotations) -> Path:
    """CVAT's masks of objects, in the order of the file."""
    ids = np.zeros(TOOLS.shape, np.uint8)
    for each in annotations:
        if each["segmentation"]:
            ids[_mask_of(each) > 0] = each["category_id"]
    names = [line.split(":") for line in (export / "cvat/labelmap.txt").read_text().splitlines()[1:]]
    colours = {name: tuple(map(int, rgb.split(","))) for name, rgb, *_ in names}
    save(
        export / "cvat/SegmentationClass/tools.png",
        np.array([(0, 0, 0), *(colours[each] for each in CLASSES)], np.uint8)[ids],
    )
    return export / "cvat"


def by_cvat_masks(export: Path) -> Path:
    return painted_masks(export, _redrawn(export))


def by_cvat_masks_with_the_ring_on_top(export: Path) -> Path:
    """The ring without its hole covers the disc in it."""
    return painted_masks(export, sorted(_redrawn(export), key=lambda each: each["category_id"] == 2))


REDRAWN = {
    "supervision": by_supervision,
    "contours": by_contours,
    "contours and boxes": by_contours_and_boxes,
    "contours of holes": by_contours_alone,
    "stretched": by_stretching,
    "masks of contours": by_cvat_masks,
    "masks of contours, the ring on top": by_cvat_masks_with_the_ring_on_top,
}


@pytest.mark.parametrize("tool", REDRAWN)
def test_redrawn_objects_stay(tmp_path: Path, tool: str) -> None:
    source = REDRAWN[tool](build_tools(tmp_path))
    before = tree(tmp_path / "out")
    found = take(tmp_path, source)
    assert (found.masks, found.unchanged) == ((), ("tools.png",))
    assert tree(tmp_path / "out") == before
    assert len(found.redrawn) == {"stretched": 3, "masks of contours, the ring on top": 5}.get(tool, 6)
    assert {each.image for each in found.redrawn} == {"tools.png"}


def test_masks_moved_by_a_pixel_stay_beside_an_edited_one(tmp_path: Path) -> None:
    """As FiftyOne rounds boxes down: a disc moves, a bow falls apart, and a line one pixel high becomes nothing."""
    ids = TOOLS.copy()
    ids[70, 100:140] = 3
    ids[75:77, 100:103] = ids[77, 103] = ids[78:80, 104:107] = 1
    export = build(tmp_path, labels={"tools.png": ids}, options=DEFAULT_FILE_OPTIONS)
    value = json.loads((export / "annotations.json").read_bytes())
    for each in value["annotations"]:
        x, y, w, h = each["bbox"]
        mask, drawn = _mask_of(each), np.zeros(TOOLS.shape, np.uint8)
        if h == 1:
            each["segmentation"] = {"size": list(TOOLS.shape), "counts": [TOOLS.size]}
        elif (x, y) == (100, 75):
            drawn[y : y + h, x : x + w - 1] = cv2.resize(mask[y : y + h, x : x + w], (w - 1, h))
            each["segmentation"] = rle_of(drawn)
        elif w == 17:
            each["segmentation"] = rle_of(np.roll(mask, -1, 0))
        elif (x, y) == (20, 80):
            mask[80, 20] = 0
            each["segmentation"] = rle_of(mask)
    taken = take(tmp_path, save_coco(export, value["annotations"]))
    ids[80, 20] = 0
    assert np.array_equal(labels_of(tmp_path, "tools"), ids)
    assert ([mask.changed for mask in taken.masks], len(taken.redrawn)) == ([1], 3)


@pytest.mark.parametrize("left", [[[103, 85, 105, 85, 105, 87, 103, 87]], [[103, 85.1, 106, 85.1, 106, 85.2]]])
def test_what_a_tool_leaves_of_a_small_object_stays_that_object(tmp_path: Path, left: list[list[float]]) -> None:
    ids = TOOLS.copy()
    ids[84:88, 102:107] = 1  # 20 pixels, of which a polygon through the centres of pixels keeps 4, or none
    export = build(tmp_path, labels={"tools.png": ids}, options=DEFAULT_FILE_OPTIONS)
    value = [each for each in _redrawn(export) if each["segmentation"]]
    next(each for each in value if each["bbox"][:2] == [102, 84])["segmentation"] = left
    assert take(tmp_path, save_coco(export, value)).masks == ()


def test_the_contour_of_a_hole_is_not_what_fills_the_hole(tmp_path: Path) -> None:
    """The contour fits better than the redrawn object in the hole."""
    ids: LabelArray = np.full(TOOLS.shape, 3, np.uint8)
    cv2.ellipse(ids, (80, 60), (40, 25), 20, 0, 360, 1, -1)
    export = build(tmp_path, labels={"tools.png": ids}, options=DEFAULT_FILE_OPTIONS)
    polygons = json.loads((export / "annotations-polygon.json").read_bytes())["annotations"]
    hole = next(each for each in polygons if each["category_id"] == 1)
    source = save_coco(export, [{**hole, "category_id": 3}, *_redrawn(export)])
    assert take(tmp_path, source).masks == ()


def test_the_parts_of_a_class_that_come_back_as_redrawn_objects_stay(tmp_path: Path) -> None:
    """With one object a class, CVAT makes a polygon of each of its parts."""
    ids: LabelArray = np.zeros((120, 160), np.uint8)
    for left in (5, 55, 105):
        cv2.ellipse(ids, (left + 20, 40), (18, 12), left, 0, 360, 1, -1)
    options = FileOptions(instances="class")
    export = build(tmp_path, labels={"tools.png": ids}, options=options)
    found = take(tmp_path, by_contours_alone(export))
    assert (found.masks, len(found.redrawn)) == ((), 3)
    moved = by_contours_alone(export)
    value = json.loads(moved.read_bytes())
    value["annotations"].pop(1)
    moved.write_text(json.dumps(value))
    assert [mask.changed for mask in take(tmp_path, moved).masks] == [int((ids[:, 50:100] > 0).sum())]


def test_a_part_that_a_tool_cut_off_is_no_new_object(tmp_path: Path) -> None:
    """A tail two pixels wide comes back in two parts, the outer one moved by a pixel."""
    ids: LabelArray = np.zeros((60, 90), np.uint8)
    cv2.circle(ids, (20, 30), 14, 1, -1)
    ids[29:31, 34:80] = 1
    source = build(tmp_path, "png", "cvat", labels={"tail.png": ids}) / "cvat"
    colours = np.asarray(Image.open(source / "SegmentationClass/tail.png").convert("RGB"))
    cut = colours.copy()
    cut[29:31, 50:80] = 0
    cut[30:32, 56:80] = colours[30, 20]
    save(source / "SegmentationClass/tail.png", cut)
    found = take(tmp_path, source)
    assert (found.masks, len(found.redrawn)) == ((), 1)
    assert np.array_equal(labels_of(tmp_path, "tail"), ids)


#: Where the box of class 3 loses pixels.
CUTS = {"moved": np.s_[80:110, 20:25], "a hole": np.s_[92:98, 35:45], "three rows": np.s_[80:83, 20:60]}


@pytest.mark.parametrize("way", ["objects", "masks"])
@pytest.mark.parametrize("change", [*CUTS, "gone", "class", "new"])
def test_an_edit_counts_in_a_source_that_redraws(tmp_path: Path, change: str, way: str) -> None:
    export, wanted = build_tools(tmp_path), TOOLS.copy()
    found = _redrawn(export)
    box = next(number for number, each in enumerate(found) if each["bbox"][:2] == [20, 80])
    area = (TOOLS == 3) & (np.arange(160) < 70)
    if change in CUTS:
        wanted[CUTS[change]] = 0
        found[box] = _drawn(3, (area & (wanted == 3)).astype(np.uint8))
        if change == "a hole":  # a keyhole
            ring = [20, 80, 59, 80, 59, 109, 20, 109, 20, 92, 35, 92, 35, 98, 45, 98, 45, 92, 20, 92]
            found[box]["segmentation"] = [ring]
    elif change == "class":
        wanted[area] = found[box]["category_id"] = 1
    elif change == "new":
        wanted[84:99, 110:149] = 1
        found.append(_drawn(1, np.pad(np.ones((16, 40), np.uint8), ((84, 20), (110, 10)))))
    else:
        wanted[area] = 0
        del found[box]
    objects = [each for each in found if each["segmentation"]]
    taken = take(tmp_path, painted_masks(export, found) if way == "masks" else save_coco(export, objects))
    assert [mask.image for mask in taken.masks] == ["tools.png"]
    differs = labels_of(tmp_path, "tools") != wanted
    # Of an edit itself the outline may be redrawn; nothing else may move.
    edited = cv2.dilate((wanted != TOOLS).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not differs[~edited].any()
    assert np.count_nonzero(differs) <= 0.5 * np.count_nonzero(wanted != TOOLS)


def test_a_single_pixel_counts_where_the_others_came_back_exactly(tmp_path: Path) -> None:
    def change(value: Any) -> None:
        image = scene_of(value)
        bar = next(each for each in value["annotations"] if each["image_id"] == image and each["category_id"] == 3)
        mask = np.asarray(coco_mask.decode(bar["segmentation"]))
        mask[57, 77] = 0
        bar["segmentation"] = rle_of(mask)

    found = take(tmp_path, edit(build(tmp_path) / "annotations.json", change))
    assert ([mask.changed for mask in found.masks], found.redrawn) == ([1], ())
    assert labels_of(tmp_path)[57, 77] == 0


# ---- which image, which class ----


#: Names that sources give images, with the image of a run of day1/frame.png, day1/deep/x.png, night.jpg and p/cafebabe-y.png.
NAMED: Mapping[str, tuple[str, str | None]] = {
    "the path": ("day1/frame.png", "day1/frame.png"),
    "the file name": ("frame.png", "day1/frame.png"),
    "the path below other folders": ("/data/set/day1/frame.png", "day1/frame.png"),
    "a path of Windows": ("C:\\set\\day1\\frame.png", "day1/frame.png"),
    "another suffix": ("day1/frame.jpeg", "day1/frame.png"),
    "another folder": ("day2/frame.png", None),
    "another folder below the same": ("set/day2/frame.png", None),
    "a folder between": ("day1/left/frame.png", None),
    "the end of a name": ("me.png", None),
    "an image at the top, below a folder": ("train/night.png", "night.jpg"),
    "an upload to Label Studio": ("/data/upload/3/0a1b2c3d-frame.png", "day1/frame.png"),
    "Label Studio's COCO": ("images/0a1b2c3d-frame.png", "day1/frame.png"),
    "a name of its own that looks like an upload": ("cafebabe-y.png", "p/cafebabe-y.png"),
    "that, uploaded": ("/data/upload/3/0a1b2c3d-cafebabe-y.png", "p/cafebabe-y.png"),
    "Roboflow": ("train/night_jpg.rf.Zk3y0bVtQ1.jpg", "night.jpg"),
    "Roboflow, of another image": ("train/day_jpg.rf.0123456789abcdef0123456789abcdef.jpg", None),
}


@pytest.mark.parametrize(("name", "wanted"), NAMED.values(), ids=NAMED)
def test_an_image_is_the_one_whose_path_ends_as_the_correction_says(
    tmp_path: Path, name: str, wanted: str | None
) -> None:
    images = ("day1/frame.png", "day1/deep/x.png", "night.jpg", "p/cafebabe-y.png", "other.png")
    build(tmp_path, "png", labels=dict.fromkeys(images, B))
    names = {1: "other.png", 2: name}  # one that is surely taken, so that the others may be left out
    value = {
        "images": [{"id": id_, "file_name": each, "height": 7, "width": 5} for id_, each in names.items()],
        "categories": [{"id": 1, "name": "sky"}],
        "annotations": [
            {"id": id_, "image_id": id_, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]} for id_ in names
        ],
    }
    (tmp_path / "x.json").write_text(json.dumps(value))
    found = take(tmp_path, tmp_path / "x.json")
    assert {mask.image for mask in found.masks} == {"other.png", *([wanted] if wanted else [])}
    assert list(found.unmatched) == ([] if wanted else [name])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param(["c.png"], "'c' could belong to p/c.png, q/c.png", id="one of two"),
        pytest.param(["x/c.png"], "new: the run has no image x/c(?m:$)", id="another folder"),
        pytest.param(["p/c.png", "train/p/c.png"], "its name is ambiguous: p/c, train/p/c", id="two for one"),
        pytest.param(["d.png"], "new: the run has no image d(?m:$)", id="none"),
    ],
)
def test_unclear_names_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    build(tmp_path, "png", labels={"p/c.png": B, "q/c.png": B})
    for name in names:
        save(tmp_path / "new" / name, np.zeros_like(B))
    before = tree(tmp_path / "out")
    with pytest.raises(TipssegError, match=message):
        take(tmp_path, tmp_path / "new")
    assert tree(tmp_path / "out") == before


def labelme_file(path: Path, *labels: str, size: tuple[int, int] = (60, 80)) -> Path:
    """A file of LabelMe with a small box of each class, below each other."""
    shapes = [
        {"label": label, "points": [[60, 20 + 5 * at], [64, 23 + 5 * at]], "shape_type": "rectangle"}
        for at, label in enumerate(labels)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"shapes": shapes, "imageHeight": size[0], "imageWidth": size[1]}))
    return path.parent


def test_classes_are_found_by_their_names_and_unknown_ones_refused(tmp_path: Path) -> None:
    build(tmp_path, "png", "labelme")
    before = tree(tmp_path / "out")
    source = labelme_file(tmp_path / "new/scene.json", "Panda Leg", "background", "tre", "kite")
    with pytest.raises(InputError, match=r"'tre' \(did you mean 'tree'\?\), 'kite'"):
        take(tmp_path, source)
    assert tree(tmp_path / "out") == before
    take(tmp_path, labelme_file(tmp_path / "new/scene.json", "Panda_Leg", "background"))
    assert labels_of(tmp_path)[21, 61] == 1


def test_further_classes_are_added(tmp_path: Path) -> None:
    build(tmp_path, "png", "coco", "cvat")
    found = take(
        tmp_path, labelme_file(tmp_path / "new/scene.json", "paper_kite", "panda leg", "lamp"), add_classes=True
    )
    assert found.classes == ("paper kite", "lamp")
    assert labels_of(tmp_path)[[21, 26, 31], [61, 61, 61]].tolist() == [4, 1, 5]
    listed = json.loads((tmp_path / "out/classes.json").read_bytes())["classes"]
    assert [each["name"] for each in listed] == [*CLASSES, "paper kite", "lamp"]
    assert "paper kite" in (tmp_path / "out/annotations.json").read_text()
    assert convert_folder(tmp_path / "out", ("yolo",), jobs=1, verbose=False) == 0
    assert "paper kite" in (tmp_path / "out/yolo/data.yaml").read_text()
    assert problems(tmp_path / "out") == []


def test_more_classes_than_masks_hold_are_refused(tmp_path: Path) -> None:
    save_inputs(tmp_path / "imgs", {"scene.png": SCENE})
    classes = tuple(f"class {each}" for each in range(1, 253))
    make_run(tmp_path / "out", tmp_path / "imgs", {"scene.png": SCENE}, classes, ("png",))
    source = labelme_file(tmp_path / "new/scene.json", *(f"more {each}" for each in range(5)))
    before = tree(tmp_path / "out")
    with pytest.raises(InputError, match="5 new ones exceed the limit of 8-bit masks"):
        take(tmp_path, source, add_classes=True)
    assert tree(tmp_path / "out") == before


# ---- images that lose all their objects ----


def emptied_in_cvat(export: Path) -> Path:
    """CVAT writes no mask for an image without objects, and lists it."""
    (export / "cvat/SegmentationClass/scene.png").unlink()
    (export / "cvat/SegmentationClass/elsewhere.png").write_bytes(b"")
    with (export / "cvat/ImageSets/Segmentation/default.txt").open("a") as file:
        file.write("elsewhere\nnowhere\n")
    return export / "cvat"


def emptied_in_yolo(export: Path) -> Path:
    """CVAT's: no text file for an image without objects, which is in the list of the images."""
    new = export / "from-cvat"
    (new / "labels/train").mkdir(parents=True)
    (new / "labels/train/a.txt").write_text("2 0.25 0.5 0.625 0.5 0.625 1 0.25 1\n")
    (new / "data.yaml").write_text(f"path: .\ntrain: train.txt\nnames: {json.dumps(CLASSES)}\n")
    images = ("a.png", "scene.png", "nowhere.png")
    (new / "train.txt").write_text("".join(f"data/images/train/{image}\n" for image in images))
    return new


EMPTIERS = {
    "cvat": emptied_in_cvat,
    "yolo": emptied_in_yolo,
    "label-studio": lambda export: submitted(export, lambda results: []),
}


@pytest.mark.parametrize("tool", EMPTIERS)
def test_reviewed_images_without_objects_are_emptied_and_named(tmp_path: Path, tool: str) -> None:
    source = EMPTIERS[tool](build(tmp_path))
    said = Said()
    found = correct_folder(tmp_path / "out", source, verbose=said)
    assert [mask.image for mask in found.masks if mask.emptied] == ["scene.png"]
    assert any("scene.png" in line and "no objects left" in line for line in said.lines), said.lines
    left = labels_of(tmp_path)
    # What no list of objects has stays: here a single pixel, and ignored ones.
    assert set(np.flatnonzero(left != np.where(SCENE == 255, 255, 0)).tolist()) <= {30 * 80 + 2}
    assert {Path(name).stem for name in found.unmatched} <= {"elsewhere", "nowhere"}
    assert take(tmp_path, source).masks == ()


def test_an_export_without_any_object_empties_nothing_unasked(tmp_path: Path) -> None:
    """Lists of images without any masks, as CVAT exports boxes as Pascal VOC."""
    source = build(tmp_path) / "cvat"
    shutil.rmtree(source / "SegmentationClass")
    before = tree(tmp_path / "out")
    with pytest.raises(InputError, match=r"no image has objects: .*scene\.png"):
        take(tmp_path, source)
    assert tree(tmp_path / "out") == before
    assert "scene.png" in [mask.image for mask in take(tmp_path, source, accept=True).masks if mask.emptied]
    assert take(tmp_path, source, accept=True).masks == ()


def test_images_without_objects_that_datumaro_leaves_out_are_emptied_only_if_asked(tmp_path: Path) -> None:
    """It lists the image, without an entry in `annotations` and without a picture."""
    export = build(tmp_path, "panoptic", "png")

    def change(value: Any) -> None:
        image = scene_of(value)
        value["annotations"] = [each for each in value["annotations"] if each["image_id"] != image]

    edit(export / "panoptic.json", change).rename(export / "panoptic/panoptic.json")
    (export / "panoptic/scene.png").unlink()
    left = take(tmp_path, export / "panoptic")
    assert (left.masks, "scene.png" in left.unchanged) == ((), False)
    assert not read_entries(tmp_path / "out")["scene.png"].corrected
    assert [mask.image for mask in take(tmp_path, export / "panoptic", accept=True).masks] == ["scene.png"]


# ---- all or nothing, and nothing of a person's ----


#: SCENE as another person has it.
MINE = np.where(SCENE == 3, 1, SCENE).astype(np.uint8)


class EditsAMask(Silence):
    """A person saves a mask while the corrections are read."""

    def __init__(self, mask: Path) -> None:
        super().__init__()
        self.mask = mask

    def end(self) -> None:
        save(self.mask, MINE)


def test_an_edit_that_is_saved_during_the_command_is_kept(tmp_path: Path) -> None:
    source = in_masks(build(tmp_path, "png", "hf"))
    save(source / "a.png", np.where(A == 1, 2, A).astype(np.uint8))
    taken = correct_folder(tmp_path / "out", source, verbose=EditsAMask(tmp_path / "out/masks/scene.png"))
    assert ([mask.image for mask in taken.masks], taken.failed) == (["a.png"], 1)
    assert np.array_equal(labels_of(tmp_path), MINE)
    assert not (labels_of(tmp_path, "a") == 1).any()
    assert problems(tmp_path / "out") == []


def test_an_edit_that_is_saved_while_its_image_is_accepted_is_kept(tmp_path: Path) -> None:
    source = build(tmp_path, "png", "coco") / "annotations.json"
    taken = correct_folder(tmp_path / "out", source, accept=True, verbose=EditsAMask(tmp_path / "out/masks/scene.png"))
    assert (taken.masks, taken.failed) == ((), 1)
    assert np.array_equal(labels_of(tmp_path), MINE)
    assert problems(tmp_path / "out") == []
    assert {image: entry.mask.accepted for image, entry in read_entries(tmp_path / "out").items()} == {
        image: image != "scene.png" for image in IMAGES
    }


@pytest.mark.parametrize("killed", [False, True], ids=["while the command runs", "after it is killed"])
def test_a_mask_that_is_saved_before_the_new_one_arrives_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """It is saved when the corrections are read, and goes to the trash; after a kill before that, it is the person's."""
    source, plain = in_masks(build(tmp_path, "png", "coco")), Files.put

    def save_mine(files: Files, file: StagedFile, *rest: Any) -> None:
        if file.row.place == "masks/scene.png":
            save(tmp_path / "out/masks/scene.png", MINE)
            if killed:
                raise KeyboardInterrupt
        plain(files, file, *rest)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Files, "put", save_mine)
        assert take(tmp_path, source).failed == 0
    if killed:
        assert take(tmp_path, source).left_out == ("scene.png",)
        assert np.array_equal(labels_of(tmp_path), MINE)
        take(tmp_path, source, replace_edited=True)
    assert np.array_equal(labels_of(tmp_path), WANTED)
    (trashed,) = (tmp_path / "out/replaced").glob("*/masks/scene.png")
    assert np.array_equal(read(trashed), MINE)
    assert problems(tmp_path / "out") == []


def test_masks_that_people_edited_are_theirs_without_the_cache_and_the_pictures(tmp_path: Path) -> None:
    """A program drops what a mask says of itself; manifest.jsonl tells whose it is."""
    build(tmp_path, "png", "coco")
    out, manifest = tmp_path / "out", tmp_path / "out/manifest.jsonl"
    save(out / "masks/scene.png", WANTED)
    save(out / "masks/a.png", A[:2])
    shutil.rmtree(out / ".tipsseg")
    (tmp_path / "imgs").rename(tmp_path / "moved")
    lines = [b"{", b"[]", b'{"files": {"png": "masks/scene.png"}}', b'{"files": {"png": []}}']
    wrong = {"image": "../scene.png", "path": 5, "files": {"png": "masks/scene.png"}, "size": 1, "sha256": None}
    manifest.write_bytes(b"\n".join([*lines, json.dumps(wrong).encode(), manifest.read_bytes()]))
    entries = read_entries(out)
    assert entries.keys() == IMAGES.keys()
    assert (entries["scene.png"].corrected, entries["scene.png"].path) == (True, str(tmp_path / "imgs/scene.png"))
    (problem,) = problems(out)
    assert "masks/a.png: changed by hand: " in problem
    assert convert_folder(out, ("coco-polygon",), jobs=1, verbose=False) == 1
    assert np.array_equal(labels_of(tmp_path), WANTED)
    facts = read_sealed((out / "masks/scene.png").read_bytes()).facts
    assert facts is not None
    assert (facts.image, facts.by) == ("scene.png", "person")
    assert np.array_equal(labels_of(tmp_path, "a"), A[:2])


def test_files_that_show_the_picture_follow_where_it_is(tmp_path: Path) -> None:
    export, out = build(tmp_path, "png", "overlay"), tmp_path / "out"
    (tmp_path / "imgs").rename(tmp_path / "moved")
    said = Said()
    correct_folder(out, in_masks(export), verbose=said)
    assert not (out / "overlays/scene.jpg").exists()
    assert any("Did not write overlay of 1 image" in line for line in said.lines)
    assert (out / "overlays/a.jpg").read_bytes() == (export / "overlays/a.jpg").read_bytes()
    take(tmp_path, export / "masks", images=tmp_path / "moved")
    assert (out / "overlays/scene.jpg").read_bytes() != (export / "overlays/scene.jpg").read_bytes()
    assert problems(out) == []


def test_a_source_must_have_one_format(tmp_path: Path) -> None:
    export = build(tmp_path)
    with pytest.raises(InputError, match=r"several formats match: .*cvat"):
        take(tmp_path, export)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no labels found in this folder"):
        take(tmp_path, tmp_path / "none")


# ---- another run: what a person changed in it ----

#: What a model guessed: nobody is to take it for a correction.
GUESS = np.where(SCENE == 2, 1, SCENE).astype(np.uint8)


def _edit_mask(loop: Path) -> Path:
    save(loop / "masks/scene.png", WANTED)
    return loop


def interrupted(folder: Path) -> Path:
    """A run that did not end."""
    edit(folder / "run.json", lambda run: run.update(ended=None))
    return folder


def two_runs(root: Path) -> Path:
    """out, a run, and loop, another one whose model guessed otherwise."""
    build(root, "png")
    guesses = {**IMAGES, "scene.png": GUESS, "a.png": (A > 0).astype(np.uint8)}
    make_run(root / "loop", root / "imgs", guesses, formats=("png", "coco", "labelme", "hf"))
    return root / "loop"


def test_nothing_is_taken_of_a_run_that_nobody_corrected(tmp_path: Path) -> None:
    loop = two_runs(tmp_path)
    before = tree(tmp_path / "out")
    for source in (loop, loop / "masks"):
        found = take(tmp_path, source)
        assert (found.masks, len(found.uncorrected)) == ((), 4)
    assert tree(tmp_path / "out") == before


#: Sources that show guesses of a model, and what is told.
NOT_OF_A_RUN: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "LabelMe": (lambda loop: _edit_mask(loop) / "labelme", "labelme/a.json: it shows the labels of the model too"),
    "masks of hf": (lambda loop: _edit_mask(loop) / "hf", "hf/masks/a.png: it shows the labels of the model too"),
    "COCO": (lambda loop: loop / "annotations.json", "annotations.json: it shows the labels of the model too"),
    "a zip": (lambda loop: _zip_of(_edit_mask(loop)), "a zipped output folder of tipsseg"),
    "a run that was interrupted": (interrupted, "the run was interrupted"),
}


@pytest.mark.parametrize(("person", "message"), NOT_OF_A_RUN.values(), ids=NOT_OF_A_RUN)
def test_guesses_of_another_run_are_refused(tmp_path: Path, person: Callable[[Path], Path], message: str) -> None:
    source = person(two_runs(tmp_path))
    before = tree(tmp_path / "out")
    with pytest.raises(InputError, match=message) as caught:
        take(tmp_path, source)
    assert caught.value.hint
    assert tree(tmp_path / "out") == before


# ---- masks of another run ----

#: The ids of WANTED for the same classes in another order, "Panda_Leg" of them in another spelling.
OTHER = ("sky", "Panda_Leg", "tree")
AS_OTHER = np.array([0, 2, 3, 1, *range(4, 256)], np.uint8)[WANTED]


def other_run(root: Path, classes: tuple[str, ...], *formats: str, ids: LabelArray = AS_OTHER) -> Path:
    """A copy of a run of other classes on the image, without its record."""
    make_run(root / "run", root / "imgs", {"scene.png": ids}, classes, formats)
    record = shutil.ignore_patterns(".tipsseg", "manifest.jsonl", "run.json")
    return Path(shutil.copytree(root / "run", root / "other", ignore=record))


def _zip_of(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder.with_name("zipped")), "zip", folder.parent, folder.name))


def _link_to_masks(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "masks")
    return folder / "link"


PARTS: Mapping[str, tuple[str, Callable[[Path], Path]]] = {
    "the folder": ("png", lambda folder: folder),
    "a zip": ("png", _zip_of),
    "a link to the masks": ("png", _link_to_masks),
    "the folder as hf": ("hf", lambda folder: folder),
    "hf": ("hf", lambda folder: folder / "hf"),
}


@pytest.mark.parametrize(("form", "part"), PARTS.values(), ids=PARTS)
def test_masks_of_a_run_with_other_ids_are_taken_by_the_names_of_classes(
    tmp_path: Path, form: str, part: Callable[[Path], Path]
) -> None:
    build(tmp_path, "png")
    take(tmp_path, part(other_run(tmp_path, OTHER, form)))
    assert np.array_equal(labels_of(tmp_path), WANTED)


def test_masks_of_a_run_with_further_classes(tmp_path: Path) -> None:
    build(tmp_path, "png")
    ids = np.array([0, 2, 1, 1, *range(4, 256)], np.uint8)[WANTED]  # none of the lamp
    other = other_run(tmp_path, ("sky", "kite", "lamp"), "png", ids=ids)
    before = tree(tmp_path / "out")
    with pytest.raises(InputError, match=r"\.png: unknown class 'kite'(?m:$)") as caught:
        take(tmp_path, other)
    assert "`add_classes`" in caught.value.hint
    assert tree(tmp_path / "out") == before
    assert take(tmp_path, other, add_classes=True).classes == ("kite",)
    assert np.array_equal(labels_of(tmp_path), np.array([0, 4, 3, 3, *range(4, 256)], np.uint8)[WANTED])
