"""What is converted is what a run would have written, from whichever files it comes and whenever the conversion is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from mask_codes import encode_rle
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
    stamp,
    together,
    tree,
    write,
)

from tipsseg.errors import InputError, OutputError, TipssegError, UsageError
from tipsseg.formats import FORMATS
from tipsseg.formats.yolo import is_for_validation
from tipsseg.options import DEFAULT_FILE_OPTIONS, FileOptions, MinArea
from tipsseg.options.shard import Shard
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.convert.folder import convert_folder
from tipsseg.store.lock import FolderLock
from tipsseg.store.ownership import Ownership
from tipsseg.types import LabelArray, printable_path
from tipsseg.util.files import json_bytes

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


MIN_AREA_3 = FileOptions(min_area=MinArea(3))
CLASSWISE = FileOptions(instances="class")

#: Here the very bytes are those of the run.
CASES: Mapping[str, Case] = {
    "masks and annotations": Case(("png", "coco")),
    "masks and results": Case(("png", "coco-results")),
    "masks and polygons": Case(("hf", "coco-polygon")),
    "masks and segments": Case(("panoptic", "png")),
    "annotations alone": Case(("coco",), labels=SURE),
    "annotations beside polygons": Case(("coco-polygon", "coco"), labels=SURE),
    "archives": Case(("npz",), ALL_FORMATS),
    "masks and confidences": Case(("png", "confidence"), (*WITHOUT_CONFIDENCE, "confidence")),
    "all formats": Case(ALL_FORMATS, ALL_FORMATS),
    "masks alone, what has no scores": Case(("png",), UNSCORED),
    "masks of a palette": Case(("png", "coco"), options=FileOptions(png_mode="P")),
    "grey masks, where others are of a palette": Case(("hf", "coco"), options=FileOptions(png_mode="P")),
    "minimum area": Case(("png", "coco"), options=MIN_AREA_3),
    "minimum area, with archives": Case(("npz",), ALL_FORMATS, options=MIN_AREA_3),
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


def convert(
    root: Path, *formats: str, images: Path | None = None, jobs: int = 2, val_fraction: float | None = None
) -> tuple[int, list[str]]:
    """Convert out. Return the number of failed images, and the lines on stderr."""
    said = Notes()
    failed = convert_folder(root / "out", formats, images, jobs, said, val_fraction=val_fraction)
    return failed, said.lines


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=False, results=False)
        self.lines: list[str] = []
        self.advanced = 0

    def advance(self) -> None:
        self.advanced += 1

    def note(self, line: str) -> None:
        self.lines.append(line)

    def error(self, error: TipssegError) -> None:
        self.lines.append(f"{error.message} | {error.hint}")


def links(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): str(path.readlink()) for path in folder.rglob("*") if path.is_symlink()}


def without_times(run: bytes) -> object:
    """The content of run.json, but for the times of the files in it: those without records are written again."""
    record = json.loads(run)
    for file in record["files"].values():
        del file["mtime_ns"]
    return record


def assert_same(out: Path, wanted: Path) -> None:
    """The same files, in whatever order the formats came."""
    found, expected = tree(out), tree(wanted)
    for folder in (found, expected):
        lines = [json.loads(line) for line in folder.pop("manifest.jsonl", b"").splitlines()]
        for line in lines:
            line["formats"].sort()
            for file in line["written"].values():
                del file["mtime_ns"]
        folder["manifest.jsonl"] = json.dumps(lines, sort_keys=True).encode()
        run = without_times(folder.pop("run.json"))
        assert isinstance(run, dict)
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
    after = tree(tmp_path / "out")
    assert without_times(after.pop("run.json")) == without_times(before.pop("run.json"))
    assert after == before
    number = len(CASES[case].labels)
    assert said[-1].startswith(f"0 images converted, {number} unchanged in " if number else "0 images converted in ")


# ---- scores ----


def scores(folder: Path) -> list[float]:
    return [each["score"] for each in json.loads((folder / "annotations.json").read_bytes())["annotations"]]


def test_scores_of_objects_that_the_manifest_does_not_have(tmp_path: Path) -> None:
    """As after a run with another `min_area`: the mean of the class stands for them, and they are counted over all images."""
    build(tmp_path, Case(("png",), ("coco",), {"a.png": A, "b/c.jpg": B}))
    for image in ("a.png", "b/c.jpg"):
        entry(image, lambda each: each.update(objects=[]))(tmp_path)
    failed, said = convert(tmp_path, "coco")
    assert failed == 0
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_bytes().splitlines()]
    means = [{each["id"]: each["confidence"] for each in line["classes"]} for line in lines]
    annotations = json.loads((tmp_path / "out/annotations.json").read_bytes())["annotations"]
    assert [each["score"] for each in annotations] == [
        means[each["image_id"] - 1][each["category_id"]] for each in annotations
    ]
    assert (
        f"For {len(annotations)} objects, the score is the mean confidence of the class in the image, because {tmp_path}/out "
        "stores no object scores." in said
    )


def test_what_is_said(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "coco"), ("yolo", "coco-polygon"), options=CLASSWISE))
    _, said = convert(tmp_path, "yolo", "coco-polygon")
    assert said[0] == f"Converting 6 images of {tmp_path}/out into yolo, coco-polygon."
    assert said[1] == "yolo cannot store objects of several parts, so every part of a class becomes an object."
    assert said[2].startswith("Polygons of 11 objects: IoU with their pixels 1.0000 on average")
    assert said[3].startswith("yolo: yolo/data.yaml has the same 6 images for training and validation; ")
    assert said[4].startswith("6 images converted in ")
    assert said[4].endswith(f" s, into {tmp_path}/out")
    assert len(said) == 5


def test_the_summary_of_the_run_follows_corrected_masks(tmp_path: Path) -> None:
    build(tmp_path, Case(("png",), ("yolo",), {"a.png": A, "b.png": B}))
    edit_json("out/run.json", lambda record: record.update(summary={}))(tmp_path)
    repaint("out/masks/b.png", lambda ids: np.where(ids == 2, 1, ids).astype(np.uint8))(tmp_path)
    assert convert(tmp_path, "yolo")[0] == 0
    summary = json.loads((tmp_path / "out/run.json").read_bytes())["summary"]
    pixels = {each["id"]: (each["images"], each["pixels"]) for each in summary["classes"]}
    b = int((B == 2).sum())
    assert pixels == {1: (2, int((A == 1).sum()) + b), 2: (1, int((A == 2).sum())), 3: (1, int((A == 3).sum()))}


# ---- options of files ----


def test_polygons_are_simplified_as_in_the_run(tmp_path: Path) -> None:
    y, x = np.mgrid[:60, :60] - 29.5
    ids: LabelArray = (np.hypot(y, x) < 28).astype(np.uint8)
    into = ("coco-polygon", "yolo", "labelme", "label-studio")
    simple = Case(("png", "coco"), into, {"a.png": ids}, options=FileOptions(simplify=3.0))
    build(tmp_path, simple)
    assert convert(tmp_path, *into)[0] == 0
    assert_same(tmp_path / "out", tmp_path / "wanted")
    assert problems(tmp_path / "out") == []
    (tmp_path / "plain").mkdir()
    build(tmp_path / "plain", replace(simple, options=DEFAULT_FILE_OPTIONS))
    for name in ("annotations-polygon.json", "yolo/labels/train/a.txt", "labelme/a.json", "label-studio.json"):
        short, long = (tree(root / "wanted")[name] for root in (tmp_path, tmp_path / "plain"))
        assert len(short) < 0.7 * len(long), name


NAMES = [printable_path(Path(name)) for name in IMAGES]


def files_in(folder: Path) -> list[str]:
    return sorted(
        printable_path(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_dir() and path.name != "state.db"
    )


#: Where data.yaml finds the images of a folder that is not divided.
SAME = ("train: images/train", "val: images/train")


def divided(root: Path) -> tuple[object, list[str], dict[str, list[str]]]:
    """The fraction in run.json, data.yaml's lines on images, and the images with their labels in each folder."""
    files = tree(root / "out")
    parts = {part.name: files_in(root / "out/yolo/images" / part.name) for part in (root / "out/yolo/images").iterdir()}
    for part, images in parts.items():
        assert files_in(root / "out/yolo/labels" / part) == [f"{image.rpartition('.')[0]}.txt" for image in images]
    options = json.loads(files["run.json"])["options"]
    return options.get("val_fraction"), files["yolo/data.yaml"].decode().splitlines()[:2], parts


