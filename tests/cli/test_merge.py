"""`tipsseg merge`: joined parts are what one run would have written, whatever their order and whenever it is stopped."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dying import at
from filelock import FileLock
from output_folders import (
    ALL_FORMATS,
    CLASSES,
    NOTHING,
    A,
    B,
    Change,
    Json,
    Tree,
    edit,
    edit_json,
    edit_line,
    make_run,
    problems,
    remove,
    save_inputs,
    together,
    tree,
    write,
)
from running import Command, Ran, run_command

from tipsseg.formats import FORMATS
from tipsseg.options import FileOptions, LabelOptions
from tipsseg.options.fields import record_of
from tipsseg.options.run import RasterOptions
from tipsseg.options.shard import Shard
from tipsseg.types import LabelArray, name_order, printable_path
from tipsseg.util.files import json_bytes

LOCK = ".tipsseg-lock"


def by_name(path: str) -> tuple[str, ...]:
    return name_order(printable_path(Path(path)))


#: The images of two runs, each in the order of their names.
FIRST: dict[str, LabelArray] = {"a.png": A, "b/c.jpg": B, "b/ü.png": NOTHING}
SECOND: dict[str, LabelArray] = {"b/a.jpg": B, "b.c/d.png": A, os.fsdecode(b"z\xff.png"): A, "z\\udcfe.png": B}
ALL: Mapping[str, LabelArray] = {name: (FIRST | SECOND)[name] for name in sorted(FIRST | SECOND, key=by_name)}


def build_whole(root: Path) -> None:
    make_run(root / "whole", root / "imgs", ALL, formats=ALL_FORMATS)


def build_shards(root: Path, *folders: str, count: int = 3) -> None:
    """Each shard in its folder, whatever folder that is."""
    for index, folder in enumerate(folders, start=1):
        make_run(root / folder, root / "imgs", ALL, shard=Shard(index, count), formats=ALL_FORMATS)


def build_runs(root: Path) -> None:
    make_run(root / "one", root / "imgs", FIRST, formats=ALL_FORMATS)
    make_run(root / "two", root / "imgs", SECOND, formats=ALL_FORMATS)


def build_run_and_shards(root: Path) -> None:
    make_run(root / "one", root / "imgs", FIRST, formats=ALL_FORMATS)
    for index in (1, 2):
        make_run(root / "two", root / "imgs", SECOND, shard=Shard(index, 2), formats=ALL_FORMATS)


Build = Callable[[Path], object]

LAYOUTS: Mapping[str, tuple[Build, Sequence[str], Sequence[str]]] = {
    # what there is, the folders, the targets
    "shards in one folder": (lambda root: build_shards(root, "out", "out", "out"), ["out"], ["out", "new", "deep/er"]),
    "shards in several folders": (
        lambda root: build_shards(root, "one", "two", "three"),
        ["one", "two", "three"],
        ["new"],
    ),
    "some shards here, some there": (lambda root: build_shards(root, "one", "two", "one"), ["one", "two"], ["new"]),
    "more shards than images": (lambda root: build_shards(root, *["out"] * 20, count=20), ["out"], ["out"]),
    "one shard of one": (lambda root: build_shards(root, "out", count=1), ["out"], ["out"]),
    "two runs": (build_runs, ["one", "two"], ["new"]),
    "a run and shards": (build_run_and_shards, ["one", "two"], ["new"]),
    "one run": (build_whole, ["whole"], ["new"]),
}  # fmt: skip

CASES = {
    f"{name}, {' '.join(order)} into {target}": (build, order, target)
    for name, (build, folders, targets) in LAYOUTS.items()
    for order in itertools.permutations(folders)
    for target in targets
}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgs, and with what one run of all of them leaves in whole."""
    root = tmp_path_factory.mktemp("images")
    save_inputs(root / "imgs", ALL)
    build_whole(root)
    return root


