"""What the pipeline owes to order, to memory and to whoever stops it; the rest of it is tested from the command line."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import Any, cast

import pytest

import tipsseg
from tipsseg.errors import ImageError, OutputError
from tipsseg.folder.entry import Entry
from tipsseg.folder.results import Derived, ImageResult, Labelled, Triaged, Unchanged
from tipsseg.formats.mask import MaskFacts, PictureFacts
from tipsseg.label_map import LabelMap
from tipsseg.labelling import source
from tipsseg.labelling.local import LocalEngine
from tipsseg.labelling.source import FeatureSource
from tipsseg.labelling.stages import run_stages
from tipsseg.types import Failed, ImageRef
from tipsseg.util.files import Fingerprint

REFS = [ImageRef(Path(f"{n}.png"), PurePosixPath(f"{n}.png")) for n in range(40)]


def entry_of(ref: ImageRef) -> Entry:
    facts = MaskFacts(
        image=ref.name,
        question="",
        names={},
        picture=PictureFacts(bytes=1),
        labels="",
        size=(10, 10),
        counts={},
        confidence={},
    )
    return Entry(mask=facts, place=f"masks/{ref.name}", stamp=Fingerprint(1, 1, "0" * 64), sealed=b"")


def unchanged(ref: ImageRef) -> Unchanged:
    return Unchanged(ref, entry_of(ref))


@dataclass(frozen=True)
class Image:
    """What was loaded; its windows are not looked at."""

    ref: ImageRef
    missing: str = "windows"


class FakeBatches:
    """The model: `size` images make a batch."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.waiting: list[Any] = []
        self.batches: list[int] = []
        self.is_busy = False

    def add(self, image: Any, prepared: str) -> Iterator[tuple[Any, None]]:
        self.waiting.append(image)
        if len(self.waiting) == self._size:
            yield from self.flush()

    def has_time(self) -> bool:
        return bool(self.waiting) and self.is_busy

    def flush(self) -> list[tuple[Any, None]]:
        done, self.waiting = [(image, None) for image in self.waiting], []
        self.batches += [len(done)] if done else []
        return done


class FakeWork:
    """Labels nothing, and counts what is loaded; 7.png cannot be read, 9.png cannot be written."""

    def __init__(self, fatal: BaseException | None = None, batch: int = 1) -> None:
        self.batch_size = batch
        self.model = FakeBatches(batch)
        self.loaded = 0
        self.finished = 0
        self.ahead: list[int] = []
        self._fatal = fatal
        self._lock = threading.Lock()

    def batches(self) -> FakeBatches:
        return self.model

    def score(self, scales: Sequence[None]) -> None:
        assert list(scales) == []

    def merge(self, image: Image, features: None) -> tuple[list[None], list[None]]:
        return [], []

    def save(self, unsaved: Sequence[None]) -> None:
        pass

    def load(self, ref: ImageRef) -> Image:
        with self._lock:
            self.loaded += 1
        if ref.name == "7.png":
            raise ImageError(ref.path, "truncated file")
        return Image(ref)

    def finish(self, image: Image, scored: None) -> Labelled:
        ref = image.ref
        if ref.name == "9.png":
            raise ImageError(ref.path, "the name is too long")
        if self._fatal is not None and ref.name == "3.png":
            raise self._fatal
        with self._lock:
            self.finished += 1
            self.ahead.append(self.loaded - self.finished)
        return Labelled(ref, entry_of(ref), None, Derived())


def outcomes(
    items: Iterator[Triaged] | list[ImageRef], work: FakeWork, jobs: int
) -> Generator[ImageResult, None, None]:
    return run_stages(items, cast("FeatureSource[Any]", work), work.score, cast(Any, work.finish), jobs)


@pytest.mark.parametrize("jobs", [1, 3])
def test_images_come_in_order_and_few_are_in_memory(jobs: int) -> None:
    work = FakeWork()
    found = list(outcomes(REFS, work, jobs))
    assert [each.ref for each in found] == REFS
    assert [each.ref.name for each in found if isinstance(each, Failed)] == ["7.png", "9.png"]
    assert max(work.ahead) <= 2 * jobs + 1 + 2  # the two that failed were loaded and not finished


