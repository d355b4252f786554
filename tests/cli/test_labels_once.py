"""The masks are the labels, and a person's work is kept; all other files are derived from them, again and again."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masks import pixels
from PIL import Image
from resuming import ALL, CLASSES, Run, contents, correct, tree

from tipsseg.folder.files import Files, StagedFile
from tipsseg.folder.folder import OutputFolder

CACHE_DAMAGED = "out/.tipsseg/cache.db: the cache is damaged"
MASK, LABELME = Path("out/masks/a.png"), Path("out/labelme/a.json")


def entry(image: str = "a.png", output: str = "out") -> dict[str, object]:
    lines = Path(output, "manifest.jsonl").read_bytes().splitlines()
    found: dict[str, object] = next(each for each in map(json.loads, lines) if each["image"] == image)
    return found


def trashed(output: str = "out") -> dict[str, bytes]:
    """The files in the trash, by the places that they had."""
    tops = list(Path(output, "replaced").glob("*"))
    return {str(path.relative_to(top)): path.read_bytes() for top in tops for path in top.rglob("*") if path.is_file()}


def edit_labelme(path: Path = LABELME) -> bytes:
    """Give another class to all shapes."""
    record = json.loads(path.read_bytes())
    for shape in record["shapes"]:
        shape["label"] = "tree" if shape["label"] != "tree" else "sky"
    path.write_text(json.dumps(record))
    return path.read_bytes()


# ---- corrected is a state ----


@pytest.mark.parametrize("how", ["the model's file", "the model's labels"])
def test_a_mask_that_is_set_back_to_the_models(run: Run, how: str) -> None:
    """The model's own file says that the model made it; a person's program writes a person's labels."""
    run("-f", "png")
    before = MASK.read_bytes()
    correct(MASK)
    run("-f", "png")
    if how == "the model's file":
        MASK.write_bytes(before)
    else:
        Image.fromarray(np.asarray(Image.open(BytesIO(before)))).save(MASK)
    run("-f", "png")
    assert (run.code, run.labelled, pixels(MASK)) == (0, [], pixels(before))
    assert ("corrected" in entry()) == (how == "the model's labels")
    Image.new("RGB", (90, 60), "red").save("imgs/a.png")
    run("-f", "png")
    assert run.labelled == ([] if "corrected" in entry() else ["a.png"])


def test_an_undone_correction_is_labelled_by_the_next_run(run: Run) -> None:
    """A program dropped what the model's mask said, so that no copy of it is known."""
    run("-f", "png,coco")
    model = contents(Path("out"))
    mine = correct(MASK)
    run("-f", "png,coco")
    assert run.command("correct", "out", "--undo", "a.png", "--dry-run").code == 0
    run("-f", "png,coco")
    assert (run.labelled, pixels(MASK)) == ([], pixels(mine))
    ran = run.command("correct", "out", "--undo", "a.png")
    assert (ran.code, MASK.exists(), pixels(trashed()["masks/a.png"])) == (0, False, pixels(mine))
    assert "The next run labels 1 image again: a.png." in ran.err
    run("-f", "png,coco")
    assert (run.labelled, contents(Path("out"))) == (["a.png"], model)


@pytest.mark.parametrize("how", ["of another size", "of unknown ids", "no image"])
def test_a_corrected_mask_that_cannot_be_used_fails_its_image_and_can_be_undone(run: Run, how: str) -> None:
    run("-f", "png,coco")
    fresh = contents(Path("out"))
    correct(MASK)
    other = correct(Path("out/masks/sub/b c.png"))
    run("-f", "png,coco")
    lists = Path("out/annotations.json").read_bytes()
    if how == "no image":
        MASK.write_text("mine")
    else:
        Image.fromarray(np.full((60, 90 - (how == "of another size")), 9, np.uint8)).save(MASK)
    bad = MASK.read_bytes()
    err = run("-f", "png,coco")
    assert (run.code, run.labelled, Path("out/annotations.json").read_bytes()) == (1, [], lists)
    assert ("out/masks/a.png" in err, "--undo" in err or "delete" in err, MASK.read_bytes()) == (True, True, bad)
    assert run.command("correct", "out", "--undo", "a.png").code == 0
    assert trashed()["masks/a.png"] == bad
    run("-f", "png,coco")
    assert (run.code, run.labelled, MASK.read_bytes()) == (0, ["a.png"], fresh["masks/a.png"])
    assert pixels(Path("out/masks/sub/b c.png")) == pixels(other)