@pytest.fixture
def root(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, whose imgs is that of `images`."""
    (tmp_path / "imgs").symlink_to(images / "imgs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labels(folder: Path) -> Tree:
    """All files of an output folder but run.json, which has times in it; the manifest without times and places."""
    found = {name: data for name, data in tree(folder).items() if name != "run.json"}
    return {**found, "manifest.jsonl": timeless(found["manifest.jsonl"])}


def timeless(data: bytes) -> bytes:
    """Records without times, and without the place of `root`."""
    return re.sub(rb'"path": "[^"]*/imgs/', b'"path": "imgs/', re.sub(rb'"(seconds|mtime_ns)": [0-9.]+', b"", data))


def run_json(folder: Path) -> Json:
    record = json.loads((folder / "run.json").read_bytes())
    assert isinstance(record, dict)
    return record


def merge(words: str, code: int = 0) -> Ran:
    """`tipsseg merge` of the folders and into the target that these words say."""
    ran = run_command("merge", *words.split())
    assert ran.code == code, ran.err
    return ran


def merge_into(folders: Sequence[str], target: str, code: int = 0) -> Ran:
    return merge(f"{' '.join(folders)} -o {target}", code)


@pytest.mark.parametrize("case", CASES)
def test_joined_is_what_one_run_writes(root: Path, images: Path, case: str) -> None:
    build, folders, target = CASES[case]
    build(root)
    before = {folder: tree(root / folder) for folder in folders if folder != target}
    ran = merge_into(folders, target)
    assert labels(root / target) == labels(images / "whole")
    assert problems(root / target) == []
    assert {folder: tree(root / folder) for folder in before} == before
    names = [*(name for each in FORMATS.values() for name in each.files), "classes.json"]
    assert ran.out.splitlines() == [f"{target}/{name}" for name in names]
    assert re.fullmatch(rf"Joining 7 images of .*.\nJoined 7 images of .* into {target}\n", ran.err)


#: The formats of two runs, and of what they are joined to.
FORMATS_OF: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "without annotations": (("overlay",), ("overlay",)),
    "in another order": (("png", "coco"), ("coco", "png")),
}


@pytest.mark.parametrize(("first", "second"), FORMATS_OF.values(), ids=FORMATS_OF)
def test_runs_of_some_formats_are_joined(root: Path, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    make_run(root / "one", root / "imgs", FIRST, formats=first)
    make_run(root / "two", root / "imgs", SECOND, formats=second)
    make_run(root / "both", root / "imgs", ALL, formats=first)
    merge("two one -o new")
    found, wanted = labels(root / "new"), labels(root / "both")
    assert run_json(root / "new")["formats"] == list(second)
    assert {**found, "manifest.jsonl": b""} == {**wanted, "manifest.jsonl": b""}
    assert problems(root / "new") == []


def test_runs_of_no_images_are_joined(root: Path) -> None:
    for name in ("one", "two"):
        make_run(root / name, root / "imgs", {})
    merge("one two -o new")
    assert json.loads((root / "new" / "annotations.json").read_bytes())["images"] == []
    assert problems(root / "new") == []


def test_images_that_a_later_run_gave_no_annotations_keep_theirs(root: Path) -> None:
    make_run(root / "one", root / "imgs", FIRST, formats=("png", "coco"))
    edit_json("one/run.json", lambda record: record.update(formats=["png"]))(root)
    edit_line("one/manifest.jsonl", lambda each: each["image"] == "a.png", lambda each: each.update(formats=["png"]))(
        root
    )
    make_run(root / "two", root / "imgs", SECOND, formats=("png",))
    merge("one two -o new")
    names = [each["file_name"] for each in json.loads((root / "new" / "annotations.json").read_bytes())["images"]]
    assert names == ["b/c.jpg", "b/ü.png"]


def test_annotations_of_images_that_a_part_has_no_more_do_not_count(root: Path, images: Path) -> None:
    build_runs(root)
    shutil.copy(images / "whole/annotations.json", root / "two/annotations.json")
    edit_line("two/annotations.json", lambda each: each.get("image_id") == 1, lambda each: each.update(score=0.25))(
        root
    )
    merge("one two -o new")
    assert labels(root / "new") == labels(images / "whole")


@pytest.mark.parametrize(("folders", "target"), [(["one", "two"], "new"), (["one"], "one")])
def test_an_edited_mask_is_carried(root: Path, folders: list[str], target: str) -> None:
    build_shards(root, folders[0], folders[-1], folders[0])
    names = [path.relative_to(root) for path in sorted(root.rglob("masks/**/*.png"))]
    for number, name in enumerate(names):
        if number % 2:
            (root / name).write_bytes(b"edited " * number)  # of another size
        else:  # of the same size, at the same time
            status = (root / name).stat()
            (root / name).write_bytes(bytes(status.st_size))
            os.utime(root / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    shards = [shard for folder in folders for shard in (root / folder / "shards").iterdir()]
    entries = {line for shard in shards for line in (shard / "manifest.jsonl").read_bytes().splitlines()}
    edited = {Path(*name.parts[1:]): (root / name).read_bytes() for name in names}
    assert len(edited) == 2 * len(ALL)  # masks of two formats
    merge_into(folders, target)
    assert {name: (root / target / name).read_bytes() for name in edited} == edited
    assert set((root / target / "manifest.jsonl").read_bytes().splitlines()) == entries


# ---- run.json ----


def recorded(path: Path) -> Json:
    """A file as run.json has it."""
    status = path.stat()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256}


def at_times(folder: str, started: int, ended: int, **values: object) -> Change:
    """Other times, in minutes, and other values of run.json."""
    times = {"started": f"2026-01-01T00:{started:02}:00+00:00", "ended": f"2026-01-01T00:{ended:02}:00+00:00"}
    return edit_json(f"{folder}/run.json", lambda record: record.update(times | values))


def test_run_json_is_the_first_ones_of_a_whole_run(root: Path) -> None:
    build_shards(root, "out", "out", "out")
    # An earlier run labelled others too.
    counts = [{"labelled": 0, "unchanged": 2, "failed": 0, "edited": 1}, {"labelled": 1, "unchanged": 0, "failed": 8}]
    at_times("out/shards/1-of-3", 20, 40, counts=counts[0])(root)
    at_times("out/shards/2-of-3", 10, 30, counts=counts[1])(root)
    at_times("out/shards/3-of-3", 15, 50, counts=counts[0])(root)
    first = run_json(root / "out/shards/1-of-3")
    merge("out -o out")
    joined = {key: value for key, value in run_json(root / "out").items() if key != "summary"}
    changed = {"shard": None, "started": "2026-01-01T00:10:00+00:00", "ended": "2026-01-01T00:50:00+00:00"}
    counted = {"labelled": 1, "unchanged": 4, "failed": 8, "edited": 2}
    files = {
        name: recorded(root / "out" / name)
        for name in ("classes.json", *(file for form in FORMATS.values() for file in form.files))
    }
    assert joined == {**first, **changed, "counts": counted, "files": files}
    assert list(joined) == list(first)


def test_run_json_says_what_all_parts_hold(root: Path) -> None:
    build_shards(root, "out", "out", "out")
    merge("out -o out")
    summary: Any = run_json(root / "out")["summary"]
    own = [json.loads(line)["classes"] for line in (root / "out/manifest.jsonl").read_bytes().splitlines()]
    trees = [each["pixels"] for classes in own for each in classes if each["name"] == "tree"]
    assert summary["images"] == len(own) == len(ALL)
    assert (summary["classes"][1]["images"], summary["classes"][1]["pixels"]) == (len(trees), sum(trees))


#: The options in run.json.
OPTIONS: Json = {**LabelOptions().record(), **FileOptions().record(), **record_of(RasterOptions())}

DIFFERENCES: Mapping[str, tuple[Json, str]] = {
    "an option": (
        {"digest": "f" * 32, "options": {**OPTIONS, "mode": "whole"}},
        "The runs differ in option mode: slide in one, whole in two.",
    ),
    "the version": ({"version": "0.2"}, "The runs differ in tipsseg version: 0 in one, 0.2 in two."),
    "the folder of the images": (
        {"image_root": "/elsewhere"}, "The images are from several folders, so `image_root` in run.json is null.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_differs_and_may_is_told(root: Path, case: str) -> None:
    values, line = DIFFERENCES[case]
    build_runs(root)
    edit_json("two/run.json", lambda record: record.update(values))(root)
    first = run_json(root / "one")
    said = merge("one two -o new").err.splitlines()
    assert said == [line, "Joining 7 images of 2 runs.", "Joined 7 images of 2 runs into new"]
    root_of_all = None if "image_root" in values else first["image_root"]
    joined = run_json(root / "new")
    assert {key: joined[key] for key in ("digest", "options", "version", "image_root")} == {
        **{key: first[key] for key in ("digest", "options", "version")},
        "image_root": root_of_all,
    }


# ---- errors.jsonl ----


def failures(folder: str, *images: str) -> Change:
    """An errors.jsonl with these images."""
    lines = [{"image": image, "path": f"/gone/{image}", "reason": f"by {folder}", "hint": ""} for image in images]
    return write(f"{folder}/errors.jsonl", b"".join(json_bytes(line) + b"\n" for line in lines))


def test_failures_are_joined(root: Path) -> None:
    build_runs(root)
    failures("one", "b/z.png", "b/a.jpg", "a-.png")(root)  # the second is labelled in the other run
    failures("two", "b/z.png", "a/b.png")(root)
    ran = merge("one two -o new")
    lines = [json.loads(line) for line in (root / "new/errors.jsonl").read_bytes().splitlines()]
    assert [(line["image"], line["reason"]) for line in lines] == [
        ("a/b.png", "by two"),
        ("a-.png", "by one"),
        ("b/z.png", "by one"),
    ]
    assert "3 images failed, see new/errors.jsonl" in ran.err


def test_no_failures_leave_no_file(root: Path) -> None:
    build_runs(root)
    failures("one", "b/a.jpg")(root)
    merge("one two -o new")
    assert not (root / "new/errors.jsonl").exists()


# ---- what is refused ----


@dataclass(frozen=True)
class Refusal:
    """Runs one and two, changed, are not joined into the target, with this message."""

    message: str
    change: Build = lambda root: None
    folders: Sequence[str] = ("one", "two")
    target: str = "new"
    code: int = 1
    build: Build = build_runs
    hint: str = ""


def run_again(folder: str, **values: object) -> Change:
    """Another vocabulary or model in run.json."""
    return edit_json(f"{folder}/run.json", lambda record: record.update(values))


def shards_of(*folders: str, count: int = 3) -> Build:
    return lambda root: build_shards(root, *folders, count=count)


def other_classes(root: Path) -> None:
    make_run(root / "one", root / "imgs", FIRST)
    make_run(root / "two", root / "imgs", SECOND, (*CLASSES, "moon"))


def other_formats(root: Path) -> None:
    make_run(root / "one", root / "imgs", FIRST, formats=("png", "coco"))
    make_run(root / "two", root / "imgs", SECOND, formats=("png",))


def other_fractions(root: Path) -> None:
    for folder, labels, fraction in (("one", FIRST, None), ("two", SECOND, 0.9)):
        options = FileOptions(val_fraction=fraction)
        make_run(root / folder, root / "imgs", labels, formats=("png", "yolo"), options=options)


def of_images(first: Sequence[str], second: Sequence[str]) -> Build:
    """Two runs of the images of these names."""

    def build(root: Path) -> None:
        (root / "imgs").unlink()
        for folder, names in (("one", first), ("two", second)):
            save_inputs(root / "imgs", dict.fromkeys(names, A))
            make_run(root / folder, root / "imgs", dict.fromkeys(names, A))

    return build


def shards_and_a_run(root: Path) -> None:
    build_shards(root, "one", "one", "one")
    make_run(root / "else", root / "imgs", FIRST)
    for name in ("run.json", "manifest.jsonl"):
        shutil.copy(root / "else" / name, root / "one" / name)


def without_lines(*numbers: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        return b"".join(line for number, line in enumerate(data.splitlines(keepends=True)) if number not in numbers)

    return change


def mixed_shards(root: Path) -> None:
    make_run(root / "one", root / "imgs", FIRST, shard=Shard(1, 2))
    make_run(root / "two", root / "imgs", SECOND, shard=Shard(1, 3))


STRANGER = "it does not belong to the runs to join"


def orphan(path: str, build: Build = build_runs, target: str = "new") -> Refusal:
    """A file of somebody that would be replaced or removed."""
    folders = ("one", "two") if target == "new" else (target,)
    what = "it holds a whole run" if path in ("new/run.json", "new/manifest.jsonl") else STRANGER
    place = "new" if what != STRANGER else path
    return Refusal(f"cannot write {place}: {what}", write(path, b"mine"), folders, target, build=build)


REFUSALS: Mapping[str, Refusal] = {
    "a folder twice, by a link": Refusal(
        "link is given twice", lambda root: (root / "link").symlink_to(root / "one"), ("one", "link"), code=2
    ),
    "no folder": Refusal("no: no such folder", folders=("one", "no")),
    "the records of a shard": Refusal(
        "one/shards/2-of-3: it has the records of a single shard, 2/3", folders=("one/shards/2-of-3",),
        build=shards_of("one", "one", "one"), hint="Pass the output folder that contains the shard.",
    ),
    "a shard in another's folder": Refusal(
        'one/shards/2-of-2/run.json: not as this version of tipsseg writes it: `shard` is "1/2", '
        "which does not match the folder name",
        lambda root: (root / "one/shards/1-of-2").rename(root / "one/shards/2-of-2"),
        folders=("one",),
        build=shards_of("one", count=2),
    ),
    "a run that was interrupted": Refusal("two: the run was interrupted", run_again("two", ended=None, counts=None)),
    "a conversion that was interrupted": Refusal(
        "two: a conversion into yolo,hf was interrupted", run_again("two", converting=["yolo", "hf"]),
        hint="Run it again first: tipsseg convert two --format yolo,hf",
    ),
    "shards missing": Refusal(
        "one: of 9 shards, these are missing: 3-9", folders=("one",), target="one",
        build=shards_of("one", "one", count=9),
        hint="Label the missing shards with --shard I/9, or pass their folder too.",
    ),
    "shards of other numbers": Refusal(
        "one has shards of a run in 2 parts, but two of a run in 3 parts", folders=("one", "two"), build=mixed_shards
    ),
    "a shard twice": Refusal(
        "shard 1/1 is in one and in two", build=together(shards_of("one", count=1), shards_of("two", count=1)),
    ),
    "a run and shards in one folder": Refusal(
        "one: it holds both a whole run and shards", folders=("one",), target="one", build=shards_and_a_run
    ),
    "another model": Refusal(
        "two and one differ in their model", run_again("two", model={"id": "b14", "sha256": "0"})
    ),
    "another vocabulary": Refusal("two and one differ in their vocabulary", build=other_classes),
    "other formats": Refusal("two has the formats png; one has png, coco", build=other_formats),
    "other images for validation": Refusal(
        "two: yolo/labels/val/b.c/d.txt should be yolo/labels/train/b.c/d.txt for the `val_fraction` of one, and 2 more",
        build=other_fractions,
        hint="Run the original command again with --val-fraction 0, which moves the files.",
    ),
    "an image twice": Refusal("b/a.png is in one and in two", build=of_images(["a.png", "b/a.png"], ["b/a.png"])),
    "two images of one picture": Refusal(
        "a.jpg of two and a.png of one would share one output, a", build=of_images(["a.png"], ["a.jpg", "b.png"])
    ),
    "another run in the target": Refusal("cannot write two: it holds a whole run", folders=("one",), target="two"),
    "one of the runs as the target": Refusal("cannot write two: it holds a whole run", target="two"),
    "shards of another run in the target": Refusal(
        "cannot write two: it holds shards that are not among those to join", folders=("one",), target="two",
        build=together(lambda root: make_run(root / "one", root / "imgs", FIRST), shards_of("two")),
    ),
    **{
        f"{name} of somebody in the target": orphan(f"new/{name}")
        for name in ("run.json", "manifest.jsonl", "errors.jsonl", "classes.json", "annotations.json", "yolo/data.yaml")
    },
    "a mask of somebody in the target": orphan("new/masks/b/c.png"),
    "a link of somebody in the target": Refusal(
        f"cannot write new/hf/images/a.png: {STRANGER}",
        together(
            lambda root: (root / "new/hf/images").mkdir(parents=True),
            lambda root: (root / "new/hf/images/a.png").symlink_to(root / "imgs/b/a.jpg"),
        ),
    ),
    **{
        f"{name} of somebody beside the shards": orphan(f"one/{name}", shards_of("one", "one", "one"), "one")
        for name in ("annotations.json", "shards/notes.txt", "shards/2-of-3/notes.txt", "shards/old/run.json")
    },
    "a folder of somebody linked among the shards": Refusal(
        f"cannot write one/shards/2-of-3/more: {STRANGER}",
        lambda root: (root / "one/shards/2-of-3/more").symlink_to(root / "imgs"), ("one",), "one",
        build=shards_of("one", "one", "one"),
    ),
    "some of the shards in the target": Refusal(
        "cannot write one: it holds some of the shards to join, but others are elsewhere", folders=("two", "one"),
        target="one", build=shards_of("one", "two", count=2),
    ),
    "a target that is a file": Refusal("cannot write imgs/a.png: imgs/a.png is a file", target="imgs/a.png"),
    "a picture that is gone": Refusal("two/masks/b/a.png is missing", remove("two/masks/b/a.png")),
    "annotations that are gone": Refusal("two/annotations.json: b/a.jpg is not in it", remove("two/annotations.json")),
    "classes.json with other names": Refusal(
        'two/classes.json: class 2 is "bush", but "tree" in run.json',
        edit_json("two/classes.json", lambda each: each["classes"][1].update(name="bush")),  # type: ignore[index]
        hint="Restore classes.json, or remove it and run the original command again.",
    ),
    "a shard whose manifest lost lines": Refusal(
        "one/shards/1-of-1/manifest.jsonl: it lacks 1 of the 7 images that run.json counts (a.png)",
        edit("one/shards/1-of-1/manifest.jsonl", without_lines(0)), folders=("one",), target="one",
        build=shards_of("one", count=1), hint="Run the original command again; finished images are kept.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_and_nothing_changed(root: Path, case: str) -> None:
    refusal = REFUSALS[case]
    refusal.build(root)
    refusal.change(root)
    before = tree(root)
    error, hint = merge_into(refusal.folders, refusal.target, refusal.code).err.splitlines()[-2:]
    assert error == f"Error: {refusal.message}"
    assert hint == f"Hint: {refusal.hint}" if refusal.hint else hint.startswith("Hint: ")
    after = tree(root)
    # What is found late has copied files of images, but no record that counts.
    assert {name for name in after.keys() - before.keys() if not name.startswith("new/")} == set()
    records = {"manifest.jsonl", "run.json", *(name for each in FORMATS.values() for name in each.files)}
    assert not {f"new/{name}" for name in records} & (after.keys() - before.keys())
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize(
    ("records", "words"),
    [("two", "one two -o new"), ("one/shards/1-of-2", "one two -o new"), ("one/shards/1-of-2", "one -o one")],
)
def test_a_run_that_is_at_work_is_let_alone(root: Path, records: str, words: str) -> None:
    build_shards(root, "one", "one", count=2)
    make_run(root / "two", root / "imgs", {})
    at_work = [root / "one/.tipsseg-1-of-2-0123.json", root / "one/masks/.tipsseg-1-of-2-0123.png"]
    for path in at_work:
        path.write_bytes(b"half")
    (root / "one" / LOCK).touch()  # a merge was killed there
    with FileLock(root / records / LOCK):
        assert f"{records}: a run is in progress" in merge(words, 1).err
    assert all(path.exists() for path in at_work)


def test_a_run_that_begins_meanwhile_is_let_alone(root: Path, images: Path) -> None:
    build_shards(root, "one", "one", count=2)
    before, lock = tree(root / "one"), FileLock(root / "one/shards/2-of-2" / LOCK)
    with at(root / "one/run.json", lock.acquire):
        assert "one/shards/2-of-2: a run is in progress" in merge("one -o one", 1).err
    lock.release()
    (root / "one/shards/2-of-2" / LOCK).unlink()
    assert tree(root / "one") == before
    merge("one -o one")
    assert labels(root / "one") == labels(images / "whole")


def test_shards_that_a_run_changed_meanwhile_are_not_removed(root: Path) -> None:
    build_shards(root, "one", "one", count=2)
    later = edit_line("one/shards/1-of-2/manifest.jsonl", lambda each: True, lambda each: each.update(seconds=7.0))
    with at(root / "one/run.json", lambda: later(root)):
        assert "one: its shards changed during the merge" in merge("one -o one", 1).err
    assert not (root / "one/manifest.jsonl").exists()
    assert not any("is unfinished" in line for line in problems(root / "one"))
    merge("one -o one")
    lines = [json.loads(line) for line in (root / "one/manifest.jsonl").read_bytes().splitlines()]
    assert any(line["seconds"] == 7.0 for line in lines)


def test_another_merge_is_not_disturbed(root: Path) -> None:
    build_runs(root)
    (root / "new").mkdir()
    with FileLock(root / "new" / LOCK):
        assert "another tipsseg process is using it" in merge("one two -o new", 1).err


# ---- once more ----


@pytest.mark.parametrize(("folders", "target"), [(["one", "two"], "new"), (["two"], "two")])
def test_a_merge_that_is_done_changes_nothing(root: Path, folders: list[str], target: str) -> None:
    build_run_and_shards(root)
    printed = merge_into(folders, target).out
    mask = min((root / target).rglob("masks/**/*.png"))
    mask.write_bytes(b"edited")
    before = tree(root)
    ran = merge_into(folders, target)
    assert tree(root) == before
    assert ran == Ran(0, printed, f"Nothing to join: {target} already has all images.\n")


def test_a_part_that_was_labelled_anew_is_not_in_the_target_already(root: Path) -> None:
    build_runs(root)
    merge("one two -o new")
    edit_line("two/manifest.jsonl", lambda each: each["image"] == "b/a.jpg", lambda each: each.update(seconds=7.0))(
        root
    )
    assert "it holds a whole run" in merge("one two -o new", 1).err


# ---- stopped ----


def few(*folders: str, shards: bool = False) -> Build:
    """Parts of few images, each with its failures: shards, or runs of one image each."""

    def build(root: Path) -> None:
        names = ["a.png", "b/c.jpg"]
        for number, folder in enumerate(folders, start=1):
            own = names if shards else names[number - 1 : number]
            shard = Shard(number, len(folders)) if shards else None
            make_run(
                root / folder, root / "imgs", {name: ALL[name] for name in own}, formats=("png", "coco"), shard=shard
            )
        for path in [path for folder in folders for path in (root / folder).rglob("run.json")]:
            failures(str(path.parent.relative_to(root)), f"{path.parent.name}.png", "z.png")(root)

    return build


UNFINISHED = "a merge into it is unfinished"


def interrupted(words: str, *, after: bool) -> None:
    """A merge that was stopped as it was about to put run.json in its place, or after that."""
    *_, target = words.split()
    with at(Path(target, "run.json"), after=after):
        err = merge(words, 130).err
    assert err.splitlines()[-1] == "Interrupted: run the same command to resume."


@pytest.mark.parametrize("after", [False, True], ids=["before run.json", "after run.json"])
def test_a_merge_beside_shards_can_be_given_up(root: Path, images: Path, after: bool) -> None:
    """As examples/cluster/README.md says."""
    build_shards(root, "out", "out", "out")
    interrupted("out -o out", after=after)
    for name in (".tipsseg-merging.json", "run.json", "manifest.jsonl"):
        (root / "out" / name).unlink(missing_ok=True)
    ran = run_command("check", "out")
    assert "All 3 shards are finished; join them: tipsseg merge out -o out" in ran.err
    assert UNFINISHED not in ran.out
    merge("out -o out")
    assert labels(root / "out") == labels(images / "whole")
    assert problems(root / "out") == []


def joined(root: Path) -> None:
    """Merges of shards in place, and of runs, that were stopped after run.json was written; and two that were not so far."""
    build_shards(root, "out", "out", "out")
    build_shards(root, "mended", "mended", "mended")
    build_runs(root)
    interrupted("out -o out", after=True)
    interrupted("one two -o new", after=True)
    interrupted("one two -o half", after=False)
    interrupted("mended -o mended", after=False)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("out", "tipsseg merge out -o out"),
        ("new", "tipsseg merge new -o new"),
        ("half", "tipsseg merge {root}/one {root}/two -o half"),
        ("mended", "tipsseg merge mended -o mended"),
    ],
)
def test_what_has_not_ended_is_told_by_whoever_meets_it(root: Path, images: Path, target: str, command: str) -> None:
    joined(root)
    before, line = tree(root), command.format(root=root)
    unfinished = f"{target}: {UNFINISHED}"
    assert run_command("check", target).out.splitlines()[0] == f"{unfinished}; finish it: {line}"
    label = ["label", "imgs", "-c", ",".join(CLASSES), "-m", "tiny", "-o", target]
    if target != "mended":  # its shards count still, and can be mended
        for words in (f"convert {target} -f png", f"merge {target} two -o else", f"eval --pred {target} --gt imgs"):
            ran = run_command(*words.split())
            assert (ran.code, ran.err) == (1, f"Error: {unfinished}\nHint: Finish it first: {line}\n")
        for more in ([], ["--shard", "1/2"], ["--dry-run"]):
            ran = run_command(*label, *more)
            assert ran.code == 1
            hint = f"Hint: Choose another output folder with -o, or finish it first: {line}"
            assert ran.err.splitlines()[-2:] == [f"Error: cannot write {unfinished}", hint]
        assert tree(root) == before
    assert run_command(*shlex.split(line)[1:]).code == 0
    assert labels(root / target) == labels(images / "whole")
    assert problems(root / target) == []


def test_a_merge_of_other_folders_is_not_taken_for_the_one_that_has_not_ended(root: Path) -> None:
    joined(root)
    before = tree(root)
    err = merge("one -o half", 1).err
    assert "a merge of other folders into it is unfinished" in err
    assert err.endswith(f" To finish it: tipsseg merge {root}/one {root}/two -o half\n")
    assert tree(root) == before
    merge("two one -o half")


@pytest.mark.parametrize(
    ("name", "after"), [("annotations.json", False), ("shards/notes.txt", False), ("shards/notes.txt", True)]
)
def test_what_somebody_puts_in_the_way_meanwhile_is_not_lost(root: Path, images: Path, name: str, after: bool) -> None:
    build_shards(root, "out", "out", "out")
    interrupted("out -o out", after=after)
    write(f"out/{name}", b"mine")(root)
    there = tree(root)
    assert STRANGER in merge("out -o out", 1).err
    assert tree(root) == there
    (root / "out" / name).rename(root / "mine")
    merge("out -o out")
    assert labels(root / "out") == labels(images / "whole")


def test_a_link_to_shards_elsewhere_is_removed_and_they_are_not(root: Path, images: Path) -> None:
    build_shards(root, "out", "out", "out")
    (root / "out/shards").rename(root / "elsewhere")
    (root / "out/shards").symlink_to(root / "elsewhere")
    merge("out -o out")
    assert labels(root / "out") == labels(images / "whole")
    assert len(list((root / "elsewhere").iterdir())) == 3


# ---- shards that were labelled ----


class Label:
    """`tipsseg label` of the pictures with a small model."""

    def __init__(self, command: Command, model: Path, pictures: Path) -> None:
        self._command = command
        self.arguments = [pictures, "-c", ",".join(CLASSES), "-m", model, "--device", "cpu", "-f", "png,coco,overlay"]

    def __call__(self, output: Path, *more: str, code: int = 0) -> Ran:
        ran = self._command("label", *self.arguments, "-o", output, *more)
        assert ran.code == code, ran.err
        return ran


@pytest.fixture
def label(command: Command, mlp_checkpoint: Path, pictures: Path) -> Label:
    return Label(command, mlp_checkpoint, pictures)


@pytest.mark.parametrize("places", [["out", "out", "out"], ["c", "a", "b"], ["b", "b", "a"]], ids=" ".join)
def test_joined_shards_are_what_one_run_writes(
    command: Command, label: Label, pictures: Path, tmp_path: Path, places: Sequence[str]
) -> None:
    """Also where an image fails, and is mended in the whole run."""
    good = (pictures / "a.png").read_bytes()
    (pictures / "a.png").write_bytes(b"no image")
    codes = [
        command("label", *label.arguments, "-o", tmp_path / place, "--shard", f"{index}/3").code
        for index, place in enumerate(places, start=1)
    ]
    assert sorted(codes) == [0, 0, 1]
    out = tmp_path / ("out" if "out" in places else "new")
    ran = command("merge", *sorted(tmp_path / place for place in set(places)), "-o", out)
    assert (ran.code, ran.out.splitlines()) == (0, [f"{out}/annotations.json", f"{out}/classes.json"])
    assert ran.err.splitlines()[-2:] == [
        f"1 image failed, see {out}/errors.jsonl",
        f"Joined 2 images of 3 shards into {out}",
    ]
    (pictures / "a.png").write_bytes(good)
    assert "1 image labelled, 2 unchanged" in label(out).err
    label(tmp_path / "whole")
    assert labels(out) == labels(tmp_path / "whole")
    before = labels(out), (out / "run.json").read_bytes()
    assert "3 unchanged" in label(out).err
    assert (labels(out), (out / "run.json").read_bytes()) == before


def test_quiet_says_nothing_but_the_files(command: Command, label: Label, tmp_path: Path) -> None:
    out = tmp_path / "out"
    label(out, "--shard", "1/1")
    ran = command("merge", "-q", out, "-o", out)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [f"{out}/annotations.json", f"{out}/classes.json"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["a"], "Missing option '--output'"),
        (["-o", "b"], "Missing argument"),
        (["a", "a", "-o", "b"], "a is given twice"),
    ],
)
def test_wrong_usage(process: Command, tmp_path: Path, arguments: list[str], part: str) -> None:
    (tmp_path / "a").mkdir()
    ran = process("merge", *arguments, cwd=tmp_path)
    assert ran.code == 2
    assert part in ran.err
    assert not (tmp_path / "b").exists()


def test_torch_is_not_imported(label: Label, tmp_path: Path) -> None:
    out = tmp_path / "out"
    label(out, "--shard", "1/1")
    script = f"""
import sys
from tipsseg.cli.main import main
sys.argv = ["tipsseg", "merge", {str(out)!r}, "-o", {str(out)!r}]
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
assert "torch" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_shards_at_work_at_once_in_one_folder(command: Command, label: Label, pictures: Path, tmp_path: Path) -> None:
    for number in range(20):
        shutil.copy(pictures / "a.png", pictures / f"{number:02}.png")
    words = [sys.executable, "-m", "tipsseg", "label", *label.arguments, "-q", "-o", tmp_path / "out", "--shard"]
    line = list(map(str, words))
    runs = [subprocess.Popen([*line, f"{index}/3"], stdout=subprocess.DEVNULL) for index in (1, 2, 3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert command("check", tmp_path / "out").code == 0
    assert command("merge", tmp_path / "out", "-o", tmp_path / "out").code == 0
    label(tmp_path / "whole")
    assert labels(tmp_path / "out") == labels(tmp_path / "whole")
    assert command("check", tmp_path / "out").code == 0
