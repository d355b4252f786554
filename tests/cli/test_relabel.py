"""Another run into the same folder that the folder itself decides: byte for byte what the model would have given, without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from resuming import ALL, CLASSES, Run, contents, correct, record

from tipsseg.formats.npz import Npz
from tipsseg.store.manifest import Manifest
from tipsseg.store.run_record import read_run

KEPT = ("-f", "png,coco,npz", "--keep-cosines")
HELP = "; kept cosines would have decided it (--keep-cosines with npz among --format)"


@dataclass(frozen=True)
class Case:
    """The options of two runs into a folder; by what the second was decided, or why the model was needed."""

    before: tuple[str, ...]
    now: tuple[str, ...]
    by: str = ""
    why: str = ""


def classes(**more: object) -> tuple[str, ...]:
    """A vocabulary file whose second class says this, too."""
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    path = Path("-".join(("classes", *more)) + ".toml")
    path.write_text(f'[[classes]]\nname = "panda leg"\n[[classes]]\nname = "tree"\n{lines}[[classes]]\nname = "sky"\n')
    return ("--vocab", str(path))


CASES = {
    "a larger area": Case((), ("--min-area", "30"), "labels"),
    "a larger area, in percent": Case(("--min-area", "3"), ("--min-area", "2%"), "labels"),
    "a smaller area": Case(("--min-area", "2000"), ("--min-area", "1"), why=f"no scores of the objects are stored{HELP}"),
    "a smaller area where none is smaller": Case(("--min-area", "2"), ("--min-area", "1"), "labels"),
    "a smaller area, with cosines": Case((*KEPT, "--min-area", "2000"), (*KEPT, "--min-area", "1"), "cosines"),
    "one object a class": Case((), ("--instances", "class"), "labels"),
    "one object a class, of a smaller area": Case(
        ("--min-area", "99"), ("--instances", "class", "--min-area", "9"), "labels"
    ),
    "each part an object": Case(("--instances", "class"), (), why=f"no scores of the objects are stored{HELP}"),
    "a palette": Case(("-f", "png"), ("-f", "png", "--png-mode", "P"), "labels"),
    "grey again": Case(("--png-mode", "P"), ("-f", "png,coco,npz"), why=f"npz cannot be made from what is stored{HELP}"),
    "simpler polygons": Case(("-f", "png,coco-polygon"), ("-f", "png,coco-polygon", "--simplify", "2"), "labels"),
    "an area, in other formats": Case((), ("-f", "png,coco,overlay,yolo,coco-results,cvat", "--min-area", "9"), "labels"),
    "confidence from an archive": Case(("-f", "npz"), ("-f", "png,confidence", "--min-area", "9"), "labels"),
    "archives stay": Case(("-f", "npz,confidence"), ("-f", "npz,confidence", "--min-area", "9"), "labels"),
    "cosines no more": Case(KEPT, ("-f", "png,coco,npz"), "labels"),
    "cosines at last": Case(("-f", "npz"), KEPT, why=f"no cosines are kept yet{HELP}"),
    "a confidence": Case(KEPT, (*KEPT, "--min-confidence", "0.4"), "cosines"),
    "a smaller confidence": Case((*KEPT, "--min-confidence", "0.5"), (*KEPT, "--min-confidence", "0.4"), "cosines"),
    "no confidence": Case((*KEPT, "--min-confidence", "0.4"), ("-f", "coco,confidence,npz"), "cosines"),
    "a confidence, in one piece": Case(
        (*KEPT, "--mode", "whole"), (*KEPT, "--mode", "whole", "--min-confidence", "0.4"), "cosines"
    ),
    "a confidence without cosines": Case(
        ("-f", "png,npz"),
        ("-f", "png,npz", "--min-confidence", "0.4"),
        why=f"another minimum confidence{HELP}",
    ),
    "refined no more": Case((*KEPT, "--refine", "pamr"), KEPT, "cosines"),
    "another refinement": Case(KEPT, (*KEPT, "--refine", "pamr"), why="another refinement"),
    "another mode": Case(KEPT, (*KEPT, "--mode", "whole"), why="another mode"),
    "another dtype": Case(KEPT, (*KEPT, "--dtype", "bfloat16"), why="another dtype"),
    "two others": Case(
        ("-f", "png"), ("-f", "png", "--scales", "1,1.75", "--short-side", "70"), why="another short side and other scales"
    ),
    "other scales and features": Case(
        ("-f", "png", "--features", "feats"),
        ("-f", "png", "--scales", "1,1.75"),
        why="other scales and another dtype of features",
    ),
}  # fmt: skip


def both(
    run: Run, case: Case, before: tuple[object, ...] = ("-c", CLASSES), now: tuple[object, ...] = ("-c", CLASSES)
) -> None:
    """Run both, and compare with a run into a new folder."""
    run(*case.before, options=before)
    assert run.code == 0
    err = run(*case.now, options=now)
    assert (run.code, run.labelled) == (0, [] if case.by else ALL), err
    assert f"from the stored {case.by} of 3.\n" in err if case.by else f"for a.png first: {case.why}.\n" in err
    run(*case.now, output="fresh", options=now)
    assert contents(Path("out")) == contents(Path("fresh"))
    found, fresh = (
        {key: value for key, value in record(Path(folder)).items() if key not in ("started", "ended", "files")}
        for folder in ("out", "fresh")
    )
    assert found == fresh
    assert run.command("check", "out").code == 0
    run(*case.now, options=now)
    assert run.labelled == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_the_folder_decides_is_what_the_model_gives(run: Run, case: Case) -> None:
    both(run, case)


COLOURED = ("-f", "png,overlay", "--png-mode", "P")

OF_CLASSES: dict[str, tuple[Case, dict[str, object]]] = {
    "a colour": (Case(COLOURED, COLOURED, "labels"), {"colour": "#102030"}),
    "a supercategory": (Case((), (), "labels"), {"supercategory": "plant"}),
    "a confidence of its own": (Case(KEPT, KEPT, "cosines"), {"min_confidence": 0.5}),
    "a confidence of its own without cosines": (
        Case((), (), why=f"another minimum confidence{HELP}"),
        {"min_confidence": 0.5},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("case", "more"), OF_CLASSES.values(), ids=OF_CLASSES.keys())
def test_what_is_said_of_classes_may_change(run: Run, case: Case, more: dict[str, object]) -> None:
    both(run, case, classes(), classes(**more))


def test_a_synonym_is_another_question(run: Run) -> None:
    run(options=classes())
    assert "it holds labels of another run: with the same classes" in run(options=classes(synonyms=["bush"]))
    assert run.code == 1


@pytest.mark.parametrize("case", ["a larger area", "a palette", "archives stay", "a confidence"])
def test_a_run_that_is_broken_off_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """The options of the labels that are there are known until all are replaced."""
    before, now = CASES[case].before, CASES[case].now
    run(*before)
    add = Manifest.add
    with monkeypatch.context() as patch:

        def once(self: Manifest, entry: object) -> None:
            add(self, entry)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        patch.setattr(Manifest, "add", once)
        run(*now)
    assert run.code != 0
    digest = read_run(Path("out")).digest
    assert [each.digest for each in read_run(Path("out")).former] != [digest]
    assert len(read_run(Path("out")).former) == 1
    run(*now)
    assert (run.code, run.labelled) == (0, [])
    run(*now, output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))
    assert read_run(Path("out")).former == ()
    assert run.command("check", "out").code == 0


def test_a_corrected_mask_stays(run: Run) -> None:
    run()
    mask = Path("out/masks/a.png")
    data = correct(mask)
    err = run("--min-area", "9")
    assert (run.code, run.labelled, mask.read_bytes()) == (0, [], data)
    assert "2 images labelled without the model" in err
    run("--min-area", "9", "--replace-edited")
    assert run.labelled == ["a.png"]
    run("--min-area", "9", output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))


def test_a_new_image_alone_goes_to_the_model(run: Run, pictures: Path) -> None:
    run("--limit", "2")
    err = run("--min-area", "9")
    assert (run.code, run.labelled) == (0, ALL[2:])
    assert "2 images labelled without the model" in err
    run("--min-area", "9", output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))


DAMAGE: dict[str, Callable[[], object]] = {
    "another image": lambda: shutil.copy("imgs/sub/ü.bmp", "imgs/a.png"),
    "an archive that is gone": lambda: Path("out/npz/a.npz").unlink(),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_cannot_be_trusted_goes_to_the_model(run: Run, what: str) -> None:
    run(*KEPT)
    DAMAGE[what]()
    run(*KEPT, "--min-confidence", "0.4")
    assert run.code == 0
    assert run.labelled == ["a.png"]


def test_labels_are_made_again_where_that_is_asked_for(run: Run) -> None:
    run()
    run("--min-area", "9", "--no-resume")
    assert run.labelled == ALL


def test_cosines_are_for_archives(run: Run) -> None:
    assert "--keep-cosines is for the format npz" in run("--keep-cosines")
    assert run.code == 2


def test_cosines_that_cannot_be_read_are_no_source(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*KEPT)
    monkeypatch.setattr(Npz, "read_cosines", lambda *_: (_ for _ in ()).throw(ValueError("damaged")))
    run(*KEPT, "--min-confidence", "0.4")
    assert (run.code, run.labelled) == (0, ALL)


def test_a_dry_run_tells_what_needs_the_model(run: Run) -> None:
    run("--limit", "2")
    before = contents(Path("out"))
    err = run("--min-area", "9", "--dry-run")
    assert "3 images to label, 2 of those without the model, files of 2 would be replaced, into out." in err
    assert "by labelling 1 of them" in err
    run()
    for options in (("--min-area", "9"), ("-f", "png,coco,yolo")):
        err = run(*options, "--dry-run")
        assert "3 images to label, 3 of those without the model, " in err
        assert "by labelling" not in err
    assert "of those without" not in run("--min-confidence", "0.5", "--dry-run")
    assert "of those without" not in run("--min-area", "9", "--no-resume", "--dry-run")
    run("--limit", "2", output="again")
    assert contents(Path("again")) == before


def test_a_dry_run_writes_nothing_of_what_was_broken_off(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run that replaces a mask was killed over is put back by the next run, and not by a dry one."""
    run("-f", "png,npz")
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Manifest, "add", stop)
        run("-f", "png,npz", "--png-mode", "P")
    left = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert "3 images to label" in run("-f", "png,npz", "--png-mode", "P", "--dry-run")
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == left
