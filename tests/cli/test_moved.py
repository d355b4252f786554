"""Pictures that are renamed, moved into folders and thrown away while a data set is made: the folder follows them."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from masks import pixels
from PIL import Image
from running import Command, Ran

from tipsseg import review
from tipsseg.formats.mask import read_sealed, seal
from tipsseg.vocabulary.palette import colour

LABEL = ("label", "photos", "-c", "tree,sky", "-m", "tiny", "--device", "cpu", "-o", "out")
FORMATS = ("-f", "png,coco,labelme,yolo,overlay,npz")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    Path("photos").mkdir()
    for name in "abcde":
        coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(coarse).resize((60, 48)).save(f"photos/{name}.png")
    assert command(*LABEL, *FORMATS).code == 0


def correct(image: str, value: int = 2, size: int = 12) -> bytes:
    """A person paints a square into a mask."""
    path = Path("out/masks", image)
    ids = np.array(Image.open(path))
    ids[:size, :size] = value
    Image.fromarray(ids).save(path)
    return path.read_bytes()


def listed() -> set[str]:
    """The images that each file for the whole run lists, which must agree."""
    coco = {each["file_name"] for each in json.loads(Path("out/annotations.json").read_text())["images"]}
    manifest = {json.loads(line)["image"] for line in Path("out/manifest.jsonl").read_text().splitlines()}
    stems = {Path("out", folder) for folder in ("masks", "labelme", "npz")}
    files = {top: {str(path.relative_to(top).with_suffix("")) for path in top.rglob("*.*")} for top in stems}
    assert manifest == coco
    assert all(found == {str(Path(name).with_suffix("")) for name in coco} for found in files.values()), files
    return coco


def trash(name: str) -> list[bytes]:
    """The contents of a file that commands moved to the trash."""
    return [path.read_bytes() for path in sorted(Path("out/replaced").glob(f"*/{name}"))]


def commands(ran: Ran) -> list[str]:
    """The commands that a run printed: lines of their own, or at the end of a note."""
    return [
        line[line.index("tipsseg ") :]
        for line in ran.err.splitlines()
        if ": tipsseg " in line or line.startswith("  tipsseg")
    ]


def paste(command: Command, line: str) -> Ran:
    return command(*shlex.split(line)[1:])


def scores_of(name: str) -> dict[str, bytes]:
    with np.load(f"out/npz/{name}.npz") as arrays:
        return {key: arrays[key].tobytes() for key in arrays}


def test_labels_follow_renamed_pictures_and_gone_ones_can_go(command: Command) -> None:
    mine, scores = correct("a.png"), scores_of("b")
    Path("photos/old").mkdir()
    Path("photos/a.png").rename("photos/old/tall oak.png")
    Path("photos/b.png").rename("photos/B2.png")
    Path("photos/c.png").unlink()
    Path("photos/d.png").unlink()
    seen = command(*LABEL, *FORMATS, "--dry-run")
    assert "Renamed 2 images" in seen.err
    assert "0 images to label, 3 unchanged" in seen.err
    ran = command(*LABEL, *FORMATS)
    assert ran.code == 0, ran.err
    assert "a.png is now old/tall oak.png" in ran.err
    assert "0 images labelled, 3 unchanged" in ran.err
    assert pixels(Path("out/masks/old/tall oak.png")) == pixels(mine)
    assert scores_of("B2") == scores
    assert "2 labelled images are no longer in" in ran.err
    assert listed() == {"old/tall oak.png", "B2.png", "c.png", "d.png", "e.png"}
    assert [*review.check_folder("out", verbose=False)] == []
    wrong = command(*LABEL, *FORMATS, "--prune", 3)
    assert (wrong.code, "c.png, d.png" in wrong.err, "--prune=2" in wrong.err) == (1, True, True)
    (line,) = commands(ran)
    pruned = paste(command, line)
    assert pruned.code == 0, pruned.err
    assert listed() == {"old/tall oak.png", "B2.png", "e.png"}
    assert [*review.check_folder("out", verbose=False)] == []
    again = command(*LABEL, *FORMATS)
    assert "no longer" not in again.err


@pytest.mark.parametrize("words", [("--sample", 2), ("--prune", 1, "--shard", "1/2"), ("photos/a.png", "--prune", 1)])
def test_prune_wants_all_images(command: Command, words: tuple[object, ...]) -> None:
    Path("photos/b.png").unlink()
    label = [word for word in LABEL if word != "photos" or not str(words[0]).startswith("photos")]
    ran = command(*label, *FORMATS, *([] if "--prune" in words else ["--prune", 1]), *words)
    assert (ran.code, Path("out/masks/b.png").exists()) == (2, True), ran.err


def test_a_correction_without_a_picture_stays_until_it_is_removed(command: Command) -> None:
    correct("a.png")
    Path("photos/a.png").unlink()
    Path("photos/b.png").unlink()
    ran = command(*LABEL, *FORMATS)
    prune, remove = (next(line for line in commands(ran) if flag in line) for flag in ("--prune", "--remove"))
    assert paste(command, prune).code == 0
    assert listed() == {"a.png", "c.png", "d.png", "e.png"}
    assert paste(command, remove).code == 0
    assert listed() == {"c.png", "d.png", "e.png"}
    assert [*review.check_folder("out", verbose=False)] == []


def test_a_picture_that_took_the_name_of_a_corrected_one_is_named(command: Command) -> None:
    mine = correct("a.png")
    command(*LABEL, *FORMATS)
    shutil.copy("photos/b.png", "photos/a.png")
    ran = command(*LABEL, *FORMATS)
    assert pixels(Path("out/masks/a.png")) == pixels(mine)
    assert "changed since the labels were corrected" in ran.err
    assert paste(command, commands(ran)[0]).code == 0
    assert command(*LABEL, *FORMATS).code == 0
    assert pixels(Path("out/masks/a.png")) == pixels(Path("out/masks/b.png"))


def test_scores_follow_pictures_that_exchange_their_names(command: Command) -> None:
    scores = {name: scores_of(name) for name in "abc"}
    for old, new in (("a", "x"), ("b", "a"), ("x", "b"), ("c", "C")):
        Path(f"photos/{old}.png").rename(f"photos/{new}.png")
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, "0 images labelled, 5 unchanged" in ran.err) == (0, True), ran.err
    assert listed() == {"a.png", "b.png", "C.png", "d.png", "e.png"}
    assert not Path("out/replaced").exists()
    assert [scores_of(name) for name in "baC"] == [*scores.values()]
    assert [*review.check_folder("out", verbose=False)] == []


def test_without_its_cache_a_folder_follows_pictures_too(command: Command) -> None:
    mine = correct("a.png")
    command(*LABEL, *FORMATS)
    Path("photos/a.png").rename("photos/z.png")
    Path("photos/b.png").unlink()
    shutil.rmtree("out/.tipsseg")
    ran = command(*LABEL, *FORMATS, "--prune", "1")
    assert (ran.code, "Renamed: a.png is now z.png" in ran.err) == (0, True), ran.err
    images = {each["file_name"] for each in json.loads(Path("out/annotations.json").read_text())["images"]}
    assert (images, pixels(Path("out/masks/z.png"))) == ({"c.png", "d.png", "e.png", "z.png"}, pixels(mine))


@pytest.mark.parametrize("corrected", [True, False])
def test_a_mask_whose_picture_is_gone_and_whose_name_is_taken_leaves(command: Command, corrected: bool) -> None:
    mine = correct("a.png") if corrected else b""
    command(*LABEL, *FORMATS)
    expected = [pixels(Path(f"out/masks/{name}.png")) for name in "bc"]
    Path("photos/b.png").replace("photos/a.png")
    Path("photos/c.png").rename("photos/b.png")
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, "3 of them" in ran.err, "0 images labelled" in ran.err) == (0, False, True), ran.err
    assert [pixels(Path(f"out/masks/{name}.png")) for name in "ab"] == expected
    assert (
        "a.png: the picture that was corrected is gone" in ran.err if corrected else not Path("out/replaced").exists()
    )
    assert list(map(pixels, trash("masks/a.png"))) == ([pixels(mine)] if corrected else [])


def test_masks_that_were_renamed_with_their_pictures_are_where_they_belong(command: Command) -> None:
    """A person's program leaves out what one of them says, and both are exchanged."""
    for folder, suffix in (("photos", ".png"), ("out/masks", ".png")):
        if folder == "out/masks":
            mine, theirs = correct("a.png"), Path("out/masks/b.png").read_bytes()
        for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
            Path(f"{folder}/{old}{suffix}").rename(f"{folder}/{new}{suffix}")
    assert command(*LABEL, *FORMATS).code == 0
    assert [pixels(Path(f"out/masks/{name}.png")) for name in "ab"] == [pixels(theirs), pixels(mine)]


