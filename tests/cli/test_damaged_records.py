"""`tipsseg label` on folders whose records are damaged, lost or forged, or vanish while it is at work."""

from __future__ import annotations

import json
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from resuming import ALL, CLASSES, Run, contents, correct, tree

import tipsseg

NOT_OURS = "tipsseg did not write this file, or it was changed since"


# ---- damaged records ----


@pytest.mark.parametrize("data", [None, b"", b"{", b"\0" * 40, b'{"image": "a.png"}\n'], ids=repr)
@pytest.mark.parametrize("name", ["manifest.jsonl", ".tipsseg/state.db"])
def test_one_of_the_database_and_its_export_is_made_of_the_other(run: Run, name: str, data: bytes | None) -> None:
    run()
    before, path = contents(Path("out")), Path("out", name)
    path.unlink() if data is None else path.write_bytes(data)
    err = run()
    assert (run.code, run.labelled, contents(Path("out"))) == (0, [], before)
    assert ("rebuilt it from" in err) == (name != "manifest.jsonl" and data is not None)
    assert run.command("check", "out").code == 0
    assert path.exists()


@pytest.mark.parametrize("data", [None, b"", b"{}\n"], ids=repr)
def test_check_compares_the_manifest_with_the_database(run: Run, data: bytes | None) -> None:
    run("-f", "png")
    path = Path("out/manifest.jsonl")
    before = path.read_bytes()
    path.unlink() if data is None else path.write_bytes(before + data if data else b"")
    what = "missing" if data is None else "changed since it was written"
    checked = run.command("check", "out")
    assert checked.out == f"out/manifest.jsonl: {what}; run the original command again, which writes it again\n"
    assert "3 images, 3 files checked: 1 problem." in checked.err
    run("-f", "png")
    assert (run.labelled, path.read_bytes(), run.command("check", "out").out) == ([], before, "")


OTHERS = {
    "label": "label imgs -c a,b --device cpu -o out -m",
    "convert": "convert out -f coco",
    "check": "check out",
    "correct": "correct out --from new",
    "merge": "merge out -o joined",
    "rank": "rank out",
    "report": "report out",
    "fit": "fit out -o out.fit",
}


def of_another_version(name: str) -> None:
    if name.endswith("run.json"):
        path = Path("out", name)
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"schema": 0}))
    else:
        with closing(sqlite3.connect(Path("out", name))) as database, database:
            database.execute("CREATE TABLE other (name TEXT)")


@pytest.mark.parametrize("name", ["run.json", ".tipsseg/state.db"])
@pytest.mark.parametrize("asked", OTHERS.values(), ids=OTHERS)
def test_no_command_reads_the_records_of_another_version(run: Run, name: str, asked: str) -> None:
    run("-f", "png")
    shutil.copytree("out/masks", "new")
    of_another_version(name)
    before = tree(".")
    ran = run.command(*asked.split(), *([run.model] if asked.endswith("-m") else []))
    assert (ran.code, ran.out) == (1, ""), ran.err
    assert "out: its records are from another version of tipsseg" in ran.err
    assert tree(".") == before


@pytest.mark.parametrize("name", ["run.json", ".tipsseg/state.db"])
@pytest.mark.parametrize("shard", [(), ("--shard", "1/1")])
def test_masks_of_another_version_are_taken_into_a_new_folder(run: Run, name: str, shard: tuple[str, ...]) -> None:
    run("-f", "png", *shard)
    correct(Path("out/masks/a.png"))
    of_another_version(f"shards/1-of-1/{name}" if shard else name)
    label, take = (shlex.split(line)[1:] for line in run("-f", "png", *shard).splitlines()[-2:])
    if name == "run.json":
        assert run.command(*label).code == 0
    else:  # which has no command line
        assert label == ["label", "IMAGES", "--classes", "CLASSES", "-o", "out-2"]
        run("-f", "png", output="out-2")
    assert run.command(*take).out == "out-2/masks/a.png\n"
    with Image.open("out-2/masks/a.png") as mask, Image.open("out/masks/a.png") as edited:
        assert mask.tobytes() == edited.tobytes()


def test_a_manifest_that_lost_lines_is_told_of_and_they_are_done_again(run: Run) -> None:
    run()
    before = contents(Path("out"))
    path = Path("out/manifest.jsonl")
    shutil.rmtree("out/.tipsseg")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert "it has 1 images, but run.json counts 3" in run.command("check", "out").out
    assert "manifest.jsonl lacks 2 images that run.json counts; include them to label them again.\n" in run()
    assert (run.code, run.labelled, contents(Path("out"))) == (0, ALL[1:], before)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda lines: lines[:1], "it lacks 2 of the 3 images that run.json counts"),
        (lambda lines: [*lines[:2], b"{}\n"], "line 3 is not a valid entry"),
        (lambda lines: [*lines[:2], lines[2][:90]], "it lacks 1 of the 3 images that run.json counts"),
    ],
    ids=["lost", "unreadable", "cut off"],
)
def test_no_command_passes_over_images_that_a_manifest_lost(
    run: Run, damage: Callable[[list[bytes]], list[bytes]], error: str
) -> None:
    run("-f", "png")
    path = Path("out/manifest.jsonl")
    shutil.rmtree("out/.tipsseg")
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    before = tree(".")
    commands = ("rank out", "report out", "convert out -f labelme", "fit out -o my.fit")
    said = [run.command(*each.split()) for each in commands]
    assert {(ran.code, ran.out) for ran in said} == {(1, "")}
    assert {ran.err for ran in said} == {said[0].err}
    assert said[0].err.startswith(f"Error: out/manifest.jsonl: {error}")
    assert "\nHint: " in said[0].err
    assert tree(".") == before


