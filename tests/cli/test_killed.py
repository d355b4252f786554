"""Commands that are killed before each change of a file go on by the same command: in the end all is as if they had not been."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from killing import copy_with_caches
from PIL import Image, ImageOps
from rasters import drawn, write_raster
from resuming import correct
from running import Command
from sources import write_tar

from tipsseg.formats import IMAGE_FORMATS

REPOSITORY = Path(__file__).resolve().parents[2]
SCENES = REPOSITORY / "examples" / "scenes"
KILLING = REPOSITORY / "tests/support/killing.py"
_PLAIN = "-c panda,tree,sky -m tiny --device cpu --quiet"

#: What of run.json is of the run that came last, which may have had nothing to label.
OF_THE_LAST = ("started", "ended", "counts", "batch_size")


def contents(folder: Path) -> dict[str, bytes]:
    """All files of an output folder, but for times; files in the trash without the time of their command."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".tipsseg" not in path.parts)
    found = {re.sub(r"^replaced/[^/]+", "replaced", str(path.relative_to(folder))): path.read_bytes() for path in files}
    run = json.loads(found["run.json"])
    assert run["ended"] is not None or folder.name in ("one", "two")  # where one of two shards is
    # The folders that are compared have other paths, and their inputs may have, and where the runs were started.
    del run["folder"]
    run["command"] = re.sub(r"(?<= )\S*/", "", re.sub(r" --output=\S+", "", run["command"]))
    found["run.json"] = json.dumps({key: run[key] for key in run if key not in OF_THE_LAST}, sort_keys=True).encode()
    return found


def all_contents(top: Path) -> dict[str, bytes]:
    """All files, but for times, the path of the folder that they are in, and files that are left under temporary names."""
    outputs = [folder for folder in top.iterdir() if (folder / "run.json").exists()]
    files = {f"{folder.name}/{name}": data for folder in outputs for name, data in contents(folder).items()}
    for path in top.rglob("*"):
        if path.is_file() and outputs.count(top / path.relative_to(top).parts[0]) == 0 and ".tipsseg-" not in path.name:
            files[str(path.relative_to(top))] = path.read_bytes()
    return {name: re.sub(rb'"writer": "\w+"', b"", data.replace(bytes(top), b"")) for name, data in files.items()}


# ---- what is done before ----


def edited(top: Path) -> None:
    correct(top / "out/masks/desert.png")


def edited_too(top: Path) -> None:
    correct(top / "out/masks/sea.png")


def edited_dune(top: Path) -> None:
    correct(top / "out/masks/old/Dune.png")


def copied(top: Path) -> None:
    """Two annotators have a copy each."""
    shutil.copytree(top / "out", top / "copy")
    correct(top / "copy/masks/sea.png")


def changed(top: Path) -> None:
    Image.new("RGB", (90, 96), (200, 30, 30)).save(top / "imgs/desert.png")


def renamed(top: Path) -> None:
    (top / "imgs/old").mkdir()
    (top / "imgs/desert.png").rename(top / "imgs/old/Dune.png")


def renamed_again(top: Path) -> None:
    (top / "imgs/old/Dune.png").rename(top / "imgs/dune.png")


def exchanged(top: Path) -> None:
    for old, new in (("desert.png", "x"), ("sea.gif", "desert.gif"), ("x", "sea.png")):
        (top / "imgs" / old).rename(top / "imgs" / new)


def renamed_suffix(top: Path) -> None:
    (top / "imgs/desert.png").rename(top / "imgs/desert.jpg")


def deleted(top: Path) -> None:
    (top / "imgs/desert.png").unlink()


def lost(top: Path) -> None:
    (top / "out/.tipsseg/cache.db").unlink()


def mirrored(top: Path) -> None:
    with Image.open(top / "imgs/desert.png") as image:
        ImageOps.mirror(image).save(top / "imgs/desert2.png")


def taught(top: Path) -> None:
    """The ground of two images is a "tree": the text is wrong, so that a fit learns."""
    for name in ("desert", "desert2"):
        with Image.open(top / f"out/masks/{name}.png") as mask:
            mask.paste(2, (0, 48, 96, 96))
            mask.save(mask.filename)


