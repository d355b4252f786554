"""What disks, file systems and other programs do to a run: a clear error, nothing half-written, the rest done where it can be."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from masks import pixels
from PIL import Image
from running import Command

import tipsseg
from tipsseg.formats import IMAGE_FORMATS
from tipsseg.weights.lock import read_lock

TIPSSEG = [sys.executable, "-m", "tipsseg"]
TINY = Path(tipsseg.__file__).parent / "assets" / "tiny"
#: A user who is nobody here.
NOBODY = 65534


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pictures; the current folder is theirs."""
    for name in ("a", "b", "sub/c", "sub/d", "e", "f"):
        save(tmp_path / "imgs" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "imgs"


def save(path: Path, side: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name) + side)
    Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)


def told(folder: Path) -> list[str]:
    """The images in a manifest, in its order."""
    return [json.loads(line)["image"] for line in (folder / "manifest.jsonl").read_text().splitlines()]


def failures(folder: Path) -> dict[str, str]:
    return {
        record["image"]: record["reason"]
        for record in map(json.loads, (folder / "errors.jsonl").read_text().splitlines())
    }


def temporary(folder: Path) -> list[str]:
    """Files on their way have the ending of what they become; what the program keeps for itself has none."""
    return [path.name for path in folder.rglob(".tipsseg-*") if path.suffix]


# ---- disks ----


