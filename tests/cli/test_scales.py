"""--scales: what the commands make of it, and what the feature store has of each scale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Command

import tipsseg
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.features.file import read_feature_file
from tipsseg.labelling.golden import draw_picture

TINY = ("-m", "tiny", "--device", "cpu", "--short-side", "56")
LABEL = (*TINY, "-c", "panda,tree,sky", "-q")
SCALES = ("--scales", "1,1.75")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two drawn images below imgs; the current folder is its parent."""
    monkeypatch.chdir(tmp_path)
    Path("imgs").mkdir()
    for name, size in (("a.png", (90, 130)), ("b.png", (120, 80))):
        Image.fromarray(draw_picture(*size)).save(Path("imgs", name))
    return Path("imgs")


def masks(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(folder, "masks").iterdir())]


def windows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows the vision tower sees, each time that it is run from now on."""
    seen: list[int] = []
    encode = Tipsv2Backbone.encode_windows

    def counting(self: Tipsv2Backbone, images: list[np.ndarray]) -> object:
        seen.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Tipsv2Backbone, "encode_windows", counting)
    return seen


def test_labels_are_those_of_the_library(command: Command, images: Path) -> None:
    assert (
        command("label", images, *LABEL, *SCALES, "--refine", "pamr", "--min-confidence", "0.3", "-o", "out").code == 0
    )
    options = tipsseg.LabelOptions(mode="slide", short_side=56, min_confidence=0.3, refine="pamr", scales=(1, 1.75))
    labeller = tipsseg.Labeller(tipsseg.load("tiny", device="cpu"), ["panda", "tree", "sky"], options)
    for name in ("a.png", "b.png"):
        assert (np.asarray(Image.open(Path("out/masks", name))) == labeller.label(images / name).labels).all()


def test_a_run_of_other_scales_is_another_run(command: Command, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("label", images, *LABEL, "-o", "one").code == 0
    record = json.loads(Path("one/run.json").read_text())
    assert record["options"]["scales"] == [1]
    assert command("label", images, *LABEL, "-o", "both").code == 0
    seen = windows(monkeypatch)
    other = ["label", images, *TINY, "-c", "panda,tree,sky", *SCALES, "-o", "both"]
    refused = command(*other)
    assert (refused.code, "scales" in refused.err, seen, masks("both")) == (1, True, [], masks("one"))
    assert "2 images labelled" in command(*other, "--overwrite").err
    record = json.loads(Path("both/run.json").read_text())
    assert record["options"]["scales"] == [1.0, 1.75]
    assert "--short-side=56 --scales=1,1.75" in record["command"]
    assert masks("both") != masks("one")
    del seen[:]
    assert "2 unchanged" in command(*other).err
    assert "2 unchanged" in command("label", images, "--from", "both", "--device", "cpu", "-o", "both").err
    assert not seen
    assert command("label", images, *LABEL, "--scales", "1", "-o", "both", "--overwrite").code == 0
    assert masks("both") == masks("one")
    assert (
        json.loads(Path("both/run.json").read_text())["digest"]
        == json.loads(Path("one/run.json").read_text())["digest"]
    )


@pytest.mark.parametrize("first", ["encode", "label"])
def test_a_store_gets_the_scales_that_it_lacks(
    command: Command, images: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    if first == "encode":
        assert command("encode", images, *TINY, "-o", "feats", "-q").code == 0
    else:
        assert command("label", images, *LABEL, "-o", "once", "--features", "feats").code == 0
    before = {path: path.read_bytes() for path in Path("feats/feats").rglob("*.safetensors")}
    seen = windows(monkeypatch)
    assert command("label", images, *LABEL, *SCALES, "-o", "out", "--features", "feats").code == 0
    files = set(Path("feats/feats").rglob("*.safetensors"))
    added = sorted(files - set(before))
    assert [path.name[64:] for path in added] == ["-98.safetensors"] * 2
    assert all(path.read_bytes() == data for path, data in before.items())
    assert sum(seen) == sum(len(read_feature_file(path).plan.corners) for path in added)  # and none of scale 1
    del seen[:]
    assert command("label", images, *LABEL, *SCALES, "-o", "again", "--features", "feats").code == 0
    assert command("label", images, *LABEL, "-o", "plain", "--features", "feats").code == 0
    ran = command("encode", images, *TINY, *SCALES, "-o", "feats")
    assert (ran.code, "2 unchanged" in ran.err) == (0, True)
    assert {Path(line) for line in ran.out.splitlines()} == files
    assert not seen
    assert command("label", images, *LABEL, *SCALES, "-o", "whole", "--features", "new").code == 0
    assert masks("whole") == masks("out") == masks("again")
    assert masks("plain") != masks("out")
    ran = command("check", "feats")
    assert (ran.code, "4 files checked: nothing wrong." in ran.err) == (0, True)
    assert command("encode", images, *TINY, *SCALES, "-o", "all", "-q").code == 0
    for path in files:
        assert Path("all", path.relative_to("feats")).read_bytes() == path.read_bytes()


def test_records_of_encoding_name_all_files(command: Command, images: Path) -> None:
    ran = command("encode", images, *TINY, *SCALES, "-o", "feats", "--jsonl")
    for line in map(json.loads, ran.out.splitlines()):
        files = [read_feature_file(Path(name)) for name in (line["file"], *line["finer"])]
        assert [each.plan.short_side for each in files] == [56, 98]
        assert line["windows"] == sum(len(each.plan.corners) for each in files)
        assert line["bytes"] == sum(each.patches.nbytes + each.class_tokens.nbytes for each in files)
    plain = command("encode", images, *TINY, "-o", "plain", "--jsonl")
    assert not any("finer" in json.loads(line) for line in plain.out.splitlines())


def test_dry_runs_tell_the_cost(command: Command, images: Path) -> None:
    told = command("label", images, *TINY, *SCALES, "-c", "panda", "--dry-run").err
    assert "The model sees 4.0 windows per image, and 4.1 times as many patches as at scale 1." in told
    assert command("encode", images, *TINY, "-o", "feats", "-q").code == 0
    ran = command("encode", images, *TINY, *SCALES, "-o", "feats", "--dry-run")
    assert ("2 images to encode" in ran.err, "2.0 windows per image to encode" in ran.err) == (True, True)
    lines = command("encode", images, *TINY, *SCALES, "-o", "other", "--jsonl").out.splitlines()
    total = sum(json.loads(line)["bytes"] for line in lines)
    ran = command("encode", images, *TINY, *SCALES, "-o", "third", "--dry-run")
    assert f"{total / 1e3:,.1f} kB in total" in ran.err


def test_archives(command: Command, images: Path) -> None:
    assert command("label", images, *LABEL, *SCALES, "-f", "png,npz,coco", "-o", "out").code == 0
    with np.load("out/npz/a.npz") as archive:
        assert archive["top_ids"].shape == (4, 4, 6)
        assert (archive["labels"] == np.asarray(Image.open("out/masks/a.png"))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("label", "-c", "a", "--scales", "1,1"), "--scales contains 1 twice"),
        (("label", "-c", "a", "--scales", "1,2,3,4,5"), "--scales must be 1 to 4 numbers, not 5"),
        (
            ("label", "-c", "a", "--scales", "1,8.1"),
            "--scales must be at least 0.25 and at most 8, not 8.1",
        ),
        (("label", "-c", "a", "--scales", "two"), "--scales='two' is not a list of numbers"),
        (
            ("label", "-c", "a", "--scales", "1,1.01"),
            "--scales: 1 and 1.01 give short sides of 56 and 57 pixels, less than one patch (14 pixels) apart",
        ),
    ],
)
def test_wrong_scales_are_named(command: Command, images: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = command(*arguments, images, *TINY)
    assert (ran.code, f"Error: {message}\n" in ran.err) == (2, True)
    assert not Path("labels").exists()


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (("--scales", "1,1.75"), " from scale 1 only, and applies to all scales; the run has scales 1, 1.75."),
        ((), None),
    ],
    ids=["scales", "as published"],
)
def test_options_that_a_fit_is_made_without_are_said(
    command: Command, images: Path, options: tuple[str, ...], note: str | None
) -> None:
    assert command("label", images, *LABEL, *options, "-f", "png", "-o", "out").code == 0
    for path in Path("out/masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[:, :40] = 1
        mask[:, 40:] = 2
        Image.fromarray(mask).save(path)
    ran = command("fit", "out", "-o", "fit.fit", "--device", "cpu")
    assert ran.code == 0, ran.err
    assert (f"The fit learns{note}" in ran.err) == (note is not None)
    assert ran.err.count("; the run has ") == (note is not None)
    assert command("label", images, *TINY, "--vocab", "fit.fit", *SCALES, "-o", "fitted").code == 0