@pytest.mark.parametrize("words", [["--replace-edited"], ["--overwrite"]], ids=str)
def test_a_mask_that_cannot_be_read_is_replaced_only_on_request(run: Run, words: list[str]) -> None:
    run("-f", "png")
    before = MASK.read_bytes()
    MASK.write_bytes(b"")
    run("-f", "png", *words)
    replaces = words == ["--replace-edited"]
    assert (run.code, MASK.read_bytes()) == ((0, before) if replaces else (1, b""))
    assert trashed() == ({"masks/a.png": b""} if replaces else {})


def test_a_folder_in_the_place_of_a_mask_is_named(run: Run) -> None:
    run("-f", "png,coco")
    lists = Path("out/annotations.json").read_bytes()
    MASK.unlink()
    MASK.mkdir()
    run("-f", "png,coco")
    assert (run.code, Path("out/annotations.json").read_bytes()) == (1, lists)
    ran = run.command("check", "out")
    assert (ran.code, "out/masks/a.png: it is not a file" in ran.out) == (1, True)


def test_a_corrected_mask_that_is_gone_is_labelled_again(run: Run) -> None:
    run("-f", "png,coco")
    fresh = contents(Path("out"))
    correct(MASK)
    run("-f", "png,coco")
    MASK.unlink()
    run("-f", "png,coco")
    assert (run.code, run.labelled, contents(Path("out"))) == (0, ["a.png"], fresh)


def test_the_original_command_goes_on_after_a_class_was_added(run: Run) -> None:
    run("-f", "png,coco")
    shape = {"label": "kite", "points": [[0, 4], [30, 50]], "shape_type": "rectangle"}
    Path("new").mkdir()
    Path("new/a.json").write_text(json.dumps({"shapes": [shape], "imageHeight": 60, "imageWidth": 90}))
    assert run.command("correct", "out", "--from", "new", "--add-classes").code == 0
    assert [each["name"] for each in entry()["classes"]] == ["kite"]  # type: ignore[attr-defined]
    Path("out/masks/sub/b c.png").unlink()
    for lost in (False, True):
        if lost:
            shutil.rmtree("out/.tipsseg")
        run("-f", "png,coco")
        assert (run.code, run.labelled) == (0, [] if lost else ["sub/b c.jpg"])
        names = [each["name"] for each in json.loads(Path("out/classes.json").read_bytes())["classes"]]
        assert names == ["panda leg", "tree", "sky", "kite"]
        assert run.command("check", "out").out == ""


# ---- derived files ----


def test_files_that_are_written_later_are_those_of_a_fresh_run(run: Run) -> None:
    formats = "coco,yolo,labelme,overlay,csv,hf,cvat,panoptic,binary,cutouts"
    run("-f", "npz")
    for name in formats.split(","):
        assert run.command("convert", "out", "-f", name).code == 0
    run("-f", "png", "--min-area", "20")
    assert (run.code, run.labelled) == (0, [])
    run("-f", f"npz,{formats},png", "--min-area", "20", output="fresh")
    ours, fresh = contents(Path("out")), contents(Path("fresh"))
    assert ours.keys() == fresh.keys()
    assert [name for name in ours if ours[name] != fresh[name] and name != "manifest.jsonl"] == []


