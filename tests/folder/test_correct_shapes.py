"""The shapes of labelling tools become the pixels that they cover: turned, round, partly outside, or none."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_folders import CLASSES, make_run, save_inputs
from PIL import Image
from saying import Said

from tipsseg.types import LabelArray
from tipsseg.verbs.correct import correct_folder

SIZE = (60, 80)
LEG = CLASSES[0]
NAME = "sub/photo.png"


def rectangle(centre: tuple[float, float], sides: tuple[float, float], angle: float = 0) -> np.ndarray:
    """The pixels whose centres are in a rectangle around (x, y), turned clockwise."""
    along, across = _turned(centre, angle)
    return (np.abs(along) < sides[0] / 2) & (np.abs(across) < sides[1] / 2)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], angle: float = 0) -> np.ndarray:
    along, across = _turned(centre, angle)
    return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 < 1


def _turned(centre: tuple[float, float], angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x, y, cosine, sine = x - centre[0], y - centre[1], np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return cosine * x + sine * y, cosine * y - sine * x


def corners(centre: tuple[float, float], sides: tuple[float, float], angle: float) -> list[list[float]]:
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    halves = [(u * sides[0] / 2, v * sides[1] / 2) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return [[centre[0] + cosine * u - sine * v, centre[1] + sine * u + cosine * v] for u, v in halves]


def png(mask: np.ndarray, mode: str) -> str:
    picture = Image.fromarray((mask * 255).astype(np.uint8))
    if mode == "RGBA":
        opaque, picture = picture, Image.new("RGBA", picture.size)
        picture.putalpha(opaque)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def labels_of(root: Path) -> np.ndarray:
    with Image.open(root / "out/masks/sub/photo.png") as picture:
        return np.array(picture)


Write = Callable[[Path], object]


def labelme(*shapes: Mapping[str, object], name: str = "photo.json", **more: object) -> Write:
    value = {
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
        "shapes": [{"label": LEG, **each} for each in shapes],
        **more,
    }
    return lambda folder: (folder / name).write_text(json.dumps(value))


def coco(*annotations: Mapping[str, object], size: tuple[int, int] = SIZE, **more: object) -> Write:
    value = {
        "images": [{"id": 1, "file_name": NAME, "height": size[0], "width": size[1]}],
        "categories": [{"id": 1, "name": LEG}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 1, **each} for each in annotations],
        **more,
    }
    return lambda folder: (folder / "x.json").write_text(json.dumps(value))


def region(kind: str, value: Mapping[str, object]) -> dict[str, Any]:
    return {"original_width": SIZE[1], "original_height": SIZE[0], "type": kind, "value": {**value, kind: [LEG]}}


def percent(x: float, y: float) -> tuple[float, float]:
    return 100 * x / SIZE[1], 100 * y / SIZE[0]


def label_studio(*results: Mapping[str, object]) -> Write:
    task = {"id": 1, "data": {"image": f"/data/local-files/?d={NAME}"}, "annotations": [{"result": results}]}
    return lambda folder: (folder / "x.json").write_text(json.dumps([task]))


def label_studio_minimal(*results: Mapping[str, Any]) -> Write:
    regions = [{**each["value"], "original_width": SIZE[1], "original_height": SIZE[0]} for each in results]
    task = {"id": 1, "image": "/data/upload/1/0a1b2c3d-photo.png", "annotation_id": 7, "label": regions, "annotator": 1}
    return lambda folder: (folder / "x.json").write_text(json.dumps([task]))


def xml(*shapes: str, size: tuple[int, int] = SIZE) -> Write:
    text = "".join(each if "label" in each else each.replace("/>", f' label="{LEG}"/>') for each in shapes)
    image = f'<image id="0" name="{NAME}" width="{size[1]}" height="{size[0]}">{text}</image>'
    return lambda folder: (folder / "annotations.xml").write_text(f"<annotations>{image}</annotations>")


def yolo(*lines: str, classes: str = f"other\n{LEG}\n", listing: str = "classes.txt") -> Write:
    def write(folder: Path) -> None:
        (folder / "labels/sub").mkdir(parents=True)
        (folder / listing).write_text(classes)
        (folder / "labels/sub/photo.txt").write_text("".join(f"{line}\n" for line in lines))

    return write


TURNED = rectangle((40, 30), (30, 12), 25)
ROUND = ellipse((40, 30), (20, 8), 70)
#: Turned by Label Studio around the top left corner.
AROUND_A_CORNER = corners((40, 30), (30, 12), 25)[0]
CUT = rectangle((76, 30), (20, 10))
BITS = rectangle((20, 20), (9, 5))
UPRIGHT = rectangle((30, 20), (20, 10))
LS_RECTANGLE = {
    "x": percent(*AROUND_A_CORNER)[0], "y": percent(*AROUND_A_CORNER)[1],
    "width": percent(30, 12)[0], "height": percent(30, 12)[1], "rotation": 25,
}  # fmt: skip
LS_ELLIPSE = {
    "x": percent(40, 30)[0], "y": percent(40, 30)[1], "radiusX": percent(20, 8)[0], "radiusY": percent(20, 8)[1], "rotation": 70,
}  # fmt: skip
OBB = " ".join(f"{x / SIZE[1]} {y / SIZE[0]}" for x, y in corners((40, 30), (30, 12), 25))
RING = [coordinate for corner in corners((30, 20), (20, 10), 0) for coordinate in corner]

SHAPES: Mapping[str, tuple[Write, np.ndarray]] = {
    "labelme: an oriented rectangle": (
        labelme({"shape_type": "oriented_rectangle", "points": corners((40, 30), (30, 12), 25)}), TURNED,
    ),
    "labelme: a turned rectangle of X-AnyLabeling": (
        labelme({"shape_type": "rotation", "points": corners((40, 30), (30, 12), 25)}), TURNED,
    ),
    "labelme: a mask partly outside": (
        labelme({"shape_type": "mask", "points": [[66, 25], [86, 35]], "mask": png(np.ones((10, 20)), "L")}), CUT,
    ),
    "labelme: a mask that begins outside": (
        labelme({"shape_type": "mask", "points": [[-4, -3], [6, 7]], "mask": png(np.ones((10, 10)), "L")}),
        rectangle((3, 3.5), (6, 7)),
    ),
    "labelme: of another name": (
        labelme(
            {"shape_type": "rectangle", "points": [[20, 15], [40, 25]]}, name="1.json", imagePath="..\\imgs\\sub\\photo.png"
        ),
        UPRIGHT,
    ),
    "label-studio: a turned rectangle": (label_studio(region("rectanglelabels", LS_RECTANGLE)), TURNED),
    "label-studio: an ellipse": (label_studio(region("ellipselabels", LS_ELLIPSE)), ROUND),
    "label-studio: a bitmask": (
        label_studio(region("bitmasklabels", {"imageDataURL": f"data:image/png;base64,{png(BITS, 'RGBA')}"})), BITS,
    ),
    "label-studio: JSON-MIN": (
        label_studio_minimal(region("rectanglelabels", LS_RECTANGLE), region("ellipselabels", LS_ELLIPSE)), TURNED | ROUND,
    ),
    "coco: an uncompressed code": (
        coco({"segmentation": {"size": list(SIZE), "counts": np.diff(
            [0, *np.flatnonzero(np.diff(UPRIGHT.T.reshape(-1), prepend=False)), UPRIGHT.size]
        ).tolist()}}),
        UPRIGHT,
    ),
    "coco: a box of CVAT": (coco({"segmentation": [], "bbox": [20, 15, 20, 10]}), UPRIGHT),
    "coco: a box without segmentation": (coco({"bbox": [20, 15, 20, 10]}), UPRIGHT),
    "coco: a box partly outside": (coco({"bbox": [66, 25, 20, 10]}), CUT),
    "coco: a ring of two corners beside another": (coco({"segmentation": [[1, 1, 5, 5], RING]}), UPRIGHT),
    "coco: the size before EXIF turns the image, by Label Studio": (
        coco(
            {"segmentation": [(np.reshape(RING, (-1, 2)) * (SIZE[0] / SIZE[1], SIZE[1] / SIZE[0])).ravel().tolist()]},
            {"bbox": [66, 25, 20, 10]},
            size=SIZE[::-1], info={"contributor": "Label Studio"},
        ),
        UPRIGHT | CUT,
    ),
    "labelme: a rectangle of four points": (
        labelme({"shape_type": "rectangle", "points": corners((40, 30), (30, 12), 25)}), TURNED,
    ),
    "labelme: a line of an unknown class": (
        labelme(
            {"shape_type": "line", "points": [[1, 1], [9, 9]], "label": "ruler"},
            {"shape_type": "rectangle", "points": [[20, 15], [40, 25]]},
        ),
        UPRIGHT,
    ),
    "yolo: a blank line in classes.txt, beside the labels": (
        yolo("2 " + " ".join(f"{x / SIZE[1]} {y / SIZE[0]}" for x, y in corners((30, 20), (20, 10), 0)),
             classes=f"other\n\n{LEG}\n", listing="labels/classes.txt"),
        UPRIGHT,
    ),
    "cvat-xml: UTF-16": (
        lambda folder: (folder / "a.xml").write_bytes(
            f'<annotations><image name="{NAME}" width="80" height="60">'
            f'<box label="{LEG}" xtl="20.4" ytl="15.4" xbr="39.6" ybr="24.6"/></image></annotations>'.encode("utf-16")
        ),
        UPRIGHT,
    ),
    "yolo: an oriented box, classes.txt": (yolo(f"1 {OBB}"), TURNED),
    "cvat-xml: a turned box": (
        xml('<box xtl="25" ytl="24" xbr="55" ybr="36" rotation="25"/>'), TURNED,
    ),
    "cvat-xml: an ellipse": (xml('<ellipse cx="40" cy="30" rx="20" ry="8" rotation="70"/>'), ROUND),
    "cvat-xml: a mask": (
        xml('<mask rle="20, 20, 60, 20" left="20" top="15" width="20" height="6"/>'),
        rectangle((30, 16.5), (20, 1)) | rectangle((30, 20.5), (20, 1)),
    ),
    "cvat-xml: a mask partly outside": (
        xml('<mask rle="100, 100" left="66" top="25" width="20" height="10"/>'),
        rectangle((76, 32.5), (20, 5)),
    ),
}  # fmt: skip


def take(root: Path, write: Write, **options: Any) -> Said:
    save_inputs(root / "imgs", {NAME: np.zeros(SIZE, np.uint8)})
    make_run(root / "out", root / "imgs", {NAME: np.zeros(SIZE, np.uint8)}, formats=("png",))
    (root / "new").mkdir()
    write(root / "new")
    said = Said()
    correct_folder(root / "out", root / "new", verbose=said, **options)
    return said


@pytest.mark.parametrize(("write", "wanted"), SHAPES.values(), ids=SHAPES)
def test_shapes_cover_their_pixels(tmp_path: Path, write: Write, wanted: LabelArray) -> None:
    take(tmp_path, write)
    found = labels_of(tmp_path) == 1
    # pycocotools and the centres of pixels may differ at edges, but not in the place, the turn or the size.
    assert np.count_nonzero(found != wanted) <= 0.06 * np.count_nonzero(wanted)
    y, x = (np.nonzero(each) for each in (found, wanted))
    assert np.abs(np.mean(y, 1) - np.mean(x, 1)).max() < 0.3


#: Shapes without pixels, and the words of the note.
VAGUE: Mapping[str, tuple[Write, list[str]]] = {
    "labelme": (
        labelme(
            {"shape_type": "line", "points": [[1, 1], [9, 9]]}, {"shape_type": "point", "points": [[1, 1]]},
            {"shape_type": "line", "points": [[1, 1], [9, 9]]}, {"shape_type": "polygon", "points": [[1, 1], [9, 9]]},
        ),
        ["2 shapes without pixels: line", "1 shape without pixels: point",
         "1 shape without pixels: polygon with fewer than 3 corners"],
    ),
    "label-studio": (label_studio(region("keypointlabels", {"x": 1, "y": 1})), ["1 shape without pixels: keypointlabels"]),
    "coco": (coco({"keypoints": [1, 1, 2]}), ["1 shape without pixels: annotation without segmentation and box"]),
    "cvat-xml": (
        xml("<points/>", "<polyline/>", "<points/>"),
        ["2 shapes without pixels: points", "1 shape without pixels: polyline"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "notes"), VAGUE.values(), ids=VAGUE)
def test_shapes_without_pixels_are_skipped_with_a_line_per_kind(tmp_path: Path, write: Write, notes: list[str]) -> None:
    said = take(tmp_path, write, accept=True)
    assert [line for line in said.lines if line.startswith("Skipped")] == [f"Skipped {note}." for note in notes]
    assert not labels_of(tmp_path).any()


def test_filled_boxes_are_noted(tmp_path: Path) -> None:
    said = take(tmp_path, coco({"bbox": [20, 15, 20, 10]}, {"bbox": [50, 15, 9, 9]}))
    assert "Filled 2 boxes without polygons." in said.lines


@pytest.mark.parametrize(("orders", "upper"), [((0, 0), 2), ((1, 0), 1), ((-1, 0), 2)])
def test_objects_of_cvat_lie_in_their_order(tmp_path: Path, orders: tuple[int, int], upper: int) -> None:
    """A higher z_order lies above; of the same, the later one."""
    boxes = [
        f'<box label="{name}" xtl="{start}" ytl="{start}" xbr="{start + 20}" ybr="{start + 20}" z_order="{order}"/>'
        for name, start, order in zip(CLASSES[:2], (10, 20), orders, strict=True)
    ]
    take(tmp_path, xml(*boxes))
    assert labels_of(tmp_path)[25, 25] == upper


@pytest.mark.parametrize("write", [xml, coco], ids=["cvat-xml", "coco"])
def test_the_box_of_an_object_that_nobody_edited_changes_nothing(tmp_path: Path, write: Callable[..., Write]) -> None:
    labels = ROUND.astype(np.uint8)
    save_inputs(tmp_path / "imgs", {NAME: labels})
    make_run(tmp_path / "out", tmp_path / "imgs", {NAME: labels}, formats=("png",))
    rows, columns = (np.flatnonzero(ROUND.any(axis)) for axis in (1, 0))
    x, y, right, bottom = columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1
    box = f'<box xtl="{x}" ytl="{y}" xbr="{right}" ybr="{bottom}"/>'
    (tmp_path / "new").mkdir()
    write(box if write is xml else {"bbox": [x, y, right - x, bottom - y]})(tmp_path / "new")
    assert correct_folder(tmp_path / "out", tmp_path / "new", verbose=Said()).masks == ()
