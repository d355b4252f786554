"""Corrections that are damaged, or made to do harm: each is told of, and nothing is written."""

from __future__ import annotations

import base64
import json
import os
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_folders import CLASSES, make_run, save_inputs, tree
from PIL import Image
from saying import Said

from tipsseg.errors import TipssegError
from tipsseg.formats import source as sources
from tipsseg.formats.label_studio import decode_brush
from tipsseg.regions.shapes import shape_from_polygons
from tipsseg.types import LabelArray
from tipsseg.verbs.correct import correct_folder

SIZE = (6, 8)
IDS: LabelArray = np.zeros(SIZE, np.uint8)

#: Makes corrections in a folder; returns where they are.
Make = Callable[[Path], Path]


def refusal(root: Path, make: Make, source_format: str | None = None) -> str:
    """What is said of corrections; nothing must have been changed."""
    save_inputs(root / "imgs", {"a.png": IDS})
    make_run(root / "out", root / "imgs", {"a.png": IDS}, formats=("png",))
    before = tree(root / "out")
    (root / "new").mkdir()
    said = Said()
    with pytest.raises(TipssegError) as caught:
        correct_folder(
            root / "out",
            make(root / "new"),
            verbose=said,
            source_format=source_format,
            add_classes=True,
        )
    assert tree(root / "out") == before
    assert sorted(path.name for path in root.iterdir()) == ["imgs", "new", "out"]
    return "\n".join([*said.lines, f"{caught.value.message} | {caught.value.hint}"])


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> Make:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
        return folder / "x.zip"

    return make


def file(name: str, data: bytes) -> Make:
    """A folder with that file."""

    def make(folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return folder

    return make


def png(pixels: np.ndarray, suffix: str = "PNG") -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=suffix)
    return buffer.getvalue()


def _link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("a.png")
    entry.external_attr = 0o120777 << 16
    return entry


def _linked(folder: Path) -> Path:
    (folder / "real").write_bytes(png(IDS))
    (folder / "a.png").symlink_to("real")
    return folder


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.json")
    return folder


def _changed(change: Callable[[bytearray], None]) -> Make:
    """A zip whose bytes were changed after it was written."""

    def make(folder: Path) -> Path:
        path = zipped(("a.png", png(IDS)))(folder)
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
        return path

    return make


def _encrypted(data: bytearray) -> None:
    for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        data[data.index(mark) + at] |= 1


def _garbage(data: bytearray) -> None:
    start = data.index(b"a.png") + len(b"a.png")
    data[start : start + 8] = b"\xff" * 8


def _huge_png() -> bytes:
    """A PNG whose header speaks of 60,000 x 60,000 pixels."""
    import zlib

    data = bytearray(png(IDS))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


FILES = {
    "a path out of the zip": (zipped(("../../out/masks/a.png", png(IDS + 1))), "leads out of the zip"),
    "a link in a zip": (zipped((_link(), b"/etc/passwd")), "a link, which may lead anywhere"),
    "an encrypted zip": (_changed(_encrypted), "is encrypted"),
    "a zip that is damaged": (_changed(_garbage), "while decompressing|Bad CRC"),
    "a link in a folder": (_linked, "a link, which may lead anywhere"),
    "a pipe": (_pipe, "no labels found|not a regular file"),
    "a mask of another size": (file("a.png", png(IDS.T.copy())), "8 x 6 .*, but the image is 6 x 8"),
    "a mask that fills the memory": (file("a.png", _huge_png()), "60000 x 60000|3,600,000,000 pixels"),
    "colours of no class": (file("a.png", png(np.full((*SIZE, 3), 77, np.uint8))), "is neither an id nor a colour of a class"),
    "a JPEG that calls itself a PNG": (file("a.png", png(IDS, "JPEG")), "a JPEG, which may not preserve pixel values"),
    "an id that is no class": (file("a.png", png(IDS + 77)), "unknown ids: 77"),
    "a mask that is cut off": (file("a.png", png(IDS)[:45]), "truncated|broken"),
    "a zip whose JSON fills the memory": (
        zipped(("x.json", b'{"images": [], "annotations": [' + b"[]," * (16 << 20))), "would unpack to 50,331,"
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("constant", "value", "message"),
    [
        pytest.param("BYTES_MAX", 50, "bytes; the limit is 50", id="a zip bomb, by what it says of itself"),
        pytest.param("FILES_MAX", 1, "2 files; the limit is 1", id="too many files"),
    ],
)
def test_a_zip_has_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: str, value: int, message: str
) -> None:
    monkeypatch.setattr(sources, constant, value)
    monkeypatch.setattr(sources.Source.read, "__defaults__", (sources.BYTES_MAX,))
    said = refusal(tmp_path, zipped(("a.png", png(IDS)), ("b.png", b"\0" * 100_000)))
    assert message in said


