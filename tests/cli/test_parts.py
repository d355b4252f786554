"""Formats with several files per image: the files appear, vanish and are kept together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resuming import CLASSES, contents
from running import Command, Ran

from tipsseg.formats import FORMATS
from tipsseg.formats.base import PartsFormat

PARTS = [name for name, form in FORMATS.items() if isinstance(form, PartsFormat)]


@pytest.fixture
def label(command: Command, mlp_checkpoint: Path, pictures: Path, no_weights_in_folder: None) -> Command:
    def run(*arguments: object, stdin: bytes | None = None, cwd: Path | None = None) -> Ran:
        return command("label", "imgs", "-m", mlp_checkpoint, "--device", "cpu", "-o", "out", *arguments)

    return run


def parts(image: str, folder: str = "out") -> set[str]:
    lines = map(json.loads, Path(folder, "manifest.jsonl").read_bytes().splitlines())
    (line,) = (line for line in lines if line["image"] == image)
    return {file for key, file in line["files"].items() if "/" in key}


def trash(name: str) -> list[bytes]:
    """The contents of a file that commands moved to the trash."""
    return [path.read_bytes() for path in sorted(Path("out/replaced").glob(f"*/{name}"))]


def on_disk(stem: str, folder: str = "out") -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for name in PARTS
        for path in Path(folder, name).rglob(f"{stem}*.png")
    }  # fmt: skip


def test_files_of_objects_that_are_gone_go_with_them(command: Command, label: Command) -> None:
    assert label("-c", CLASSES, "-f", ",".join(("png", *PARTS))).code == 0
    assert parts("a.png") == on_disk("a")
    cutouts = {file for file in on_disk("a") if file.startswith("cutouts/")}
    assert len(cutouts) > 1
    labels = np.zeros((60, 90), np.uint8)
    labels[10:20, 30:50] = 2
    Image.fromarray(labels).save("out/masks/a.png")
    assert command("convert", "out", "-f", ",".join(PARTS)).code == 0
    assert parts("a.png") == on_disk("a")
    assert {file for file in on_disk("a") if file.startswith("cutouts/")} == {"cutouts/tree/a-1.png"}
    with Image.open("out/cutouts/tree/a-1.png") as cutout, Image.open("imgs/a.png") as picture:
        assert np.array_equal(np.asarray(cutout)[..., :3], np.asarray(picture.convert("RGB"))[10:20, 30:50])
        assert (np.asarray(cutout)[..., 3] == 255).all()
    assert command("check", "out").code == 0
    # A run over it makes the objects that it had.
    assert label("-c", CLASSES, "--replace-edited").code == 0
    assert {file for file in on_disk("a") if file.startswith("cutouts/")} == cutouts
    assert command("check", "out").code == 0


@pytest.mark.parametrize("name", PARTS)
def test_one_missing_file_is_made_again_and_an_edited_one_is_kept(command: Command, label: Command, name: str) -> None:
    run = ("-c", CLASSES, "-f", ",".join(("png", *PARTS)))
    assert label(*run).code == 0
    before = contents(Path("out"))
    edited, lost, *_ = sorted(file for file in parts("a.png") if file.startswith(f"{name}/"))
    Path("out", lost).unlink()
    assert f"out/{lost}: missing\n" in command("check", "out").out
    Path("out", edited).write_bytes(before[edited] + b" ")
    ran = command("convert", "out", "-f", name)
    assert contents(Path("out")) == {**before, edited: before[edited] + b" "}
    assert parts("a.png") == on_disk("a")
    checked = command("check", "out")
    assert (checked.code, f"out/{edited}: changed by hand" in checked.err) == (0, True)
    Path("out", edited).unlink()
    assert label(*run).code == 0
    assert contents(Path("out")) == before
    assert (ran.code, f"out/{name}" in ran.err, "tipsseg correct" in ran.err) == (0, True, False)


@pytest.mark.parametrize("name", PARTS)
def test_overwriting_moves_an_edited_file_to_the_trash(command: Command, label: Command, name: str) -> None:
    run = ("-c", CLASSES, "-f", name)
    assert label(*run).code == 0
    before = contents(Path("out"))
    file = max(file for file in parts("a.png") if file.startswith(f"{name}/"))
    Path("out", file).write_bytes(before[file] + b" ")
    assert label(*run, "--replace-edited").code == 0  # which is for masks
    assert Path("out", file).read_bytes() == before[file] + b" "
    ran = label(*run, "--overwrite")
    assert (ran.code, f"/{file}. To have it again" in ran.err) == (0, True), ran.err
    assert contents(Path("out")) == before
    assert trash(file) == [before[file] + b" "]
    assert command("check", "out").code == 0


def test_an_edited_cutout_whose_object_is_gone_goes_to_the_trash(command: Command, label: Command) -> None:
    run = ("-c", CLASSES, "-f", "cutouts")
    assert label(*run).code == 0
    before = contents(Path("out"))
    file = max(parts("a.png"))
    Path("out", file).write_bytes(before[file] + b" ")
    ran = label(*run, "--min-area", "99%")
    assert (ran.code, f"/{file}. To have it again" in ran.err) == (0, True), ran.err
    assert (on_disk("a"), trash(file)) == (set(), [before[file] + b" "])
    assert command("check", "out").code == 0
    assert label(*run, "--min-area", "1").code == 0
    assert {name: data for name, data in contents(Path("out")).items() if name in before} == before


def test_black_and_white_masks_are_not_read_as_index_masks(command: Command, label: Command) -> None:
    assert label("-c", CLASSES, "-f", "png,npz,binary").code == 0
    before = contents(Path("out"))
    for arguments in (
        ("correct", "out", "--from", "out/binary/tree"),
        ("eval", "out/binary/tree", "--gt", "out/masks", "-c", CLASSES),
        ("eval", "out", "--gt", "out/binary/tree"),
        ("audit", "out", "--labels", "out/binary", "-c", CLASSES),
    ):
        ran = command(*arguments)
        assert ran.code == 1, ran.err
        assert "files of the format binary, which are not index masks" in ran.err
    assert contents(Path("out")) == before


@pytest.mark.parametrize("folder", ["a-1.png", "0/a-1.png"])
def test_a_cutout_and_a_folder_cannot_share_a_name(label: Command, pictures: Path, folder: str) -> None:
    other = pictures / folder / "x.png"
    other.parent.mkdir(parents=True)
    other.write_bytes((pictures / "a.png").read_bytes())
    (other.parent.parent / "a.png").write_bytes(other.read_bytes())
    ran = label("-c", CLASSES, "-f", "cutouts")
    assert ran.code == 1
    assert f"would have the name of the folder {folder}" in ran.err
    assert "Rename one of the two images" in ran.err
    assert not Path("out").exists()
    assert label("-c", CLASSES, "-f", "binary").code == 0


def test_files_with_the_names_of_folders_are_no_matter_where_there_are_no_cutouts(
    command: Command, label: Command, pictures: Path
) -> None:
    (pictures / "a-1.png").mkdir()
    (pictures / "a-1.png" / "x.png").write_bytes((pictures / "a.png").read_bytes())
    for shard in "12":
        assert label("-c", CLASSES, "-f", "png", "-o", "parts", "--shard", f"{shard}/2").code == 0
    ran = command("merge", "parts", "-o", "joined")
    assert ran.code == 0, ran.err


def test_the_file_of_another_tool_is_kept(label: Command) -> None:
    other = Path("out/binary/tree/a.png")
    other.parent.mkdir(parents=True)
    other.write_bytes(b"theirs")
    ran = label("-c", CLASSES, "-f", "binary")
    assert (ran.code, "Moved 1 file that may be somebody's work to out/replaced" in ran.err) == (0, True)
    assert trash("binary/tree/a.png") == [b"theirs"]
    assert parts("a.png") == on_disk("a")
    assert len(on_disk("a")) == len(on_disk("b c")) == 3


def test_converted_and_merged_files_are_those_of_one_run(command: Command, label: Command) -> None:
    assert label("-c", CLASSES, "-f", ",".join(("png", "coco", *PARTS))).code == 0
    for shard in "12":
        assert label("-c", CLASSES, "-f", "png,coco", "-o", "parts", "--shard", f"{shard}/2").code == 0
    assert command("merge", "parts", "-o", "joined").code == 0
    assert command("convert", "joined", "-f", ",".join(PARTS)).code == 0
    wanted = {name: data for name, data in contents(Path("out")).items() if name != "manifest.jsonl"}
    assert {name: data for name, data in contents(Path("joined")).items() if name != "manifest.jsonl"} == wanted
    for shard in "12":
        assert label("-c", CLASSES, "-f", ",".join(PARTS), "-o", "more", "--shard", f"{shard}/2").code == 0
    assert on_disk("", "more") == on_disk("")
    assert command("check", "more").code == 0


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (("a|b", "..", " c. "), ["__", "a_b", "c_"]),
        (("熊猫", "- d"), ["_ d", "熊猫"]),
    ],
)
def test_folders_have_the_names_of_classes(label: Command, classes: tuple[str, ...], folders: list[str]) -> None:
    ran = label(*(word for name in classes for word in ("-c", name)), "-f", "binary")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path("out/binary").iterdir()) == folders


@pytest.mark.parametrize(
    ("classes", "part"),
    [
        (("a|b", "a:b"), "the format binary would write the classes 'a|b' and 'a:b' into one folder, a_b"),
        (("caf\u00e9", "cafe\u0301"), "into one folder"),
        (("x" * 241, "y"), "the format binary cannot store the class name 'xxxxxxxxxx"),
    ],
)
def test_classes_that_folders_cannot_tell_apart_are_refused(
    label: Command, classes: tuple[str, ...], part: str
) -> None:
    ran = label(*(word for name in classes for word in ("-c", name)), "-f", "png,binary")
    assert ran.code == 2, ran.err
    assert part in ran.err
    assert not Path("out").exists()