@pytest.mark.parametrize("name", ["labelme", "annotations.json", "hf", "cvat", "overlays", "labels.csv"])
def test_an_edited_file_is_kept_while_the_labels_stay_and_then_goes_to_the_trash(run: Run, name: str) -> None:
    formats = ("-f", "png,labelme,coco,hf,cvat,overlay,csv")
    run(*formats)
    path = top = Path("out", name)
    if not top.is_file():
        path = next(path for path in sorted(top.rglob("a.*")) if "images" not in path.parts)
    mine = path.read_bytes() + b" "
    path.write_bytes(mine)
    for _ in range(2):
        err = run(*formats)
        assert (run.code, path.read_bytes(), str(path) in err, trashed()) == (0, mine, True, {})
        assert (f"tipsseg correct out --from {top}" in err) == (name in ("labelme", "annotations.json", "hf", "cvat"))
    correct(MASK)
    err = run(*formats)
    assert (run.code, trashed()) == (0, {str(path.relative_to("out")): mine})
    assert "Moved 1 file that may be somebody's work to out/replaced: replaced/" in err
    run(*formats, "--overwrite", "--replace-edited")
    assert (run.code, run.command("check", "out").out) == (0, "")
    run(*formats, output="fresh")
    ours, fresh = contents(Path("out")), contents(Path("fresh"))
    assert [name for name in fresh if ours[name] != fresh[name] and name != "manifest.jsonl"] == []


def test_an_edited_file_is_kept_in_a_merge_and_where_only_options_change(run: Run) -> None:
    run("-f", "png,labelme")
    path = next(Path("out/labelme").rglob("a.json"))
    mine = path.read_bytes() + b" "
    path.write_bytes(mine)
    err = run("-f", "png,labelme", "--min-area", "20")
    assert (run.code, path.read_bytes(), str(path) in err, trashed()) == (0, mine, True, {})
    assert run.command("merge", "out", "-o", "joined").code == 0
    copy = Path("joined") / path.relative_to("out")
    assert copy.read_bytes() == mine
    assert f"{copy}: changed by hand" in run.command("check", "joined").err


def test_a_file_that_was_imported_is_written_again(run: Run) -> None:
    """It shows the labels of now then, and the person's file is in the trash."""
    formats = ("-f", "png,labelme,overlay")
    run(*formats)
    mine = edit_labelme()
    overlay = Path("out/overlays/a.jpg")
    overlay.write_bytes(overlay.read_bytes() + b"mine")
    ran = run.command("correct", "out", "--from", "out/labelme")
    assert (ran.code, trashed()["labelme/a.json"], "labelme/a.json" in ran.err) == (0, mine, True)
    shown = LABELME.read_bytes()
    assert shown != mine
    assert "labelme" not in run(*formats)
    assert LABELME.read_bytes() == shown
    assert run.command("check", "out").out == ""


def test_a_file_of_another_program_is_never_destroyed(run: Run) -> None:
    """A mask that nobody can read fails its image; files in the way of derived ones go to the trash."""
    foreign = dict.fromkeys(("masks/a.png", "labelme/sub/b c.json", "annotations.json"), b"mine")
    for path in foreign:
        Path("out", path).parent.mkdir(parents=True, exist_ok=True)
        Path("out", path).write_bytes(b"mine")
    for _ in range(2):
        err = run("-f", "png,labelme,coco")
        assert (run.code, MASK.read_bytes(), str(MASK) in err) == (1, b"mine", True)
    assert trashed() == {path: data for path, data in foreign.items() if path != "masks/a.png"}
    MASK.unlink()
    run("-f", "png,labelme,coco")
    assert (run.code, run.labelled) == (0, ["a.png"])
    run("-f", "png,labelme,coco", output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))


def test_a_persons_mask_that_was_there_before_the_run_counts(run: Run) -> None:
    MASK.parent.mkdir(parents=True)
    Image.fromarray(np.full((60, 90), 2, np.uint8)).save(MASK)
    before = pixels(MASK)
    run("-f", "png,coco")
    assert (run.code, run.labelled, pixels(MASK), "corrected" in entry()) == (0, ALL[1:], before, True)


def test_without_its_picture_a_file_of_older_labels_goes(run: Run) -> None:
    run("-f", "png,overlay,coco")
    shutil.move("imgs", "moved")
    correct(MASK)
    ran = run.command("convert", "out", "-f", "coco")
    assert (ran.code, Path("out/overlays/a.jpg").exists()) == (0, False)
    assert "tipsseg convert out --format overlay --images FOLDER" in ran.err
    assert run.command("convert", "out", "-f", "overlay", "--images", "moved").code == 0
    assert Path("out/overlays/a.jpg").exists()
    assert run.command("check", "out", "--images", "moved").out == ""


