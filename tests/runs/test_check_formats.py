"""Faults in files of the formats beside masks and COCO instances are found, in the right file, and nothing beside them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from output_folders import (
    ALL_FORMATS,
    A,
    B,
    Change,
    edit,
    edit_json,
    edit_line,
    entry,
    make_run,
    problems,
    remove,
    repaint,
    save_inputs,
    together,
    write,
)
from PIL import Image

from tipsseg.runs.check.folder import check_folder
from tipsseg.runs.progress import Progress
from tipsseg.store.shards import Shard
from tipsseg.types import LabelArray

LABELS: Mapping[str, LabelArray] = {"a.png": A, "sub/b c.jpg": B}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgs and out, in all formats."""
    root = tmp_path_factory.mktemp("sound")
    save_inputs(root / "imgs", LABELS)
    make_run(root / "out", root / "imgs", LABELS, formats=ALL_FORMATS)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True, symlinks=True)
    edit_json("out/run.json", lambda each: each.update(image_root=str(tmp_path / "imgs")))(tmp_path)
    return tmp_path


def colours(path: str, *pixels: tuple[int, int, int]) -> Change:
    """A colour picture whose first pixels are these."""

    def change(before: np.ndarray) -> np.ndarray:
        for number, colour in enumerate(pixels):
            before[0, number] = colour
        return before

    return repaint(path, change)


def save(path: str, mode: str, size: tuple[int, int] = (8, 6)) -> Change:
    """Another picture, of `size` (width, height)."""
    return lambda root: Image.new(mode, size).save(root / path)


def archive(**arrays: np.ndarray | None) -> Change:
    """The archive of a.png with other arrays; None for one that is left out."""

    def apply(root: Path) -> None:
        path = root / "out/npz/a.npz"
        with np.load(path) as before:
            kept = {**before, **arrays}
        np.savez(path, **{name: array for name, array in kept.items() if array is not None})

    return apply


def line(path: str, old: bytes, new: bytes) -> Change:
    return edit(path, lambda data: data.replace(old, new, 1))


def last_line(path: str) -> Change:
    """A file without its last line."""
    return edit(path, lambda data: b"".join(data.splitlines(keepends=True)[:-1]))


def without(path: str, pattern: bytes) -> Change:
    """A file with one line less."""
    return edit(path, lambda data: re.sub(pattern, b"", data, count=1))


PANOPTIC, LABELME, TASKS = "out/panoptic/a.png", "out/labelme/a.json", "out/label-studio.json"
YOLO, POLYGONS = "out/yolo/labels/a.txt", "out/annotations-polygon.json"

