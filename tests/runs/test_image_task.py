"""One image from its file to its files, and what goes wrong on the way; the labels themselves do not matter here."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from tipsseg.errors import ImageError, InputError, OutputError
from tipsseg.images.decoding import OpenImage, opened
from tipsseg.label_map import LabelMap
from tipsseg.labelling.labeller import Cosines, Labeller, Scored
from tipsseg.labelling.prepare import Prepared
from tipsseg.labelling.windows import make_plan
from tipsseg.runs.engine.image_task import ImageTask
from tipsseg.store.writing import RunContext, put_in_place
from tipsseg.types import ImageRef, LabelClass
from tipsseg.util.fingerprint import fingerprint

TREE = (LabelClass(1, "tree", (1, 2, 3)),)


SCORED = Cosines(torch.zeros(0), 0)


class FakeLabeller:
    def prepare(self, image: Image.Image) -> Prepared:
        if image.height == 1:
            raise InputError("too elongated", "Cut it into pieces.")
        return Prepared((4, 4), np.array(image), make_plan((4, 4), 14, 14, 14))

    def assign(self, prepared: Prepared, scored: Scored) -> LabelMap:
        assert scored is SCORED
        return LabelMap(np.ones((4, 4), np.uint8), np.ones((4, 4), np.float32), TREE)


@pytest.fixture
def ref(tmp_path: Path) -> ImageRef:
    save(tmp_path / "in/a.png", 10)
    return ImageRef(tmp_path / "in/a.png", PurePosixPath("sub/a.png"))


def after_reading(monkeypatch: pytest.MonkeyPatch, happens: Callable[[Path], None]) -> None:
    """Let something happen to a file each time that it was read, or could not be read."""

    @contextmanager
    def busy(path: Path, max_pixels: int) -> Iterator[OpenImage]:
        try:
            with opened(path, max_pixels) as image:
                yield image
        finally:
            happens(path)

    monkeypatch.setattr("tipsseg.runs.engine.image_task.opened", busy)


def save(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def work_in(
    output: Path,
    inspect: Callable[[ImageRef, LabelMap], None] | None = None,
    formats: Sequence[str] = ("png", "coco", "overlay"),
) -> ImageTask:
    context = RunContext(output=output, state=output, classes=TREE, info={})
    return ImageTask(cast(Labeller, FakeLabeller()), tuple(formats), context, "digest", inspect)


def test_an_image_is_labelled(ref: ImageRef, tmp_path: Path) -> None:
    work = work_in(tmp_path / "out")
    done = work.finish(work.load(ref), SCORED)
    assert done.ref is ref
    entry = done.entry
    assert (entry.image, entry.digest, entry.formats) == ("sub/a.png", "digest", ("png", "coco", "overlay"))
    assert entry.files == {"png": "masks/sub/a.png", "overlay": "overlays/sub/a.jpg"}
    assert {file.path.relative_to(tmp_path / "out").as_posix() for file in done.staged} == set(entry.files.values())
    assert all(file.temporary.is_file() for file in done.staged)
    assert entry.fingerprint == fingerprint(ref.path)
    assert [entry.summary[key] for key in ("height", "width")] == [4, 4]
    assert list(done.rows) == ["coco"]
    assert entry.seconds >= 0


def test_what_the_labeller_cannot_take_keeps_its_advice(ref: ImageRef, tmp_path: Path) -> None:
    save(ref.path, 10, (1, 90))
    with pytest.raises(ImageError) as caught:
        work_in(tmp_path).load(ref)
    assert (caught.value.path, caught.value.reason, caught.value.hint) == (
        ref.path,
        "too elongated",
        "Cut it into pieces.",
    )


@pytest.mark.parametrize(
    ("raised", "told"),
    [(TypeError("a bug"), TypeError), (MemoryError(), ImageError)],
)
def test_a_bug_of_preparation_is_no_broken_image(
    ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, told: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(FakeLabeller, "prepare", fail)
    with pytest.raises(told, match="a bug" if told is TypeError else "not enough memory"):
        work_in(tmp_path).load(ref)


def test_a_file_of_somebody_else_is_a_matter_of_the_image(ref: ImageRef, tmp_path: Path) -> None:
    work = work_in(tmp_path / "out", formats=("hf", "png"))
    save(tmp_path / "out/masks/sub/a.png", 10)
    before = (tmp_path / "out/masks/sub/a.png").read_bytes()
    staged, context = work.finish(work.load(ref), SCORED).staged, work._context
    with pytest.raises(ImageError, match="tipsseg did not write the file") as caught:
        put_in_place(ref, staged, context)
    assert not any(file.temporary.exists() for file in staged)
    assert caught.value.path == ref.path
    assert "Move the file away" in caught.value.hint
    assert (tmp_path / "out/masks/sub/a.png").read_bytes() == before


def test_a_full_disk_is_a_matter_of_the_run(ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    work = work_in(tmp_path / "out", formats=("png",))
    loaded = work.load(ref)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="no space left"):
        work.finish(loaded, SCORED)


def test_whoever_looks_at_the_labels_comes_before_the_files(ref: ImageRef, tmp_path: Path) -> None:
    def refuse(ref: ImageRef, label_map: LabelMap) -> None:
        raise ImageError(ref.path, "no truth of this size")

    work = work_in(tmp_path / "out", refuse)
    loaded = work.load(ref)
    with pytest.raises(ImageError, match="no truth"):
        work.finish(loaded, SCORED)
    assert not (tmp_path / "out").exists()


def replaced(path: Path, value: int) -> None:
    """Another picture of that name, as programs that save files do it."""
    save(path.with_name("new.png"), value)
    path.with_name("new.png").replace(path)


def rewritten(path: Path, value: int) -> None:
    """Other content in the same file."""
    save(path, value)
    os.utime(path, ns=(value, value))


@pytest.mark.parametrize("change", [replaced, rewritten])
def test_an_image_that_is_changed_while_it_is_read_is_read_again(
    ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, int], None]
) -> None:
    reads: list[Path] = []

    def busy(path: Path) -> None:
        reads.append(path)
        if len(reads) < 3:
            change(path, 100 + len(reads))

    after_reading(monkeypatch, busy)
    loaded = work_in(tmp_path).load(ref)
    assert len(reads) == 3
    assert (loaded.thumbnail == 102).all()  # of the file as it is now, to which the fingerprint belongs too
    assert loaded.fingerprint == fingerprint(ref.path)


def test_a_large_image_that_is_changed_while_it_is_read_is_read_again(
    ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its turn once, not for itself."""
    monkeypatch.setattr("tipsseg.runs.engine.image_task._HEAVY", 15)
    test_an_image_that_is_changed_while_it_is_read_is_read_again(ref, tmp_path, monkeypatch, replaced)