def test_a_corrected_mask_of_which_the_record_is_lost_is_kept(run: Run) -> None:
    run()
    data = correct(Path("out/masks/a.png"))
    path = Path("out/manifest.jsonl")
    shutil.rmtree("out/.tipsseg")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    err = run()
    assert run.code == 1
    assert f"out/masks/a.png: {NOT_OURS}" in err
    assert Path("out/masks/a.png").read_bytes() == data


# ---- forged records ----


@pytest.fixture
def victim() -> Path:
    """What nobody may touch."""
    folder = Path("victim")
    folder.mkdir()
    shutil.copy("imgs/a.png", folder / "pw.png")
    (folder / "file").write_text("mine")
    return folder


@pytest.mark.parametrize(
    "name",
    ["../../victim/pw.jpg", "../victim/pw.jpg", "/tmp/pw.jpg", "sub/../../victim/pw.jpg", "", ".", "a\0b"],
    ids=ascii,
)
def test_a_name_that_leads_out_is_no_failure_to_try_again(run: Run, victim: Path, name: str) -> None:
    run("-f", "png,yolo,labelme")
    forged = {"image": name, "path": str(Path("imgs/a.png").resolve()), "reason": "", "hint": ""}
    Path("out/errors.jsonl").write_text(json.dumps(forged) + "\n")
    outside = {name: data for name, data in tree(".").items() if not name.startswith("out/")}
    run("--retry-failed", "-f", "png,yolo,labelme")
    assert run.labelled == []
    assert {name: data for name, data in tree(".").items() if not name.startswith("out/")} == outside


#: A link in the place of a record or of a folder, and whether there has been a run before.
LINKS = [
    *((name, begun) for name in ("manifest.jsonl", "errors.jsonl", "run.json", "masks") for begun in (False, True)),
    *((name, True) for name in ("classes.json", "annotations.json", ".tipsseg-lock", ".tipsseg")),
]


@pytest.mark.parametrize(("name", "begun"), LINKS)
def test_no_link_is_written_through(run: Run, victim: Path, name: str, begun: bool) -> None:
    if begun:
        run()
    Path("out").mkdir(exist_ok=True)
    place, target = Path("out", name), victim / name
    if place.exists():
        place.rename(target)
    elif name == "masks":
        target.mkdir()
    else:
        target.write_text("mine")
    place.symlink_to(f"../{target}")
    Path("imgs/bad.png").write_bytes(b"")
    shutil.copy("imgs/a.png", "imgs/new.png")
    before = tree(victim)
    for options in ([], ["--overwrite"]):
        run(*options)
        assert tree(victim) == before, options


# ---- what vanishes while the run goes on ----


@pytest.mark.parametrize("what", ["out/masks", "out/.tipsseg/state.db"])
def test_what_is_removed_while_the_run_goes_on_is_told(run: Run, what: str) -> None:
    results = tipsseg.iter_label_folder("imgs", CLASSES.split(","), output="out", model=str(run.model), device="cpu")
    for result in results:
        if result.path == Path("imgs", ALL[-1]):
            shutil.rmtree(what) if Path(what).is_dir() else Path(what).unlink()
            break
    with pytest.raises(tipsseg.OutputError, match=f"cannot write {what}.*: it was removed during the run"):
        list(results)
    run()
    run(output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))
    assert run.command("check", "out").code == 0


@pytest.mark.parametrize("edited", [False, True])
def test_a_link_of_somebody_else_is_not_replaced(run: Run, edited: bool) -> None:
    """Also not for an image whose mask was corrected, and whose other formats follow from it."""
    run("-f", "png")
    if edited:
        correct(Path("out/masks/a.png"))
    place = Path("out/yolo/images/train/a.png")
    place.parent.mkdir(parents=True)
    place.symlink_to("../../../notes")
    run.command("convert", "out", "-f", "png,yolo")
    assert place.readlink() == Path("../../../notes")
    place.unlink()
    run.command("convert", "out", "-f", "png,yolo")
    assert place.resolve() == Path("imgs/a.png").resolve()
    assert Path("out/yolo/labels/train/a.txt").exists()


def test_ids_keep_their_meaning_where_the_manifest_is_lost(run: Run) -> None:
    run()
    Path("out/manifest.jsonl").unlink()
    shutil.rmtree("out/.tipsseg")
    before = tree("out")
    assert "it holds labels of another run: the classes differ" in run(options=("-c", "tree"))
    assert (run.code, run.labelled, tree("out")) == (1, [], before)
    run()
    assert (run.code, run.labelled) == (0, ALL)


def test_another_shard_has_the_same_ids(run: Run) -> None:
    run("--shard", "1/2")
    before = tree("out")
    assert "it holds labels of another run: the classes differ" in run("--shard", "2/2", options=("-c", "tree"))
    assert (run.code, run.labelled, tree("out")) == (1, [], before)


def test_shards_are_not_behind_a_link(run: Run, victim: Path) -> None:
    before = tree(victim)
    Path("out").mkdir()
    Path("out/shards").symlink_to("../victim")
    assert "a link leads out of the output folder" in run("--shard", "1/2")
    assert (run.code, run.labelled, tree(victim)) == (1, [], before)
