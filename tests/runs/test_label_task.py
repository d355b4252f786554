"""From what the model says of an image to its files; the labels themselves do not matter here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from tipsseg.label_map import LabelMap
from tipsseg.labelling import source
from tipsseg.labelling.patch_labeller import Cosines, PatchLabeller
from tipsseg.labelling.view import View
from tipsseg.options import LabelOptions
from tipsseg.run.labels import RunContext
from tipsseg.runs.engine.label_task import LabelTask
from tipsseg.types import ImageRef, LabelClass

TREE = (LabelClass(1, "tree", (1, 2, 3)),)

SCORED = Cosines([], [], (4, 4), 0)


class FakeLabeller:
    backbone = SimpleNamespace(device_name="cpu")
    options = LabelOptions()
    view = View(native_size=14, patch_size=1, mode="slide", base=4, short_sides=(4,))

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens
        self.top = -1

    def score(self, scales: object, top: int) -> Cosines:
        self.top = top
        return SCORED

    def assign(self, scored: Any, pixels: object, regions: None) -> LabelMap:
        self._happens()
        return LabelMap(np.ones((4, 4), np.uint8), np.ones((4, 4), np.float32), TREE)


@pytest.fixture
def ref(tmp_path: Path) -> ImageRef:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((4, 4, 3), 10, np.uint8)).save(tmp_path / "in/a.png")
    return ImageRef(tmp_path / "in/a.png", PurePosixPath("sub/a.png"))


def work_in(
    output: Path,
    formats: Sequence[str] = ("png", "coco", "overlay"),
    happens: Callable[[], object] = lambda: None,
) -> LabelTask:
    context = RunContext(output=output, classes=TREE, info={}, formats=tuple(formats))
    return LabelTask(cast(PatchLabeller, FakeLabeller(happens)), context)


@pytest.mark.parametrize(
    ("formats", "thumbnail", "top"),
    [(("png", "coco"), False, 0), (("png", "overlay"), True, 0), (("png", "npz"), False, 5)],
)
def test_pixels_and_best_classes_are_kept_only_where_a_format_needs_them(
    ref: ImageRef, tmp_path: Path, formats: Sequence[str], thumbnail: bool, top: int
) -> None:
    work = work_in(tmp_path / "out", formats=formats)
    assert work.source.load(ref).picture.thumbnail.shape == ((4, 4, 3) if thumbnail else (0, 0, 3))
    work.score([])
    assert cast(FakeLabeller, work.labeller).top == top


@pytest.mark.parametrize(
    ("size", "working", "alone"),
    [
        ((4, 4), (4, 4), False),
        ((4, 5), (4, 4), True),
        ((4, 4), (4, 5), True),
        ((2, 8), (3, 6), True),
        ((1, 16), (4, 5), True),
        ((4, 5), (1, 16), True),
    ],
)
def test_large_images_are_labelled_one_at_a_time(
    ref: ImageRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    working: tuple[int, int],
    alone: bool,
) -> None:
    together = threading.Barrier(2)
    monkeypatch.setattr(source, "_HEAVY", 16)
    work = work_in(tmp_path / "out", formats=("coco",), happens=lambda: together.wait(timeout=0.5))
    loaded = work.source.load(ref)
    prepared = loaded.picture.prepared
    prepared = replace(prepared, size=size, plan=replace(prepared.plan, size=working))
    loaded = replace(loaded, picture=replace(loaded.picture, prepared=prepared))
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(work.finish, loaded, SCORED) for _ in range(2)]
        met = [each.exception() is None for each in made]
    assert met == [not alone] * 2
