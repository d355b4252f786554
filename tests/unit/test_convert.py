"""What is converted is what a run would have written, from whichever files it comes and whenever the conversion is killed."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from dying import Killed, death_after
from output_folders import (
    ALL_FORMATS,
    CLASSES,
    NOTHING,
    A,
    B,
    annotation,
    edit,
    edit_json,
    entry,
    make_run,
    problems,
    remove,
    repaint,
    save_inputs,
    together,
    tree,
    write,
)
from PIL import Image

from tipsseg.claim import LOCK_FILE, Claim
from tipsseg.convert import convert_folder
from tipsseg.errors import InputError, OutputError, TipssegError, UsageError
from tipsseg.file_options import DEFAULT_FILE_OPTIONS, FileOptions, LeastArea
from tipsseg.files import json_bytes
from tipsseg.journal import Journal
from tipsseg.merge_stage import JOINED
from tipsseg.progress import Progress
from tipsseg.records import LabelArray
from tipsseg.regions import encode_rle
from tipsseg.shards import Shard

#: Images in the order of their names. One lies on its side, one has a name that is no UTF-8, one spells such a name out.
IMAGES: Mapping[str, LabelArray] = {
    "a.png": A,
    "b/c.jpg": B,
    "b/ü.png": NOTHING,
    "b.c/d.png": A.T.copy(),
    os.fsdecode(b"z\xff.png"): A,
    "z\\udcfe.png": B,
}
#: The same without ignored pixels, which lists of objects do not have.
SURE: Mapping[str, LabelArray] = {name: np.where(ids == 255, 0, ids).astype(np.uint8) for name, ids in IMAGES.items()}
WIDE = {"w.png": np.array([[0, 1, 254, 254], [255, 256, 300, 65535]], np.uint16)}
WIDE_CLASSES = tuple(f"thing {number}" for number in range(1, 301))

WITHOUT_CONFIDENCE = tuple(name for name in ALL_FORMATS if name not in ("npz", "confidence"))
#: What says nothing of how sure the labels are.
UNSCORED = ("png", "yolo", "labelme", "cvat", "hf", "overlay")


@dataclass(frozen=True)
class Case:
    """A run in some formats, converted into others."""

    of: tuple[str, ...]
    into: tuple[str, ...] = WITHOUT_CONFIDENCE
    labels: Mapping[str, LabelArray] = field(default_factory=lambda: IMAGES)
    classes: tuple[str, ...] = CLASSES
    options: FileOptions = DEFAULT_FILE_OPTIONS


LEAST_3 = FileOptions(min_area=LeastArea(3))
CLASSWISE = FileOptions(instances="class")

#: Here the very bytes are those of the run.
CASES: Mapping[str, Case] = {
    "masks and annotations": Case(("png", "coco")),
    "masks and results": Case(("png", "coco-results")),
    "masks and polygons": Case(("hf", "coco-polygon")),
    "masks and segments": Case(("panoptic", "png")),
    "annotations alone": Case(("coco",), labels=SURE),
    "results alone": Case(("coco-results",), labels=SURE),
    "archives": Case(("npz",), ALL_FORMATS),
    "masks and confidences": Case(("png", "confidence"), (*WITHOUT_CONFIDENCE, "confidence")),
    "all formats": Case(ALL_FORMATS, ALL_FORMATS),
    "masks alone, what has no scores": Case(("png",), UNSCORED),
    "masks of a palette": Case(("png", "coco"), options=FileOptions(png_mode="P")),
    "least area": Case(("png", "coco"), options=LEAST_3),
    "least area, with archives": Case(("npz",), ALL_FORMATS, options=LEAST_3),
    "one object a class, by its masks": Case(("png",), options=CLASSWISE),
    "one object a class, by its archives": Case(("npz",), ALL_FORMATS, options=CLASSWISE),
    "one object a class, with polygons": Case(("png", "coco-polygon"), options=CLASSWISE),
    "300 classes": Case(("png", "coco"), labels=WIDE, classes=WIDE_CLASSES),
    "300 classes, archives": Case(("npz",), ALL_FORMATS, labels=WIDE, classes=WIDE_CLASSES),
    "300 classes, annotations": Case(
        ("coco",), labels={"w.png": WIDE["w.png"][:, :2].copy()}, classes=WIDE_CLASSES
    ),
    "no images": Case(("png", "coco"), labels={}),
}  # fmt: skip


def build(root: Path, case: Case) -> None:
    """out, and what it is to become."""
    (root / "imgs").mkdir()
    save_inputs(root / "imgs", case.labels)
    make_run(root / "out", root / "imgs", case.labels, case.classes, case.of, options=case.options)
    both = tuple(dict.fromkeys((*case.of, *case.into)))
    make_run(root / "wanted", root / "imgs", case.labels, case.classes, both, options=case.options)


def convert(root: Path, *formats: str, images: Path | None = None, jobs: int = 2) -> tuple[int, list[str]]:
    """How many images of out failed, and what was said on stderr."""
    said = Notes()
    failed = convert_folder(root / "out", formats, images, jobs, said)
    return failed, said.lines


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=False, results=False)
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)

    def error(self, error: TipssegError) -> None:
        self.lines.append(f"{error.message} | {error.hint}")


def links(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): str(path.readlink()) for path in folder.rglob("*") if path.is_symlink()}


def assert_same(out: Path, wanted: Path) -> None:
    """The same files, in whatever order the formats came."""
    found, expected = tree(out), tree(wanted)
    for folder in (found, expected):
        lines = [json.loads(line) for line in folder.pop("manifest.jsonl", b"").splitlines()]
        for line in lines:
            line["formats"].sort()
        folder["manifest.jsonl"] = json.dumps(lines, sort_keys=True).encode()
        run = json.loads(folder.pop("run.json"))
        folder["run.json"] = json.dumps({**run, "formats": sorted(run["formats"])}, sort_keys=True).encode()
    assert found == expected
    assert links(out) == links(wanted)


@pytest.mark.parametrize("case", CASES)
def test_the_bytes_are_those_of_a_run(tmp_path: Path, case: str) -> None:
    build(tmp_path, CASES[case])
    assert convert(tmp_path, *CASES[case].into)[0] == 0
    assert_same(tmp_path / "out", tmp_path / "wanted")
    assert problems(tmp_path / "out") == []

    before = tree(tmp_path / "out")
    failed, said = convert(tmp_path, *CASES[case].into)
    assert failed == 0
    assert tree(tmp_path / "out") == before
    number = len(CASES[case].labels)
    assert said[-1].startswith(f"0 images converted, {number} unchanged in " if number else "0 images converted in ")


def test_one_format_after_the_other(tmp_path: Path) -> None:
    build(tmp_path, CASES["archives"])
    for name in reversed(ALL_FORMATS):
        assert convert(tmp_path, name, jobs=1)[0] == 0
    assert_same(tmp_path / "out", tmp_path / "wanted")


# ---- scores ----


def scores(folder: Path) -> list[float]:
    return [each["score"] for each in json.loads((folder / "annotations.json").read_bytes())["annotations"]]


def test_scores_that_8_bits_hold_only_nearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fine(ids: LabelArray) -> np.ndarray:
        return np.random.default_rng(ids.size).random(ids.shape, np.float32)

    monkeypatch.setattr("output_folders.confidence_of", fine)
    build(tmp_path, Case(("npz",), ("coco",)))
    _, said = convert(tmp_path, "coco")
    difference = np.abs(np.subtract(scores(tmp_path / "out"), scores(tmp_path / "wanted")))
    assert 0 < difference.max() < 0.002
    assert not any("The score" in line for line in said)


def test_scores_of_classes_where_there_is_nothing_closer(tmp_path: Path) -> None:
    build(tmp_path, Case(("png",), ("coco",), {"a.png": A}))
    failed, said = convert(tmp_path, "coco")
    assert failed == 0
    summary = json.loads((tmp_path / "out/manifest.jsonl").read_bytes())["classes"]
    means = {each["id"]: each["confidence"] for each in summary}
    annotations = json.loads((tmp_path / "out/annotations.json").read_bytes())["annotations"]
    assert [each["score"] for each in annotations] == [means[each["category_id"]] for each in annotations]
    assert (
        f"The score of {len(annotations)} objects is the mean confidence of its class in the image: {tmp_path}/out holds "
        "nothing closer." in said
    )


def test_objects_that_look_alike_keep_their_scores(tmp_path: Path) -> None:
    """Two components of one class, area and box: one inside the other's box, turned."""
    corner = np.array([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 1, 1, 1, 1]], np.uint8)
    apart = corner.copy()
    apart[0, 4] = apart[4, 0] = 2  # the boxes of both corners are the whole picture but for one row or column
    build(tmp_path, Case(("png", "coco"), ("coco-results",), {"a.png": apart}))
    convert(tmp_path, "coco-results")
    assert_same(tmp_path / "out", tmp_path / "wanted")


