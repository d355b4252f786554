"""Which truth belongs to which image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from tipsseg.errors import InputError
from tipsseg.learning.truth import get_layout, layout_of, pair_truths
from tipsseg.options.records import TruthOptions
from tipsseg.types import ImageRef

PLAIN = layout_of(TruthOptions(), ["a", "b", "c"])
CITY, COCO = get_layout("cityscapes"), get_layout("coco-stuff")
LAYOUTS = {"plain": PLAIN, "city": CITY, "coco": COCO}


def make(folder: Path, names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names.split():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def refs_of(folder: Path, names: str) -> list[ImageRef]:
    return [ImageRef(folder / name, PurePosixPath(name)) for name in names.split()]


@pytest.mark.parametrize(
    ("layout", "images", "truths", "expected", "unused"),
    [
        ("plain", "a.jpg b.png", "a.png b.png", "a.png b.png", 0),
        ("plain", "a.jpg", "a.PNG c.png s/d.tif notes.txt .a.png .s/a.png", "a.PNG", 2),
        ("plain", "s/a.jpg t/a.jpg", "s/a.png t/a.png a.png", "s/a.png t/a.png", 1),
        ("plain", "a.b.jpg", "a.b.png a.png", "a.b.png", 1),
        # One name, several extensions: PNG first, and one truth.
        (
            "plain",
            "a.jpg b.jpg c.jpg d.jpg e.jpg",
            "a.tiff a.png a.bmp b.tiff b.tif c.bmp c.tif c.png d.bmp d.tiff e.png e.tif e.bmp",
            "a.png b.tif c.png d.tiff e.png",
            0,
        ),
        # With the image's suffix, as of --names full.
        ("plain", "a.jpg a.png b.jpg", "a.jpg.png a.png.png a.png b.png", "a.jpg.png a.png.png b.png", 1),
        # By the name alone, where it is the only one.
        ("plain", "x/y/a.jpg b.jpg", "a.png s/t/b.png", "a.png s/t/b.png", 0),
        ("plain", "a.jpg", "a.png s/a.png", "a.png", 1),
        (
            "city",
            "bern/b_1_leftImg8bit.png bern/b_2_leftImg8bit.png",
            "bern/b_1_gtFine_labelTrainIds.png bern/b_1_gtFine_labelIds.png bern/b_2_gtFine_labelIds.png bern/b_2_gtFine_color.png",
            "bern/b_1_gtFine_labelTrainIds.png bern/b_2_gtFine_labelIds.png",
            0,
        ),
        # A training-id file elsewhere does not beat the label-id file in the right folder.
        (
            "city",
            "bern/b_leftImg8bit.png",
            "bern/b_gtFine_labelIds.png old/b_gtFine_labelTrainIds.png",
            "bern/b_gtFine_labelIds.png",
            1,
        ),
        ("city", "b_leftImg8bit.png", "val/bern/b_gtFine_labelIds.png", "val/bern/b_gtFine_labelIds.png", 0),
        ("city", "bern/b.jpg", "bern/b_gtFine_labelIds.png", "bern/b_gtFine_labelIds.png", 0),
        (
            "coco",
            "1.jpg 2.jpg",
            "1_labelTrainIds.png 1.png 2.png 3.png 3_labelTrainIds.png 4_labelTrainIds.png",
            "1_labelTrainIds.png 2.png",
            2,
        ),
    ],
)
def test_images_are_paired_with_truths(
    tmp_path: Path, layout: str, images: str, truths: str, expected: str, unused: int
) -> None:
    folder = make(tmp_path / "gt", truths)
    refs = refs_of(make(tmp_path / "images", images), images)
    found = pair_truths(refs, folder, LAYOUTS[layout])
    assert [pair.ref for pair in found.pairs] == refs
    assert [pair.truth for pair in found.pairs] == [folder / name for name in expected.split()]
    assert all(pair.truth.stem.endswith(pair.kind.suffix) for pair in found.pairs)
    assert found.unused == unused


def test_links_are_followed_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "gt", "a.png")
    make(tmp_path / "elsewhere", "b.png")
    (folder / "val").symlink_to(tmp_path / "elsewhere")
    (folder / "back").symlink_to(folder)
    found = pair_truths(refs_of(tmp_path, "a.jpg val/b.jpg"), folder, PLAIN)
    assert [pair.truth.relative_to(folder).as_posix() for pair in found.pairs] == ["a.png", "val/b.png"]
    assert found.unused == 0


Arrange = Callable[[Path], tuple[list[ImageRef], Path, str]]

# what is there -> the images, the truth folder, the layout
REFUSED: dict[str, tuple[Arrange, str, str]] = {
    "no truth": (
        lambda top: (refs_of(top, "s/b.jpg"), make(top / "gt", "a.png"), "plain"),
        "no ground truth for {top}/s/b.jpg in {top}/gt: looked for b with one of .png .tif .tiff .bmp",
        "Give each mask the relative path",
    ),
    "no ground truth for three": (
        lambda top: (
            refs_of(top, "b/x_leftImg8bit.png b/y_leftImg8bit.png z.png"),
            make(top / "gt", "x_gtFine_color.png"),
            "city",
        ),
        "no ground truth for {top}/b/x_leftImg8bit.png in {top}/gt: looked for x_gtFine_labelTrainIds or x_gtFine_labelIds "
        "with one of .png .tif .tiff .bmp (and for 2 more images)",
        "Give each mask the relative path",
    ),
    "a JPEG of the truth's name": (
        lambda top: (refs_of(top, "a.b.png"), make(top / "gt", "other.png a.b.jpg"), "plain"),
        "no ground truth for {top}/a.b.png in {top}/gt: looked for a.b with one of .png .tif .tiff .bmp",
        "Give each mask the relative path or the file name of its image, and a lossless format",
    ),
    "two truths of one name": (
        lambda top: (refs_of(top, "a.jpg"), make(top / "gt", "t/a.png s/a.tif"), "plain"),
        "{top}/a.jpg: its name is ambiguous: s/a, t/a",
        "Use the same subfolders for images and ground-truth masks",
    ),
    "two images of one truth": (
        lambda top: (refs_of(top, "s/a.jpg t/a.jpg"), make(top / "gt", "a.png"), "plain"),
        "{top}/s/a.jpg: 'a' could belong to s/a.jpg, t/a.jpg",
        "Use the same subfolders for images and ground-truth masks",
    ),
    "its own truth": (
        lambda top: (refs_of(make(top / "gt", "a.png"), "a.png"), top / "gt", "plain"),
        "{top}/gt/a.png would be its own ground truth", "Pass the folder of the ground-truth masks",
    ),
    "missing folder": (
        lambda top: (refs_of(top, "a.jpg"), top / "gt", "plain"), "{top}/gt: no such folder",
        "Pass the folder of the ground-truth masks",
    ),
    "a file": (
        lambda top: (refs_of(top, "a.jpg"), make(top, "a.png") / "a.png", "plain"), "{top}/a.png: not a folder",
        "Pass the folder of the ground-truth masks",
    ),
    "empty folder": (
        lambda top: (refs_of(top, "a.jpg"), make(top / "gt", "a.txt s/.b.png"), "plain"), "no ground-truth masks in {top}/gt",
        "Ground-truth masks are files with one of .png .tif .tiff .bmp.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_truths_that_do_not_match_are_refused(tmp_path: Path, name: str) -> None:
    arrange, message, hint = REFUSED[name]
    refs, folder, layout = arrange(tmp_path)
    with pytest.raises(InputError) as caught:
        pair_truths(refs, folder, LAYOUTS[layout])
    assert caught.value.message == message.format(top=tmp_path)
    assert caught.value.hint.startswith(hint.format(top=tmp_path))


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "gt", "s/a.png")
    scandir = os.scandir

    def fail(path: str) -> object:
        if Path(path).name == "s":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(InputError) as caught:
        pair_truths(refs_of(tmp_path, "a.jpg"), folder, PLAIN)
    assert caught.value.message == f"cannot list the folder {folder / 's'}: no read permission"
