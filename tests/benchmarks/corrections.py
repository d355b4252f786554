"""Count the wrong pixels after corrections in each format, of a scene with touching objects, holes and a part.

    PYTHONPATH=tests/support python tests/benchmarks/corrections.py

Prints a table in Markdown: wrong pixels in what a person changed / elsewhere, by format and edit.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
from numpy.typing import NDArray
from output_folders import make_run, save_inputs
from PIL import Image

from tipsseg.formats.label_studio import encode_brush
from tipsseg.regions.components import components
from tipsseg.review import correct_folder

Ids = NDArray[np.uint8]

CLASSES = ("panda", "tree", "car")
SIZE = (120, 160)


def scene() -> Ids:
    """A ring around a disc, two objects that touch, a whole with a part in it, and a bar."""
    ids = np.zeros(SIZE, np.uint8)
    cv2.circle(ids, (35, 35), 28, 1, -1)
    cv2.circle(ids, (35, 35), 16, 0, -1)
    cv2.circle(ids, (35, 35), 8, 2, -1)
    ids[70:110, 10:40], ids[70:110, 40:70] = 2, 3
    cv2.ellipse(ids, (115, 40), (35, 25), 0, 0, 360, 1, -1)
    cv2.circle(ids, (120, 40), 10, 3, -1)
    ids[90:97, 85:150] = 2
    return ids


BASE = scene()


def _edited(change: Callable[[Ids], object]) -> Ids:
    ids = BASE.copy()
    change(ids)
    return ids


def _move(ids: Ids) -> None:
    ids[90:97, 85:150] = 0
    ids[102:109, 88:153] = 2


#: What a person changes.
EDITS: Mapping[str, Ids] = {
    "nothing": BASE,
    "moved": _edited(_move),
    "removed": _edited(lambda ids: ids.__setitem__((slice(70, 110), slice(10, 40)), 0)),
    "redrawn": _edited(lambda ids: ids.__setitem__((slice(70, 82), slice(40, 70)), 0)),
    "renamed": _edited(lambda ids: ids.__setitem__((slice(90, 97), slice(85, 150)), 1)),
    "drawn": _edited(lambda ids: ids.__setitem__((slice(3, 13), slice(75, 95)), 3)),
    "in a hole": _edited(lambda ids: np.putmask(ids[20:50, 20:50], ids[20:50, 20:50] == 2, 0)),
}  # fmt: skip


def _run_of(ids: Ids, form: str, top: Path) -> Path:
    """The files of a run in a format, which do not say which labels they show."""
    shutil.rmtree(top / "edited", ignore_errors=True)
    make_run(top / "edited", top / "imgs", {"a.png": ids}, CLASSES, ("png", form))
    for path in (top / "edited").rglob("*.json"):
        path.write_text(re.sub(r',\s*"tipsseg": "[0-9a-f]{16}"', "", path.read_text()))
    (top / "edited/run.json").unlink()
    return top / "edited"


def _objects(ids: Ids) -> list[tuple[str, Ids]]:
    return [
        (CLASSES[region.class_id - 1], np.pad(region.mask, ((y, SIZE[0] - y - h), (x, SIZE[1] - x - w))).view(np.uint8))
        for region in components(ids, 3)
        for y, x, h, w in [region.box]
    ]


def _write(name: str) -> Callable[[Ids, Path], Path]:
    """A format of tipsseg's own, from the place where it is written."""
    return lambda ids, top: _run_of(ids, FORMS[name][0], top) / FORMS[name][1]


def _centres(ids: Ids, top: Path) -> Path:
    """COCO polygons through the centres of the outermost pixels, without holes: FiftyOne, supervision and datumaro."""
    path = top / "centres.json"
    record = {"images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}]}
    found = []
    for name, mask in _objects(ids):
        (ring, *_), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        found.append((name, ring[:, 0].ravel().tolist()))
    annotations = [
        {"id": number, "image_id": 1, "category_id": CLASSES.index(name) + 1, "segmentation": [ring]}
        for number, (name, ring) in enumerate(found, start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    path.write_text(json.dumps({**record, "annotations": annotations, "categories": categories}))
    return path


def _xml(ids: Ids, top: Path) -> Path:
    """CVAT for images 1.1, with a polygon for each ring of YOLO's lines."""
    lines = (_run_of(ids, "yolo", top) / "yolo/labels/train/a.txt").read_text().splitlines()
    shapes = []
    for line in lines:
        number, *sides = line.split()
        points = [
            f"{float(x) * SIZE[1]:.3f},{float(y) * SIZE[0]:.3f}" for x, y in zip(sides[::2], sides[1::2], strict=True)
        ]
        shapes.append(f'<polygon label={quoteattr(CLASSES[int(number)])} points="{";".join(points)}"/>')
    path = top / "annotations.xml"
    path.write_text(
        f'<annotations><image name="a.png" width="{SIZE[1]}" height="{SIZE[0]}">{"".join(shapes)}</image></annotations>'
    )
    return path


def _label_studio(ids: Ids, top: Path) -> Path:
    path = _run_of(ids, "label-studio", top) / "label-studio.json"
    path.write_text(path.read_text().replace('"predictions":', '"annotations":'))
    return path


def _brush(ids: Ids, top: Path) -> Path:
    results = [
        {
            "type": "brushlabels", "original_height": SIZE[0], "original_width": SIZE[1],
            "value": {"rle": encode_brush(mask > 0), "brushlabels": [name]},
        }
        for name, mask in _objects(ids)
    ]  # fmt: skip
    path = top / "brush.json"
    path.write_text(json.dumps([{"data": {"image": "a.png"}, "annotations": [{"result": results}]}]))
    return path


#: Formats of tipsseg, with the place of their files.
FORMS = {
    "coco": ("coco", "annotations.json"),
    "coco-polygon": ("coco-polygon", "annotations-polygon.json"),
    "yolo": ("yolo", "yolo"),
    "labelme": ("labelme", "labelme"),
    "cvat masks": ("cvat", "cvat"),
    "panoptic": ("panoptic", "."),
}

TOOLS: Mapping[str, Callable[[Ids, Path], Path]] = {
    **{name: _write(name) for name in FORMS},
    "cvat polygons": _xml,
    "label-studio polygons": _label_studio,
    "label-studio brush": _brush,
    "centres (FiftyOne)": _centres,
}


def correct(write: Callable[[Ids, Path], Path], wanted: Ids) -> Ids:
    """Return the labels after a correction."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        save_inputs(top / "imgs", {"a.png": BASE})
        make_run(top / "out", top / "imgs", {"a.png": BASE}, CLASSES, ("png",))
        source = write(wanted, top)
        form = "panoptic" if source.name == "edited" else None
        correct_folder(top / "out", source, source_format=form, verbose=False)
        with Image.open(top / "out/masks/a.png") as mask:
            return np.asarray(mask)


def count(labels: Ids, wanted: Ids) -> tuple[int, int]:
    """Return the wrong pixels in what was changed, with 3 pixels around it, and elsewhere."""
    touched = cv2.dilate((wanted != BASE).view(np.uint8), np.ones((7, 7), np.uint8)) > 0
    wrong = labels != wanted
    return int((wrong & touched).sum()), int((wrong & ~touched).sum())


def main() -> None:
    print(f"| | {' | '.join(EDITS)} |\n|---|{'---|' * len(EDITS)}")
    for tool, write in TOOLS.items():
        cells = [count(correct(write, wanted), wanted) for wanted in EDITS.values()]
        print(f"| {tool} | {' | '.join(f'{touched} / {rest}' for touched, rest in cells)} |", flush=True)


if __name__ == "__main__":
    main()