def test_files_of_others_in_the_folder_of_moves_go_to_the_trash(command: Command) -> None:
    Path("out/moving/0").mkdir(parents=True)
    Path("out/moving/notes.txt").write_text("mine")
    shutil.copy("out/masks/a.png", "out/moving/0/mask")
    assert command(*LABEL, *FORMATS).code == 0
    assert (trash("moving/notes.txt"), Path("out/moving").exists()) == ([b"mine"], False)
    Path("out/moving").symlink_to(Path("photos").absolute())
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, "out/moving: it is a symbolic link" in ran.err, len(list(Path("photos").iterdir()))) == (
        1,
        True,
        5,
    )


def test_a_picture_that_was_saved_again_with_the_same_pixels_is_the_same(command: Command) -> None:
    mine = correct("a.png")
    command(*LABEL, *FORMATS)
    with Image.open("photos/a.png") as picture:
        picture.save("photos/a.png", compress_level=0)
    assert command("check", "out").out == ""
    assert command("convert", "out", "-f", "cutouts").code == 0
    assert command("report", "out").code == 0
    assert command(*LABEL, *FORMATS).code == 0
    assert pixels(Path("out/masks/a.png")) == pixels(mine)


@pytest.mark.parametrize("corrected", [True, False])
def test_another_picture_whose_mask_would_have_the_same_name_is_named(command: Command, corrected: bool) -> None:
    mine = correct("a.png") if corrected else Path("out/masks/a.png").read_bytes()
    with Image.open("photos/b.png") as picture:
        picture.convert("RGB").save("photos/a.jpg")
    Path("photos/a.png").unlink()
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, "it has the labels of another image, a.png" in ran.err) == (1, True), ran.err
    assert pixels(Path("out/masks/a.png")) == pixels(mine)
    assert paste(command, next(line for line in commands(ran) if "--remove" in line).rstrip(")")).code == 0
    assert command(*LABEL, *FORMATS).code == 0
    assert listed() == {"a.jpg", "b.png", "c.png", "d.png", "e.png"}
    assert list(map(pixels, trash("masks/a.png"))) == ([pixels(mine)] if corrected else [])


