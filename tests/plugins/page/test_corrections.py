"""corrections.json of the report page: objects by number, in the mask that the page showed, strokes above them, and marks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from output_folders import make_run, save_inputs
from PIL import Image

from tipsseg.errors import ImageError, InputError, TipssegError
from tipsseg.folder.read import open_run
from tipsseg.formats.mask import read_sealed, seal
from tipsseg.formats.npz import encode_arrays
from tipsseg.plugins.page.verb import report_folder
from tipsseg.review import correct_folder, merge_folders

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


def shown_digest(out: Path, image: str = "a.png") -> str:
    """What a page that is written now says of the labels that it shows."""
    with open_run(out) as run:
        return run.image(image).entry.base


def save(out: Path, objects: object, image: str = "a.png", **changes: object) -> Path:
    correction = {"image": image, "labels": shown_digest(out, image), "objects": objects} | changes
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
    assert correct_folder(out, first).masks == ()
    assert (mask(out)[OBJECTS[1]] == 0).all()


def test_a_new_class_is_added_on_request(out: Path) -> None:
    path = save(out, [{"object": 3, "class": "house"}])
    with pytest.raises(InputError, match="unknown class"):
        correct_folder(out, path)
    assert (mask(out) == IDS).all()
    assert correct_folder(out, path, add_classes=True).classes == ("house",)
    assert (mask(out)[OBJECTS[2]] == 3).all()


def stroke(points: object, **more: object) -> dict[str, object]:
    return {"class": "tree", "radius": 2.5, "points": points, **more}


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such object": (lambda out: save(out, [{"object": 99, "class": "tree"}]), "regions, but not number 99"),
    "no number": (lambda out: save(out, [{"class": "tree"}]), "no `object`"),
    "no points": (lambda out: save(out, [], strokes=[stroke([])]), "stroke 1: no points"),
    "points of text": (lambda out: save(out, [], strokes=[stroke([["1", "2"]])]), "near the image"),
    "points of three": (lambda out: save(out, [], strokes=[stroke([[1, 2, 3]])]), "near the image"),
    "points far outside": (lambda out: save(out, [], strokes=[stroke([[1, 1e9]])]), "near the image"),
    "a million points": (lambda out: save(out, [], strokes=[stroke([[1, 2]] * 1_000_000)]), "more than 50000 points"),
    "a radius of 1e9": (lambda out: save(out, [], strokes=[stroke([[1, 2]], radius=1e9)]), "`radius` is 1e+09"),
    "a radius of 0": (lambda out: save(out, [], strokes=[stroke([[1, 2]], radius=0)]), "`radius` is 0"),
    "no radius": (lambda out: save(out, [], strokes=[{"class": "tree", "points": [[1, 2]]}]), "no `radius`"),
    "no class": (lambda out: save(out, [], strokes=[{"radius": 2, "points": [[1, 2]]}]), "no `class`"),
    "too much": (
        lambda out: save(out, [], strokes=[stroke([[0, 0], [20, 30]], radius=20)] * 501),
        "500 times the image",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_corrections_that_do_not_fit_are_refused(out: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    write, reason = BAD[case]
    write(out)
    with pytest.raises(InputError, match="cannot be imported"):
        correct_folder(out, "corrections.json", verbose=True)
    assert reason in capsys.readouterr().err
    assert (mask(out) == IDS).all()


def test_a_damaged_file_is_refused_before_any_image_is_read(out: Path) -> None:
    with pytest.raises(ImageError, match="correction 1: `strokes` is"):
        correct_folder(out, save(out, [], strokes={"0": 1}))
    path = save(out, [], strokes=[stroke([[1, float("nan")]])])
    with pytest.raises(TipssegError, match="NaN is not valid JSON"):
        correct_folder(out, path)


def test_another_file_is_not_taken_for_a_page(out: Path) -> None:
    Path("other.json").write_text("{}")
    with pytest.raises(InputError, match=r"other.json: not a file of the review page"):
        correct_folder(out, "other.json", source_format="report")


def test_later_changes_of_the_same_page_are_imported_too(out: Path) -> None:
    """The page that stays open saves all changes since it was written, on the labels that it shows."""
    shown = shown_digest(out)
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


def test_a_page_whose_labels_were_damaged_is_left_out(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mask keeps the labels that the page showed, also without the cache."""
    correct_folder(out, save(out, [{"object": 2, "class": None}]))
    shown, path = shown_digest(out), out / "masks/a.png"
    correct_folder(out, save(out, [{"object": 1, "class": "tree"}]))
    whole, before = path.read_bytes(), mask(out).copy()
    sealed = read_sealed(whole)
    assert sealed.facts is not None
    bulk = sealed.unpacked()
    others = [encode_arrays(labels=each) for each in (IDS[:3], IDS.astype(np.float64), np.full_like(IDS, 77))]
    for content in (b"", b"PK\x03\x04 not an archive", bulk["base"][:-40], *others):
        path.write_bytes(seal(whole, sealed.facts, {**bulk, "base": content}))
        left = correct_folder(out, save(out, [{"object": 2, "class": None}], labels=shown), verbose=True)
        assert (left.left_out, left.failed) == (("a.png",), 1)
        assert "Write the page again" in capsys.readouterr().err
        assert (mask(out) == before).all()
    path.write_bytes(whole)
    shutil.rmtree(out / ".tipsseg")
    correct_folder(out, save(out, [{"object": 2, "class": None}], labels=shown))
    wanted = IDS.copy()
    wanted[OBJECTS[1]] = wanted[OBJECTS[2]] = 0
    assert (mask(out) == wanted).all()


