"""Label files read back to label ids, by each format's own rules and nothing of the package."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

Ids = NDArray[np.int64]
Ring = list[list[float]]


def filled(rings: Iterable[Ring], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels in any of the rings, [[x, y], ...] in pixels, as pycocotools sees them."""
    codes = coco_mask.frPyObjects([[value for point in ring for value in point] for ring in rings], *size)
    return np.asarray(coco_mask.decode(coco_mask.merge(codes)), bool)


def painted(objects: Iterable[tuple[int, NDArray[np.bool_]]], size: tuple[int, int]) -> Ids:
    """Ids [H, W] of objects, the last one on top."""
    ids = np.zeros(size, np.int64)
    for class_id, mask in objects:
        ids[mask] = class_id
    return ids


def _picture(path: Path) -> NDArray[np.generic]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def _stem(image: str) -> str:
    return image.rpartition(".")[0]


def read_png(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    return _picture(out / "masks" / f"{_stem(image)}.png").astype(np.int64)


def read_hf(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    lines = [json.loads(line) for line in (out / "hf/metadata.jsonl").read_text("utf-8").splitlines()]
    (line,) = (each for each in lines if each["file_name"] == f"images/{image}")
    assert (out / "hf" / line["file_name"]).exists()
    return _picture(out / "hf" / line["mask_file_name"]).astype(np.int64)


def _coco(out: Path, file: str, image: str) -> tuple[dict[str, int], list[dict[str, object]]]:
    record = json.loads((out / file).read_bytes())
    (own,) = (each for each in record["images"] if each["file_name"] == image)
    return own, [each for each in record["annotations"] if each["image_id"] == own["id"]]


def read_coco(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    own, annotations = _coco(out, "annotations.json", image)
    assert (own["height"], own["width"]) == size
    objects = [(each["category_id"], coco_mask.decode(each["segmentation"]) > 0) for each in annotations]
    for each, (_, mask) in zip(annotations, objects, strict=True):
        y, x = np.nonzero(mask)
        assert each["area"] == len(y)
        assert each["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
    assert sum((mask for _, mask in objects), np.zeros(size, int)).max() <= 1
    return painted(objects, size)  # type: ignore[arg-type]


def read_coco_polygon(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    _, annotations = _coco(out, "annotations-polygon.json", image)
    objects = []
    for each in annotations:
        rings = [np.reshape(ring, (-1, 2)).tolist() for ring in each["segmentation"]]  # type: ignore[attr-defined]
        objects.append((each["category_id"], filled(rings, size)))
    return painted(objects, size)  # type: ignore[arg-type]


def read_coco_results(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    results = [each for each in json.loads((out / "results.json").read_bytes()) if each["file_name"] == image]
    assert all(0 <= each["score"] <= 1 for each in results)
    return painted(((each["category_id"], coco_mask.decode(each["segmentation"]) > 0) for each in results), size)


def read_panoptic(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    record = json.loads((out / "panoptic.json").read_bytes())
    (own,) = (each for each in record["images"] if each["file_name"] == image)
    (annotation,) = (each for each in record["annotations"] if each["image_id"] == own["id"])
    colours = _picture(out / "panoptic" / annotation["file_name"]).astype(np.int64)
    segments = colours @ np.array([1, 256, 65536])
    known = {each["id"]: each for each in annotation["segments_info"]}
    # panopticapi's rules: each id in the picture is listed, and the other way round, with its area and box.
    assert set(np.unique(segments).tolist()) - {0} == known.keys()
    assert {each["category_id"] for each in known.values()} <= {each["id"] for each in record["categories"]}
    for number, each in known.items():
        y, x = np.nonzero(segments == number)
        assert each["area"] == len(y)
        assert each["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        assert each["iscrowd"] == 0
    return painted(((each["category_id"], segments == number) for number, each in known.items()), size)


def read_yolo(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    path = out / "yolo/images/train" / re.sub(r"(?<![^/])images_*(?=/)", r"\g<0>_", image)
    assert path.exists()
    # As ultralytics finds the labels of an image.
    head, tail = str(path).rsplit("/images/", 1)
    labels = Path(f"{head}/labels/{_stem(tail)}.txt")
    height, width = size
    objects = []
    for line in labels.read_text().splitlines():
        number, *corners = line.split()
        points = np.reshape(np.array(corners, float), (-1, 2))
        assert len(points) >= 3
        assert ((points >= 0) & (points <= 1)).all()
        objects.append((int(number) + 1, filled([(points * [width, height]).tolist()], size)))
    return painted(objects, size)


def read_labelme(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    path = out / "labelme" / f"{_stem(image)}.json"
    record = json.loads(path.read_bytes())
    assert (path.parent / record["imagePath"]).exists()
    assert (record["imageHeight"], record["imageWidth"], record["imageData"]) == (*size, None)
    assert all(each["shape_type"] == "polygon" for each in record["shapes"])
    return painted(
        ((names.index(each["label"]) + 1, filled([each["points"]], size)) for each in record["shapes"]), size
    )


def read_cvat(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    lines = (out / "cvat/labelmap.txt").read_text("utf-8").splitlines()
    entries = [line.split(":") for line in lines if not line.startswith("#")]
    assert [entry[0] for entry in entries[1:]] == names
    assert all(entry[2:] == ["", ""] for entry in entries)
    colours = [tuple(map(int, entry[1].split(","))) for entry in entries]
    assert len(set(colours)) == len(colours)
    assert _stem(image) in (out / "cvat/ImageSets/Segmentation/default.txt").read_text("utf-8").splitlines()
    mask = _picture(out / "cvat/SegmentationClass" / f"{_stem(image)}.png").astype(np.int64)
    ids = np.full(size, -1)
    for number, colour in enumerate(colours):
        ids[(mask == colour).all(2)] = number
    return ids


def read_label_studio(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    (task,) = (
        each
        for each in json.loads((out / "label-studio.json").read_bytes())
        if unquote(each["data"]["image"]).endswith(f"/{image}")
    )
    (prediction,) = task["predictions"]
    height, width = size
    objects = []
    for each in prediction["result"]:
        assert (each["original_height"], each["original_width"]) == size
        points = np.array(each["value"]["points"]) * [width / 100, height / 100]
        (name,) = each["value"]["polygonlabels"]
        objects.append((names.index(name) + 1, filled([points.tolist()], size)))
    assert len({each["id"] for each in prediction["result"]}) == len(objects)
    return painted(objects, size)


def read_npz(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    with np.load(out / "npz" / f"{_stem(image)}.npz", allow_pickle=False) as archive:
        assert archive["confidence"].dtype == np.uint8
        assert archive["top_scores"].dtype == np.float16
        assert archive["top_scores"].shape == archive["top_ids"].shape
        return archive["labels"].astype(np.int64)


def class_folder(name: str) -> str:
    return re.sub(r'^[. -]|[\\/:*?"<>|]', "_", name)


def read_binary(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    ids = np.zeros(size, np.int64)
    for number, name in enumerate(names, start=1):
        white = _picture(out / "binary" / class_folder(name) / f"{_stem(image)}.png")
        assert set(np.unique(white).tolist()) <= {0, 255}
        ids[white == 255] = number
    return ids


def read_cutouts(out: Path, image: str, names: list[str], size: tuple[int, int]) -> Ids:
    """The places are those of the COCO file, which lists the objects in the same order."""
    _, annotations = _coco(out, "annotations.json", image)
    objects = []
    for number, each in enumerate(annotations, start=1):
        (x, y, w, h), class_id = np.array(each["bbox"]).tolist(), int(str(each["category_id"]))
        folder = out / "cutouts" / class_folder(names[class_id - 1])
        cutout = _picture(folder / f"{_stem(image)}-{number}.png").astype(np.int64)
        assert cutout.shape == (h, w, 4)
        mask = np.zeros(size, bool)
        mask[y : y + h, x : x + w] = cutout[..., 3] == 255
        assert not cutout[cutout[..., 3] < 255].any()
        objects.append((class_id, mask))
    return painted(objects, size)


#: (output folder, image's name, names of the classes, (height, width)) -> ids [H, W].
Read = Callable[[Path, str, list[str], tuple[int, int]], Ids]

#: The formats that hold what the masks hold, ignored pixels and all.
EXACT: Mapping[str, Read] = {"png": read_png, "hf": read_hf, "npz": read_npz}

#: Those in which ignored pixels are background.
WITHOUT_IGNORED: Mapping[str, Read] = {
    "coco": read_coco,
    "coco-results": read_coco_results,
    "panoptic": read_panoptic,
    "cvat": read_cvat,
    "binary": read_binary,
    "cutouts": read_cutouts,
}

#: Those that hold polygons.
POLYGONS: Mapping[str, Read] = {
    "coco-polygon": read_coco_polygon,
    "yolo": read_yolo,
    "labelme": read_labelme,
    "label-studio": read_label_studio,
}

#: All of them.
READERS: Mapping[str, Read] = {**EXACT, **WITHOUT_IGNORED, **POLYGONS}
