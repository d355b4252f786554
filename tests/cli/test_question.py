"""One question a folder: another one is refused before anything is touched, or starts over and keeps what a person changed."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from masks import pixels
from resuming import ALL, CLASSES, Run, contents, correct, record, tree

from tipsseg.folder.folder import OutputFolder
from tipsseg.folder.results import ImageResult

#: Options that change labels, and what the refusal says of them.
OTHERS: dict[str, tuple[tuple[object, ...], str]] = {
    "classes": (("-c", "panda leg,tree"), "classes panda leg, tree, sky -> panda leg, tree"),
    "their order": (("-c", "tree,panda leg,sky"), "classes panda leg, tree, sky -> tree, panda leg, sky"),
    "background": (("-c", CLASSES, "--background", "none"), "auto"),
    "mode": (("-c", CLASSES, "--mode", "whole"), "mode slide -> whole"),
    "scales": (("-c", CLASSES, "--scales", "1,2"), "scales 1 -> 1,2"),
    "minimum": (("-c", CLASSES, "--min-confidence", "0.4"), "min-confidence 0 -> 0.4"),
    "refinement": (("-c", CLASSES, "--refine", "pamr"), "refine none -> pamr"),
    "dtype": (("-c", CLASSES, "--dtype", "bfloat16"), "dtype float32 -> bfloat16"),
    "names": (("-c", CLASSES, "--names", "full"), "names stem -> full"),
    "features": (("-c", CLASSES, "--features", "feats"), "features none stored -> stored in float16"),
}


@pytest.mark.parametrize(("options", "said"), OTHERS.values(), ids=OTHERS)
def test_another_question_is_refused_with_commands_that_work(run: Run, options: tuple[object, ...], said: str) -> None:
    run()
    before = tree(".")
    err = run(*options[2:], options=options[:2])
    assert (run.code, run.labelled, run.out, tree(".")) == (1, [], "", before)
    assert said in err
    other, again = (shlex.split(line)[1:] for line in err.splitlines()[-2:])
    assert run.command(*again).code == 0
    assert run.command(*other).code == 0
    assert contents(Path("out")) == contents(Path("out-2"))


def test_a_forgotten_option_loses_nothing(run: Run) -> None:
    """The case that once ended with no masks at all, and exit 0."""
    run("--scales", "1,2")
    before = tree("out")
    assert "scales 1,2 -> 1" in run("-f", "yolo")
    assert (run.code, tree("out")) == (1, before)


@pytest.mark.parametrize(
    "options",
    [
        ("--batch-size", "3"), ("--jobs", "1"), ("--dtype", "auto"), ("--dtype", "float32"), ("-f", "png"), (),
        ("--device", "auto"),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_change_no_label_are_the_same_question(run: Run, options: tuple[str, ...]) -> None:
    run()
    before = contents(Path("out"))
    run(*options)
    assert (run.code, run.labelled, contents(Path("out"))) == (0, [], before)


def test_colours_are_no_question(run: Run) -> None:
    toml = 'classes = ["sky", {name = "tree", colour = "#COLOUR"}]\n'
    Path("a.toml").write_text(toml.replace("COLOUR", "102030"))
    Path("b.toml").write_text(toml.replace("COLOUR", "ff0000"))
    run("-f", "png,overlay", options=("--vocab", "a.toml"))
    mask = Path("out/masks/a.png").read_bytes()
    overlays = {path.read_bytes() for path in Path("out/overlays").rglob("*.jpg")}
    run("-f", "png,overlay", options=("--vocab", "b.toml"))
    assert (run.code, run.labelled, Path("out/masks/a.png").read_bytes()) == (0, [], mask)
    assert {path.read_bytes() for path in Path("out/overlays").rglob("*.jpg")} != overlays
    assert '"colour": "#ff0000"' in Path("out/classes.json").read_text()


# ---- formats and options of files ----


def test_formats_are_added_without_the_model(run: Run) -> None:
    run("-f", "png")
    run("-f", "yolo,coco")
    assert (run.code, run.labelled) == (0, [])
    run("-f", "png,yolo,coco", output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))
    shutil.copy("imgs/a.png", "imgs/new.png")
    run("-f", "csv")  # a new image is in all formats of the folder
    assert run.labelled == ["new.png"]
    assert Path("out/yolo/labels/train/new.txt").exists()


@pytest.mark.parametrize(
    "options", [("--min-area", "40"), ("--instances", "class"), ("--simplify", "2"), ("--val-fraction", "0.5")], ids=str
)
def test_other_file_options_write_files_again_and_stay(run: Run, options: tuple[str, str]) -> None:
    formats = ("-f", "png,coco,coco-polygon,yolo,labelme,cutouts")
    run(*formats)
    before = contents(Path("out"))
    err = run(*options)
    assert (run.code, run.labelled) == (0, [])
    assert options[0][2:] in err  # a line says what is written again
    run(*formats, *options, output="fresh")
    assert contents(Path("out")) == contents(Path("fresh")) != before
    run()  # not given: as in the folder
    assert contents(Path("out")) == contents(Path("fresh"))


def test_masks_are_written_whatever_the_formats(run: Run) -> None:
    run("-f", "coco", "--jsonl")
    assert [json.loads(line)["mask"] for line in run.out.splitlines()] == [
        "out/masks/a.png", "out/masks/sub/b c.png", "out/masks/sub/ü.png",
    ]  # fmt: skip
    run("-f", "png")
    assert (run.code, run.labelled) == (0, [])
    run("-f", "png,coco", output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))


@pytest.mark.parametrize("name", ["npz", "confidence"])
def test_scores_are_written_later_by_the_model_for_the_same_labels(run: Run, name: str) -> None:
    run("-f", "png")
    data = correct(Path("out/masks/a.png"))
    err = run("-f", name)
    assert (run.code, run.labelled) == (0, ALL[1:])
    assert "2 images labelled again: npz or confidence is missing" in err
    assert pixels(Path("out/masks/a.png")) == pixels(data)
    run("-f", f"png,{name}", output="fresh")
    for each in Path("fresh", name).rglob("*"):
        assert each.is_dir() or each.stem == "a" or Path("out", *each.parts[1:]).read_bytes() == each.read_bytes()
    run("-f", name)
    assert run.labelled == []


# ---- starting over ----

#: How the folder is started over: other labels, of classes whose ids mean the same.
ANEW: dict[str, tuple[str, ...]] = {
    "the same": ("-c", CLASSES),
    "another mode": ("-c", CLASSES, "--mode", "whole"),
    "other phrases": ("-c", CLASSES, "--background", "sand,water"),
    "a further class": ("-c", f"{CLASSES},road"),
}


@pytest.mark.parametrize("how", ["in place", "taken in"])
@pytest.mark.parametrize("options", ANEW.values(), ids=ANEW)
def test_starting_over_keeps_corrections(run: Run, options: tuple[str, ...], how: str) -> None:
    formats = ("-f", "png,coco,labelme,overlay")
    run(*formats)
    shutil.copytree("out/masks", "fix")
    data = correct(Path("fix/a.png"))
    if how == "in place":
        Path("out/masks/a.png").write_bytes(data)
    else:
        assert run.command("correct", "out", "--from", "fix").code == 0
        data = Path("out/masks/a.png").read_bytes()
    run("--overwrite", "-f", "png,coco,labelme", options=options)
    assert (run.code, run.labelled, pixels(Path("out/masks/a.png"))) == (0, ALL[1:], pixels(data))
    assert not list(Path("out/overlays").rglob("*.jpg"))  # a format that is asked for no more
    assert run.command("check", "out").out == ""
    # The other images are as in a new folder, and it is a correction still.
    run("-f", "png,coco,labelme", output="fresh", options=options)
    found, fresh = contents(Path("out")), contents(Path("fresh"))
    assert {name: data for name, data in found.items() if "sub/" in name} == {
        name: data for name, data in fresh.items() if "sub/" in name
    }
    run(options=options)
    assert (run.code, run.labelled) == (0, [])
    assert record(Path("out"))["counts"]["edited"] == 1  # type: ignore[index]


def test_starting_over_removes_what_the_program_wrote_and_keeps_what_others_made(run: Run) -> None:
    run("-f", "png,labelme,coco,yolo,overlay")
    path = Path("out/labelme/sub/ü.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "flags": {"seen": True}}))
    data = path.read_bytes()
    Path("out/notes.txt").write_text("mine")
    err = run("--overwrite", "-f", "png", options=("-c", "tree"))
    assert (run.code, run.labelled) == (0, ALL)
    found = tree("out")
    (place,) = (name for name in found if name.startswith("replaced/"))
    assert (place.endswith("/labelme/sub/ü.json"), found.pop(place)) == (True, data)
    assert f"Moved 1 file that may be somebody's work to out/replaced: {place}." in err
    assert found.pop("notes.txt") == b"mine"
    files = {name for name in found if not name.startswith(".")}
    masks = {str(Path("masks", each).with_suffix(".png")) for each in ALL}
    assert files == {"classes.json", "manifest.jsonl", *masks, "run.json"}


@pytest.mark.parametrize("classes", ["tree", "tree,panda leg,sky", "panda leg,tree,road"])
def test_starting_over_refuses_to_change_the_meaning_of_corrected_ids(run: Run, classes: str) -> None:
    run()
    correct(Path("out/masks/a.png"))
    before = tree("out")
    err = run("--overwrite", options=("-c", classes))
    assert (run.code, run.labelled, tree("out")) == (1, [], before)
    assert "--replace-edited" in err
    run("--overwrite", "--replace-edited", options=("-c", classes))
    assert (run.code, run.labelled) == (0, ALL)
    run(output="fresh", options=("-c", classes))
    assert contents(Path("out")) == contents(Path("fresh"))


def test_starting_over_goes_on_where_it_was_killed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    correct(Path("out/masks/sub/ü.png"))

    plain = OutputFolder.record

    def stop(self: OutputFolder, result: ImageResult) -> ImageResult:
        if result.ref.name == "sub/b c.jpg":
            raise KeyboardInterrupt
        return plain(self, result)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "record", stop)
        run("--overwrite", "--mode", "whole")
    assert run.code == 130
    mask = Path("out/masks/a.png").stat()
    run("--overwrite", "--mode", "whole")
    assert (run.code, run.labelled) == (0, ["sub/b c.jpg"])
    assert Path("out/masks/a.png").stat() == mask
    run("--overwrite", "--mode", "whole")  # finished: the same command starts over again
    assert run.labelled == ALL[:2]