def test_finished_and_failed_images_keep_their_place() -> None:
    work = FakeWork()
    missing = Failed(REFS[1], ImageError(REFS[1].path, "no such file"))
    items: list[Triaged] = [unchanged(REFS[0]), missing, REFS[2], unchanged(REFS[3])]
    assert [type(each) for each in outcomes(iter(items), work, 2)] == [Unchanged, Failed, Labelled, Unchanged]
    assert work.loaded == 1


def test_a_batch_that_is_not_full_waits_as_long_as_the_device_is_busy() -> None:
    """More images fill it; once the device has nothing to do, it gets what there is, also if no image follows."""
    work, listed = FakeWork(batch=4), SimpleQueue[ImageRef | None]()
    found, results = outcomes(iter(listed.get, None), work, 4), SimpleQueue[ImageResult]()
    reader = threading.Thread(target=lambda: list(map(results.put, found)), daemon=True)
    work.model.is_busy = True
    reader.start()
    try:
        for number, ref in enumerate(REFS[:6]):
            listed.put(ref)
            until = time.monotonic() + 30
            while sum(work.model.batches) + len(work.model.waiting) <= number and time.monotonic() < until:
                time.sleep(0.001)
        assert [results.get(timeout=30).ref for _ in range(4)] == REFS[:4]
        assert work.model.batches == [4]
        work.model.is_busy = False
        assert [results.get(timeout=30).ref for _ in range(2)] == REFS[4:6]
        assert work.model.batches == [4, 2]
        work.model.is_busy = True
        listed.put(REFS[6])
        listed.put(None)  # the last batch
        time.sleep(0.05)
        assert work.model.batches == [4, 2]
        work.model.is_busy = False
        assert results.get(timeout=30).ref == REFS[6]
        reader.join(30)
        assert not reader.is_alive()
    finally:
        work.model.is_busy = False
        listed.put(None)


@pytest.mark.parametrize(
    "error", [OutputError(Path("out"), "no space left on the device"), KeyboardInterrupt()], ids=repr
)
def test_any_end_of_a_run_ends_the_reading_ahead(error: BaseException) -> None:
    work = FakeWork(error)
    with pytest.raises(type(error)):
        list(outcomes(REFS, work, 2))
    assert 3 <= work.finished < 12
    assert work.loaded < 12
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("work") and stays(thread)]


def test_a_list_that_breaks_off_is_an_error_of_the_run() -> None:
    def listed() -> Iterator[ImageRef]:
        yield REFS[0]
        raise OutputError(Path("out"), "gone")

    found = outcomes(listed(), FakeWork(), 2)
    assert next(found).ref is REFS[0]
    with pytest.raises(OutputError, match="gone"):
        next(found)


def stays(thread: threading.Thread) -> bool:
    thread.join(10)
    return thread.is_alive()


def test_as_many_threads_read_as_there_are_jobs() -> None:
    together = threading.Barrier(3, timeout=30)

    class Meeting(FakeWork):
        def load(self, ref: ImageRef) -> Image:
            together.wait()
            return super().load(ref)

    assert len(list(outcomes(REFS[:6], Meeting(), 3))) == 6


def test_as_many_threads_write_as_there_are_jobs() -> None:
    together = threading.Barrier(3, timeout=30)

    class Meeting(FakeWork):
        def finish(self, image: Image, scored: None) -> Labelled:
            together.wait()
            return super().finish(image, scored)

    assert len(list(outcomes(REFS[:6], Meeting(), 3))) == 6


def test_images_share_batches() -> None:
    class Held(FakeWork):
        """Gives out its first image when all that there is room for is loaded."""

        def load(self, ref: ImageRef) -> Image:
            image = super().load(ref)
            if ref is REFS[10]:
                deadline = time.monotonic() + 30
                while self.loaded < 6 and time.monotonic() < deadline:
                    time.sleep(0.01)
            return image

    work = Held(batch=3)
    assert [each.ref for each in outcomes(REFS[10:20], work, 2)] == REFS[10:20]
    assert work.model.batches[:2] == [3, 3]
    assert sum(work.model.batches) == 10


