"""A sound output folder has no problems; each way to damage one is found, in the right file, and nothing beside it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from output_folders import (
    LABELS,
    NOTHING,
    A,
    Change,
    Json,
    edit,
    edit_json,
    entry,
    make_run,
    remove,
    repaint,
    save_inputs,
    stamp,
    write,
)
from PIL import Image

from tipsseg.options.shard import Shard
from tipsseg.runs.check.folder import check_folder
from tipsseg.runs.common.progress import Progress
from tipsseg.store.lock import FolderLock
from tipsseg.types import LabelArray


def build(root: Path, labels: Mapping[str, LabelArray] = LABELS, **options: object) -> None:
    save_inputs(root / "imgs", labels)
    make_run(root / "out", root / "imgs", labels, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgs and out, whose images are elsewhere by run.json."""
    root = tmp_path_factory.mktemp("sound")
    build(root)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    return tmp_path


def problems(root: Path, *, images: Path | None = None, jobs: int = 2, progress: Progress | None = None) -> list[str]:
    """The problems of root/out, with the paths from root on, where the program wrote the files as they are, see `stamp`."""
    stamp(root / "out")
    found = check_folder(root / "out", images, jobs, progress or Progress(quiet=True))
    return [str(problem).replace(f"{root}/", "") for problem in found]


def renamed(line: bytes, image: str) -> bytes:
    """An entry under another name, without files."""
    return json.dumps({**json.loads(line), "image": image, "files": {}, "written": {}, "formats": []}).encode()


def png(pixels: np.ndarray) -> Change:
    """The mask of a.png, as another picture."""
    return lambda root: Image.fromarray(pixels).save(root / "out/masks/a.png")


def touch(path: str) -> Change:
    return lambda root: os.utime(root / path, ns=(0, 0))


def keep_time(path: str, change: Change) -> Change:
    def apply(root: Path) -> None:
        before = (root / path).stat().st_mtime_ns
        change(root)
        os.utime(root / path, ns=(before, before))

    return apply


def add_class(record: Json) -> None:
    record["classes"] = [*classes_of(record), {"id": 4, "name": "moon", "pixels": 1, "share": 0, "confidence": 0}]
    record["background"] = {"pixels": 27}


def classes_of(record: Json) -> list[Json]:
    found = record["classes"]
    assert isinstance(found, list)
    return found