def test_equal_pictures_are_not_followed(command: Command) -> None:
    Path("photos/a.png").rename("photos/x.png")
    shutil.copy("photos/x.png", "photos/y.png")
    ran = command(*LABEL, *FORMATS)
    assert "Renamed" not in ran.err
    assert "2 images labelled" in ran.err


def test_old_names_still_find_their_images(command: Command) -> None:
    export = json.loads(Path("out/labelme/a.json").read_text())
    Path("photos/a.png").rename("photos/z.png")
    assert command(*LABEL, *FORMATS).code == 0
    square = [[2, 2], [30, 2], [30, 30], [2, 30]]
    export["shapes"] = [{**export["shapes"][0], "label": "sky", "points": square}]
    Path("back").mkdir()
    Path("back/a.json").write_text(json.dumps(export))
    ran = command("correct", "out", "--from", "back")
    assert ran.code == 0, ran.err
    assert ran.out.strip() == "out/masks/z.png"
    mask, manifest = Path("out/masks/z.png").read_bytes(), Path("out/manifest.jsonl").read_bytes()
    assert b'"formerly": ["a.png"]' in manifest
    shutil.rmtree("out/.tipsseg")
    ran = command("correct", "out", "--from", "back")
    assert (ran.code, ran.out, "1 unchanged" in ran.err) == (0, "", True), ran.err
    assert (Path("out/masks/z.png").read_bytes(), Path("out/manifest.jsonl").read_bytes()) == (mask, manifest)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P", "colours"])
def test_a_mask_is_read_as_a_paint_program_saves_it(command: Command, kind: str) -> None:
    path = Path("out/masks/a.png")
    ids = np.array(Image.open(path))
    ids[:20, :20] = 2
    if kind == "colours":
        palette = np.zeros((256, 3), np.uint8)
        palette[1], palette[2] = colour(1), colour(2)
        Image.fromarray(palette[ids]).save(path)
    else:
        Image.fromarray(ids).convert("RGB" if kind == "RGBA" else kind).convert(kind).save(path)
    theirs = path.read_bytes()
    assert command(*LABEL, *FORMATS).code == 0
    with Image.open(path) as mask:
        assert mask.mode == "L"
        assert (np.asarray(mask) == ids).all()
    assert trash("masks/a.png") == [theirs]


