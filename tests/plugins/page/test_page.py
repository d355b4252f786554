"""The page in a real browser: it opens from the disk, filters, toggles, follows keys, and takes names for text."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser, drag, open_image, wait_for
from kept_features import keep_features
from output_folders import A, B, make_run, save_inputs
from PIL import Image

import tipsseg
from tipsseg.plugins.page.image import jpeg, script
from tipsseg.plugins.page.make import PAGE_FILES, _chunks, page_file
from tipsseg.plugins.page.verb import report_folder
from tipsseg.say import Silence

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium")]

#: Thumbnails of the page with many images.
FILES = 400

#: Whether the first thumbnails are decoded.
FIRST_SEEN = (
    "[...document.querySelectorAll('.cell img')].slice(0, 12).filter((each) => each.naturalWidth).length === 12"
)

HOSTILE_CLASS = "<script>alert(1)</script>"
HOSTILE_IMAGE = 'a"><img src=x onerror=alert(1)>.png'


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_a_person_looks_at_a_run(browser: Browser, tmp_path: Path) -> None:
    labels = {HOSTILE_IMAGE: A, "b.jpg": B, "sub/c.png": B}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, (HOSTILE_CLASS, "tree", "sky", "never"), ("png", "npz"))
    report_folder(tmp_path / "out", jobs=1, verbose=Silence())
    browser.go(tmp_path / "out/report/index.html", "page.complete")
    assert browser.value("document.querySelectorAll('.cell').length") == 3
    assert browser.value("document.querySelectorAll('.cell img').length") == 3
    assert browser.value("byId('never').textContent") == "never"

    # Filters.
    for field, value, number in [("search", "sub/", 1), ("class", "1", 1), ("state", "edited", 0), ("low", "99", 0)]:
        browser.value(f"byId('{field}').value = {json.dumps(value)}; byId('filters').dispatchEvent(new Event('input'))")
        assert browser.value("document.querySelectorAll('.cell').length") == number, field
        browser.value("byId('filters').reset()")
        browser.wait("document.querySelectorAll('.cell').length === 3")

    # One image: keys, classes, what is under the pointer, marks.
    browser.value(f"viewer.openRecord(page.records.find((each) => each.image === {json.dumps(HOSTILE_IMAGE)}))")
    browser.wait("viewer.ids")
    assert browser.value("byId('name').textContent") == HOSTILE_IMAGE
    assert browser.value("Array.from(viewer.ids)") == A.ravel().tolist()
    assert browser.value("viewer.textAt(0, 0)") == f"{HOSTILE_CLASS}, confidence 4 %"
    browser.press("1")
    assert browser.value("viewer.hidden.has(1)") is True
    browser.press("o")
    assert browser.value("byId('opacity').value") == "0"
    browser.press("w")
    assert browser.value("pathList()") == f"{tmp_path}/imgs/{HOSTILE_IMAGE}\n"
    before = browser.value("viewer.index")
    browser.press("ArrowRight" if before == 0 else "ArrowLeft")
    assert browser.value("viewer.index") != before
    browser.press("Escape")
    browser.wait("!byId('viewer').open")

    # Marks outlive the page.
    browser.go(tmp_path / "out/report/index.html", "page.complete && page.records.length === 3")
    assert browser.value("markedPaths().length") == 1
    assert (browser.dialogs, browser.errors) == ([], [])


def test_truth_and_images_that_are_alike(browser: Browser, tmp_path: Path) -> None:
    labels = {"a.png": A, "b.png": B, "sub/c.png": B}
    save_inputs(tmp_path / "imgs", labels)
    out = tmp_path / "out"
    for name in labels:
        with Image.open(tmp_path / "imgs" / name) as picture:
            own = np.array(picture)
        own[0, 0] = ord(Path(name).stem)  # each image another content
        Image.fromarray(own).save(tmp_path / "imgs" / name)
    make_run(out, tmp_path / "imgs", labels, ("panda", HOSTILE_CLASS, "sky"), ("png",))
    for name, ids in labels.items():
        (tmp_path / "truth" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(ids == 255, 0, ids).astype(np.uint8)).save(tmp_path / "truth" / name)
    wrong = np.where(B == 2, 3, B)
    Image.fromarray(wrong).save(tmp_path / "truth/sub/c.png")
    report_folder(out, jobs=1, verbose=Silence(), truths=tmp_path / "truth")
    browser.go(out / "report/index.html", "page.complete")
    browser.value("document.querySelector('nav [data-view=truth]').click()")
    assert browser.value("byId('truth').hidden") is False
    rows = browser.value("[...document.querySelectorAll('#truth tbody tr')].map((row) => row.cells[0].textContent)")
    assert rows == ["background", "panda", HOSTILE_CLASS, "sky"]
    cells = browser.value("[...document.querySelectorAll('#truth tbody tr')].at(-1).innerText.split(/\\s+/)")
    assert cells[:7] == [
        "sky",
        "28",
        "%",
        "72",
        "%",
        "28",
        "%",
    ]  # 8 of 29 pixels are correct, 21 taken for another class
    worst = browser.value("[...document.querySelectorAll('#worst button')].map((each) => each.title)")
    assert worst == ["sub/c.png: 40 % right", "a.png: 96 % right", "b.png: 100 % right"]
    browser.value("document.querySelector('#worst button').click()")
    browser.wait("viewer.ids")
    assert browser.value("byId('name').textContent") == "sub/c.png"
    assert browser.value("byId('alike').hidden") is True
    browser.press("Escape")
    browser.wait("!byId('viewer').open && !history.state")
    browser.value("show('images'); byId('order').value = 'truth'; refresh()")
    assert browser.value("page.shown.map((each) => each.image)") == ["sub/c.png", "a.png", "b.png"]
    browser.value("show('classes')")
    assert "tipsseg label" in browser.value("byId('summary').textContent")

    # With features, the images that are most like one are shown beside it.
    tokens = {"a.png": [1.0, 0.0], "b.png": [1.0, 0.5], "sub/c.png": [0.0, 1.0]}
    report_folder(out, jobs=1, verbose=Silence(), features=keep_features(out, tokens))
    browser.go(out / "report/index.html", "page.complete")
    browser.value("viewer.openRecord(page.records.find((each) => each.image === 'a.png'))")
    found = browser.value(
        "[...document.querySelectorAll('#neighbours button')].map((each) => each.title.split(':')[0])"
    )
    assert found == ["b.png", "sub/c.png"]
    browser.value("document.querySelector('#neighbours button').click()")
    browser.wait("byId('name').textContent === 'b.png'")
    assert (browser.dialogs, browser.errors) == ([], [])


#: Two regions of class 1, of which the larger one surrounds a hole, and one of class 3.
REGIONS = np.zeros((60, 90), np.uint8)
REGIONS[:, :10] = 1
REGIONS[:, 20:60] = 1
REGIONS[20:50, 30:40] = 2
REGIONS[:, 70:] = 3


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    """The page of a run of four images, of which a person corrected the last one; no image has class 4 or 5."""
    labels = {**{f"{name}.png": REGIONS for name in "abc"}, "d.png": REGIONS[20:22, 28:32].copy()}
    save_inputs(tmp_path / "imgs", labels)
    names = ("tree", "door", "sky", "never", "nowhere")
    make_run(tmp_path / "out", tmp_path / "imgs", labels, names, ("png", "npz"))
    Image.fromarray(np.array([[1, 1, 2, 2], [1, 1, 1, 2]], np.uint8)).save(tmp_path / "out/masks/d.png")
    report_folder(tmp_path / "out", jobs=1, verbose=Silence())
    return tmp_path / "out/report/index.html"


SHOWN = "page.shown.map((each) => each.image)"


def enter(browser: Browser, field: str, value: str) -> None:
    """Fill in a filter as a person does."""
    event = "new Event('input', { bubbles: true })"
    browser.value(f"byId('{field}').value = {json.dumps(value)}; byId('{field}').dispatchEvent({event})")


def test_confidence_is_filtered_in_the_numbers_that_are_shown(browser: Browser, regions: Path) -> None:
    browser.go(regions, "page.complete")
    shown = browser.value("page.records.map((each) => describe(each))")
    numbers = sorted({int(each.split("confidence ")[1].split()[0]) for each in shown})
    assert len(numbers) == 2
    for low, high in [(0, 100), (numbers[0], numbers[0]), (numbers[1], numbers[1]), (numbers[1] + 1, 100)]:
        enter(browser, "low", str(low))
        enter(browser, "high", str(high))
        found = browser.value(f"{SHOWN}.length")
        assert found == sum(low <= int(each.split("confidence ")[1].split()[0]) <= high for each in shown), (low, high)
    # With a class it is the confidence of the class, which is shown then.
    enter(browser, "low", "0")
    enter(browser, "class", "3")
    assert ", sky " in browser.value("describe(page.shown[0])")


def test_back_closes_an_image_and_a_reload_keeps_the_place(browser: Browser, regions: Path) -> None:
    browser.go(regions, "page.complete")
    enter(browser, "search", "png")
    enter(browser, "class", "3")
    enter(browser, "order", "path")
    assert browser.value(SHOWN) == ["a.png", "b.png", "c.png"]
    browser.value("viewer.open(1)")
    browser.press("ArrowRight")
    assert browser.value("byId('name').textContent") == "c.png"

    browser.value("history.back()")
    browser.wait("!byId('viewer').open")
    assert browser.value(SHOWN) == ["a.png", "b.png", "c.png"]
    browser.value("history.forward()")
    browser.wait("byId('viewer').open && byId('name').textContent === 'c.png'")

    # Closed by its key, it leaves nothing behind that Back would have to pass.
    length = browser.value("history.length")
    for _ in range(3):
        browser.press("Escape")
        browser.wait("!byId('viewer').open && !history.state")
        browser.value("viewer.open(0)")
        browser.wait("byId('viewer').open && viewer.ids")
    assert browser.value("history.length") == length

    # A reload keeps the filters, and the image that is open.
    browser.value("page.complete = false; location.reload()")
    browser.wait("page.complete && byId('viewer').open && byId('name').textContent === 'a.png'")
    assert browser.value(SHOWN) == ["a.png", "b.png", "c.png"]
    browser.press("Escape")
    browser.wait("!byId('viewer').open && !history.state")
    browser.value("page.complete = false; location.reload()")
    browser.wait("page.complete && page.records.length === 4")
    assert browser.value("['search', 'class', 'order'].map((name) => byId(name).value)") == ["png", "3", "path"]
    assert browser.value(SHOWN) == ["a.png", "b.png", "c.png"]
    browser.value("document.querySelector('#filters [type=reset]').click()")
    browser.wait("page.shown.length === 4")
    browser.value("page.complete = false; location.reload()")
    browser.wait("page.complete && page.records.length === 4")
    assert browser.value("page.shown.length") == 4
    assert (browser.dialogs, browser.errors) == ([], [])


def test_the_grid_has_a_legend_of_the_classes_in_it(browser: Browser, regions: Path) -> None:
    browser.go(regions, "page.complete")
    items = "[...document.querySelectorAll('#colours li')]"
    assert browser.value(f"{items}.map((each) => each.textContent)") == ["tree", "door", "sky"]
    colours = browser.value(f"{items}.map((each) => getComputedStyle(each.firstChild).backgroundColor)")
    wanted = browser.value("page.run.classes.slice(0, 3).map((each) => each.colour)")
    assert colours == ["rgb({}, {}, {})".format(*bytes.fromhex(each[1:])) for each in wanted]
    enter(browser, "state", "edited")  # whose mask has no sky
    assert browser.value(f"{items}.map((each) => each.textContent)") == ["tree", "door"]


def test_a_name_stands_inside_the_largest_region_of_its_class(browser: Browser, regions: Path) -> None:
    browser.go(regions, "page.complete")
    drawn = "CanvasRenderingContext2D.prototype.fillText"
    browser.value(f"window.drawn = []; {drawn} = function (text, x, y) {{ window.drawn.push([text, x, y]); }}")
    browser.value("viewer.openRecord(page.records.find((each) => each.image === 'a.png'))")
    browser.wait("viewer.ids && window.drawn.length")
    places = {text: (int(y), int(x)) for text, x, y in browser.value("window.drawn")}
    assert places.keys() == {"tree", "door", "sky"}
    for number, name in enumerate(("tree", "door", "sky"), 1):
        y, x = places[name]
        assert (REGIONS[y - 4 : y + 5, x - 4 : x + 5] == number).all(), name
    assert places["tree"][1] >= 20  # the larger one of its two regions


def test_on_a_phone_the_image_stays_in_sight(tmp_path: Path, regions: Path) -> None:
    with Browser(tmp_path / "profile", width=390, height=700) as phone:
        phone.go(regions, "page.complete")
        assert (
            phone.value("document.querySelector('.cell').getBoundingClientRect().top") < 250
        )  # pictures, then filters
        phone.value("viewer.openRecord(page.records[0])")
        phone.wait("viewer.ids")
        frame = "JSON.stringify(byId('picture').getBoundingClientRect())"
        before = json.loads(phone.value(frame))
        assert 0 <= before["top"] < before["bottom"] <= 0.6 * 700
        for place in ("legend", "marks", "opacity"):
            phone.value(f"byId('{place}').scrollIntoView()")
            assert json.loads(phone.value(frame)) == before
            shown = json.loads(phone.value(f"JSON.stringify(byId('{place}').getBoundingClientRect())"))
            assert before["bottom"] <= shown["top"] < 700, place
        assert phone.value("document.documentElement.scrollWidth") == 390


def test_order_by_certainty_puts_corrected_images_last(browser: Browser, tmp_path: Path) -> None:
    labels = {"a.png": REGIONS, "b.png": REGIONS[:, 65:].copy(), "c.png": REGIONS[:, :15].copy(), "d.png": REGIONS}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, ("tree", "door", "sky"), ("png",))
    Image.fromarray(REGIONS[::-1]).save(tmp_path / "out/masks/d.png")
    report_folder(tmp_path / "out", jobs=1, verbose=Silence())
    browser.go(tmp_path / "out/report/index.html", "page.complete")
    confidence = dict(browser.value("page.records.map((each) => [each.image, each.confidence])"))
    uncertain = sorted("abc", key=lambda name: confidence[f"{name}.png"])
    assert len(set(confidence.values())) >= 3
    for order, names in (("score", uncertain), ("sure", uncertain[::-1])):
        enter(browser, "order", order)
        assert browser.value(SHOWN) == [f"{name}.png" for name in (*names, "d")]


def test_order_by_truth_is_offered_where_images_were_scored(browser: Browser, regions: Path, tmp_path: Path) -> None:
    def offered(truths: Path | None) -> bool:
        report_folder(tmp_path / "out", jobs=1, verbose=Silence(), truths=truths)
        browser.go(regions.with_name("report.json"), "true")  # so that the page is loaded anew
        browser.go(regions, "page.complete")
        return "truth" in browser.value("[...byId('order').options].map((each) => each.value)")

    shutil.copytree(tmp_path / "out/masks", tmp_path / "truth")
    assert [offered(truths) for truths in (None, tmp_path / "truth", None)] == [False, True, False]


def test_a_person_corrects_objects_by_clicks(browser: Browser, tmp_path: Path) -> None:
    """From clicks to the masks; a pixel of another object never changes."""
    left, right = np.zeros((60, 90), np.uint8), np.zeros((60, 90), np.uint8)
    left[5:25, 5:25] = left[35:55, 5:25] = 1
    left[5:55, 60:80] = 2
    right[:, 40:] = 3
    labels = {"a.png": left, "sub/b.png": right}
    save_inputs(tmp_path / "imgs", labels)
    out = tmp_path / "out"
    make_run(out, tmp_path / "imgs", labels, ("panda", HOSTILE_CLASS, "sky"), ("png", "coco"))
    report_folder(out, jobs=1, verbose=Silence())
    page = out / "report/index.html"
    browser.ask("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.go(page, "page.complete")

    open_image(browser, "a.png")
    assert drag(browser, (10, 10)) == 1
    browser.press("Escape")
    assert browser.value("[viewer.selected.size, byId('viewer').open]") == [0, True]
    assert drag(browser, (10, 10)) == 1
    browser.press("2")
    assert browser.value("viewer.textAt(10, 10)") == f"{HOSTILE_CLASS}, corrected"
    # A box around all: the change is taken back, and another made.
    assert drag(browser, (1, 1), (58, 88)) == 3
    browser.press("0")
    assert browser.value("Math.max(...viewer.ids)") == 0
    browser.press("u")
    assert browser.value("[viewer.textAt(10, 10), viewer.ids[40 * 90 + 10]]") == [f"{HOSTILE_CLASS}, corrected", 1]
    assert drag(browser, (30, 55), (58, 88)) == 0  # half of an object
    assert drag(browser, (20, 55), (58, 88)) == 1
    browser.value("byId('becomes').value = String(page.run.ignore); byId('becomes').dispatchEvent(new Event('change'))")
    open_image(browser, "sub/b.png")
    assert drag(browser, (30, 60)) == 1
    browser.value("byId('becomes').value = '2'; byId('becomes').dispatchEvent(new Event('change'))")
    assert browser.value("byId('corrected').textContent") == "3 regions in 2 images changed"

    # The browser keeps the corrections.
    browser.go(page, "page.complete && page.records.length === 2")
    open_image(browser, "a.png")
    assert browser.value("[viewer.textAt(10, 10), viewer.textAt(20, 70)]") == [
        f"{HOSTILE_CLASS}, corrected",
        "ignored, corrected",
    ]
    browser.value("byId('save-corrections').click()")
    saved = tmp_path / "corrections.json"
    wait_for(saved)
    assert (browser.dialogs, browser.errors) == ([], [])

    result = tipsseg.review.correct_folder(out, saved)
    assert (result.format, [mask.changed for mask in result.masks]) == ("report", [400 + 1000, 3000])
    left[5:25, 5:25], left[5:55, 60:80], right[:, 40:] = 2, 255, 2
    for name, wanted in labels.items():
        with Image.open(out / "masks" / name) as mask:
            assert (np.asarray(mask) == wanted).all()
    assert tipsseg.review.correct_folder(out, saved).masks == ()
    # The page of the corrected masks starts anew.
    report_folder(out, jobs=1, verbose=Silence())
    browser.go(page, "page.complete && page.records.length === 2")
    assert browser.value("changes.text()") == "Nothing changed"
    assert browser.value("page.records.map((each) => each.state)") == ["edited", "edited"]


def test_a_page_that_was_imported_goes_on(browser: Browser, tmp_path: Path) -> None:
    """The second file has one change more in an image, and takes back all that the first one had of the other."""
    ids = np.zeros((60, 90), np.uint8)
    ids[5:25, 5:25], ids[35:55, 5:25] = 1, 2
    labels = {"a.png": ids, "b.png": ids}
    save_inputs(tmp_path / "imgs", labels)
    out, saved = tmp_path / "out", tmp_path / "corrections.json"
    make_run(out, tmp_path / "imgs", labels, ("panda", "tree"), ("png",))
    report_folder(out, jobs=1, verbose=Silence())
    browser.ask("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.go(out / "report/index.html", "page.complete")

    def change(name: str, place: tuple[int, int], key: str) -> None:
        open_image(browser, name)
        assert drag(browser, place) == 1
        browser.press(key)

    def save() -> list[np.ndarray[Any, Any]]:
        saved.unlink(missing_ok=True)
        browser.value("byId('save-corrections').click()")
        wait_for(saved)
        tipsseg.review.correct_folder(out, saved)
        return [np.asarray(Image.open(out / "masks" / name)) for name in labels]

    change("a.png", (10, 10), "2")
    change("b.png", (10, 10), "2")
    wanted = ids.copy()
    wanted[5:25, 5:25] = 2
    assert all((mask == wanted).all() for mask in save())
    browser.press("u")
    assert browser.value("changes.text()") == "1 region in 1 image changed"
    change("a.png", (40, 10), "1")
    wanted[35:55, 5:25] = 1
    one, other = save()
    assert (one == wanted).all()
    assert (other == ids).all()
    assert (browser.dialogs, browser.errors) == ([], [])


def test_the_page_shows_corrections_at_once_and_says_why_a_key_does_nothing(browser: Browser, tmp_path: Path) -> None:
    """Also of regions that no object covers: background and ignored pixels."""
    ids = np.zeros((60, 90), np.uint8)
    ids[5:25, 5:25], ids[30:, :], ids[40:50, 40:60] = 1, 255, 0
    save_inputs(tmp_path / "imgs", {"a.png": ids})
    out = tmp_path / "it's out"
    make_run(out, tmp_path / "imgs", {"a.png": ids}, ("panda", "tree", "sky"), ("png",))
    report_folder(out, jobs=1, verbose=Silence())
    browser.ask("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.go(out / "report/index.html", "page.complete")
    correct, report = browser.value("byId('import').textContent").splitlines()
    assert [word for word in shlex.split(correct) if "Downloads" not in word] == [
        "tipsseg",
        "correct",
        str(out),
        "--from",
    ]
    assert shlex.split(report) == ["tipsseg", "report", str(out)]
    drawn = "CanvasRenderingContext2D.prototype.fillText"
    browser.value(f"window.drawn = []; {drawn} = function (text) {{ window.drawn.push(text); }}")
    open_image(browser, "a.png")

    def told(key: str) -> str:
        browser.press(key)
        return str(browser.value("byId('hover').textContent"))

    legend = "byId('legend').textContent"
    assert [told(key).split(":")[0] for key in ("2", "7", "u", "x", "0", "i")] == [
        "tree is not in this image.",
        "The run has no class 7.",
        "Nothing to undo.",
        "There are no other labels. Write the page with --labels to compare some.",
        "Click a region first",
        "Click a region first",
    ]
    assert browser.value(legend).startswith("1 panda: 7 % of the image, confidence")
    browser.value("window.drawn = []")
    assert drag(browser, (10, 10)) == 1
    browser.press("2")
    assert told("z") == "tree, corrected"
    assert browser.value(legend).startswith("2 tree: 7 % of the image")
    assert browser.value("window.drawn.at(-1)") == "tree"
    assert drag(browser, (45, 50)) == 1  # background inside ignored pixels
    browser.press("3")
    assert drag(browser, (55, 5)) == 1  # ignored pixels
    browser.press("1")
    assert browser.value(legend).count(" of the image") == 3  # three classes, and no ignored pixel any more
    assert "Ignored" not in browser.value(legend)
    browser.value("byId('save-corrections').click()")
    wait_for(tmp_path / "corrections.json")
    (mask,) = tipsseg.review.correct_folder(out, tmp_path / "corrections.json").masks
    wanted = ids.copy()
    wanted[5:25, 5:25], wanted[30:, :], wanted[40:50, 40:60] = 2, 1, 3
    with Image.open(mask.path) as picture:
        assert (np.asarray(picture) == wanted).all()
    assert (browser.dialogs, browser.errors) == ([], [])


def test_the_view_zooms_to_the_pixels_of_the_image(browser: Browser, tmp_path: Path) -> None:
    ids = np.zeros((900, 1800), np.uint8)
    ids[100:300, 200:500] = 1
    save_inputs(tmp_path / "imgs", {"a #1.png": ids})
    make_run(tmp_path / "out", tmp_path / "imgs", {"a #1.png": ids}, ("panda",), ("png",))
    report_folder(tmp_path / "out", jobs=1, verbose=Silence())
    browser.go(tmp_path / "out/report/index.html", "page.complete")
    open_image(browser, "a #1.png")
    browser.wait("byId('picture').naturalWidth === 800")
    frame = (
        "(() => { const r = byId('overlay').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
    )
    left, top, width, height = browser.value(frame)
    scale = min(width / 1800, height / 900)
    at = left + (width - 1800 * scale) / 2 + 350 * scale, top + (height - 900 * scale) / 2 + 200 * scale
    browser.ask("Input.dispatchMouseEvent", {"type": "mouseWheel", "x": at[0], "y": at[1], "deltaX": 0, "deltaY": -400})
    browser.wait("viewer.zoom.scale > 3 && byId('picture').naturalWidth === 1800")  # the file itself
    browser.point(*at)
    assert browser.value("byId('hover').textContent").startswith("panda, ")
    browser.draw(at, at)
    assert browser.value("viewer.selected.size") == 1
    touches = [
        [{"x": at[0] - each, "y": at[1], "id": 0}, {"x": at[0] + each, "y": at[1], "id": 1}] for each in (80, 40)
    ]
    before = browser.value("viewer.zoom.scale")
    for kind, points in (("touchStart", touches[0]), ("touchMove", touches[1]), ("touchEnd", [])):
        browser.ask("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert 0.4 * before < browser.value("viewer.zoom.scale") < 0.6 * before
    browser.press("z")
    assert browser.value(frame) == [left, top, width, height]


def test_parts_are_folded_and_deleted_parts_are_their_whole(browser: Browser, tmp_path: Path) -> None:
    scene = Path(__file__).parents[3] / "examples/scenes/meadow/panda-and-tree.jpg"
    out, names = tmp_path / "out", ["panda/head", "panda/leg", "tree"]
    (_,) = tipsseg.label_folder(scene, names, output=out, model="tiny", device="cpu", formats=["png"])
    head, leg, panda = 1, 2, 4
    report_folder(out, jobs=1, verbose=Silence())
    browser.go(out / "report/index.html", "page.complete")
    browser.value("viewer.openRecord(page.records[0])")
    browser.wait("viewer.ids")
    inside = "document.querySelectorAll('#legend details label').length"
    assert (browser.value("viewer.record.classes.map((each) => each[0])"), browser.value(inside)) == (
        [3, panda, head, leg],
        3,
    )
    browser.value(f"viewer.toggle({panda})")
    assert browser.value("[...viewer.hidden].sort()") == [head, leg, panda]
    browser.value(f"viewer.toggle({panda})")

    def become(ids: list[int]) -> list[int]:
        """Delete all objects of these classes, and return what is left of the panda."""
        numbers = f"viewer.objects.filter((number, at) => {ids}.includes(viewer.original[at]))"
        browser.value(f"(viewer.select(new Set({numbers})), viewer.become(0))")
        found = browser.value(
            f"[...new Set(viewer.ids.filter((id, at) => [{head}, {leg}, {panda}].includes(viewer.original[at])))].sort()"
        )
        browser.value("viewer.undo()")
        assert isinstance(found, list)
        return found

    assert become([head]) == [leg, panda]
    assert become([head, leg]) == [panda]
    assert become([head, leg, panda]) == [0]
    assert (browser.dialogs, browser.errors) == ([], [])


def test_a_browser_without_storage_warns(browser: Browser, tmp_path: Path) -> None:
    labels = {"a.png": np.ones((60, 90), np.uint8)}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, ("panda", "tree"), ("png",))
    report_folder(tmp_path / "out", jobs=1, verbose=Silence())
    browser.go(tmp_path / "out/report/index.html", "page.complete")
    browser.value("Storage.prototype.setItem = () => { throw new Error('full'); }; null")
    open_image(browser, "a.png")
    assert drag(browser, (10, 10)) == 1
    browser.press("0")
    text = browser.value("byId('corrected').textContent")
    assert text.startswith("1 region in 1 image changed. This browser does not store changes")
    assert browser.value("window.dispatchEvent(new Event('beforeunload', { cancelable: true }))") is False  # it asks
    browser.value("changes.save()")
    assert browser.value("window.dispatchEvent(new Event('beforeunload', { cancelable: true }))") is True
    # A key before the map of an image is loaded changes nothing.
    browser.value("viewer.original = null; viewer.applyChanges()")
    assert (browser.dialogs, browser.errors) == ([], [])


def test_other_labels_are_one_switch_away(browser: Browser, tmp_path: Path) -> None:
    """Beside the run's labels: those of another tool, and what an audit doubts of them."""
    own, other = np.zeros((60, 90), np.uint8), np.zeros((60, 90), np.uint8)
    own[10:40, 10:40] = 1
    other[10:40, 10:40] = 2
    labels = {"a.png": own, "b.png": own}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "out", tmp_path / "imgs", labels, ("panda", HOSTILE_CLASS), ("png",))
    (tmp_path / "others").mkdir()
    Image.fromarray(other).save(tmp_path / "others/b.png")
    finding = {"kind": "class", "label": HOSTILE_CLASS, "seen": "panda", "score": 0.9, "bbox": [10, 10, 30, 30]}
    doubts = tmp_path / "doubts.jsonl"
    doubts.write_text("".join(json.dumps({"image": "b.png", **finding, "score": score}) + "\n" for score in (0.5, 0.9)))
    report_folder(tmp_path / "out", jobs=1, verbose=Silence(), labels=tmp_path / "others", doubts=doubts)
    browser.go(tmp_path / "out/report/index.html", "page.complete")
    browser.value("byId('order').value = 'doubt'; refresh()")
    assert browser.value("page.shown[0].image") == "b.png"
    browser.value("viewer.open(0)")
    browser.wait("viewer.ids")
    assert browser.value("viewer.ids[20 * 90 + 20]") == 1
    browser.press("x")
    assert browser.value("viewer.ids[20 * 90 + 20]") == 2
    assert browser.value("viewer.textAt(20, 20)") == HOSTILE_CLASS
    assert browser.value("[byId('tools').hidden, byId('no-tools').textContent.startsWith('Switch back')]") == [
        True,
        True,
    ]
    browser.press("x")
    assert browser.value("[viewer.ids[20 * 90 + 20], byId('tools').hidden]") == [1, False]
    texts = browser.value("[...document.querySelectorAll('#doubts button')].map((each) => each.textContent)")
    assert texts == [f"{score}: labelled {HOSTILE_CLASS}, looks like panda" for score in ("0.90", "0.50")]
    browser.value("document.querySelector('#doubts button').click()")
    assert browser.value("viewer.box") == [10, 10, 30, 30]
    browser.value("viewer.openRecord(page.records.find((each) => each.image === 'a.png'))")
    browser.wait("viewer.ids")
    assert browser.value("[byId('compare').hidden, byId('audit').hidden]") == [True, True]
    assert (browser.dialogs, browser.errors) == ([], [])


