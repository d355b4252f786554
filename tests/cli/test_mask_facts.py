"""What masks say of themselves, from the command line to the file."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from masks import pixels
from PIL import Image
from resuming import CLASSES, Run, correct

from tipsseg.folder.read import open_run
from tipsseg.formats.mask import MaskFacts, SealedMask, label_digest, read_facts, read_sealed

MASK = Path("out/masks/a.png")


def sealed(path: Path = MASK) -> SealedMask:
    return read_sealed(path.read_bytes())


def facts(path: Path = MASK) -> MaskFacts:
    found = sealed(path)
    assert found.facts is not None
    assert found.intact
    return found.facts


def test_a_mask_says_what_it_labels_and_from_what(run: Run) -> None:
    """Pictures of the same pixels in other files: packed otherwise, or lying on their side."""
    with Image.open("imgs/a.png") as picture:
        picture.save("imgs/packed.png", compress_level=0)
        picture.save("imgs/other.bmp")
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.transpose(Image.Transpose.ROTATE_90).save("imgs/turned.png", exif=exif)
    run("-f", "png,coco")
    assert run.code == 0
    with open_run(Path("out")) as known:
        question = known.info.digest
    lines = {line["image"]: line for line in map(json.loads, Path("out/manifest.jsonl").read_bytes().splitlines())}
    coco = json.loads(Path("out/annotations.json").read_bytes())
    numbers = {image["file_name"]: image["id"] for image in coco["images"]}
    assert len(lines) == 6
    for image, line in lines.items():
        mask, data = Path("out/masks", image).with_suffix(".png"), Path("imgs", image).read_bytes()
        found = facts(mask)
        assert (found.image, found.by, found.question, found.given) == (image, "model", question, "")
        assert (found.picture.bytes, found.picture.sha256) == (len(data), sha256(data).hexdigest())
        assert found.names == {each["id"]: each["name"] for each in line["classes"]}
        shares = {0: line["background"], **{each["id"]: each for each in line["classes"]}}
        assert found.confidence == {key: each["confidence"] for key, each in shares.items() if each["pixels"]}
        assert found.labels == label_digest(np.asarray(Image.open(mask)))
        scores = sealed(mask).unpack("scores", 1 << 20)
        assert scores is not None
        assert len(json.loads(scores)) >= sum(each["image_id"] == numbers[image] for each in coco["annotations"]) > 0
    same = {facts(Path(f"out/masks/{name}.png")).picture.pixels for name in ("a", "packed", "other", "turned")}
    others = {facts(Path(f"out/masks/sub/{name}.png")).picture.pixels for name in ("b c", "ü")}
    assert (len(same), len(others), len(same | others)) == (1, 2, 3)
    assert len({facts(Path(f"out/masks/{name}.png")).picture.sha256 for name in ("a", "packed", "other")}) == 3


def test_what_only_the_model_can_write_says_the_same(run: Run) -> None:
    run("-f", "png,npz,confidence")
    Path("imgs/a.png").rename("imgs/z.png")
    run("-f", "png,npz,confidence")
    expected = facts(Path("out/masks/z.png"))
    assert expected.formerly == ("a.png",)
    with zipfile.ZipFile("out/npz/z.npz") as archive:
        assert read_facts(json.loads(archive.comment)) == expected
    with np.load("out/npz/z.npz") as arrays:
        assert (arrays["labels"] == np.asarray(Image.open("out/masks/z.png"))).all()
    found = facts(Path("out/confidence/z.png"))
    assert replace(found, data=expected.data) == expected


@pytest.mark.parametrize("options", [("-f", "coco,yolo"), ("--features", "store"), ("--jobs", "1")], ids=str)
def test_the_same_question_about_the_same_picture_gives_the_same_bytes(run: Run, options: tuple[str, ...]) -> None:
    """Stored features know the pixels of the picture, which is not decoded then."""
    model = ("-m", run.model, "--device", "cpu")
    assert run.command("encode", "imgs", *model, "-o", "store", "--feature-dtype", "float32").code == 0
    run("-f", "png")
    run(*options, output="other")
    assert (run.code, Path("other/masks/a.png").read_bytes()) == (0, MASK.read_bytes())
    run("-f", "png", output="third", options=("-c", f"{CLASSES},road"))
    assert facts(Path("third/masks/a.png")).question != facts().question


@pytest.mark.parametrize("accept", [False, True])
def test_a_corrected_mask_says_so_and_has_the_models_mask_inside(run: Run, accept: bool) -> None:
    run("-f", "png,coco")
    model, before = MASK.read_bytes(), facts()
    shutil.copytree("out/masks", "fix")
    for _ in range(2):  # the second correction is one of the first; the model's mask stays the same
        mine = correct(Path("fix/a.png"))
        assert run.command("correct", "out", "--from", "fix", *(["--accept"] if accept else [])).code == 0
        assert (pixels(MASK), sealed().unpack("model", 1 << 20)) == (pixels(mine), model)
        found = facts()
        assert (found.by, found.source) == ("person", "png")
        assert (found.image, found.question, found.picture) == (before.image, before.question, before.picture)
        assert found.labels == label_digest(np.asarray(Image.open(MASK))) != before.labels
        assert run.command("check", "out").out == ""
        with Image.open("fix/a.png") as picture:
            Image.fromarray(np.asarray(picture)[:, ::-1]).save("fix/a.png")
    assert run.command("correct", "out", "--undo", "a.png").code == 0
    run("-f", "png,coco")
    assert MASK.read_bytes() == model


def test_a_mask_that_was_edited_in_place_says_so(run: Run) -> None:
    """Only its pixels are known from then on: the editor wrote over the model's mask."""
    run("-f", "png")
    before, mine = facts(), correct(MASK)
    assert sealed().facts is None
    run("-f", "png")
    found = facts()
    assert (pixels(MASK), found.by, found.source, sealed().unpack("model", 1 << 20)) == (
        pixels(mine),
        "person",
        "",
        None,
    )
    assert (found.image, found.question, found.picture) == (before.image, before.question, before.picture)
    written = MASK.read_bytes()
    run("-f", "png,coco")
    assert (run.code, run.labelled, MASK.read_bytes()) == (0, [], written)