def test_an_image_is_not_held_up_for_a_full_batch() -> None:
    listed: SimpleQueue[ImageRef | None] = SimpleQueue()
    work = FakeWork(batch=4)
    found = outcomes(iter(listed.get, None), work, 2)
    for ref in REFS[10:13]:
        listed.put(ref)
        assert next(found).ref is ref
    assert work.model.batches == [1, 1, 1]
    listed.put(None)
    assert list(found) == []


def test_files_that_are_being_written_are_waited_for() -> None:
    begun, written = threading.Event(), threading.Event()

    class Slow(FakeWork):
        def finish(self, image: Image, scored: None) -> Labelled:
            if image.ref is REFS[0]:
                assert begun.wait(30)
            if image.ref is REFS[1]:
                begun.set()
                time.sleep(0.2)
                written.set()
            return super().finish(image, scored)

    with closing(outcomes(REFS, Slow(), 2)) as found:
        next(found)
    assert written.is_set()


def test_images_listed_while_the_model_runs_are_labelled() -> None:
    looked, seen = threading.Event(), threading.Event()

    def listed() -> Iterator[ImageRef]:
        yield REFS[10]
        assert looked.wait(30)
        yield REFS[11]
        assert seen.wait(5)

    class Busy(FakeBatches):
        def flush(self) -> list[tuple[Any, None]]:
            if work.finished and not looked.is_set():
                looked.set()
                time.sleep(0.2)  # it comes meanwhile
            return super().flush()

    work = FakeWork()
    work.model = Busy(1)
    found = outcomes(listed(), work, 2)
    assert [next(found).ref, next(found).ref] == REFS[10:12]
    seen.set()
    assert list(found) == []


def test_images_being_written_are_reported_before_a_model_error() -> None:
    class Slow(FakeWork):
        def finish(self, image: Image, scored: None) -> Labelled:
            time.sleep(0.2)
            return super().finish(image, scored)

    class Broken(FakeBatches):
        def add(self, image: Any, prepared: str) -> Iterator[tuple[Any, None]]:
            if image.ref is REFS[12]:
                raise OutputError(Path("model"), "no memory")
            yield from super().add(image, prepared)

    work = Slow()
    work.model = Broken(1)
    asked = outcomes(REFS[10:20], work, 4)
    assert [next(asked).ref for _ in range(2)] == REFS[10:12]
    with pytest.raises(OutputError, match="no memory"):
        next(asked)


def test_who_stops_asking_does_not_wait_for_a_list_that_does_not_come() -> None:
    more, came = threading.Event(), threading.Event()

    def listed() -> Iterator[ImageRef]:
        yield REFS[0]
        more.wait(30)
        came.set()

    with closing(outcomes(listed(), FakeWork(), 2)) as found:
        next(found)
    assert not came.is_set()
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "feed")
    more.set()


def test_no_more_threads_than_jobs() -> None:
    class Slow(FakeWork):
        def __init__(self) -> None:
            super().__init__()
            self.threads: set[int] = set()

        def load(self, ref: ImageRef) -> Image:
            time.sleep(0.02)
            self.threads.add(threading.get_ident())
            return super().load(ref)

    work = Slow()
    list(outcomes(REFS[10:30], work, 2))
    assert len(work.threads) == 2


def test_who_stops_asking_stops_the_threads_at_once() -> None:
    with closing(outcomes(REFS, FakeWork(), 2)) as found:
        next(found)
        time.sleep(0.1)  # until it waits for room
    assert not [thread for thread in threading.enumerate() if thread.name == "feed" and thread.is_alive()]


@pytest.mark.parametrize("large", [True, False])
def test_large_images_are_labelled_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    plain, alone = LocalEngine.label, list[bool]()

    def label(engine: LocalEngine, *image: Any) -> LabelMap:
        alone.append(engine.source._large.locked())
        return plain(engine, *image)

    monkeypatch.setattr(LocalEngine, "label", label)
    monkeypatch.setattr(source, "_HEAVY", 1 if large else 1 << 30)
    scenes = Path(__file__).resolve().parents[2] / "examples/scenes/meadow"
    tipsseg.label_folder(scenes, ["tree"], output=tmp_path / "out", model="tiny", device="cpu", formats=["png"], jobs=2)
    assert alone == [large] * 3