@pytest.mark.parametrize(("make", "what"), [
    (lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 128, np.uint8)]), "is transparent"),
    (lambda rgb: rgb + np.array([3, 0, 9], np.uint8), "is neither an id nor a colour of a class"),
])  # fmt: skip
def test_a_mask_that_could_be_anything_is_refused(command: Command, make, what: str) -> None:  # type: ignore[no-untyped-def]
    path = Path("out/masks/a.png")
    Image.fromarray(make(np.array(Image.open(path).convert("RGB")))).save(path)
    theirs = path.read_bytes()
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, path.read_bytes()) == (1, theirs)
    assert f"the pixel in row 1, column 1 {what}" in ran.err
    line = next(line for line in ran.err.splitlines() if "--undo a.png" in line)
    assert paste(command, line[line.index("tipsseg ") :].rstrip(")")).code == 0


def test_only_edited_files_of_a_format_are_imported(command: Command) -> None:
    """The files of masks that a person changed in place show older labels; they are no corrections."""
    mine, edited = correct("b.png"), Path("out/labelme/a.json")
    record = json.loads(edited.read_text())
    record["shapes"] = record["shapes"][:1]
    edited.write_text(json.dumps(record))
    before = Path("out/masks/a.png").read_bytes()
    ran = command("correct", "out", "--from", "out/labelme")
    assert ran.code == 0, ran.err
    assert pixels(Path("out/masks/b.png")) == pixels(mine)
    assert Path("out/masks/a.png").read_bytes() != before
    taken = edited.read_text()
    assert taken != json.dumps(record)
    mine = correct("a.png", size=20)
    edited.write_text(json.dumps({**json.loads(taken), "shapes": []}))
    ran = command("correct", "out", "--from", "out/labelme")
    assert (ran.code, "a.png: its labels changed since this file was written" in ran.err) == (1, True)
    assert pixels(Path("out/masks/a.png")) == pixels(mine)
    assert [len(json.loads(each)["shapes"]) for each in trash("labelme/a.json")] == [1, 0]


def test_corrections_move_to_another_question_by_class_name(command: Command) -> None:
    correct("a.png")
    command(*LABEL, *FORMATS)
    other = ["sky,tree" if word == "tree,sky" else word for word in LABEL]
    for words in ((), ("--overwrite",)):
        refused = command(*other, "-f", "png", *words)
        assert refused.code == 1
        lines = commands(refused)
        assert [paste(command, line).code for line in lines[:2]] == [0, 0]
        assert (np.array(Image.open("out-2/masks/a.png"))[:12, :12] == 1).all(), "sky is the first class there"
        shutil.rmtree("out-2")


def test_a_mask_of_other_classes_is_refused_and_imported_by_their_names(command: Command) -> None:
    other = ["sky,tree" if word == "tree,sky" else "out-2" if word == "out" else word for word in LABEL]
    command(*other, "-f", "png")
    shutil.copy("out-2/masks/a.png", "theirs.png")
    ids = np.array(Image.open("theirs.png"))
    ids[:12, :12] = 1
    Image.fromarray(ids).save("out-2/masks/a.png")
    command(*other, "-f", "png")
    shutil.copy("out-2/masks/a.png", "out/masks/a.png")
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, "classes of another folder: 1 is sky" in ran.err) == (1, True), ran.err
    Path("away").mkdir()
    Path("out/masks/a.png").rename("away/a.png")
    assert command(*LABEL, *FORMATS).code == 0
    assert command("correct", "out", "--from", "away").code == 0
    assert (np.array(Image.open("out/masks/a.png")) == np.array([0, 2, 1], np.uint8)[ids]).all()