def boxes(top: Path) -> None:
    """A correction from LabelMe, with a class that the run lacks."""
    (top / "new").mkdir()
    box = {"label": "kite", "points": [[0, 4], [30, 50]], "shape_type": "rectangle"}
    (top / "new/desert.json").write_text(json.dumps({"shapes": [box], "imageHeight": 96, "imageWidth": 96}))


def masks(top: Path) -> None:
    (top / "new").mkdir()
    Image.fromarray(np.full((96, 96), 2, np.uint8)).save(top / "new/desert.png")


def tar(top: Path) -> None:
    write_tar(top / "in.tar", {path.name: path.read_bytes() for path in (top / "imgs").iterdir()})


def regions(top: Path) -> None:
    (top / "regions").mkdir()
    for name in ("desert", "sea"):
        Image.fromarray(np.arange(1, 97, dtype=np.uint8)[:, None].repeat(96, axis=1) // 24).save(
            top / f"regions/{name}.png"
        )


def raster(top: Path) -> None:
    write_raster(top / "scene.tif", drawn(224, 300))


Step = str | Callable[[Path], None]

# IMGS and NEW are the same folders for all copies, as records have them.

PNG = f"label IMGS {_PLAIN} -o out"
LABEL = f"label IMGS {_PLAIN} -o out -f png,coco"
MANY = "-f coco,panoptic,yolo"
UNDO = "correct out --undo desert.png -q"
REGIONS = f"label imgs {_PLAIN} --regions regions -o out -f png,coco"
ALL = f"label IMGS {_PLAIN} -f png,npz,hf,yolo,overlay,csv -o out"

#: The steps before, the command that is killed, and the commands that follow; none: the same command.
CASES: dict[str, tuple[list[Step], str, list[str]]] = {
    "labels": ([], f"label imgs {_PLAIN} {MANY} -o out", []),
    "labels of a tar": ([tar], f"label in.tar {_PLAIN} -o out", []),
    "labels of a raster": ([raster], f"label scene.tif {_PLAIN} -f geotiff,geojson -o out", []),
    "features": ([], "encode imgs -m tiny --device cpu -q -o feats", []),
    "labels and features": ([], f"label imgs {_PLAIN} -f png --features feats -o out", []),
    "labels over features": ([f"{LABEL} --features feats"], f"{LABEL} --features feats --min-confidence 0.6 --overwrite", []),
    "an overwritten folder with a correction": ([LABEL, edited], f"{LABEL} --overwrite", []),
    "a correction that is given up": ([LABEL, edited], f"{LABEL} --replace-edited", []),
    "formats that follow a correction": ([LABEL, edited], "convert out -f labelme,yolo,hf -q", []),
    "objects in an edited mask": ([regions, REGIONS, edited], f"{REGIONS},instances", []),
    "scores that are added": ([LABEL, edited], f"{LABEL} -f npz", []),
    "a format that ends": ([f"label imgs {_PLAIN} -f png,coco,yolo -o out"], "convert out --drop yolo -q", []),
    "a correction without files that is undone": ([PNG, masks, "correct out --from NEW -q"], UNDO, [UNDO, PNG]),
    "a correction that is undone": ([LABEL, masks, "correct out --from NEW -q"], UNDO, [UNDO, LABEL]),
    "an edited mask that is undone": ([LABEL, edited], UNDO, [UNDO, LABEL]),
    "a folder without its cache": ([LABEL, edited, lost], "convert out -f yolo -q", []),
    "corrections with another class": ([LABEL, boxes], "correct out --from NEW --add-classes", []),
    "corrections over an edited mask": ([LABEL, edited, masks], "correct out --from NEW --replace-edited", []),
    "a shard": ([f"label imgs {_PLAIN} {MANY} -o out --shard 1/2"], f"label imgs {_PLAIN} {MANY} -o out --shard 2/2", []),
    "a shard of a tar": (
        [tar, f"label in.tar {_PLAIN} -f coco,hf,yolo -o out --shard 1/2"],
        f"label in.tar {_PLAIN} -f coco,hf,yolo -o out --shard 2/2", [],
    ),
    "a shard after a correction and a change": ([LABEL, changed, edited_too, f"{LABEL} --shard 1/2"], f"{LABEL} --shard 2/2", []),
    "a corrected run joined in a new folder": ([f"label imgs {_PLAIN} -f png,coco,yolo -o out", edited], "merge out -o all", []),
    "two corrected copies": ([LABEL, copied, edited, LABEL], "merge out copy -o all", []),
    "runs joined in a new folder": (
        [f"label imgs {_PLAIN} {MANY} -o {place} --shard {part}/2" for part, place in ((1, "one"), (2, "two"))],
        "merge one two -o out", [],
    ),
    "a picture that is renamed": (
        [ALL, edited, ALL, renamed], ALL, [],
    ),
    "a picture that is renamed with an edited mask": ([f"{LABEL},yolo,overlay", edited, renamed], f"{LABEL},yolo,overlay", []),
    "a picture that is renamed twice": ([LABEL, renamed, LABEL, edited_dune, renamed_again], LABEL, []),
    "pictures that exchange their names": ([ALL, edited, ALL, exchanged], ALL, []),
    "a picture with another suffix": ([LABEL, renamed_suffix], LABEL, []),
    "labels that are pruned": ([ALL, edited_too, deleted], f"{ALL} --prune 1", []),
    "an image that is removed": ([ALL, edited], "correct out --remove desert.png -q", []),
    "a report": ([LABEL], "report out", []),
    "a data set that is replaced": (
        [LABEL, "convert out -f webdataset --to set --shard-size 1 --val-fraction 0.5 -q", edited],
        "convert out -f parquet --to set --shard-size 30kB --overwrite -q", [],
    ),
    "a fit": ([mirrored, LABEL, taught], "fit out -o my.fit --device cpu -q --overwrite", []),
    "an audit": ([f"{LABEL},npz", masks], "audit out --labels new -c sky,tree --coco d.json --label-studio t.json -q", []),
}  # fmt: skip