def test_a_file_of_a_zip_is_in_memory_a_piece_at_a_time(tmp_path: Path) -> None:
    size = 24 << 20
    path = zipped(("a.png", bytes(size)))(tmp_path)
    tracemalloc.start()
    try:
        with sources.Source(path) as source, source.file("a.png") as unpacked:
            assert unpacked.stat().st_size == size
        assert tracemalloc.get_traced_memory()[1] < size / 3  # the most at any time
    finally:
        tracemalloc.stop()
    assert not unpacked.exists()


LEG = CLASSES[0]


def coco(annotation: dict[str, Any] | None = None, **other: Any) -> Make:
    value = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": LEG}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, **(annotation or {})}],
        **other,
    }
    return file("x.json", json.dumps(value).encode())


def labelme(shape: dict[str, Any], **other: Any) -> Make:
    shape = {"label": LEG, "shape_type": "polygon", "points": [[1, 1], [5, 1], [5, 4]], **shape}
    return file(
        "a.json", json.dumps({"shapes": [shape], "imageHeight": SIZE[0], "imageWidth": SIZE[1], **other}).encode()
    )


def label_studio(result: dict[str, Any], **task: Any) -> Make:
    result = {
        "type": "polygonlabels",
        "original_height": SIZE[0],
        "original_width": SIZE[1],
        "value": {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": [LEG], "rle": [1, 2], "brushlabels": [LEG]},
        **result,
    }
    made = {"data": {"image": "a.png"}, "annotations": [{"result": [result]}], **task}
    return file("x.json", json.dumps([made]).encode())


def yolo(line: str, names: str = f"names: [{LEG}]") -> Make:
    def make(folder: Path) -> Path:
        (folder / "data.yaml").write_text(names)
        return file("labels/a.txt", line.encode("latin-1"))(folder)

    return make


def xml(text: str) -> Make:
    return file(
        "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{text}</annotations>'.encode()
    )


def xml_shape(shapes: str) -> Make:
    named = shapes.replace("/>", f' label="{LEG}"/>')
    return xml(f'<image id="0" name="a.png" width="8" height="6">{named}</image>')


def cvat(palette: str) -> Make:
    """A mask of one colour."""

    def make(folder: Path) -> Path:
        (folder / "labelmap.txt").write_text(palette)
        return file("SegmentationClass/a.png", png(np.full((*SIZE, 3), 9, np.uint8)))(folder)

    return make


#: A PNG of one pixel.
DATA_URL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def rle(counts: object, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    return {"segmentation": {"size": list(size), "counts": counts}}


OBJECTS = {
    "coco: a code of another size": (coco(rle([48], (8, 6))), r"its RLE has size \[8, 6\]"),
    "coco: a code that does not add up": (coco(rle([10, 5])), "its runs do not add up to 6 x 8"),
    "coco: a code of a billion pixels": (coco(rle("0PPPPPPPPPPPP1")), "its RLE cannot be read"),
    "coco: far outside": (coco({"segmentation": [[0, 0, 1e300, 0, 3, 3]]}), "far outside"),
    "coco: an annotation of no image": (coco({"image_id": 3}), "annotations refer to image 3"),
    "coco: an image below 200,000 folders": (
        coco(images=[{"id": 1, "file_name": "b/" * 200_000, "height": 6, "width": 8}]), r"the run has no image b/b/.*\.\.\."
    ),
    "coco: a coordinate of 401 digits": (coco({"segmentation": [[0, 0, 10**400, 0, 3, 3]]}), "is too large"),
    "coco: more objects than an image has": (
        coco(annotations=[{"id": 1, "image_id": 1}] * 100_001), "image a.png: 100,001 objects in an image; the limit is 100,000"
    ),
    "coco: an outline without end": (
        coco({"segmentation": [[-8, 0, 16, 0] * 240_000]}), "outline is longer than"
    ),
    "labelme: a point that is far away": (labelme({"points": [[1e9, 1], [1, 5], [5, 5]]}), "out of range"),
    "labelme: a class of a control character": (labelme({"label": "\x1b[2J"}), "invalid new class"),
    "labelme: no picture": (labelme({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "eA=="}), "not a base64-encoded"),
    "label-studio: no such code": (label_studio({"type": "brushlabels"}), "its RLE cannot be read: unexpected end"),
    "label-studio: a small bitmask": (
        label_studio({"type": "bitmasklabels", "value": {"imageDataURL": DATA_URL, "bitmasklabels": [LEG]}}),
        "1 x 1 .*, but the image is 6 x 8",
    ),
    "cvat-xml: a bomb": (
        file("annotations.xml", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><annotations>&b;</annotations>'),
        "no labels found",
    ),
    "cvat-xml: a mask that adds up in 64 bits": (
        xml_shape('<mask rle="4611686018427387904,4611686018427387904,4611686018427387904,4611686018427387908" '
                  'left="0" top="0" width="2" height="2"/>'),
        "but its box has 4",
    ),
    "cvat-xml: a video": (xml('<track id="0" label="leg"><box frame="0"/></track>'), "a video annotation"),
    "cvat-xml: a part": (file("annotations.xml", b'<annotations><image name="a.png"'), "not XML: unclosed token"),
    "cvat-xml: nested without end": (file("annotations.xml", b"<annotations>" + b"<a>" * 200_000), "not XML"),
    "cvat-xml: a mask without end": (
        xml_shape('<mask rle="3" left="0" top="0" width="99999999" height="99999999"/>'),
        "is larger than the image",
    ),
    "cvat-xml: a mask far away": (xml_shape('<mask rle="0,1" left="1e30" top="0" width="1" height="1"/>'), "far outside"),
    "LabelMe 3.0": (
        file("default/a.xml", b"<annotation><filename>a.png</filename></annotation>"),
        "Pascal VOC boxes, or LabelMe 3.0",
    ),
    "label-studio: a rotated image": (label_studio({"image_rotation": 90}), "rotated in Label Studio"),
    "label-studio: two people": (label_studio({}, annotations=[{"result": []}] * 2), "2 annotations for one image"),
    "label-studio: predictions alone": (label_studio({}, annotations=[]), "submit the annotations first"),
    "yolo: an unknown class": (yolo("5 0 0 1 0 1 1"), "unknown class number 5"),
    "yolo: a box": (yolo("0 0.5 0.5 0.2 0.2"), "a box does not define pixels"),
    "yolo: an x without a y": (yolo("0 0 0 1 0 1"), "odd number of coordinates"),
    "coco: two categories of one id": (coco(categories=[{"id": 1, "name": LEG}] * 2), "two categories have the id 1"),
    "coco: no category": (coco({"category_id": 5, "segmentation": []}), "no category has the id 5"),
    "coco: an odd polygon": (coco({"segmentation": [[0, 0, 1]]}), "an odd number of coordinates"),
    "coco: half a box": (coco({"segmentation": [], "bbox": [0, 0, -1]}), "a box must be x, y, width and height"),
    "coco: text for a polygon": (coco({"segmentation": "1 2 3"}), "neither a list nor an RLE"),
    "coco: letters in a polygon": (coco({"segmentation": [["a", "b"]]}), "not a list of numbers"),
    "labelme: no points": (labelme({"points": 3}), "`points` is 3"),
    "labelme: half a point": (labelme({"points": [[1]]}), r"a point must be \[x, y\]"),
    "labelme: three corners of a rectangle": (labelme({"shape_type": "rectangle"}), "must have 2 points, not 3"),
    "labelme: an unknown shape": (labelme({"shape_type": "cube"}), "unsupported shape type .cube"),
    "labelme: no size": (labelme({}, imageHeight="6"), "height and width are missing"),
    "labelme: a mask of another image": (
        labelme({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": base64.b64encode(png(np.tile(IDS, 2))).decode()}),
        "larger than the image",
    ),
    "label-studio: no annotations": (label_studio({}, annotations=3), "not a list of annotations"),
    "label-studio: no picture": (label_studio({}, data={}), "the task has no image"),
    "label-studio: an unknown type": (label_studio({"type": "hologram"}), "unsupported result type .hologram"),
    "label-studio: two classes of an object": (
        label_studio({"value": {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": [LEG, "b"]}}), "must have one class, not 2"
    ),
    "cvat-xml: half a point": (xml_shape('<polygon points="1,2;3"/>'), "must be pairs of x and y"),
    "cvat-xml: a word for a number": (xml_shape('<box xtl="a" ytl="0" xbr="1" ybr="1"/>'), "is not a number"),
    "cvat-xml: no number": (xml_shape('<box xtl="nan" ytl="0" xbr="1" ybr="1"/>'), "is not a finite number"),
    "cvat-xml: an unknown shape": (xml_shape("<hologram/>"), "unsupported element .hologram"),
    "cvat-xml: an image without a name": (xml('<image id="0" width="8" height="6"></image>'), "an image has no name"),
    "yolo: no YAML": (yolo("0 0 0 1 0 1 1", "names: [a"), "not YAML"),
    "yolo: numbers for names": (yolo("0 0 0 1 0 1 1", "names: {0: [a]}"), "must map numbers to strings"),
    "yolo: bytes for text": (yolo("\xff\xfe"), "can't decode"),
    "cvat: a palette without a colour": (cvat(f"background:0,0,0::\n{LEG}:1,2::"), "expected `name:red,green,blue::`"),
    "cvat: two classes of one colour": (cvat(f"background:0,0,0::\n{LEG}:1,2,3::\nb:1,2,3::"), "have the same colour"),
    "cvat: a colour of no class": (cvat(f"background:0,0,0::\n{LEG}:1,2,3::"), "the colour 9,9,9 is not in labelmap.txt"),
    "hf: a line that is no record": (file("metadata.jsonl", b"{"), "line 1"),
    "hf: no mask": (file("metadata.jsonl", b'{"file_name": "a.png"}'), "no `mask_file_name`"),
    "hf: a mask that is missing": (
        file("metadata.jsonl", b'{"file_name": "a.png", "mask_file_name": "b.png"}'), "mask 'b.png' not found"
    ),
    "yolo: objects of Python": (yolo("0 0 0 1", "names: !!python/object/apply:os.abort []"), "`names` does not list the classes"),
}  # fmt: skip


HOSTILE = FILES | OBJECTS


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
def test_damaged_corrections_are_refused(tmp_path: Path, make: Make, message: str) -> None:
    said = refusal(tmp_path, make)
    assert re.search(message, said), said


# What label-studio-sdk's `encode_rle` makes of a ring, and of three colours of which two are opaque.
RING = [0, 0, 0, 216, 57, 27, 254, 43, 0, 194, 96, 55, 192, 39, 1, 140, 2, 112, 27, 224, 24, 76, 7, 39, 128, 0]
DOTS = [0, 0, 0, 24, 57, 27, 252, 96, 0, 5, 0, 40, 0, 240, 31, 241, 128, 70, 19, 24, 0, 0, 32, 1, 0, 6, 0, 0]


def test_brush_strokes_are_read_as_their_own_program_writes_them() -> None:
    ring = np.zeros((6, 9), bool)
    ring[1:4, 2:7] = True
    ring[2, 4] = False
    assert np.array_equal(decode_brush(RING, (6, 9)), ring)
    assert decode_brush(DOTS, (2, 3)).tolist() == [[False, True, False], [True, False, False]]


def test_many_polygons_are_all_filled() -> None:
    corners = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], np.float64)
    rings = [corners + np.array([4 * column, 4 * row]) for row in range(25) for column in range(40)]
    shape = shape_from_polygons(1, rings, (100, 160))
    wanted = np.tile(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4], bool), (25, 40))
    assert np.array_equal(shape.mask, wanted[:98, :158])


def test_polygons_may_lead_out_of_the_image() -> None:
    """As tools let them, for example where a person follows the edge of an image."""
    ring = np.array([[-3, -3], [4, -3], [4, 3], [-3, 3]], np.float64)
    shape = shape_from_polygons(1, [ring], SIZE)
    assert (shape.y, shape.x, shape.mask.shape, bool(shape.mask.all())) == (0, 0, (3, 4), True)
    outside = shape_from_polygons(1, [ring - 3], SIZE)
    assert outside.mask.size == 0
