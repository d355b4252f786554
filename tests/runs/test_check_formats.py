"""What is not as it was written is found in the files of every format, in the right file, and nothing beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

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
    make_run,
    problems,
    remove,
    repaint,
    save_inputs,
    stamp,
    together,
    write,
)
from PIL import Image

from tipsseg.formats import FORMATS
from tipsseg.options import DEFAULT_FILE_OPTIONS
from tipsseg.runs.check.folder import check_folder
from tipsseg.runs.common.progress import Progress
from tipsseg.types import LabelArray

LABELS: Mapping[str, LabelArray] = {"a.png": A, "sub/b c.jpg": B}

#: A part of a.png in each format with several files per image.
PARTS = {"binary": "sky", "cutouts": "panda leg/1"}

#: A file of a.png in each format that has one.
PER_IMAGE = {
    name: str(path)
    for name, form in FORMATS.items()
    if not form.raster
    if (path := form.relative_path(PurePosixPath("a.png"), DEFAULT_FILE_OPTIONS, PARTS.get(name, ""))) is not None
}


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


def stamp_out(root: Path) -> None:
    """The records say that the program wrote the files as they are now."""
    stamp(root / "out")


def save(path: str, mode: str, size: tuple[int, int] = (8, 6)) -> Change:
    """Another picture, of `size` (width, height)."""
    return lambda root: Image.new(mode, size).save(root / path)


def line(path: str, old: bytes, new: bytes) -> Change:
    return edit(path, lambda data: data.replace(old, new, 1))


MASK, LABELME, TASKS, LISTED = "out/hf/masks/a.png", "out/labelme/a.json", "out/label-studio.json", "out/panoptic.json"
CHANGED = "changed since it was written"
RUN_FILES = [(name, file) for name, form in FORMATS.items() for file in form.files]

FAULTS: dict[str, tuple[Change, list[str]]] = {
    # ---- per-image files ----
    **{
        f"the file of {name} is gone": (remove(f"out/{file}"), [f"out/{file}: no such file"])
        for name, file in PER_IMAGE.items()
    },
    "a LabelMe file that is no JSON": (
        write(LABELME, b"{"),
        [
            f"{LABELME}: {CHANGED}, and not written by tipsseg, or damaged: "
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        ],
    ),
    "an archive that is none": (
        write("out/npz/a.npz", b"no archive"),
        [f"out/npz/a.npz: {CHANGED}, and not written by tipsseg, or damaged: not a .npz archive, or truncated"],
    ),
    "an overlay that is cut off": (
        edit("out/overlays/a.jpg", lambda data: data[: len(data) // 2]),
        [f"out/overlays/a.jpg: {CHANGED}, and truncated file (image file is truncated (1 bytes not processed))"],
    ),
    "a file of no image": (
        write("out/yolo/labels/train/sub/x.txt", b""),
        ["out/yolo/labels/train/sub/x.txt: it belongs to no image in the manifest"],
    ),
    # ---- index masks, which have rules of their own: also where the program is wrong ----
    "a mask with another id": (
        together(repaint(MASK, lambda pixels: np.where(pixels == 1, 2, pixels)), stamp_out),
        [
            f"{MASK}: 0 pixels of class 1 (panda leg), but 6 in the manifest",
            f"{MASK}: 10 pixels of class 2 (tree), but 4 in the manifest",
        ],
    ),
    "a mask with a palette": (together(save(MASK, "P"), stamp_out), [f"{MASK}: PNG mode P, expected L"]),
    # ---- links ----
    "a link is gone": (remove("out/yolo/images/train/a.png"), ["out/yolo/images/train/a.png: missing"]),
    "a link leads nowhere": (
        together(remove("out/hf/images/a.png"), lambda root: (root / "out/hf/images/a.png").symlink_to("x")),
        ["out/hf/images/a.png: broken link"],
    ),
    # ---- files for the whole run ----
    **{f"{file} is gone": (remove(f"out/{file}"), [f"out/{file}: missing"]) for _, file in RUN_FILES},
    **{
        f"{file} with a byte more": (edit(f"out/{file}", lambda data: data + b"\n"), [f"out/{file}: {CHANGED}"])
        for _, file in RUN_FILES
    },
    "a segment with another area": (line(LISTED, b'"area": 4,', b'"area": 5,'), [f"{LISTED}: {CHANGED}"]),
    "a file that run.json does not have": (
        edit_json("out/run.json", lambda each: each["files"].pop("results.json")),  # type: ignore[attr-defined]
        ["out/results.json: not listed in run.json"],
    ),
    "a conversion that was interrupted": (
        together(
            edit_json("out/run.json", lambda each: each.update(converting=["yolo", "hf"])),
            write("out/.tipsseg-hf", b""),
            remove("out/yolo/data.yaml"),
            remove("out/hf/metadata.jsonl"),
        ),
        [
            "out/run.json: a conversion into yolo,hf was interrupted. "
            "Run it again first: tipsseg convert out --format yolo,hf"
        ],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found_where_it_is(root: Path, case: str) -> None:
    change, expected = FAULTS[case]
    assert problems(root / "out") == []
    change(root)
    found = check_folder(root / "out", None, 2, Progress(quiet=True))
    assert [str(each).replace(f"{root}/", "") for each in found] == expected


#: Of a file of each of these formats that a person changed, what is in it is that person's affair.
EDITED: dict[str, Change] = {
    "yolo": write("out/yolo/labels/train/a.txt", b"0 0.1 0.1 0.2 0.2 0.3 0.3\n"),
    "labelme": edit_json("out/labelme/a.json", lambda each: each.update(shapes=[])),
    "cvat": save("out/cvat/SegmentationClass/a.png", "RGB"),
    "panoptic": save("out/panoptic/a.png", "RGB"),
    "npz": lambda root: np.savez(root / "out/npz/a.npz", labels=A),
    "overlay": save("out/overlays/a.jpg", "RGB"),
    "confidence": save("out/confidence/a.png", "L"),
}


@pytest.mark.parametrize("name", EDITED)
def test_a_file_that_a_person_changed_is_named_and_is_no_problem(
    root: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    EDITED[name](root)
    with Progress(quiet=False) as progress:
        assert list(check_folder(root / "out", None, 2, progress)) == []
    assert f"{root}/out/{PER_IMAGE[name]}: changed by hand\n" in capsys.readouterr().err


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
    remove("few/yolo/labels/train/a.txt")(root)
    assert problems(root / "few") == []
    with Progress(quiet=False) as progress:
        assert list(check_folder(root / "few", None, 2, progress)) == []
    assert "Format yolo has 1 of 2 images; tipsseg convert writes the others.\n" in capsys.readouterr().err