FAULTS: dict[str, tuple[Change, list[str]]] = {
    # ---- panoptic ----
    "a panoptic picture is gone": (remove(PANOPTIC), [f"{PANOPTIC}: no such file"]),
    "a panoptic picture of another kind": (
        save(PANOPTIC, "L"),
        [
            "out/panoptic.json: image a.png: its segments are not those of out/panoptic/a.png",
            "out/panoptic/a.png: a PNG of mode L, not a PNG of mode RGB",
        ],
    ),
    "a panoptic picture of another size": (
        save(PANOPTIC, "RGB", (6, 8)),
        [
            "out/panoptic.json: image a.png: its segments are not those of out/panoptic/a.png",
            "out/panoptic/a.png: 8 x 6 (height x width), where the manifest says 6 x 8 (height x width)",
        ],
    ),
    "a segment that is not listed": (
        colours(PANOPTIC, (0, 0, 7)),
        ["out/panoptic.json: image a.png: its segments are not those of out/panoptic/a.png"],
    ),
    "a segment with a pixel less": (
        colours(PANOPTIC, (0, 0, 0)),
        ["out/panoptic.json: image a.png: its segments are not those of out/panoptic/a.png"],
    ),
    "a segment with another area": (
        line("out/panoptic.json", b'"area": 4,', b'"area": 5,'),
        [
            "out/panoptic.json: image a.png: its objects have 7 pixels of class 1 (panda leg), where the manifest says 6",
            "out/panoptic.json: image a.png: its segments are not those of out/panoptic/a.png",
        ],
    ),
    "a segment that is listed twice": (
        line("out/panoptic.json", b'{"id": 2, "category_id"', b'{"id": 1, "category_id"'),
        ["out/panoptic.json: image a.png: its segments are not those of out/panoptic/a.png"],
    ),
    "a segment that is there twice": (
        edit(
            "out/panoptic.json",
            lambda data: re.sub(rb'"segments_info": \[(\{[^}]*\})', rb'"segments_info": [\1, \1', data, count=1),
        ),
        [
            "out/panoptic.json: image a.png: its objects have 10 pixels of class 1 (panda leg), where the manifest says 6",
            "out/panoptic.json: image a.png: its segments are not those of out/panoptic/a.png",
        ],
    ),
    "a segment without an area": (
        line("out/panoptic.json", b'"area": 4,', b""),
        ["out/panoptic.json: not as tipsseg writes it: no `area`"],
    ),
    "panoptic.json is gone": (remove("out/panoptic.json"), ["out/panoptic.json: missing"]),
    "panoptic.json is cut off": (
        last_line("out/panoptic.json"),
        ["out/panoptic.json: not as tipsseg writes it: its end is not there"],
    ),
    "panoptic.json without an image": (
        without("out/panoptic.json", rb',\n\{"id": 2, "file_name.*'),
        ["out/panoptic.json: not as tipsseg writes it: not as many annotations as images"],
    ),
    "panoptic.json without an annotation": (
        without("out/panoptic.json", rb',\n\{"image_id": 2.*'),
        ["out/panoptic.json: not as tipsseg writes it: not as many annotations as images"],
    ),
    # ---- yolo ----
    "a text file is gone": (remove(YOLO), ["out/yolo/labels/a.txt: no such file"]),
    "a line of two corners": (write(YOLO, b"0 0.1 0.1 0.2 0.2\n"), ["out/yolo/labels/a.txt: line 1 has no polygon"]),
    "a line of half a corner": (
        write(YOLO, b"0 0.1 0.1 0.2 0.2 0.3 0.3 0.4\n"),
        ["out/yolo/labels/a.txt: line 1 has no polygon"],
    ),
    "a corner outside of the image": (
        write(YOLO, b"0 0.1 0.1 0.2 0.2 0.3 1.01\n"),
        ["out/yolo/labels/a.txt: line 1 has no polygon"],
    ),
    "a corner before the image": (
        write(YOLO, b"0 0.1 0.1 0.2 0.2 -0.3 0.3\n"),
        ["out/yolo/labels/a.txt: line 1 has no polygon"],
    ),
    "corners on the edges": (write(YOLO, b"0 0 0 1 0 1 1\n"), []),
    "a line of another class": (
        write("out/yolo/sub/labels/b c.txt", b"0 0.1 0.1 0.2 0.2 0.3 0.3\n"),
        ["out/yolo/sub/labels/b c.txt: line 1 has the class 0, counted from 0, which the manifest does not have"],
    ),
    "a line of no class": (
        write(YOLO, b"7 0.1 0.1 0.2 0.2 0.3 0.3\n"),
        ["out/yolo/labels/a.txt: line 1 has the class 7, counted from 0, which the manifest does not have"],
    ),
    "a line of no numbers": (
        write(YOLO, b"0 a b c d e f\n"),
        ["out/yolo/labels/a.txt: not as tipsseg writes it: could not convert string to float: 'a'"],
    ),
    "a line without anything": (write(YOLO, b"\n"), ["out/yolo/labels/a.txt: line 1 has no polygon"]),
    "a text file that is none": (
        write(YOLO, b"\xff"),
        [
            "out/yolo/labels/a.txt: not as tipsseg writes it: "
            "'ascii' codec can't decode byte 0xff in position 0: ordinal not in range(128)"
        ],
    ),
    "data.yaml is gone": (remove("out/yolo/data.yaml"), ["out/yolo/data.yaml: missing"]),
    "data.yaml is a folder": (
        together(remove("out/yolo/data.yaml"), lambda root: (root / "out/yolo/data.yaml").mkdir()),
        ["out/yolo/data.yaml: missing"],
    ),
    "data.yaml with another name of a class": (
        line("out/yolo/data.yaml", b"tree", b"oak"),
        ["out/yolo/data.yaml: not what tipsseg writes for these classes and images"],
    ),
    "a list of images with one more": (
        edit("out/cvat/ImageSets/Segmentation/default.txt", lambda data: data + b"z\n"),
        ["out/cvat/ImageSets/Segmentation/default.txt: not what tipsseg writes for these classes and images"],
    ),
    "an interface with another name of a class": (
        line("out/label-studio.xml", b"tree", b"oak"),
        ["out/label-studio.xml: not what tipsseg writes for these classes and images"],
    ),
    "a conversion that was broken off": (
        together(
            edit_json("out/run.json", lambda each: each.update(converting=["yolo", "hf"])),
            write("out/.tipsseg-hf", b""),
            remove("out/yolo/data.yaml"),
            remove("out/hf/metadata.jsonl"),
        ),
        [
            "out/run.json: a conversion into yolo,hf was broken off. "
            "Run it again first: tipsseg convert out --format yolo,hf"
        ],
    ),
    "a link is gone": (remove("out/yolo/images/a.png"), ["out/yolo/images/a.png: missing"]),
    "a link leads nowhere": (
        together(remove("out/hf/images/a.png"), lambda root: (root / "out/hf/images/a.png").symlink_to("x")),
        ["out/hf/images/a.png: it leads to no file"],
    ),
    "a text file of no image": (
        write("out/yolo/sub/labels/x.txt", b""),
        ["out/yolo/sub/labels/x.txt: no image in the manifest has this file"],
    ),
    # ---- labelme ----
    "a LabelMe file is gone": (remove(LABELME), ["out/labelme/a.json: no such file"]),
    "a LabelMe file that is no JSON": (
        write(LABELME, b"{"),
        [
            "out/labelme/a.json: not as tipsseg writes it: "
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        ],
    ),
    "a LabelMe file of another size": (
        edit_json(LABELME, lambda each: each.update(imageHeight=7)),
        ["out/labelme/a.json: 7 x 8 (height x width), where the manifest says 6 x 8 (height x width)"],
    ),
    "a LabelMe file of another width": (
        edit_json(LABELME, lambda each: each.update(imageWidth=7)),
        ["out/labelme/a.json: 6 x 7 (height x width), where the manifest says 6 x 8 (height x width)"],
    ),
    "a LabelMe file without shapes": (
        edit_json(LABELME, lambda each: each.pop("shapes")),
        ["out/labelme/a.json: not as tipsseg writes it: no `shapes`"],
    ),
    "a shape of two corners": (
        edit_json(LABELME, lambda each: each["shapes"][0].update(points=[[0, 0], [1, 1]])),  # type: ignore[index]
        ["out/labelme/a.json: a shape has no polygon"],
    ),
    "a shape of another class": (
        edit_json(LABELME, lambda each: each["shapes"][0].update(label="oak")),  # type: ignore[index]
        ['out/labelme/a.json: a shape of "oak", which the manifest does not have'],
    ),
    # ---- cvat ----
    "a colour mask in grey": (
        save("out/cvat/SegmentationClass/a.png", "L"),
        ["out/cvat/SegmentationClass/a.png: a PNG of mode L, not a PNG of mode RGB"],
    ),
    "a colour that is no class": (
        colours("out/cvat/SegmentationClass/a.png", (1, 2, 3)),
        [
            "out/cvat/SegmentationClass/a.png: 5 pixels of class 1 (panda leg), where the manifest says 6",
            "out/cvat/SegmentationClass/a.png: a colour that is no class: #010203",
        ],
    ),
    "a colour of another class": (
        colours("out/cvat/SegmentationClass/a.png", (0, 128, 0)),
        [
            "out/cvat/SegmentationClass/a.png: 5 pixels of class 1 (panda leg), where the manifest says 6",
            "out/cvat/SegmentationClass/a.png: 5 pixels of class 2 (tree), where the manifest says 4",
        ],
    ),
    "labelmap.txt is gone": (remove("out/cvat/labelmap.txt"), ["out/cvat/labelmap.txt: missing"]),
    "the list of images is gone": (
        remove("out/cvat/ImageSets/Segmentation/default.txt"),
        ["out/cvat/ImageSets/Segmentation/default.txt: missing"],
    ),
    # ---- label-studio ----
    "the tasks are gone": (remove(TASKS), ["out/label-studio.json: missing"]),
    "the tasks are cut off": (
        last_line(TASKS),
        ["out/label-studio.json: not as tipsseg writes it: its end is not there"],
    ),
    "a task less": (without(TASKS, rb',\n\{"data".*'), ["out/label-studio.json: image sub/b c.jpg: missing"]),
    "a task twice": (
        edit(TASKS, lambda data: data.replace(b"\n]", b",\n" + data.splitlines()[-2] + b"\n]")),
        ["out/label-studio.json: image sub/b c.jpg: there twice"],
    ),
    "a task without a name": (
        line(TASKS, b'"file_name"', b'"name"'),
        ["out/label-studio.json: not as tipsseg writes it: a task without the name of its image"],
    ),
    "a task that is none": (
        edit(TASKS, lambda data: re.sub(rb'\{"data": .*\},', b"7,", data, count=1)),
        ["out/label-studio.json: not as tipsseg writes it: a task without the name of its image"],
    ),
    "a task of another image": (
        line(TASKS, b'"file_name": "a.png"', b'"file_name": "z.png"'),
        [
            "out/label-studio.json: image z.png: not in the manifest, or not in this format",
            "out/label-studio.json: image a.png: missing",
        ],
    ),
    "two tasks of another image": (
        edit(TASKS, lambda data: re.sub(rb'"file_name": "[^"]*"', b'"file_name": "z.png"', data)),
        [
            "out/label-studio.json: image z.png: not in the manifest, or not in this format",
            "out/label-studio.json: image z.png: there twice",
            "out/label-studio.json: image a.png: missing",
            "out/label-studio.json: image sub/b c.jpg: missing",
        ],
    ),
    "the interface is gone": (remove("out/label-studio.xml"), ["out/label-studio.xml: missing"]),
    # ---- hf ----
    "a mask with another id": (
        repaint("out/hf/masks/a.png", lambda pixels: np.where(pixels == 1, 2, pixels)),
        [
            "out/hf/masks/a.png: 0 pixels of class 1 (panda leg), where the manifest says 6",
            "out/hf/masks/a.png: 10 pixels of class 2 (tree), where the manifest says 4",
        ],
    ),
    "a mask with a palette": (
        save("out/hf/masks/a.png", "P"),
        ["out/hf/masks/a.png: a PNG of mode P, not a PNG of mode L"],
    ),
    "metadata.jsonl is gone": (remove("out/hf/metadata.jsonl"), ["out/hf/metadata.jsonl: missing"]),
    "metadata.jsonl with a line less": (
        last_line("out/hf/metadata.jsonl"),
        ["out/hf/metadata.jsonl: image sub/b c.jpg: missing"],
    ),
    "metadata.jsonl with a line that is none": (
        edit("out/hf/metadata.jsonl", lambda data: data + b"[]\n"),
        ["out/hf/metadata.jsonl: not as tipsseg writes it: a line without the name of its image"],
    ),
    "metadata.jsonl with an image elsewhere": (
        line("out/hf/metadata.jsonl", b'"images/a.png"', b'"a.png"'),
        ["out/hf/metadata.jsonl: not as tipsseg writes it: a line without the name of its image"],
    ),
    # ---- npz ----
    "an archive that is none": (
        write("out/npz/a.npz", b"no archive"),
        ["out/npz/a.npz: not as tipsseg writes it: no archive, or cut off"],
    ),
    "an archive that is cut off": (
        edit("out/npz/a.npz", lambda data: data[:-30]),
        ["out/npz/a.npz: not as tipsseg writes it: no archive, or cut off"],
    ),
    "an archive without labels": (
        archive(labels=None),
        ["out/npz/a.npz: not as tipsseg writes it: 'labels is not a file in the archive'"],
    ),
    "an archive with other labels": (
        archive(labels=np.where(A == 1, 2, A).astype(np.uint8)),
        [
            "out/npz/a.npz: 0 pixels of class 1 (panda leg), where the manifest says 6",
            "out/npz/a.npz: 10 pixels of class 2 (tree), where the manifest says 4",
        ],
    ),
    "an archive with labels of 16 bits": (
        archive(labels=A.astype(np.uint16)),
        ["out/npz/a.npz: its labels are uint16 [6, 8], where the manifest says 6 x 8 (height x width)"],
    ),
    "an archive of another size": (
        archive(labels=A[:-1]),
        ["out/npz/a.npz: its labels are uint8 [5, 8], where the manifest says 6 x 8 (height x width)"],
    ),
    "an archive with another confidence": (
        archive(confidence=A[:-1]),
        ["out/npz/a.npz: its confidence is uint8 [5, 8]"],
    ),
    "an archive with confidences of 16 bits": (
        archive(confidence=A.astype(np.uint16)),
        ["out/npz/a.npz: its confidence is uint16 [6, 8]"],
    ),
    "an archive with flat patches": (
        archive(top_ids=A[:2, :2], top_scores=np.ones((2, 2), np.float16)),
        ["out/npz/a.npz: its top_ids are uint8 [2, 2], its top_scores float16 [2, 2]"],
    ),
    "an archive with scores of others": (
        archive(top_scores=np.ones((1, 3, 2), np.float16)),
        ["out/npz/a.npz: its top_ids are uint8 [1, 2, 2], its top_scores float16 [1, 3, 2]"],
    ),
    # ---- overlay ----
    "an overlay that is cut off": (
        edit("out/overlays/a.jpg", lambda data: data[: len(data) // 2]),
        ["out/overlays/a.jpg: truncated file (image file is truncated (1 bytes not processed))"],
    ),
    # ---- coco-polygon, coco-results ----
    "the polygons are gone": (remove(POLYGONS), ["out/annotations-polygon.json: missing"]),
    "an image of polygons less": (
        together(
            without(POLYGONS, rb',\n\{"id": 2, "file_name.*'), without(POLYGONS, rb',\n\{"id": \d+, "image_id": 2.*')
        ),
        ["out/annotations-polygon.json: image sub/b c.jpg: missing"],
    ),
    "an image of polygons with another name": (
        line(POLYGONS, b'"a.png"', b'"z.png"'),
        [
            "out/annotations-polygon.json: image z.png: not in the manifest, or not in this format",
            "out/annotations-polygon.json: image a.png: missing",
        ],
    ),
    "a polygon that is no JSON": (
        line(POLYGONS, b'"segmentation": [[', b'"segmentation": [,['),
        ["out/annotations-polygon.json: not as tipsseg writes it: Expecting value: line 1 column 37 (char 36)"],
    ),
    "an object of polygons less": (
        without(POLYGONS, rb',\n\{"id": 2, "image_id.*\}'),
        [
            "out/annotations-polygon.json: image a.png: its objects have 4 pixels of class 1 (panda leg), where the manifest says 6"
        ],
    ),
    "an object of polygons of another class": (
        line(POLYGONS, b'"category_id": 3', b'"category_id": 9'),
        [
            "out/annotations-polygon.json: image a.png: objects of a class 9 that there is not",
            "out/annotations-polygon.json: image a.png: its objects have 0 pixels of class 3 (sky), where the manifest says 8",
        ],
    ),
    "the results are gone": (remove("out/results.json"), ["out/results.json: missing"]),
    "the results are cut off": (
        last_line("out/results.json"),
        ["out/results.json: not as tipsseg writes it: its end is not there"],
    ),
    "the results are empty": (
        write("out/results.json", b""),
        ["out/results.json: not as tipsseg writes it: its end is not there"],
    ),
    "the results begin in another way": (
        line("out/results.json", b"[\n", b"[ \n"),
        ["out/results.json: not as tipsseg writes it: it has not one record a line"],
    ),
    "a result with something behind it": (
        line("out/results.json", b'"a.png"}', b'"a.png"} '),
        [
            'out/results.json: not as tipsseg writes it: a record that is none: \'{"image_id": 1, "category_id": 1, "segme\''
        ],
    ),
    "a result that is no text": (
        line("out/results.json", b'{"image_id": 1', b"\xff" * 40),
        [
            "out/results.json: not as tipsseg writes it: a record that is none: '"
            + "\N{REPLACEMENT CHARACTER}" * 40
            + "'"
        ],
    ),
    "a result less": (
        without("out/results.json", rb',\n\{"image_id": 1, "category_id": 3.*\}'),
        ["out/results.json: image a.png: its objects have 0 pixels of class 3 (sky), where the manifest says 8"],
    ),
    "a result less, in a run with other settings": (
        together(
            without("out/results.json", rb',\n\{"image_id": 1, "category_id": 3.*\}'),
            entry("a.png", lambda each: each.update(digest="f" * 32)),
        ),
        [],
    ),
    "results of an image in two places": (
        edit(
            "out/results.json",
            lambda data: data.replace(b"\n]", b",\n" + data.splitlines()[1].removesuffix(b",") + b"\n]"),
        ),
        ["out/results.json: image a.png: there twice"],
    ),
    "a result of no image": (
        line("out/results.json", b'"file_name": "a.png"', b'"file_name": "z.png"'),
        [
            "out/results.json: image z.png: not in the manifest, or not in this format",
            "out/results.json: image a.png: its objects have 2 pixels of class 1 (panda leg), where the manifest says 6",
        ],
    ),
    "a result without a name": (
        line("out/results.json", b', "file_name": "a.png"', b""),
        [
            'out/results.json: not as tipsseg writes it: a record that is none: \'{"image_id": 1, "category_id": 1, "segme\''
        ],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found_where_it_is(root: Path, case: str) -> None:
    change, expected = FAULTS[case]
    assert problems(root / "out") == []
    change(root)
    assert [each.replace(f"{root}/", "") for each in problems(root / "out")] == expected


SOUND: dict[str, tuple[Mapping[str, LabelArray], Shard | None]] = {
    "a shard": (LABELS, Shard(1, 1)),
    "no images": ({}, None),
    "an image that is one object": ({"a.png": np.ones((2, 3), np.uint8)}, None),
}


@pytest.mark.parametrize("case", SOUND)
def test_what_a_run_leaves_in_all_formats_is_sound(tmp_path: Path, case: str) -> None:
    labels, shard = SOUND[case]
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, formats=ALL_FORMATS, shard=shard)
    assert problems(tmp_path / "out") == []


def test_formats_that_hold_some_of_the_images_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(root / "few", root / "imgs", LABELS, formats=("png", "yolo"))
    edit_line(
        "few/manifest.jsonl",
        lambda each: each["image"] == "a.png",
        lambda each: each.update(
            formats=["png"],
            files={"png": "masks/a.png"},
            written={"png": each["written"]["png"]},  # type: ignore[index]
        ),
    )(root)
    remove("few/yolo/labels/a.txt")(root)
    assert problems(root / "few") == []
    with Progress(quiet=False) as progress:
        assert list(check_folder(root / "few", None, 2, progress)) == []
    assert "In the format yolo are 1 of 2 images; tipsseg convert writes the others.\n" in capsys.readouterr().err
