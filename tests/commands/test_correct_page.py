"""corrections.json of the report page: objects by number, in the mask that the page showed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_folders import make_run, save_inputs
from PIL import Image

from tipsseg.errors import InputError
from tipsseg.review import correct_folder

IDS = np.zeros((20, 30), np.uint8)
IDS[2:8, 2:8] = IDS[12:18, 2:8] = 1
IDS[2:18, 20:28] = 2

#: Number of objects, by class and then from the top: the two of class 1, then that of class 2.
OBJECTS = [(slice(2, 8), slice(2, 8)), (slice(12, 18), slice(2, 8)), (slice(2, 18), slice(20, 28))]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    labels = {"a.png": IDS, "sub/b.png": IDS.T.copy()}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, ("panda", "tree"), ("png", "coco"))
    return tmp_path / "out"


def mask(out: Path, name: str = "a.png") -> np.ndarray[Any, Any]:
    with Image.open(out / "masks" / name) as picture:
        return np.asarray(picture)


def save(out: Path, objects: object, image: str = "a.png", **changes: object) -> Path:
    digest = hashlib.sha256((out / "masks" / image).read_bytes()).hexdigest()
    correction = {"image": image, "labels": digest, "objects": objects} | changes
    path = Path("corrections.json")
    path.write_text(json.dumps({"tool": "tipsseg", "corrections": [correction]}))
    return path


def test_objects_get_a_class_the_background_or_are_ignored(out: Path) -> None:
    objects = [{"object": 1, "class": "tree"}, {"object": 2, "class": None}, {"object": 3, "ignore": True}]
    result = correct_folder(out, save(out, objects))
    assert (result.format, [each.changed for each in result.masks]) == ("report", [36 + 36 + 128])
    wanted = IDS.copy()
    for place, new in zip(OBJECTS, (2, 0, 255), strict=True):
        wanted[place] = new
    assert (mask(out) == wanted).all()
    assert (mask(out, "sub/b.png") == IDS.T).all()


def test_a_file_is_imported_once_and_follows_edits_of_the_mask(out: Path) -> None:
    first = save(out, [{"object": 1, "class": "tree"}])
    text = first.read_text()
    correct_folder(out, first)
    assert correct_folder(out, first).masks == ()
    # The next page shows the corrected mask, whose objects have other numbers.
    correct_folder(out, save(out, [{"object": 1, "class": None}]))
    assert (mask(out)[OBJECTS[0]] == 2).all()
    assert (mask(out)[OBJECTS[1]] == 0).all()
    first.write_text(text)
    with pytest.raises(InputError, match="1 of 1 correction cannot be imported"):
        correct_folder(out, first)


def test_a_new_class_is_added_on_request(out: Path) -> None:
    path = save(out, [{"object": 3, "class": "house"}])
    with pytest.raises(InputError, match="unknown class"):
        correct_folder(out, path)
    assert (mask(out) == IDS).all()
    assert correct_folder(out, path, add_classes=True).classes == ("house",)
    assert (mask(out)[OBJECTS[2]] == 3).all()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "stale": (
        lambda out: save(out, [{"object": 1, "class": "tree"}], labels="0" * 64),
        "changed since the page was written",
    ),
    "no such object": (lambda out: save(out, [{"object": 99, "class": "tree"}]), "regions, but not number 99"),
    "no number": (lambda out: save(out, [{"class": "tree"}]), "no `object`"),
}


@pytest.mark.parametrize("case", BAD)
def test_corrections_that_do_not_fit_are_refused(out: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    write, reason = BAD[case]
    write(out)
    with pytest.raises(InputError, match="cannot be imported"):
        correct_folder(out, "corrections.json", verbose=True)
    assert reason in capsys.readouterr().err
    assert (mask(out) == IDS).all()


def test_another_file_is_not_taken_for_a_page(out: Path) -> None:
    Path("other.json").write_text("{}")
    with pytest.raises(InputError, match=r"other.json: not a corrections.json of the report page"):
        correct_folder(out, "other.json", source_format="report")


def test_later_changes_of_the_same_page_are_imported_too(out: Path) -> None:
    """The page that stays open saves all changes since it was written, on the labels that it shows."""
    shown = hashlib.sha256((out / "masks/a.png").read_bytes()).hexdigest()
    one, two = {"object": 1, "class": "tree"}, {"object": 3, "class": None}
    correct_folder(out, save(out, [one]))
    again = save(out, [one, two], labels=shown)
    assert len(correct_folder(out, again).masks) == 1
    wanted = IDS.copy()
    wanted[OBJECTS[0]], wanted[OBJECTS[2]] = 2, 0
    assert (mask(out) == wanted).all()
    assert correct_folder(out, again).masks == ()
    # What was undone in the page is undone in the folder.
    correct_folder(out, save(out, [{"object": 1, "class": "panda"}, two], labels=shown))
    wanted[OBJECTS[0]] = 1
    assert (mask(out) == wanted).all()


def test_a_page_whose_labels_were_damaged_is_refused(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = hashlib.sha256((out / "masks/a.png").read_bytes()).hexdigest()
    correct_folder(out, save(out, [{"object": 1, "class": "tree"}]))
    (kept,) = (out / ".tipsseg/pages").iterdir()
    before = mask(out).copy()
    for content in (b"", b"PK\x03\x04 not an archive", kept.read_bytes()[:-40]):
        kept.write_bytes(content)
        with pytest.raises(InputError, match="cannot be imported"):
            correct_folder(out, save(out, [{"object": 3, "class": None}], labels=shown), verbose=True)
        assert "write the page again" in capsys.readouterr().err
        assert (mask(out) == before).all()


def test_a_page_is_older_than_corrections_from_elsewhere(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = hashlib.sha256((out / "masks/a.png").read_bytes()).hexdigest()
    one, two = {"object": 1, "class": "tree"}, {"object": 3, "class": None}
    correct_folder(out, save(out, [one]))
    edited = mask(out).copy()
    edited[0] = 2
    Image.fromarray(edited).save(out / "masks/a.png")
    with pytest.raises(InputError, match="cannot be imported"):
        correct_folder(out, save(out, [one, two], labels=shown), verbose=True)
    assert "changed since the page was written" in capsys.readouterr().err
    assert (mask(out) == edited).all()
