"""Measure `tipsseg label` with a vision tower that costs nothing.

    python tests/benchmarks/pipeline.py
    python tests/benchmarks/pipeline.py --classes 150 --cores 1,8,32

Draws photographs of 640 x 480 pixels (JPEG) and labels them into png and coco like the command, including resume state, manifest
and annotations.json. The model has the shape of B/14 and stored features, those of a drawn picture with about a dozen objects.
Measures scoring on the CPU, and with finished labels, which is the host's part with a GPU. Prints the time of one core per image,
in total and by step, and images per second by number of cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from endtoend import CLASSES, draw
from models import TINY, machine
from numpy.typing import NDArray
from PIL import Image
from scoring import TEMPERATURE, WIDTH, unit
from torch import Tensor

from tipsseg import make_vocabulary
from tipsseg.backbones.protocol import WindowFeatures
from tipsseg.backbones.transfers import HostCopy
from tipsseg.errors import TipssegError
from tipsseg.formats import FORMATS
from tipsseg.labelling.encode import encode_prepared
from tipsseg.labelling.features import Features
from tipsseg.labelling.patch_labeller import Patches, PatchLabeller, Scored
from tipsseg.labelling.scoring.device_scores import DeviceLabels
from tipsseg.labelling.source import FeatureSource
from tipsseg.labelling.view import View
from tipsseg.labelling.windows import make_plan
from tipsseg.options import LabelOptions
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine import label_task
from tipsseg.runs.engine.label_task import LabelTask
from tipsseg.runs.engine.pipeline import run_tasks
from tipsseg.runs.label.run import LabelRun
from tipsseg.store.folder import OutputFolder
from tipsseg.store.plan import plan_run
from tipsseg.store.results import Failed, ImageResult, Left
from tipsseg.store.spec import RunInfo, RunSpec
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef
from tipsseg.vocabulary.background import GENERAL_BACKGROUND
from tipsseg.vocabulary.vocabulary import Vocabulary

SIZE = (480, 640)
STEPS = ("decode", "prepare", "score", "regions", "png", "coco", "records")


class FreeTower:
    """A `Backbone` that returns stored features of the windows of one picture."""

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        self.folder = folder
        self.device = torch.device("cpu")
        self.device_name, self.dtype_name = "cpu", "float32"
        self.native_size, self.patch_size, self.embed_dim = 448, 14, WIDTH
        self.temperature = TEMPERATURE
        self.batch_size = 1
        self.on_less_memory: Callable[[int], None] = lambda _: None
        self.at_work = threading.Lock()
        rng = np.random.default_rng(3)
        self._shared = unit(rng.standard_normal(WIDTH))
        self._vectors: dict[str, NDArray[np.float64]] = {}
        for phrase in vocabulary.phrases:
            self._vector(phrase.text)
        self._patches = self._features(list(self._vectors.values())[: len(vocabulary.classes)])
        self._tokens = torch.nn.functional.normalize(torch.ones(len(self._patches), 2, WIDTH), dim=-1)
        self._next = 0

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        return torch.from_numpy(np.stack([self._vector(phrase) for phrase in phrases]).astype(np.float32))

    def encode_windows(self, windows: Sequence[NDArray[np.uint8]]) -> WindowFeatures:
        start, self._next = self._next, (self._next + len(windows)) % len(self._patches)
        return WindowFeatures(self._patches[start : start + len(windows)], self._tokens[: len(windows)])

    def encode_whole(self, image: NDArray[np.uint8], size: tuple[int, int]) -> WindowFeatures:
        raise NotImplementedError

    def _vector(self, phrase: str) -> NDArray[np.float64]:
        if phrase not in self._vectors:
            rng = np.random.default_rng(len(self._vectors))
            self._vectors[phrase] = unit(rng.standard_normal(WIDTH) + 0.3 * self._shared * np.sqrt(WIDTH))
        return self._vectors[phrase]

    def _features(self, names: Sequence[NDArray[np.float64]]) -> Tensor:
        """Return features [windows, 32, 32, D]: mixtures of nearby objects, a common part, and noise."""
        rng = np.random.default_rng(5)
        plan = make_plan(SIZE, self.native_size, self.native_size, self.patch_size)
        shown, places = rng.integers(0, len(names), 24), rng.random((24, 2)) * plan.size
        windows = []
        for top, left in plan.corners:
            y, x = np.mgrid[top + 7 : top + plan.side : 14, left + 7 : left + plan.side : 14]
            far = np.hypot(y[..., None] - places[:, 0], x[..., None] - places[:, 1])  # [32, 32, 24]
            parts = np.exp(-(far - far.min(2, keepdims=True)) / 10)
            content = (parts / parts.sum(2, keepdims=True)) @ np.stack([names[index] for index in shown])
            grain = unit(rng.standard_normal((*far.shape[:2], WIDTH)))
            windows.append(unit(0.35 * content + 0.3 * self._shared + 0.9 * grain).astype(np.float32))
        return torch.from_numpy(np.stack(windows))


class Ready(PatchLabeller):
    """Labels that cost nothing, as if copied from a GPU."""

    def prepare_labels(self, features: Features) -> None:
        made = self.assign(super().score(features.scales))
        arriving = HostCopy(torch.tensor(True), torch.from_numpy(made.labels), torch.from_numpy(made.confidence).half())
        self._ready = DeviceLabels(arriving, made.labels.dtype)

    def score(self, scales: Sequence[Patches], top: int = 0) -> Scored:
        return self._ready


class FreeEngine:
    """Local engine with the free tower."""

    def __init__(self, info: RunInfo, labeller: PatchLabeller) -> None:
        self._info = info
        self._labeller = labeller

    def start(self, context: RunContext, images: Sequence[ImageRef] = ()) -> RunInfo:
        labeller, spec = self._labeller, self._info.spec
        info = replace(
            self._info,
            model={**self._info.model, "sha256": {}},
            device="cpu",
            dtype="float32",
            vocabulary=labeller.vocabulary,
            dropped=labeller.dropped,
        )
        self._task = LabelTask(labeller, spec.formats, context, info.digest)
        return info

    def batch_size(self) -> int | None:
        return 1

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        return run_tasks(items, self._task, self._info.spec.jobs)


class Stopwatch:
    """Adds up the CPU seconds of steps. A nested step counts only for itself."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self._inside = threading.local()
        self._adding = threading.Lock()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        outer: list[float] | None = getattr(self._inside, "others", None)
        self._inside.others = others = [0.0]
        began = time.thread_time()
        try:
            yield
        finally:
            took = time.thread_time() - began
            self._inside.others = outer
            if outer is not None:
                outer[0] += took
            with self._adding:
                self.seconds[name] += took - others[0]

    def watch(self, owner: Any, method: str, step: str) -> None:
        """Start measuring a function of a module or a class."""
        plain = getattr(owner, method)

        def watched(*arguments: Any, **named: Any) -> Any:
            with self.step(step):
                return plain(*arguments, **named)

        setattr(owner, method, watched)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure everything but the tower.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--images", type=int, default=40, help="how many")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is printed")
    parser.add_argument("--classes", type=int, default=20, help="how many; the phrases of the background come on top")
    parser.add_argument(
        "--cores", default="", help="how many to use, with commas; all and half of them and one if not given"
    )
    parser.add_argument("--formats", default="png,coco", help="with commas")
    options = parser.parse_args()
    usable = sorted(os.sched_getaffinity(0))
    counts = [int(each) for each in options.cores.split(",")] if options.cores else [1, len(usable) // 2, len(usable)]
    torch.set_num_threads(1)
    names = [*CLASSES.split(","), *(f"thing {number}" for number in range(options.classes))][: options.classes]
    watch = Stopwatch()
    watch_steps(watch)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw(place / "imgs", options.images)
        # The background by name: of random vectors an automatic one would take all for the same.
        labellers = make_labellers(make_vocabulary(names, [each for each in GENERAL_BACKGROUND if each not in names]))
        phrases = len(labellers["scores on the CPU"].vectors)
        print(f"{options.images} images, {options.classes} classes ({phrases} phrases), {options.formats}")
        print(f"{processor()}; {machine('torch', 'numpy', 'pillow', 'opencv-python')}\n")
        label_all(place, "warm", next(iter(labellers.values())), options.formats, 1)
        for way, labeller in labellers.items():
            print(f"{way}: ms of one core an image, median of {options.rounds} rounds on one core")
            rounds = [one_core(place, f"{way} {n}", labeller, options, watch) for n in range(options.rounds)]
            print("| " + " | ".join((*STEPS, "rest", "all")) + " |\n" + "|---" * (len(STEPS) + 2) + "|")
            print("| " + " | ".join(f"{statistics.median(each):.2f}" for each in zip(*rounds, strict=True)) + " |\n")
        print("| cores | " + " | ".join(f"{way}, images a second" for way in labellers) + " |\n" + "|---" * 3 + "|")
        for cores in sorted({max(each, 1) for each in counts}):
            os.sched_setaffinity(0, usable[:cores])
            rates = [
                statistics.median(
                    options.images / label_all(place, f"{way} {cores} {n}", labeller, options.formats, cores)
                    for n in range(options.rounds)
                )
                for way, labeller in labellers.items()
            ]
            print(f"| {cores} | " + " | ".join(f"{each:.1f}" for each in rates) + " |")


def watch_steps(watch: Stopwatch) -> None:
    watch.watch(FeatureSource, "load", "decode")
    watch.watch(View, "prepare", "prepare")
    for owner in (PatchLabeller, Ready):
        watch.watch(owner, "score", "score")
    watch.watch(PatchLabeller, "assign", "score")
    watch.watch(label_task, "find_objects", "regions")
    watch.watch(type(FORMATS["png"]), "encode", "png")
    watch.watch(type(FORMATS["coco"]), "image_rows", "coco")
    watch.watch(OutputFolder, "add", "records")


def make_labellers(vocabulary: Vocabulary) -> dict[str, PatchLabeller]:
    """Return labellers by the part of the work that they leave to the host."""
    tower = FreeTower(TINY, vocabulary)
    ready = Ready(tower, vocabulary, LabelOptions())
    image = np.zeros((*SIZE, 3), np.uint8)
    ready.prepare_labels(encode_prepared(tower, ready.view.prepare(Image.fromarray(image))))
    return {"scores on the CPU": PatchLabeller(tower, vocabulary, LabelOptions()), "labels ready": ready}


def one_core(
    place: Path, name: str, labeller: PatchLabeller, options: argparse.Namespace, watch: Stopwatch
) -> list[float]:
    """Return milliseconds of one core per image: by step, outside all steps, and in total."""
    watch.seconds = dict.fromkeys(STEPS, 0.0)
    began = time.process_time()
    label_all(place, name, labeller, options.formats, 1)
    total = time.process_time() - began
    steps = [watch.seconds[step] for step in STEPS]
    return [1e3 * each / options.images for each in (*steps, total - sum(steps), total)]


def label_all(place: Path, name: str, labeller: PatchLabeller, formats: str, jobs: int) -> float:
    """Label all images into a new folder, and return the seconds."""
    spec = RunSpec(
        model="tiny",
        vocabulary=labeller.vocabulary,
        formats=tuple(formats.split(",")),
        output=place / name,
        device="cpu",
        jobs=jobs,
    )
    info = plan_run(spec)
    paths = sorted((place / "imgs").iterdir())
    images = Images(tuple(ImageRef(path, PurePosixPath(path.name)) for path in paths), place / "imgs")
    run = LabelRun(info, images, FreeEngine(info, labeller), Progress(quiet=True, results=False))
    began = time.perf_counter()
    for result in run.results():
        if isinstance(result, Failed):
            raise TipssegError(str(result.error))
    return time.perf_counter() - began


def processor() -> str:
    """Return the name of the processor, if Linux reports it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
