"""The data of the page: what is in it, escaped, made once, and refused where the folder is something else."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept_features import keep_features
from output_folders import A, B, make_run, problems, save_inputs, tree
from PIL import Image

from tipsseg.errors import InputError, OutputError, TipssegError
from tipsseg.folder.entry import Failure, Failures
from tipsseg.folder.find import Ignored, found_images
from tipsseg.folder.read import open_run
from tipsseg.plugins.page import make
from tipsseg.plugins.page.image import script
from tipsseg.plugins.page.verb import report_folder
from tipsseg.say import Progress, Silence

HOSTILE_CLASS = "</script><script>alert(1)</script>"
HOSTILE_IMAGE = 'a"><img src=x onerror=alert(1)>.png'


@pytest.fixture
def out(tmp_path: Path) -> Path:
    labels = {HOSTILE_IMAGE: A, "b.jpg": B}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, (HOSTILE_CLASS, "tree", "sky"), ("png", "npz"))
    return tmp_path / "out"


def report(out: Path, target: Path | None = None, images: Path | None = None) -> int:
    return report_folder(out, target, images=images, jobs=2, verbose=Silence())


def data(path: Path) -> list[object]:
    text = path.read_text(encoding="ascii").splitlines()[-1]
    arguments: list[object] = json.loads("[" + text[text.index("(") + 1 : text.rindex(");")] + "]")
    return arguments


def records(out: Path) -> list[dict[str, object]]:
    return data(out / "report/data/images-00000.js")[1]  # type: ignore[return-value]


def test_a_script_ends_where_it_ends() -> None:
    assert script("run", "</script>\u2028<!--&") == (b'tipsseg.run("\\u003c/script\\u003e\\u2028\\u003c!--\\u0026");\n')


def test_the_data_of_a_page(out: Path) -> None:
    assert report(out) == 0
    (facts,) = data(out / "report/data/run.js")
    assert isinstance(facts, dict)
    assert [each["name"] for each in facts["classes"]] == [HOSTILE_CLASS, "tree", "sky"]
    assert (facts["images"], facts["ended"], facts["truth"]) == (2, True, None)
    found = {each["image"]: each for each in records(out)}
    assert found.keys() == {HOSTILE_IMAGE, "b.jpg"}
    assert [each["confidence"] for each in records(out)] == sorted(each["confidence"] for each in found.values())  # type: ignore[type-var]
    with open_run(out) as run:
        entry = run.image("b.jpg").entry
    assert found["b.jpg"] | {"classes": 0, "confidence": 0, "background": 0, "key": 0} == {
        "image": "b.jpg",
        "path": str(out.parent / "imgs/b.jpg"),
        "size": [7, 5],
        "state": "unchanged",
        "ignored": 0,
        "objects": 1,
        "shown": True,
        "confidences": True,
        "labels": entry.base,
        "picture": entry.mask.picture.pixels,
        **{"classes": 0, "confidence": 0, "background": 0, "key": 0},
    }
    # The page lies beside labels, and is taken neither for labels nor for images.
    assert problems(out) == []
    assert all("report" not in ref.relative.parts for ref in found_images([out.parent], None, Ignored(None)).refs)


def test_a_page_has_all_images(tmp_path: Path) -> None:
    labels = {f"{number:03}.png": B for number in range(make._FIRST_CHUNK + 1)}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, formats=("png",))
    assert report(tmp_path / "out") == 0
    (facts,) = data(tmp_path / "out/report/data/run.js")
    assert isinstance(facts, dict)
    shown = [data(tmp_path / "out/report" / chunk)[1] for chunk in facts["chunks"]]
    assert sorted(each["image"] for chunk in shown for each in chunk) == sorted(labels)  # type: ignore[attr-defined]


def test_the_map_holds_labels_and_confidences(out: Path, tmp_path: Path) -> None:
    report(out)
    key = str(next(each["key"] for each in records(out) if each["image"] == HOSTILE_IMAGE))
    labels, _, others, confidences = map(decoded, data(out / f"report/maps/{key[:2]}/{key}.js")[1:])
    assert np.array_equal(labels, A)
    assert others is None
    assert np.array_equal(np.ravel(confidences), (np.arange(A.size) * 37 + 11) % 256)


def decoded(encoded: Any) -> Any:
    """The numbers of a map, as the page reads them."""
    if encoded is None:
        return None
    planes = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded["url"].partition(",")[2]))))
    return sum(part.astype(int) << 8 * place for place, part in enumerate(np.split(planes, encoded["planes"])))


def test_a_finished_report_is_not_drawn_again(out: Path) -> None:
    report(out)
    before = {path: path.stat().st_mtime_ns for path in (out / "report").glob("*/??/*")}
    content = tree(out / "report")
    assert len(before) == 6
    assert report(out) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "report").glob("*/??/*")} == before
    assert tree(out / "report") == content
    # Nor without the cache.
    shutil.rmtree(out / ".tipsseg")
    assert report(out) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "report").glob("*/??/*")} == before
    assert tree(out / "report") == content
    # A map that was cut off, as by a loss of power: that image is drawn again.
    cut = next((out / "report/maps").glob("*/*"))
    cut.write_bytes(cut.read_bytes()[:20])
    assert report(out) == 0
    assert tree(out / "report") == content


@pytest.mark.parametrize(
    "damage", [b"", b"// 5\n", b'// ["a", {}]\n', b'// ["a", 5]\n'], ids=["empty", "number", "older", "list"]
)
def test_a_damaged_map_is_drawn_again(out: Path, damage: bytes) -> None:
    report(out)
    path = next((out / "report/maps").rglob("*.js"))
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert report(out) == 0
    assert path.read_bytes() == whole


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_need_not_be_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    labels = np.zeros((4, 6), np.uint8)
    save_inputs(tmp_path / "imgs", {name: labels})
    make_run(tmp_path / "out", tmp_path / "imgs", {name: labels})
    for _ in range(2):
        assert report(tmp_path / "out") == 0
    assert (tmp_path / "out/report/index.html").exists()


def test_files_of_images_that_the_run_does_not_have_are_removed(out: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "one", tmp_path / "imgs", {"b.jpg": B}, (HOSTILE_CLASS, "tree", "sky"), ("png", "npz"))
    report(out, tmp_path / "page")
    assert len(list((tmp_path / "page").glob("*/??/*"))) == 6
    (tmp_path / "page/data/images-00001.js").touch()  # of a page with more images
    report(tmp_path / "one", tmp_path / "page")
    assert len(list((tmp_path / "page").glob("*/??/*"))) == 3
    assert [path.name for path in (tmp_path / "page/data").glob("images-*")] == ["images-00000.js"]


def test_a_corrected_mask_is_shown(out: Path) -> None:
    report(out)
    Image.fromarray(np.full((7, 5), 3, np.uint8)).save(out / "masks/b.png")
    assert report(out) == 0
    last = records(out)[-1]
    assert (last["image"], last["state"], last["confidences"]) == ("b.jpg", "edited", False)
    assert [each[:2] for each in last["classes"]] == [[3, 35]]  # type: ignore[attr-defined]


def test_an_image_that_is_gone_leaves_its_labels(out: Path) -> None:
    (out.parent / "imgs/b.jpg").rename(out.parent / "b.jpg")
    assert report(out) == 1
    assert {each["image"]: each["shown"] for each in records(out)} == {HOSTILE_IMAGE: True, "b.jpg": False}
    (out.parent / "imgs/b.jpg").symlink_to(out.parent / "b.jpg")
    assert report(out) == 0


def test_images_that_moved_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {f"{number}.png": B for number in range(9)}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, formats=("png",))
    (tmp_path / "imgs").rename(tmp_path / "moved")
    assert report_folder(tmp_path / "out", jobs=2, verbose=Progress(quiet=True, results=False)) == 9
    (line,) = capsys.readouterr().err.splitlines()
    assert "0.png: no such file, like 8 more images (Set the folder of the images" in line
    assert (
        report_folder(tmp_path / "out", images=tmp_path / "moved", jobs=2, verbose=Progress(quiet=True, results=False))
        == 0
    )


def test_failures_of_the_run_come_last(out: Path) -> None:
    failed = Failures(out)
    failed.add(Failure(image="c.png", path="/c.png", reason="not an image", hint=""))
    failed.write()
    assert report(out) == 0
    assert records(out)[-1] == {
        "image": "c.png",
        "path": "/c.png",
        "key": None,
        "state": "failed",
        "reason": "not an image",
        "classes": [],
    }


def other_record(out: Path) -> None:
    (out / "report").mkdir()
    (out / "report/report.json").write_text("{}")


def other_files(out: Path) -> None:
    (out / "report").mkdir()
    (out / "report/mine.txt").write_text("mine")


@pytest.mark.parametrize(
    ("damage", "error", "part"),
    [
        pytest.param(other_record, OutputError, "neither empty", id="a record of something else"),
        pytest.param(other_files, OutputError, "neither empty", id="a folder of something else"),
        pytest.param(lambda out: (out / "run.json").unlink(), InputError, "run.json is missing", id="no record"),
    ],
)
def test_report_refuses_damaged_folders(
    out: Path, damage: Callable[[Path], object], error: type[TipssegError], part: str
) -> None:
    damage(out)
    before = tree(out)
    with pytest.raises(error, match=part):
        report(out)
    assert tree(out) == before


# ---- truth ----


def test_the_truth_of_each_image(out: Path) -> None:
    """The truth is what the labels are, but for 7 of 35 pixels of b.jpg."""
    truth = B.copy()
    truth[:, 0] = 3
    (out.parent / "truth").mkdir()
    for name, ids in {HOSTILE_IMAGE: np.where(A == 255, 0, A), "b.png": truth}.items():
        Image.fromarray(ids.astype(np.uint8)).save(out.parent / "truth" / name)
    assert report_folder(out, jobs=2, verbose=Silence(), truths=out.parent / "truth") == 0
    found = {each["image"]: each["accuracy"] for each in records(out)}
    assert found == {HOSTILE_IMAGE: round(46 / 48, 4), "b.jpg": 0.8}
    (facts,) = data(out / "report/data/run.js")
    assert isinstance(facts, dict)
    assert [each["name"] for each in facts["truth"]["classes"]] == ["background", HOSTILE_CLASS, "tree", "sky"]
    assert facts["truth"]["confusion"]["columns"][-1] == "no label"
    assert sum(map(sum, facts["truth"]["confusion"]["counts"])) == 48 + 35
    report(out)
    assert not any("accuracy" in each for each in records(out))
    # A truth of another size: an error line, and the page is made without the score of that image.
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(out.parent / "truth/b.png")
    assert report_folder(out, jobs=2, verbose=Silence(), truths=out.parent / "truth") == 1
    assert [each["image"] for each in records(out) if "accuracy" in each] == [HOSTILE_IMAGE]


# ---- alike images, the run, colours ----


def test_images_that_are_alike(out: Path) -> None:
    report(out)
    assert not any("alike" in each for each in records(out))
    folder = keep_features(out, {HOSTILE_IMAGE: [1, 0.1], "b.jpg": [1, 0]})
    assert report_folder(out, jobs=1, verbose=Silence(), features=folder) == 0
    assert [each["alike"] for each in records(out)] == [[1], [0]]


def test_other_labels_and_doubts(out: Path, tmp_path: Path) -> None:
    report(out)
    plain = tree(out / "report")
    (tmp_path / "others").mkdir()
    Image.fromarray(np.where(B == 255, 0, B).astype(np.uint8)).save(tmp_path / "others/b.png")
    doubts = tmp_path / "doubts.jsonl"
    doubts.write_text(
        '{"image": "b.jpg", "kind": "class", "label": "tree", "seen": null, "score": 0.5, "bbox": [1, 2, 3, 4]}\n'
    )
    assert report_folder(out, jobs=1, verbose=Silence(), labels=tmp_path / "others", doubts=doubts) == 0
    found = {each["image"]: each.get("doubts") for each in records(out)}
    assert found == {HOSTILE_IMAGE: None, "b.jpg": [["class", "tree", None, 0.5, [1, 2, 3, 4]]]}
    changed = [name for name, content in tree(out / "report").items() if plain[name] != content]
    assert len([name for name in changed if name.startswith("maps/")]) == 1
    # Labels of another size: an error line, and the image is shown without them.
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "others/b.png")
    assert report_folder(out, jobs=1, verbose=Silence(), labels=tmp_path / "others") == 1
    now = tree(out / "report")
    assert b"--labels" in now.pop("data/run.js")  # the command that writes this page again
    del plain["data/run.js"]
    assert now == plain


def test_labels_that_several_images_could_have(tmp_path: Path) -> None:
    """A mask without a folder, for two images of one name: neither takes it."""
    labels = {"a/b.png": A, "c/b.png": A}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, ("panda", "tree", "sky"), ("png",))
    (tmp_path / "others").mkdir()
    Image.fromarray(np.zeros(A.shape, np.uint8)).save(tmp_path / "others/b.png")
    assert report_folder(tmp_path / "out", jobs=1, verbose=Silence(), labels=tmp_path / "others") == 2


def test_labels_and_doubts_of_other_images_are_noted(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "others").mkdir()
    Image.fromarray(B).save(tmp_path / "others/x.png")
    doubts = tmp_path / "doubts.jsonl"
    doubts.write_text(
        '{"image": "x", "kind": "class", "label": "a", "seen": null, "score": 0.5, "bbox": [1, 2, 3, 4]}\n'
    )
    progress = Progress(quiet=False)
    assert report_folder(out, jobs=1, verbose=progress, labels=tmp_path / "others", doubts=doubts) == 0
    err = capsys.readouterr().err
    for note in ("other labels have no image of this run.", "None of the findings is about an image of this run."):
        assert note in err


@pytest.mark.parametrize("line", ["{", "[]", '{"image": "b.jpg", "kind": "class", "score": 0.5, "bbox": [1, 2, 3]}'])
def test_other_files_are_no_doubts(out: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "doubts.jsonl").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"doubts.jsonl: line 1: "):
        report_folder(out, jobs=1, verbose=Silence(), doubts=tmp_path / "doubts.jsonl")
    with pytest.raises(InputError, match="no such file"):
        report_folder(out, jobs=1, verbose=Silence(), doubts=tmp_path / "nowhere")


def test_the_page_describes_the_run(out: Path) -> None:
    report(out)
    (facts,) = data(out / "report/data/run.js")
    assert isinstance(facts, dict)
    text = "\n".join(facts["summary"])
    for part in ("Model tiny, float32 on cpu", "tipsseg label", "Started 2026-01-01", "Found in 2 images, by area: "):
        assert part in text
