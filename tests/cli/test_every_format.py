"""The labels of one run in every format: converted, corrected from and checked by the commands that a user types."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resuming import contents, tree
from running import Command, run_command

from tipsseg.formats import IMAGE_FORMATS, is_model_only

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes" / "meadow"
LABEL = ("label", "imgs", "-c", "panda leg,tree", "-m", "tiny", "--device", "cpu", "-q")

#: Options under which a format has most to say.
OPTIONS = ("--min-confidence", "0.4", "--val-fraction", "0.5", "--min-area", "8")

#: The formats that are corrected in some tool, and the folder or file that a person brings back.
READABLE = {
    "png": "masks", "hf": "hf", "cvat": "cvat", "coco": "annotations.json", "coco-polygon": "annotations-polygon.json",
    "labelme": "labelme", "label-studio": "label-studio.json", "yolo": "yolo",
}  # fmt: skip

#: Those whose objects are outlines, which no mask comes back from to the pixel.
#: Formats whose files say which labels they showed when tipsseg wrote them, and keep that in a copy.
SAY_THEIR_LABELS = frozenset({"coco", "coco-polygon", "labelme", "label-studio", "panoptic"})

OUTLINES = ("coco-polygon", "labelme", "yolo")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images, one of them turned by its camera, and their labels in every format."""
    top = tmp_path_factory.mktemp("every")
    shutil.copytree(SCENES, top / "imgs/meadow")
    with Image.open(SCENES / "two-pandas.png") as picture:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.convert("RGB").save(top / "imgs/turned ü.jpg", exif=exif)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        assert run_command(*LABEL, *OPTIONS, "-f", ",".join(IMAGE_FORMATS), "-o", "out").code == 0
        yield top


