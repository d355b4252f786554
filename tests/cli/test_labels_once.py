"""The masks are the labels, and a person's work is kept; all other files are derived from them, again and again."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from masks import pixels
from PIL import Image
from resuming import ALL, Run, contents, correct, tree
from tipsseg.run.state import State

MASK, LABELME = Path("out/masks/a.png"), Path("out/labelme/a.json")


def entry(image: str = "a.png", output: str = "out") -> dict[str, object]:
    lines = Path(output, "manifest.jsonl").read_bytes().splitlines()
    found: dict[str, object] = next(each for each in map(json.loads, lines) if each["image"] == image)
    return found


def edit_labelme(path: Path = LABELME) -> bytes:
    """Give another class to all shapes."""
    record = json.loads(path.read_bytes())
    for shape in record["shapes"]:
        shape["label"] = "tree" if shape["label"] != "tree" else "sky"
    path.write_text(json.dumps(record))
    return path.read_bytes()


# ---- corrected is a state ----


def test_a_mask_that_is_set_back_to_the_models_labels_stays_a_persons(run: Run) -> None:
    run("-f", "png")
    before = MASK.read_bytes()
    correct(MASK)
    run("-f", "png")
    MASK.write_bytes(before)
    run("-f", "png")
    Image.new("RGB", (90, 60), "red").save("imgs/a.png")
    for name in ALL[1:]:
        Path("out/masks", name).with_suffix(".png").unlink()
    run("-f", "png")
    assert (run.code, run.labelled, pixels(MASK)) == (0, ALL[1:], pixels(before))
    assert "corrected" in entry()


def test_an_undone_correction_is_labelled_by_the_next_run(run: Run) -> None:
    run("-f", "png,coco")
    model = contents(Path("out"))
    mine = correct(MASK)
    run("-f", "png,coco")
    assert run.command("correct", "out", "--undo", "a.png", "--dry-run").code == 0
    run("-f", "png,coco")
    assert (run.labelled, pixels(MASK)) == ([], pixels(mine))
    assert run.command("correct", "out", "--undo", "a.png").code == 0
    assert pixels(MASK) == pixels(mine)
    assert "the correction was undone" in run("-f", "png,coco")
    assert (run.labelled, contents(Path("out"))) == (["a.png"], model)


@pytest.mark.parametrize("how", ["gone", "of another size", "of unknown ids", "no image"])
def test_a_corrected_mask_that_cannot_be_used_fails_its_image_and_can_be_undone(run: Run, how: str) -> None:
    run("-f", "png,coco")
    fresh = contents(Path("out"))
    correct(MASK)
    other = correct(Path("out/masks/sub/b c.png"))
    run("-f", "png,coco")
    lists = Path("out/annotations.json").read_bytes()
    if how == "gone":
        MASK.unlink()
    elif how == "no image":
        MASK.write_text("mine")
    else:
        Image.fromarray(np.full((60, 90 - (how == "of another size")), 9, np.uint8)).save(MASK)
    err = run("-f", "png,coco")
    assert (run.code, run.labelled, Path("out/annotations.json").read_bytes()) == (1, [], lists)
    assert ("out/masks/a.png" in err, "--undo" in err) == (True, True)
    assert run.command("correct", "out", "--undo", "a.png").code == 0
    run("-f", "png,coco")
    assert (run.code, run.labelled, MASK.read_bytes()) == (0, ["a.png"], fresh["masks/a.png"])
    assert pixels(Path("out/masks/sub/b c.png")) == pixels(other)


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
            Path("out/.tipsseg/cache.db").unlink()
            assert run.command("check", "out", "--restore").code == 0
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


@pytest.mark.parametrize(
    "name", ["labelme", "annotations.json", "hf", "cvat", "overlays", "labels.csv", "classes.json"]
)
def test_an_edited_file_is_kept_and_named_with_what_to_do(run: Run, name: str) -> None:
    formats = ("-f", "png,labelme,coco,hf,cvat,overlay,csv")
    run(*formats)
    top = Path("out", name)
    path = (
        top
        if top.is_file()
        else next(each for each in sorted(top.rglob("*")) if each.is_file() and "images" not in each.parts)
    )
    mine = path.read_bytes() + b" "
    path.write_bytes(mine)
    correct(MASK)
    err = run(*formats)
    is_list = top.is_file()
    assert (run.code, path.read_bytes()) == (is_list, mine)
    assert str(path) in err
    takes = f"tipsseg correct out --from {top}" in err
    assert takes == (name in ("labelme", "annotations.json", "hf", "cvat"))
    run(*formats, "--overwrite", "--replace-edited")
    assert path.read_bytes() == mine
    path.unlink()
    run(*formats, "--overwrite", "--replace-edited")
    assert (run.code, run.command("check", "out").out) == (0, "")
    run(*formats, output="fresh")
    ours, fresh = contents(Path("out")), contents(Path("fresh"))
    assert [name for name in fresh if ours[name] != fresh[name] and name != "manifest.jsonl"] == []


def test_a_file_that_was_taken_in_stays_and_is_named_once_labels_change(run: Run) -> None:
    formats = ("-f", "png,labelme,overlay")
    run(*formats)
    mine = edit_labelme()
    overlay = Path("out/overlays/a.jpg")
    overlay.write_bytes(overlay.read_bytes() + b"mine")
    assert run.command("correct", "out", "--from", "out").code in (0, 1)
    assert run.command("correct", "out", "--from", "out/labelme").code == 0
    assert "labelme" not in run(*formats)
    assert "overlays/a.jpg" in run(*formats)  # nobody read it
    correct(MASK)
    for _ in range(2):
        err = run(*formats)
        assert ("labelme/a.json" in err, "Wrote labelme" in err) == (True, False)
        assert (run.code, LABELME.read_bytes()) == (0, mine)
    LABELME.unlink()
    assert "Wrote labelme" in run(*formats)
    assert LABELME.read_bytes() != mine


def test_a_file_of_another_program_is_never_touched(run: Run) -> None:
    foreign = dict.fromkeys(("out/masks/a.png", "out/labelme/sub/b c.json", "out/annotations.json"), b"mine")
    for path in foreign:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"mine")
    for _ in range(2):
        err = run("-f", "png,labelme,coco")
        assert (run.code, {path: Path(path).read_bytes() for path in foreign}) == (1, foreign)
        assert all(path in err for path in foreign)
    for path in foreign:
        Path(path).unlink()
    run("-f", "png,labelme,coco")
    run("-f", "png,labelme,coco", output="fresh")
    assert run.code == 0
    assert contents(Path("out")).keys() == contents(Path("fresh")).keys()


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


def test_a_format_ends_and_an_edited_file_of_it_stays(run: Run) -> None:
    run("-f", "png,labelme,coco")
    mine = edit_labelme()
    ran = run.command("convert", "out", "--drop", "labelme")
    assert (ran.code, str(LABELME) in ran.err) == (1, True)
    assert list(Path("out/labelme").rglob("*.json")) == [LABELME]
    assert LABELME.read_bytes() == mine
    assert run.command("convert", "out", "--drop", "png").code == 2
    run("-f", "coco")
    assert not Path("out/labelme/sub").exists()
    LABELME.unlink()
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
def test_a_lost_record_is_rebuilt_when_asked(run: Run, formats: str) -> None:
    run("-f", formats)
    mask = next(path for path in Path("out").rglob("*.png") if "masks" in path.parts and "hf" not in path.parts)
    correct(mask)
    run("-f", formats)
    Path("gone.txt").write_text(str(mask))
    before = contents(Path("out"))
    Path("out/.tipsseg/cache.db").unlink()
    kept = tree("out")
    for words in (("convert", "out", "-f", "csv"), ("report", "out"), ("eval", "out", "--gt", "out/masks")):
        ran = run.command(*words)
        assert (ran.code, "tipsseg check out --restore" in ran.err) == (1, True), words
    run("-f", formats)
    assert (run.code, tree("out")) == (1, kept)
    assert run.command("check", "out", "--restore").code == 0
    assert run.command("check", "out").out == ""
    run("-f", formats)
    assert (run.code, run.labelled, contents(Path("out"))) == (0, [], before)
    ran = run.command("check", "out", "--restore")
    assert (ran.code, "sound" in ran.err) == (1, True)


def test_masks_that_match_no_line_of_the_manifest_are_a_persons(run: Run) -> None:
    run("-f", "png,coco")
    mine = correct(MASK)
    lines = Path("out/manifest.jsonl").read_bytes().splitlines(keepends=True)
    Path("out/manifest.jsonl").write_bytes(b"".join(lines[:-1]))
    Path("out/.tipsseg/cache.db").write_bytes(b"damaged")
    ran = run.command("check", "out", "--restore")
    assert ("a.png" in ran.err, "ü" in ran.err) == (True, True)
    run("-f", "png,coco")
    assert (run.code, run.labelled, pixels(MASK)) == (0, [], pixels(mine))
    assert {name for name in ALL if "corrected" in entry(name)} == {"a.png", "sub/ü.bmp"}
    assert run.command("check", "out").out == ""


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


@pytest.mark.parametrize("size", [0, 100, 4096, 9000])
def test_a_truncated_record_is_damage(run: Run, size: int) -> None:
    run("-f", "png")
    path = Path("out/.tipsseg/cache.db")
    path.write_bytes(path.read_bytes()[:size])
    before = tree("out")
    err = run("-f", "png")
    assert (run.code, "--restore" in err, tree("out")) == (1, True, before)
    assert run.command("check", "out", "--restore").code == 0
    run("-f", "png")
    assert (run.code, run.labelled) == (0, [])


@pytest.mark.parametrize(
    ("statement", "noticed"),
    [
        ("UPDATE image SET facts = x'00'", True),
        ("UPDATE image SET formats = 'x'", True),
        ("UPDATE file SET digest = x'00'", True),
        ("UPDATE row SET data = x'00'", False),  # label reads no rows of images that stay
        ("UPDATE failure SET line = '{}'", False),
    ],
)
def test_a_record_with_damaged_values_is_rebuilt(run: Run, statement: str, noticed: bool) -> None:
    Path("imgs/broken.png").write_bytes(b"not an image")
    run("-f", "png,coco")
    before = contents(Path("out"))
    with sqlite3.connect("out/.tipsseg/cache.db") as other:
        other.execute(statement)
    other.close()
    if noticed:
        assert "--restore" in run("-f", "coco,csv")
    assert "--restore" in run.command("check", "out").out
    assert run.command("check", "out", "--restore").code == 0
    run("-f", "png,coco")
    after = contents(Path("out"))
    assert (run.code, run.labelled, {name: after[name] for name in before}) == (1, [], before)


def test_an_edited_mask_that_a_damaged_record_lacks_is_kept(run: Run) -> None:
    run("-f", "png,coco")
    with closing(sqlite3.connect("out/.tipsseg/cache.db", isolation_level=None)) as other:
        other.execute("DELETE FROM file WHERE place = 'masks/a.png'")
    mine = correct(MASK)
    err = run("-f", "png,coco")
    assert (run.code, "tipsseg check out" in err, "Move" in err, MASK.read_bytes()) == (1, True, False, mine)


@pytest.mark.parametrize("seed", range(12))
def test_a_record_with_random_damage_has_a_way_on(run: Run, seed: int) -> None:
    """In its tables and in its schema: a command goes on or names the command that rebuilds, which then does."""
    run("-f", "png,coco")
    before, path, rng = contents(Path("out")), Path("out/.tipsseg/cache.db"), np.random.default_rng(seed)
    noise = (rng.bytes(40), b"\xaa" * 40, bytes(40), bytes(rng.integers(97, 123, 40).tolist()))[seed % 4]
    for top in (len(path.read_bytes()), 4096):
        data = bytearray(path.read_bytes())
        at = int(rng.choice(np.flatnonzero(np.frombuffer(data[: top - 40], np.uint8))))
        data[at : at + 40] = noise
        path.write_bytes(data)
        checked = run.command("check", "out")
        if seed % 2:
            first = run("-f", "png,coco")
            assert run.code == 0 or "tipsseg check out" in first
        if checked.code or run.command("check", "out").code:
            assert "tipsseg check out --restore" in checked.out
            assert run.command("check", "out", "--restore").code in (0, 1)  # sound by now, or it was rebuilt
        run("-f", "png,coco")
        after = contents(Path("out"))
        assert (run.code, run.command("check", "out").out) == (0, "")
        assert {name: after[name] for name in before} == before


def test_masks_of_an_archive_are_rebuilt_without_a_manifest(run: Run) -> None:
    shutil.make_archive("photos", "zip", "imgs")
    ran = run.command("label", "photos.zip", "-c", "tree", "-m", run.model, "--device", "cpu", "-f", "png", "-o", "out")
    assert ran.code == 0
    for name in ("manifest.jsonl", ".tipsseg/cache.db"):
        Path("out", name).unlink()
    assert run.command("check", "out", "--restore").code == 0
    assert run.command("check", "out").out == ""
    assert {record["image"] for record in map(json.loads, Path("out/manifest.jsonl").read_text().splitlines())} == {
        "photos/a.png", "photos/sub/b c.jpg", "photos/sub/ü.bmp",
    }  # fmt: skip


def test_a_record_that_another_program_holds_is_not_written(run: Run) -> None:
    run("-f", "png")
    shutil.copy("imgs/a.png", "imgs/new.png")
    other = sqlite3.connect("out/.tipsseg/cache.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    err = run("-f", "png")
    other.close()
    assert (run.code, "--restore" in err) == (1, False)
    run("-f", "png")
    assert (run.code, run.labelled, run.command("check", "out").out) == (0, ["new.png"], "")


@pytest.mark.parametrize("name", ["manifest.jsonl", "run.json", "errors.jsonl"])
def test_an_export_that_was_changed_is_set_aside_and_written_again(run: Run, name: str) -> None:
    run("-f", "png")
    path = Path("out", name)
    before = path.read_bytes() if path.exists() else None
    path.write_text('{"tool": "tipsseg"}')
    assert str(path) in run.command("check", "out").out
    err = run("-f", "png")
    assert (run.code, run.labelled, run.command("check", "out").out) == (0, [], "")
    aside = Path("out", f"{name}.changed")
    assert (aside.read_text(), f"{aside}" in err) == ('{"tool": "tipsseg"}', True)
    assert path.exists() == (before is not None)
    correct(MASK)  # a command that is interrupted leaves exports that grew
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "end", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("-f", "png,coco")
    run("-f", "png,coco")
    assert [each.name for each in Path("out").glob("*.changed*")] == [aside.name]


# ---- edits while a command runs ----


def test_an_edit_that_is_saved_before_a_file_is_replaced_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last moment: all is written, and about to get its name."""
    from tipsseg.run.state import State

    run("-f", "png,labelme,coco")
    paths = [LABELME, Path("out/annotations.json")]
    expect = State.expect

    def saved(self: State, *arguments: object, **more: object) -> None:
        expect(self, *arguments, **more)  # type: ignore[arg-type]
        for path in paths:
            path.write_bytes(b"mine")

    correct(MASK)
    with monkeypatch.context() as patched:
        patched.setattr(State, "expect", saved)
        assert run.command("convert", "out", "-f", "coco").code == 1
    assert [path.read_bytes() for path in paths] == [b"mine"] * 2
    assert all(str(path) in run("-f", "png,labelme,coco") for path in paths)