def test_a_program_that_leaves_out_what_is_bulky_costs_nothing(run: Run) -> None:
    """ImageMagick keeps the text of a mask and drops other chunks: the cache still has them."""
    run("-f", "png")
    model = MASK.read_bytes()
    shutil.copytree("out/masks", "fix")
    correct(Path("fix/a.png"))
    assert run.command("correct", "out", "--from", "fix").code == 0
    mine = MASK.read_bytes()
    start, length = mine.index(b"tpSg") - 4, len(b"\0\0\0\0IEND....")
    MASK.write_bytes(mine[:start] + mine[-length:])
    assert (facts().by, sealed().bulk) == ("person", {})
    run("-f", "png")
    assert MASK.read_bytes() == mine
    assert run.command("correct", "out", "--undo", "a.png").code == 0
    assert MASK.read_bytes() == model


def test_changes_on_a_page_fit_a_mask_that_says_more_by_now(run: Run) -> None:
    """The page shows a mask as an editor saved it. The next command writes into it that a person made it: the same labels."""
    run("-f", "png")
    mine = correct(MASK)
    assert run.command("report", "out", "-q").code == 0
    (data,) = Path("out/report/data").glob("*0.js")
    text = data.read_text()
    records = json.loads(text[text.index("[") : text.rindex("]") + 1])
    shown = next(each["labels"] for each in records if each["image"] == "a.png")
    run("-f", "png")
    assert (MASK.read_bytes() != mine, pixels(MASK)) == (True, pixels(mine))
    change = {"image": "a.png", "labels": shown, "objects": [{"object": 1, "class": "sky"}]}
    Path("corrections.json").write_text(json.dumps({"tool": "tipsseg", "corrections": [change]}))
    ran = run.command("correct", "out", "--from", "corrections.json")
    assert (ran.code, pixels(MASK) != pixels(mine)) == (0, True), ran.err