def test_images_for_validation(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "yolo"), ("yolo",)))
    before = tree(tmp_path / "out")
    assert divided(tmp_path) == (None, [*SAME], {"train": sorted(NAMES)})
    convert(tmp_path, "yolo", val_fraction=0.5)
    fraction, lines, parts = divided(tmp_path)
    assert (fraction, lines) == (0.5, ["train: images/train", "val: images/val"])
    assert {image: part for part in parts for image in parts[part]} == {
        image: "val" if is_for_validation(image, 0.5) else "train" for image in NAMES
    }
    assert problems(tmp_path / "out") == []
    convert(tmp_path, "yolo", "cvat")  # it stays so where nothing is said
    assert divided(tmp_path) == (fraction, lines, parts)
    convert(tmp_path, "yolo", val_fraction=0)
    assert divided(tmp_path)[:2] == (None, [*SAME])
    kept = {name: data for name, data in tree(tmp_path / "out").items() if name in before}
    assert {**kept, "run.json": b"", "manifest.jsonl": b""} == {**before, "run.json": b"", "manifest.jsonl": b""}


def test_a_fraction_without_yolo(tmp_path: Path) -> None:
    build(tmp_path, Case(("png",)))
    with pytest.raises(UsageError, match="argument `val_fraction` needs the format yolo"):
        convert(tmp_path, "cvat", val_fraction=0.5)


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


