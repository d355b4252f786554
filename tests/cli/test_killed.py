"""Runs that are killed without warning, and go on by the same command: in the end all is as if they had not been."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed_runs import contents, killing
from PIL import Image
from resuming import correct
from running import Command

from tipsseg.formats import IMAGE_FORMATS

REPOSITORY = Path(__file__).resolve().parents[2]
SCENES = REPOSITORY / "examples" / "scenes"
_PLAIN = ["-c", "panda,tree,sky", "-m", "tiny", "--device", "cpu", "--quiet"]
OPTIONS = [*_PLAIN, "-f", ",".join(IMAGE_FORMATS)]
#: One format of each kind: records alone, with a picture, and a file and a link an image beside one for all.
FEW = [*_PLAIN, "-f", "coco,panoptic,yolo"]


def two_images(folder: Path) -> None:
    """Small squares: one window each."""
    folder.mkdir(parents=True)
    for name in ("desert.png", "sea.gif"):
        with Image.open(SCENES / name) as image:
            image.convert("RGB").resize((96, 96)).save(folder / name)


@pytest.mark.slow
def test_kills_at_random_moments(command: Command, tmp_path: Path) -> None:
    """Moments differ from one time to the next, whatever the seed."""
    assert command("label", SCENES, *OPTIONS, "-o", tmp_path / "undisturbed").code == 0
    assert killing(tmp_path, "random", 1, 20, SCENES, *OPTIONS, "-o", "killed") == 20
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert command("check", tmp_path / "killed").code == 0


@pytest.mark.slow
def test_a_kill_before_each_change_of_a_file(command: Command, tmp_path: Path) -> None:
    two_images(tmp_path / "imgs")
    assert command("label", tmp_path / "imgs", *FEW, "-o", tmp_path / "undisturbed").code == 0
    expected = contents(tmp_path / "undisturbed")
    kills = killing(tmp_path, "each", "killed", "imgs", *FEW)
    # Each picture alone is three: its temporary file, its name, the line in the manifest or the journal.
    assert kills > 20
    assert sorted(int(folder.name) for folder in (tmp_path / "killed").iterdir()) == list(range(1, kills + 2))
    for folder in (tmp_path / "killed").iterdir():
        assert contents(folder) == expected, folder.name


@pytest.mark.slow
def test_a_kill_of_a_plain_process(command: Command, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tipsseg", "label", str(SCENES), *OPTIONS, "-o", "killed"]
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
    assert command("label", SCENES, *OPTIONS, "-o", tmp_path / "undisturbed").code == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "places", "target"),
    [("SIGKILL", ["one", "one"], "one"), ("SIGTERM", ["one", "one"], "one"), ("SIGTERM", ["one", "two"], "new")],
)
def test_a_merge_that_is_stopped_before_each_change_of_a_file(
    command: Command, tmp_path: Path, stop: str, places: list[str], target: str
) -> None:
    source = tmp_path / "source"
    two_images(source / "imgs")
    for index, place in enumerate(places, start=1):
        assert command("label", "imgs", *FEW, "-o", place, "--shard", f"{index}/2", cwd=source).code == 0
    arguments = ["merge", *sorted(set(places)), "-o", target]
    shutil.copytree(source, tmp_path / "undisturbed", symlinks=True)
    assert command(*arguments, cwd=tmp_path / "undisturbed").code == 0
    expected = contents(tmp_path / "undisturbed" / target)

    (tmp_path / "stopped").mkdir()
    kills = killing(tmp_path / "stopped", "copies", stop, source, *arguments)
    assert kills > 20
    for folder in (tmp_path / "stopped").iterdir():
        assert contents(folder / target) == expected, folder.name
    assert command("check", tmp_path / "stopped" / str(kills) / target).code == 0


#: What is done before, and then what is killed.
OVER_FEATURES: dict[str, tuple[list[str], list[str]]] = {
    "features are made": ([], ["encode", "imgs", "-m", "tiny", "--device", "cpu", "-q", "-o", "feats"]),
    "labels are made, and features": ([], ["label", "imgs", *_PLAIN, "-f", "png", "--features", "feats", "-o", "out"]),
    "labels are made again over features": (
        ["label", "imgs", *_PLAIN, "-f", "png,coco", "--features", "feats", "-o", "out"],
        ["label", "imgs", *_PLAIN, "-f", "png,coco", "--features", "feats", "-o", "out", "--min-confidence", "0.6"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", OVER_FEATURES)
def test_a_kill_before_each_change_of_a_file_by_a_run_without_a_tower(
    command: Command, tmp_path: Path, case: str
) -> None:
    before, arguments = OVER_FEATURES[case]
    source = tmp_path / "source"
    two_images(source / "imgs")
    if case != "features are made":
        (source / "imgs" / "desert.png").unlink()  # one image is enough: labels of two are above
    if before:
        assert command(*before, cwd=source).code == 0
    shutil.copytree(source, tmp_path / "undisturbed")
    assert command(*arguments, cwd=tmp_path / "undisturbed").code == 0

    (tmp_path / "killed").mkdir()
    kills = killing(tmp_path / "killed", "copies", "SIGKILL", source, *arguments)
    assert kills >= 8
    expected = features_and_labels(tmp_path / "undisturbed")
    for folder in (tmp_path / "killed").iterdir():
        assert features_and_labels(folder) == expected, folder.name
    for place in ("feats", "out"):
        if (tmp_path / "undisturbed" / place).exists():
            assert command("check", tmp_path / "killed" / str(kills) / place).code == 0


def features_and_labels(top: Path) -> dict[str, bytes]:
    """All files of a feature store and of an output folder, but for times and the path of the folder that they are in.

    Files of features that are left under temporary names are left out: they are removed once they are old.
    """
    found = (path for path in top.glob("feats/**/*") if path.is_file() and not path.name.startswith(".tipsseg-"))
    files = {str(path): path.read_bytes() for path in found}
    if (top / "out").exists():
        files |= contents(top / "out")
    return {name.removeprefix(str(top)): data.replace(bytes(top), b"") for name, data in files.items()}


#: What is killed, in a folder with a corrected mask.
BESIDE_CORRECTIONS = {
    "the folder is started over": ["label", "imgs", *_PLAIN, "-f", "png,coco", "-o", "out", "--overwrite"],
    "all formats follow": ["convert", "out", "-f", "labelme", "-q"],
    "a mask is given up": ["label", "imgs", *_PLAIN, "-f", "png,coco", "-o", "out", "--replace-edited"],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BESIDE_CORRECTIONS)
def test_a_kill_before_each_change_of_a_file_beside_a_correction(command: Command, tmp_path: Path, case: str) -> None:
    source, arguments = tmp_path / "source", BESIDE_CORRECTIONS[case]
    two_images(source / "imgs")
    assert command("label", "imgs", *_PLAIN, "-f", "png,coco", "-o", "out", cwd=source).code == 0
    correct(source / "out/masks/desert.png")
    shutil.copytree(source, tmp_path / "undisturbed")
    command(*arguments, cwd=tmp_path / "undisturbed")
    expected = features_and_labels(tmp_path / "undisturbed")

    (tmp_path / "killed").mkdir()
    kills = killing(tmp_path / "killed", "copies", "SIGKILL", source, *arguments)
    assert kills >= 8
    for folder in (tmp_path / "killed").iterdir():
        assert features_and_labels(folder) == expected, folder.name
