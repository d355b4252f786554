"""A random walk over an output folder: commands, kills, and what people do to files in between.

After each step: no work of a person is lost unasked, every other file shows the labels of its image, a killed command that is run
again ends as if it had not been killed, another question changes nothing, and `check` agrees.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from masks import pixels
from numpy.typing import NDArray
from PIL import Image
from reading import EXACT, READERS
from running import Ran

from tipsseg.folder.files import TRASH
from tipsseg.folder.read import open_run

# As pycocotools decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KILLING = Path(__file__).resolve().parents[1] / "support" / "killing.py"

NAMES = ("a.png", "sub/b.png", "sub/c.png")
CLASSES = ["panda leg", "tree", "sky"]

#: Ways to ask, each with its options and the formats that it can have.
PLAIN = ("png", "png,coco", "hf", "png,labelme", "coco,yolo,overlay", "png,binary,csv", "png,hf,npz", "cutouts")
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": ((), PLAIN),
    "regions": (("--regions", "regions"), PLAIN),
    "onto": (("--onto", "old/masks"), PLAIN),
    "features": (("--features", "feats"), PLAIN[:4]),
    "archive": ((), PLAIN[:5]),
}

#: What of run.json is of the run that came last, which may have had nothing to label, or labelled where the first one converted.
OF_THE_LAST = ("started", "ended", "counts", "batch_size", "formats", "command", "device", "asked", "given")

OVERWRITE, REPLACE = "--overwrite", "--replace-edited"


#: The files that list images: each with its format, and how to read the images that it lists.
LISTS: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "annotations.json": ("coco", lambda text: [each["file_name"] for each in json.loads(text)["images"]]),
    "hf/metadata.jsonl": (
        "hf", lambda text: [json.loads(line)["file_name"].removeprefix("images/") for line in text.splitlines()],
    ),
    "labels.csv": ("csv", lambda text: [line.partition(",")[0] for line in text.splitlines()[1:]]),
}  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """A command is killed while it writes the database beyond this size in bytes."""

    size: int


#: None: undisturbed. A number: the command is killed after that many per cent of its changes of files.
kills = st.one_of(
    st.none(), st.integers(0, 99), st.builds(Limit, st.integers(10, 120).map(lambda number: 521 * number))
)
Kill = int | Limit | None


class Server:
    """Runs commands in processes that are forked from one which has imported all."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self._process = subprocess.Popen(
            [sys.executable, str(KILLING), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, folder: Path, arguments: list[str], kill_before: int | None = None, **more: object
    ) -> tuple[Ran | None, int]:
        """What a command did, None where it was killed, and how many changes of files it has begun."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"arguments": arguments, "cwd": str(folder), "kill_before": kill_before, **more}
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
    """All files and links, but for times, the cache and the trash."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if {".tipsseg", TRASH} & {*path.relative_to(folder).parts}:
            continue
        if path.is_symlink():
            found[str(path.relative_to(folder))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    for name, data in found.items():
        if name.rpartition("/")[2] in ("manifest.jsonl", "run.json", "question.json", "errors.jsonl"):
            found[name] = [_without_times(json.loads(line)) for line in _values(data)]  # type: ignore[arg-type]
    return found


def _values(data: bytes) -> list[bytes]:
    return [data] if data.startswith(b"{\n") else data.splitlines()


def _without_times(record: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in record.items() if "tool" not in record or key not in OF_THE_LAST}


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


def formats_of(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "run.json").read_bytes())["formats"]
    return found


