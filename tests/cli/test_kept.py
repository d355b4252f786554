"""`tipsseg label` on folders that people have worked in: what they did is kept, what is not the program's is left alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resuming import ALL, CLASSES, Run, contents, record

from tipsseg.store.folder import OutputFolder
from tipsseg.store.results import Labelled

NOT_OURS = "tipsseg did not write the file that is there, or the file was changed since"


def tree(folder: str | Path) -> dict[str, object]:
    """All that is below a folder, links as links."""

    def what(path: Path) -> object:
        return path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None

    return {
        str(path.relative_to(folder)): what(path)
        for path in sorted(Path(folder).rglob("*"))
        if not path.is_dir() or path.is_symlink()
    }


def correct(path: Path) -> bytes:
    """Another class in one corner of a mask."""
    with Image.open(path) as picture:
        ids = np.array(picture)
    ids[:9, :9] = 1 + (ids[:9, :9] == 1)
    Image.fromarray(ids).save(path)
    return path.read_bytes()


# ---- what was changed by hand ----


@pytest.mark.parametrize(
    "options", [[], ["--no-resume"], ["--mode", "whole", "--no-resume"], ["-f", "png,coco,overlay"]], ids=str
)
def test_a_corrected_mask_is_kept(run: Run, options: list[str]) -> None:
    run()
    mask = Path("out/masks/a.png")
    data = correct(mask)
    err = run(*options)
    assert (run.code, "a.png" in run.labelled, mask.read_bytes()) == (0, False, data)
    assert (
        "Files of 1 image were changed by hand and are kept; --replace-edited labels it anew, and tipsseg convert out "
        "--format FORMAT takes a changed mask into other formats.\n"
    ) in err
    assert "out/masks/a.png" in run.out.splitlines()


def test_corrected_masks_are_counted(run: Run) -> None:
    run()
    for name in ("a.png", "sub/ü.png"):
        correct(Path("out/masks", name))
    assert "2 of those changed by hand, and kept" in run("--dry-run")
    shutil.copy("imgs/a.png", "imgs/new.png")
    assert "Files of 2 images were changed by hand and are kept; --replace-edited labels them anew" in run()
    assert record(Path("out"))["counts"] == {"labelled": 1, "unchanged": 3, "failed": 0, "edited": 2}
    assert run.command("check", "out").code == 0


def test_a_corrected_mask_is_labelled_anew_where_that_is_asked_for(run: Run) -> None:
    run()
    before = contents(Path("out"))
    correct(Path("out/masks/a.png"))
    run.command("convert", "out", "-f", "coco")
    assert contents(Path("out"))["annotations.json"] != before["annotations.json"]
    run("--replace-edited")
    assert (run.code, run.labelled, contents(Path("out"))) == (0, ["a.png"], before)


def test_a_mask_that_convert_took_up_is_kept_too(run: Run) -> None:
    run()
    data = correct(Path("out/masks/a.png"))
    assert run.command("convert", "out", "-f", "coco,yolo").code == 0
    before = contents(Path("out"))
    run()
    run("--no-resume")
    assert "a.png" not in run.labelled
    assert Path("out/masks/a.png").read_bytes() == data
    assert {**contents(Path("out")), "manifest.jsonl": b""} == {**before, "manifest.jsonl": b""}
    assert run.command("check", "out").code == 0


def test_other_files_that_were_changed_are_kept(run: Run) -> None:
    run("-f", "png,labelme")
    path = Path("out/labelme/a.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "flags": {"seen": True}}))
    data = path.read_bytes()
    shutil.copy("imgs/a.png", "imgs/new.png")
    assert "1 image were changed by hand" in run("-f", "png,labelme")
    assert (run.labelled, path.read_bytes()) == (["new.png"], data)


def test_beginning_anew_removes_what_the_program_wrote_and_names_what_it_keeps(run: Run) -> None:
    run("-f", "png,coco,yolo,overlay")
    data = correct(Path("out/masks/sub/ü.png"))
    Path("out/notes.txt").write_text("mine")
    err = run("--overwrite", "-f", "png", "--limit", "2", options=("-c", "tree"))
    assert (run.code, run.labelled) == (0, ALL[:2])
    assert "out/masks/sub/ü.png was changed by hand, and is kept.\n" in err
    found = tree("out")
    assert found.pop("masks/sub/ü.png") == data
    assert found.pop("notes.txt") == b"mine"
    assert set(found) == {"classes.json", "manifest.jsonl", "masks/a.png", "masks/sub/b c.png", "run.json"}
    # What is in the way of an image now is told, and stays.
    assert "out/masks/sub/ü.png was changed by hand, and was kept when the folder was begun anew" in run(
        "-f", "png", options=("-c", "tree")
    )
    assert (run.code, run.labelled, Path("out/masks/sub/ü.png").read_bytes()) == (1, [], data)


def test_beginning_anew_replaces_what_was_changed_where_that_is_asked_for(run: Run) -> None:
    run()
    correct(Path("out/masks/a.png"))
    run("--overwrite", "--replace-edited", options=("-c", "tree"))
    assert (run.code, run.labelled) == (0, ALL)
    run(output="fresh", options=("-c", "tree"))
    assert contents(Path("out")) == contents(Path("fresh"))


# ---- other inputs of the same names ----


def test_a_second_folder_with_the_same_names_is_refused(run: Run) -> None:
    run()
    shutil.copytree("imgs", "day2")
    shutil.copy("imgs/sub/ü.bmp", "day2/a.png")
    before = tree("out")
    label = ["label", "day2", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out"]
    for options in ([], ["--no-resume"]):
        ran = run.command(*label, *options)
        assert (ran.code, ran.out) == (1, "")
        assert (
            f"day2/a.png: the folder has labels of another image of that name, {Path('imgs/a.png').resolve()}"
            in ran.err
        )
        assert tree("out") == before
    assert run.command(*label, "--overwrite").code == 0


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_an_image_that_was_moved_is_the_same(run: Run, how: str) -> None:
    run()
    if how == "renamed":
        Path("imgs").rename("moved")
    else:
        shutil.copytree("imgs", "moved", copy_function=shutil.copyfile)
    run.labelled.clear()
    ran = run.command("label", "moved", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out")
    assert (ran.code, run.labelled) == (0, [])
    assert "0 images labelled, 3 unchanged" in ran.err
    paths = [json.loads(line)["path"] for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert paths == [str(Path("moved").resolve() / name) for name in ALL]


# ---- what others put into the folder ----

STRANGERS: dict[str, Callable[[], object]] = {
    "a mask": lambda: shutil.copy("imgs/a.png", "out/masks/a.png"),
    "annotations.json": lambda: Path("out/annotations.json").write_text('{"mine": 1}'),
    "classes.json": lambda: Path("out/classes.json").write_text('{"mine": 1}'),
    "errors.jsonl": lambda: Path("out/errors.jsonl").write_text('{"mine": 1}\n'),
    "manifest.jsonl": lambda: Path("out/manifest.jsonl").write_text('{"mine": 1}\n'),
    "run.json": lambda: Path("out/run.json").write_text('{"mine": 1}'),
    "a link in the place of a mask": lambda: Path("out/masks/a.png").symlink_to("../../imgs/a.png"),
    "a pipe in the place of annotations": lambda: os.mkfifo("out/annotations.json"),
}


@pytest.mark.parametrize("options", [[], ["--no-resume"], ["--overwrite"]], ids=str)
@pytest.mark.parametrize("case", STRANGERS)
def test_what_is_not_the_programs_stops_the_run_before_any_work(run: Run, case: str, options: list[str]) -> None:
    Path("out/masks").mkdir(parents=True)
    STRANGERS[case]()
    before = tree(".")
    err = run(*options)
    assert (run.code, run.labelled, run.out) == (1, [], "")
    assert "Hint: " in err
    assert tree(".") == before


def test_an_input_in_the_place_of_a_mask_is_not_written_to(run: Run) -> None:
    """The pictures lie where their masks would."""
    Path("imgs/masks").mkdir()
    shutil.copy("imgs/a.png", "imgs/masks/x.png")
    shutil.copy("imgs/sub/ü.bmp", "imgs/x.bmp")
    before = tree("imgs")
    run("-f", "png", output="imgs")
    assert run.code == 1
    assert {name: data for name, data in tree("imgs").items() if name in before} == before


# ---- damaged records ----


@pytest.mark.parametrize("line", [b"", b"   ", b"{", b"[]", b'{"image": "a.png"}', b"\0" * 40], ids=repr)
def test_lines_that_are_no_entries_are_set_aside_and_their_images_labelled_again(run: Run, line: bytes) -> None:
    run()
    before = contents(Path("out"))
    path = Path("out/manifest.jsonl")
    _, *rest = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join((line, *rest)) + b"\n")
    assert run.command("check", "out").code == 1
    err = run()
    assert (run.code, run.labelled) == (0, ["a.png"])
    assert "Lines of the records in out cannot be read; out/manifest-unreadable.jsonl keeps them" in err
    after = contents(Path("out"))
    assert after.pop("manifest-unreadable.jsonl") == line + b"\n"
    assert after == before
    run()
    assert (run.code, run.labelled) == (0, [])


def test_a_manifest_that_lost_lines_is_told_of_and_they_are_done_again(run: Run) -> None:
    run()
    before = contents(Path("out"))
    path = Path("out/manifest.jsonl")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert "it has 1 images, where run.json counts 3" in run.command("check", "out").out
    assert "The manifest lacks 2 images that run.json counts; labelled again where given.\n" in run()
    assert (run.code, run.labelled, contents(Path("out"))) == (0, ALL[1:], before)


def test_images_that_a_manifest_lost_are_done_again_whenever_they_are_given(run: Run) -> None:
    run()
    before = contents(Path("out"))
    path = Path("out/manifest.jsonl")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    run("--limit", "1")
    assert (run.code, run.labelled) == (0, [])
    run()
    assert (run.code, run.labelled, contents(Path("out"))) == (0, ALL[1:], before)


def test_a_corrected_mask_of_which_the_record_is_lost_is_kept(run: Run) -> None:
    run()
    data = correct(Path("out/masks/a.png"))
    path = Path("out/manifest.jsonl")
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
    *((name, True) for name in ("classes.json", "annotations.json", ".tipsseg-lock", ".tipsseg-coco")),
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


@pytest.mark.parametrize("what", ["out/masks", "out/manifest.jsonl"])
def test_what_is_removed_while_the_run_goes_on_is_told(run: Run, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    plain = OutputFolder.add

    def add(self: OutputFolder, labelled: Labelled) -> None:
        plain(self, labelled)
        if labelled.ref.name == ALL[-1]:
            shutil.rmtree(what) if Path(what).is_dir() else Path(what).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "add", add)
        err = run()
    assert run.code == 1
    assert f"Error: cannot write {what}" in err
    assert "it was removed while the run went on\nHint: Run the same command again.\n" in err
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
    place = Path("out/yolo/images/a.png")
    place.parent.mkdir(parents=True)
    place.symlink_to("../../../notes")
    run("-f", "png,yolo")
    assert place.readlink() == Path("../../../notes")
    place.unlink()
    run("-f", "png,yolo")
    assert place.resolve() == Path("imgs/a.png").resolve()
    assert Path("out/yolo/labels/a.txt").exists()


#: What `check` takes for no entry, though each value has a place.
ODD = {"height": "6", "formats": ["holo"], "classes": [{"id": 1}], "width": -5}


@pytest.mark.parametrize("key", ODD)
def test_what_check_says_of_an_entry_mends_it(run: Run, key: str) -> None:
    run()
    before = contents(Path("out"))
    path = Path("out/manifest.jsonl")
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(json.dumps({**json.loads(first), key: ODD[key]}).encode() + b"\n" + b"".join(rest))
    assert "line 1 is no entry" in run.command("check", "out").out
    run()
    assert (run.code, run.labelled) == (0, ["a.png"])
    after = contents(Path("out"))
    assert after.pop("manifest-unreadable.jsonl")
    assert after == before


# ---- what follows from a change ----


def make_other(path: Path) -> None:
    """Another image in the place of one."""
    with Image.open(path) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


def change_image(run: Run) -> None:
    make_other(Path("imgs/a.png"))
    run()


def correct_and_replace(run: Run) -> None:
    correct(Path("out/masks/a.png"))
    run.command("convert", "out", "-f", "yolo")
    run("--replace-edited")


def correct_and_take_back(run: Run) -> None:
    mask = Path("out/masks/a.png")
    before = mask.read_bytes()
    correct(mask)
    run.command("convert", "out", "-f", "yolo")
    mask.write_bytes(before)
    run()


RELABELLED: dict[str, Callable[[Run], object]] = {
    "an image that was changed": change_image,
    "other options": lambda run: run("--min-area", "5"),
    "a correction that was replaced": correct_and_replace,
    "a correction that was taken back": correct_and_take_back,
}


@pytest.mark.parametrize("case", RELABELLED)
def test_formats_of_older_labels_do_not_stay_and_can_be_written_again(run: Run, case: str) -> None:
    run()
    formats = "yolo,overlay,labelme,cvat,hf,panoptic,coco-polygon"
    assert run.command("convert", "out", "-f", formats).code == 0
    RELABELLED[case](run)
    assert (run.code, "a.png" in run.labelled) == (0, True)
    assert not Path("out/yolo/labels/a.txt").exists()
    assert not Path("out/yolo/images/a.png").is_symlink()
    ran = run.command("convert", "out", "-f", formats)
    assert (ran.code, run.command("check", "out").code) == (0, 0), ran.err
    assert Path("out/yolo/labels/a.txt").exists()


def test_a_changed_file_of_older_labels_stays(run: Run) -> None:
    run("-f", "png,coco,labelme")
    shape = Path("out/labelme/a.json")
    shape.write_bytes(shape.read_bytes() + b" ")
    data = shape.read_bytes()
    make_other(Path("imgs/a.png"))
    run("--replace-edited")
    assert run.labelled == ["a.png"]
    assert shape.read_bytes() == data


@pytest.mark.parametrize(("formats", "file"), [("overlay", "overlays/a.jpg"), ("png,yolo", "yolo/labels/a.txt")])
def test_a_corrected_image_is_in_a_format_more_too(run: Run, formats: str, file: str) -> None:
    run()
    correct(Path("out/masks/a.png"))
    err = run("-f", formats)
    assert (run.code, run.labelled) == (0, [])
    assert Path("out", file).exists()
    assert "1 mask changed by hand: all formats that its image is in have the corrected labels" in err
    assert run.command("check", "out").code == 0
    kept = Path("out", file).read_bytes()
    run("-f", formats)
    assert Path("out", file).read_bytes() == kept


def test_annotations_that_were_lost_come_back_for_a_corrected_image(run: Run) -> None:
    run()
    correct(Path("out/masks/a.png"))
    Path("out/annotations.json").unlink()
    run()
    assert run.code == 0
    images = json.loads(Path("out/annotations.json").read_bytes())["images"]
    assert [each["file_name"] for each in images] == ALL
    assert run.command("check", "out").code == 0


def test_what_cannot_be_taken_from_a_corrected_mask_is_told(run: Run) -> None:
    run()
    Image.fromarray(np.full((3, 3), 9, np.uint8)).save("out/masks/a.png")
    err = run("-f", "overlay")
    assert run.code == 1
    assert "Error: out/masks/a.png: changed by hand: " in err
    err = run("-f", "npz")
    assert "Only the model can write npz" in err
    assert "a.png" not in run.labelled


def test_an_image_that_was_changed_beside_its_corrected_mask_is_told(run: Run) -> None:
    run()
    correct(Path("out/masks/a.png"))
    make_other(Path("imgs/a.png"))
    assert "The image itself was changed since in 1 of these cases: the kept labels are of the image before.\n" in run()
    ran = run.command("convert", "out", "-f", "yolo")
    assert ran.code == 1
    assert "label it anew with --replace-edited, which gives the correction up, or leave out yolo." in ran.err


def test_what_was_kept_when_a_folder_was_begun_anew_can_be_replaced_later(run: Run) -> None:
    run()
    mask = Path("out/masks/a.png")
    data = correct(mask)
    other = ("-c", "car")
    err = run("--overwrite", options=other)
    assert (run.code, mask.read_bytes()) == (1, data)
    assert "out/masks/a.png was changed by hand, and was kept when the folder was begun anew" in err
    assert "a.png" not in run.labelled
    run(options=other)
    assert (run.code, run.labelled, mask.read_bytes()) == (1, [], data)
    run("--overwrite", options=other)
    assert (run.code, mask.read_bytes()) == (1, data)
    run("--replace-edited", options=other)
    assert (run.code, run.labelled) == (0, ["a.png"])
    assert run.command("check", "out").code == 0


def test_a_file_of_another_image_is_said_to_be_its(run: Run) -> None:
    run()
    Path("more").mkdir()
    with Image.open("imgs/a.png") as picture:
        picture.convert("RGB").save("more/a.jpg")
    ran = run.command("label", "more", "-c", CLASSES, "-m", run.model, "--device", "cpu", "-o", "out")
    assert ran.code == 1
    assert f"more/a.jpg: out/masks/a.png has the labels of another image, {Path('imgs/a.png').absolute()}" in ran.err
    assert "--names full" in ran.err


def test_annotations_of_somebody_else_are_not_checked(run: Run) -> None:
    run("-f", "png")
    Path("out/annotations.json").write_text('{"mine": 1}')
    assert run.command("check", "out").code == 0


def test_ids_keep_their_meaning_where_the_manifest_is_lost(run: Run) -> None:
    run()
    Path("out/manifest.jsonl").unlink()
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


def test_what_a_killed_run_left_is_not_looked_for_behind_a_link(run: Run, victim: Path) -> None:
    (victim / ".tipsseg-0.png").write_bytes(b"somebody's")
    run("-f", "coco")
    Path("out/masks").symlink_to("../victim")
    Path("out/.tipsseg-lock").touch()  # as after a kill: what is temporary is swept
    run("-f", "coco")
    assert (victim / ".tipsseg-0.png").exists()


def test_a_correction_is_not_given_up_silently(run: Run) -> None:
    run("-f", "png,coco,hf")
    correct(Path("out/masks/a.png"))
    assert run.command("convert", "out", "-f", "coco").code == 0
    copy = Path("out/hf/masks/a.png").read_bytes()
    Path("out/masks/a.png").unlink()
    err = run("-f", "png,coco,hf")
    assert (run.code, run.labelled, Path("out/hf/masks/a.png").read_bytes()) == (1, [], copy)
    assert "imgs/a.png" not in err.split("Error: ")[0]
    assert "Error: out/masks/a.png: it was corrected by hand, and is gone (Put it back; or label the image anew" in err
    run("-f", "png,coco,hf", "--replace-edited")
    assert (run.code, run.labelled) == (0, ["a.png"])
    assert run.command("check", "out").code == 0


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_formats_that_need_the_image_do_not_keep_others_from_following(run: Run, how: str) -> None:
    run("-f", "png,coco,yolo")
    correct(Path("out/masks/a.png"))
    before = Path("out/annotations.json").read_bytes()
    if how == "changed":
        make_other(Path("imgs/a.png"))
    else:
        Path("imgs/a.png").unlink()
    ran = run.command("convert", "out", "-f", "coco")
    assert ran.code == 0, ran.err
    assert Path("out/annotations.json").read_bytes() != before
    assert "Corrected images that are gone or were changed are not in yolo any more: " in ran.err
    assert not Path("out/yolo/labels/a.txt").exists()
    assert not Path("out/yolo/images/a.png").is_symlink()
    assert run.command("check", "out").out.count("\n") == (how == "changed")  # the image itself


def test_a_link_in_the_place_of_a_mask_is_no_correction(run: Run) -> None:
    run()
    correct(Path("out/masks/a.png"))
    Path("out/masks/a.png").rename("mine.png")
    Path("out/masks/a.png").symlink_to("../../mine.png")
    ran = run.command("convert", "out", "-f", "coco")
    assert ran.code == 1
    assert "Error: out/masks/a.png: a link is in the place of the mask (Put the file itself there.)" in ran.err


def test_lists_of_formats_that_a_run_is_not_for_lose_what_is_labelled_anew(run: Run) -> None:
    run("-f", "png,coco,coco-polygon,coco-results,panoptic,cvat,label-studio,npz")
    correct(Path("out/masks/a.png"))
    assert run.command("convert", "out", "-f", "coco").code == 0
    err = run("--replace-edited")
    assert (
        "not in coco-polygon,coco-results,panoptic,cvat,label-studio,npz any more; "
        "tipsseg convert out --format coco-polygon,coco-results,panoptic,cvat,label-studio writes them; only the model can"
    ) in err
    ran = run.command("check", "out")
    assert (ran.code, ran.out) == (0, "")
    assert run.command("convert", "out", "-f", "coco-polygon,coco-results,panoptic,cvat,label-studio").code == 0
    assert run.command("check", "out").code == 0


def test_check_tells_what_does_not_follow_yet_and_what_contradicts(run: Run) -> None:
    run("-f", "png,coco,hf")
    correct(Path("out/masks/a.png"))
    assert (
        "Other formats of 1 corrected image have the labels of before the correction.\n"
        in run.command("check", "out").err
    )
    assert run.command("convert", "out", "-f", "coco").code == 0
    assert "of before the correction" not in run.command("check", "out").err
    ids = np.zeros_like(np.array(Image.open("out/masks/a.png")))
    Image.fromarray(ids).save("out/hf/masks/a.png")
    ran = run.command("check", "out")
    assert ran.code == 1
    assert "out/masks/a.png: changed by hand, and out/hf/masks/a.png was changed in another way" in ran.out


def test_a_correction_that_cannot_be_taken_costs_no_file(run: Run) -> None:
    """Nothing of an image is removed before what replaces it is known."""
    run("-f", "png,coco,yolo")
    Image.fromarray(np.full((3, 3), 9, np.uint8)).save("out/masks/a.png")
    Path("imgs/a.png").unlink()
    before = tree("out/yolo")
    assert run.command("convert", "out", "-f", "coco").code == 1
    assert tree("out/yolo") == before


def test_lists_of_formats_that_need_the_image_lose_it_too(run: Run) -> None:
    run("-f", "png,coco,label-studio,hf,overlay")
    correct(Path("out/masks/a.png"))
    Path("imgs/a.png").unlink()
    ran = run.command("convert", "out", "-f", "coco")
    assert (ran.code, "not in label-studio, hf, overlay any more" in ran.err) == (0, True), ran.err
    ran = run.command("check", "out")
    assert (ran.code, ran.out) == (0, "")


@pytest.mark.parametrize("paths", [(), ("imgs",)])
def test_beginning_anew_is_not_for_what_failed(run: Run, paths: tuple[str, ...]) -> None:
    """It would remove the labels of all images, and label those that failed."""
    run()
    before = tree("out")
    ran = run.command("label", *paths, "-c", CLASSES, "-m", run.model, "-o", "out", "--retry-failed", "--overwrite")
    assert ran.code == 2
    assert "Error: --retry-failed goes on from a run, and --overwrite starts over\n" in ran.err
    assert tree("out") == before
