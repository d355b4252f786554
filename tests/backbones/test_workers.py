"""Workers: how torch's threads are divided, what comes of errors, and that the program's own threads keep theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch

from tipsseg.backbones import workers
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.backbones.workers import StoppedError, Workers

WAIT = 60


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.parametrize(
    ("threads", "items", "each"),
    [
        pytest.param(4, 0, [], id="nothing"),
        pytest.param(4, 1, [4], id="one has all"),
        pytest.param(4, 2, [2, 2], id="two have half"),
        pytest.param(4, 3, [1, 1, 1], id="three do not divide four"),
        pytest.param(4, 4, [1] * 4, id="one each"),
        pytest.param(4, 5, [1] * 4 + [4], id="one more has all"),
        pytest.param(4, 6, [1] * 4 + [2, 2], id="two more have half"),
        pytest.param(4, 12, [1] * 12, id="a multiple"),
        pytest.param(1, 3, [1, 1, 1], id="one thread"),
        pytest.param(9, 2, [4, 4], id="more than there were at first"),
    ],
)
def test_items_divide_the_threads(threads: int, items: int, each: list[int]) -> None:
    shared = Workers()
    torch.set_num_threads(threads)
    found = shared.map(lambda number: (number, torch.get_num_threads()), range(items))
    assert found == list(enumerate(each))


def test_a_worker_takes_another_number_of_threads() -> None:
    shared = Workers()
    counts = [set(shared.map(lambda _: torch.get_num_threads(), range(items))) for items in (4, 2, 3)]
    assert counts == [{1}, {2}, {1}]


def test_the_program_keeps_its_number_of_threads() -> None:
    for items in (1, 2, 3, 5):
        Workers().map(lambda _: torch.ones(2), range(items))
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (4, 4)


def test_items_are_computed_at_the_same_time() -> None:
    together = threading.Barrier(4)
    assert sorted(Workers().map(lambda _: together.wait(WAIT), range(4))) == [0, 1, 2, 3]


def test_where_threads_cannot_be_divided_one_item_follows_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_can_divide_threads", lambda: False)
    caller = threading.get_ident()
    assert Workers().map(lambda _: threading.get_ident(), range(3)) == [caller] * 3


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()], ids=["an error", "an interrupt"])
def test_after_an_error_nothing_is_at_work(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The error is that of the first item, or strikes the caller while it waits; the others stop where they check."""
    shared = Workers()
    interrupt = isinstance(error, KeyboardInterrupt)
    began, ended = threading.Barrier(4 + interrupt), []

    def work(number: int) -> None:
        began.wait(WAIT)
        if number == 0 and not interrupt:
            raise error
        try:
            for _ in range(WAIT * 1000):
                shared.check()
                threading.Event().wait(0.001)
        except StoppedError:
            ended.append(number)
            raise

    if interrupt:

        def interrupted(_: Future[None]) -> None:
            began.wait(WAIT)
            raise error

        monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(type(error)):
        shared.map(work, range(4))
    monkeypatch.undo()
    assert sorted(ended) == list(range(not interrupt, 4))
    shared.check()


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_windows_have_the_features_that_they_have_alone(mlp_checkpoint: Path, count: int) -> None:
    backbone = Tipsv2Backbone(mlp_checkpoint, "cpu", "float32")
    rng = np.random.default_rng(3)
    windows = [rng.integers(0, 256, (56, 56, 3), np.uint8) for _ in range(count)]
    together, again = backbone.encode_windows(windows), backbone.encode_windows(windows)
    assert torch.equal(together.patches, again.patches)
    assert torch.equal(together.class_tokens, again.class_tokens)
    for number, window in enumerate(windows):
        alone = backbone.encode_windows([window])
        torch.testing.assert_close(alone.patches[0], together.patches[number], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.class_tokens[0], together.class_tokens[number], rtol=0, atol=1e-6)
