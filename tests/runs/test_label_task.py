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

from tipsseg.errors import ImageError, OutputError
from tipsseg.evaluation.pairing import Pair
from tipsseg.evaluation.truth import plain_ids, plain_layout
from tipsseg.label_map import LabelMap
from tipsseg.labelling import source
from tipsseg.labelling.patch_labeller import Cosines, PatchLabeller
from tipsseg.labelling.view import View
from tipsseg.options import MAX_PIXELS, LabelOptions
from tipsseg.runs.engine.label_task import LabelTask
from tipsseg.runs.evaluate.run import Scorer, scoring_task
from tipsseg.store.ownership import Former
from tipsseg.store.writing import RunContext, put_in_place
from tipsseg.types import ImageRef, LabelClass
from tipsseg.util.fingerprint import fingerprint

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
    context = RunContext(output=output, state=output, classes=TREE, info={})
    return LabelTask(cast(PatchLabeller, FakeLabeller(happens)), tuple(formats), context, "digest")


def test_an_image_is_labelled(ref: ImageRef, tmp_path: Path) -> None:
    work = work_in(tmp_path / "out")
    done = work.finish(replace(work.source.load(ref), seconds=100.0), SCORED)
    assert done.ref is ref
    entry = done.entry
    assert (entry.image, entry.digest, entry.formats) == ("sub/a.png", "digest", ("png", "coco", "overlay"))
    assert entry.files == {"png": "masks/sub/a.png", "overlay": "overlays/sub/a.jpg"}
    assert {file.path.relative_to(tmp_path / "out").as_posix() for file in done.staged} == set(entry.files.values())
    assert all(file.temporary.is_file() for file in done.staged)
    assert entry.fingerprint == fingerprint(ref.path)
    assert [entry.summary[key] for key in ("height", "width")] == [4, 4]
    assert list(done.rows) == ["coco"]
    assert entry.seconds >= 100  # of reading too


def test_a_file_of_somebody_else_is_a_matter_of_the_image(ref: ImageRef, tmp_path: Path) -> None:
    work = work_in(tmp_path / "out", formats=("hf", "png"))
    theirs = tmp_path / "out/masks/sub/a.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    staged, context = work.finish(work.source.load(ref), SCORED).staged, work._context
    with pytest.raises(ImageError, match="tipsseg did not write this file") as caught:
        put_in_place(ref, staged, context, Former())
    assert not any(file.temporary.exists() for file in staged)
    assert caught.value.path == ref.path
    assert "Move the file away" in caught.value.hint
    assert theirs.read_bytes() == b"theirs"


def test_a_full_disk_is_a_matter_of_the_run(ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    work = work_in(tmp_path / "out", formats=("png",))
    loaded = work.source.load(ref)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="no space left"):
        work.finish(loaded, SCORED)


def test_labels_are_scored_before_they_are_written(ref: ImageRef, tmp_path: Path) -> None:
    Image.fromarray(np.ones((5, 4), np.uint8)).save(tmp_path / "truth.png")
    layout = plain_layout(plain_ids(1))
    pair = Pair(ref, tmp_path / "truth.png", layout.kinds[0])
    work = scoring_task(work_in(tmp_path / "out"), {ref: pair}, Scorer(layout, MAX_PIXELS))
    with pytest.raises(ImageError, match="the truth is 5 x 4"):
        work.finish(work.source.load(ref), SCORED)
    assert not (tmp_path / "out").exists()


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