def test_links_follow_pictures_that_moved(run: Run) -> None:
    run("-f", "png,hf,labelme")
    correct(MASK)
    run("-f", "png,hf,labelme")
    shutil.move("imgs", "moved")
    assert run.command("convert", "out", "-f", "hf", "--images", "moved").code == 0
    assert run.command("check", "out").out == ""
    ran = run.command("convert", "out", "-f", "hf", "--images", "moved")
    assert "0 images converted" in ran.err


def test_a_format_ends_and_an_edited_file_of_it_goes_to_the_trash(run: Run) -> None:
    run("-f", "png,labelme,coco")
    mine = edit_labelme()
    ran = run.command("convert", "out", "--drop", "labelme")
    assert (ran.code, str(LABELME.relative_to("out")) in ran.err) == (0, True)
    assert (Path("out/labelme").exists(), trashed()) == (False, {"labelme/a.json": mine})
    assert run.command("convert", "out", "--drop", "png").code == 2
    run("-f", "coco")
    assert not Path("out/labelme").exists()
    assert run.command("check", "out").out == ""


def test_several_formats_end_at_once(run: Run) -> None:
    run("-f", "png,coco,yolo,labelme")
    ran = run.command("convert", "out", "--drop", "yolo,labelme", "--drop", "coco")
    assert (ran.code, "no longer has the format yolo and labelme and coco" in ran.err) == (0, True)
    assert not Path("out/annotations.json").exists()
    assert not list(Path("out").rglob("*.txt"))
    assert run.command("convert", "out", "--drop", "yolo").code == 0  # as after an interruption at the end
    assert run.command("check", "out").out == ""


def test_colours_that_are_not_given_are_those_of_the_folder(run: Run) -> None:
    Path("v.toml").write_text(
        'classes = [{name = "panda leg", colour = "#112233", supercategory = "beast"}, "tree", "sky"]\n'
    )
    run("-f", "png,overlay,csv", options=("--vocab", "v.toml"))
    before = contents(Path("out"))
    run("-f", "png,overlay,csv")
    assert (run.code, run.labelled, contents(Path("out"))) == (0, [], before)


def test_only_some_images_are_in_a_format(run: Run) -> None:
    run("-f", "png")
    Path("list.txt").write_text("imgs/a.png\n")
    assert run.command("convert", "out", "-f", "coco", "--only", "list.txt").code == 0
    run("-f", "png")
    listed = json.loads(Path("out/annotations.json").read_bytes())["images"]
    assert [each["file_name"] for each in listed] == ["a.png"]


# ---- one record ----