# ---- faults that a random walk found ----


def test_an_overwrite_that_is_killed_is_not_called_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tipsseg.run.folder import OutputFolder

    run("-f", "png,coco,yolo")
    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, "write_record", lambda _: 1 / 0)
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


def test_a_file_in_the_place_of_a_copy_stays_and_is_named(run: Run) -> None:
    place = Path("out/hf/images/a.png")
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    err = run("-f", "png,hf")
    assert (run.code, str(place) in err, place.read_text()) == (1, True, "mine")
    place.unlink()
    run("-f", "png,hf")
    assert (run.code, run.labelled, place.samefile("imgs/a.png")) == (0, [], False)


YOLO_PICTURE = Path("out/yolo/images/train/a.png")


def test_pictures_beside_labels_follow_their_images(run: Run) -> None:
    place, image = YOLO_PICTURE, Path("imgs/a.png")
    size = sum(path.stat().st_size for path in Path("imgs").rglob("*.*") if path.suffix != ".txt")
    err = run("-f", "png,yolo,hf")
    assert f"Copied images into yolo/images/ and hf/images/: 6 files, {size * 2 / 1e3:,.1f} kB." in err
    new = Path("imgs/new.png")
    Image.fromarray(np.asarray(Image.open(image))[::-1]).save(new)
    new.replace(image)  # as editors save
    assert "yolo/images/ and hf/images/: 2 files" in run("-f", "png,yolo")  # the folder remembers
    for copy in (place, Path("out/hf/images/a.png")):
        assert (copy.is_symlink(), copy.samefile(image), copy.read_bytes()) == (False, False, image.read_bytes())
    assert "Copied" not in run("-f", "png,yolo")
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
