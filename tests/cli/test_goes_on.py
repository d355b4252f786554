"""What a folder was begun in goes on in it: its dtype, its vocabulary, its stored labels; and the commands for what does not."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from resuming import ALL, CLASSES, Run, contents, record
from running import Command

from tipsseg.backbones import devices
from tipsseg.errors import DeviceError

# ---- dtype ----


def test_a_folder_goes_on_in_its_dtype(run: Run) -> None:
    run("--dtype", "bfloat16", "--limit", "1")
    assert "(bfloat16)" in run()
    assert run.labelled == ALL[1:]
    found = record(Path("out"))
    assert (found["dtype"], found["asked"]) == ("bfloat16", {"device": "cpu", "dtype": "auto", "batch_size": 8})
    run("--dtype", "bfloat16")
    assert run.labelled == []


def test_auto_is_chosen_by_the_instructions_of_the_cpu_alone(
    command: Command,
    make_checkpoint: Callable[[str, Mapping[str, object]], Path],
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With AMX bfloat16, without float32; a folder goes on in what it was begun in."""
    monkeypatch.chdir(pictures.parent)
    wide = {
        "model_type": "tipsv2",
        "temperature_init_value": 0.02,
        "vision_config": {"hidden_size": 384, "num_hidden_layers": 1, "num_attention_heads": 6, "image_size": 56, "mlp_ratio": 4},
        "text_config": {
            "vocab_size": 1200, "hidden_size": 384, "intermediate_size": 384, "num_hidden_layers": 1, "num_attention_heads": 6,
        },
    }  # fmt: skip
    asked = ("label", pictures, "-c", "a,b", "-m", make_checkpoint("wide", wide), "--device", "cpu", "-f", "png", "-o")

    def instructions(amx: bool) -> None:
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx, "avx512_bf16": True}, raising=False
        )

    instructions(True)
    assert "on cpu (bfloat16, as this CPU has AMX)" in command(*asked, "one", "--limit", 1).err
    instructions(False)
    assert "on cpu (float32, as this CPU lacks AMX)" in command(*asked, "other", "--limit", 1).err
    assert "on cpu (bfloat16)" in command(*asked, "one").err
    assert [record(Path(folder))["dtype"] for folder in ("one", "other")] == ["bfloat16", "float32"]
    assert not Path(os.environ["TIPSSEG_CACHE"], "dtype").exists()


def test_a_folder_of_another_release_goes_on(run: Run) -> None:
    run()
    path = Path("out/run.json")
    path.write_text(json.dumps(record(Path("out")) | {"version": "0.0.9"}))
    run()
    assert (run.code, run.labelled) == (0, [])


def test_all_shards_have_the_dtype_of_the_first(run: Run) -> None:
    run("--shard", "1/2", "--dtype", "bfloat16")
    run("--shard", "2/2")
    assert record(Path("out/shards/2-of-2"))["dtype"] == "bfloat16"
    assert run.command("merge", "out", "-o", "out").code == 0


def test_shards_of_two_dtypes_are_not_joined(run: Run) -> None:
    run("--shard", "1/2", "--dtype", "bfloat16")
    run("--shard", "2/2", "--dtype", "float32")
    ran = run.command("merge", "out", "-o", "out")
    assert ran.code == 1
    assert ran.err == (
        "Error: out/shards/2-of-2: labelled in float32, but out/shards/1-of-2 in bfloat16\n"
        "Hint: The labels would differ by rounding; label one of them again with --dtype.\n"
    )


def test_a_device_without_the_dtype_of_the_folder_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--dtype", "bfloat16", "--limit", "1")

    def without(name: str, device: object) -> None:
        raise DeviceError("cpu", "device cpu does not support bfloat16", "Use float32.")

    monkeypatch.setattr(devices, "resolve_dtype", without)
    assert run().endswith(
        "Error: the run in the output folder uses bfloat16, but device cpu does not support bfloat16\n"
        "Hint: Resume on a device that supports this dtype, or choose another output folder with -o.\n"
    )
    assert run.code == 1


# ---- another release ----


# ---- another run in the folder ----


@pytest.mark.parametrize("more", [[], ["--no-resume"]], ids=["plain", "again"])
def test_other_classes_are_refused_with_commands_to_paste(
    run: Run, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    run()
    before = contents(Path("out"))
    line = ["label", "imgs", "-c", "car", "-m", str(run.model), "--device", "cpu", "-o", "out", *more]
    monkeypatch.setattr(sys, "argv", ["tipsseg", *line])
    ran = run.command(*line)
    *_, error, hint, elsewhere, again = ran.err.splitlines()
    assert ran.code == 1
    assert error == (
        "Error: cannot write out: it holds labels of another run: the classes differ: panda leg, tree, sky / car"
    )
    assert hint == "Hint: Label into another folder, or start over in this one, and keep corrected masks:"
    assert contents(Path("out")) == before
    for command, folder in ((elsewhere, "out-2"), (again, "out")):
        program, *arguments = shlex.split(command)
        assert program == "tipsseg"
        assert run.command(*arguments).code == 0
        classes = json.loads(Path(folder, "classes.json").read_bytes())["classes"]
        assert [each["name"] for each in classes] == ["car"]
        assert run.command("check", folder).code == 0


@pytest.mark.parametrize(
    ("first", "again", "ways"),
    [
        ((), ("-", "-c", "car"), ["-o out-2"]),
        ((), ("imgs/sub", "-c", "car"), ["-o out-2"]),
        (("--features", "feats"), ("-", "-c", CLASSES), ["-o out-2", "-o out --features feats"]),
        (("--features", "feats"), ("-", "-c", CLASSES, "--mode", "whole"), ["-o out-2"]),
    ],
    ids=["classes of a list", "classes of a sub-folder", "no features", "no features and another option"],
)
def test_no_hint_loses_labels_or_names_what_nobody_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, first: tuple[str, ...], again: tuple[str, ...], ways: list[str]
) -> None:
    run(*first)
    line = ["label", *again, "-m", str(run.model), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["tipsseg", *line])
    ran = run.command(*line, "-o", "out", stdin=b"imgs/a.png\n")
    assert ran.code == 1
    assert ran.err.splitlines()[-len(ways) :] == [f"  {shlex.join(['tipsseg', *line])} {way}" for way in ways]