def test_a_run_without_a_single_image_leaves_no_folder(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tipsseg.folder.folder.OutputFolder.record", interrupted)
    ran = command(*["new" if word == "out" else word for word in LABEL], *FORMATS)
    assert (ran.code, Path("new").exists()) == (130, False)


def test_counts_are_those_of_the_record(command: Command) -> None:
    for name in ("f", "g"):
        Image.fromarray(np.full((48, 60, 3), ord(name), np.uint8)).save(f"photos/{name}.png")
    Path("photos/h.png").write_bytes(b"")
    ran = command(*LABEL, *FORMATS)
    assert "8 images, 5 of them in the record" in ran.err
    assert "1 of 8 images failed: see out/errors.jsonl" in ran.err


def test_programs_that_change_the_depth_of_a_mask_change_no_label(command: Command) -> None:
    """Of ids of 16 bits, files of 8 bits have lost some; values of 16 bits may be ids."""
    ids = np.array(Image.open("out/masks/a.png"))
    Image.fromarray(ids == 1).save("out/masks/a.png")  # a person's
    half = np.where(np.arange(60) < 30, 255, 0).astype(np.uint8) * np.ones((48, 1), np.uint8)
    Image.fromarray(half).save("out/masks/c.png")
    Image.fromarray(np.array(Image.open("out/masks/d.png")).astype(np.uint16)).save("out/masks/d.png")
    deep = cv2.cvtColor(np.array(Image.open("out/masks/b.png")).astype(np.uint16), cv2.COLOR_GRAY2BGR)
    cv2.imwrite("out/masks/b.png", deep)
    theirs = Path("out/masks/b.png").read_bytes()
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, "16 bits" in ran.err, Path("out/masks/b.png").read_bytes()) == (1, True, theirs)
    assert (np.array(Image.open("out/masks/a.png")) == (ids == 1)).all()
    with Image.open("out/masks/d.png") as picture:
        assert picture.mode == "L"
    said = read_sealed(Path("out/masks/c.png").read_bytes()).facts
    assert said is not None
    for facts in (None, said):  # of one bit: 0 and 255, with and without what the mask says
        Image.fromarray(half == 255).save("out/masks/c.png")
        if facts is not None:
            Path("out/masks/c.png").write_bytes(seal(Path("out/masks/c.png").read_bytes(), facts))
        command(*LABEL, *FORMATS)
        assert (np.array(Image.open("out/masks/c.png")) == half).all()
    many = ["-c", ",".join(f"thing {number}" for number in range(300)), "-m", "tiny", "-o", "many", "-f", "png"]
    assert command("label", "photos", *many).code == 0
    Image.new("1", (60, 48), 1).save("many/masks/a.png")
    Image.fromarray(ids).save("many/masks/b.png")
    shutil.copy("out/masks/c.png", "many/masks/c.png")  # 255 is a class there
    ran = command("label", "photos", *many)
    assert (ran.code, ran.err.count("8 bits per pixel"), ran.err.count("its id of ignored pixels")) == (1, 2, 1)


def test_an_old_file_for_the_whole_run_takes_no_correction_back(command: Command) -> None:
    shutil.copytree("out/labelme", "back")
    record = json.loads(Path("back/a.json").read_text())
    for shape in record["shapes"]:
        shape["label"] = "sky" if shape["label"] == "tree" else "tree"
    Path("back/a.json").write_text(json.dumps(record))
    coco = json.loads(Path("out/annotations.json").read_text())
    (number,) = [each["id"] for each in coco["images"] if each["file_name"] == "b.png"]
    mine = [each for each in coco["annotations"] if each["image_id"] == number]
    coco["annotations"] = [each for each in coco["annotations"] if each["image_id"] != number or each is mine[0]]
    Path("out/annotations.json").write_text(json.dumps(coco))
    assert command("correct", "out", "--from", "back/a.json").code == 0
    assert [*map(json.loads, trash("annotations.json"))] == [coco], "it showed other labels"
    corrected = Path("out/masks/a.png").read_bytes()
    ran = command("correct", "out", "--from", "out/annotations.json")
    assert (ran.out, Path("out/masks/a.png").read_bytes()) == ("", corrected), ran.err


def test_a_file_for_the_whole_run_takes_no_mask_changed_in_place_back(command: Command) -> None:
    coco = json.loads(Path("out/annotations.json").read_text())
    (number,) = [each["id"] for each in coco["images"] if each["file_name"] == "b.png"]
    mine = [each for each in coco["annotations"] if each["image_id"] == number]
    coco["annotations"] = [each for each in coco["annotations"] if each["image_id"] != number or each is mine[0]]
    Path("out/annotations.json").write_text(json.dumps(coco))
    before, corrected = Path("out/masks/b.png").read_bytes(), correct("a.png")
    ran = command("correct", "out", "--from", "out/annotations.json")
    assert (ran.code, ran.out) == (1, "out/masks/b.png\n"), ran.err
    assert "a.png: its labels changed since this file was written" in ran.err
    assert pixels(Path("out/masks/a.png")) == pixels(corrected)
    assert pixels(Path("out/masks/b.png")) != pixels(before)
    assert [*map(json.loads, trash("annotations.json"))] == [coco]


