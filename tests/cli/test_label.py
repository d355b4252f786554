"""`tipsseg label` from the command line to the files, with a small random model from a local folder."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from resuming import contents
from running import Command, Ran
from system_fonts import system_font

CLASSES = "panda leg,tree,sky"
WORDS = ("-c", CLASSES)


#: `tipsseg label` with a small model: of imgs into out, three classes and masks alone unless others are asked for.
Label = Callable[..., Ran]


@pytest.fixture
def label(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Label:
    """In the folder that imgs is in."""
    monkeypatch.chdir(tmp_path)

    def run(
        *options: object,
        images: object = "imgs",
        out: object = "out",
        words: tuple[object, ...] = WORDS,
        formats: str = "png",
    ) -> Ran:
        return command("label", images, "-m", mlp_checkpoint, "-f", formats, "-o", out, *words, *options)

    return run


def files(folder: str) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name != "cache.db"
    )


def read(path: str) -> Any:
    return json.loads(Path(path).read_text())


# pycocotools' decoder is behind numpy's times; tipsseg itself never decodes.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def mask(path: Path | str) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)


def test_a_folder_becomes_masks_annotations_overlays_and_records(label: Label) -> None:
    ran = label("--background", "none", formats="png,coco,overlay")
    assert ran.code == 0, ran.err
    masks, overlays = ["a.png", "sub/b c.png", "sub/ü.png"], ["a.jpg", "sub/b c.jpg", "sub/ü.jpg"]
    named = [*(f"masks/{name}" for name in masks), *(f"overlays/{name}" for name in overlays)]
    assert files("out") == ["annotations.json", "classes.json", "manifest.jsonl", *named, "run.json"]
    assert sorted(ran.out.splitlines()) == [f"out/{name}" for name in ("annotations.json", "classes.json", *named)]
    assert "3 images with" in ran.err
    assert "Skipped files without an image extension: 1 " in ran.err
    assert "3 images labelled" in ran.err

    annotations = read("out/annotations.json")
    assert [(image["file_name"], image["height"], image["width"]) for image in annotations["images"]] == [
        ("a.png", 60, 90),
        ("sub/b c.jpg", 120, 80),
        ("sub/ü.bmp", 56, 56),
    ]
    assert [category["name"] for category in annotations["categories"]] == ["panda leg", "tree", "sky"]
    for image in annotations["images"]:
        labels = mask(Path("out/masks", image["file_name"]).with_suffix(".png"))
        assert labels.shape == (image["height"], image["width"])
        painted = np.zeros_like(labels)
        for annotation in annotations["annotations"]:
            if annotation["image_id"] == image["id"]:
                painted[coco_mask.decode(annotation["segmentation"]).astype(bool)] = annotation["category_id"]
        assert (painted == labels).all()
        assert set(np.unique(labels)) <= {1, 2, 3}

    run = read("out/run.json")
    assert run["tool"] == "tipsseg"
    assert run["versions"].keys() >= {"python", "torch", "numpy"}
    assert run["counts"] == {"labelled": 3, "unchanged": 0, "failed": 0, "edited": 0}
    named_classes = [{"id": number, "name": name} for number, name in enumerate(CLASSES.split(","), 1)]
    assert run["vocabulary"]["classes"] == named_classes
    assert run["options"].items() >= {"mode": "slide", "refine": "none", "instances": "component"}.items()


@pytest.mark.parametrize("null", [False, True])
def test_a_list_on_stdin(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, null: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    separator, flags = (b"\0", ["-0"]) if null else (b"\n", [])
    listed = separator.join([b"imgs/a.png", "imgs/sub/ü.bmp".encode(), b""])
    ran = command("label", "-", *flags, "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png", stdin=listed)
    assert ran.code == 0, ran.err
    names = ["labels/masks/imgs/a.png", "labels/masks/imgs/sub/ü.png", "labels/classes.json"]
    assert ran.out == "".join(name + ("\0" if null else "\n") for name in names)


def test_outputs_inside_the_input_folder_never_become_inputs(label: Label) -> None:
    inside = "imgs/labels", "imgs/second", "imgs"
    for output in (*inside, *inside):
        ran = label(out=output, formats="png,overlay")
        assert ran.code == 0
        assert read(f"{output}/run.json")["counts"]["failed"] == 0
        assert len(Path(output, "manifest.jsonl").read_text().splitlines()) == 3
    assert "Skipped output folders: " in ran.err
    assert "imgs/masks" in ran.err


def test_masks_mirror_the_images_below_their_common_folder(
    command: Command, mlp_checkpoint: Path, pictures: Path
) -> None:
    shutil.copy(pictures / "a.png", pictures / "sub/.hidden.png")
    shutil.copy(pictures / "a.png", pictures.parent / "scan")
    asked = ("-c", "a", "-m", mlp_checkpoint, "--device", "cpu", "-f", "png", "-o", "out")
    ran = command("label", "scan", "imgs/sub", *asked, cwd=pictures.parent)
    assert ran.code == 0, ran.err
    assert files("out/masks") == ["imgs/sub/b c.png", "imgs/sub/ü.png", "scan.png"]


def test_a_sample_is_the_same_each_time_and_not_the_first(
    command: Command, mlp_checkpoint: Path, pictures: Path
) -> None:
    for number in range(20):
        shutil.copy(pictures / "a.png", pictures / f"{number:02}.png")
    asked = ("label", pictures, "-c", "a", "-m", mlp_checkpoint, "-f", "png", "--dry-run")
    one, other = (command(*asked, "--sample", 5).out.splitlines() for _ in range(2))
    assert (len(one), one) == (5, other)
    assert one != command(*asked).out.splitlines()[:5]


def test_the_same_command_gives_the_same_bytes_whatever_the_jobs(label: Label) -> None:
    for out, jobs in (("one", 1), ("two", 1), ("three", 4)):
        assert label("--jobs", jobs, out=out, formats="png,coco,overlay").code == 0
    assert contents(Path("one")) == contents(Path("two")) == contents(Path("three"))


def test_commas_in_a_text_vocabulary_are_noted(label: Label) -> None:
    for name, text, noted in (("a.txt", "salt, pepper\ntree\n", True), ("a.toml", 'classes = ["salt, pepper"]', False)):
        Path(name).write_text(text)
        ran = label(images="imgs/a.png", words=("--vocab", name), out=name.replace(".", "-"))
        assert (ran.code, "commas are part of a name" in ran.err) == (0, noted)


def test_the_end_says_what_all_images_of_the_folder_hold(label: Label) -> None:
    def lines(*options: object) -> list[str]:
        ran = label("--device", "cpu", "--background", "none", *options, formats="png,coco")
        assert ran.code == 0, ran.err
        return [line for line in ran.err.splitlines() if line.startswith(("Found", "Never"))]

    lines("--sample", 1)
    found = lines()
    masks = [mask(path) for path in Path("out/masks").rglob("*.png")]
    of_class = {
        name: (sum(int((each == number).sum()) for each in masks), sum((each == number).any() for each in masks))
        for number, name in enumerate(("panda leg", "tree", "sky"), 1)
    }
    summary = read("out/run.json")["summary"]
    assert {each["name"]: (each["pixels"], each["images"]) for each in summary["classes"]} == of_class
    assert (summary["images"], summary["pixels"]) == (3, sum(each.size for each in masks))
    named = " ".join(found)
    assert all(f"{name} " in named or f"{name}." in named or f"{name}," in named for name in of_class)
    by_area = sorted((name for name, (pixels, _) in of_class.items() if pixels), key=lambda name: -of_class[name][0])
    assert by_area == sorted(by_area, key=named.index)
    assert ("Never found" in named) == (0 in [images for _, images in of_class.values()])
    assert lines() == found  # also where nothing is left to be done


def test_quiet_prints_nothing_but_paths(label: Label) -> None:
    ran = label("--quiet")
    assert (ran.code, ran.err, ran.out.endswith("classes.json\n")) == (0, "", True)
    assert label("--quiet", "-0", out="nul").out.endswith("classes.json\0")


VOCABULARY = """
background = ["a wall"]
templates = "plain"

