"""Drawing on the page in a real browser: what is drawn is seen everywhere at once, kept, and imported as it was seen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser, drag, open_image, place, wait_for
from output_folders import make_run, save_inputs
from PIL import Image

from tipsseg.plugins.page.make import page_file
from tipsseg.plugins.page.strokes import AREAS_MAX, POINTS_MAX
from tipsseg.plugins.page.verb import report_folder
from tipsseg.say import Silence
from tipsseg.verbs.correct import correct_folder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium")]

IDS = np.zeros((120, 180), np.uint8)
IDS[10:50, 10:50], IDS[70:110, 10:50], IDS[100:, 100:] = 1, 1, 255
LABELS = {"a.png": IDS, "b.png": IDS[:, ::-1].copy()}

Point = tuple[float, float]


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found
        assert (found.dialogs, found.errors) == ([], [])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    save_inputs(tmp_path / "imgs", LABELS)
    make_run(tmp_path / "out", tmp_path / "imgs", LABELS, ("panda", "tree", "sky"), ("png",))
    report_folder(tmp_path / "out", jobs=1, verbose=Silence())
    return tmp_path / "out"


def open_page(browser: Browser, out: Path, name: str = "a.png") -> None:
    browser.ask("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(out.parent)})
    browser.go(out / "report/index.html", "page.complete")
    open_image(browser, name)


def draw(browser: Browser, *points: Point) -> None:
    """Draw with the mouse over pixels (y, x) of the open image."""
    browser.draw(*(place(browser, *point) for point in points))


def seen(browser: Browser) -> np.ndarray[Any, Any]:
    return np.array(browser.value("Array.from(viewer.ids)")).reshape(IDS.shape)


def save(browser: Browser, out: Path) -> list[dict[str, Any]]:
    """Save corrections.json, import it, and return its corrections."""
    path = out.parent / "corrections.json"
    path.unlink(missing_ok=True)
    browser.value("byId('save-corrections').click()")
    wait_for(path)
    correct_folder(out, path)
    found: list[dict[str, Any]] = json.loads(path.read_text())["corrections"]
    return found


def mask(out: Path, name: str = "a.png") -> np.ndarray[Any, Any]:
    with Image.open(out / "masks" / name) as picture:
        return np.asarray(picture)


def draw_with_all_tools(browser: Browser) -> None:
    """Brush, lasso by hand and by clicks, and eraser, with a class, the background and ignored pixels as their colours."""
    assert drag(browser, (20, 20)) == 1
    browser.press("3")  # a renamed region, which the strokes are above
    browser.press("b")
    browser.press("2")
    draw(browser, (15, 60), (60, 90), (20, 140.5))
    browser.press("]")
    browser.press("0")
    draw(browser, (30, 30), (30, 70))
    browser.press("a")
    browser.press("i")
    draw(browser, (60, 60), (62, 90), (85, 92), (88, 58), (61, 58))
    browser.press("2")
    for point in ((70, 120), (70, 170), (95, 160), (95, 125)):
        draw(browser, point)
    browser.press("Enter")
    browser.press("e")
    draw(browser, (40, 40), (75, 75), (90, 140))


def test_what_is_drawn_is_imported_pixel_by_pixel(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    draw_with_all_tools(browser)
    shown = seen(browser)
    assert set(np.unique(shown)) == {0, 1, 2, 3, 255}
    assert browser.value("byId('corrected').textContent") == "1 region and 5 strokes in 1 image changed"
    (correction,) = save(browser, out)
    assert [each.keys() - {"points"} for each in correction["strokes"]] == [
        {"class", "radius"},
        {"class", "radius"},
        {"ignore", "lasso"},
        {"class", "lasso"},
        {"erase", "radius"},
    ]
    assert (mask(out) == shown).all()
    # The next page shows them.
    report_folder(out, jobs=1, verbose=Silence())
    open_page(browser, out)
    assert (seen(browser) == shown).all()
    assert browser.value("changes.text()") == "Nothing changed"


def test_every_step_is_undone_and_done_again(browser: Browser, out: Path) -> None:
    """By the keys of other programs too, also after a reload."""
    open_page(browser, out)
    draw_with_all_tools(browser)
    drawn = seen(browser)
    for _ in range(6):
        browser.press("z", ctrl=True)
    assert (seen(browser) == IDS).all()
    assert browser.value("[byId('undo').disabled, byId('redo').disabled]") == [True, False]
    browser.press("z", ctrl=True, shift=True)
    browser.press("y", ctrl=True)
    browser.value("page.complete = false; location.reload()")
    browser.wait("page.complete && viewer.ids")
    for _ in range(4):
        browser.press("r")
    assert (seen(browser) == drawn).all()
    browser.press("b")
    browser.press("u")
    draw(browser, (5, 100), (5, 150))
    assert browser.value("byId('redo').disabled") is True
    # Escape drops what is being drawn, and leaves the rest.
    before = seen(browser)
    browser.press("a")
    for _ in range(2):  # a browser lets a page keep its dialog open once, unless the key itself is taken
        draw(browser, (60, 60))
        draw(browser, (60, 90))
        browser.press("Escape")
        assert (seen(browser) == before).all()
        assert browser.value("byId('viewer').open") is True
    # A lasso loses its corners one by one; what has an area is finished when another image is shown.
    for point in ((60, 60), (60, 90), (90, 90), (90, 60), (20, 20)):
        draw(browser, point)
    browser.press("u")
    browser.press("n" if browser.value("viewer.index") == 0 else "ArrowLeft")
    open_image(browser, "a.png")
    assert (seen(browser)[60:90, 60:90] == 1).all()


def test_a_drawn_stroke_can_be_selected(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    browser.press("b")
    browser.press("2")
    draw(browser, (60, 80), (60, 160))
    browser.press("v")
    assert drag(browser, (60, 120)) == 1
    browser.press("3")
    assert (seen(browser)[59:61, 80:160] == 3).all()
    assert save(browser, out)[0]["strokes"][0]["class"] == "sky"
    # Where it was erased, the region below is selected.
    browser.press("e")
    draw(browser, (60, 120), (60, 140))
    browser.press("v")
    assert drag(browser, (60, 130)) == 1
    browser.press("2")
    assert seen(browser)[5, 100] == 2
    assert seen(browser)[60, 90] == 3


def test_an_image_stays_open_if_a_filter_hides_it_now(browser: Browser, out: Path) -> None:
    browser.go(out / "report/index.html", "page.complete")
    browser.value("byId('class').value = '1'; byId('filters').dispatchEvent(new Event('input'))")
    open_image(browser, "a.png")
    browser.press("a")
    browser.press("0")
    draw(browser, (1, 1), (1, 178), (118, 178), (118, 1))
    assert browser.value("[viewer.record.image, page.shown[viewer.index].image, page.shown.length]") == [
        "a.png",
        "a.png",
        2,
    ]
    browser.press("Escape")
    browser.wait("!byId('viewer').open && !history.state")
    assert browser.value("page.shown.map((each) => each.image)") == ["b.png"]


def test_the_background_can_be_chosen_for_the_background(browser: Browser, out: Path) -> None:
    """Which once never ended."""
    open_page(browser, out)
    assert drag(browser, (60, 100)) == 1
    browser.press("0")
    assert (seen(browser) == IDS).all()


def test_keys_work_after_the_list_of_classes(browser: Browser, out: Path) -> None:
    """It is disabled once nothing is selected, and loses the focus."""
    open_page(browser, out)
    assert drag(browser, (20, 20)) == 1
    browser.value(
        "byId('becomes').focus(); byId('becomes').value = '2'; byId('becomes').dispatchEvent(new Event('change'))"
    )
    assert seen(browser)[20, 20] == 2
    browser.press("u")
    assert seen(browser)[20, 20] == 1


def test_what_changes_nothing_is_no_change(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    browser.press("e")
    draw(browser, (60, 80), (60, 160))
    browser.press("b")
    browser.press("1")
    draw(browser, (20, 20), (30, 30))
    draw(browser, (-50, 20), (-60, 30))
    assert browser.value("[changes.text(), byId('save-corrections').disabled]") == ["Nothing changed", True]


def test_what_is_drawn_is_seen(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    browser.press("2" if browser.value("viewer.boxes.has(2)") else "1")
    browser.press("o")
    browser.press("b")
    browser.press("1")
    draw(browser, (60, 80), (60, 160))
    assert browser.value("[viewer.hidden.size, byId('opacity').value > 0]") == [0, True]


def test_imported_changes_do_not_come_back_with_the_labels(browser: Browser, out: Path) -> None:
    """A page that shows the first labels again, as they were changed and changed back, begins without changes."""
    for key in ("3", "1"):
        open_page(browser, out)
        assert drag(browser, (20, 20)) == 1
        browser.press(key)
        save(browser, out)
        report_folder(out, jobs=1, verbose=Silence())
        browser.go(out / "report/report.json", "true")
    assert (mask(out) == IDS).all()
    open_page(browser, out)
    assert browser.value("changes.text()") == "Nothing changed"
    assert (seen(browser) == IDS).all()


def test_what_is_saved_twice_is_not_lost(browser: Browser, out: Path) -> None:
    """No later page says that it lacks changes, whether they were undone and done again in between or not."""
    for row, keys in ((60, ""), (65, "ur")):
        open_page(browser, out)
        browser.press("b")
        draw(browser, (row, 80), (row, 160))
        save(browser, out)
        for key in keys:
            browser.press(key)
        if keys:
            save(browser, out)
        else:
            browser.value("byId('save-corrections').click()")
        report_folder(out, jobs=1, verbose=Silence())
        browser.go(out / "report/report.json", "true")
        open_page(browser, out)
        assert browser.value("changes.text()") == "Nothing changed"
        browser.go(out / "report/report.json", "true")


def test_damaged_storage_does_not_stop_the_page(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    browser.press("b")
    draw(browser, (60, 80), (60, 160))
    nothing = '"undone": []}'
    steps = ("1", '[{"stroke": {}}]', '[{"ids": {"-5": 1}}]')
    for text in ("oops", "1", "[]", *(f'{{"steps": {each}, {nothing}' for each in steps)):
        own = "storage.prefix() + changes.keyOf(page.records.find((each) => each.image === 'b.png'))"
        for key in ("'tipsseg 0'", own):
            browser.value(f"localStorage.setItem({key}, {json.dumps(text)})")
        browser.go(out / "report/report.json", "true")
        open_page(browser, out, "b.png")
        assert browser.value("changes.text()").startswith("1 stroke in 1 image changed")


def test_the_grid_the_filters_and_the_statistics_follow(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    assert browser.value("byId('legend').textContent").endswith("Ignored: 7 % of the image")
    browser.press("a")
    browser.press("2")
    draw(browser, (0, 60), (0, 180), (120, 180), (120, 60), (50, 60))
    assert "Ignored" not in browser.value("byId('legend').textContent")
    assert "2 tree: 67 % of the image" in browser.value("byId('legend').textContent")
    browser.press("Escape")
    browser.wait("!byId('viewer').open")
    cells = "[...document.querySelectorAll('.cell.changed')].map((cell) => cell.innerText.split('\\n')[0])"
    assert browser.value(cells) == ["a.png"]
    browser.wait("document.querySelector('.cell canvas')")
    middle = browser.value(
        "(() => { const r = document.querySelector('.cell canvas').getBoundingClientRect();"
        " return [r.top + r.height * 0.5, r.left + r.width * 0.7]; })()"
    )
    tree = bytes.fromhex(browser.value("page.run.classes[1].colour")[1:])

    def is_tinted() -> bool:
        browser.picture(out.parent / "grid.png")
        with Image.open(out.parent / "grid.png") as picture:
            colour = np.array(picture.convert("RGB"))[int(middle[0]), int(middle[1])]
        return bool(np.abs(colour - (0.55 * 90 + 0.45 * np.array(list(tree)))).max() < 12)  # the picture is grey, of 90

    until = time.monotonic() + 30  # it is drawn once its map and its picture are loaded
    while not is_tinted():
        assert time.monotonic() < until
    browser.value("byId('class').value = '2'; byId('filters').dispatchEvent(new Event('input'))")
    assert browser.value("page.shown.map((each) => each.image)") == ["a.png"]
    assert browser.value("[...document.querySelectorAll('#colours li')].map((each) => each.textContent)") == [
        "panda",
        "tree",
    ]
    browser.value("byId('filters').reset()")
    browser.value("document.querySelector('nav [data-view=classes]').click()")
    rows = (
        "[...document.querySelectorAll('#classes tbody tr')]"
        ".map((row) => [...row.cells].slice(0, 3).map((cell) => cell.textContent))"
    )
    assert browser.value(rows)[1] == ["tree", "1", "33.33 %"]
    # All of it is there after a reload too, without opening the image.
    browser.value("page.complete = false; location.reload()")
    browser.wait("page.complete && page.records.length === 2")
    assert browser.value(rows)[1] == ["tree", "1", "33.33 %"]
    browser.value("byId('state').value = 'changed'; byId('filters').dispatchEvent(new Event('input'))")
    assert browser.value("page.shown.map((each) => each.image)") == ["a.png"]


def test_one_finger_draws_and_two_move(out: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile", width=390, height=700) as phone:
        open_page(phone, out)
        phone.value("document.querySelector('[data-tool=brush]').click()")
        places = [place(phone, *point) for point in ((60, 80), (60, 120), (60, 160))]
        phone.touch("Start", places[0])
        for each in places[1:]:
            phone.touch("Move", each)
        phone.touch("End")
        assert phone.value("changes.text()") == "1 stroke in 1 image changed"
        drawn = seen(phone)
        assert (drawn[59:61, 80:160] == 1).all()
        # A second finger drops the stroke of the first one.
        phone.touch("Start", place(phone, 20, 100))
        phone.touch("Move", place(phone, 30, 100))
        phone.touch("Start", place(phone, 30, 100), place(phone, 90, 100))
        phone.touch("Move", place(phone, 10, 100), place(phone, 110, 100))
        phone.touch("End")
        assert phone.value("viewer.zoom.scale") > 1.2
        assert (seen(phone) == drawn).all()
        assert (phone.dialogs, phone.errors) == ([], [])


def test_two_tabs_keep_the_changes_of_both(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    browser.press("b")
    draw(browser, (60, 80), (60, 160))
    # Another tab changes the same image and another one, and tells nobody.
    for number in (0, 1):
        browser.value(
            f"""(() => {{
                const steps = changes.kept(page.records[{number}]).steps;
                const more = {{ stroke: {{ label: 2, radius: 3, points: [[5, 5]] }} }};
                const key = storage.prefix() + changes.keyOf(page.records[{number}]);
                localStorage.setItem(key, JSON.stringify({{ steps: [...steps, more], undone: [] }}));
            }})()"""
        )
    draw(browser, (100, 60), (100, 90))
    assert seen(browser)[5, 5] == 2
    assert browser.value("changes.of(viewer.record).strokes.length") == 3
    browser.go(out / "report/report.json", "true")
    open_page(browser, out, "b.png")
    assert browser.value("changes.text()") == "4 strokes in 2 images changed"


def test_changes_on_older_labels_are_named(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    browser.press("b")
    draw(browser, (60, 80), (60, 160))
    Image.fromarray(np.roll(IDS, 5)).save(out / "masks/a.png")
    report_folder(out, jobs=1, verbose=Silence())
    browser.go(out / "report/report.json", "true")
    open_page(browser, out)
    assert browser.value("changes.text()") == (
        "Nothing changed. Your changes of a.png are not shown, as the labels changed since"
    )
    browser.value("byId('forget').click()")
    assert browser.value("[changes.text(), byId('forget').hidden]") == ["Nothing changed", True]


def test_a_good_image_is_accepted_and_comes_back_good(browser: Browser, out: Path) -> None:
    open_page(browser, out)
    first, second = browser.value("page.shown.map((each) => each.image)")
    open_image(browser, first)
    browser.press("g")
    browser.press("n")
    assert browser.value("byId('name').textContent") == second
    assert browser.value("changes.text()") == "1 image marked good"
    (correction,) = save(browser, out)
    assert (correction["image"], correction["good"], correction["strokes"]) == (first, True, [])
    # Taken back on the page that is still open, and marked again.
    open_image(browser, first)
    browser.press("g")
    assert save(browser, out)[0]["good"] is False
    browser.press("g")
    assert save(browser, out)[0]["good"] is True
    report_folder(out, jobs=1, verbose=Silence())
    browser.value("localStorage.clear()")
    browser.go(out / "report/report.json", "true")
    open_page(browser, out, first)
    assert browser.value("describe(viewer.record)").startswith("marked good, accepted")
    assert browser.value("changes.text()") == "Nothing changed"
    # Taken back, it is taken back in the folder too.
    browser.press("g")
    assert browser.value("changes.text()") == "1 image not good any more"
    assert save(browser, out)[0]["good"] is False
    # The mark was of these labels: it does not hold for others.
    open_image(browser, second)
    browser.press("g")
    browser.value("viewer.record.labels = 'other'")
    assert browser.value("changes.mark(viewer.record)") is None


def test_the_page_and_the_import_have_the_same_limit() -> None:
    for name, most in (("POINTS_MAX", POINTS_MAX), ("AREAS_MAX", AREAS_MAX)):
        assert f"const {name} = {most};".encode() in page_file("changes.js")
