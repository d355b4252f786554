"""`tipsseg label` from the command line to the files, with a small random model from a local folder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from running import Command
from system_fonts import system_fonts

import tipsseg
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.backbones.tipsv2.inference import TowerInference
from tipsseg.images.decoding import upright_size
from tipsseg.labelling.labeller import Scored
from tipsseg.labelling.prepare import Prepared

CLASSES = "panda leg,tree,sky"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    """All files but for the times in them."""
    found = {name: (folder / name).read_bytes() for name in files(folder) if name != "run.json"}
    found["manifest.jsonl"] = re.sub(rb'"(seconds|mtime_ns)": [0-9.]+', b"", found["manifest.jsonl"])
    return found


# pycocotools' decoder is behind numpy's times; tipsseg itself never decodes.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def mask(path: Path) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)


def test_a_folder_becomes_masks_annotations_overlays_and_records(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = command(
        "label",
        pictures,
        "-c",
        CLASSES,
        "-m",
        mlp_checkpoint,
        "--background",
        "none",
        "-f",
        "png,coco,overlay",
        "-o",
        out,
    )
    assert ran.code == 0, ran.err
    assert files(out) == [
        "annotations.json",
        "classes.json",
        "manifest.jsonl",
        "masks/a.png",
        "masks/sub/b c.png",
        "masks/sub/ü.png",
        "overlays/a.jpg",
        "overlays/sub/b c.jpg",
        "overlays/sub/ü.jpg",
        "run.json",
    ]
    printed = [str(out / name) for name in files(out) if name not in ("manifest.jsonl", "run.json")]
    assert sorted(ran.out.splitlines()) == sorted(printed)
    assert "3 images with" in ran.err
    assert "Skipped in the folders, as no images by their extensions: 1 " in ran.err
    assert "3 images labelled" in ran.err

    annotations = json.loads((out / "annotations.json").read_text())
    assert [(image["file_name"], image["height"], image["width"]) for image in annotations["images"]] == [
        ("a.png", 60, 90),
        ("sub/b c.jpg", 120, 80),
        ("sub/ü.bmp", 56, 56),
    ]
    assert [category["name"] for category in annotations["categories"]] == ["panda leg", "tree", "sky"]
    for image in annotations["images"]:
        labels = mask(out / "masks" / Path(image["file_name"]).with_suffix(".png"))
        assert labels.shape == (image["height"], image["width"])
        painted = np.zeros_like(labels)
        for annotation in annotations["annotations"]:
            if annotation["image_id"] == image["id"]:
                painted[coco_mask.decode(annotation["segmentation"]).astype(bool)] = annotation["category_id"]
        assert (painted == labels).all()
        assert set(np.unique(labels)) <= {1, 2, 3}

    run = json.loads((out / "run.json").read_text())
    assert run["tool"] == "tipsseg"
    assert run["counts"] == {"labelled": 3, "unchanged": 0, "failed": 0, "edited": 0}
    assert run["vocabulary"]["classes"] == [
        {"id": 1, "name": "panda leg"},
        {"id": 2, "name": "tree"},
        {"id": 3, "name": "sky"},
    ]
    assert run["options"] == {
        "mode": "slide",
        "short_side": None,
        "min_confidence": 0.0,
        "refine": "none",
        "instances": "component",
        "min_area": "1",
        "png_mode": "L",
    }


def test_the_library_gives_the_same_labels(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    command(
        "label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png", "-o", tmp_path / "out", "--device", "cpu"
    )
    model = tipsseg.load(str(mlp_checkpoint), device="cpu")
    labeller = tipsseg.Labeller(model, tipsseg.make_vocabulary(["panda leg", "tree", "sky"]))
    for name in ("a.png", "sub/b c.jpg"):
        image = Image.open(pictures / name)
        by_pillow, by_array = labeller.label(image), labeller.label(np.asarray(image.convert("RGB")))
        assert (by_pillow.labels == by_array.labels).all()
        assert (by_pillow.labels == mask(tmp_path / "out" / "masks" / Path(name).with_suffix(".png"))).all()
        assert by_pillow.confidence.shape == by_pillow.labels.shape
        assert [entry.name for entry in by_pillow.classes] == ["panda leg", "tree", "sky"]


@pytest.mark.parametrize("image", [5, None])
def test_the_library_says_what_it_takes(mlp_checkpoint: Path, image: object) -> None:
    labeller = tipsseg.Labeller(tipsseg.load(str(mlp_checkpoint), device="cpu"), tipsseg.make_vocabulary(["tree"]))
    with pytest.raises(tipsseg.TipssegError, match="an image must be a path, a Pillow image or an array, not "):
        labeller.label(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", [np.zeros(shape, np.uint8) for shape in ((4, 4), (4, 4, 4), (0, 4, 3))] + [np.zeros((4, 4, 3))]
)
def test_the_library_refuses_arrays_that_are_no_rgb_images(mlp_checkpoint: Path, bad: np.ndarray) -> None:
    labeller = tipsseg.Labeller(tipsseg.load(str(mlp_checkpoint), device="cpu"), tipsseg.make_vocabulary(["tree"]))
    with pytest.raises(tipsseg.TipssegError, match=r"must be \[H, W, 3\] uint8 RGB"):
        labeller.label(bad)


def test_a_picture_is_labelled_upright(command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.open(pictures / "a.png").convert("RGB")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    for path in (pictures / "a.png", tmp_path / "turned.png"):
        command("label", path, "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png", "-o", tmp_path / "out")
    assert (mask(tmp_path / "out/masks/turned.png") == mask(tmp_path / "out/masks/a.png")).all()


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


def test_outputs_inside_the_input_folder_never_become_inputs(
    command: Command, mlp_checkpoint: Path, pictures: Path
) -> None:
    inside = pictures / "labels", pictures / "second", pictures
    for output in (*inside, *inside):
        ran = command("label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png,overlay", "-o", output)
        assert ran.code == 0
        assert json.loads((output / "run.json").read_text())["counts"]["failed"] == 0
        assert len((output / "manifest.jsonl").read_text().splitlines()) == 3
    assert "Not searched, as a place of outputs: " in ran.err
    assert str(pictures / "masks") in ran.err


def test_the_same_command_gives_the_same_bytes_whatever_the_jobs(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    for out, jobs in (("one", 1), ("two", 1), ("three", 4)):
        arguments = [
            "-c",
            CLASSES,
            "-m",
            mlp_checkpoint,
            "-f",
            "png,coco,overlay",
            "-o",
            tmp_path / out,
            "--jobs",
            jobs,
        ]
        assert command("label", pictures, *arguments).code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "three")


def test_batch_size_and_dtype_do_not_move_labels_much(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    base = ["label", pictures / "sub" / "b c.jpg", "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png"]
    masks = []
    extras = [("--batch-size", "1"), ("--batch-size", "7"), ("--dtype", "bfloat16"), ("--dtype", "float16")]
    for number, extra in enumerate(extras):
        assert command(*base, "-o", tmp_path / str(number), *extra).code == 0
        masks.append(mask(tmp_path / str(number) / "masks/b c.png"))
    assert (masks[1] == masks[0]).mean() > 0.999
    assert (masks[2] == masks[0]).mean() > 0.9
    assert (masks[3] == masks[0]).mean() > 0.9


def test_low_confidence_is_written_as_ignored(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    labeller = tipsseg.Labeller(
        tipsseg.load(str(mlp_checkpoint), device="cpu"), tipsseg.make_vocabulary(CLASSES.split(","), "none")
    )
    middle = float(np.median(labeller.label(Image.open(pictures / "a.png")).confidence))
    base = ["label", pictures / "a.png", "-c", CLASSES, "-m", mlp_checkpoint, "--background", "none"]
    command(*base, "-o", tmp_path / "all")
    command(*base, "-o", tmp_path / "sure", "--min-confidence", middle)
    everything, sure = mask(tmp_path / "all/masks/a.png"), mask(tmp_path / "sure/masks/a.png")
    assert 255 not in everything
    ignored = sure == 255
    assert 0.4 < ignored.mean() < 0.6
    assert (sure[~ignored] == everything[~ignored]).all()
    annotations = json.loads((tmp_path / "sure/annotations.json").read_text())["annotations"]
    assert sum(annotation["area"] for annotation in annotations) == (~ignored).sum()
    assert min(annotation["score"] for annotation in annotations) >= middle - 1e-4


def test_background_phrases_are_written_as_0(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    base = ["label", pictures / "sub" / "b c.jpg", "-m", mlp_checkpoint, "-f", "png"]
    names = ["tree", "sky", "road"]
    command(*base, "-c", ",".join(names), "--background", "none", "-o", tmp_path / "closed")
    closed = mask(tmp_path / "closed/masks/b c.png")
    number = int(np.bincount(closed.ravel()).argmax())
    kept = names.pop(number - 1)
    command(*base, "-c", kept, "--background", ", ".join(names), "-o", tmp_path / "open")
    opened = mask(tmp_path / "open/masks/b c.png")
    assert ((closed == number) == (opened == 1)).all()
    assert ((closed != number) == (opened == 0)).all()
    assert {0, 1} == set(np.unique(opened))


def test_more_than_254_classes_make_16_bit_masks(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    names = ",".join(f"thing {number}" for number in range(300))
    ran = command(
        "label", pictures / "a.png", "-c", names, "-m", mlp_checkpoint, "--background", "none", "-o", tmp_path / "o"
    )
    assert ran.code == 0, ran.err
    image = Image.open(tmp_path / "o/masks/a.png")
    assert image.mode == "I;16"
    assert 1 <= np.asarray(image).min() <= np.asarray(image).max() <= 300


def test_small_components_can_be_left_out_of_the_annotations(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    base = ["label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "--background", "none", "-f", "coco"]
    command(*base, "-o", tmp_path / "all")
    command(*base, "-o", tmp_path / "large", "--min-area", 200)
    every, large = (
        [a["area"] for a in json.loads((tmp_path / name / "annotations.json").read_text())["annotations"]]
        for name in ("all", "large")
    )
    assert min(every) < 200
    assert large == [area for area in every if area >= 200]


def test_names_with_commas_and_a_note_about_them(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = command(
        "label", pictures, "-c", "salt, pepper", "-c", "tree_trunk", "-m", mlp_checkpoint, "-f", "png", "-o", out
    )
    assert ran.code == 0
    assert "each value is one class, commas and all" in ran.err
    classes = json.loads((out / "classes.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == ["salt, pepper", "tree trunk"]


def test_commas_in_a_text_vocabulary_are_told(command: Command, mlp_checkpoint: Path, pictures: Path) -> None:
    label = ["label", pictures / "a.png", "-m", mlp_checkpoint, "-f", "png", "-o", pictures.parent / "out", "--vocab"]
    note = "list.txt has one class a line, commas and all, such as 'salt, pepper'.\n"
    listed = pictures.parent / "list.txt"
    listed.write_text("salt, pepper\ntree\n")
    assert command(*label, listed).err.startswith(f'2 classes of list.txt: "salt, pepper", tree.\n{note}')
    assert command(*label, listed, "--quiet").err == ""
    listed.write_text("salt\ntree\n")
    assert "commas and all" not in command(*label, listed).err
    for name in ("list.toml", "LIST.TOML"):
        toml = pictures.parent / name
        toml.write_text('classes = ["salt, pepper", "tree"]')
        ran = command(*label, toml)
        assert (ran.code, "commas and all" in ran.err) == (0, False)


def test_the_end_says_what_all_images_of_the_folder_hold(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    def lines(*arguments: object) -> list[str]:
        ran = command("label", *arguments, "-m", mlp_checkpoint, "-o", tmp_path / "out", "--device", "cpu")
        assert ran.code == 0, ran.err
        return [line for line in ran.err.splitlines() if line.startswith(("Found", "Never"))]

    classes = ("-c", "panda leg,tree,sky", "--background", "none")
    lines(pictures, *classes, "--limit", 1)
    found = lines(pictures, *classes)
    masks = [mask(path) for path in (tmp_path / "out/masks").rglob("*.png")]
    of_class = {
        name: (sum(int((each == number).sum()) for each in masks), sum((each == number).any() for each in masks))
        for number, name in enumerate(("panda leg", "tree", "sky"), 1)
    }
    summary = json.loads((tmp_path / "out/run.json").read_bytes())["summary"]
    assert {each["name"]: (each["pixels"], each["images"]) for each in summary["classes"]} == of_class
    assert (summary["images"], summary["pixels"]) == (3, sum(each.size for each in masks))
    named = " ".join(found)
    assert all(f"{name} " in named or f"{name}." in named or f"{name}," in named for name in of_class)
    assert ("Never found" in named) == (0 in [images for _, images in of_class.values()])
    assert lines(pictures, *classes) == found  # also where nothing is left to be done


def test_quiet_leaves_stderr_empty(command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    ran = command("label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-o", tmp_path / "out", "--quiet")
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.endswith("classes.json\n")


def test_whole_mode_and_short_side(command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    masks = []
    for number, extra in enumerate(
        [("--mode", "slide"), ("--mode", "whole"), ("--short-side", "112"), ("--short-side", "40")]
    ):
        ran = command(
            "label",
            pictures / "sub",
            "-c",
            CLASSES,
            "-m",
            mlp_checkpoint,
            "-f",
            "png",
            "-o",
            tmp_path / str(number),
            *extra,
        )
        assert ran.code == 0, ran.err
        masks.append(mask(tmp_path / str(number) / "masks/b c.png"))
    assert len({m.tobytes() for m in masks}) == 4


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


def test_a_vocabulary_file_is_used_and_written_out(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "farm.toml").write_text(VOCABULARY)
    out = tmp_path / "out"
    arguments = ["label", pictures, "--vocab", tmp_path / "farm.toml", "-m", mlp_checkpoint, "-o", out]
    ran = command(*arguments, "-f", "png,coco,confidence")
    assert ran.code == 0
    assert json.loads((out / "classes.json").read_text()) == {
        "background": 0,
        "ignore": 255,
        "background_phrases": ["sky", "a wall"],
        "classes": [
            {
                "id": 1,
                "name": "panda leg",
                "synonyms": ["paw"],
                "colour": "#102030",
                "supercategory": "panda",
                "min_confidence": 0.9,
            },
            {"id": 2, "name": "tree", "synonyms": [], "colour": "#2e86de", "supercategory": "tree"},
        ],
    }
    run = json.loads((out / "run.json").read_text())
    assert "--vocab farm.toml --background 'a wall' --templates plain" in run["command"]
    assert str(tmp_path) not in run["command"].replace(str(mlp_checkpoint), "")
    assert run["vocabulary"] == {
        "source": "farm.toml",
        "classes": [
            {
                "id": 1,
                "name": "panda leg",
                "synonyms": ["paw"],
                "colour": "#102030",
                "min_confidence": 0.9,
                "supercategory": "panda",
            },
            {"id": 0, "name": "sky", "negative": True},
            {"id": 2, "name": "tree", "templates": ["a {}", "the {}"]},
        ],
        "background": ["a wall"],
        "auto": False,
        "templates": ["{}"],
    }
    coco = json.loads((out / "annotations.json").read_text())
    assert coco["categories"] == [
        {"id": 1, "name": "panda leg", "supercategory": "panda"},
        {"id": 2, "name": "tree", "supercategory": "tree"},
    ]
    labels, confidence = mask(out / "masks/a.png"), mask(out / "confidence/a.png")
    assert labels.shape == confidence.shape
    assert confidence[labels == 1].min(initial=255) >= round(0.9 * 255)
    assert set(np.unique(labels)) <= {0, 1, 2, 255}

    # The same command for other classes: the name of the file alone does not tell.
    (tmp_path / "farm.toml").write_text(VOCABULARY.replace('"paw"', '"claw"'))
    before = contents(out)
    ran = command(*arguments, "-f", "png")
    assert (ran.code, ran.out) == (1, "")
    assert "it holds labels of another run: with the same classes, other what is said of the classes\nHint: " in ran.err
    assert contents(out) == before


def test_what_means_the_same_as_a_class_is_told_and_left_out(command: Command, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = command("label", pictures / "a.png", "-c", "ocean", "-m", "tiny", "-f", "png", "-o", out, "--device", "cpu")
    assert (
        "\nLeft out 2 background phrases, because to this model they mean the same as a class: "
        "sea (close to ocean), river (close to ocean).\n"
    ) in ran.err
    assert "--background auto " in json.loads((out / "run.json").read_text())["command"]
    background = json.loads((out / "classes.json").read_text())["background_phrases"]
    assert "wall" in background
    assert not {"sea", "river"} & set(background)


def test_refined_labels_are_other_labels(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    for refine in ("none", "pamr"):
        ran = command(
            "label",
            pictures,
            "-c",
            CLASSES,
            "-m",
            mlp_checkpoint,
            "-f",
            "png",
            "-o",
            tmp_path / refine,
            "--refine",
            refine,
        )
        assert ran.code == 0
    plain, refined = (contents(tmp_path / refine) for refine in ("none", "pamr"))
    assert plain.keys() == refined.keys()
    assert plain["masks/a.png"] != refined["masks/a.png"]
    run = json.loads((tmp_path / "pamr/run.json").read_text())
    assert run["options"]["refine"] == "pamr"
    assert run["command"].endswith("--mode slide --refine pamr")


# what is asked for, and what of it the recorded command has; TOML is farm.toml, TEXT a file of templates
COMMANDS: dict[str, tuple[list[str], str]] = {
    "as it comes": (["-c", "tree,sky"], "-c tree -c sky --background"),
    "no background": (["-c", "tree,sky", "--background", "none"], "--background none --mode slide"),
    "a list": (["-c", "a tree", "--background", "sky, a wall"], "-c 'a tree' --background 'sky,a wall' --mode slide"),
    "names with commas": (["-c", "salt, pepper", "-c", "tree"], "-c 'salt, pepper' -c tree"),
    "short side": (["-c", "tree,sky", "--short-side", "40"], "--mode slide --short-side 40"),
    "least confidence": (["-c", "tree,sky", "--min-confidence", "0.07"], "--mode slide --min-confidence 0.07"),
    "edges": (["-c", "tree,sky", "--mode", "whole", "--refine", "pamr"], "--mode whole --refine pamr"),
    "templates": (["-c", "tree,sky", "--templates", "plain"], "--templates plain --mode slide"),
    "a vocabulary": (["--vocab", "farm.toml"], "--vocab farm.toml --background 'a wall' --templates plain"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_recorded_command_gives_the_same_masks(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, recorded = COMMANDS[case]
    monkeypatch.chdir(tmp_path)
    Path("farm.toml").write_text(VOCABULARY)
    assert command("label", "imgs", "-m", mlp_checkpoint, "-f", "png", "-o", "one", *flags).code == 0
    words = json.loads(Path("one/run.json").read_text())["command"]
    assert f" {recorded}" in words
    assert words.startswith("tipsseg label --model ")
    assert command(*shlex.split(words)[1:], "imgs", "-f", "png", "-o", "two").code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert json.loads(Path("two/run.json").read_text())["command"] == words


def test_templates_of_a_file_are_recorded_as_such(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "lines.txt").write_text("one {}\nsome {}s\n")
    base = ["label", pictures / "a.png", "-c", "tree", "-m", mlp_checkpoint, "-f", "png", "-o", tmp_path / "out"]
    assert command(*base, "--templates", tmp_path / "lines.txt").code == 0
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert "--templates FILE" in run["command"]
    assert run["vocabulary"]["templates"] == ["one {}", "some {}s"]


def test_records_say_what_was_run_and_not_what_was_left_open(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (pictures / "bad.png").write_bytes(b"")
    ran = command("label", pictures, "-c", "tree", "-m", mlp_checkpoint, "-f", "png,coco", "-o", out)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("3 images labelled, 1 failed in ")
    run = json.loads((out / "run.json").read_text())
    assert "auto" not in (run["device"], run["dtype"])
    assert run["formats"] == ["png", "coco"]
    assert run["counts"] == {"labelled": 3, "unchanged": 0, "failed": 1, "edited": 0}
    assert run["started"] <= run["ended"]
    assert run["model"]["id"] == str(mlp_checkpoint)
    info = json.loads((out / "annotations.json").read_text())["info"]
    assert {key: info[key] for key in ("command", "model", "revision", "vocabulary")} == {
        "command": run["command"],
        "model": str(mlp_checkpoint),
        "revision": None,
        "vocabulary": ["tree"],
    }
    assert [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()] == [
        {
            "image": "bad.png",
            "path": str(pictures / "bad.png"),
            "reason": "empty file (0 bytes)",
            "hint": "Fetch the image again, or remove it.",
        }
    ]


def test_the_command_uses_the_cache(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path / "cache"))
    command("label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-o", tmp_path / "out")
    assert {path.name: len(list(path.iterdir())) for path in (tmp_path / "cache").iterdir()} == {
        "text": 1,
        "verified": 3,
    }


def test_masks_of_a_run_that_is_broken_off_can_be_read(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tipsseg.Labeller.assign

    def interrupted(self: tipsseg.Labeller, prepared: Prepared, scored: Scored) -> tipsseg.LabelMap:
        if prepared.size == (56, 56):
            raise KeyboardInterrupt
        return plain(self, prepared, scored)

    monkeypatch.setattr(tipsseg.Labeller, "assign", interrupted)
    base = ["label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png,coco"]
    ran = command(*base, "-o", pictures / "out")
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "Interrupted: 2 images done; the same command goes on from there."
    masks = ["masks/a.png", "masks/sub/b c.png"]
    log, *others = (name for name in files(pictures / "out") if name != ".tipsseg-coco")
    assert log.startswith(".tipsseg-writes-")
    assert others == ["classes.json", "manifest.jsonl", *masks, "run.json"]
    run = json.loads((pictures / "out/run.json").read_text())
    assert (run["ended"], run["counts"]) == (None, None)
    # Its masks are outputs, for another run too.
    monkeypatch.setattr(tipsseg.Labeller, "assign", plain)
    assert "3 images labelled" in command(*base, "-o", tmp_path / "second").err
    # And it goes on.
    assert "1 image labelled, 2 unchanged" in command(*base, "-o", pictures / "out").err
    assert contents(pictures / "out") == contents(tmp_path / "second")


@pytest.mark.parametrize("content", ["{", "[]", '"run"', "{}", '{"command": 3}', b"\xff\xfe"])
def test_a_file_with_the_name_of_a_record_stops_the_run(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, content: str | bytes
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    data = content if isinstance(content, bytes) else content.encode()
    (out / "run.json").write_bytes(data)
    ran = command("label", pictures / "a.png", "-c", "tree", "-m", mlp_checkpoint, "-f", "png", "-o", out)
    assert ran.code == 1
    assert (
        f"Error: cannot write {out}/run.json: the file that is there is not the record of a run, or cannot be"
        in ran.err
    )
    assert [path.name for path in out.iterdir()] == ["run.json"]
    assert (out / "run.json").read_bytes() == data


@pytest.mark.parametrize("listed", [False, True], ids=["a folder", "a list"])
def test_pictures_that_lie_in_the_output_folder_are_not_labelled(
    command: Command, mlp_checkpoint: Path, pictures: Path, listed: bool
) -> None:
    """Whoever made them: no run is recorded there yet."""
    (pictures / "labels").mkdir()
    (pictures / "a.png").rename(pictures / "labels" / "a.png")
    stdin = f"{pictures}\n".encode() if listed else None
    paths = "-" if listed else pictures
    ran = command(
        "label", paths, "-c", "tree", "-m", mlp_checkpoint, "-f", "png", "-o", pictures / "labels", stdin=stdin
    )
    assert ran.code == 0
    assert "2 images labelled" in ran.err
    assert listed or f"Not searched, as a place of outputs: {pictures / 'labels'}." in ran.err


@pytest.mark.parametrize(
    ("flags", "told"),
    [(["-c", "a,b"], False), (["-c", "a", "-c", "b"], False), (["-c", "a,b", "-c", "c"], True)],
)
def test_the_note_about_commas_comes_only_where_they_are_kept(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, flags: list[str], told: bool
) -> None:
    ran = command("label", pictures / "a.png", *flags, "-m", mlp_checkpoint, "-f", "png", "-o", tmp_path / "out")
    assert ("commas and all" in ran.err) == told


def test_formats_may_have_spaces(command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    base = ["label", pictures / "a.png", "-c", "tree", "-m", mlp_checkpoint, "-o", tmp_path / "out"]
    assert command(*base, "-f", " png, coco ").code == 0
    assert files(tmp_path / "out") == ["annotations.json", "classes.json", "manifest.jsonl", "masks/a.png", "run.json"]


def test_a_line_of_json_for_each_image(process: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.jpg").write_bytes(b"")
    arguments = ["label", "imgs", "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png,coco", "--jsonl", "--device", "cpu"]
    ran = process(*arguments, cwd=tmp_path)
    assert ran.code == 1
    assert "Error: imgs/broken.jpg: empty file" in ran.err
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [record["image"] for record in records] == ["a.png", "sub/b c.jpg", "sub/ü.bmp"]
    for record in records:
        assert record["path"] == f"imgs/{record['image']}"
        labels = mask(tmp_path / record["mask"])
        assert labels.shape == (record["height"], record["width"])
        counts = {entry["id"]: entry["pixels"] for entry in record["classes"]} | {0: record["background"]["pixels"]}
        assert {number: count for number, count in counts.items() if count} == dict(
            zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True)
        )
        assert record["files"] == [record["mask"]]
    assert (tmp_path / "labels/annotations.json").exists()


@pytest.mark.parametrize("part", [["--limit", "2"], ["--sample", "2"]], ids=["limit", "sample"])
def test_a_part_of_the_images(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, part: list[str]
) -> None:
    ran = command("label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png", "-o", tmp_path / "out", *part)
    assert ran.code == 0
    assert len([line for line in ran.out.splitlines() if "masks" in line]) == 2
    assert "2 images labelled" in ran.err
    assert json.loads((tmp_path / "out/run.json").read_text())["counts"] == {
        "labelled": 2,
        "unchanged": 0,
        "failed": 0,
        "edited": 0,
    }


def test_work_begins_before_a_list_ends(mlp_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    """Each image is labelled and told of as soon as it is named, while whoever writes the list is still at it."""
    label = [
        sys.executable,
        "-m",
        "tipsseg",
        "label",
        "-0",
        "-",
        "-c",
        CLASSES,
        "-m",
        str(mlp_checkpoint),
        "--jsonl",
        "-q",
    ]
    with subprocess.Popen(label, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
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
    "path": (str,),
    "image": (str,),
    "mask": (str, type(None)),
    "files": (list,),
    "height": (int,),
    "width": (int,),
    "classes": (list,),
    "background": (dict,),
    "ignored": (int,),
}
SHARE: dict[str, tuple[type, ...]] = {"pixels": (int,), "share": (float,), "confidence": (float, type(None))}


@pytest.mark.parametrize("formats", ["png", "coco", "png,coco,overlay,confidence"])
def test_the_schema_of_a_line_of_json(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, formats: str
) -> None:
    ran = command(
        "label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "--jsonl", "-f", formats, "-o", tmp_path / "out"
    )
    for line in ran.out.splitlines():
        record = json.loads(line)
        assert list(record) == list(LINE)
        assert [key for key, value in record.items() if type(value) not in LINE[key]] == []
        assert (record["mask"] is None) == ("png" not in formats)
        assert all(Path(file).is_file() for file in record["files"])
        assert len(record["files"]) == len(set(formats.split(",")) - {"coco"})
        assert list(record["background"]) == list(SHARE)
        for entry in record["classes"]:
            assert list(entry) == ["id", "name", *SHARE]
            assert CLASSES.split(",")[entry["id"] - 1] == entry["name"]
            assert entry["pixels"] > 0
        for part in (record["background"], *record["classes"]):
            assert [key for key in SHARE if type(part[key]) not in SHARE[key]] == []
        shares = [part["pixels"] for part in (record["background"], *record["classes"])]
        assert sum(shares) + record["ignored"] == record["height"] * record["width"]


@pytest.mark.parametrize("entry", ["label", "eval"])
def test_images_that_are_too_large_are_named(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, entry: str
) -> None:
    """The largest picture has one pixel more than is allowed; the others are done."""
    sizes = {path: upright_size(path) for path in pictures.rglob("*.*") if path.suffix != ".txt"}
    largest = max(sizes, key=lambda path: sizes[path][0] * sizes[path][1])
    most = sizes[largest][0] * sizes[largest][1] - 1
    base: list[object] = [entry, pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-o", tmp_path / "out"]
    if entry == "eval":
        base += ["--gt", tmp_path / "truths"]
        for path, size in sizes.items():
            truth = tmp_path / "truths" / path.relative_to(pictures).with_suffix(".png")
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ones((9, 9) if path == largest else size, np.uint8)).save(truth)
    ran = command(*base, "--max-pixels", most)
    assert ran.code == 1
    (line,) = (line for line in ran.err.splitlines() if line.startswith("Error:"))
    assert f"{largest}: too large: " in line
    assert f"the limit is {most:,}" in line
    assert "--max-pixels" in line
    assert "2 images labelled, 1 failed" in ran.err
    if entry == "label":
        (record,) = map(json.loads, (tmp_path / "out/errors.jsonl").read_text().splitlines())
        assert "allow it with --max-pixels if" in record["hint"]


@pytest.mark.parametrize("entry", ["label", "eval", "check", "convert"])
def test_a_limit_of_nothing_is_refused(command: Command, tmp_path: Path, entry: str) -> None:
    needed: dict[str, list[object]] = {
        "label": ["-c", "a"],
        "eval": ["-c", "a", "--gt", tmp_path],
        "check": [],
        "convert": ["-f", "coco"],
    }
    ran = command(entry, tmp_path, *needed[entry], "--max-pixels", 0)
    assert (ran.code, ran.err) == (2, "Error: --max-pixels 0 is too small; the least is 1\n")


def test_labels_of_larger_images_than_is_usual_are_checked_and_converted_where_that_is_allowed(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    assert command("label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-o", tmp_path / "out").code == 0
    for entry in (["check"], ["convert", "-f", "cvat"]):
        refused = command(*entry, tmp_path / "out", "--max-pixels", 500)
        assert refused.code == 1
        assert "--max-pixels allows 500" in refused.out + refused.err
        assert command(*entry, tmp_path / "out").code == 0


def test_less_memory_is_told(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TowerInference.__call__

    def full(self: TowerInference, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, pixels)

    def as_on_a_gpu(self: Tipsv2Backbone, *arguments: Any, lazy: bool) -> None:
        begin(self, *arguments, lazy=lazy)
        self.batch_size = 8

    begin = Tipsv2Backbone.__init__
    monkeypatch.setattr(Tipsv2Backbone, "__init__", as_on_a_gpu)
    base = ["label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png"]
    command(*base, "-o", tmp_path / "expected")
    monkeypatch.setattr(TowerInference, "__call__", full)
    ran = command(*base, "-o", tmp_path / "out")
    assert ran.code == 0
    notes = [line for line in ran.err.splitlines() if line.startswith("Not enough")]
    assert notes == [
        f"Not enough memory on cpu: {size} windows at once from here on (--batch-size {size})." for size in (4, 2)
    ]
    for path in ("masks/a.png", "masks/sub/b c.png"):
        assert (mask(tmp_path / "out" / path) == mask(tmp_path / "expected" / path)).all()


def test_strips_are_labelled_and_said_to_be_squeezed(command: Command, mlp_checkpoint: Path, tmp_path: Path) -> None:
    """3,000 x 2 pixels would be two thousand windows."""
    (tmp_path / "imgs").mkdir()
    for name, size in (("wide", (3000, 2)), ("square", (30, 30))):
        Image.new("RGB", size, "green").save(tmp_path / f"imgs/{name}.png")
    model = ("-c", "a", "-m", mlp_checkpoint)
    ran = command("label", tmp_path / "imgs", *model, "-o", tmp_path / "out")
    assert ran.code == 0
    (note,) = [line for line in ran.err.splitlines() if "more than 16 times as long as wide" in line]
    assert note.startswith("wide.png: ")
    assert mask(tmp_path / "out/masks/wide.png").shape == (2, 3000)
    ran = command("label", tmp_path / "imgs/square.png", *model, "-o", tmp_path / "other")
    assert "16 times" not in ran.err


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
    small.encoderinfo = {"tiffinfo": {254: 1}}  # a smaller copy of the page before
    page.save(folder / "page with a copy.tif", save_all=True, append_images=[small])


@pytest.mark.parametrize("read_by", ["label", "encode"])
def test_what_the_model_does_not_see_of_a_picture_is_told(
    command: Command, mlp_checkpoint: Path, tmp_path: Path, read_by: str
) -> None:
    unusual_pictures(tmp_path / "imgs")
    classes = ["-c", "a"] if read_by == "label" else []
    base = [read_by, *classes, "-m", mlp_checkpoint, "--names", "full"] if classes else [read_by, "-m", mlp_checkpoint]
    ran = command(*base, tmp_path / "imgs", "-o", tmp_path / "out")
    assert ran.code == 0
    (dark,) = [line for line in ran.err.splitlines() if "16 bits" in line]
    assert dark.startswith("dark colours.png and 2 more images: ")
    assert "-auto-level" in dark
    (pages,) = [line for line in ran.err.splitlines() if "page" in line and "first" in line]
    assert pages.startswith("pages.tif: ")


def test_names_that_no_font_has_are_told_once(
    command: Command, pictures: Path, mlp_checkpoint: Path, tmp_path: Path
) -> None:
    run = ("label", pictures, "-c", "cat,\u732b,\u72ac", "-m", mlp_checkpoint, "-o")
    with system_fonts(tmp_path / "bin"):
        for formats, told in (("png,overlay", ["\u732b, \u72ac"]), ("png", [])):
            ran = command(*run, tmp_path / formats, "-f", formats)
            notes = [line for line in ran.err.splitlines() if line.startswith("No font")]
            assert [line.partition(" letters of ")[2].partition(":")[0] for line in notes] == told


def test_tiny_says_once_that_it_knows_drawn_scenes_only(command: Command, tmp_path: Path) -> None:
    scenes = Path(__file__).resolve().parents[2] / "examples/scenes"
    (tmp_path / "imgs").mkdir()
    for number in range(2):
        Image.new("RGB", (30, 30), (0, 90, number)).save(tmp_path / f"imgs/{number}.png")
    label = ("label", "-c", "panda", "-m", "tiny", "-o", tmp_path / "out")
    assert "drawn scenes only" not in command(*label, scenes / "desert.png").err
    assert command(*label, tmp_path / "imgs", "--overwrite").err.count("drawn scenes only") == 1
