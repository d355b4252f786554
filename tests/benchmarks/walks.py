"""Count the modules of tipsseg that an image enters, enters again, and enters in a higher room.

    python tests/benchmarks/walks.py              # the table
    python tests/benchmarks/walks.py --edges 30   # and the most frequent steps of each walk

The counts are per additional image: the difference between the same command over six images and over two, divided by four. This
excludes the start, loading the model, and other work per run. The script lists no function or module; rooms are the layers of
import-linter in pyproject.toml. The images are one drawn scene with seven objects, with one pixel changed. `label` writes png and
coco with `tiny`, with a batch size of one, one thread of each kind, without numba.

* **Entry**: a Python function of a module of tipsseg begins, or a generator goes on, and its nearest caller in tipsseg, on the
  stack of the same thread, is in another module, or there is none. All threads count, and generated functions such as the
  `__init__` of a dataclass; C code and other processes do not. A return to the caller is not an entry.
* **Place**: a line that calls and the function that it enters. Entries of one place count once, so that a loop over objects or
  tiles counts once.
* **Modules**: number of different modules entered.
* **Again**: places of entries, beyond one for each of these modules.
* **Higher**: places that enter a room above the caller's room in pyproject.toml. These are callbacks.
* **All entries**, **of them higher**: the same with each entry of a loop.
* **Manifests opened**: how often the command over six images opens a file manifest.jsonl, in all.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from models import machine
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
SCENE = REPOSITORY / "examples/scenes/meadow/two-pandas.png"

#: Two runs of so many images each are compared.
FEW, MANY = 2, 6

#: (module, line) that enters, or None at the bottom of a thread; the module and the function that are entered.
Site = tuple[tuple[str, int] | None, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Walk:
    """Entries of one command by site, and the number of times it opened a manifest."""

    entries: Counter[Site]
    manifests: int


@dataclass(slots=True)
class Recorder:
    """Follows all threads while it is active."""

    entries: Counter[Site] = field(default_factory=Counter)
    manifests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, frame: FrameType, event: str, argument: object) -> None:
        entered = module_of(frame) if event == "call" else None
        if entered is None:
            return
        caller = frame.f_back
        while caller is not None and module_of(caller) is None:
            caller = caller.f_back
        below = None if caller is None else module_of(caller)
        if below != entered:
            site = None if caller is None or below is None else (below, caller.f_lineno)
            with self._lock:
                self.entries[site, (entered, frame.f_code.co_qualname)] += 1


def module_of(frame: FrameType) -> str | None:
    """Return the module of tipsseg that a frame belongs to, or None."""
    package, _, name = str(frame.f_globals.get("__name__")).partition(".")
    return name if package == "tipsseg" and name else None


@contextmanager
def recording() -> Iterator[Recorder]:
    recorder = Recorder()
    _recorders.append(recorder)
    threading.setprofile(recorder.follow)
    sys.setprofile(recorder.follow)
    try:
        yield recorder
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        _recorders.remove(recorder)


#: The recorder that is on.
_recorders: list[Recorder] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).endswith("manifest.jsonl"):
        for recorder in _recorders:
            recorder.manifests += 1


def read_rooms() -> dict[str, int]:
    """Return the height of each room by the layers of import-linter; 0 is the lowest."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    return {
        room.strip(" ()"): height
        for height, layer in enumerate(reversed(layers))
        for room in layer.replace(":", "|").split("|")
    }


def save_images(folder: Path, number: int) -> Path:
    """Save a scene several times, each with a different first pixel, because a feature store treats equal files as one image."""
    folder.mkdir(parents=True)
    with Image.open(SCENE) as opened:
        pixels = np.array(opened.convert("RGB"))
    for index in range(number):
        pixels[0, 0] = index
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def run(*arguments: object) -> None:
    """Run `tipsseg` in this process, and discard its stdout."""
    from typer.testing import CliRunner

    from tipsseg.cli.main import app

    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exit_code:
        raise RuntimeError(f"tipsseg {arguments}: {done.stderr}")