def bring_back(before: Path, folder: Path) -> None:
    """Make a folder what it was before, as itself: the cache of a copy does not count."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if before.exists():
        shutil.copytree(before, folder, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


class FolderWalk(RuleBasedStateMachine):
    """The model: which files a person changed, and what they are since."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory(prefix="walk-")
        self.top = Path(self._temporary.name)
        self.out = self.top / "out"
        self.kind = "plain"
        self.edits: dict[str, object] = {}
        self.last: list[str] = []
        self.question: list[str] = []
        self.turn = 0

    def teardown(self) -> None:
        self._temporary.cleanup()

    # ---- what people do ----

    @initialize(kind=st.sampled_from([*KINDS]))
    def photograph(self, kind: str) -> None:
        self.kind = kind
        for name in NAMES:
            save(self.top / "imgs" / name, picture(name, 0))
            rows, columns = np.arange(56)[:, None] // 20, np.arange(70)[None] // 30
            save(self.top / "regions" / name, (3 * rows + columns + 1).astype(np.uint8))
        self._pack()
        if kind == "onto":
            self._whole(self._asked("png", "0", "old", ["-c", "panda leg,tree"], ()))
        self.classes = ["-c", "sky"] if kind == "onto" else ["-c", ",".join(CLASSES)]

    def _pack(self) -> None:
        """Put the images in an archive."""
        with zipfile.ZipFile(self.top / "imgs.zip", "w") as archive:
            for path in sorted((self.top / "imgs").rglob("*.*")):
                archive.write(path, path.relative_to(self.top / "imgs"))

    def _named(self, name: str) -> str:
        return f"imgs/{name}" if self.kind == "archive" else name

    def _recorded(self, name: str) -> str:
        """One of the images of the folder: that of this name, or what stands in its place after renaming."""
        names = sorted(str(entry["image"]) for entry in entries(self.out))
        named = self._named(name)
        return named if named in names or not names else names[NAMES.index(name) % len(names)]

    def _pictures(self) -> dict[str, Path]:
        """The pictures that are there, by the name of their image."""
        top = self.top / "imgs"
        paths = sorted(path for path in top.rglob("*") if path.is_file())
        return {self._named(path.relative_to(top).as_posix()): path for path in paths}

    def _mask(self, name: str) -> Path:
        return self.out / "masks" / Path(name).with_suffix(".png")

    def _work(self, place: str) -> object:
        """What a person made: the pixels of a mask, into which commands write what it is, and all of any other file."""
        if place.startswith("masks/"):
            return pixels(self._mask(place.removeprefix("masks/")))
        return (self.out / place).read_bytes()

    def _lacks_given(self) -> bool:
        """Whether a new folder could not know that regions or labels have the name that a picture had before."""
        stems = {Path(name).with_suffix("") for name in NAMES}
        return (
            self.kind in ("regions", "onto") and not {Path(name).with_suffix("") for name in self._pictures()} <= stems
        )

    def _moves(self) -> dict[str, str]:
        """The images whose pictures have another name, by the name that the folder records: one picture with one image's bytes."""
        there, known = self._pictures(), {str(entry["image"]): entry["sha256"] for entry in entries(self.out)}
        old, new = defaultdict[object, list[str]](list), defaultdict[object, list[str]](list)
        for name in known.keys() - there.keys():
            old[known[name]].append(name)
        for name in there.keys() - known.keys():
            new[sha256(there[name].read_bytes()).hexdigest()].append(name)
        return {old[each][0]: new[each][0] for each in old if len(old[each]) == len(new[each]) == 1}

    def _gone(self) -> list[str]:
        """The images without a picture, which `--prune` removes: a person's are others."""
        names = {str(entry["image"]) for entry in entries(self.out)} - self._pictures().keys() - self._moves().keys()
        return sorted(name for name in names if f"masks/{name}" not in self.edits)

    @rule(name=st.sampled_from(NAMES))
    def edit_a_mask(self, name: str) -> None:
        """Give another class to half of a mask."""
        name = self._recorded(name)
        if (path := self._mask(name)).exists():
            ids = read_mask(path)
            self.turn += 1
            half = ids[:, : ids.shape[1] // 2]
            half[:] = (half + 2) % 4
            row = ids[self.turn % len(ids)]  # another one each time, so that no edit takes another back
            row[:] = (row + 1) % 4
            Image.fromarray(ids).save(path)
            self.edits[f"masks/{name}"] = pixels(path)

    @rule(name=st.sampled_from(NAMES))
    def edit_a_file_that_is_no_mask(self, name: str) -> None:
        path = self.out / f"labelme/{Path(self._recorded(name)).with_suffix('.json')}"
        if path.exists():
            self.turn += 1
            path.write_text(json.dumps({**json.loads(path.read_bytes()), "flags": {"seen": self.turn}}))
            self.edits[str(path.relative_to(self.out))] = path.read_bytes()

    @rule(name=st.sampled_from(NAMES), top=st.sampled_from(["labelme", "hf/masks", "overlays", "annotations.json"]))
    def remove_a_derived_file(self, name: str, top: str) -> None:
        name = self._recorded(name)
        path = next((self.out / top / name).parent.glob(f"{Path(name).stem}.*"), self.out / "annotations.json")
        path.unlink(missing_ok=True)
        self.edits.pop(str(path.relative_to(self.out)), None)

    @rule(name=st.sampled_from(NAMES), version=st.integers(0, 1))
    def change_an_input(self, name: str, version: int) -> None:
        path = self.top / "imgs" / name
        if path.exists() or not [*path.parent.glob(f"{path.stem}.*")]:  # two images would share their files
            save(path, picture(name, version))
            self._pack()

    @rule(number=st.integers(0, 3), what=st.sampled_from(["folder", "suffix", "case", "name"]))
    def rename_a_picture(self, number: int, what: str) -> None:
        """Into another folder, or in its own."""
        top, pictures = self.top / "imgs", [*self._pictures().values()]
        old = pictures[number % len(pictures)]
        place = old.relative_to(top)
        place = {
            "folder": Path(*place.parts[1:]) if place.parts[0] == "old" else Path("old") / place,
            "suffix": place.with_suffix(".jpg" if place.suffix == ".png" else ".png"),
            "case": place.with_stem(place.stem.swapcase()),
            "name": place.with_stem(place.stem[:-1] if place.stem.endswith("2") else f"{place.stem}2"),
        }[what]
        if all(path == old or path.with_suffix("") != (top / place).with_suffix("") for path in pictures):
            (top / place).parent.mkdir(exist_ok=True, parents=True)
            old.rename(top / place)
            self._pack()

    @rule(number=st.integers(0, 3))
    def delete_a_picture(self, number: int) -> None:
        if len(pictures := [*self._pictures().values()]) > 1:
            pictures[number % len(pictures)].unlink()
            self._pack()

    # ---- commands ----

    def _run(self, arguments: list[str], kill: Kill) -> Ran:
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
            bring_back(before, self.out)
            if isinstance(kill, Limit):
                self.server.run(self.top, arguments, limit=kill.size)
            else:
                self.server.run(self.top, arguments, 1 + kill * changes // 100)
            ran = self._whole(arguments)
            if "1/2" not in arguments:  # what that part was killed in is written by the last one
                assert differences(contents(self.out), expected) == {}, ran
        return ran

    def _whole(self, arguments: list[str]) -> Ran:
        ran, _ = self.server.run(self.top, arguments)
        assert ran is not None
        return ran

    def _asked(self, formats: str, least: str, output: str, classes: list[str], options: tuple[str, ...]) -> list[str]:
        source = "imgs.zip" if self.kind == "archive" else "imgs"
        model = ["-m", str(self.server.model), "--device", "cpu", "-q"]
        return ["label", source, *model, *classes, *options, "-f", formats, "--min-area", least, "-o", output]

    def _label(
        self, formats: str, least: str, flags: list[str], kill: Kill, output: str = "out", classes: str = ""
    ) -> Ran:
        asked = ["--vocab", classes] if classes else self.classes
        moves = self._moves() if output == "out" else {}
        masks = {old: read_mask(self._mask(old)) for old in moves if self._mask(old).exists()}
        ran = self._run([*self._asked(formats, least, output, asked, KINDS[self.kind][0]), *flags], kill)
        known = {entry["image"] for entry in entries(self.out)}
        if ran.code == 0:
            assert moves.keys().isdisjoint(known - {*moves.values()}), f"not renamed: {moves} {ran}"
        for old, new in moves.items():
            is_edited = f"masks/{old}" in self.edits
            if old in known or not (is_edited or {OVERWRITE, "--min-confidence"}.isdisjoint(flags)):
                continue
            if old in masks and REPLACE not in flags and (is_edited or not classes):
                assert (read_mask(self._mask(new)) == masks[old]).all(), f"{old} is now {new}: another mask: {ran}"
            if is_edited:
                self.edits[f"masks/{new}"] = self.edits.pop(f"masks/{old}")
        return ran

    def _judge(self, ran: Ran, *, replaced: bool = False) -> None:
        """Hold the folder against the model, after a command that settles it."""
        corrected = {f"masks/{entry['image']}" for entry in entries(self.out) if entry.get("corrected")}
        for place, data in list(self.edits.items()):
            path = self._mask(place.removeprefix("masks/")) if place.startswith("masks/") else self.out / place
            if replaced and place.startswith("masks/") and place not in corrected:
                del self.edits[place]
            else:
                assert path.exists(), f"{place}: a person's file is gone: {self.last} {ran}"
                assert self._work(place) == data, f"{place}: a person's work is lost: {self.last} {ran}"
        for entry in entries(self.out) if "nothing was changed" not in ran.err else ():
            stale = self._stale(entry)
            assert not stale, f"{entry['image']}: {stale} are not of its labels: {self.last} {ran}"
            is_edited = f"masks/{entry['image']}" in self.edits
            is_theirs = isinstance(entry.get("corrected"), dict)
            assert is_edited == is_theirs, f"{entry['image']}: {self.edits.keys()}, {self.last} {ran}"

    def _stale(self, entry: Mapping[str, object]) -> list[str]:
        """The formats of an image that show other labels than its mask."""
        image, files = entry["image"], entry["files"]
        assert isinstance(image, str)
        assert isinstance(files, dict)
        path = self._mask(image)
        if not path.exists():
            return []
        ids = read_mask(path).astype(np.int64)
        found = []
        for name in set(formats_of(self.out)) & READERS.keys() - {"npz", "cutouts"}:
            place = files.get(name)
            if place in self.edits or (place is not None and not (self.out / place).exists()):
                continue
            if name in ("hf", "yolo", "labelme") and (place is None or not self._is_there(entry)):
                continue  # without the picture
            ours = READERS[name](self.out, image, CLASSES, ids.shape)
            limit = 0 if name in EXACT else 0.1  # without small objects; polygons follow outlines within half a pixel
            if (ours != np.where(ids == 255, ours if name in EXACT else 0, ids)).mean() > limit:
                found.append(name)
        return found

    def _is_there(self, entry: Mapping[str, object]) -> bool:
        return (self.top / "imgs" / str(entry["image"]).removeprefix("imgs/")).exists()

    @rule(
        number=st.integers(0, 7),
        least=st.sampled_from(["0", "1", "5"]),
        flags=st.sampled_from([[], [], [], [OVERWRITE], [OVERWRITE], [REPLACE], [OVERWRITE, REPLACE]]),
        kill=kills,
    )
    def label(self, number: int, least: str, flags: list[str], kill: Kill, classes: str = "") -> None:
        offered = KINDS[self.kind][1]
        formats = offered[number % len(offered)]
        ends = OVERWRITE in flags and "labelme" not in formats
        ended = {place: data for place, data in self.edits.items() if ends and not place.startswith("masks/")}
        self.edits = {place: data for place, data in self.edits.items() if place not in ended}
        ran = self._label(formats, least, flags, kill, classes=classes)
        self._judge_trash(ended, ran)
        self._judge(ran, replaced=REPLACE in flags)
        if ran.code == 0 and not self.edits:
            self._judge_check(ran)
            self._compare_with_a_run_from_nothing(least, classes)

    @precondition(lambda self: self.kind != "archive" and bool(entries(self.out)))
    @rule(number=st.integers(0, 7), kill=kills)
    def prune(self, number: int, kill: Kill) -> None:
        """Remove the labels of pictures that are gone; another number of them changes nothing."""
        offered = KINDS[self.kind][1]
        formats, gone, before = offered[number % len(offered)], self._gone(), contents(self.out)
        if not gone:
            return
        assert self._label(formats, "1", ["--prune", f"{len(gone) + 1}"], None).code == 1
        assert contents(self.out) == before
        kept = {entry["image"] for entry in entries(self.out)} - {*gone} - self._moves().keys()
        ran = self._label(formats, "1", ["--prune", f"{len(gone)}"], kill)
        left = {entry["image"] for entry in entries(self.out)}
        assert kept <= left, f"{kept - left} are gone: {self.last} {ran}"
        assert left.isdisjoint(gone), f"{gone} are there: {self.last} {ran}"
        self._judge_trash(self._forget([f"labelme/{Path(name).with_suffix('.json')}" for name in gone]), ran)
        self._judge(ran)
        self._judge_lists(ran)
        if ran.code == 0 and not self.edits:
            self._judge_check(ran)
            self._compare_with_a_run_from_nothing("1")

    @precondition(lambda self: self.kind in ("plain", "features") and bool(entries(self.out)))
    @rule(number=st.integers(0, 3), kill=kills)
    def exchange_two_pictures(self, number: int, kill: Kill) -> None:
        """Under their names; then a person looks for what the trash has of their masks."""
        known = {str(entry["image"]): entry["sha256"] for entry in entries(self.out)}
        there = {
            name: path
            for name, path in self._pictures().items()
            if known.get(name) == sha256(path.read_bytes()).hexdigest() and self._mask(name).exists()
        }
        names = [name for name in there if Path(name).suffix == ".png"]
        one, other = names[number % max(len(names), 1) :][:1], names[(number + 1) % max(len(names), 1) :][:1]
        if (
            one == other
            or self._moves()
            or self._whole(self._asked("png", "1", "out", self.classes, KINDS[self.kind][0])).code
        ):
            return
        masks = [read_mask(self._mask(name)) for name in (*one, *other)]
        for old, new in (
            (there[one[0]], "x.png"),
            (there[other[0]], there[one[0]]),
            (self.top / "x.png", there[other[0]]),
        ):
            old.rename(self.top / new)
        places = [f"masks/{name}" for name in (*one, *other)]
        for image in (*one, *other):
            self.edits.pop(f"labelme/{Path(image).with_suffix('.json')}", None)
        kept = [self.edits.pop(place, None) for place in places]
        self.edits |= {place: data for place, data in zip(reversed(places), kept, strict=True) if data is not None}
        ran = self._label("png", "1", [], kill)
        assert ran.code == 0, ran
        for name, mask in zip((*other, *one), masks, strict=True):
            assert (read_mask(self._mask(name)) == mask).all(), ran
        self._judge(ran)

    @rule(name=st.sampled_from(NAMES), kill=kills)
    def remove_an_image(self, name: str, kill: Kill) -> None:
        """With its labels, whether a person corrected it or not."""
        name, before = self._recorded(name), {entry["image"] for entry in entries(self.out)}
        if name in before:
            ran = self._run(["correct", "out", "--remove", name, "-q"], kill)
            assert {entry["image"] for entry in entries(self.out)} == before - {name}, ran
            self._forget([f"masks/{name}"])
            self._judge_trash(self._forget([f"labelme/{Path(name).with_suffix('.json')}"]), ran)
            self._judge(ran)
            self._judge_lists(ran)

    @precondition(lambda self: bool(entries(self.out)))
    @rule(
        option=st.sampled_from([("--min-confidence", "0.4"), ("--mode", "whole"), ("--dtype", "bfloat16"), ("-c", "x")])
    )
    def ask_another_question(self, option: tuple[str, str]) -> None:
        before = contents(self.out)
        assert self._label("png,coco", "1", [*option], None).code == 1
        assert contents(self.out) == before

    def _forget(self, places: list[str]) -> dict[str, object]:
        return {place: self.edits.pop(place) for place in places if place in self.edits}

    def _judge_trash(self, gone: Mapping[str, object], ran: Ran) -> None:
        """Hold the trash against files that a person edited, and that are gone."""
        for place, data in gone.items():
            found = [path.read_bytes() for path in (self.out / TRASH).glob(f"*/{Path(place).with_suffix('')}*")]
            here = self.out / place
            assert data in found or (here.exists() and here.read_bytes() == data), f"{place} is lost: {self.last} {ran}"

    def _judge_lists(self, ran: Ran) -> None:
        """Hold all files against the images of the manifest: there are none of other images, but those that a person changed."""
        images = entries(self.out)
        with open_run(self.out, ended=False) as run:
            places = run.cache.places()
        for path in (path for path in self.out.rglob("*") if path.is_file() and ".tipsseg" not in path.parts[-3:]):
            place = path.relative_to(self.out).as_posix()
            if place.startswith(TRASH):
                continue
            lists = LISTS.get(place)
            if lists is not None and place not in self.edits:
                of, read = lists
                own = images if of in formats_of(self.out) else []
                there = {
                    entry["image"] for entry in own if of != "hf" or self._is_there(entry)
                }  # which has the picture too
                listed = {*read(path.read_text("utf-8"))}
                assert there <= listed <= {entry["image"] for entry in own}, f"{place}: {self.last} {ran}"
            is_theirs = place in self.edits or path.name.startswith(".") or "/" not in place or lists is not None
            is_theirs = is_theirs or place.endswith("data.yaml") or place.startswith(".tipsseg")
            assert is_theirs or place in places, f"{place} is of no image: {self.last} {ran}"

    def _judge_check(self, ran: Ran) -> None:
        told = self._whole(["check", self.out.name, "-q"])
        if all(map(self._is_there, entries(self.out))):
            assert told.code == 0, (self.last, ran, told)

    def _compare_with_a_run_from_nothing(self, least: str, classes: str = "") -> None:
        """The files are those of a run into a new folder; where images are gone, those that only the other images have."""
        if self._lacks_given():
            return
        shutil.rmtree(self.top / "new", ignore_errors=True)
        last = self.last
        formats = json.loads((self.out / "run.json").read_bytes())["formats"]
        self._label(",".join(formats), least, [], None, "new", classes)
        self.last = last
        ours, new = contents(self.out), contents(self.top / "new")
        there = entries(self.top / "new")
        same = [entry["image"] for entry in entries(self.out)] == [entry["image"] for entry in there]
        own = {str(file) for entry in there for file in entry["files"].values()}  # type: ignore[attr-defined]
        shutil.rmtree(self.top / "new")
        for name in new.keys() - {"run.json", "manifest.jsonl", "errors.jsonl"} if same else own:
            one, other = ours.get(name), new[name]
            if name.startswith("masks/"):  # which says the name that its picture had
                assert isinstance(one, bytes)
                assert isinstance(other, bytes)
                one, other = pixels(one), pixels(other)
            assert one == other, f"{name}: {last}"

    @precondition(lambda self: bool(entries(self.out)))
    @rule(number=st.integers(0, 7), drop=st.booleans(), kill=kills)
    def convert(self, number: int, drop: bool, kill: Kill) -> None:
        offered = KINDS[self.kind][1]
        formats = offered[number % len(offered)].replace(",npz", "").split(",")
        if drop:
            if formats[0] == "png" or formats[0] not in formats_of(self.out):
                return
            ran = self._run(["convert", "out", "--drop", formats[0], "-q"], kill)
        else:
            ran = self._run(["convert", "out", "-f", ",".join(formats), "-q"], kill)
        self._judge(ran)
        if ran.code == 0:
            assert (formats[0] in formats_of(self.out)) != drop, ran

    @rule(name=st.sampled_from(NAMES), accept=st.booleans(), page=st.booleans(), kill=kills)
    def correct(self, name: str, accept: bool, page: bool, kill: Kill) -> None:
        name = self._recorded(name)
        mask = self._mask(name)
        if not mask.exists() or not any(entry["image"] == name for entry in entries(self.out)):
            return
        if page:
            with open_run(self.out) as run:
                image = run.image(name)
                digest = image.entry.base
                objects = [{"object": 1, "class": "tree"}] if (read_mask(mask) % 255).any() else []
            record = {"image": name, "labels": digest, "objects": objects}
            (self.top / "page.json").write_text(json.dumps({"tool": "tipsseg", "corrections": [record]}))
        else:
            shutil.rmtree(self.top / "given", ignore_errors=True)
            self.turn += 1
            ids = read_mask(mask)
            ids[: ids.shape[0] // 2] = self.turn % 4
            save(self.top / "given" / Path(name).with_suffix(".png"), ids)
        source = "page.json" if page else "given"
        before = read_mask(mask)
        ran = self._run(["correct", "out", "--from", source, "-q", *(["--accept"] if accept else [])], kill)
        if ran.code == 0:
            now = read_mask(self._mask(name))
            if not page:
                assert (now == ids).all()
            if accept or (now != before).any() or f"masks/{name}" in self.edits:
                self.edits[f"masks/{name}"] = pixels(self._mask(name))
        self._judge(ran)

    @rule(name=st.sampled_from(NAMES), kill=kills)
    def undo(self, name: str, kill: Kill) -> None:
        name = self._recorded(name)
        if f"masks/{name}" in self.edits and "corrected" in str(
            [entry for entry in entries(self.out) if entry["image"] == name]
        ):
            ran = self._run(["correct", "out", "--undo", name, "-q"], kill)
            assert ran.code == 0, ran
            del self.edits[f"masks/{name}"]
            self._judge(ran)

    @precondition(lambda self: self.kind == "plain" and bool(entries(self.out)))
    @rule(kill=kills)
    def learn_and_start_over(self, kill: Kill) -> None:
        before = contents(self.out)
        (self.top / "learnt.fit").unlink(missing_ok=True)
        fitted = self._whole(["fit", "out", "--device", "cpu", "-q", "-o", "learnt.fit"])
        assert contents(self.out) == before
        if fitted.code == 0:
            self.label(1, "1", [OVERWRITE], kill, "learnt.fit")
            self.label(1, "1", [OVERWRITE], kill)

    @precondition(lambda self: bool(entries(self.out)))
    @rule(
        damage=st.sampled_from(["lost", "cut", "overwritten"]),
        share=st.floats(0, 1),
        noise=st.binary(min_size=40, max_size=40),
    )
    def lose_the_cache(self, damage: str, share: float, noise: bytes) -> None:
        """Nothing changes: the masks are the record."""
        self._whole(["convert", "out", "-q"])  # writes into masks that a person changed that they are theirs
        before, cache = contents(self.out), self.out / ".tipsseg/cache.db"
        if not cache.exists():
            return
        there = {(name, sha256(path.read_bytes()).hexdigest()) for name, path in self._pictures().items()}
        if not {(entry["image"], entry["sha256"]) for entry in entries(self.out)} <= there:
            self._keep_masks_without_cache()
            return
        data = cache.read_bytes()
        at = int(share * (len(data) - 40))
        if damage == "lost":
            shutil.rmtree(cache.parent)
        else:
            cache.write_bytes(data[:at] if damage == "cut" else data[:at] + noise + data[at + 40 :])
        ran = self._whole(["check", "out", "-q"])
        assert ran.code in (0, 1), ran  # an input may be gone, or have changed
        if any(not place.startswith("masks/") for place in self.edits):
            self.last = ["convert", "out", "-q"]
            for place in [place for place in self.edits if not place.startswith("masks/")]:
                del self.edits[place]  # it goes to the trash, as nobody knows any more what it shows
        else:
            ran = self._whole(["convert", "out", "-q"])
            changed = differences(contents(self.out), before).keys() - {"run.json"}
            # Of an archive, a folder beside it has the pictures too.
            assert changed <= ({"manifest.jsonl"} if self.kind == "archive" else set()), ran

    def _keep_masks_without_cache(self) -> None:
        """Lose the cache for a while: nobody knows then what files show of pictures that are gone, but masks stay."""
        before, kept = contents(self.out), self.top / "kept"
        shutil.copytree(self.out, kept, symlinks=True)
        shutil.rmtree(self.out / ".tipsseg")
        ran = self._whole(["convert", "out", "-q"])
        changed = differences(contents(self.out), before).keys()
        assert not {place for place in changed if place.startswith("masks/")}, ran
        bring_back(kept, self.out)
        shutil.rmtree(kept)

    @precondition(lambda self: bool(entries(self.out)))
    @rule(
        name=st.sampled_from(NAMES),
        share=st.integers(0, 99),
        what=st.sampled_from(["label", "convert", "correct", "merge", "a data set"]),
    )
    def save_a_mask_while_a_command_runs(self, name: str, share: int, what: str) -> None:
        """At any of its changes of files; the same command again keeps it too."""
        name = self._recorded(name)
        mask = self._mask(name)
        if not mask.exists() or not any(entry["image"] == name for entry in entries(self.out)) or name in self._moves():
            return
        self.turn += 1
        mine, given = read_mask(mask), read_mask(mask)
        mine[:, : mine.shape[1] // 2] = self.turn % 4
        given[: given.shape[0] // 2] = (self.turn + 1) % 4
        shutil.rmtree(self.top / "given", ignore_errors=True)  # which another rule may have left
        save(self.top / "given" / Path(name).with_suffix(".png"), given)
        formats = KINDS[self.kind][1][1]
        commands = {
            "label": self._asked(formats, "1", "out", self.classes, (*KINDS[self.kind][0], OVERWRITE)),
            "convert": ["convert", "out", "-f", formats, "-q"],
            "correct": ["correct", "out", "--from", "given", "-q"],
            "merge": ["merge", "out", "-o", "joined", "-q"],
            "a data set": ["convert", "out", "-f", "webdataset", "--to", "set", "--overwrite", "-q"],
        }
        self.last = commands[what]
        undisturbed = self.top / "undisturbed"
        shutil.copytree(self.out, undisturbed, symlinks=True)
        _, changes = self.server.run(self.top, commands[what])
        for place in (self.top / "joined", self.top / "set"):
            shutil.rmtree(place, ignore_errors=True)
        bring_back(undisturbed, self.out)
        shutil.rmtree(undisturbed)
        mask = self._mask(name)
        Image.fromarray(mine).save(self.top / "mine.png")
        data = pixels(self.top / "mine.png")
        saved = [str(mask), str(self.top / "mine.png")]
        self.server.run(self.top, commands[what], 1 + share * changes // 100, saved=saved)
        if (self.top / "mine.png").exists():  # the command had ended, or the mask was on its way to another place
            (self.top / "mine.png").replace(self._mask(name))
        self.edits[f"masks/{name}"] = data
        ran = self._whole(commands[what])
        assert pixels(self._mask(name)) == data, f"a person's mask is lost: {self.last} {ran}"
        self._judge(self._whole(commands["convert"]))
        for other in ("given", "joined", "set"):
            shutil.rmtree(self.top / other, ignore_errors=True)

    @precondition(lambda self: self.kind == "plain" and bool(entries(self.out)))
    @rule(name=st.sampled_from(NAMES), kill=kills)
    def merge_with_a_corrected_copy(self, name: str, kill: Kill) -> None:
        if f"masks/{name}" in self.edits or not self._mask(name).exists():
            return
        shutil.copytree(self.out, self.top / "copy", symlinks=True)
        kept, self.out = self.out, self.top / "copy"
        edits, self.edits = self.edits, {}
        self.edit_a_mask(name)
        self.out = self.top / "joined"
        ran = self._run(["merge", "out", "copy", "-o", "joined", "-q"], kill)
        assert ran.code == 0, ran
        self.edits |= edits
        self._judge(ran)
        shutil.rmtree(self.top / "copy")
        shutil.rmtree(self.out)
        self.out, self.edits = kept, edits

    @precondition(lambda self: not self._lacks_given())
    @rule(number=st.integers(0, 2), kill=kills)
    def label_in_shards(self, number: int, kill: Kill) -> None:
        formats = KINDS[self.kind][1][number]
        kept, self.out = self.out, self.top / "parts"
        for shard in ("1/2", "2/2"):
            assert self._label(formats, "1", ["--shard", shard], kill, "parts").code == 0
        edits, self.edits = self.edits, {}
        self._judge_check(Ran(0, "", ""))
        self._compare_with_a_run_from_nothing("1")
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


def test_a_short_walk(server: Server) -> None:
    walk(server, 12, 10, 0)


@pytest.mark.slow
def test_a_long_walk(server: Server) -> None:
    """The same walk every time; TIPSSEG_WALK_SEED takes another."""
    walk(server, 60, 15, int(os.environ.get("TIPSSEG_WALK_SEED", "0")))
