"""Workers: how torch's threads are divided, what comes of errors, and that the program's own threads keep theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tipsseg.backbones import workers
from tipsseg.backbones.tipsv2 import inference
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.backbones.tipsv2.inference import TowerInference
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
    ("threads", "at_once", "each"),
    [
        pytest.param(4, 2, 2, id="two have half"),
        pytest.param(4, 3, 1, id="three do not divide four"),
        pytest.param(9, 2, 4, id="more than there were at first"),
    ],
)
@pytest.mark.parametrize("items", [0, 7])
def test_workers_divide_the_threads(threads: int, at_once: int, each: int, items: int) -> None:
    shared = Workers()
    torch.set_num_threads(threads)
    found = shared.map(lambda number: (number, torch.get_num_threads()), range(items), at_once)
    assert found == [(number, each) for number in range(items)]


def test_the_program_keeps_its_number_of_threads() -> None:
    for at_once in (1, 2, 3, 4):
        Workers().map(lambda _: torch.ones(2), range(5), at_once)
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (4, 4)


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()], ids=["an error", "an interrupt"])
def test_after_an_error_nothing_is_at_work(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The first item fails, or the caller is interrupted while it waits; the other items stop at their next check."""
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

        def interrupted(_: object) -> None:
            began.wait(WAIT)
            raise error

        monkeypatch.setattr(workers, "as_completed", interrupted)
    with pytest.raises(type(error)):
        shared.map(work, range(9), 4)
    monkeypatch.undo()
    assert sorted(ended) == list(range(not interrupt, 4))
    shared.check()
    assert shared.map(abs, [-1, -2], 2) == [1, 2]


@pytest.mark.parametrize("count", [2, 5])
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


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("model", ["mlp_checkpoint", "swiglu_checkpoint"])
def test_shared_windows_have_the_features_that_one_thread_gives_them(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    number: int,
    dtype: str,
    tolerance: float,
) -> None:
    """However many tokens a worker takes at a time, and whether they are parted within a window or not."""
    monkeypatch.setattr(inference, "_SHARED", (torch.float32, torch.bfloat16))
    backbone = Tipsv2Backbone(request.getfixturevalue(model), "cpu", dtype)
    pixels = torch.rand(number, 3, 56, 70, generator=torch.Generator().manual_seed(1)).to(backbone.dtype)
    alone = TowerInference(backbone.vision_encoder)(pixels)
    shares = counting_shares(monkeypatch)
    for tokens in (1, 7, 18, 1000):
        monkeypatch.setattr(inference, "_TOKENS", tokens)
        for got, wanted in zip(backbone._tower(pixels), alone, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))
    assert 4 in shares


def counting_shares(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many workers were asked to share."""
    shares: list[int] = []
    plain = Workers.map

    def counting(self: Workers, work: Callable[[Any], Any], items: Sequence[Any], at_once: int) -> list[Any]:
        shares.append(at_once)
        return plain(self, work, items, at_once)

    monkeypatch.setattr(Workers, "map", counting)
    return shares


@pytest.mark.parametrize("most", [1, 300])
def test_attention_by_products_is_attention(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """The result does not depend on the number of logits in memory."""
    monkeypatch.setattr(inference, "_LOGITS", most)
    query, key, value = torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(inference._attend_by_products(query, key, value), expected, rtol=0, atol=1e-6)
