"""`tipsseg rank` from the command line, and what goes on from its list."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from output_folders import LABELS, make_run, save_inputs, tree
from PIL import Image
from running import Command

import tipsseg

SCENES = Path(__file__).parents[2] / "examples/scenes"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    save_inputs(tmp_path / "imgs", LABELS)
    make_run(tmp_path / "out", tmp_path / "imgs", formats=("png", "coco"))
    return tmp_path / "out"


def test_paths_are_printed_and_go_on(command: Command, out: Path) -> None:
    ran = command("rank", out)
    assert (ran.code, ran.err) == (0, "")
    paths = ran.out.splitlines()
    assert sorted(paths) == sorted(str(out.parent / "imgs" / name) for name in LABELS)
    first = command("rank", out, "-n", "2")
    assert first.out.splitlines() == paths[:2]
    # The list restricts a conversion, and another ranking.
    ran = command("convert", out, "--only", "-", "-f", "labelme", stdin=first.out.encode())
    assert (ran.code, len(ran.out.splitlines())) == (0, 2), ran.err
    assert sorted(
        str(path.relative_to(out / "labelme").with_suffix("")) for path in out.rglob("labelme/**/*.json")
    ) == sorted(str(Path(path).relative_to(out.parent / "imgs").with_suffix("")) for path in paths[:2])
    assert command("check", out).code == 0
    assert command("rank", out, "--only", "-", stdin=first.out.encode()).out == first.out
    assert command(
        "rank", out, "-0", "--only", "-", stdin=first.out.replace("\n", "\0").encode()
    ).out == first.out.replace("\n", "\0")


def test_the_list_goes_into_label(command: Command, out: Path, mlp_checkpoint: Path) -> None:
    label = ("-c", "tree", "-m", mlp_checkpoint, "--device", "cpu", "-f", "png,coco", "-o", "own")
    assert command("label", out.parent / "imgs", *label, cwd=out.parent).code == 0
    before = tree(Path("own/masks"))
    listed = command("rank", "own", "-n", "2").out
    masks = [
        Path("own/masks", Path(each).relative_to(out.parent / "imgs").with_suffix(".png"))
        for each in listed.split("\n")[:-1]
    ]
    for gone in ([], masks):
        for mask in gone:
            mask.unlink()
        ran = command("label", "-", *label, stdin=listed.encode())
        assert ran.code == 0, ran.err
        assert tree(Path("own/masks")) == before
        assert len(json.loads(Path("own/annotations.json").read_bytes())["images"]) == len(LABELS)
    # As a program does it, which gives paths in place of a list.
    paths = [each.path for each in tipsseg.review.rank("own", limit=2)]
    again = tipsseg.label_folder(paths, ["tree"], output="own", model=str(mlp_checkpoint), formats=("png", "coco"))
    assert {image.path for image in again} == set(paths)
    assert tree(Path("own/masks")) == before


def test_the_least_certain_come_first_and_near_duplicates_last(command: Command, tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()
    for name in ("boat.bmp", "grey.png"):
        shutil.copy(SCENES / "lake" / name, tmp_path / "imgs")
    for path in (SCENES / "meadow").iterdir():
        shutil.copy(path, tmp_path / "imgs")
    with Image.open(SCENES / "lake/boat.bmp") as boat:
        boat.point(lambda value: min(value + 2, 255)).save(tmp_path / "imgs/boat-again.png")
    asked = ("-c", "tree,boat,panda", "-m", "tiny", "--device", "cpu", "-f", "png")
    assert command("label", tmp_path / "imgs", *asked, "-o", "own", cwd=tmp_path).code == 0
    records = [json.loads(line) for line in command("rank", "own", "--jsonl").out.splitlines()]
    assert all(set(each) == {"path", "image", "confidence"} for each in records)
    assert [each["path"] for each in records] == command("rank", "own").out.splitlines()
    assert len(records) == 6
    assert records[-1]["image"] in ("boat-again.png", "boat.bmp")
    sureness = [each["confidence"] for each in records[:-1]]
    assert sureness == sorted(sureness)
    assert sureness[-1] > records[-1]["confidence"]  # by its confidence alone, it would not be the last


def test_rank_counts_the_images_that_it_leaves_out(command: Command, out: Path) -> None:
    Image.fromarray(np.full((6, 8), 1, np.uint8)).save(out / "masks/a.png")
    ran = command("rank", out)
    assert ran.err == "Left out 1 corrected image.\n"
    assert "a.png" not in ran.out
    assert command("rank", out, "-q").err == ""


@pytest.mark.parametrize("name", ["rank", "convert"])
def test_a_path_that_is_not_labelled_is_told(command: Command, out: Path, tmp_path: Path, name: str) -> None:
    more = ("-f", "coco-polygon") if name == "convert" else ()
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path}/imgs/a.png\n\nnope.png\n")
    ran = command(name, out, "--only", listed, *more, "-q")
    assert (ran.code, len(ran.out.splitlines())) == (1, 1)
    assert ran.err == f"Error: nope.png: not labelled in {out} (Remove it from the list in --only.)\n"
    # Where none is labelled, nothing is done.
    before = tree(out)
    listed.write_text("nope.png\n")
    ran = command(name, out, "--only", listed, *more)
    assert (ran.code, ran.out) == (1, "")
    assert tree(out) == before


def test_a_list_that_a_page_saved_is_separated_as_it_shows(command: Command, out: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_bytes(f"{tmp_path}/imgs/a.png\0{tmp_path}/imgs/sub/b c.jpg\0".encode())
    assert len(command("rank", out, "--only", listed).out.splitlines()) == 2


NO_LISTS = {
    "a picture": (b"GIF89a<", True),
    "a picture with text alone": (b"\xff\xd8\xff", True),
    "a program": (b"\x7fELF\2\1\1\0\0\0x", True),
    "not UTF-8": (b"a\xff\n\x03", True),
    "names of old": (b"caf\xe9.png\n", False),
    "separated by NUL": (b"a b.png\0caf\xe9.png\0", False),
}


@pytest.mark.parametrize("name", ["rank", "convert"])
@pytest.mark.parametrize(("data", "refused"), NO_LISTS.values(), ids=NO_LISTS)
def test_an_image_in_place_of_a_list(
    command: Command, out: Path, tmp_path: Path, name: str, data: bytes, refused: bool
) -> None:
    image = tmp_path / "a sea.gif"
    image.write_bytes(data)
    more = ("-f", "labelme") if name == "convert" else ()
    hint = (
        "Hint: Use a file with one path per line, or - for stdin: "
        f"echo '{{}}' | tipsseg {name} {out} --only -\n".replace(str(out), shlex.quote(str(out)))
    )
    ran = command(name, out, "--only", image, *more)
    told = f"Error: --only: {image} is not a list of paths\n{hint.format(image)}"
    assert (ran.err == told, ran.code) == ((True, 2) if refused else (False, 1))
    ran = command(name, out, "--only", "no sea.gif", *more)
    assert (ran.code, ran.err) == (1, f"Error: --only: no sea.gif: no such file\n{hint.format('no sea.gif')}")


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "part"),
    [
        (["nowhere"], b"", 1, "Error: nowhere: no such folder\nHint: Pass an output folder of tipsseg label.\n"),
        (["."], b"", 1, "Error: .: not an output folder"),
        (["out", "-n", "0"], b"", 2, "Error: --limit=0 is too small"),
        (
            ["out", "--only", "nope.txt"],
            b"",
            1,
            "Error: --only: nope.txt: no such file\nHint: Use a file with one path per line",
        ),
        (["out", "--only", "-"], b"", 2, "Error: the list on stdin is empty"),
        (["out", "--only", "empty.txt"], b"", 2, "Error: the list in empty.txt is empty"),
        (["out", "-0", "--jsonl"], b"", 2, "Error: -0 separates paths"),
    ],
)
def test_wrong_usage(command: Command, out: Path, arguments: list[str], stdin: bytes, code: int, part: str) -> None:
    (out.parent / "empty.txt").write_text("\n")
    ran = command("rank", *arguments, stdin=stdin, cwd=out.parent)
    assert (ran.code, ran.out) == (code, "")
    assert part in ran.err