def test_what_is_said(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "coco"), ("yolo", "coco-polygon"), options=CLASSWISE))
    _, said = convert(tmp_path, "yolo", "coco-polygon")
    assert said[0] == f"6 images of {tmp_path}/out into yolo, coco-polygon."
    assert said[1] == "In yolo an object has one part, so each part of a class is an object there."
    assert said[2].startswith("Polygons of 11 objects: IoU with their pixels 1.0000 on average")
    assert said[3].startswith("6 images converted in ")
    assert said[3].endswith(f" s, into {tmp_path}/out")
    assert len(said) == 4


# ---- images that fail ----

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Fault:
    """What one image says that cannot be converted; the others are."""

    says: str
    change: Change = lambda root: None
    of: tuple[str, ...] = ("png", "coco")
    into: tuple[str, ...] = ("coco-polygon",)
    labels: Mapping[str, LabelArray] = field(default_factory=lambda: IMAGES)
    options: FileOptions = DEFAULT_FILE_OPTIONS


def shift(pixels: np.ndarray) -> np.ndarray:
    return np.where(pixels == 2, 3, pixels)


def palette(root: Path) -> None:
    """run.json says that masks are of mode P."""
    record = json.loads((root / "out/run.json").read_bytes())
    record["options"]["png_mode"] = "P"
    write("out/run.json", json_bytes(record))(root)


