"""What the pipeline owes to memory and to writers that fail; the rest of it is tested from the command line."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tipsseg import pipeline
from tipsseg.errors import ImageError, InputError, OutputError
from tipsseg.labeller import Labeller, Prepared
from tipsseg.records import ImageRef, LabelClass, LabelMap
from tipsseg.windows import plan_windows

REFS = [ImageRef(Path(f"{n}.png"), PurePosixPath(f"{n}.png")) for n in range(40)]


class FakeLabeller:
    """Labels nothing, and counts what is loaded."""

    def __init__(self) -> None:
        self.prepared = 0
        self._lock = threading.Lock()

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        with self._lock:
            self.prepared += 1
        return Prepared((4, 4), image, plan_windows((4, 4), 14, 14, 14))

    def label_prepared(self, prepared: Prepared) -> LabelMap:
        return LabelMap(np.zeros((4, 4), np.uint8), np.ones((4, 4), np.float32), (LabelClass(1, "tree", (1, 2, 3)),))


class Recorder:
    """A writer and a reporter in one."""

    def __init__(self, labeller: FakeLabeller, fails_at: int | None = None) -> None:
        self.labeller = labeller
        self.fails_at = fails_at
        self.order: list[str] = []
        self.ahead: list[int] = []
        self.aborted = False

    def write(self, ref: ImageRef, image: NDArray[np.uint8], label_map: LabelMap, index: int) -> Path | None:
        assert ref is REFS[index]
        if index == self.fails_at:
            raise OutputError(Path("out"), "no space left on the device")
        self.ahead.append(self.labeller.prepared - index)
        return None

    def close(self) -> list[Path]:
        return []

    def abort(self) -> None:
        self.aborted = True

    def labelled(self, ref: ImageRef, label_map: LabelMap, paths: Sequence[Path]) -> None:
        self.order.append(ref.path.name)

    def failed(self, ref: ImageRef, error: ImageError) -> None:
        self.order.append(f"failed {ref.path.name}")


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_image(path: Path) -> NDArray[np.uint8]:
        if path.name == "7.png":
            raise ImageError(path, "truncated file")
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(pipeline, "open_image", open_image)


@pytest.mark.parametrize("jobs", [1, 3])
def test_images_come_in_order_and_few_are_in_memory(jobs: int) -> None:
    labeller = FakeLabeller()
    recorder = Recorder(labeller)
    counts = pipeline.label_images(REFS, cast(Labeller, labeller), [recorder], recorder, jobs)
    assert counts == pipeline.RunCounts(39, 1)
    assert recorder.order == ["failed 7.png" if n == 7 else f"{n}.png" for n in range(40)]
    assert max(recorder.ahead) <= jobs + 1
    assert not recorder.aborted


def test_a_writer_that_fails_ends_the_run_and_all_writers_are_aborted() -> None:
    labeller = FakeLabeller()
    recorder, other = Recorder(labeller, fails_at=3), Recorder(labeller)
    with pytest.raises(OutputError):
        pipeline.label_images(REFS, cast(Labeller, labeller), [other, recorder], recorder, 2)
    assert recorder.order == ["0.png", "1.png", "2.png"]
    assert recorder.aborted
    assert other.aborted
    assert labeller.prepared < 12


class Refuser(Recorder):
    """A writer that cannot take image 5, or is interrupted there."""

    def __init__(self, labeller: FakeLabeller, error: BaseException) -> None:
        super().__init__(labeller)
        self.error = error

    def write(self, ref: ImageRef, image: NDArray[np.uint8], label_map: LabelMap, index: int) -> Path | None:
        if index == 5:
            raise self.error
        assert image.shape == (4, 4, 3)
        return Path(ref.path.stem)


def test_an_image_that_a_writer_cannot_take_is_left_out() -> None:
    labeller = FakeLabeller()
    after, reporter = Recorder(labeller), Recorder(labeller)
    refuser = Refuser(labeller, ImageError(Path("5.png"), "too odd"))
    counts = pipeline.label_images(REFS, cast(Labeller, labeller), [refuser, after], reporter, 2)
    assert counts == pipeline.RunCounts(38, 2)
    assert [line for line in reporter.order if line.startswith("failed")] == ["failed 5.png", "failed 7.png"]
    assert len(after.ahead) == 38
    assert not refuser.aborted


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_whatever_ends_a_run_aborts_the_writers(error: BaseException) -> None:
    labeller = FakeLabeller()
    refuser, reporter = Refuser(labeller, error), Recorder(labeller)
    with pytest.raises(type(error)):
        pipeline.label_images(REFS, cast(Labeller, labeller), [refuser], reporter, 2)
    assert refuser.aborted


def test_what_the_labeller_cannot_take_keeps_its_advice() -> None:
    class Picky(FakeLabeller):
        def prepare(self, image: NDArray[np.uint8]) -> Prepared:
            raise InputError("too elongated", "Cut it into pieces.")

    class Listener(Recorder):
        def failed(self, ref: ImageRef, error: ImageError) -> None:
            self.order.append(f"{error.path} {error.reason} {error.hint}")

    labeller = Picky()
    listener = Listener(labeller)
    counts = pipeline.label_images(REFS[:1], cast(Labeller, labeller), [listener], listener, 1)
    assert counts == pipeline.RunCounts(0, 1)
    assert listener.order == ["0.png too elongated Cut it into pieces."]