def test_ten_thousand_images(browser: Browser, tmp_path: Path) -> None:
    """Only what is in view is in the page, however many images there are."""
    number = 10_000
    classes = [{"id": place, "name": f"class {place}", "colour": "#a0b0c0"} for place in range(1, 21)]
    sizes = list(_chunks(number))
    chunks = [f"data/{index}.js" for index in range(len(sizes))]
    (tmp_path / "data").mkdir()
    for name in PAGE_FILES:
        (tmp_path / name).write_bytes(page_file(name))
    facts = {"name": "many", "digest": "0", "ended": True, "images": number, "chunks": chunks, "classes": classes}
    (tmp_path / "data/run.js").write_bytes(script("run", {**facts, "ignore": 255, "truth": None}))
    for place in range(FILES):
        path = tmp_path / f"thumbnails/00/{place:024}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(Image.effect_noise((240, 180), 60 + place % 7).convert("RGB")))
    begin = 0
    for index, size in enumerate(sizes):
        images = [record(place) for place in range(begin, begin + size)]
        (tmp_path / chunks[index]).write_bytes(script("images", index, images))
        begin += size
    first = browser.go(tmp_path / "index.html", FIRST_SEEN)
    browser.wait("page.complete")
    browser.value("byId('scroll').scrollTop = 1e9")
    browser.wait("page.cells.has(9999)")
    assert browser.value("document.querySelectorAll('.cell').length") < 100
    browser.ask("HeapProfiler.collectGarbage")
    heap = browser.ask("Runtime.getHeapUsage")["usedSize"]
    print(f"first thumbnails after {first:.2f} s, heap {heap / 1e6:.0f} MB")
    assert heap < 300e6


def record(place: int) -> dict[str, object]:
    shown = [[1 + (place + each) % 20, 1000, 0.5] for each in range(5)]
    rest = {"size": [480, 640], "state": "unchanged", "ignored": 0, "shown": True, "confidences": False}
    name = f"folder {place % 100}/image {place:05}.jpg"
    return {
        "image": name,
        "path": f"/photos/{name}",
        "key": f"{place % FILES:024}",
        "confidence": place / 10_000,
        "classes": shown,
        "background": [0, None],
        **rest,
    }