CHECK = "See what is wrong with it: tipsseg check "
GONE = "Give the folder that has it with --images, or leave out"
CHANGED = "Only what the run wrote can be converted; remove the file and label the image again."
LEFT_OUT = "It lists no ignored pixels and no objects below --min-area; label with --format png."

FAULTS: Mapping[str, Fault] = {
    "a mask that is gone": Fault(f"out: no labels of b/c.jpg are left | {CHECK}out", remove("out/masks/b/c.png"), of=("png",)),
    "a mask that is none": Fault(
        f"out/masks/b/c.png: not an image in a format that Pillow reads | {CHANGED}", write("out/masks/b/c.png", b"x"), of=("png",)
    ),
    "a mask of another kind": Fault(
        f"out/masks/b/c.png: a PNG of mode L, not a PNG of mode P | {CHANGED}",
        palette,
        of=("png",),
        labels={"b/c.jpg": B},
    ),
    "a mask with other labels": Fault(
        f"out/masks/b/c.png: 0 pixels of class 2 (tree), where the manifest says 21 | {CHANGED}",
        repaint("out/masks/b/c.png", shift),
        of=("png",),
    ),
    "an archive that is none": Fault(
        f"out/npz/b/c.npz: not as tipsseg writes it: no archive, or cut off | {CHANGED}",
        write("out/npz/b/c.npz", b"PK\x03\x04 and no more"),
        of=("npz",),
    ),
    "an archive without labels": Fault(
        f"out/npz/b/c.npz: not as tipsseg writes it: 'labels is not a file in the archive' | {CHANGED}",
        lambda root: np.savez(root / "out/npz/b/c.npz", confidence=B),
        of=("npz",),
    ),
    "an archive of another size": Fault(
        f"out/npz/b/c.npz: not as tipsseg writes it: uint8 [4, 4] and uint8 [4, 4] | {CHANGED}",
        lambda root: shutil.copy(root / "out/npz/b/ü.npz", root / "out/npz/b/c.npz"),
        of=("npz",),
    ),
    "an archive with odd scores": Fault(
        f"out/npz/b/c.npz: not as tipsseg writes it: uint8 [2] and float64 [2] | {CHANGED}",
        lambda root: np.savez(root / "out/npz/b/c.npz", labels=B, confidence=B, top_ids=B[0, :2], top_scores=np.ones(2)),
        of=("npz",),
    ),
    "a confidence that is gone": Fault(
        f"out/confidence/b/c.png: no such file | {CHECK}out", remove("out/confidence/b/c.png"), of=("png", "confidence")
    ),
    "objects below the least area": Fault(
        f"out/annotations.json: a.png: 32 pixels of background, where the manifest says 30 | {LEFT_OUT}",
        of=("coco",),
        labels={"a.png": SURE["a.png"], "b.jpg": B},
        options=LEAST_3,
    ),
    "a mask of the same pixels in other places": Fault(
        f"out/masks/b/c.png: N bytes, where the manifest says M | {CHANGED}",
        lambda root: Image.fromarray(B[:, ::-1]).save(root / "out/masks/b/c.png", compress_level=0),
        of=("png",),
    ),
    "a file that somebody worked on": Fault(
        "out/labelme/b/c.json: changed since it was written | Move it away to have it written again.",
        edit_json("out/labelme/b/c.json", lambda each: each.update(flags={"seen": True})),
        of=("png", "labelme"),
        into=("labelme", "yolo"),
    ),
    "results without an object": Fault(
        f"out/results.json: a.png: 38 pixels of background, where the manifest says 30 | {LEFT_OUT}",
        edit("out/results.json", lambda data: re.sub(rb',\n\{"image_id": 1, "category_id": 3.*', b"", data)),
        of=("coco-results",),
        labels={"a.png": SURE["a.png"]},
    ),
    "an annotation outside of the image": Fault(
        f"out/annotations.json: a.png: not as tipsseg writes it: an object that is not in the image | {LEFT_OUT}",
        annotation(1, segmentation=encode_rle(np.ones((100, 100), np.bool_))),
        of=("coco",),
        labels={"a.png": SURE["a.png"], "b.jpg": B},
    ),
    "an annotation without a score": Fault(
        f"out/annotations.json: a.png: not as tipsseg writes it: no `score` | {CHECK}out", annotation(1, score=None)
    ),
    "an entry without a size": Fault(
        f"out/manifest.jsonl: a.png: not as tipsseg writes it: `height` is \"6\" | {CHECK}out",
        entry("a.png", lambda each: each.update(height="6")),
    ),
    "an image that is gone": Fault(
        f"imgs/b/c.jpg: no such file | {GONE} yolo and overlay.",
        remove("imgs/b/c.jpg"),
        into=("coco-polygon", "yolo", "overlay"),
    ),
    "an image that is another": Fault(
        "imgs/b/c.jpg: changed since it was labelled | Label it again, or leave out overlay.",
        lambda root: shutil.copy(root / "imgs/a.png", root / "imgs/b/c.jpg"),
        into=("overlay",),
    ),
    "a place that is a folder": Fault(
        "imgs/b/c.jpg: cannot write out/yolo/b/labels/c.txt: a folder has this name | "
        "Move the folder away, or choose another output folder.",
        lambda root: (root / "out/yolo/b/labels/c.txt").mkdir(parents=True),
        into=("yolo",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_an_image_that_cannot_be_converted_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    fault = FAULTS[case]
    build(tmp_path, Case(fault.of, fault.into, fault.labels, options=fault.options))
    shutil.copytree(tmp_path, tmp_path / "sound", symlinks=True)
    fault.change(tmp_path)
    monkeypatch.chdir(tmp_path)
    edit_json("out/run.json", lambda each: each.update(image_root="imgs"))(tmp_path)
    said = Notes()
    assert convert_folder(Path("out"), fault.into, None, 2, said) == 1
    found = [re.sub(r"\d+ bytes(.*) \d+ \|", r"N bytes\1 M |", line) for line in said.lines if " | " in line]
    assert found == [fault.says]
    others = len(fault.labels) - 1
    assert said.lines[-1].startswith(f"{others} image{'s' * (others != 1)} converted, 1 failed in ")
    for name in set(fault.into) - set(fault.of):
        held = [
            name in json.loads(line)["formats"] for line in (tmp_path / "out/manifest.jsonl").read_bytes().splitlines()
        ]
        assert sum(held) == others


def test_what_failed_is_done_once_it_is_mended(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "coco"), ("yolo", "overlay")))
    (tmp_path / "imgs/b/c.jpg").rename(tmp_path / "kept.jpg")
    assert convert(tmp_path, "yolo", "overlay")[0] == 1
    (tmp_path / "kept.jpg").rename(tmp_path / "imgs/b/c.jpg")
    failed, said = convert(tmp_path, "yolo", "overlay")
    assert failed == 0
    assert said[-1].startswith("1 image converted, 5 unchanged in ")
    assert_same(tmp_path / "out", tmp_path / "wanted")


@pytest.mark.parametrize("name", ["masks/b/c.png", "hf/masks/b/c.png", "npz/b/c.npz"])
def test_a_file_that_is_lost_is_made_again_from_another(tmp_path: Path, name: str) -> None:
    formats = ("png", "hf", "npz")
    build(tmp_path, Case(formats, formats))
    (tmp_path / "out" / name).unlink()
    failed, said = convert(tmp_path, *formats)
    assert failed == (1 if name.endswith("npz") else 0)
    if not failed:
        assert said[-1].startswith("1 image converted, 5 unchanged")
        assert_same(tmp_path / "out", tmp_path / "wanted")


def test_annotations_that_are_lost_are_made_again(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "coco-results", "coco"), ("coco",)))
    (tmp_path / "out/annotations.json").unlink()
    failed, said = convert(tmp_path, "coco")
    assert failed == 0
    assert f"{tmp_path}/out/annotations.json: no such file; done without it." in said
    assert len(tree(tmp_path / "out")["annotations.json"].splitlines()) == len(
        tree(tmp_path / "wanted")["annotations.json"].splitlines()
    )