def archive(**arrays: np.ndarray) -> Change:
    """The archive of b/c.jpg with other arrays."""

    def change(root: Path) -> None:
        path = root / "out/npz/b/c.npz"
        with np.load(path) as before:
            kept = {**before, **arrays}
        np.savez(path, **kept)

    return change


def odd_archive(says: str, change: Change | None = None, **arrays: np.ndarray) -> Fault:
    says = f"out/npz/b/c.npz: not written by tipsseg, or damaged: {says} | {CHANGED}"
    return Fault(says, change or archive(**arrays), of=("npz",))


def odd_annotation(says: str, change: Change) -> Fault:
    says = f"out/annotations.json: a.png: not written by tipsseg, or damaged: {says} | {LEFT_OUT}"
    return Fault(says, change, of=("coco",), labels={"a.png": SURE["a.png"], "b.jpg": B})


CHECK = "Find out what is wrong: tipsseg check "
GONE = "Set the folder of the images with argument `images`, or leave out"
CHANGED = "Move the file away and label the image again."
LEFT_OUT = (
    "This format omits ignored pixels and objects smaller than argument `min_area`; label with argument `formats`=png."
)

FAULTS: Mapping[str, Fault] = {
    "a mask that is gone": Fault(f"out: no labels of b/c.jpg are left | {CHECK}out", remove("out/masks/b/c.png"), of=("png",)),
    "a mask with other labels": Fault(
        f"out/masks/b/c.png: 0 pixels of class 2 (tree), but 21 in the manifest | {CHANGED}",
        together(repaint("out/masks/b/c.png", shift), lambda root: stamp(root / "out")),  # a fault of the program
        of=("png",),
    ),
    "an archive that is none": odd_archive(
        "not a .npz archive, or truncated", write("out/npz/b/c.npz", b"PK\x03\x04 and no more")
    ),
    "an archive of another size": odd_archive(
        "labels uint8 [4, 4] or confidence uint8 [4, 4] does not fit the image",
        lambda root: shutil.copy(root / "out/npz/b/ü.npz", root / "out/npz/b/c.npz"),
    ),
    "an archive with odd scores": odd_archive(
        "top_ids uint8 [2] or top_scores float64 [2] is invalid",
        top_ids=B[0, :2], top_scores=np.ones(2),
    ),
    "a confidence that is gone": Fault(
        f"out: no confidence of b/c.jpg is left | {CHECK}out",
        remove("out/confidence/b/c.png"),
        of=("png", "confidence"),
        into=("coco-polygon", "confidence"),
    ),
    "objects below the minimum area": Fault(
        f"out/annotations.json: a.png: 32 pixels of background, but 30 in the manifest | {LEFT_OUT}",
        of=("coco",),
        labels={"a.png": SURE["a.png"], "b.jpg": B},
        options=MIN_AREA_3,
    ),
    "annotations without an object": Fault(
        f"out/annotations.json: a.png: 38 pixels of background, but 30 in the manifest | {LEFT_OUT}",
        edit("out/annotations.json", lambda data: re.sub(rb',\n\{"id": 4, "image_id": 1.*', b"", data)),
        of=("coco",),
        labels={"a.png": SURE["a.png"]},
    ),
    "an annotation outside of the image": odd_annotation(
        "its RLE has size [100, 100], but the image has [6, 8]",
        annotation(1, segmentation=encode_rle(np.ones((100, 100), np.bool_))),
    ),
    "an annotation of no class": odd_annotation("annotation refers to unknown category 300", annotation(1, category_id=300)),
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
        "imgs/b/c.jpg: cannot write out/yolo/labels/train/b/c.txt: a folder with this name exists | "
        "Move the folder away, or choose another output folder.",
        lambda root: (root / "out/yolo/labels/train/b/c.txt").mkdir(parents=True),
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
    assert said.advanced == len(fault.labels)
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


@pytest.mark.parametrize("name", [name for name, entry in FORMATS.items() if entry.files and name != "coco"])
def test_a_file_of_the_whole_run_that_is_lost_is_made_again(tmp_path: Path, name: str) -> None:
    build(tmp_path, Case(("png", "coco", name), (name,)))
    for file in FORMATS[name].files:
        (tmp_path / "out" / file).unlink()
    assert convert(tmp_path, name)[0] == 0
    assert_same(tmp_path / "out", tmp_path / "wanted")


def test_images_that_are_elsewhere_by_now(tmp_path: Path) -> None:
    build(tmp_path, Case(("png", "coco"), ("overlay", "hf")))
    (tmp_path / "imgs").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="imgs: no such folder, but overlay, hf need the images"):
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
    linked = [name for name, form in FORMATS.items() if form.link_folder is not None]
    failed, said = convert(tmp_path, *linked, images=tmp_path / "again")
    assert failed == 0
    assert said[-1].startswith("0 images converted, 6 unchanged in ")
    assert problems(tmp_path / "out") == []