def label(place: Path, number: int, *more: object) -> list[object]:
    common: list[object] = ["label", place / "images", "-m", "tiny", "--device", "cpu", "-c", "panda,tree,sky,grass"]
    if not (place / "images").exists():
        save_images(place / "images", number)
    # Images by themselves, and one thread of each kind, so that what is counted does not depend on who comes first.
    return [*common, "-f", "png,coco", "--batch-size", 1, "--jobs", 1, "-q", "-o", place / "out", *more]


def walk_label(place: Path, number: int) -> Callable[[], None]:
    arguments = label(place, number)
    return lambda: run(*arguments)


def walk_features(place: Path, number: int) -> Callable[[], None]:
    """Label images from a store with all their features."""
    arguments = label(place, number, "--features", place / "feats")
    run("encode", place / "images", "-m", "tiny", "--device", "cpu", "-q", "-o", place / "feats")
    return lambda: run(*arguments)


def walk_merge(place: Path, number: int) -> Callable[[], None]:
    for shard in ("1/2", "2/2"):
        run(*label(place, number, "--shard", shard))
    return lambda: run("merge", place / "out", "-o", place / "merged", "-q")


#: By what the table calls them: what prepares a folder for so many images and gives back what is counted.
WALKS: dict[str, Callable[[Path, int], Callable[[], None]]] = {
    "`label`": walk_label,
    "`label --features`, a full store": walk_features,
    "`merge` of two shards": walk_merge,
}


def least(prepare: Callable[[Path, int], Callable[[], None]], number: int, rounds: int) -> Walk:
    """Return the minimum over rounds, without entries that depend on the clock, for example lines of progress."""
    walks = [record(prepare, number) for _ in range(rounds)]
    return Walk(reduce(and_, (each.entries for each in walks)), min(each.manifests for each in walks))


def record(prepare: Callable[[Path, int], Callable[[], None]], number: int) -> Walk:
    with tempfile.TemporaryDirectory() as place:
        counted = prepare(Path(place), number)
        with recording() as recorder:
            counted()
    return Walk(recorder.entries, recorder.manifests)


def climbs(site: Site, rooms: dict[str, int]) -> bool:
    caller, (entered, _) = site
    heights = [rooms.get(name.partition(".")[0]) for name in (caller[0] if caller else "", entered)]
    return heights[0] is not None and heights[1] is not None and heights[0] < heights[1]


def count(entries: Counter[Site], rooms: dict[str, int]) -> list[int]:
    """Return the columns of the table for one image."""
    modules = {entered for _, (entered, _) in entries}
    higher = [times for site, times in entries.items() if climbs(site, rooms)]
    return [len(modules), len(entries) - len(modules), len(higher), entries.total(), sum(higher)]


def per_image(fewer: Counter[Site], more: Counter[Site]) -> Counter[Site]:
    """Return the cost of each further image, rounded to a whole entry, because waiting threads enter some modules again."""
    further = MANY - FEW
    found = Counter({site: (times - fewer[site] + further // 2) // further for site, times in more.items()})
    return +found


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Count walks through tipsseg.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="what all of so many runs enter is counted")
    parser.add_argument(
        "--edges", type=int, default=0, metavar="N", help="print the N commonest steps of each walk too"
    )
    options = parser.parse_args()
    rooms = read_rooms()
    sys.addaudithook(_audit)
    os.environ["TIPSSEG_NUMBA"] = "0"  # what numba compiles is not Python
    print(f"{options.rounds} rounds of {FEW} and of {MANY} images; {machine('numpy')}\n")
    print(
        "| one image of | modules | again | higher | all entries | of them higher | manifests opened |\n"
        + "|---" * 7
        + "|"
    )
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TIPSSEG_CACHE"] = cache
        for name, prepare in WALKS.items():
            record(prepare, FEW)  # what is done once a process is done here
            fewer, more = (least(prepare, number, options.rounds) for number in (FEW, MANY))
            found[name] = per_image(fewer.entries, more.entries)
            cells = [*count(found[name], rooms), more.manifests]
            print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)
    for name, entries in found.items():
        if options.edges:
            print(f"\n{name}")
            for site, times in entries.most_common(options.edges):
                caller, (entered, function) = site
                place = ":".join(map(str, caller)) if caller else "a thread"
                print(f"{times:6} {place} -> {entered}:{function}{' (higher)' if climbs(site, rooms) else ''}")


if __name__ == "__main__":
    main()