[[classes]]
name = "panda leg"
synonyms = ["paw"]
colour = "#102030"
supercategory = "panda"
min_confidence = 0.9

[[classes]]
name = "sky"
negative = true

[[classes]]
name = "tree"
templates = ["a {}", "the {}"]
"""


def test_a_vocabulary_file_is_used_and_written_out(label: Label, mlp_checkpoint: Path, tmp_path: Path) -> None:
    Path("farm.toml").write_text(VOCABULARY)
    words = ("--vocab", tmp_path / "farm.toml")
    assert label(words=words, formats="png,coco,confidence").code == 0
    leg = {"id": 1, "name": "panda leg", "synonyms": ["paw"], "colour": "#102030", "supercategory": "panda"}
    leg["min_confidence"] = 0.9
    assert read("out/classes.json") == {
        "background": 0,
        "ignore": 255,
        "background_phrases": ["sky", "a wall"],
        "classes": [leg, {"id": 2, "name": "tree", "synonyms": [], "colour": "#2e86de", "supercategory": "tree"}],
    }
    run = read("out/run.json")
    assert f"--vocab={tmp_path}/farm.toml" in run["command"]
    info = read("out/annotations.json")["info"]
    assert f"--model {mlp_checkpoint.name} --vocab farm.toml --background 'a wall' --mode" in info["command"]
    assert not any(path in str(info) for path in (str(tmp_path), str(mlp_checkpoint), "imgs"))
    tree = {"id": 2, "name": "tree", "templates": ["a {}", "the {}"]}
    assert run["vocabulary"] == {
        "source": "farm.toml",
        "classes": [leg, {"id": 0, "name": "sky", "negative": True}, tree],
        "background": ["a wall"],
        "auto": False,
        "templates": ["{}"],
    }
    assert read("out/annotations.json")["categories"] == [
        {"id": 1, "name": "panda leg", "supercategory": "panda"},
        {"id": 2, "name": "tree", "supercategory": "tree"},
    ]
    labels, confidence = mask("out/masks/a.png"), mask("out/confidence/a.png")
    assert labels.shape == confidence.shape
    assert confidence[labels == 1].min(initial=255) >= round(0.9 * 255)
    assert set(np.unique(labels)) <= {0, 1, 2, 255}

    # The same command for other classes: the name of the file alone does not tell.
    Path("farm.toml").write_text(VOCABULARY.replace('"paw"', '"claw"'))
    before = contents(Path("out"))
    ran = label(words=words)
    assert (ran.code, ran.out) == (1, "")
    assert "other settings: classes " in ran.err
    assert contents(Path("out")) == before


def test_background_phrases_that_mean_a_class_are_removed(label: Label) -> None:
    ocean = partial(label, "-m", "tiny", "--device", "cpu", "--verbose", images="imgs/a.png", words=("-c", "ocean"))
    noted = ": sea (close to ocean), river (close to ocean).\n"
    assert noted in ocean().err
    assert noted not in ocean().err  # noted once for a folder
    background = read("out/classes.json")["background_phrases"]
    assert "wall" in background
    assert not {"sea", "river"} & set(background)


# what is asked for, and what of it the recorded command has
COMMANDS: dict[str, tuple[list[str], str]] = {
    "a list": (["-c", "a tree", "--background", "sky, a wall"], "'--classes=a tree' '--background=sky, a wall'"),
    "names with commas": (["-c", "salt, pepper", "-c", "tree"], "'--classes=salt, pepper' --classes=tree"),
    "edges": (["-c", "tree,sky", "--mode", "whole", "--refine", "pamr"], "--mode=whole --refine=pamr"),
    "a vocabulary": (["--vocab", "farm.toml"], "--vocab=farm.toml"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_recorded_command_gives_the_same_masks(label: Label, command: Command, case: str) -> None:
    flags, recorded = COMMANDS[case]
    Path("farm.toml").write_text(VOCABULARY)
    assert label(words=(*flags,), out="one").code == 0
    words = read("one/run.json")["command"]
    assert f" {recorded}" in words
    assert words.startswith("tipsseg label imgs ")
    assert " --output=one --format=png" in words
    assert command(*shlex.split(words)[1:], "-o", "two").code == 0
    assert contents(Path("one")) == contents(Path("two"))
    assert read("two/run.json")["command"] == words.replace("--output=one", "--output=two")


@pytest.mark.parametrize("line", ["--output=out --shard=1/2", "--output out --shard 1/2"])
def test_a_folder_of_another_version_tells_how_to_label_anew(label: Label, command: Command, line: str) -> None:
    assert label().code == 0
    record = read("out/run.json")
    given = record["command"].replace(" --output=out", "")
    Path("out/run.json").write_text(json.dumps({**record, "schema": 2, "command": f"{given} {line}"}))
    ran = label()
    assert (ran.code, f"  {given} --output=out-2\n" in ran.err) == (1, True), ran.err
    assert command(*shlex.split(given)[1:], "--output=out-2").code == 0


def test_a_repeated_run_prints_what_changed_alone(label: Label) -> None:
    once = ("; see out/overlays/", "for training")
    first = label(formats="png,overlay,yolo").err
    again = label(formats="png,overlay,yolo").err
    told = label("--verbose", formats="png,overlay,yolo").err
    assert [text in first for text in once] == [True, True]
    assert [text in again for text in once] == [False, False]
    assert [text in told for text in once] == [False, True]


TYPED: dict[str, list[str]] = {
    "two inputs and a name with a comma": ["imgs/a.png", "imgs/sub", "-c", "salt, pepper", "-c", "tree"],
    "a list": ["-", "-c", "tree,a sky"],
    "options": [
        "imgs",
        "-c",
        "tree",
        "--background",
        "sky,wall",
        "--scales",
        "1,1.5",
        "-f",
        "png,csv",
        "--min-area",
        "1%",
    ],
}


@pytest.mark.parametrize("typed", TYPED.values(), ids=TYPED)
def test_the_commands_to_paste_ask_what_was_typed(
    command: Command, mlp_checkpoint: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str]
) -> None:
    monkeypatch.chdir(pictures.parent)
    model = ["-m", str(mlp_checkpoint), "--device", "cpu"]
    listed = b"imgs/a.png\n" if typed[0] == "-" else None
    assert command("label", "imgs", "-c", "first", *model, "-o", "out").code == 0
    assert command("label", *typed, *model, "-o", "wanted", stdin=listed).code == 0
    refused = command("label", *typed, *model, "-o", "out", stdin=listed)
    assert refused.code == 1
    first = next(line for line in refused.err.splitlines() if line.startswith("  tipsseg "))
    assert command(*shlex.split(first)[1:], stdin=listed).code == 0
    wanted, made = read("wanted/run.json"), read("out-2/run.json")
    assert {key: made[key] for key in ("digest", "vocabulary", "options", "formats")} == {
        key: wanted[key] for key in ("digest", "vocabulary", "options", "formats")
    }
    assert contents(Path("out-2/masks")) == contents(Path("wanted/masks"))


def test_work_begins_before_a_list_ends(mlp_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    """Each image is labelled and printed as soon as its name arrives on stdin."""
    words = [sys.executable, *f"-m tipsseg label -0 - -m {mlp_checkpoint} --jsonl -q -c".split(), CLASSES]
    with subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        for name in ("a.png", "sub/b c.jpg", "sub"):
            run.stdin.write(f"imgs/{name}".encode() + b"\0")
            run.stdin.flush()
            told = json.loads(run.stdout.readline())
            assert told["path"] == ("imgs/sub/ü.bmp" if name == "sub" else f"imgs/{name}")
            assert (tmp_path / told["mask"]).is_file()
        assert run.poll() is None
        assert not (tmp_path / "labels/annotations.json").exists()
        run.stdin.close()
        assert run.stdout.read() == b""
    assert run.returncode == 0
    assert len(json.loads((tmp_path / "labels/annotations.json").read_bytes())["images"]) == 3


# The keys of a line of --jsonl, as the README has them; of each the types that its value may have.
LINE: dict[str, tuple[type, ...]] = {
    "path": (str,), "image": (str,), "mask": (str, type(None)), "files": (list,), "reason": (str,), "height": (int,),
    "width": (int,), "classes": (list,), "background": (dict,), "ignored": (int,),
}  # fmt: skip
SHARE: dict[str, tuple[type, ...]] = {"pixels": (int,), "share": (float,), "confidence": (float, type(None))}


def test_the_schema_of_a_line_of_json(label: Label) -> None:
    ran = label("--jsonl", "--min-confidence", "0.4", formats="png,coco,confidence")
    assert len(ran.out.splitlines()) == 3
    for line in ran.out.splitlines():
        record = json.loads(line)
        assert (list(record), record["reason"]) == (list(LINE), "new")
        assert [key for key, value in record.items() if type(value) not in LINE[key]] == []
        assert all(Path(file).is_file() for file in record["files"])
        assert len(record["files"]) == 2
        labels = mask(record["mask"])
        assert labels.shape == (record["height"], record["width"])
        assert record["ignored"] == (labels == 255).sum() > 0
        levels = mask(next(file for file in record["files"] if "confidence" in file)) / 255
        assert list(record["background"]) == list(SHARE)
        for entry in record["classes"]:
            assert list(entry) == ["id", "name", *SHARE]
            assert CLASSES.split(",")[entry["id"] - 1] == entry["name"]
            assert entry["pixels"] == (own := labels == entry["id"]).sum() > 0
            assert entry["share"] == pytest.approx(own.mean(), abs=1e-6)
            assert entry["confidence"] == pytest.approx(levels[own].mean(), abs=0.003)
        shares = [part["pixels"] for part in (record["background"], *record["classes"])]
        assert sum(shares) + record["ignored"] == record["height"] * record["width"]


def test_images_that_are_too_large_are_named(label: Label) -> None:
    """The largest picture has one pixel more than is allowed; the others are done."""
    ran = label("--max-pixels", 120 * 80 - 1)
    assert (ran.code, "2 images labelled, 1 failed" in ran.err) == (1, True)
    assert "imgs/sub/b c.jpg: too large: " in ran.err
    assert "the limit is 9,599" in ran.err
    assert "--max-pixels" in ran.err
    (record,) = map(json.loads, Path("out/errors.jsonl").read_text().splitlines())
    assert "raise the limit with --max-pixels" in record["hint"]


def test_labels_of_larger_images_than_is_usual_are_checked_and_converted_where_that_is_allowed(
    label: Label, command: Command
) -> None:
    assert label(formats="png,coco").code == 0
    for entry in (["check"], ["convert", "-f", "overlay"]):
        refused = command(*entry, "out", "--max-pixels", 500)
        assert refused.code == 1
        assert "the limit is 500" in refused.out + refused.err
        assert command(*entry, "out").code == 0


def test_strips_are_labelled_and_said_to_be_squeezed(label: Label) -> None:
    """Without a limit, 3,000 x 2 pixels would take two thousand windows."""
    Path("more").mkdir()
    for name, size in (("wide", (3000, 2)), ("square", (30, 30))):
        Image.new("RGB", size, "green").save(f"more/{name}.png")
    ran = label(images="more")
    assert ran.code == 0
    (note,) = [line for line in ran.err.splitlines() if "more than 16 times as long as wide" in line]
    assert note.startswith("wide.png: ")
    assert mask("out/masks/wide.png").shape == (2, 3000)
    assert "only synthetic scenes" not in ran.err  # of another model
    assert "16 times" not in label(images="more/square.png", out="other").err


def unusual_pictures(folder: Path) -> None:
    """Pictures of which the model sees less than is in them, and their ordinary relatives."""
    folder.mkdir()
    twelve_bits = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40) * 3 + 498  # up to 4095
    Image.fromarray(twelve_bits).save(folder / "dark.png")
    Image.fromarray(twelve_bits).save(folder / "dark.tif")
    cv2.imwrite(str(folder / "dark colours.png"), np.stack([twelve_bits] * 3, 2))
    Image.fromarray(twelve_bits * 16).save(folder / "stretched.png")
    Image.fromarray(np.full((30, 40), 12, np.uint8)).save(folder / "night.png")  # 8 bits: as dark as it is
    page, small = Image.new("RGB", (40, 30), "green"), Image.new("RGB", (20, 15), "green")
    page.save(folder / "page.tif")
    page.save(folder / "pages.tif", save_all=True, append_images=[page, page])
    page.save(folder / "clip.gif", save_all=True, append_images=[page.rotate(90, fillcolor="red")])
    page.save(folder / "still.gif")
    small.encoderinfo = {"tiffinfo": {254: 1}}  # a smaller copy of the page before
    page.save(folder / "page with a copy.tif", save_all=True, append_images=[small])


def test_notes_name_pictures_that_are_read_in_part(label: Label) -> None:
    unusual_pictures(Path("unusual"))
    ran = label("--names", "full", images="unusual")
    assert ran.code == 0
    (dark,) = [line for line in ran.err.splitlines() if "16 bits" in line]
    assert dark.startswith("dark colours.png and 2 more images: ")
    assert "--stretch=2,98" in dark
    (pages,) = [line for line in ran.err.splitlines() if "page" in line and "first" in line]
    assert pages.startswith("clip.gif and 1 more image: ")
    assert "LabelMe" not in ran.err
    (foreign,) = [
        line
        for line in label("--names", "full", images="unusual", out="me", formats="labelme").err.splitlines()
        if "LabelMe" in line
    ]
    assert foreign.startswith("clip.gif and ")


def test_names_that_no_font_has_are_told_once(label: Label) -> None:
    with system_font(Path("bin").absolute(), None):
        for formats, told in (("png,overlay", ["\u732b, \u72ac"]), ("png", [])):
            ran = label(words=("-c", "cat,\u732b,\u72ac"), out=formats, formats=formats)
            notes = [line for line in ran.err.splitlines() if line.startswith("No installed font")]
            assert [line.partition(" letters of ")[2].partition(";")[0] for line in notes] == told


def test_tiny_says_once_that_it_knows_drawn_scenes_only(command: Command, tmp_path: Path) -> None:
    scenes = Path(__file__).resolve().parents[2] / "examples/scenes"
    (tmp_path / "imgs").mkdir()
    for number in range(2):
        Image.new("RGB", (30, 30), (0, 90, number)).save(tmp_path / f"imgs/{number}.png")
    label = ("label", "-c", "panda", "-m", "tiny", "-o", tmp_path / "out")
    assert "only synthetic scenes" not in command(*label, scenes / "desert.png").err
    assert command(*label, tmp_path / "imgs", "--overwrite").err.count("only synthetic scenes") == 1
    copy = shutil.copytree(scenes.parents[1] / "tipsseg/assets/tiny", tmp_path / "copy")
    assert "only synthetic scenes" in command(*label, tmp_path / "imgs", "-m", copy, "-o", tmp_path / "own").err