@pytest.mark.parametrize("formats", ["png,coco,labelme,yolo,hf", "coco"])
@pytest.mark.parametrize("damage", ["gone", "damaged", "empty"])
def test_a_lost_cache_changes_nothing(run: Run, formats: str, damage: str) -> None:
    run("-f", formats)
    correct(MASK)
    run("-f", formats)
    before = contents(Path("out"))
    shutil.copytree("out/masks", "truth")
    words = [("report", "out"), ("eval", "out", "--gt", "truth"), ("convert", "out", "-f", "png"), ("check", "out")]
    label = ("label", "imgs", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-f", formats, "-o", "out")
    for each in (*words, label):
        if damage == "gone":
            shutil.rmtree("out/.tipsseg", ignore_errors=True)
        else:
            Path("out/.tipsseg/cache.db").write_bytes(b"damaged" if damage == "damaged" else b"")
        run.labelled.clear()
        ran = run.command(*each)
        found = {name: data for name, data in contents(Path("out")).items() if not name.startswith("report/")}
        assert (ran.code, run.labelled, found, trashed()) == (0, [], before, {}), each
    assert run.command("check", "out").out == ""


@pytest.mark.parametrize("name", ["labelme/a.json", "annotations.json", "overlays/a.jpg"])
def test_without_a_cache_an_edited_file_goes_to_the_trash(run: Run, name: str) -> None:
    """Nobody knows which labels it shows."""
    run("-f", "png,labelme,coco,overlay")
    before, path = contents(Path("out")), Path("out", name)
    mine = path.read_bytes() + b" "
    path.write_bytes(mine)
    shutil.rmtree("out/.tipsseg")
    run("-f", "png,labelme,coco,overlay")
    assert (run.code, run.labelled, contents(Path("out")), trashed()) == (0, [], before, {name: mine})


def test_lists_that_are_lost_are_written_again(run: Run) -> None:
    run("-f", "png,coco")
    mine = correct(MASK)
    run("-f", "png,coco")
    before = contents(Path("out"))
    for name in ("manifest.jsonl", "classes.json", "annotations.json"):
        Path("out", name).unlink()
    shutil.rmtree("out/.tipsseg")
    run("-f", "png,coco")
    assert (run.code, run.labelled, pixels(MASK), contents(Path("out"))) == (0, [], pixels(mine), before)


def test_a_lost_record_of_the_run_is_written_again_by_the_same_command(run: Run) -> None:
    run("-f", "png,coco")
    mine = correct(MASK)
    run("-f", "png,coco")
    before = contents(Path("out"))
    Path("out/run.json").unlink()
    kept = tree("out")
    for words in (("convert", "out", "-f", "csv"), ("report", "out"), ("check", "out")):
        ran = run.command(*words)
        assert (ran.code, "run.json is missing" in ran.err + ran.out) == (1, True), words
    assert tree("out") == kept
    run("-f", "png,coco")
    assert (run.code, run.labelled, pixels(MASK), contents(Path("out"))) == (0, [], pixels(mine), before)


def test_files_of_other_tools_are_no_problems(run: Run) -> None:
    """As ultralytics leaves one; only a mask that belongs to no image would be read."""
    run("-f", "png,yolo")
    cache, mask = Path("out/yolo/labels/train.cache"), Path("out/masks/strange.png")
    cache.write_text("theirs")
    ran = run.command("check", "out")
    assert (ran.code, ran.out, str(cache) in ran.err) == (0, "", True)
    mask.write_text("mine")
    ran = run.command("check", "out")
    assert (ran.code, str(mask) in ran.out, str(cache) in ran.out) == (1, True, False)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE image SET sealed = x'00'",
        "UPDATE image SET objects = x'00'",
        "UPDATE row SET data = x'00'",
    ],
)
def test_a_cache_with_damaged_values_has_a_way_on(run: Run, statement: str) -> None:
    Path("imgs/broken.png").write_bytes(b"not an image")
    run("-f", "png,coco,csv")
    mine = correct(MASK)
    with closing(sqlite3.connect("out/.tipsseg/cache.db", isolation_level=None)) as other:
        other.execute(statement)
    if CACHE_DAMAGED in run("-f", "png,coco,csv"):
        Path("out/.tipsseg/cache.db").unlink()
        run("-f", "png,coco,csv")
    assert (run.code, run.labelled, pixels(MASK)) == (1, [], pixels(mine))
    after = contents(Path("out"))
    shutil.rmtree("out/.tipsseg")
    run("-f", "png,coco,csv")
    assert (run.code, run.labelled, contents(Path("out"))) == (1, [], after)


@pytest.mark.parametrize("seed", range(12))
def test_a_cache_with_random_damage_has_a_way_on(run: Run, seed: int) -> None:
    """In its tables and in its schema: a command goes on, or says that the cache may be deleted."""
    run("-f", "png,coco")
    before, path, rng = contents(Path("out")), Path("out/.tipsseg/cache.db"), np.random.default_rng(seed)
    noise = (rng.bytes(40), b"\xaa" * 40, bytes(40), bytes(rng.integers(97, 123, 40).tolist()))[seed % 4]
    for top in (len(path.read_bytes()), 4096):
        data = bytearray(path.read_bytes())
        at = int(rng.choice(np.flatnonzero(np.frombuffer(data[: top - 40], np.uint8))))
        data[at : at + 40] = noise
        path.write_bytes(data)
        checked = run.command("check", "out")
        if CACHE_DAMAGED in run("-f", "png,coco") or CACHE_DAMAGED in checked.err:
            path.unlink(missing_ok=True)
            run("-f", "png,coco")
        assert (run.code, run.labelled, contents(Path("out")), trashed()) == (0, [], before, {})
        assert run.command("check", "out").out == ""