def on_small_disk(size: str, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script in `folder`, where ./disk is a file system of that size which only the script sees."""
    (folder / "disk").mkdir()
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size={size} none disk && "
    return subprocess.run([*own, "sh", "-c", mount + script], cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces")
@pytest.mark.slow
def test_a_disk_that_gets_full(command: Command, mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    formats = ",".join(IMAGE_FORMATS)
    for number in range(24):
        save(images / f"more{number:02}.png", 100)
    words = ["label", "imgs", "-c", "a,b,c", "-m", str(mlp_checkpoint), "--background", "none", "-f", formats]
    words += ["--device", "cpu"]
    label = shlex.join([*TIPSSEG, *words])
    # What is left on the disk is looked at before there is room, and after.
    script = f"""
        {label} -o disk/out > first.txt 2> first.err; echo $? > first.code
        cp -a disk/out broken
        mount -o remount,size=64m disk
        {label} -o disk/out > second.txt 2> second.err; echo $? > second.code
        cp -a disk/out whole
    """
    ran = on_small_disk("1400k", script, tmp_path)
    assert ran.returncode == 0, ran.stderr

    def read(name: str) -> str:
        return (tmp_path / name).read_text()

    assert (read("first.code"), read("second.code")) == ("1\n", "0\n"), read("first.err") + read("second.err")
    assert "no space left on the device" in read("first.err")
    assert "Hint: Free some space and run the same command again.\n" in read("first.err")
    assert "Traceback" not in read("first.err")
    assert temporary(tmp_path / "broken") == []
    for path in (tmp_path / "broken").rglob("*.png"):
        if not path.is_symlink():  # the copy is in another place
            Image.open(path).load()
    done = [*(tmp_path / "broken/masks").rglob("*.png")]
    assert 0 < len(done) < 30
    assert f"{30 - len(done)} images labelled, {len(done)} unchanged" in read("second.err")
    assert command(*words, "-o", "plain", "-q", cwd=tmp_path).code == 0
    assert labels_of(tmp_path / "whole") == labels_of(tmp_path / "plain")


def labels_of(folder: Path) -> dict[str, bytes]:
    """All files that have no times in them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name not in ("run.json", "manifest.jsonl", "cache.db")
    }


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of files")
def test_a_mask_that_cannot_be_written_whole_stays_as_a_person_painted_it(images: Path, tmp_path: Path) -> None:
    save(images / "large.png", 300)
    words = [*TIPSSEG, "label", "imgs", "-c", "a,b,c", "-m", "tiny", "--device", "cpu", "-f", "png,yolo"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    mask, limit = tmp_path / "labels/masks/large.png", f"ulimit -f 16; {shlex.join(words)}"
    Image.fromarray(np.random.default_rng(0).integers(0, 4, (300, 300)).astype(np.uint8)).save(mask)
    mine = mask.read_bytes()
    ran = subprocess.run(["bash", "-c", limit], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, "Traceback" in ran.stderr, mask.read_bytes()) == (1, False, mine), ran.stderr
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert pixels(mask) == pixels(mine)


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces")
def test_a_disk_that_may_only_be_read(mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    label = shlex.join([*TIPSSEG, "label", "imgs", "-c", "a", "-m", str(mlp_checkpoint), "-o", "disk/out"])
    ran = on_small_disk("1m", f"mount -o remount,ro disk && {label}", tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-2:] == [
        "Error: cannot write disk/out/.tipsseg-lock: the file system is read-only",
        "Hint: Choose another output folder.",
    ]


# ---- names and permissions ----


@contextmanager
def nobody() -> Iterator[None]:
    """A user to whom permissions mean something; root may do everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


@dataclass(frozen=True)
class Fault:
    """What is done to the folder, and what the run says of which images; `rest` are those that it labels."""

    damage: Callable[[], object]
    failed: dict[str, str]
    rest: str = "a b e f sub/c sub/d"


def make(path: str, side: int = 60) -> None:
    save(Path("imgs") / path, side)


def links_to_parents() -> None:
    Path("imgs/sub/up").symlink_to("..")
    Path("imgs/all").symlink_to(".")


DEEP = (
    "/".join(["d" * 200] * 20) + "/" + "x" * 63 + ".png"
)  # below imgs/ as long as a path may be, below out/masks/ too long

FAULTS: dict[str, Fault] = {
    "a link that leads nowhere": Fault(
        lambda: Path("imgs/gone.png").symlink_to("nowhere.png"), {"gone.png": "no such file"}
    ),
    "folders that are links to their parents": Fault(links_to_parents, {}),
    "a pipe": Fault(lambda: os.mkfifo("imgs/pipe.png"), {}),
    "a name that is no UTF-8": Fault(
        lambda: shutil.copy(b"imgs/a.png", b"imgs/caf\xe9.png"), {}, "a b caf\\udce9 e f sub/c sub/d"
    ),
    "a path that gets too long": Fault(
        lambda: make(DEEP), {DEEP: f"cannot write out/masks/{DEEP}: the name is too long"}
    ),
}


def name(image: str) -> str:
    return image.removesuffix(".png")


@pytest.mark.parametrize("case", FAULTS)
def test_odd_files_among_the_images(command: Command, mlp_checkpoint: Path, images: Path, case: str) -> None:
    fault = FAULTS[case]
    fault.damage()
    label = ["label", "imgs", "-c", "a,b", "-m", mlp_checkpoint, "-o", "out", "--device", "cpu"]
    ran = command(*label)
    assert ran.code == (1 if fault.failed else 0), ran.err
    assert sorted(map(name, told(Path("out")))) == sorted(fault.rest.split())
    assert ran.err.count("Error: ") == len(fault.failed)
    if fault.failed:
        assert failures(Path("out")) == fault.failed
    images_of = json.loads(Path("out/annotations.json").read_bytes())["images"]
    assert [each["file_name"] for each in images_of] == told(Path("out"))
    assert temporary(Path("out")) == []


def test_a_list_with_all_sorts_of_names(command: Command, mlp_checkpoint: Path, images: Path) -> None:
    listed = [
        b"imgs/a.png",
        b"x" * 10_000,
        b"imgs/" + b"y" * 10_000,
        b"imgs/gone.png",
        b"imgs/caf\xe9.png",
        b"imgs/b.png",
    ]
    shutil.copy(b"imgs/a.png", b"imgs/caf\xe9.png")
    ran = command("label", "-0", "-", "-c", "a,b", "-m", mlp_checkpoint, "-o", "out", stdin=b"\0".join(listed))
    assert ran.code == 1
    assert told(Path("out")) == ["imgs/a.png", "imgs/b.png", "imgs/caf\\udce9.png"]
    assert sorted(failures(Path("out")).values()) == ["File name too long", "File name too long", "no such file"]
    assert command("check", "out").code == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
class TestPermissions:
    @pytest.fixture(autouse=True)
    def closed(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """The current folder is anybody's; not all in it may be read."""
        with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
            Path(folder).chmod(0o777)
            monkeypatch.chdir(folder)
            for name in ("a", "b", "sub/c", "sub/d", "e", "f"):
                make(f"{name}.png")
            # The package may lie where only root reads: all that is needed of it is taken now.
            models = read_lock()
            monkeypatch.setattr("tipsseg.weights.lock.read_lock", lambda: models)
            shutil.copytree(TINY, "model")
            assert command("label", "imgs", "-c", "a", "-m", "./model", "--sample", "1", "-o", "warm").code == 0
            for path in (Path("imgs/b.png"), Path("imgs/sub")):
                path.chmod(0)
            yield
            Path("imgs/sub").chmod(0o755)

    def test_inputs_that_may_not_be_read(self, command: Command) -> None:
        label = ["label", "imgs", "-c", "a,b", "-m", "./model", "-o", "out", "--device", "cpu"]
        with nobody():
            ran = command(*label)
        assert ran.code == 1, ran.err
        assert told(Path("out")) == ["a.png", "e.png", "f.png"], ran.err
        assert failures(Path("out")) == {
            "b.png": "no read permission",
            "sub": "cannot list this folder: no read permission",
        }
        # Later they may be read; only those are taken, by the names that they have in a run over all.
        for path in (Path("imgs/b.png"), Path("imgs/sub")):
            path.chmod(0o755)
        ran = command(*label)
        assert ran.code == 0, ran.err
        assert told(Path("out")) == ["a.png", "b.png", "e.png", "f.png", "sub/c.png", "sub/d.png"]
        assert not Path("out/errors.jsonl").exists()
        err = command(*label).err
        assert re.search(r"^0 images labelled, 6 unchanged in \d+\.\d s, into out$", err, re.MULTILINE), err

    def test_a_folder_that_may_not_be_written(self, command: Command) -> None:
        Path("out").mkdir(mode=0o755)
        with nobody():
            ran = command("label", "imgs", "-c", "a,b", "-m", "./model", "-o", "out", "--device", "cpu")
        assert ran.code == 1
        assert "Error: cannot write out/.tipsseg-lock: no permission\nHint: Choose another output folder.\n" in ran.err
        assert list(Path("out").iterdir()) == []


# ---- others at work ----


def test_two_runs_in_one_folder(mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """The second run is refused, and the first loses nothing."""
    label = [*TIPSSEG, "label", "-", "-c", "a,b", "-m", str(mlp_checkpoint), "-o", "out", "--device", "cpu"]
    with subprocess.Popen(label, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write("imgs/a.png\n")
        first.stdin.flush()
        assert first.stdout.readline() == "out/masks/imgs/a.png\n"
        assert first.stdout.readline() == "out/overlays/imgs/a.jpg\n"
        second = subprocess.run(label, input="imgs/b.png\n", capture_output=True, text=True)
        assert (second.returncode, second.stdout) == (1, "")
        assert (
            "Error: cannot write out: another tipsseg process is using it\nHint: Wait for it to finish" in second.stderr
        )
        first.stdin.write("imgs/e.png\n")
        first.stdin.close()
        assert first.stdout.read().splitlines()[0] == "out/masks/imgs/e.png"
    assert first.returncode == 0
    assert told(tmp_path / "out") == ["imgs/a.png", "imgs/e.png"]


def test_a_pipeline_that_ends_early(mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    label = shlex.join([*TIPSSEG, "label", "imgs", "-c", "a,b", "-m", str(mlp_checkpoint), "-o", "out", "-q"])
    ran = subprocess.run(["bash", "-c", f"{label} | head -n 1"], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("out/masks/a.png\n", "")
    assert temporary(tmp_path / "out") == []


def test_a_temporary_file_that_could_not_be_removed_goes_with_the_next_command(command: Command, images: Path) -> None:
    words = ["label", "imgs", "-c", "a,b", "-m", "tiny", "-f", "png,cutouts", "-o", "out", "--device", "cpu", "-q"]
    script = """
import errno, os, sys
from pathlib import Path
from tipsseg.cli.main import main
from tipsseg.folder import files
rename, unlink = files._rename, Path.unlink
def broken(done):
    def call(path, *more, **named):
        if "cutouts" in path.parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return done(path, *more, **named)
    return call
files._rename, Path.unlink = broken(rename), broken(unlink)
main()
"""
    assert subprocess.run([sys.executable, "-c", script, *words], stderr=subprocess.DEVNULL).returncode == 1
    left = temporary(Path("out"))
    assert left
    assert command(*words).code == 0
    assert temporary(Path("out")) == []
    Path("out/cutouts", left[0]).touch()
    assert command("check", "out").code == 0
