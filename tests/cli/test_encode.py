"""`tipsseg encode`, and runs that take features from a store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from resuming import tree
from running import Command

from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.features.file import read_feature_file, write_feature_file
from tipsseg.images import decoding
from tipsseg.options import FEATURE_DTYPES

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
TINY = ("-m", "tiny", "--device", "cpu")
LABEL = (*TINY, "-c", "panda,tree,sky", "-q")


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three drawn scenes below imgs; the current folder is its parent."""
    monkeypatch.chdir(tmp_path)
    for place in ("beach/holiday.jpg", "lake/grey.png", "street/house.png"):
        target = Path("imgs", place)
        target.parent.mkdir(parents=True)
        shutil.copy(next(SCENES.glob(place)), target)
    return Path("imgs")


def labels(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder, "masks").rglob("*.png"))}


def share_that_differs(one: str, other: str) -> float:
    pairs = [(Path(one, name), Path(other, name)) for name in labels(one)]
    differ = [np.asarray(Image.open(left)) != np.asarray(Image.open(right)) for left, right in pairs]
    return float(np.mean(np.concatenate([each.reshape(-1) for each in differ])))


def no_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the vision tower was run")

    monkeypatch.setattr(Tipsv2Backbone, "encode_windows", never)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 0.0), ("float16", 0.001), ("int8", 0.005)])
def test_labels_from_a_store_are_those_without(
    command: Command, scenes: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, most: float
) -> None:
    assert command("label", scenes, *LABEL, "-o", "plain").code == 0
    ran = command("encode", scenes, *TINY, "-o", "feats", "--feature-dtype", dtype)
    assert ran.code == 0
    assert "3 images encoded in " in ran.err
    assert [Path(line).is_file() for line in ran.out.splitlines()] == [True] * 3
    # All but one are made by the label run itself.
    first = next(each for each in scenes.rglob("*") if each.is_file())
    assert command("encode", first, *TINY, "-o", "made-feats", "--feature-dtype", dtype).code == 0
    assert command("label", scenes, *LABEL, "-o", "made", "--features", "made-feats").code == 0
    no_tower(monkeypatch)
    assert command("label", scenes, *LABEL, "-o", "taken", "--features", "feats").code == 0
    assert labels("taken") == labels("made")
    assert share_that_differs("plain", "taken") <= most
    if dtype == "float32":
        assert labels("taken") == labels("plain")
        assert Path("taken/annotations.json").read_bytes() == Path("plain/annotations.json").read_bytes()


def test_a_store_of_another_version_is_left_alone(command: Command, scenes: Path) -> None:
    assert command("encode", scenes, *TINY, "-o", "feats", "-q").code == 0
    record = Path("feats/features.json")
    record.write_text(json.dumps(json.loads(record.read_bytes()) | {"schema": 2}))
    before = tree("feats")
    for asked in (("label", *LABEL, "-o", "out", "--features"), ("encode", *TINY, "-o")):
        ran = command(asked[0], scenes, *asked[1:], "feats")
        assert (ran.code, "feats/features.json: another version of tipsseg wrote it" in ran.err) == (1, True)
        assert tree("feats") == before


