"""Each option of `label`, from its declaration: what the folder records of it, what repeats it, and what leaving it out means."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasters import drawn, write_raster
from running import Command, Ran
from tipsseg_stranger.counts import Counts

from tipsseg.ask import verb_of
from tipsseg.folder.read import open_run
from tipsseg.folder.spec import PARTS, RunSpec
from tipsseg.formats import FORMATS
from tipsseg.options.fields import COMMAND, options_of
from tipsseg.options.records import LabelOptions, PictureOptions
from tipsseg.verbs.encode import iter_encode_folder

#: What stands on the command line for each option that the record of a run has; a new option needs a value here.
VALUES: dict[str, list[str]] = {
    "mode": ["whole"],
    "short_side": ["112"],
    "min_confidence": ["0.6"],
    "refine": ["pamr"],
    "scales": ["1,1.5"],
    "stretch": ["5,95"],
    "regions": ["regions"],
    "regions_only": ["--regions", "regions"],
    "regions_margin": ["3", "--regions", "regions", "--refine", "pamr"],
    "present": ["folders"],
    "onto": ["old/masks"],
    "model": ["MODEL2"],
    "device": ["cpu:0"],
    "dtype": ["bfloat16"],
    "batch_size": ["3"],
    "features": ["feats"],
    "max_pixels": ["1000000"],
    "instances": ["class"],
    "min_area": ["40"],
    "simplify": ["1.5"],
    "names": ["full"],
    "val_fraction": ["0.5", "-f", "png,yolo"],
    "extra": ["counts.separator=comma", "-f", "png,counts"],
    "bands": ["1", "-f", "geotiff"],
    "ground_resolution": ["2", "-f", "geotiff"],
    "sample": ["2"],
    "every": ["2"],
    "output": ["elsewhere"],
    "formats": ["png,csv"],
    "shard": ["1/1"],
}

OPTIONS = {
    name: option for record in (*PARTS, RunSpec) for name, option in options_of(record).items() if option.about.recorded
}

#: Options that a folder with labels refuses to lose. Read once by hand: of the others, the folder keeps its value.
REFUSED = {
    "mode", "short_side", "min_confidence", "refine", "scales", "stretch", "regions", "regions_only",
    "regions_margin", "present", "onto",
    "model", "features", "names", "bands", "ground_resolution",
}  # fmt: skip

RASTER = {*options_of(PictureOptions)}


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, tiny_checkpoint: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FORMATS, "counts", Counts())
    rng = np.random.default_rng(0)
    for name in ("tree/a", "tree/b", "sky/c"):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((80, 64))
        path = Path("imgs", f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.save(path)
        mask = Path("regions", f"{name}.png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.indices((64, 80)).sum(0) // 40 + 1).astype(np.uint8)).save(mask)
    shutil.copytree(tiny_checkpoint, "tiny2")
    config = json.loads(Path("tiny2/config.json").read_text())
    Path("tiny2/config.json").write_text(json.dumps(config, indent=3))  # other bytes, so another model


def asked(name: str, output: str) -> list[object]:
    about = OPTIONS[name].about
    value = ["tiny2" if word == "MODEL2" else word for word in VALUES[name]]
    switch = OPTIONS[name].kind is bool
    words = [about.long(name), *value]
    model = [] if name == "model" else ["-m", "tiny"]
    device = [] if name == "device" else ["--device", "cpu"]
    classes = ["-c", "sky"] if name == "onto" else ["-c", "tree,sky"]
    place = [] if name == "output" else ["-o", output]
    assert switch == (not value or value[0].startswith("-"))
    return ["label", "imgs", *classes, *model, *device, *place, *words]


def files(folder: Path) -> dict[str, bytes]:
    """The masks in a folder."""
    return {path.name: path.read_bytes() for path in folder.rglob("masks/**/*") if path.is_file()}


def digest(folder: Path) -> str:
    with open_run(folder, ended=False, blocks=True) as run:
        return run.info.digest


def paste(command: Command, line: str) -> Ran:
    words = shlex.split(line)
    assert words[0] == "tipsseg"
    return command(*words[1:])


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_recorded_repeated_and_kept(command: Command, name: str) -> None:
    assert name in VALUES, "a new option needs a value"
    if name == "onto":
        assert (
            command("label", "imgs", "-c", "tree", "-m", "tiny", "--device", "cpu", "-f", "png", "-o", "old").code == 0
        )
    if name in RASTER:
        shutil.rmtree("imgs")
        Path("imgs").mkdir()
        write_raster(Path("imgs/scene.tif"), drawn(64, 80))
    about, output = OPTIONS[name].about, Path("elsewhere" if name == "output" else "out")
    ran = command(*asked(name, "out"))
    assert ran.code == 0, ran.err
    folder = next(output.rglob("run.json")).parent
    record = json.loads((folder / "run.json").read_bytes())
    line = record["command"]

    if about.recorded != COMMAND:
        group, key = about.place(name)
        assert (record[group] if group else record)[key] not in (None, False, "auto", 8)
    if name in ("sample", "every", "output", "model", "max_pixels"):
        assert about.long(name) in line

    # The recorded command gives the same labels.
    first, question = files(output), digest(output)
    shutil.move(output, "first")
    assert paste(command, line).code == 0
    assert (files(output), digest(output)) == (first, question)

    # So does --from, unless it leaves the option out.
    if about.repeated:
        away, device = Path("away"), [] if name == "device" else ["--device", "cpu"]
        away.mkdir()
        again = command(
            "label", "../imgs", "--from", f"../{folder}", "-o", "../again", *device, cwd=away
        )  # paths lead from there
        os.chdir("..")
        assert again.code == 0, again.err
        assert (files(Path("again")), digest(Path("again"))) == (first, question)

    # Without the option, the same folder goes on, or refuses as the declaration says.
    words = asked(name, "out")
    at = words.index(about.long(name))
    del words[at : at + (1 if OPTIONS[name].kind is bool else 2)]
    words += ["-m", "tiny"] if name == "model" else []
    if name in ("shard", "output"):
        return
    forgot = command(*words)
    assert (forgot.code == 1) == (name in REFUSED), forgot.err
    assert (name in REFUSED) <= (about.role in ("labels", "place"))
    if name in REFUSED:
        commands = [text.strip() for text in forgot.err.splitlines() if text.startswith("  tipsseg ")]
        assert commands
        for text in commands:
            shutil.copytree(output, "kept", symlinks=True)
            pasted = paste(command, text)
            assert pasted.code == 0, (text, pasted.err)
            shutil.rmtree(output)
            Path("kept").rename(output)


# ---- encode, and its store ----

#: What stands on the command line for each option of `encode`; a new option needs a value here.
ENCODED: dict[str, str] = {
    "mode": "whole",
    "short_side": "112",
    "stretch": "5,95",
    "scales": "1,1.5",
    "model": "tiny2",
    "device": "cpu:0",
    "dtype": "bfloat16",
    "batch_size": "3",
    "jobs": "1",
    "max_pixels": "1000000",
    "output": "feats",
    "feature_dtype": "int8",
    "shard": "1/1",
    "sample": "2",
    "every": "2",
}

#: Options that a store refuses to lose. Read once by hand: of the others, it keeps its value, or goes on.
REFUSED_BY_STORE = {"model", "mode", "short_side", "stretch"}

OF_ENCODE = {key: each for key, each in verb_of(iter_encode_folder).options.items() if key in ENCODED}


@pytest.mark.parametrize("name", OF_ENCODE)
def test_an_option_of_encode_is_kept_by_its_store(command: Command, name: str) -> None:
    assert name in ENCODED, "a new option needs a value"
    given = [OF_ENCODE[name].about.long(name), ENCODED[name]]
    defaults = {"model": "tiny", "device": "cpu", "output": "feats", "feature_dtype": "float32"}
    others = [
        word for key, value in defaults.items() if key != name for word in (OF_ENCODE[key].about.long(key), value)
    ]
    ran = command("encode", "imgs", *others, *given)
    assert ran.code == 0, ran.err
    store = json.loads(Path("feats/features.json").read_bytes())
    recorded = {**store["recipe"], "feature_dtype": store["dtype"]}
    if name in ("mode", "short_side", "dtype", "feature_dtype"):
        assert str(recorded[name]) == ENCODED[name]
    first = {path: path.read_bytes() for path in Path("feats").rglob("*.safetensors")}
    assert first

    # A run over the features labels as one that encodes the images itself, if it asks the model the same.
    if name in options_of(LabelOptions) or name in ("model", "device"):
        asking = [*others[: -4 if name not in ("output", "feature_dtype") else None], *given]
        label = ["label", "imgs", "-c", "tree,sky", "-f", "png", *asking]
        for words in (["-o", "stored", "--features", "feats"], ["-o", "plain"]):
            labelled = command(*label, *words)
            assert labelled.code == 0, labelled.err
        assert files(Path("stored")) == files(Path("plain"))

    # Without the option, the store goes on, or refuses as read by hand.
    if name != "output":
        forgot = command("encode", "imgs", *others, *(["--model", "tiny"] if name == "model" else []))
        assert (forgot.code == 1) == (name in REFUSED_BY_STORE), forgot.err
    assert first.items() <= {path: path.read_bytes() for path in Path("feats").rglob("*.safetensors")}.items()