def test_names_without_the_images_are_those_of_the_files(tmp_path: Path) -> None:
    """One has bytes that are no UTF-8, another spells such bytes out; records have both alike."""
    build(tmp_path, Case(("png",), ("cvat",)))
    shutil.rmtree(tmp_path / "imgs")
    assert convert(tmp_path, "cvat")[0] == 0
    names = [path.relative_to(tmp_path / "out/masks") for path in (tmp_path / "out/masks").rglob("*.png")]
    colours = tmp_path / "out/cvat/SegmentationClass"
    assert sorted(path.relative_to(colours) for path in colours.rglob("*.png")) == sorted(names)


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
    hint: str = ""


def make_shards(out: Path, root: Path) -> None:
    shutil.rmtree(out)
    make_run(out, root / "imgs", IMAGES, shard=Shard(1, 1))


def shards(root: Path) -> None:
    make_shards(root / "out", root)


def run_json(**values: object) -> Change:
    return edit_json("out/run.json", lambda each: each.update(values))


REFUSALS: Mapping[str, Refusal] = {
    "shards": Refusal("out: it holds shards", shards),
    "a run that was interrupted": Refusal("out: the run was interrupted", run_json(ended=None)),
    "another conversion that was interrupted, by run.json": Refusal(
        "out: a conversion into yolo,coco-polygon was interrupted", run_json(converting=["yolo", "coco-polygon"])
    ),
    "ignored pixels, and lists alone": Refusal(
        "out: no labels for a.png and 2 more", of=("coco", "coco-results"), formats=("cvat",)
    ),
    "a mask that is no mask": Refusal(
        "out/manifest.jsonl: the files of a.png are not where tipsseg puts them",
        edit("out/manifest.jsonl", lambda data: data.replace(b"masks/a.png", b"annotations.json")),
    ),
    "a classes.json with other names": Refusal(
        'out/classes.json: class 2 is "bush", but "tree" in run.json',
        edit_json("out/classes.json", lambda each: each["classes"][1].update(name="bush")),  # type: ignore[index]
        hint="Restore classes.json, or remove it and run the original command again.",
    ),
    "no labels": Refusal(
        "out: no labels for a.png and 5 more",
        of=("yolo", "overlay", "confidence"),
        hint="with one of these formats added: png, hf, npz, coco.",
    ),
    "no confidences": Refusal(
        "out: no confidences for a.png and 5 more", formats=("overlay", "confidence")
    ),
    "no patch scores": Refusal(
        "out: no patch scores for a.png and 5 more",
        formats=("npz", "confidence"),
        of=("png", "confidence"),
    ),
    "one image without labels": Refusal(
        "out: no labels for b/c.jpg",
        entry(
            "b/c.jpg",
            lambda each: each.update(
                formats=["confidence"],
                files={"confidence": "confidence/b/c.png"},
                written={"confidence": each["written"]["confidence"]},  # type: ignore[index]
            ),
        ),
        of=("png", "confidence"),
    ),
    "no root": Refusal(
        "the images are in several folders, but yolo needs the images",
        run_json(image_root=None),
        formats=("coco-polygon", "yolo"),
    ),
    "images that are no folder": Refusal(
        "argument `images`=imgs/a.png: no such folder", images=Path("imgs/a.png"), kind=UsageError
    ),
    "a name that the format cannot hold": Refusal(
        "the format cvat cannot store the class name 'a:b': it does not allow ':'",
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
    assert caught.value.message == refusal.message
    assert caught.value.hint
    assert refusal.hint in caught.value.hint
    assert tree(tmp_path) == before


def test_a_run_at_work_is_not_disturbed(tmp_path: Path) -> None:
    build(tmp_path, CASES["masks and annotations"])
    claim = FolderLock(tmp_path / "out")
    try:
        with pytest.raises(OutputError, match="another tipsseg process is using it"):
            convert(tmp_path, "yolo")
    finally:
        claim.give_back()


def test_a_full_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(ownership: Ownership, form: str, path: Path, data: bytes, link: Path | None) -> None:
        raise OutputError(path, "no space left on the device")

    build(tmp_path, CASES["masks and annotations"])
    monkeypatch.setattr("tipsseg.store.ownership.Ownership.stage", full)
    with pytest.raises(OutputError, match="no space left"):
        convert(tmp_path, "cvat")
    monkeypatch.undo()
    assert convert(tmp_path, *WITHOUT_CONFIDENCE)[0] == 0
    assert_same(tmp_path / "out", tmp_path / "wanted")


# ---- broken off ----


class Interrupts(Notes):
    """Ctrl-C as the last of so many images is done."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images

    def advance(self) -> None:
        super().advance()
        if self.advanced == self.images:
            raise KeyboardInterrupt


def test_an_interrupt_says_how_far_it_came(tmp_path: Path) -> None:
    into = ("cvat", "hf")
    build(tmp_path, Case(("png",), into))
    for images in (2, 3):  # those that are done already count too
        with pytest.raises(KeyboardInterrupt) as caught:
            convert_folder(tmp_path / "out", into, None, 1, Interrupts(images))
        assert caught.value.__notes__ == [f"{images} images done; run the same command to resume"]
    assert convert(tmp_path, *into)[0] == 0
    assert_same(tmp_path / "out", tmp_path / "wanted")
