"""Measure corrections on the page: a driven browser mends planted mistakes in drawn scenes with the tools of the page.

    PYTHONPATH=examples/pretrain:tests/support python tests/benchmarks/drawing.py --scenes 30

Needs Chromium. Labels of `tipsseg label` are replaced by the truth with mistakes: objects with a wrong name, missed ones, ones that
leak into what is beside them, and ones with ragged edges. The browser, half of the time with a mouse and half of the time with a
finger on a small screen, knows the truth and draws as a person would. Prints tables in Markdown: the mean IoU before and after the
import, actions and seconds; how strokes on a small and on a large image agree; and what a fit gains from the corrections.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from browser import CHROMIUM, Browser, open_image, place, wait_for
from numpy.typing import NDArray
from PIL import Image

import tipsseg
from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.scenes import draw_scene
from tipsseg.learn import fit_folder
from tipsseg.review import correct_folder, report_folder

#: The first seed; scenes of others chose numbers of the product.
_FIRST = FIRST_SEED + 980_000

_SIZE = 480, 640

#: What is labelled, and under which name: "mascot" is a word that the model takes for something else.
_CLASSES = {
    "mascot": "panda",
    "tree": "tree",
    "house": "house",
    "car": "car",
    "rock": "rock",
    "umbrella": "umbrella",
    "boat": "boat",
    "flower": "flower",
}

_MISTAKES = ("wrong name", "missed", "leak", "ragged edge")

#: Objects with fewer pixels get no mistake.
_LEAST = 400

Ids = NDArray[np.uint8]
Mask = NDArray[np.bool_]

#: What it is, the class, and the pixels of the object in the truth.
_Mistake = tuple[str, int, Mask]


def main() -> None:
    parser = argparse.ArgumentParser(description="Mend planted mistakes on the page with a driven browser.")
    parser.add_argument("--scenes", type=int, default=30, help="how many")
    parser.add_argument("--tables", default="corrections,sizes,fit", help="which to make, with commas")
    parser.add_argument("--pictures", type=Path, help="save pictures of the page here")
    options = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("There is no Chromium.")
    with tempfile.TemporaryDirectory() as temporary:
        tables = options.tables.split(",")
        if "sizes" in tables:
            compare_sizes(Path(temporary, "sizes"))
        if {"corrections", "fit"} & {*tables}:
            correct_scenes(Path(temporary, "scenes"), options.scenes, options.pictures, fits="fit" in tables)


# ---- planted mistakes ----


def plant(truth: Ids, seed: int) -> tuple[Ids, list[_Mistake]]:
    """Return labels with mistakes, and the mistakes."""
    rng, labels, mistakes = np.random.default_rng(seed), truth.copy(), list[_Mistake]()
    for class_id in range(1, len(_CLASSES) + 1):
        number, parts, stats, _ = cv2.connectedComponentsWithStats((truth == class_id).astype(np.uint8))
        for part in range(1, number):
            if stats[part, cv2.CC_STAT_AREA] < _LEAST:
                continue
            mask = parts == part
            kind = _MISTAKES[(seed + len(mistakes)) % len(_MISTAKES)]
            if kind == "wrong name":
                labels[mask] = 1 + class_id % len(_CLASSES)
            elif kind == "missed":
                labels[mask] = 0
            elif kind == "leak":
                outline = max(_contours(mask), key=len)
                x, y = outline[int(rng.integers(len(outline)))]
                blob = np.zeros(truth.shape, np.uint8)
                cv2.circle(blob, (int(x), int(y)), int(rng.integers(18, 30)), 1, -1)
                labels[(blob > 0) & (truth == 0)] = class_id
            else:
                cells = cv2.resize(
                    cv2.resize(mask.astype(np.float32), (40, 30), interpolation=cv2.INTER_AREA), _SIZE[::-1]
                )
                coarse = cv2.resize(
                    (cells > 0.5).astype(np.uint8)[8::16, 8::16], _SIZE[::-1], interpolation=cv2.INTER_NEAREST
                )
                labels[mask] = 0
                labels[(coarse > 0) & ((truth == 0) | mask)] = class_id
            mistakes.append((kind, class_id, mask))
    return labels, mistakes


def _contours(mask: Mask) -> list[NDArray[np.int32]]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [each[:, 0].astype(np.int32) for each in found]


# ---- a person ----


class Person:
    """Mends mistakes with a mouse, or with a finger.

    Attributes:
        actions: The number of clicks, strokes and keys so far.
    """

    def __init__(self, browser: Browser, *, finger: bool) -> None:
        self.actions = 0
        self._browser, self._finger = browser, finger
        self._tool = self._label = ""

    def open(self, name: str) -> None:
        open_image(self._browser, name)
        self.actions += 1

    def choose(self, tool: str, label: str = "") -> None:
        """Choose a tool and a class: by keys, or on the screen."""
        if tool != self._tool:
            keys = {"select": "v", "brush": "b", "lasso": "a"}
            button = f"document.querySelector('[data-tool={tool}]').click()"
            self._browser.value(button) if self._finger else self._browser.press(keys[tool])
            self.actions += 1
        if label and (label != self._label or tool == "select"):
            choice = f"byId('becomes').value = '{label}'; byId('becomes').dispatchEvent(new Event('change'))"
            self._browser.value(choice) if self._finger else self._browser.press(label)
            self.actions += 1
        self._tool, self._label = tool, label

    def set_size(self, radius: float) -> None:
        """Set the radius of the brush, in pixels of the image."""
        self._browser.value(f"tools.resize({radius} / tools.radius())")
        self.actions += 1

    def draw(self, points: Iterable[Sequence[float]]) -> None:
        """Draw over places (y, x) of the image, or click or tap one. A hand knows whole pixels of the screen only."""
        exact = [place(self._browser, y - 0.5, x - 0.5) for y, x in points]
        places = [(float(round(x)), float(round(y))) for x, y in exact]
        if self._finger:
            self._browser.touch("Start", places[0])
            for each in places[1:]:
                self._browser.touch("Move", each)
            self._browser.touch("End")
        else:
            self._browser.draw(*places)
        self.actions += 1

    # ---- mistakes ----

    def mend(self, kind: str, class_id: int, mask: Mask, truth: Ids, labels: Ids) -> None:
        if kind == "wrong name":
            middle = np.unravel_index(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).argmax(), mask.shape)
            self.choose("select")
            self.draw([[float(middle[0]) + 0.5, float(middle[1]) + 0.5]])
            self.choose("select", str(class_id))
        elif kind == "missed":
            self.choose("lasso", str(class_id))
            for outline in _contours(mask):
                self.draw((cv2.approxPolyDP(outline, 1.0, True)[:, 0, ::-1] + 0.5).tolist())
        elif kind == "leak":
            self.choose("brush", "0")
            self.set_size(4)
            for line in _zigzag((labels == class_id) & (truth == 0) & _near(mask, 70), 4):
                self.draw(line)
        else:
            self.set_size(4)
            for label, region in ((class_id, mask), (0, (truth == 0) & _near(mask, 24))):
                self.choose("brush", str(label))
                inner = cv2.erode(np.pad(region.astype(np.uint8), 1), np.ones((3, 3), np.uint8), iterations=4)[
                    1:-1, 1:-1
                ]
                for outline in _contours(inner > 0):
                    for line in _near_lines(outline, mask):
                        self.draw(line)


def _near(mask: Mask, distance: int) -> Mask:
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= distance


def _near_lines(outline: NDArray[np.int32], mask: Mask) -> Iterator[list[list[float]]]:
    """Yield the parts of an outline that run along the edge of an object, every third point."""
    edge = cv2.distanceTransform(
        1 - cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)), cv2.DIST_L2, 5
    )
    line = list[list[float]]()
    for x, y in outline[::3]:
        if edge[y, x] <= 12:
            line.append([y + 0.5, x + 0.5])
        elif line:
            yield line
            line = []
    if line:
        yield line


def _zigzag(region: Mask, radius: int) -> Iterator[list[list[float]]]:
    """Yield lines along the rows of a region, as a brush fills it: one for each part."""
    inner = cv2.erode(region.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2))
    number, parts = cv2.connectedComponents(inner)
    for part in range(1, number):
        line = []
        rows = np.flatnonzero((parts == part).any(axis=1))
        for turn, y in enumerate([*rows[::radius], rows[-1]]):
            columns = np.flatnonzero(parts[y] == part)
            ends = [columns[0], columns[-1]][:: -1 if turn % 2 else 1]
            line += [[float(y) + 0.5, float(x) + 0.5] for x in ends]
        yield line


# ---- tables ----


def correct_scenes(top: Path, scenes: int, pictures: Path | None, *, fits: bool) -> None:
    truths, planted = dict[str, Ids](), dict[str, Ids]()
    mistakes = dict[str, list[_Mistake]]()
    for index in range(scenes):
        scene, name = draw_scene(_FIRST + index, *_SIZE), f"{index:02}.png"
        truths[name] = to_list(scene.truth, [*_CLASSES.values()])
        planted[name], mistakes[name] = plant(truths[name], index)
        for folder, pixels in (("imgs", scene.image), ("truth", truths[name]), ("planted", planted[name])):
            (top / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(top / folder / name)
    out = top / "out"
    _label(top / "imgs", [*_CLASSES], out)
    correct_folder(out, top / "planted", emptied=True, verbose=False)
    report_folder(out, verbose=False)
    counts = Counter(kind for each in mistakes.values() for kind, _, _ in each)
    before = _mean_iou(truths, {name: _read(out, name) for name in truths})
    print(f"{scenes} scenes of 640 x 480; planted: {', '.join(f'{counts[kind]} x {kind}' for kind in _MISTAKES)}.\n")
    print(
        "| hand | images | mistakes | actions | seconds | mean IoU before | after |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    names, steps = list(truths), 0
    for number, (hand, width, height) in enumerate((("mouse, 1280 x 900", 1280, 900), ("finger, 390 x 760", 390, 760))):
        mine = names[number::2]
        had = _mean_iou(truths, {name: _read(out, name) for name in mine})
        with Browser(top / f"profile{number}", width=width, height=height) as browser:
            browser.ask("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(top)})
            browser.go(out / "report/index.html", "page.complete")
            person, began = Person(browser, finger=number == 1), time.monotonic()
            for name in mine:
                person.open(name)
                for kind, class_id, mask in mistakes[name]:
                    person.mend(kind, class_id, mask, truths[name], planted[name])
                steps += browser.value("changes.kept(viewer.record).steps.length")
                if pictures is not None:
                    pictures.mkdir(parents=True, exist_ok=True)
                    browser.picture(pictures / f"{hand.split(',')[0]}-{name}")
            seconds = time.monotonic() - began
            (top / "corrections.json").unlink(missing_ok=True)
            browser.value("byId('save-corrections').click()")
            wait_for(top / "corrections.json")
            assert not browser.errors, browser.errors
        correct_folder(out, top / "corrections.json", verbose=False)
        has = _mean_iou(truths, {name: _read(out, name) for name in mine})
        total = sum(len(mistakes[name]) for name in mine)
        print(
            f"| {hand} | {len(mine)} | {total} | {person.actions} | {seconds:.0f} | {had:.3f} | {has:.3f} |", flush=True
        )
    after = _mean_iou(truths, {name: _read(out, name) for name in truths})
    size = (top / "corrections.json").stat().st_size
    print(
        f"\nAll images: {before:.3f} before, {after:.3f} after; {steps} steps; the last file has {size / 1e3:.0f} kB."
    )
    if fits:
        fit_corrections(out, top)


def _read(out: Path, name: str) -> Ids:
    with Image.open(out / "masks" / name) as mask:
        return np.array(mask)


def _mean_iou(truths: dict[str, Ids], labels: dict[str, Ids]) -> float:
    ious = []
    for class_id in range(1, len(_CLASSES) + 1):
        both = sum(int(((truths[name] == class_id) & (ids == class_id)).sum()) for name, ids in labels.items())
        either = sum(int(((truths[name] == class_id) | (ids == class_id)).sum()) for name, ids in labels.items())
        ious += [both / either] if either else []
    return float(np.mean(ious))


def fit_corrections(out: Path, top: Path) -> None:
    """Fit the classes to the corrected images, and label other scenes with the text and with the fit."""
    fitted = fit_folder(out, device="cpu", verbose=False).fitted
    truths = dict[str, Ids]()
    (top / "other").mkdir()
    for index in range(30):
        scene, name = draw_scene(_FIRST + 500 + index, *_SIZE), f"{index:02}.png"
        truths[name] = to_list(scene.truth, [*_CLASSES.values()])
        Image.fromarray(scene.image).save(top / "other" / name)
    scores = []
    for name, classes in (("text", [*_CLASSES]), ("fitted", fitted)):
        target = top / f"other-{name}"
        _label(top / "other", classes, target)
        scores.append(_mean_iou(truths, {name: _read(target, name) for name in truths}))
    print(f"\nMean IoU on 30 other scenes: {scores[0]:.3f} by the text, {scores[1]:.3f} by a fit to the corrections.")


def _label(images: Path, classes: Any, output: Path) -> None:
    list(
        tipsseg.label_folder(images, classes, output=output, model="tiny", device="cpu", formats=["png"], verbose=False)
    )


def compare_sizes(top: Path) -> None:
    """Draw the same strokes on a scene at two sizes, and count where they differ by more than a pixel of the smaller one."""
    scene = draw_scene(_FIRST + 900, 480, 640)
    (top / "imgs").mkdir(parents=True)
    for name, size in (("small.png", (640, 480)), ("large.png", (6000, 4000))):
        Image.fromarray(scene.image).resize(size).save(top / "imgs" / name)
    out = top / "out"
    _label(top / "imgs", ["tree", "sky"], out)
    blank = {name: np.zeros_like(_read(out, name)) for name in ("small.png", "large.png")}
    for name, ids in blank.items():
        (top / "blank").mkdir(exist_ok=True)
        Image.fromarray(ids).save(top / "blank" / name)
    correct_folder(out, top / "blank", emptied=True, verbose=False)
    report_folder(out, verbose=False)
    rng, turns = np.random.default_rng(0), np.linspace(0, 2 * np.pi, 40)
    waves = np.stack([wave(times * turns) for times in (1, 2, 3) for wave in (np.sin, np.cos)])  # [6, 40]
    lines = [rng.uniform(0.3, 0.7, 2) + (rng.normal(0, 0.08, (2, 6)) @ waves).T for _ in range(50)]
    path = top / "corrections.json"
    with Browser(top / "profile", width=1280, height=900) as browser:
        browser.ask("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(top)})
        browser.go(out / "report/index.html", "page.complete")
        for name in ("large.png", "small.png"):
            open_image(browser, name)
            for number, line in enumerate(lines):
                browser.press("ba"[number % 2])
                browser.press(str(number % 3))
                browser.draw(*(place(browser, y * blank[name].shape[0], x * blank[name].shape[1]) for y, x in line))
        browser.value("byId('save-corrections').click()")
        wait_for(path)
    corrections = {each["image"]: each for each in json.loads(path.read_text())["corrections"]}
    sizes = [len(json.dumps(corrections[name])) / 1e3 for name in blank]
    # The same strokes: on the screen, the two images do not lie on the same pixels.
    scale = np.divide(blank["large.png"].shape, blank["small.png"].shape)
    strokes = corrections["large.png"]["strokes"] = json.loads(json.dumps(corrections["small.png"]["strokes"]))
    for each in strokes:
        each["points"] = (np.array(each["points"]) * scale).tolist()
        each["radius"] = each.get("radius", 0) * float(np.sqrt(scale.prod()))
    path.write_text(json.dumps({"tool": "tipsseg", "corrections": [*corrections.values()]}))
    began = time.monotonic()
    correct_folder(out, path, verbose=False)
    seconds = time.monotonic() - began
    small, large = _read(out, "small.png"), _read(out, "large.png")
    middle = cv2.resize(large, (640, 480), interpolation=cv2.INTER_NEAREST_EXACT)
    padded = np.pad(small, 1, mode="edge")
    around = np.stack([padded[dy : dy + 480, dx : dx + 640] for dy in range(3) for dx in range(3)])
    far = (around != middle).all(axis=0)
    print(
        f"50 strokes at 640 x 480 and at 6,000 x 4,000: {(small != middle).mean():.2%} of the pixels of the small image are others "
        f"in the large one, {int(far.sum())} by more than a pixel. Their files have {sizes[0]:.0f} and {sizes[1]:.0f} kB, and were "
        f"imported in {seconds:.1f} s.\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
