"""Common mistakes in a command line: what is said, and that the hint is what would have been right."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from running import Command


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.new("RGB", (60, 60), (10, 200, 30)).save("photos/a.png")
    Path("photos/names.txt").write_text("car\n")
    Path("coco").mkdir()


QUOTES = "Quote the list: --classes"
COMMAS = "Join formats with commas, without spaces: -f"
UNSET = "Is a shell variable unset? Write . (a dot) for the current folder."

# name: (arguments, error, hint)
MISTAKES = {
    "a space in the list": (
        ["label", "photos", "-c", "car,", "tree"], "'tree' is not a file, and seems to belong to --classes",
        f"{QUOTES} 'car, tree'",
    ),
    "a name of two words, or two names": (
        ["label", "photos", "-c", "panda", "leg"], "'leg' is not a file, and seems to belong to --classes",
        f"{QUOTES} 'panda leg'. If each word is a class: --classes panda,leg",
    ),
    "a file of names with an at": (
        ["label", "photos", "-c", "@photos/names.txt"],
        "--classes takes names, but '@photos/names.txt' is a file", "Write --vocab photos/names.txt",
    ),
    "a comma at the end": (
        ["label", "photos", "-c", "car,"],
        "class 2 of 2 is empty",
        "Remove the extra comma. If a name contains a comma, pass -c once per name: "
        '-c "salt, pepper" -c tree',
    ),
    "a format among the paths": (
        ["label", "photos", "-c", "car", "-f", "png", "yolo"], "'yolo' is a format, not a path",
        f"{COMMAS} png,yolo",
    ),
    "a format more to convert into": (
        ["convert", "photos", "-f", "yolo", "cvat"], "'cvat' is a format, not a path",
        f"{COMMAS} yolo,cvat",
    ),
    "two folders to convert": (
        ["convert", "photos", "others", "-f", "yolo"],
        "convert takes one output folder; 'others' is a second one", "",
    ),
    "no command": (
        ["photos", "-c", "car"], "missing command: 'photos' is not a command", "Run: tipsseg label photos -c car",
    ),
    "no command, a list": (
        ["-", "--vocab", "my list.txt"], "missing command: '-' is not a command",
        "Run: tipsseg label - --vocab 'my list.txt'",
    ),
    **{
        f"another tool's option {flag}": (["label", "photos", flag, "car"], f"unknown option {flag}", hint)
        for flag, hint in {
            "--prompt": 'Write --classes "panda leg,tree".',
            "--recursive": "Remove it; folders are always searched recursively.",
            "--threshold": "Write --min-confidence 0.5.",
        }.items()
    },
    "a file in place of classes": (
        ["label", "photos", "-c", "farm.txt"],
        "--classes takes names, but 'farm.txt' looks like a file, but does not exist",
        "Write --vocab farm.txt",
    ),
    "a list of another language": (
        ["label", "photos", "-c", '["car"]'],
        "--classes takes names separated by commas, not '[\"car\"]'",
        'Write --classes "panda leg,tree".',
    ),
    "a format of another tool": (
        ["label", "photos", "-c", "car", "-f", "mask"], "unknown format 'mask'\nHint: Did you mean 'png'?", None,
    ),
    "two vocabularies": (
        ["label", "photos", "--vocab", "voc20", "-m", "tiny", "--vocab", "ade20k"],
        "--vocab is given more than once",
        "Put all classes into one vocabulary file.",
    ),
    "a slip in the background": (
        ["label", "photos", "-c", "tree", "--background", "auot"], "the background 'auot' looks like a typo of 'auto'",
        'Use auto. If you mean the phrase, write it in a vocabulary file: background = ["auot"].',
    ),
    "empty output": (["label", "photos", "-c", "car", "-o", ""], "the path of --output is empty", UNSET),
    "empty image": (["label", "photos", "", "-c", "car"], "an image path is empty", UNSET),
    "empty folder to check": (["check", ""], "the path of the folder is empty", UNSET),
    "escape in a class": (
        ["label", "photos", "-c", "tree,a\x1b[2J"],
        "the name of class 2 contains the control character \\u001b: 'a\\x1b[2J'", "Remove that character.",
    ),
    "escape in the background": (
        ["label", "photos", "-c", "tree", "--background", "a\x07"],
        "a background phrase contains the control character \\u0007: 'a\\x07'", "Remove that character.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistyped_commands_get_a_hint(command: Command, case: str, tmp_path: Path) -> None:
    arguments, error, hint = MISTAKES[case]
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    if hint is None:
        assert ran.err.startswith(f"Error: {error}")
    else:
        assert ran.err == f"Error: {error}\n" + (f"Hint: {hint}\n" if hint else "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "photos"]


def test_an_existing_path_is_never_a_mistyped_option(command: Command) -> None:
    ran = command("label", "photos", "coco", "-c", "car", "-f", "png", "-m", "tine")
    assert ran.err.startswith("Error: unknown model 'tine'")


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (["lable", "-c", "car", "pictures"], "Error: No such command 'lable'. Did you mean 'label'?\n"),
        (["pictures"], "Error: No such command 'pictures'.\n"),
    ],
)
def test_a_command_that_is_missing_or_none(command: Command, arguments: list[str], end: str) -> None:
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith(end)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("flags", [[], ["-0"]])
def test_a_picture_in_place_of_a_list(command: Command, kind: str, flags: list[str]) -> None:
    data = io.BytesIO()
    Image.effect_noise((40, 40), 60).convert("RGB").save(data, kind)
    ran = command("label", "-", "-c", "car", "-m", "tiny", *flags, stdin=data.getvalue())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-2:] == [
        "Error: got an image on stdin, but - expects a list of paths",
        "Hint: Pass the image file instead of -.",
    ]


def test_a_class_that_is_no_utf8(tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m tipsseg label photos -m tiny -c $'tr\\xffee'"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "Error: the name of class 1 is not UTF-8 text: 'tr\\udcffee'\nHint: Use a UTF-8 terminal or file.\n"
    )


@pytest.mark.parametrize(
    ("names", "source", "line"),
    [
        ("tree", "", "tree."),
        ("tree,sky", "", "tree, sky."),
        (
            ",".join(f"c{number}" for number in range(25)),
            "",
            f"{', '.join(f'c{n}' for n in range(20))} and 5 more.",
        ),
        ("", "voc20", "20 classes of voc20."),
    ],
)
def test_the_start_of_a_run_names_the_classes(
    command: Command, mlp_checkpoint: Path, names: str, source: str, line: str
) -> None:
    what = ["--vocab", source] if source else ["-c", names]
    ran = command("label", "photos", *what, "-m", mlp_checkpoint, "-f", "png")
    assert ran.code == 0
    begun = next(text for text in ran.err.splitlines() if text.startswith("Labelling 1 image with"))
    assert begun.endswith(f": {line}")
    assert command("label", "photos", *what, "-m", mlp_checkpoint, "-f", "png", "-q").err == ""


# ---- --from ----


def test_a_run_whose_regions_are_gone_is_not_repeated(command: Command, mlp_checkpoint: Path) -> None:
    Path("regions").mkdir()
    for path in Path("photos").glob("*.png"):
        with Image.open(path) as image:
            Image.new("L", image.size, 1).save(Path("regions", path.stem).with_suffix(".png"))
    asked = ["-c", "tree,sky", "-m", mlp_checkpoint, "-f", "png"]
    assert command("label", "photos", *asked, "--regions", "regions", "-o", "first").code == 0
    Path("regions").rename("moved")
    ran = command("label", "photos", "--from", "first", "-o", "second")
    assert (ran.code, "--regions=regions: no such file or folder" in ran.err) == (2, True)
    assert command("label", "photos", "--from", "first", "-o", "second", "--regions", "moved").code == 0


# name: (what is labelled or encoded, the list on stdin, exit code, error)
NOTHING_DONE = {
    "an empty list": (["-"], b"", 2, "the list on stdin is empty"),
    "a list of folders without images": (["-"], b"coco\n", 1, "no images in the list"),
    "a list with the wrong separator": (
        ["-", "-0"],
        b"a.png\nb.png\n",
        2,
        "the list on stdin is separated by newlines, not NUL",
    ),
    "a list with an entry without an end": (["-"], b"a" * 1_000_000, 2, "the list has an entry of more than 65,536"),
    "a folder without images": (["coco"], None, 1, "no images in coco"),
    "no such file": (["b.png"], None, 1, "b.png: no such file or folder"),
    "a file that is no image": (
        ["photos/names.txt"],
        None,
        1,
        "photos/names.txt: not an image in a format that Pillow",
    ),
    "scales that are one": (["photos", "--scales", "1,1.01"], None, 2, "--scales: 1 and 1.01 give short sides of"),
}


@pytest.mark.parametrize("verb", [["label", "-c", "a"], ["encode"]], ids=["label", "encode"])
@pytest.mark.parametrize("case", NOTHING_DONE)
def test_no_folder_is_left_where_there_was_nothing_to_do(command: Command, verb: list[str], case: str) -> None:
    arguments, listed, code, error = NOTHING_DONE[case]
    ran = command(*verb, *arguments, "-m", "tiny", "--device", "cpu", "-o", "new/out", stdin=listed)
    assert (ran.code, ran.out) == (code, "")
    assert f"Error: {error}" in ran.err
    assert not Path("new").exists()


@pytest.mark.parametrize("verb", [["label", "-c", "a", "-f", "png"], ["encode"]], ids=["label", "encode"])
@pytest.mark.parametrize(("path", "listed"), [("b.png", None), ("-", b"b.png\n")], ids=["path", "list"])
def test_where_all_images_failed_the_folder_says_why(
    command: Command, verb: list[str], path: str, listed: bytes | None
) -> None:
    Path("b.png").write_text("[]")
    ran = command(*verb, path, "-m", "tiny", "--device", "cpu", "-o", "new/out", stdin=listed)
    assert ran.code == 1
    assert "Error: b.png: not an image in a format that Pillow reads" in ran.err
    (line,) = Path("new/out/errors.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == "b.png"
    Image.new("RGB", (60, 60), (10, 200, 30)).save("b.png")
    again = command(*verb, path, "-m", "tiny", "--device", "cpu", "-o", "new/out", stdin=listed)
    assert again.code == 0, again.err
    assert not Path("new/out/errors.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["out"], "out is an output folder. Its own files are not labelled"),
        (["out/masks"], "out/masks has pictures that tipsseg wrote for out"),
        (["photos", "-o", "photos"], "photos is also the output folder"),
    ],
)
def test_places_of_output_that_are_labelled_are_noted(command: Command, arguments: list[str], told: str) -> None:
    options = ["-c", "car", "-m", "tiny", "--device", "cpu", "-f", "png"]
    assert command("label", "photos", *options, "-o", "out").code == 0
    lines = command("label", *arguments, *options).err.splitlines()
    assert told in lines[0], lines  # before any work
    if "-o" in arguments:
        assert told not in command("label", *arguments, *options).err


def test_an_output_folder_without_images_is_refused_by_its_kind(command: Command) -> None:
    options = ["-c", "car", "-m", "tiny", "--device", "cpu", "-f", "png"]
    assert command("label", "photos", *options, "-o", "out").code == 0
    ran = command("label", "out", *options)
    assert (ran.code, ran.out) == (1, "")
    assert "Error: no images in out, an output folder of tipsseg\nHint: Pass the folder of the images.\n" in ran.err