def drop_line(text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(line for line in data.splitlines(keepends=True) if text not in line)


def both(*changes: Callable[[Path], object]) -> Change:
    """One after the other."""

    def apply(root: Path) -> None:
        for change in changes:
            change(root)

    return apply


RUN, MANIFEST, COCO, MASK = "out/run.json", "out/manifest.jsonl", "out/annotations.json", "out/masks/a.png"
COUNTS = {"labelled": 3, "unchanged": 0, "failed": 0}
VERSION = "not as this version of tipsseg writes it"
TWO_NAMES = "labelled under two names; label it into another folder, under one name"
NOT_ALL = "fields are missing or invalid"
SET_ASIDE = "run the original command again, which writes the line again, or labels the image"
DONE_AGAIN = "run the original command again, which labels the missing ones"

FAULTS: dict[str, tuple[Change, list[str]]] = {
    # run.json
    "run.json is gone": (remove(RUN), ["out: not an output folder of tipsseg label: no run.json in it"]),
    "run.json is a link to nothing": (
        both(remove(RUN), lambda root: (root / RUN).symlink_to("nothing")), [f"{RUN}: no such file"],
    ),
    "run.json with a class that is negative": (
        edit(RUN, lambda data: data.replace(b'"classes": [', b'"classes": [{"id": 0, "name": "ground", "negative": true},', 1)), [],
    ),
    "run.json of a shard": (
        edit_json(RUN, lambda r: r.update(shard="1/2")),
        ["out: it has the records of a single shard, 1/2"],
    ),
    "broken off": (
        edit_json(RUN, lambda r: r.update(ended=None, counts=None)),
        [f"{RUN}: the run was interrupted; run the same command again"],
    ),
    "shards beside a whole run": (
        write("out/shards/1-of-2/run.json", b"{}"), ["out/shards: shards beside the run.json of a whole run"],
    ),
    # classes.json
    "classes.json is gone": (remove("out/classes.json"), ["out/classes.json: no such file"]),
    "classes.json is torn": (
        edit("out/classes.json", lambda data: data[:9]), [f"out/classes.json: {VERSION}: ..."],
    ),
    "classes.json with another name": (
        edit_json("out/classes.json", lambda r: classes_of(r)[1].update(name="bush")),
        ['out/classes.json: class 2 is "bush", but "tree" in run.json'],
    ),
    "classes.json with another id": (
        edit_json("out/classes.json", lambda r: classes_of(r)[1].update(id=7)),
        ['out/classes.json: class "tree" has id 7, but 2 in run.json'],
    ),
    "classes.json with a class less": (
        edit_json("out/classes.json", lambda r: classes_of(r).pop()),
        ["out/classes.json: 2 classes, but run.json has 3"],
    ),
    "classes.json with another ignore id": (
        edit_json("out/classes.json", lambda r: r.update(ignore=254)),
        ["out/classes.json: `ignore` is 254, not 255"],
    ),
    # manifest.jsonl
    "the manifest is gone": (
        remove(MANIFEST),
        [
            f"{MANIFEST}: it has 0 images, but run.json counts 3; {DONE_AGAIN}",
        ],
    ),
    "a class twice": (
        entry("a.png", lambda r: classes_of(r).append(classes_of(r)[0])),
        [f"{MANIFEST}: line 1 is not a valid entry: id 1 is listed twice; {SET_ASIDE}"],
    ),
    "the last line is cut off": (
        edit(MANIFEST, lambda data: data[:-9]),
        [
            f"{MANIFEST}: it has 2 images, but run.json counts 3; {DONE_AGAIN}",
        ],
    ),
    "an object with a score that is none": (
        entry("a.png", lambda r: r.update(objects=[[1, 4, 0, 0, 2, 2, 1.5]])),
        [f"{MANIFEST}: line 1 is not a valid entry: {NOT_ALL}; {SET_ASIDE}"],
    ),
    "two images for one picture": (
        edit(MANIFEST, lambda data: data + data.split(b"\n")[0].replace(b'"a.png"', b'"a.gif"') + b"\n"),
        [
            f"{MANIFEST}: a.png and a.gif are the same file, {TWO_NAMES}",
            f"{MANIFEST}: a.png: it shares its files with a.gif",
        ],
    ),
    "an image under two names": (
        edit(MANIFEST, lambda data: data + renamed(data.split(b"\n")[0], "imgs/a.png") + b"\n"),
        [f"{MANIFEST}: imgs/a.png and a.png are the same file, {TWO_NAMES}"],
    ),
    "a file with another name": (
        entry("a.png", lambda r: r["files"].update(overlay="a.jpg")),  # type: ignore[attr-defined]
        [f'{MANIFEST}: a.png: its overlay file is "a.jpg", not "overlays/a.jpg"'],
    ),
    "a file less than formats": (
        entry("a.png", lambda r: (r["files"].pop("overlay"), r["written"].pop("overlay"))),  # type: ignore[attr-defined]
        [f'{MANIFEST}: a.png: its overlay file is null, not "overlays/a.jpg"'],
    ),
    "a file more than formats": (
        entry("a.png", lambda r: r.update(formats=["png", "coco", "overlay"])),
        [
            f'{MANIFEST}: a.png: its confidence file is "confidence/a.png", not null',
            "out/confidence/a.png: it belongs to no image in the manifest",
        ],
    ),
    "a class with another name": (
        entry("a.png", lambda r: classes_of(r)[0].update(name="leg")),
        [f"{MANIFEST}: a.png: class 1 (leg) is not in the vocabulary"],
    ),
    "a class that is none": (
        entry("a.png", add_class),
        [
            f"{MANIFEST}: a.png: class 4 (moon) is not in the vocabulary",
            f"{MASK}: 28 pixels of background, but 27 in the manifest",
        ],
    ),
    "another number of pixels": (
        entry("a.png", lambda r: classes_of(r)[1].update(pixels=5)),
        [
            f"{MANIFEST}: a.png: 49 pixels in total, but 6 x 8 (height x width) has 48",
            f"{MASK}: 4 pixels of class 2 (tree), but 5 in the manifest",
        ],
    ),
    # pictures
    "a mask is gone": (remove(MASK), [f"{MASK}: no such file"]),
    "a mask is cut off": (
        edit(MASK, lambda data: data[:50]), [f"{MASK}: ..."],
    ),
    "a mask is a pipe": (
        both(remove(MASK), lambda root: os.mkfifo(root / MASK)), [f"{MASK}: not a regular file"],
    ),
    "a mask of another size": (
        repaint(MASK, lambda ids: ids.T),
        [f"{MASK}: 8 x 6 (height x width), but the image is 6 x 8"],
    ),
    "a mask in colour": (png(np.dstack([A, A, A])), [f"{MASK}: PNG mode RGB, expected L"]),
    "an id that is no class": (
        repaint(MASK, lambda ids: np.where(np.arange(48).reshape(6, 8) == 2, 9, ids).astype(np.uint8)),
        [f"{MASK}: unknown ids: 9", f"{MASK}: 27 pixels of background, but 28 in the manifest"],
    ),
    "ignored pixels that are not": (
        repaint(MASK, lambda ids: np.where(ids == 255, 0, ids).astype(np.uint8)),
        [
            f"{MASK}: 30 pixels of background, but 28 in the manifest",
            f"{MASK}: 0 pixels of ignored pixels, but 2 in the manifest",
        ],
    ),
    "a confidence is gone": (remove("out/confidence/sub/ü.png"), ["out/confidence/sub/ü.png: no such file"]),
    "an overlay is gone": (remove("out/overlays/sub/b c.jpg"), ["out/overlays/sub/b c.jpg: no such file"]),
    # inputs
    "an input is another": (
        lambda root: Image.new("RGB", (8, 6)).save(root / "imgs/a.png"), ["imgs/a.png: changed since it was labelled"],
    ),
    "an input of the same size and another content": (
        both(edit("imgs/a.png", lambda data: data[:-1] + bytes([data[-1] ^ 1])), touch("imgs/a.png")),
        ["imgs/a.png: changed since it was labelled"],
    ),
    "an input that got damaged and kept its time": (
        keep_time("imgs/a.png", edit("imgs/a.png", lambda data: bytes(len(data)))),
        ["imgs/a.png: not an image in a format that Pillow reads"],
    ),
    "sizes that are those before it was turned": (
        both(
            entry("sub/b c.jpg", lambda r: r.update(height=5, width=7)),
            remove("out/confidence/sub/b c.png"),
            remove("out/masks/sub/b c.png"),
        ),
        [
            "out/masks/sub/b c.png: no such file",
            "out/confidence/sub/b c.png: no such file",
            "imgs/sub/b c.jpg: 7 x 5 (height x width), but labelled as 5 x 7 (height x width)",
        ],
    ),
    # what else is there
    "a mask of no image": (write("out/masks/x.png", b"x"), ["out/masks/x.png: it belongs to no image in the manifest"]),
    "files that are no pictures of images": (
        both(*(write(f"out/masks/{name}", b"") for name in ("labelmap.txt", ".DS_Store", "._a.png"))), [],
    ),
    "an image without its entry, and one label less by run.json": (
        both(edit(MANIFEST, drop_line(b"a.png")), edit_json(RUN, lambda r: r.update(counts={**COUNTS, "labelled": 2}))),
        [
            "out/masks/a.png: it belongs to no image in the manifest",
            "out/overlays/a.jpg: it belongs to no image in the manifest",
            "out/confidence/a.png: it belongs to no image in the manifest",
        ],
    ),
    "a temporary file": (
        write("out/masks/sub/.tipsseg-1a2b.png", b"x"),
        ["out/masks/sub/.tipsseg-1a2b.png: left by a killed process; remove it"],
    ),
    "a temporary folder": (
        both(write("out/.tipsseg-x/.tipsseg-y", b""), write("out/.tipsseg-x/run.json", b"")),
        ["out/.tipsseg-x: left by a killed process; remove it"],
    ),
    "a lock that nobody holds": (
        write("out/.tipsseg-lock", b""), ["out/.tipsseg-lock: left by a killed process; remove it"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_found_where_it_is(root: Path, change: Change, expected: list[str]) -> None:
    change(root)
    found = problems(root, images=root / "imgs")
    # Where another library says what is wrong, in its own words, the beginning is enough.
    shown = [
        f"{line[: len(text) - 3]}..." if text.endswith("...") else line
        for line, text in zip(found, expected, strict=False)
    ]
    assert (shown, len(found)) == (expected, len(expected))


def build_shards(root: Path, count: int = 2) -> None:
    save_inputs(root / "imgs", LABELS)
    for index in range(1, count + 1):
        make_run(root / "out", root / "imgs", shard=Shard(index, count))


def move(source: str, target: str) -> Change:
    def apply(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / source).rename(root / target)

    return apply


ONE, TWO = "out/shards/1-of-2", "out/shards/2-of-2"

SHARD_FAULTS: dict[str, tuple[Change, list[str]]] = {
    "nearly all of very many are missing": (
        both(move(TWO, "elsewhere"), move(ONE, "out/shards/1-of-999999999"), edit_json(
            "out/shards/1-of-999999999/run.json", lambda r: r.update(shard="1/999999999"))),
        [
            "out/shards: of 999999999 shards, these are missing: 2-999999999; label them with argument `shard`=I/999999999",
            "out/shards/1-of-999999999/annotations.json: not listed in run.json",
            *(f"out/shards/1-of-999999999/manifest.jsonl: {name}: not an image of shard 1/999999999"
              for name in ("a.png", "sub/ü.png")),
        ],
    ),
    "shards of two runs": (
        both(lambda root: shutil.copytree(root / ONE, root / "out/shards/1-of-3")),
        [
            "out/shards: shards of 2 and 3 parts, but all shards of a run have the same number of parts",
            f'out/shards/1-of-3/run.json: {VERSION}: `shard` is "1/2", which does not match the folder name',
        ],
    ),
    "a shard without run.json": (remove(f"{TWO}/run.json"), [f"{TWO}/run.json: no such file"]),
    "a shard without its manifest": (
        remove(f"{TWO}/manifest.jsonl"),
        [
            f"{TWO}/manifest.jsonl: it has 0 images, but run.json counts 1; {DONE_AGAIN}",
        ],
    ),
    "a shard with other settings": (
        edit_json(f"{TWO}/run.json", lambda r: r.update(digest="f" * 32)),
        [
            f"{TWO}/run.json: its settings differ from {ONE}/run.json",
        ],
    ),
    "an image of another shard": (
        lambda root: write(
            f"{ONE}/manifest.jsonl", (root / ONE / "manifest.jsonl").read_bytes() + (root / TWO / "manifest.jsonl").read_bytes()
        )(root),
        [
            f"{ONE}/manifest.jsonl: sub/b c.jpg: not an image of shard 1/2",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), SHARD_FAULTS.values(), ids=SHARD_FAULTS.keys())
def test_shards_are_checked_together(tmp_path: Path, change: Change, expected: list[str]) -> None:
    build_shards(tmp_path)
    change(tmp_path)
    assert problems(tmp_path) == expected


def notes(root: Path, capsys: pytest.CaptureFixture[str], images: Path | None = None) -> list[str]:
    problems(root, images=images, progress=Progress(quiet=False))
    return capsys.readouterr().err.replace(f"{root}/", "").splitlines()


def test_images_of_other_settings_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry("a.png", lambda r: r.update(digest="f" * 32))(root)
    assert "1 image labelled with settings that differ from run.json." in notes(root, capsys)


def test_an_input_may_be_copied(root: Path) -> None:
    touch("imgs/a.png")(root)
    assert problems(root, images=root / "imgs") == []


@pytest.mark.parametrize("jobs", [1, 5])
def test_problems_come_in_the_order_of_names(tmp_path: Path, jobs: int) -> None:
    labels = {f"{number:02}.png": NOTHING for number in range(30)}
    build(tmp_path, labels, formats=("png",))
    masks = [f"out/masks/{name}" for name in labels]
    both(*map(remove, masks))(tmp_path)
    assert problems(tmp_path, jobs=jobs) == [f"{path}: no such file" for path in masks]


def test_a_folder_in_which_a_run_is_at_work_is_left_to_it(root: Path) -> None:
    claim = FolderLock(root / "out")
    try:
        assert problems(root) == ["out: a run is in progress; check again when it has finished"]
    finally:
        claim.give_back()
    assert problems(root) == []


def test_a_run_that_was_broken_off_is_checked_for_what_it_has(root: Path) -> None:
    edit_json(RUN, lambda r: r.update(ended=None, counts=None))(root)
    both(remove(COCO), remove(MASK), write("out/.tipsseg-coco", b""), write("out/masks/x.png", b""))(root)
    assert problems(root) == [f"{RUN}: the run was interrupted; run the same command again", f"{MASK}: no such file"]


def test_a_line_end_in_a_name_does_not_break_the_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\nb\rc\xff.png")
    build(tmp_path, {name: NOTHING}, formats=("png",))
    remove(f"out/masks/{name}")(tmp_path)
    assert problems(tmp_path) == ["out/masks/a\\nb\\rc\\udcff.png: no such file"]


def test_annotations_of_no_image_need_not_be_there(tmp_path: Path) -> None:
    build(tmp_path, {})
    assert problems(tmp_path) == []
    remove(COCO)(tmp_path)
    assert problems(tmp_path) == []


def test_a_shard_at_work_is_left_to_it(tmp_path: Path) -> None:
    build_shards(tmp_path)
    claim = FolderLock(tmp_path / TWO)
    try:
        assert problems(tmp_path) == [f"{TWO}: a run is in progress; check again when it has finished"]
    finally:
        claim.give_back()


def test_a_folder_of_images_whose_name_is_no_text(tmp_path: Path) -> None:
    images = tmp_path / os.fsdecode(b"imgs-\xff")
    save_inputs(images, {"a.png": A})
    make_run(tmp_path / "out", images, {"a.png": A})
    assert problems(tmp_path) == []
    (images / "a.png").write_bytes(b"another")
    assert problems(tmp_path) == ["imgs-\\udcff/a.png: changed since it was labelled"]


def test_the_command_to_join_shards_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "a b"
    build_shards(root)
    # Quoted for its space, which `notes` cuts away with the rest of the root.
    assert notes(root, capsys)[0] == "All 2 shards are finished; join them: tipsseg merge 'out' -o 'out'"


def test_failures_of_all_shards_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_shards(tmp_path)
    for folder, failed in ((ONE, 1), (TWO, 2)):
        edit_json(f"{folder}/run.json", lambda r: r["counts"].update(failed=failed))(tmp_path)  # type: ignore[attr-defined]  # noqa: B023
    assert notes(tmp_path, capsys)[:2] == [
        f"1 image failed, see {ONE}/errors.jsonl",
        f"2 images failed, see {TWO}/errors.jsonl",
    ]


def test_a_folder_that_has_none_of_the_images_is_the_wrong_one(root: Path, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    assert problems(root, images=root / "others") == ["others: none of the images is in this folder"]