def test_images_that_are_elsewhere_by_now(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "coco"), ("overlay", "hf")))
    (tmp_path / "imgs").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="imgs: no such folder, and overlay, hf cannot do without the images"):
        convert(tmp_path, "overlay", "hf", "coco-polygon")
    assert convert(tmp_path, "coco-polygon", "cvat")[0] == 0
    assert convert(tmp_path, "overlay", "hf", images=tmp_path / "moved")[0] == 0
    assert (tmp_path / "out/hf/images/b/c.jpg").resolve() == tmp_path / "moved/b/c.jpg"
    assert tree(tmp_path / "out")["overlays/a.jpg"] == tree(tmp_path / "wanted")["overlays/a.jpg"]


def test_links_lead_to_the_images_again(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "coco"), ("yolo", "hf", "labelme", "label-studio")))
    into = CASES["masks and annotations"].into
    assert convert(tmp_path, *into)[0] == 0
    (tmp_path / "imgs").rename(tmp_path / "moved")
    (tmp_path / "out/hf/images/b/c.jpg").unlink()
    failed, said = convert(tmp_path, *into, images=tmp_path / "moved")
    assert failed == 0
    assert said[-1].startswith("6 images converted in ")  # label-studio.json says where they are
    assert problems(tmp_path / "out") == []
    assert "/data/local-files/?d=moved/b/c.jpg" in (tmp_path / "out/label-studio.json").read_text("utf-8")

    (tmp_path / "moved").rename(tmp_path / "again")
    failed, said = convert(tmp_path, "yolo", "hf", "labelme", images=tmp_path / "again")
    assert failed == 0
    assert said[-1].startswith("0 images converted, 6 unchanged in ")
    assert problems(tmp_path / "out") == []


