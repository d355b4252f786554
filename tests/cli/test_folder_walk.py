"""A random walk over an output folder: commands, kills, and what people do to files in between.

What must hold after each step: no edit of a person is lost unasked, no format of an image is stale and presented as current, a
killed command that is run again ends as if it had not been killed, and `check` agrees.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from numpy.typing import NDArray
from PIL import Image
from reading import EXACT, POLYGONS, READERS
from running import Ran

# As pycocotools decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KILLING = Path(__file__).resolve().parents[1] / "support" / "killing.py"

NAMES = ("a.png", "sub/b.png", "sub/c.png")
CLASSES = ["panda leg", "tree", "sky"]

#: What of run.json is of the run that came last, which may have had nothing to label, or labelled where the first one converted.
OF_THE_LAST = ("started", "ended", "counts", "batch_size", "formats")

FORMATS = ("png", "png,coco", "png,hf", "png,labelme", "png,coco,yolo", "png,hf,npz")
OVERWRITE, REPLACE = "--overwrite", "--replace-edited"

#: None: undisturbed. Otherwise the command is killed after that many per cent of its changes of files.
kills = st.one_of(st.none(), st.integers(0, 99))


class Server:
    """Runs commands in processes that are forked from one which has imported all."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self._process = subprocess.Popen(
            [sys.executable, str(KILLING), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, folder: Path, arguments: list[str], kill_before: int | None = None) -> tuple[Ran | None, int]:
        """What a command did, None where it was killed, and how many changes of files it has begun."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"arguments": arguments, "cwd": str(folder), "kill_before": kill_before}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer["code"] is None:
            return None, answer["changes"]
        assert answer["code"] in (0, 1), (arguments, answer["err"])
        assert "Traceback" not in answer["err"], answer["err"]
        return Ran(answer["code"], answer["out"], answer["err"]), answer["changes"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def server(mlp_checkpoint: Path) -> Iterator[Server]:
    found = Server(mlp_checkpoint)
    yield found
    found.close()


def picture(name: str, version: int) -> NDArray[np.uint8]:
    """The pixels of an image in one of its versions."""
    rng = np.random.default_rng([*name.encode(), version])
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    return np.asarray(coarse.resize((70, 56), Image.Resampling.NEAREST))


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def read_mask(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as mask:
        return np.array(mask)


def contents(folder: Path) -> dict[str, object]:
    """All files and links, but for times, and for the database, of which records are exported."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.parent.name == ".tipsseg":
            continue
        if path.is_symlink():
            found[str(path.relative_to(folder))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    for name, data in found.items():
        if name.rpartition("/")[2] in ("manifest.jsonl", "run.json", "errors.jsonl"):
            found[name] = [_without_times(json.loads(line)) for line in _values(data)]  # type: ignore[arg-type]
    return found


def _values(data: bytes) -> list[bytes]:
    return [data] if data.startswith(b"{\n") else data.splitlines()


def _without_times(record: dict[str, object]) -> dict[str, object]:
    for files in (record.get("files"), record.get("written")):
        for each in files.values() if isinstance(files, dict) else ():
            if isinstance(each, dict):
                each.pop("mtime_ns", None)
    dropped = OF_THE_LAST if "tool" in record else ("seconds", "mtime_ns")
    kept = {key: value for key, value in record.items() if key not in dropped}
    if "formats" in kept:  # of an image; which came first does not matter
        kept["formats"] = sorted(kept["formats"])  # type: ignore[call-overload]
    return kept


def differences(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, object]:
    """What two folders have not in common."""
    names = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    return {
        name: (_short(ours.get(name), theirs.get(name)), _short(theirs.get(name), ours.get(name))) for name in names
    }


def _short(one: object, other: object) -> object:
    if isinstance(one, list) and isinstance(other, list):
        return [each for each in one if each not in other]
    return one if isinstance(one, str | list) else None if one is None else "other bytes"


def entries(folder: Path) -> list[dict[str, object]]:
    """The images of the manifest."""
    path = folder / "manifest.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


class FolderWalk(RuleBasedStateMachine):
    """The model: which files a person changed, and what they are since."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory(prefix="walk-")
        self.top = Path(self._temporary.name)
        self.out = self.top / "out"
        self.edits: dict[str, bytes] = {}
        self.plain = ["label", "imgs", "-m", str(self.server.model), "--device", "cpu", "-c", ",".join(CLASSES)]
        self.plain += ["--min-area", "0", "-q"]
        self.last: list[str] = []
        self.turn = 0

    def teardown(self) -> None:
        self._temporary.cleanup()

    # ---- what people do ----

    @initialize()
    def photograph(self) -> None:
        for name in NAMES:
            save(self.top / "imgs" / name, picture(name, 0))

    def _edit(self, place: str) -> None:
        """Give another class to half of a mask."""
        path = self.out / place
        ids = read_mask(path)
        self.turn += 1
        half = ids[:, : ids.shape[1] // 2]
        half[:] = (half + self.turn) % 4
        Image.fromarray(ids).save(path)
        self.edits[place] = path.read_bytes()

    @precondition(lambda self: (self.out / "masks").exists())
    @rule(name=st.sampled_from(NAMES))
    def edit_a_mask(self, name: str) -> None:
        if (self.out / "masks" / name).exists() and f"hf/masks/{name}" not in self.edits:
            self._edit(f"masks/{name}")

    @precondition(lambda self: (self.out / "hf").exists())
    @rule(name=st.sampled_from(NAMES))
    def edit_a_mask_of_another_format(self, name: str) -> None:
        if (self.out / "hf/masks" / name).exists() and f"masks/{name}" not in self.edits:
            self._edit(f"hf/masks/{name}")

    @precondition(lambda self: (self.out / "labelme").exists())
    @rule(name=st.sampled_from(NAMES))
    def edit_a_file_that_is_no_mask(self, name: str) -> None:
        place = f"labelme/{name.removesuffix('.png')}.json"
        if (self.out / place).exists():
            record = json.loads((self.out / place).read_bytes())
            (self.out / place).write_text(json.dumps({**record, "flags": {"seen": self.turn}}))
            self.edits[place] = (self.out / place).read_bytes()

    @rule(name=st.sampled_from(NAMES), version=st.integers(0, 1))
    def change_an_input(self, name: str, version: int) -> None:
        save(self.top / "imgs" / name, picture(name, version))

    @rule()
    def rename_an_input(self) -> None:
        one, other = self.top / "imgs/sub/c.png", self.top / "imgs/d.png"
        if one.exists():
            one.rename(other)
        elif other.exists():
            other.rename(one)

    @rule()
    def remove_an_input(self) -> None:
        (self.top / "imgs/a.png").unlink(missing_ok=True)

    # ---- commands ----

    def _run(self, arguments: list[str], kill: int | None) -> Ran:
        """Run a command; where it is to be killed, run it once undisturbed and once killed, and compare."""
        self.last = arguments
        if kill is None:
            return self._whole(arguments)
        before = self.top / "before"
        shutil.rmtree(before, ignore_errors=True)
        if self.out.exists():
            shutil.copytree(self.out, before, symlinks=True)
        ran, changes = self.server.run(self.top, arguments)
        assert ran is not None
        expected = contents(self.out)
        if changes:
            shutil.rmtree(self.out, ignore_errors=True)
            if before.exists():
                shutil.copytree(before, self.out, symlinks=True)
            self.server.run(self.top, arguments, 1 + kill * changes // 100)
            ran = self._whole(arguments)
            assert differences(contents(self.out), expected) == {}, ran
        return ran

    def _whole(self, arguments: list[str]) -> Ran:
        ran, _ = self.server.run(self.top, arguments)
        assert ran is not None
        return ran

    def _label(self, formats: str, least: str, flags: list[str], kill: int | None, output: str = "out") -> Ran:
        return self._run(
            [*self.plain, "-f", formats, "--min-confidence", least, "-o", output, *flags],
            kill,
        )

    def _judge(self, ran: Ran, *, replaced: bool = False) -> None:
        """Hold the folder against the model."""
        for place, data in list(self.edits.items()):
            path = self.out / place
            if replaced and (not path.exists() or path.read_bytes() != data):
                del self.edits[place]
            else:
                assert path.exists(), f"{place}: a person's file is gone"
                assert path.read_bytes() == data, f"{place}: a person's work is lost"
        for entry in entries(self.out) if (self.out / "run.json").exists() else ():
            stale = self._stale(entry)
            assert not stale, f"{entry['image']}: {stale} are not of its labels: {self.last} {ran}"

    def _stale(self, entry: Mapping[str, object]) -> list[str]:
        """The formats of an image that have other labels than its mask, though no record says so."""
        image, written, files = entry["image"], entry["written"], entry["files"]
        assert isinstance(image, str)
        assert isinstance(written, dict)
        assert isinstance(files, dict)
        formats = list(entry["formats"])  # type: ignore[call-overload]
        masks = {name: self.out / files[name] for name in ("png", "hf") if name in files}
        edited = [name for name, path in masks.items() if path.exists() and digest(path) != written[name]["sha256"]]
        if any(digest(masks[name]) != entry.get("corrected") for name in edited):
            return []  # `check` says that the other formats are behind
        path = masks.get(edited[0] if edited else "png")
        if path is None or not path.exists():
            return []
        ids = read_mask(path).astype(np.int64)
        found = []
        for name in set(formats) - {"npz"}:
            place = files.get(name)
            if place is not None and (place in self.edits or not (self.out / place).exists()):
                continue
            ours = READERS[name](self.out, image, CLASSES, ids.shape)
            # Polygons follow outlines within half a pixel.
            limit = 0.1 if name in POLYGONS else 0
            if (ours != np.where(ids == 255, ours if name in EXACT else 0, ids)).mean() > limit:
                found.append(name)
        return found

    @rule(
        formats=st.sampled_from(FORMATS),
        least=st.sampled_from(["0", "0.4"]),
        flags=st.sampled_from([[], [], [], ["--no-resume"], [OVERWRITE], [OVERWRITE], [REPLACE], [OVERWRITE, REPLACE]]),
        kill=kills,
    )
    def label(self, formats: str, least: str, flags: list[str], kill: int | None) -> None:
        ran = self._label(formats, least, flags, kill)
        self._judge(ran, replaced=REPLACE in flags)
        if ran.code == 0 and not self.edits:
            self._judge_check(ran)
            self._compare_with_a_run_from_nothing(formats, least)

    def _judge_check(self, ran: Ran) -> None:
        told = self._whole(["check", self.out.name, "-q"])
        if not self._gone():
            assert told.code == 0, (self.last, ran, told)

    def _gone(self) -> bool:
        """Whether an image of the folder is not there any more, or another."""
        return any(not (self.top / "imgs" / str(entry["image"])).exists() for entry in entries(self.out))

    def _compare_with_a_run_from_nothing(self, formats: str, least: str) -> None:
        """The files are those of a run into a new folder; where images are gone, those that only the other images have."""
        shutil.rmtree(self.top / "new", ignore_errors=True)
        last = self.last
        self._label(formats, least, [], None, "new")
        self.last = last
        ours, new = contents(self.out), contents(self.top / "new")
        there = entries(self.top / "new")
        same = [entry["image"] for entry in entries(self.out)] == [entry["image"] for entry in there]
        own = {str(file) for entry in there for file in entry["files"].values()}  # type: ignore[attr-defined]
        shutil.rmtree(self.top / "new")
        for name in new.keys() - {"run.json", "manifest.jsonl", "errors.jsonl"} if same else own:
            assert ours.get(name) == new[name], f"{name}: {last}"

    @precondition(lambda self: (self.out / "run.json").exists())
    @rule(formats=st.sampled_from(["coco", "hf", "labelme", "png", "coco,hf", "yolo"]), kill=kills)
    def convert(self, formats: str, kill: int | None) -> None:
        ran = self._run(["convert", "out", "-f", formats, "-q"], kill)
        self._judge(ran)
        if ran.code == 0:
            asked = set(formats.split(","))
            assert all(asked <= set(entry["formats"]) for entry in entries(self.out)), ran  # type: ignore[call-overload]

    @precondition(lambda self: (self.out / "masks").exists())
    @rule(name=st.sampled_from(NAMES), replaced=st.booleans(), kill=kills)
    def correct(self, name: str, replaced: bool, kill: int | None) -> None:
        mask = self.out / "masks" / name
        if not mask.exists():
            return
        shutil.rmtree(self.top / "given", ignore_errors=True)
        self.turn += 1
        ids = read_mask(mask)
        ids[: ids.shape[0] // 2] = self.turn % 4
        save(self.top / "given" / name, ids)
        ran = self._run(["correct", "out", "--from", "given", "-q", *([REPLACE] if replaced else [])], kill)
        if ran.code == 0:
            assert (read_mask(mask) == ids).all()
            for place in (f"masks/{name}", f"hf/masks/{name}"):
                self.edits.pop(place, None)
            self.edits[f"masks/{name}"] = mask.read_bytes()
        self._judge(ran)

    @precondition(lambda self: (self.out / "run.json").exists())
    @rule()
    def learn(self) -> None:
        before = contents(self.out)
        fitted = ["fit", "out", "--device", "cpu", "-q", "-o", "learnt.fit"]
        self._whole([*fitted, "--overwrite"] if (self.top / "learnt.fit").exists() else fitted)
        assert contents(self.out) == before

    @rule(formats=st.sampled_from(FORMATS[:3]), kill=kills)
    def label_in_shards_and_merge(self, formats: str, kill: int | None) -> None:
        kept, self.out = self.out, self.top / "parts"
        for shard in ("1/2", "2/2"):
            assert self._label(formats, "0", ["--shard", shard], kill, "parts").code == 0
        assert self._run(["merge", "parts", "-o", "parts", "-q"], kill).code == 0
        edits, self.edits = self.edits, {}
        self._judge_check(Ran(0, "", ""))
        self._compare_with_a_run_from_nothing(formats, "0")
        shutil.rmtree(self.out)
        self.out, self.edits = kept, edits


def walk(server: Server, examples: int, steps: int, chosen_seed: int) -> None:
    FolderWalk.server = server
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    print(f"TIPSSEG_WALK_SEED={chosen_seed}")
    run_state_machine_as_test(seed(chosen_seed)(FolderWalk), settings=chosen)


#: Walks that have shown a fault: the rules by name, with their arguments.
WALKS: dict[str, list[tuple[str, dict[str, object]]]] = {
    "a kill in a run that leaves a file of another format as it is": [
        ("label", {"formats": "png,coco,yolo", "least": "0", "flags": ["--overwrite"], "kill": None}),
        ("change_an_input", {"name": "a.png", "version": 1}),
        ("correct", {"name": "a.png", "replaced": True, "kill": None}),
        ("learn", {}),
        ("correct", {"name": "a.png", "replaced": True, "kill": 47}),
        ("change_an_input", {"name": "sub/b.png", "version": 1}),
        ("label", {"formats": "png", "least": "0.4", "flags": [], "kill": None}),
        ("change_an_input", {"name": "sub/b.png", "version": 0}),
        ("label", {"formats": "png,hf", "least": "0", "flags": ["--no-resume"], "kill": 60}),
    ],
}


@pytest.mark.parametrize("name", WALKS)
def test_a_walk_that_has_shown_a_fault(server: Server, name: str) -> None:
    FolderWalk.server = server
    walker = FolderWalk()
    try:
        walker.photograph()
        for each, arguments in WALKS[name]:
            getattr(walker, each)(**arguments)
    finally:
        walker.teardown()


def test_a_short_walk(server: Server) -> None:
    walk(server, 8, 10, 0)


@pytest.mark.slow
def test_a_long_walk(server: Server) -> None:
    """The same walk every time; TIPSSEG_WALK_SEED takes another."""
    walk(server, 45, 15, int(os.environ.get("TIPSSEG_WALK_SEED", "0")))