@pytest.mark.parametrize("name", ["z.png", "a.PNG"])
def test_a_file_that_was_edited_before_its_picture_was_renamed_is_imported(command: Command, name: str) -> None:
    edited = Path("out/labelme/a.json")
    record = json.loads(edited.read_text())
    record["shapes"] = record["shapes"][:1]
    edited.write_text(json.dumps(record))
    Path("photos/a.png").rename(f"photos/{name}")
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, "Renamed: a.png is now" in ran.err, "0 images labelled, 5 unchanged" in ran.err) == (
        0,
        True,
        True,
    )
    assert listed() == {name, "b.png", "c.png", "d.png", "e.png"}
    (mine,) = Path("out/replaced").glob("*/labelme/a.json")
    assert json.loads(mine.read_text()) == record
    before = Path("out/masks", Path(name).stem + ".png").read_bytes()
    taken = command("correct", "out", "--from", mine)
    assert taken.code == 0, taken.err
    assert pixels(Path("out/masks", Path(name).stem + ".png")) != pixels(before)
    again = command(*LABEL, *FORMATS)
    assert "changed by hand" not in again.err, again.err


def test_a_renamed_picture_without_a_mask_is_a_new_image(command: Command) -> None:
    Path("out/masks/a.png").unlink()
    Path("photos/a.png").rename("photos/z.png")
    ran = command(*LABEL, *FORMATS)
    assert (ran.code, "Renamed" in ran.err, "1 image labelled" in ran.err) == (0, False, True)
    assert listed() == {"b.png", "c.png", "d.png", "e.png", "z.png"}


def test_a_picture_that_is_still_there_is_not_gone(command: Command) -> None:
    Path("others").mkdir()
    shutil.copy("photos/a.png", "others/copy.png")
    ran = command(*["others" if word == "photos" else word for word in LABEL], *FORMATS)
    assert "Renamed" not in ran.err
    assert Path("out/masks/a.png").exists()


def test_files_of_another_program_stay_where_a_run_fails(command: Command) -> None:
    Path("other/masks/mine").mkdir(parents=True)
    Path("other/classes.json").write_text("{}")
    ran = command(*["nowhere" if word == "photos" else "other" if word == "out" else word for word in LABEL], *FORMATS)
    assert (ran.code, Path("other/masks/mine").exists(), Path("other/classes.json").exists()) == (1, True, True)


@pytest.mark.parametrize("corrected", [True, False])
def test_merge_joins_a_picture_that_was_renamed_between_two_runs(command: Command, corrected: bool) -> None:
    mask = correct("a.png") if corrected else Path("out/masks/a.png").read_bytes()
    Path("photos/a.png").rename("photos/z.png")
    other = ["other" if word == "out" else word for word in LABEL]
    assert command(*other, *FORMATS).code == 0
    ran = command("merge", "out", "other", "-o", "joined")
    assert (ran.code, "a.png is now z.png" in ran.err) == (0, True), ran.err
    assert sorted(path.name for path in Path("joined/masks").iterdir()) == ["b.png", "c.png", "d.png", "e.png", "z.png"]
    assert pixels(Path("joined/masks/z.png")) == pixels(mask)
    assert [*review.check_folder("joined", verbose=False)] == []
    assert command("merge", "out", "other", "-o", "joined").code == 0
    assert pixels(Path("joined/masks/z.png")) == pixels(mask)


def test_merge_keeps_both_names_of_a_picture_that_was_corrected_under_each(command: Command) -> None:
    first = correct("a.png")
    Path("photos/a.png").rename("photos/z.png")
    assert command(*["other" if word == "out" else word for word in LABEL], *FORMATS).code == 0
    second = Path("other/masks/z.png")
    Image.fromarray(np.array(Image.open(second))[::-1]).save(second)
    assert command("merge", "out", "other", "-o", "joined").code == 0
    assert pixels(Path("joined/masks/a.png")) == pixels(first)
    assert pixels(Path("joined/masks/z.png")) == pixels(second)


def test_merge_keeps_the_names_that_pictures_had_before(command: Command) -> None:
    Path("photos/a.png").rename("photos/z.png")
    assert command(*LABEL, *FORMATS).code == 0
    assert command("merge", "out", "-o", "joined").code == 0
    lines = [json.loads(line) for line in Path("joined/manifest.jsonl").read_text().splitlines()]
    assert {line["image"]: line["formerly"] for line in lines if "formerly" in line} == {"z.png": ["a.png"]}