def test_a_conversion_at_work_is_noted_and_then_not(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "coco"), ("yolo",)))
    noted: list[object] = []

    class Watching(Notes):
        def advance(self) -> None:
            noted.append(json.loads((tmp_path / "out/run.json").read_bytes())["converting"])

    convert_folder(tmp_path / "out", ["yolo", "cvat"], None, 1, Watching())
    assert noted == [["yolo", "cvat"]] * 6
    assert "converting" not in json.loads((tmp_path / "out/run.json").read_bytes())


# ---- refusals ----


@dataclass(frozen=True)
class Refusal:
    """A folder that is not converted, with this message."""

    message: str
    change: Change = lambda root: None
    formats: tuple[str, ...] = ("coco-polygon",)
    of: tuple[str, ...] = ("png", "coco")
    kind: type[TipssegError] = InputError
    images: Path | None = None
    classes: tuple[str, ...] = CLASSES


def shards(root: Path) -> None:
    shutil.rmtree(root / "out")
    make_run(root / "out", root / "imgs", IMAGES, shard=Shard(1, 1))


def run_json(**values: object) -> Change:
    return edit_json("out/run.json", lambda each: each.update(values))


REFUSALS: Mapping[str, Refusal] = {
    "no folder": Refusal("out: no such folder", lambda root: shutil.rmtree(root / "out")),
    "a file": Refusal(
        "out: no such folder", together(lambda root: shutil.rmtree(root / "out"), write("out", b""))
    ),
    "a folder of others": Refusal(
        "out: no run.json in it, so it is not what tipsseg label leaves", remove("out/run.json")
    ),
    "shards": Refusal("out: it holds shards", shards),
    "a run that was broken off": Refusal("out: the run was broken off", run_json(ended=None)),
    "a merge that was broken off": Refusal(
        "out: a merge into it was broken off", lambda root: (root / "out" / JOINED).mkdir()
    ),
    "another conversion that was broken off": Refusal(
        "out: a conversion into coco-polygon,coco-results,hf was broken off",
        together(*(write(f"out/{Journal.file_name(name)}", b"") for name in ("hf", "coco-results", "coco-polygon"))),
    ),
    "another conversion that was broken off, by run.json": Refusal(
        "out: a conversion into yolo,coco-polygon was broken off", run_json(converting=["yolo", "coco-polygon"])
    ),
    "ignored pixels, and lists alone": Refusal(
        "out: it does not hold the labels of a.png and 2 more", of=("coco", "coco-results"), formats=("cvat",)
    ),
    "a manifest with other lines": Refusal(
        "out/manifest.jsonl: line 7 is no entry", edit("out/manifest.jsonl", lambda data: data + b"{}\n")
    ),
    "a name outside of the folder": Refusal(
        "out/manifest.jsonl: line 1 is no entry",
        edit("out/manifest.jsonl", lambda data: data.replace(b"a.png", b"../a.png", 1).replace(b"a.png", b"../a.png")),
    ),
    "no classes.json": Refusal("out/classes.json: no such file", remove("out/classes.json")),
    "a classes.json of others": Refusal(
        "out/classes.json: not as this version of tipsseg writes it: no `classes`", write("out/classes.json", b"{}")
    ),
    "options of another version": Refusal(
        "out/run.json: not as this version of tipsseg writes it: no `instances`", run_json(options={})
    ),
    "no labels": Refusal("out: it does not hold the labels of a.png and 5 more", of=("yolo", "overlay", "confidence")),
    "no confidences": Refusal(
        "out: it does not hold the confidences of a.png and 5 more", formats=("overlay", "confidence")
    ),
    "no scores of patches": Refusal(
        "out: it does not hold the scores of patches of a.png and 5 more",
        formats=("npz", "confidence"),
        of=("png", "confidence"),
    ),
    "one image without labels": Refusal(
        "out: it does not hold the labels of b/c.jpg",
        entry("b/c.jpg", lambda each: each.update(formats=["confidence"], files={"confidence": "confidence/b/c.png"})),
        of=("png", "confidence"),
    ),
    "no root": Refusal(
        "the images are from several folders, and yolo cannot do without the images",
        run_json(image_root=None),
        formats=("coco-polygon", "yolo"),
    ),
    "--images that is no folder": Refusal(
        "--images imgs/a.png: no such folder", images=Path("imgs/a.png"), kind=UsageError
    ),
    "an unknown format": Refusal("unknown format 'voc'", formats=("voc",), kind=UsageError),
    "a format twice": Refusal("a format is named twice: hf, hf", formats=("hf", "hf"), kind=UsageError),
    "a name that the format cannot hold": Refusal(
        "the format cvat cannot hold the class 'a:b': it has no way to write ':' in a name",
        formats=("cvat",),
        kind=UsageError,
        classes=("a:b", "tree", "sky"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_and_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    refusal = REFUSALS[case]
    save_inputs(tmp_path / "imgs", IMAGES)
    make_run(tmp_path / "out", tmp_path / "imgs", IMAGES, refusal.classes, refusal.of)
    refusal.change(tmp_path)
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(refusal.kind) as caught:
        convert_folder(Path("out"), refusal.formats, refusal.images, 2, Progress(quiet=True))
    assert type(caught.value) is refusal.kind
    assert caught.value.message == refusal.message
    assert caught.value.hint
    assert tree(tmp_path) == before


def test_a_run_at_work_is_not_disturbed(tmp_path: Path) -> None:
    build(tmp_path, CASES["masks and annotations"])
    claim = Claim(tmp_path / "out")
    try:
        with pytest.raises(OutputError, match="another tipsseg is at work there"):
            convert(tmp_path, "yolo")
    finally:
        claim.give_back()


def test_a_full_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes, owner: str = "") -> None:
        raise OutputError(path, "no space left on the device")

    build(tmp_path, CASES["masks and annotations"])
    monkeypatch.setattr("tipsseg.writers.image_file.atomic_write", full)
    with pytest.raises(OutputError, match="no space left"):
        convert(tmp_path, "cvat")
    monkeypatch.undo()
    assert convert(tmp_path, *WITHOUT_CONFIDENCE)[0] == 0
    assert_same(tmp_path / "out", tmp_path / "wanted")


# ---- killed ----


def test_a_conversion_that_was_killed_can_be_run_again(tmp_path: Path) -> None:
    into = ("coco-polygon", "yolo", "hf", "panoptic")
    build(tmp_path, Case(("png", "coco"), into, {"a.png": A, "b/c.jpg": B}))
    shutil.copytree(tmp_path / "out", tmp_path / "before", symlinks=True)
    for steps in itertools.count():
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "before", tmp_path / "out", symlinks=True)
        with suppress(Killed), death_after(steps):
            convert(tmp_path, *into, jobs=1)
            break
        (tmp_path / "out" / LOCK_FILE).touch()  # its owner is dead
        convert(tmp_path, *into)
        assert_same(tmp_path / "out", tmp_path / "wanted")
        assert problems(tmp_path / "out") == [], f"after {steps} changes"
    assert_same(tmp_path / "out", tmp_path / "wanted")
    assert steps > 40