def test_an_image_that_never_rests_is_named(ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def busy(path: Path) -> None:
        os.utime(path, ns=(path.stat().st_mtime_ns + 1,) * 2)

    after_reading(monkeypatch, busy)
    with pytest.raises(ImageError, match="it changes while it is read") as caught:
        work_in(tmp_path).load(ref)
    assert caught.value.hint


def test_a_fault_of_a_half_written_image_is_not_reported_once_it_is_whole(
    ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ref.path.read_bytes()
    ref.path.write_bytes(whole[:40])

    def late(path: Path) -> None:
        path.write_bytes(whole)
        os.utime(path, ns=(1, 1))

    after_reading(monkeypatch, late)
    assert (work_in(tmp_path).load(ref).prepared.resized == 10).all()


def test_the_seconds_are_of_reading_too(ref: ImageRef, tmp_path: Path) -> None:
    work = work_in(tmp_path / "out")
    assert work.finish(replace(work.load(ref), seconds=100.0), SCORED).entry.seconds >= 100


def test_an_image_that_vanishes_while_it_is_read_is_a_matter_of_the_image(
    ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(path: Path) -> None:
        path.unlink(missing_ok=True)

    after_reading(monkeypatch, late)
    with pytest.raises(ImageError, match="no such file"):
        work_in(tmp_path).load(ref)


@pytest.mark.parametrize("part", ["size", "time", "file"])
def test_each_sign_of_a_change_counts(
    ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A program may restore the time, or the length may be as before."""
    reads: list[Path] = []

    def busy(path: Path) -> None:
        reads.append(path)
        if len(reads) == 1:
            before, data = path.stat(), path.read_bytes()
            if part == "file":
                path.with_name("new.png").write_bytes(data)
                path.with_name("new.png").replace(path)
            else:
                path.write_bytes(data + b"." * (part == "size"))
            os.utime(path, ns=(0, before.st_mtime_ns + (part == "time")))

    after_reading(monkeypatch, busy)
    work_in(tmp_path).load(ref)
    assert len(reads) == 2


@pytest.mark.parametrize(("formats", "kept"), [(("png", "coco"), False), (("png", "overlay"), True)])
def test_pixels_are_kept_only_where_a_format_needs_them(
    ref: ImageRef, tmp_path: Path, formats: Sequence[str], kept: bool
) -> None:
    work = work_in(tmp_path / "out", formats=formats)
    loaded = work.load(ref)
    assert loaded.thumbnail.shape == ((4, 4, 3) if kept else (0, 0, 3))
    assert set(work.finish(loaded, SCORED).entry.files) == set(formats) - {"coco"}


def test_large_images_are_decoded_one_at_a_time(ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)
    work = work_in(tmp_path / "out")

    def meet(self: FakeLabeller, image: Image.Image) -> Prepared:
        together.wait(timeout=0.5)
        return Prepared((4, 4), np.array(image), make_plan((4, 4), 14, 14, 14))

    monkeypatch.setattr(FakeLabeller, "prepare", meet)
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(work.load, [ref, ref]))
        together.reset()
        monkeypatch.setattr("tipsseg.runs.engine.image_task._HEAVY", 15)
        with pytest.raises(threading.BrokenBarrierError):
            list(pool.map(work.load, [ref, ref]))


def test_the_seconds_of_reading_are_measured(ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: Path) -> None:
        time.sleep(0.05)

    after_reading(monkeypatch, slow)
    assert work_in(tmp_path).load(ref).seconds >= 0.05


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
    monkeypatch.setattr("tipsseg.runs.engine.image_task._HEAVY", 16)

    def meet(self: FakeLabeller, prepared: Prepared, scored: Scored) -> LabelMap:
        together.wait(timeout=0.5)
        return plain(self, prepared, scored)

    plain = FakeLabeller.assign
    monkeypatch.setattr(FakeLabeller, "assign", meet)
    work = work_in(tmp_path / "out", formats=("coco",))
    loaded = work.load(ref)
    plan = replace(loaded.prepared.plan, size=working)
    loaded = replace(loaded, prepared=replace(loaded.prepared, size=size, plan=plan))
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(work.finish, loaded, SCORED) for _ in range(2)]
        met = [each.exception() is None for each in made]
    assert met == [not alone] * 2


@pytest.mark.parametrize(("formats", "top"), [(("png", "coco"), 0), (("png", "npz"), 5)])
def test_the_best_classes_are_made_only_where_a_format_needs_them(
    ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formats: Sequence[str], top: int
) -> None:
    asked: list[int] = []

    def noting(self: FakeLabeller, prepared: Prepared, scored: Scored) -> LabelMap:
        asked.append(top)
        raise ImageError(ref.path, "enough")

    monkeypatch.setattr(FakeLabeller, "assign", noting)
    work = work_in(tmp_path / "out", formats=formats)
    with pytest.raises(ImageError, match="enough"):
        work.finish(work.load(ref), SCORED)
    assert asked == [top]


def test_a_name_that_no_file_can_have_is_a_matter_of_the_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        work_in(tmp_path).load(ImageRef(Path("a\0b.png"), PurePosixPath("a.png")))


def test_a_file_that_cannot_be_read_again_says_why(
    ref: ImageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tipsseg.runs.engine.image_task.fingerprint", refuse)
    with pytest.raises(ImageError) as caught:
        work_in(tmp_path).load(ref)
    assert caught.value.reason == "no permission to read it"