def test_pixels_are_read_only_where_they_are_needed(
    command: Command, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("encode", scenes, *TINY, "-o", "feats", "-q").code == 0
    refined = ("pamr", "pamr-guided")
    for refine in refined:
        assert command("label", scenes, *LABEL, "--refine", refine, "-o", f"{refine}1", "--features", "other").code == 0
    no_tower(monkeypatch)
    for refine in refined:
        assert command("label", scenes, *LABEL, "--refine", refine, "-o", f"{refine}2", "--features", "feats").code == 0
        assert labels(f"{refine}1") == labels(f"{refine}2")
    assert labels("pamr1") != labels("pamr-guided1")
    ran = command("label", scenes, *LABEL[:-1], "-f", "png", "-o", "told", "--features", "feats")
    assert "3 images with tiny on cpu (float32), features in feats (float16): " in ran.err
    assert command("label", scenes, *LABEL, "-f", "overlay", "-o", "overlays", "--features", "feats").code == 0
    assert len(list(Path("overlays").rglob("*.jpg"))) == 3

    def never(self: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(decoding.OpenImage, "decode", never)
    ran = command("label", scenes, *LABEL, "-f", "png,coco", "--jsonl", "-o", "lines", "--features", "feats")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 3


def test_an_image_is_known_by_its_content(command: Command, scenes: Path) -> None:
    assert command("encode", scenes, *TINY, "-o", "feats", "-q").code == 0
    (scenes / "lake" / "grey.png").rename(scenes / "moved.png")
    shutil.copy(scenes / "street" / "house.png", scenes / "again.png")
    Image.open(scenes / "beach" / "holiday.jpg").resize((200, 300)).save(scenes / "beach" / "holiday.jpg")
    ran = command("encode", scenes, *TINY, "-o", "feats", "--jsonl")
    assert ran.code == 0
    found = {each["image"]: each for each in map(json.loads, ran.out.splitlines())}
    assert {name: each["status"] for name, each in found.items()} == {
        "again.png": "unchanged",
        "beach/holiday.jpg": "encoded",
        "moved.png": "unchanged",
        "street/house.png": "unchanged",
    }
    changed = found["beach/holiday.jpg"]
    assert (changed["height"], changed["width"], changed["path"]) == (300, 200, "imgs/beach/holiday.jpg")
    assert len(list(Path("feats/feats").rglob("*.safetensors"))) == 4


def test_features_of_another_kind_are_refused(command: Command, scenes: Path) -> None:
    assert command("encode", scenes, *TINY, "--dtype", "float32", "-o", "feats", "-q").code == 0
    for arguments in (["encode", scenes, *TINY, "-o", "feats"], ["label", scenes, *LABEL, "--features", "feats"]):
        ran = command(*arguments, "--mode", "whole")
        assert ran.code == 1
        assert "cannot write feats: its features were computed with different settings: the mode is slide" in ran.err
    ran = command("encode", scenes, *TINY, "-o", "feats", "--feature-dtype", "int8")
    assert (ran.code, "the feature dtype is float16, not int8" in ran.err) == (1, True)
    # Options that are left out are those of the store.
    assert command("label", scenes, *LABEL, "--features", "feats").code == 0


def test_a_folder_of_others_is_refused(command: Command, scenes: Path) -> None:
    ran = command("encode", scenes, *TINY, "-o", "imgs")
    assert ran.code == 1
    assert "it contains other files, for example beach, but no features.json" in ran.err
    ran = command("label", scenes, *LABEL, "--features", "out", "-o", "out")
    assert (ran.code, "--features and --output are the same folder" in ran.err) == (2, True)


def test_a_damaged_file_is_made_anew(command: Command, scenes: Path) -> None:
    assert command("encode", scenes, *TINY, "-o", "feats", "-q").code == 0
    files = sorted(Path("feats/feats").rglob("*.safetensors"))
    before = [path.read_bytes() for path in files]
    files[0].write_bytes(before[0][:-1])
    files[1].write_bytes(before[1][:-1] + bytes([before[1][-1] ^ 1]))
    ran = command("check", "feats")
    assert ran.code == 1
    assert [line.partition(": ")[0] for line in ran.out.splitlines()] == [str(files[0]), str(files[1])]
    ran = command("label", scenes, *TINY, "-c", "panda,tree", "-o", "out", "--features", "feats")
    assert (ran.code, ran.err.count("; encoded the image again.")) == (0, 2)
    assert [path.read_bytes() for path in files] == before
    ran = command("check", "feats")
    assert (ran.code, ran.out) == (0, "")
    assert "3 files checked: nothing wrong." in ran.err


def test_features_of_another_image_or_plan_are_made_anew(command: Command, scenes: Path) -> None:
    """One file has the features of another image, another has windows of another size."""
    assert command("encode", scenes, *TINY, "-o", "feats", "-q").code == 0
    files = sorted(Path("feats/feats").rglob("*.safetensors"))
    before = [path.read_bytes() for path in files]
    for arguments in (("encode", "imgs", "-o", "feats"), ("label", "imgs", "--features", "feats", "-c", "sky")):
        shutil.copy(files[0], files[1])
        found = read_feature_file(files[2])
        height, width = found.plan.size
        write_feature_file(files[2], replace(found, plan=replace(found.plan, size=(height + 1, width))))
        assert files[2].read_bytes() != before[2]
        assert command(*arguments, *TINY, "-q").code == 0
        assert [path.read_bytes() for path in files] == before


def test_check_names_what_is_no_part_of_a_store(command: Command, scenes: Path) -> None:
    assert command("encode", scenes, *TINY, "-o", "feats", "-q").code == 0
    first = min(Path("feats/feats").rglob("*.safetensors"))
    shutil.copy(first, first.with_name("ff" * 32 + ".safetensors"))
    shutil.copy(first, first.parent.parent / "x.safetensors")
    Path("feats/notes.txt").write_text("mine")
    ran = command("check", "feats")
    assert ran.code == 1
    found = dict(line.split(": ", 1) for line in ran.out.splitlines())
    assert set(found.values()) == {"not a feature file"}
    assert len(found) == 3
    Path("feats/features.json").unlink()
    assert command("check", "feats").code == 1


def test_an_image_that_fails_is_reported_once_in_a_run(command: Command, scenes: Path) -> None:
    (scenes / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for _ in range(2):
        ran = command("encode", scenes, *TINY, "-o", "feats", "--jsonl")
        assert ran.code == 1
        assert [json.loads(line)["status"] for line in ran.out.splitlines()].count("failed") == 1
        assert json.loads(Path("feats/errors.jsonl").read_text())["image"] == "broken.png"
    (scenes / "broken.png").unlink()
    assert command("encode", scenes, *TINY, "-o", "feats").code == 0
    assert not Path("feats/errors.jsonl").exists()


def test_shards_add_to_one_store(command: Command, scenes: Path) -> None:
    counts = []
    for shard in ("1/2", "2/2"):
        ran = command("encode", scenes, *TINY, "-o", "feats", "--shard", shard)
        assert ran.code == 0
        counts.append(len(ran.out.splitlines()))
    assert sum(counts) == 3
    assert "3 unchanged" in command("encode", scenes, *TINY, "-o", "feats").err
    assert command("check", "feats").code == 0


def test_a_dry_run_says_the_size_and_writes_nothing(command: Command, scenes: Path) -> None:
    ran = command("encode", scenes, *TINY, "-o", "feats", "--dry-run")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 3
    assert "3 images to encode, into feats. Nothing was written." in ran.err
    assert not Path("feats").exists()
    lines = command("encode", scenes, *TINY, "-o", "feats", "--jsonl").out.splitlines()
    total = sum(json.loads(line)["bytes"] for line in lines)
    assert f"{total / 3e3:,.1f} kB per image, {total / 1e3:,.1f} kB in total" in ran.err
    assert "0 images to encode, 3 unchanged" in command("encode", scenes, *TINY, "-o", "feats", "--dry-run").err


def test_a_question_over_a_full_store_imports_no_torch(
    command: Command, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIPSSEG_CACHE", str(Path("cache").absolute()))
    label = ["label", str(scenes), "-m", "tiny", "-c", "panda,tree,sky", "-q", "--features", "feats"]
    assert command("encode", scenes, *TINY, "-o", "feats", "-q").code == 0
    assert command(*label, "-o", "first").code == 0  # keeps the vectors of the phrases
    for more, imported in ((("-f", "png,coco,npz,overlay,yolo"), False), (("-c", "a new phrase"), True)):
        program = [sys.executable, "-c", IS_TORCH_IMPORTED, *label, "-o", "again", "--overwrite", *more]
        ran = subprocess.run(program, capture_output=True, text=True, check=True)
        assert (more, ran.stderr) == (more, f"{imported}\n")
        if not imported:
            assert labels("again") == labels("first")


IS_TORCH_IMPORTED = """
import sys
from tipsseg.cli.main import main
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def test_an_image_that_is_missing_later_is_encoded_on_the_cpu(
    command: Command, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With device auto, and a GPU that nobody asks, as the first image of a list is in the store."""
    first, *others = sorted(str(path) for path in scenes.rglob("*") if path.is_file())
    assert command("encode", first, *TINY, "-o", "feats", "-q").code == 0
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    label = ("label", "-", "-m", "tiny", "-c", "tree,sky", "-q", "--features", "feats", "-o", "out")
    assert command(*label, stdin="\n".join([first, *others]).encode()).code == 0
    assert json.loads(Path("out/run.json").read_bytes())["device"] == "cpu"
    assert len(labels("out")) == 3


def test_scales_are_in_order_whichever_the_store_lacks(command: Command, scenes: Path) -> None:
    scales = ("--scales", "1,1.75", "--feature-dtype", "float32")
    assert command("encode", scenes, *TINY, *scales, "-o", "feats", "-q").code == 0
    for path in Path("feats").rglob("*.safetensors"):
        if "-" not in path.stem:
            path.unlink()
    label = ("label", scenes, *LABEL, "--scales", "1,1.75")
    assert command(*label, "-o", "plain").code == 0
    assert command(*label, "-o", "taken", "--features", "feats").code == 0
    assert labels("taken") == labels("plain")


def test_a_list_of_images(command: Command, scenes: Path) -> None:
    (scenes / "lake" / "grey.png").rename(scenes / "lake" / "grey\n.png")
    paths = sorted(path for path in scenes.rglob("*") if path.is_file())
    listed = b"".join(bytes(path) + b"\0" for path in [*paths[:2], Path("imgs/gone.png"), paths[2]])
    ran = command("encode", "-", "-0", *TINY, "-o", "feats", stdin=listed)
    assert (ran.code, "imgs/gone.png: no such file" in ran.err) == (1, True)
    assert [Path(each).is_file() for each in ran.out.split("\0")[:-1]] == [True] * 3
    assert "0 images encoded, 3 unchanged" in command("encode", scenes, *TINY, "-o", "feats").err


def test_temporary_files_of_a_killed_process_go_once_they_are_old(command: Command, scenes: Path) -> None:
    for arguments in (("encode", scenes, *TINY, "-o"), ("label", scenes, *LABEL, "--overwrite", "--features")):
        assert command(*arguments, "feats").code == 0
        old, new = Path("feats/.tipsseg-0123.json"), Path("feats/feats/.tipsseg-0123.safetensors")
        for path, age in ((old, 1000), (new, 1000), (new.with_name(".tipsseg-4567.safetensors"), 0)):
            path.touch()
            os.utime(path, (time.time() - age,) * 2)
        command(*arguments, "feats")
        assert [path.name for path in Path("feats").rglob(".tipsseg-*")] == [".tipsseg-4567.safetensors"]


@pytest.mark.parametrize("dtype", FEATURE_DTYPES)
@pytest.mark.parametrize("name", ["patches", "class_tokens"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_features_that_are_not_unit_vectors_are_not_stored(
    command: Command, scenes: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, name: str, value: float
) -> None:
    plain = Tipsv2Backbone.encode_windows

    def broken(self: Tipsv2Backbone, windows: Any) -> Any:
        encoded = plain(self, windows)
        with torch.inference_mode():
            getattr(encoded, name)[0, ..., 0] = value
        return encoded

    monkeypatch.setattr(Tipsv2Backbone, "encode_windows", broken)
    ran = command("encode", scenes, *TINY, "-o", "feats", "--feature-dtype", dtype, "--sample", "1")
    assert ran.code == 1
    assert "the model returned infinity, NaN or zeros in float32 on cpu" in ran.err
    assert not list(Path("feats").rglob("*.safetensors"))