# ---- formats that are not named ----


def formats() -> object:
    return record(Path("out"))["formats"]


def test_a_new_folder_has_overlays_and_the_last_line_names_one(run: Run) -> None:
    err = run()
    assert formats() == ["png", "coco", "overlay"]
    assert err.splitlines()[-1] == "Open out/overlays/a.jpg to see the labels."
    assert run().splitlines()[-1] == "Open out/overlays/a.jpg to see the labels."  # nothing left to label
    assert "Open" not in run("--jsonl") + run("--quiet") + run("-f", "png", output="masks")


def test_a_folder_without_overlays_goes_on_with_its_formats(run: Run) -> None:
    run("-f", "png,coco", "--limit", "2")
    err = run()
    assert (run.code, run.labelled, formats()) == (0, ALL[2:], ["png", "coco"])
    assert not Path("out/overlays").exists()
    assert "Open" not in err
    assert run.command("convert", "out", "-f", "labelme", "--only", "-", stdin=b"imgs/a.png\n").code == 0
    run()  # not refused for a format that a conversion wrote for one image
    assert (run.code, run.labelled) == (0, [])
    run("--no-resume")
    assert (run.labelled, formats()) == (ALL, ["png", "coco"])
    run("--overwrite")
    assert (run.labelled, formats()) == (ALL, ["png", "coco", "overlay"])
    assert run.command("check", "out").code == 0


def test_a_shard_takes_the_formats_of_the_others(run: Run) -> None:
    run("-f", "png,coco", "--shard", "1/2")
    run("--shard", "2/2")
    assert run.command("merge", "out", "-o", "out").code == 0
    assert formats() == ["png", "coco"]


# ---- formats more ----


@pytest.mark.parametrize("more", ["overlay", "overlay,yolo,labelme,cvat,hf", "coco-polygon,panoptic,label-studio"])
def test_a_format_more_comes_from_the_stored_labels(run: Run, more: str) -> None:
    run("-f", f"png,coco,{more}", output="wanted")
    run("-f", "png,coco")
    before = contents(Path("out"))
    err = run("-f", more)
    assert (run.code, run.labelled) == (1, [])
    assert "cannot write out: its images are already labelled and lack only " in err
    assert contents(Path("out")) == before
    listed = run.command("label", "-", "-c", CLASSES, "-m", run.model, "-o", "out", "-f", more, stdin=b"imgs/a.png\n")
    assert (listed.code, listed.err.splitlines()[-2:]) == (1, err.splitlines()[-2:])
    assert (run.labelled, contents(Path("out"))) == ([], before)
    assert f"The run would stop: {err.partition('Error: ')[2].splitlines()[0]}" in run("-f", more, "--dry-run")
    command = shlex.split(err.rpartition("tipsseg ")[2])
    assert run.command(*command).code == 0
    found, wanted = contents(Path("out")), contents(Path("wanted"))
    assert {name for name in wanted if name != "manifest.jsonl"} == {name for name in found if name != "manifest.jsonl"}
    assert all(found[name] == wanted[name] for name in wanted if name != "manifest.jsonl")
    assert run.command("check", "out").code == 0
    run("-f", more)
    assert (run.code, run.labelled) == (0, [])


@pytest.mark.parametrize("more", ["npz", "confidence"])
def test_what_only_the_model_knows_comes_from_the_model(run: Run, more: str) -> None:
    run()
    run("-f", more)
    assert run.labelled == ALL


def test_images_without_labels_of_every_pixel_get_formats_from_the_model(run: Run) -> None:
    """A conversion would refuse a folder in which some image has none."""
    run("-f", "coco", "--min-confidence", "0.4")
    run("-f", "png,coco", "--min-confidence", "0.4", "--limit", "1")
    run("-f", "labelme", "--min-confidence", "0.4")
    assert (run.code, run.labelled) == (0, ALL)


def test_scores_are_kept_whatever_the_formats(run: Run) -> None:
    run(output="wanted")
    run("-f", "png")
    assert run.command("convert", "out", "-f", "coco").code == 0
    assert contents(Path("out"))["annotations.json"] == contents(Path("wanted"))["annotations.json"]