def in_full(step: str, paths: dict[str, str]) -> str:
    for word, path in paths.items():
        step = step.replace(word, path)
    return step


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_kill_before_each_change_of_a_file(command: Command, tmp_path: Path, case: str) -> None:
    source = tmp_path / "source"
    before, killed, after = CASES[case]
    paths = {"IMGS": f"{source}/imgs", "NEW": f"{source}/new"}
    before = [in_full(step, paths) if isinstance(step, str) else step for step in before]
    killed, *after = [in_full(step, paths) for step in (killed, *after)]
    (source / "imgs").mkdir(parents=True)
    for name in ("desert.png", "sea.gif"):  # small squares: one window each
        with Image.open(SCENES / name) as image:
            image.convert("RGB").resize((96, 96)).save(source / "imgs" / name)
    for step in before:
        if isinstance(step, str):
            assert command(*step.split(), cwd=source).code == 0
        else:
            step(source)
    copy_with_caches(source, tmp_path / "undisturbed")
    for words in dict.fromkeys([killed, *after]):
        assert command(*words.split(), cwd=tmp_path / "undisturbed").code == 0
    expected = all_contents(tmp_path / "undisturbed")

    (tmp_path / "killed").mkdir()
    commands = [words.split() for words in (killed, *(after or [killed]))]
    ran = subprocess.run(
        [sys.executable, KILLING, "copies", source, json.dumps(commands)],
        cwd=tmp_path / "killed",
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 3
    for folder in (tmp_path / "killed").iterdir():
        assert all_contents(folder) == expected, folder.name
        assert not [path for path in folder.rglob(".tipsseg-*") if path.name != ".tipsseg-lock"], folder.name
    last = tmp_path / "killed" / ran.stdout.strip()
    assert command("check", last / ("feats" if case == "features" else "out")).code == 0


@pytest.mark.slow
def test_a_kill_of_a_plain_process(command: Command, tmp_path: Path) -> None:
    options = [*_PLAIN.split(), "-f", ",".join(IMAGE_FORMATS)]
    line = [sys.executable, "-m", "tipsseg", "label", str(SCENES), *options, "-o", "killed"]
    for number in range(3):
        with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            for _ in range(4 * number + 3):
                assert run.stdout.readline()
            time.sleep(0.05 * number)
            run.kill()
        assert run.returncode == -9
        assert (tmp_path / "killed/.tipsseg-lock").exists()  # of nobody any more
    subprocess.run(line, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert command("label", SCENES, *options, "-o", tmp_path / "undisturbed").code == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
