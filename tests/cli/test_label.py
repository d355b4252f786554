"""`tipsseg label` from the command line to the files, with a small random model from a local folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from running import Command

import tipsseg

CLASSES = "panda leg,tree,sky"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    """All label files; run.json has the time in it."""
    return {name: (folder / name).read_bytes() for name in files(folder) if name != "run.json"}


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
        "masks/a.png",
        "masks/sub/b c.png",
        "masks/sub/ü.png",
        "overlays/a.jpg",
        "overlays/sub/b c.jpg",
        "overlays/sub/ü.jpg",
        "run.json",
    ]
    printed = [str(out / name) for name in files(out) if name != "run.json"]
    assert sorted(ran.out.splitlines()) == sorted(printed)
    assert "3 images with" in ran.err
    assert "Skipped in the folders: 1 other file" in ran.err
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
    assert run["counts"] == {"labelled": 3, "failed": 0}
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
        "min_area": 1,
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


@pytest.mark.parametrize("name", ["a.png", None])
def test_the_library_says_that_it_takes_no_paths(mlp_checkpoint: Path, name: object) -> None:
    labeller = tipsseg.Labeller(tipsseg.load(str(mlp_checkpoint), device="cpu"), tipsseg.make_vocabulary(["tree"]))
    with pytest.raises(tipsseg.TipssegError, match="a Pillow image or an array can be labelled, not "):
        labeller.label(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
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
    assert ran.out.splitlines() == ["labels/masks/imgs/a.png", "labels/masks/imgs/sub/ü.png", "labels/classes.json"]


def test_outputs_inside_the_input_folder_never_become_inputs(
    command: Command, mlp_checkpoint: Path, pictures: Path
) -> None:
    inside = ["-o", pictures / "labels"], ["-o", pictures / "second"], ["-o", pictures]
    for output in (*inside, *inside):
        ran = command("label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "-f", "png,overlay", *output)
        assert ran.code == 0
        assert "3 images labelled" in ran.err, output
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


def test_another_run_in_the_same_folder_is_told(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    base = ["label", pictures / "a.png", "-m", mlp_checkpoint, "-o", tmp_path / "out"]
    assert "another run" not in command(*base, "-c", "tree").err
    assert "another run" not in command(*base, "-c", "tree").err
    assert "holds labels of another run (tipsseg label --model" in command(*base, "-c", "sky").err


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
    assert "holds labels of another run" in command(*arguments, "-f", "png").err
    assert "another run" not in command(*arguments, "-f", "png").err


def test_what_means_the_same_as_a_class_is_told_and_left_out(command: Command, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = command("label", pictures / "a.png", "-c", "ocean", "-m", "tiny", "-f", "png", "-o", out, "--device", "cpu")
    assert "the model takes it for a class: sea (close to ocean), river (close to ocean)." in ran.err
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