def test_a_page_is_older_than_corrections_from_elsewhere(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Changes elsewhere in the image stay. What both changed is left out, and the other images are imported."""
    shown = shown_digest(out)
    one, two = {"object": 1, "class": "tree"}, {"object": 3, "class": None}
    correct_folder(out, save(out, [one]))
    edited = mask(out).copy()
    edited[0] = 2
    Image.fromarray(edited).save(out / "masks/a.png")
    correct_folder(out, save(out, [one, two], labels=shown))
    edited[OBJECTS[2]] = 0
    assert (mask(out) == edited).all()
    edited[2:8, 2:4] = 0  # of the first object, which the page calls a tree
    Image.fromarray(edited).save(out / "masks/a.png")
    records = [{"image": "a.png", "labels": shown, "objects": [{"object": 1, "class": None}]}]
    records += [{"image": "sub/b.png", "labels": shown_digest(out, "sub/b.png"), "objects": [one]}]
    Path("corrections.json").write_text(json.dumps({"tool": "tipsseg", "corrections": records}))
    left = correct_folder(out, "corrections.json", verbose=True)
    assert (left.left_out, left.failed, [each.image for each in left.masks]) == (("a.png",), 1, ["sub/b.png"])
    assert "a.png: its labels changed since this file was written" in capsys.readouterr().err
    assert (mask(out) == edited).all()
    correct_folder(out, "corrections.json", replace_edited=True)
    edited[OBJECTS[0]] = 0
    assert (mask(out) == edited).all()


def near(points: list[tuple[float, float]], radius: float, shape: tuple[int, ...] = IDS.shape) -> np.ndarray[Any, Any]:
    """The pixels whose centres are within a radius of a line, by their distances."""
    y, x = np.indices(shape) + 0.5
    nearest = np.full(shape, np.inf)
    for (y0, x0), (y1, x1) in zip(points, points[1:] or points, strict=False):
        length = max((y1 - y0) ** 2 + (x1 - x0) ** 2, 1e-12)
        share = np.clip(((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / length, 0, 1)
        nearest = np.minimum(nearest, (y - y0 - share * (y1 - y0)) ** 2 + (x - x0 - share * (x1 - x0)) ** 2)
    return nearest <= radius**2


def test_strokes_are_drawn_in_their_order_above_renamed_regions(out: Path) -> None:
    """Each covers the pixels whose centres are within its radius; an eraser brings back what is below all of them."""
    line, other, rubbed = [(2.25, 3), (15, 12.5), (4, 40)], [(10.0, 4.0)], [(1.0, 10.0), (19.0, 10.0)]
    strokes = [
        stroke(line),
        stroke(other, **{"class": None, "radius": 4}),
        stroke(rubbed, erase=True, radius=1.5),
        stroke([(18, 25)], ignore=True, radius=3),
    ]
    correct_folder(out, save(out, [{"object": 1, "class": "tree"}], strokes=strokes))
    wanted = IDS.copy()
    wanted[OBJECTS[0]] = 2
    below = wanted.copy()
    wanted[near(line, 2.5)] = 2
    wanted[near(other, 4)] = 0
    wanted[near(rubbed, 1.5)] = below[near(rubbed, 1.5)]
    wanted[near([(18, 25)], 3)] = 255
    assert (mask(out) == wanted).all()


def test_a_lasso_fills_what_it_goes_around(out: Path) -> None:
    """A pixel is inside by its centre, also where the line crosses itself; in the image only."""
    square = [[5, 5], [5, 25.4], [15.6, 25.4], [15.6, 5]]
    correct_folder(out, save(out, [], strokes=[{"class": "tree", "lasso": True, "points": square * 2}]))
    wanted = IDS.copy()
    wanted[5:16, 5:25] = 2
    assert (mask(out) == wanted).all()


def test_strokes_are_the_same_at_any_size(tmp_path: Path) -> None:
    """Of the same places on a small and a ten times larger image, no pixel differs whose neighbours are all alike."""
    small, large = np.zeros((48, 64), np.uint8), np.zeros((480, 640), np.uint8)
    labels = {"large.png": large, "small.png": small}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, ("panda", "tree"), ("png",))
    corrections = []
    for name, times in (("small.png", 1.0), ("large.png", 10.0)):
        digest = shown_digest(tmp_path / "out", name)
        points = np.array([[5.2, 6.1], [10, 25], [14.5, 45.7], [40, 70]]) * times
        around = np.array([[30, 40], [45.5, 41], [44, 60.3], [29.1, 55]]) * times
        strokes = [
            stroke(points.tolist(), radius=2.7 * times),
            {**stroke(around.tolist()), "lasso": True, "class": "panda"},
        ]
        corrections.append({"image": name, "labels": digest, "objects": [], "strokes": strokes})
    path = tmp_path / "corrections.json"
    path.write_text(json.dumps({"tool": "tipsseg", "corrections": corrections}))
    correct_folder(tmp_path / "out", path)
    found, fine = mask(tmp_path / "out", "small.png"), mask(tmp_path / "out", "large.png")
    blocks = fine.reshape(48, 10, 64, 10).swapaxes(1, 2).reshape(48, 64, 100)
    for label in (0, 1, 2):
        inside = cv2.erode((found == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert inside.any()
        assert (blocks[inside] == label).all()


def test_an_image_marked_good_is_accepted(out: Path) -> None:
    """With changes or without, it is a person's, and the next page shows the mark."""
    report_folder(out, jobs=1, verbose=False)
    correct_folder(out, save(out, [], good=True))
    entries = {each["image"]: each for each in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}
    assert entries["a.png"]["corrected"]["accepted"] is True
    assert "corrected" not in entries["sub/b.png"]
    correct_folder(out, save(out, [{"object": 1, "class": None}], image="sub/b.png", good=True))
    report_folder(out, jobs=1, verbose=False)
    text = (out / "report/data/images-00000.js").read_text()
    assert [each["good"] for each in json.loads(text[text.index("[") : text.rindex("]") + 1])] == [True, True]
    correct_folder(out, undo=["a.png"])
    report_folder(out, jobs=1, verbose=False)
    assert (out / "report/data/images-00000.js").read_text().count('"good":true') == 1


def test_a_mark_that_is_taken_back_leaves_the_labels_to_the_model(out: Path) -> None:
    """But not those that a person changed."""
    change = [{"object": 1, "class": None}]
    correct_folder(out, save(out, [], good=True))
    correct_folder(out, save(out, change, image="sub/b.png", good=True))
    shown = json.loads(Path("corrections.json").read_text())["corrections"][0]["labels"]
    for _ in range(2):
        correct_folder(out, save(out, [], good=False))
    correct_folder(out, save(out, change, image="sub/b.png", labels=shown, good=False))
    entries = {each["image"]: each for each in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}
    assert "corrected" not in entries["a.png"]
    assert entries["sub/b.png"]["corrected"]["accepted"] is False


def test_a_correction_that_was_undone_holds_again_once_it_is_imported_again(out: Path) -> None:
    path = save(out, [{"object": 1, "class": None}])
    correct_folder(out, path)
    before = mask(out).copy()
    correct_folder(out, undo=["a.png"])
    assert (mask(out) == IDS).all()
    correct_folder(out, path)
    assert (mask(out) == before).all()
    entry = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
    assert (entry["image"], entry["corrected"]["format"]) == ("a.png", "report")


def saved(path: Path, browser: str, when: int) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), "browser": browser, "saved": when}))
    return path


