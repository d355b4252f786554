"""What disks, file systems and other programs do to a run: a clear error, nothing half-written, the rest done where it can be."""

from __future__ import annotations

import json
import os
import re
import resource
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
@pytest.mark.parametrize(("formats", "size"), [("png,coco", "120k"), (",".join(IMAGE_FORMATS), "1400k")])
def test_a_disk_that_gets_full(
    command: Command, mlp_checkpoint: Path, images: Path, tmp_path: Path, formats: str, size: str
) -> None:
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
    ran = on_small_disk(size, script, tmp_path)
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
    done = told(tmp_path / "broken")
    assert 0 < len(done) < 30
    assert f"{30 - len(done)} images labelled, {len(done)} unchanged" in read("second.err")
    assert command(*words, "-o", "plain", "-q", cwd=tmp_path).code == 0
    assert labels_of(tmp_path / "whole") == labels_of(tmp_path / "plain")


def labels_of(folder: Path) -> dict[str, bytes]:
    """All files that have no times in them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name not in ("run.json", "manifest.jsonl", "state.db")
    }


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2_500, 100_000], ids=["below a database", "below a mask's records"])
def test_a_limit_on_the_size_of_files(
    limit: int, command: Command, mlp_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    """As by `ulimit -f`; Python gets an error for the write that goes over it, after a part was written."""
    label = ["label", "imgs", "-c", "a,b,c", "-m", str(mlp_checkpoint), "--device", "cpu", "-o"]
    ran = subprocess.run(
        [*TIPSSEG, *label, "out"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
    )
    assert ran.returncode == 1
    assert "the file exceeds the size limit of the system" in ran.stderr
    assert "ulimit -f" in ran.stderr
    assert temporary(tmp_path / "out") == []
    for record in ("manifest.jsonl", ".tipsseg-coco"):
        if (tmp_path / "out" / record).exists():
            assert (tmp_path / "out" / record).read_bytes()[-1:] in (b"\n", b"")
    done = len(told(tmp_path / "out")) if (tmp_path / "out" / "manifest.jsonl").exists() else 0
    again = command(*label, "out")
    assert again.code == 0
    assert re.search(f"^{6 - done} images? labelled", again.err, re.MULTILINE)
    assert command(*label, "plain").code == 0
    assert labels_of(tmp_path / "out") == labels_of(tmp_path / "plain")


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces")
def test_a_disk_that_may_only_be_read(mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    label = shlex.join([*TIPSSEG, "label", "imgs", "-c", "a", "-m", str(mlp_checkpoint), "-o", "disk/out"])
    ran = on_small_disk("1m", f"mount -o remount,ro disk && {label}", tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-2:] == [
        "Error: cannot write disk/out/.tipsseg-lock: the file system is read-only",
        "Hint: Choose another output folder.",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces")
@pytest.mark.slow
def test_a_disk_that_gets_full_of_features(mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    for index, path in enumerate(sorted(images.rglob("*.png"))):
        save(path, 60 + index)  # equal images would share a file
    encode = shlex.join([*TIPSSEG, "encode", "imgs", "-m", str(mlp_checkpoint), "--device", "cpu", "-o", "disk/feats"])
    label = shlex.join([*TIPSSEG, "label", "imgs", "-c", "a,b", "-m", str(mlp_checkpoint), "--device", "cpu"])
    script = f"""
        {encode} --feature-dtype float32 2> encode.err; echo $? > codes
        cp -a disk/feats full
        {label} --features disk/feats -o out 2> label.err; echo $? >> codes
        mount -o remount,size=64m disk
        {encode} 2> again.err; echo $? >> codes
        {label} --features disk/feats -o out 2> more.err; echo $? >> codes
        {shlex.join([*TIPSSEG, "check"])} disk/feats 2> check.err; echo $? >> codes
    """
    ran = on_small_disk("24k", script, tmp_path)
    told_of = {name: (tmp_path / f"{name}.err").read_text() for name in ("encode", "label", "again", "more", "check")}
    assert (tmp_path / "codes").read_text().split() == ["1", "1", "0", "0", "0"], (ran.stderr, told_of)
    for name in ("encode", "label"):
        assert "Error: cannot write disk/feats/feats/" in told_of[name]
        assert "no space left on the device" in told_of[name]
        assert "Hint: Free some space and run the same command again.\n" in told_of[name]
        assert "Traceback" not in told_of[name]
    made = [path.name for path in (tmp_path / "full").rglob("*") if path.is_file() and path.name != "features.json"]
    assert 0 < len(made) < 6
    assert all(name.endswith(".safetensors") for name in made)
    assert "6 images encoded" not in told_of["again"]
    assert "6 files checked: nothing wrong." in told_of["check"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces")
@pytest.mark.slow
def test_features_on_a_disk_that_may_only_be_read(mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """Features that are there can be used; none can be added."""
    model = ["-m", str(mlp_checkpoint), "--device", "cpu"]
    encode = shlex.join([*TIPSSEG, "encode", "imgs", *model, "-o", "disk/feats"])
    label = shlex.join([*TIPSSEG, "label", "imgs", "-c", "a,b", *model, "--features", "disk/feats", "-o", "out"])
    script = f"""
        {encode} 2> first.err; echo $? > codes
        mount -o remount,ro disk
        {label} 2> label.err; echo $? >> codes
        {encode} 2> again.err; echo $? >> codes
        rm -r out; python -c 'import PIL.Image as i; i.new("RGB", (60, 60), "red").save("imgs/new.png")'
        {label} 2> new.err; echo $? >> codes
    """
    on_small_disk("4m", script, tmp_path)
    assert (tmp_path / "codes").read_text().split() == ["0", "0", "1", "1"]
    assert "6 images labelled" in (tmp_path / "label.err").read_text()
    for name, what in (("again", "disk/feats/.tipsseg-lock"), ("new", "disk/feats/feats/")):
        lines = (tmp_path / f"{name}.err").read_text().splitlines()[-2:]
        assert lines[0].startswith(f"Error: cannot write {what}")
        assert lines[0].endswith("the file system is read-only")
        assert lines[1].startswith("Hint: ")


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
    repair: Callable[[], object] | None = None


def make(path: str, side: int = 60) -> None:
    save(Path("imgs") / path, side)


def links_to_parents() -> None:
    Path("imgs/sub/up").symlink_to("..")
    Path("imgs/all").symlink_to(".")


LONG = "n" * 251  # with .png as long as a name may be
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
    "a name as long as it may be": Fault(
        lambda: shutil.copy("imgs/a.png", f"imgs/{LONG}.png"), {}, f"a b e f {LONG} sub/c sub/d"
    ),
    "a path that gets too long": Fault(
        lambda: make(DEEP), {DEEP: f"cannot write out/masks/{DEEP}: the name is too long"}
    ),
}


def name(image: str) -> str:
    return image.removesuffix(".png")


@pytest.mark.parametrize("case", FAULTS)
def test_names_that_others_have_taken(command: Command, mlp_checkpoint: Path, images: Path, case: str) -> None:
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
    if fault.repair is not None:
        fault.repair()
        ran = command(*label)
        assert ran.code == 0
        assert f"{len(fault.failed)} image" in ran.err
        assert not Path("out/errors.jsonl").exists()
        assert command("check", "out").code == 0


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
            assert command("label", "imgs", "-c", "a", "-m", "./model", "--limit", "1", "-o", "warm").code == 0
            for path in (Path("imgs/b.png"), Path("imgs/sub")):
                path.chmod(0)
            yield
            Path("imgs/sub").chmod(0o755)

    @pytest.mark.parametrize("given", [[], ["imgs"]], ids=["all", "of the paths"])
    def test_inputs_that_may_not_be_read(self, command: Command, given: list[str]) -> None:
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
        ran = command("label", *given, *label[2:], "--retry-failed")
        masks = [line for line in ran.out.splitlines() if line.startswith("out/masks/")]
        assert (ran.code, masks) == (
            0,
            [f"out/masks/{each}.png" for each in ("b", "sub/c", "sub/d")],
        )
        assert not Path("out/errors.jsonl").exists()
        err = command(*label).err
        assert re.search(r"^0 images labelled, 6 unchanged in \d+\.\d s, into out$", err, re.MULTILINE), err

    def test_a_folder_that_may_not_be_listed_is_told_by_each_shard(self, command: Command) -> None:
        label = ["label", "imgs", "-c", "a,b", "-m", "./model", "-o", "out", "--device", "cpu"]
        for shard in ("1", "2"):
            with nobody():
                assert command(*label, "--shard", f"{shard}/2").code == 1
            assert "sub" in failures(Path(f"out/shards/{shard}-of-2"))

    def test_a_folder_that_may_not_be_written(self, command: Command) -> None:
        Path("out").mkdir(mode=0o755)
        with nobody():
            ran = command("label", "imgs", "-c", "a,b", "-m", "./model", "-o", "out", "--device", "cpu")
        assert ran.code == 1
        assert "Error: cannot write out/.tipsseg-lock: no permission\nHint: Choose another output folder.\n" in ran.err
        assert list(Path("out").iterdir()) == []


# ---- others at work ----


def test_two_runs_in_one_folder(mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """The second is refused while the first lives; it loses nothing."""
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


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--jsonl"]], ids=["paths", "jsonl"])
def test_nobody_reads_any_more(
    command: Command, mlp_checkpoint: Path, images: Path, tmp_path: Path, flags: list[str]
) -> None:
    """A closed pipe ends the run quietly, and the same command goes on."""
    label = ["label", "-", "-c", "a,b", "-m", str(mlp_checkpoint), "-f", "png", "-o", "out", *flags]
    listed = "".join(f"imgs/{name}.png\n" for name in ("a", "b", "e", "f"))
    first, rest = listed[:11], listed[11:]
    with subprocess.Popen(
        [*TIPSSEG, *label, "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdin.write(first)
        run.stdin.flush()
        assert "out/masks/imgs/a.png" in run.stdout.readline()
        run.stdout.close()
        run.stdin.write(rest)
        run.stdin.close()
        assert run.stderr.read() == ""
    assert run.returncode == 1
    assert temporary(tmp_path / "out") == []
    assert told(tmp_path / "out") == ["imgs/a.png", "imgs/b.png"]
    again = command(*label, stdin=listed.encode())
    assert again.code == 0
    assert "2 images labelled, 2 unchanged" in again.err
    assert len([line for line in again.out.splitlines() if "masks/" in line]) == 4


def test_a_pipeline_that_ends_early(mlp_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    label = shlex.join([*TIPSSEG, "label", "imgs", "-c", "a,b", "-m", str(mlp_checkpoint), "-o", "out", "-q"])
    ran = subprocess.run(["bash", "-c", f"{label} | head -n 1"], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("out/masks/a.png\n", "")
    assert temporary(tmp_path / "out") == []