@pytest.fixture
def out(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the output folder, beside it: its links to the images are relative."""
    monkeypatch.chdir(labelled)
    before = tree(labelled / "out")
    copy = copied(labelled / "out", labelled / tmp_path.name)
    assert tree(copy) == before
    return copy


def copied(folder: Path, to: Path) -> Path:
    """A copy of a folder, of which a command knows the files: the cache of another folder counts for nothing."""
    shutil.copytree(folder, to, symlinks=True)
    assert run_command("convert", to, "-q").code == 0
    return to


@pytest.mark.parametrize("shape", [(), ("--instances", "class", "--simplify", "2")])
def test_labels_converted_from_the_masks_are_those_of_one_run(
    command: Command, out: Path, tmp_path: Path, shape: tuple[str, ...]
) -> None:
    others = [name for name in IMAGE_FORMATS if not is_model_only(name)]
    together, later = tmp_path / "together", tmp_path / "later"
    assert command(*LABEL, *OPTIONS, *shape, "-f", ",".join(others), "-o", together).code == 0
    assert command(*LABEL, *OPTIONS, *shape, "-f", "png", "-o", later).code == 0
    ran = command("convert", later, "-f", ",".join(others), "--val-fraction", "0.5", "-q")
    assert ran.code == 0, ran.err
    assert contents(later) == contents(together)


@pytest.mark.parametrize("name", READABLE)
def test_a_copy_that_nobody_edited_corrects_nothing(command: Command, out: Path, tmp_path: Path, name: str) -> None:
    copy = _brought_back(out, name, tmp_path)
    before = tree(out)
    ran = command("correct", out, "--from", copy)
    assert (ran.code, ran.out) == (0, ""), ran.err
    assert tree(out) == before


@pytest.mark.parametrize("name", READABLE)
def test_a_correction_in_any_format_changes_one_mask_and_all_its_files(
    command: Command, out: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = copied(out, out.with_suffix(".2"))
    wanted = _edit(elsewhere / "masks/turned ü.png")
    assert command("convert", elsewhere, "-f", name, "-q").code == 0
    before = files(out)
    copy = _brought_back(elsewhere, name, tmp_path)
    ran = command("correct", out, "--from", copy)
    if name in SAY_THEIR_LABELS:  # which this folder never had
        assert (ran.code, ran.out, "its labels changed since" in ran.err) == (1, "", True)
        ran = command("correct", out, "--from", copy, "--replace-edited")
    assert (ran.code, ran.out) == (0, f"{out}/masks/turned ü.png\n"), ran.err
    after = files(out)
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert {path for path in changed if path.startswith("masks/") or "meadow" in path} == {"masks/turned ü.png"}
    with Image.open(out / "masks/turned ü.png") as mask:
        different = np.array(mask) != wanted
    # An outline passes between pixels: it may lose those at its corners.
    assert different.sum() <= (8 if name in OUTLINES else 0)
    if name not in OUTLINES:
        assert {**after, "masks/turned ü.png": b""} == {**files(elsewhere), "masks/turned ü.png": b""}
    assert command("correct", out, "--from", copy).out == ""
    assert files(out) == after


def test_corrections_are_taken_all_or_none(command: Command, out: Path, tmp_path: Path) -> None:
    copy = _brought_back(out, "png", tmp_path)
    _edit(copy / "turned ü.png")
    Image.new("L", (9, 9)).save(copy / "meadow/house.png")
    before = tree(out)
    ran = command("correct", out, "--from", copy)
    assert (ran.code, ran.out) == (1, "")
    assert "meadow/house.png" in ran.err
    assert "cannot be imported; nothing was changed" in ran.err
    assert tree(out) == before


def test_a_mask_edited_in_place_is_replaced_only_on_demand(command: Command, out: Path, tmp_path: Path) -> None:
    copy = _brought_back(out, "png", tmp_path)
    wanted = _edit(copy / "turned ü.png")
    Image.new("L", wanted.shape[::-1], 2).save(out / "masks/turned ü.png")
    ran = command("correct", out, "--from", copy)
    assert (ran.code, ran.out) == (1, "")
    with Image.open(out / "masks/turned ü.png") as mask:
        assert (np.array(mask) == 2).all()
    assert command("correct", out, "--from", copy, "--replace-edited").code == 0
    with Image.open(out / "masks/turned ü.png") as mask:
        assert np.array_equal(np.array(mask), wanted)


def files(folder: Path) -> dict[str, object]:
    """All files below a folder, links as links, without the records."""
    return {path: data for path, data in tree(folder).items() if path not in ("run.json", "manifest.jsonl")}


def _brought_back(folder: Path, name: str, top: Path) -> Path:
    """A copy of the labels of one format, as a person brings them back from a tool."""
    place, copy = folder / READABLE[name], top / f"from-{READABLE[name]}"
    if name == "label-studio":  # exports what a person submitted
        copy.write_text(place.read_text().replace('"predictions":', '"annotations":'))
    elif place.is_file():
        shutil.copy(place, copy)
    else:
        shutil.copytree(place, copy)
    return copy


def _edit(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Paint a rectangle of another class."""
    with Image.open(path) as mask:
        ids = np.array(mask)
    ids[20:44, 30:70] = 1 + (ids[20, 30] == 1)
    Image.fromarray(ids).save(path)
    return ids


def test_a_mask_that_says_nothing_in_a_copied_folder_is_named(command: Command, labelled: Path, out: Path) -> None:
    """Nothing but the picture tells whose mask it is: the command that has the pictures takes it in."""
    copy, place = out.with_suffix(".2"), "masks/turned ü.png"
    shutil.copytree(labelled / "out", copy, symlinks=True)
    (copy / "manifest.jsonl").unlink()  # else it tells
    _edit(copy / place)
    edited = (copy / place).read_bytes()
    ran = command("convert", copy)
    assert (ran.code, f"belongs to no image of the run: {place}." in ran.err, (copy / place).read_bytes()) == (
        0,
        True,
        edited,
    ), ran.err
    ran = command(*LABEL[:-1], *OPTIONS, "-o", copy)
    assert (ran.code, "takes them in" in ran.err, "Kept 1 edited image" in ran.err) == (0, False, True), ran.err
    _edit(out / place)
    assert command("convert", out, "-q").code == 0
    found = {path: data for path, data in files(out).items() if "binary" in path or "yolo/images" in path}
    assert {path: data for path, data in files(copy).items() if path in found} == found
    assert command("check", copy).out == ""


@pytest.mark.parametrize("how", ["missing", "cut short"])
def test_every_damaged_file_is_named(command: Command, out: Path, how: str) -> None:
    """A file that differs counts as a person's, unless it is a mask that cannot be read, or only the model can write it."""
    assert command("check", out).out == ""
    known = {"run.json", ".tipsseg", *(["manifest.jsonl"] if how == "cut short" else [])}
    for top in sorted(path for path in out.iterdir() if path.name not in known):
        # Images are the user's own.
        paths = [path for path in sorted([top, *top.rglob("*")]) if path.is_file() and "images" not in path.parts]
        path = paths[0]
        data = path.read_bytes()
        path.unlink() if how == "missing" else path.write_bytes(data[: len(data) // 2])
        ran = command("check", out)
        assert ran.code == (how == "missing" or top.name == "masks" or is_model_only(top.name)), path
        assert str(path.relative_to(out)) in ran.out + ran.err
        path.write_bytes(data)
    _edit(out / "masks/turned ü.png")
    assert (command("check", out).code, command("check", out).out) == (0, "")


def test_images_are_divided_the_same_way_for_ever(command: Command, out: Path, tmp_path: Path) -> None:
    assert [path.name for path in (out / "yolo/images/train").rglob("*.*")] == ["turned ü.jpg"]
    parts = [command(*LABEL, "-f", "png", "--shard", f"{part}/2", "-o", tmp_path / "parts").out for part in (1, 2)]
    assert [{Path(line).stem for line in part.splitlines()} for part in parts] == [
        {"two-pandas"},
        {"house", "panda-and-tree", "turned ü", "classes"},
    ]


@pytest.mark.parametrize(("classes", "mode", "ignored"), [(254, "L", 255), (255, "I;16", 65535)])
def test_masks_have_16_bits_from_255_classes_on(
    command: Command, labelled: Path, tmp_path: Path, classes: int, mode: str, ignored: int
) -> None:
    names = ",".join(f"thing {number}" for number in range(classes))
    asked = ("-c", names, "-m", "tiny", "--device", "cpu", "-q", "-f", "png,hf", "--min-confidence", "0.9")
    assert command("label", labelled / "imgs/turned ü.jpg", *asked, "-o", tmp_path / "out").code == 0
    for path in ("masks/turned ü.png", "hf/masks/turned ü.png"):
        with Image.open(tmp_path / "out" / path) as mask:
            assert mask.mode == mode
            assert np.array(mask).max() == ignored