def test_only_newer_files_of_the_same_browser_replace_what_a_page_imported(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An older one would take newer changes back, and one of another person theirs."""
    shown = shown_digest(out)
    one, two = {"object": 1, "class": None}, {"object": 3, "class": None}
    correct_folder(out, saved(save(out, [one, two]), "k3b", 200))
    before = mask(out).copy()
    older = correct_folder(out, saved(save(out, [one], labels=shown), "k3b", 100), verbose=True)
    assert (older.left_out, older.failed) == (("a.png",), 1)
    assert "saved later was imported" in capsys.readouterr().err
    assert correct_folder(out, saved(save(out, [one], labels=shown), "other", 300)).masks == ()
    assert (mask(out) == before).all()
    correct_folder(out, saved(save(out, [one], labels=shown), "k3b", 201))
    assert (mask(out)[OBJECTS[2]] == 2).all()


def test_a_page_of_a_mask_that_was_edited_in_place_can_be_imported(out: Path) -> None:
    edited = mask(out).copy()
    edited[0] = 2
    Image.fromarray(edited).save(out / "masks/a.png")
    report_folder(out, jobs=1, verbose=False)
    correct_folder(out, save(out, [], strokes=[stroke([[18.5, 15.5]])]))
    assert (mask(out)[0] == 2).all()
    assert mask(out)[18, 15] == 2


def test_all_objects_of_a_page_can_be_deleted(out: Path) -> None:
    correct_folder(out, save(out, [{"object": number, "class": None} for number in (1, 2, 3)]))
    assert not mask(out).any()


def test_joined_folders_take_the_labels_of_their_pages_along(tmp_path: Path) -> None:
    """A later file of a page is imported into the folder that its folder was joined into."""
    save_inputs(tmp_path / "imgs", labels := {"a.png": IDS, "b.png": IDS})
    for image, ids in labels.items():
        make_run(tmp_path / image[0], tmp_path / "imgs", {image: ids}, ("panda", "tree"), ("png",))
    shown = shown_digest(tmp_path / "a")

    def write(*objects: dict[str, object]) -> Path:
        path = tmp_path / "corrections.json"
        corrections = [{"image": "a.png", "labels": shown, "objects": objects}]
        path.write_text(json.dumps({"tool": "tipsseg", "corrections": corrections}))
        return path

    correct_folder(tmp_path / "a", write({"object": 1, "class": None}))
    assert merge_folders([tmp_path / "a", tmp_path / "b"], tmp_path / "out", verbose=False) == 0
    correct_folder(tmp_path / "out", write({"object": 3, "class": None}))
    wanted = IDS.copy()
    wanted[OBJECTS[2]] = 0
    assert (mask(tmp_path / "out") == wanted).all()