def test_masks_of_an_archive_are_known_without_a_cache(run: Run) -> None:
    shutil.make_archive("photos", "zip", "imgs")
    label = ("label", "photos.zip", "-c", "tree", "-m", run.model, "--device", "cpu", "-f", "png", "-o", "out")
    assert run.command(*label).code == 0
    before = contents(Path("out"))
    Path("out/manifest.jsonl").unlink()
    shutil.rmtree("out/.tipsseg")
    run.labelled.clear()
    assert run.command(*label).code == 0
    assert (run.labelled, contents(Path("out"))) == ([], before)
    assert run.command("check", "out").out == ""


def test_a_cache_that_another_program_holds_is_left_out(run: Run) -> None:
    run("-f", "png")
    shutil.copy("imgs/a.png", "imgs/new.png")
    other = sqlite3.connect("out/.tipsseg/cache.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    run("-f", "png")
    other.close()
    assert (run.code, run.labelled) == (0, ["new.png"])
    run("-f", "png")
    assert (run.code, run.labelled, run.command("check", "out").out) == (0, [], "")


@pytest.mark.parametrize("name", ["manifest.jsonl", "classes.json"])
def test_a_list_that_was_changed_goes_to_the_trash_and_is_written_again(run: Run, name: str) -> None:
    run("-f", "png")
    path = Path("out", name)
    before = path.read_bytes()
    path.write_text('{"tool": "tipsseg"}')
    run("-f", "png")
    assert (run.code, run.labelled, path.read_bytes(), run.command("check", "out").out) == (0, [], before, "")
    assert trashed() == {name: b'{"tool": "tipsseg"}'}


# ---- edits while a command runs ----


def test_an_edit_that_is_saved_before_a_file_is_replaced_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last moment: all is written, and about to get its name."""
    run("-f", "png,labelme,coco")
    places, put = ["labelme/a.json", "annotations.json", "masks/a.png"], Files.put

    def saved(self: Files, file: StagedFile, *more: Any) -> None:
        if file.row.place in places:
            Path("out", file.row.place).write_bytes(b"mine")
        put(self, file, *more)

    correct(MASK)
    with monkeypatch.context() as patched:
        patched.setattr(Files, "put", saved)
        assert run.command("convert", "out", "-f", "coco").code == 0
    assert trashed() == dict.fromkeys(places, b"mine")
    run("-f", "png,labelme,coco")
    assert (run.code, run.labelled, run.command("check", "out").out) == (0, [], "")


# ---- faults that a random walk found ----


def test_an_overwrite_that_is_killed_is_not_called_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("-f", "png,coco,yolo")
    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, "forget", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("-f", "png,coco", "--overwrite")
    assert run.command("check", "out").code == 1
    assert run.command("convert", "out", "-f", "csv").code == 1
    run("-f", "png,coco", "--overwrite")
    run("-f", "png,coco", output="fresh")
    assert contents(Path("out")).keys() == contents(Path("fresh")).keys()


def test_temporary_files_of_a_killed_encode_are_removed_by_the_next(run: Run) -> None:
    encode = ("encode", "imgs", "-m", run.model, "--device", "cpu", "-o", "feats")
    assert run.command(*encode).code == 0
    file = next(Path("feats/feats").rglob("*.safetensors"))
    code = "from tipsseg.util.files import process_owner; print(process_owner())"
    owner = subprocess.run(["python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    for folder, suffix in ((file.parent, ".safetensors"), (Path("feats"), ".json")):
        Path(folder, f".tipsseg-{owner}0{suffix}").write_bytes(b"half")
    assert run.command(*encode).code == 0
    assert list(Path("feats").rglob(".tipsseg-*")) == []


# ---- what is in the way ----


def test_scores_are_refused_if_the_model_labels_an_image_otherwise_by_now(run: Run) -> None:
    run("-f", "png")
    before = contents(Path("out"))
    path = Path("imgs/sub/ü.bmp")
    data, status = path.read_bytes(), path.stat()
    path.write_bytes(data[:60] + bytes(255 - value for value in data[60:]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # so that it counts as unchanged
    err = run("-f", "png,npz")
    assert (run.code, "sub/ü.bmp: the model labels it otherwise now" in err) == (1, True)
    after = contents(Path("out"))
    assert {name: after[name] for name in before if name.startswith("masks")} == {
        name: data for name, data in before.items() if name.startswith("masks")
    }
    assert sorted(path.name for path in Path("out/npz").rglob("*.npz")) == ["a.npz", "b c.npz"]


def test_an_edit_that_is_no_mask_fails_its_image_and_stays(run: Run) -> None:
    run("-f", "png,coco")
    MASK.write_text("mine")
    err = run("-f", "png,coco")
    assert (run.code, run.labelled, "out/masks/a.png" in err, MASK.read_text()) == (1, [], True, "mine")


def test_a_file_in_the_place_of_a_copy_goes_to_the_trash(run: Run) -> None:
    place = Path("out/hf/images/a.png")
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    run("-f", "png,hf")
    assert (run.code, place.read_bytes(), trashed()) == (
        0,
        Path("imgs/a.png").read_bytes(),
        {"hf/images/a.png": b"mine"},
    )
    assert not place.samefile("imgs/a.png")


YOLO_PICTURE = Path("out/yolo/images/train/a.png")


def test_pictures_beside_labels_follow_their_images(run: Run) -> None:
    place, image = YOLO_PICTURE, Path("imgs/a.png")
    size = sum(path.stat().st_size for path in Path("imgs").rglob("*.*") if path.suffix != ".txt")
    err = run("-f", "png,yolo,hf", "--verbose")
    assert f"Copied images into yolo/images/ and hf/images/: 6 files, {size * 2 / 1e3:,.1f} kB." in err
    new = Path("imgs/new.png")
    Image.fromarray(np.asarray(Image.open(image))[::-1]).save(new)
    new.replace(image)  # as editors save
    assert "yolo/images/ and hf/images/: 2 files" in run("-f", "png,yolo", "--verbose")  # the folder remembers
    for copy in (place, Path("out/hf/images/a.png")):
        assert (copy.is_symlink(), copy.samefile(image), copy.read_bytes()) == (False, False, image.read_bytes())
    assert "Copied" not in run("-f", "png,yolo", "--verbose")
    image.unlink()
    assert place.exists()


def test_what_happens_to_an_exported_picture_reaches_no_original(run: Run) -> None:
    run("-f", "png,yolo")
    before = tree("imgs")
    with YOLO_PICTURE.open("r+b") as file:  # a script that works in place
        file.truncate(9)
    err = run("-f", "png,yolo")
    assert (run.code, str(YOLO_PICTURE) in err, YOLO_PICTURE.read_bytes()[9:], tree("imgs")) == (0, True, b"", before)
    assert str(YOLO_PICTURE) in run.command("check", "out").err
    YOLO_PICTURE.unlink()
    run("-f", "png,yolo")
    assert YOLO_PICTURE.read_bytes() == Path("imgs/a.png").read_bytes()


def test_moved_images_are_not_copied_again(run: Run) -> None:
    run("-f", "png,yolo")
    status = YOLO_PICTURE.stat()
    Path("imgs").rename("moved")
    run.labelled.clear()
    asked = ("-c", "panda leg,tree,sky", "-m", run.model, "--device", "cpu", "-o", "out")
    assert run.command("label", "moved", *asked).code == 0
    assert (run.labelled, YOLO_PICTURE.stat()) == ([], status)


@pytest.mark.parametrize("how", ["moved", "by a link"])
def test_images_keep_their_names_if_a_part_of_them_is_labelled_from_another_place(run: Run, how: str) -> None:
    run("-f", "png")
    if how == "moved":
        Path("elsewhere").mkdir()
        shutil.move("imgs", "elsewhere/imgs")
    else:
        Path("elsewhere").symlink_to(".")
    asked = ("-c", "panda leg,tree,sky", "-m", run.model, "--device", "cpu", "-f", "png", "-o", "out")
    run.labelled.clear()
    ran = run.command("label", "elsewhere/imgs/sub", *asked)
    assert (ran.code, run.labelled, "2 unchanged" in ran.err) == (0, [], True)
