"""Read ahead the images of a run that take long to reach: files behind URLs, in threads; frames of videos, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from tipsseg.images.sources.access import abandon, hold, needs_hold, needs_order, release
from tipsseg.types import ImageRef
from tipsseg.util.threads import Feeder

_Item = TypeVar("_Item")

#: Images read ahead, beyond those that are loading; also the number of threads that fetch.
_AHEAD = 16


class ReadAhead(Generic[_Item]):
    """Iterate over items, and read the images among them ahead.

    Call `release` after the work on each item, and `close` at the end.
    """

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = iter(items)
        self._pool: ThreadPoolExecutor | None = None
        self._held: dict[str, Future[None]] = {}
        self._fetching: set[Path] = set()

    def __iter__(self) -> Iterator[_Item]:
        for item in self._items:
            if isinstance(item, ImageRef) and needs_hold(item.path):
                yield from self._read_ahead(chain([item], self._items))
                return
            yield item

    def _read_ahead(self, items: Iterable[_Item]) -> Iterator[_Item]:
        self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetch")
        happened = threading.Event()
        feed = Feeder(map(self._begin, items), _AHEAD, happened.set)
        try:
            while True:
                happened.clear()
                if (item := feed.take()) is None:
                    if feed.ended:
                        return
                    happened.wait()
                    continue
                feed.make_room()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            feed.stop()

    def _begin(self, item: _Item) -> _Item:
        if self._pool is None or not isinstance(item, ImageRef) or not needs_hold(item.path):
            return item
        if needs_order(item.path):
            hold(item.path)
            self._held[item.name] = Future()
            self._held[item.name].set_result(None)
        else:
            with suppress(RuntimeError):  # closed meanwhile
                self._fetching.add(item.path)
                self._held[item.name] = self._pool.submit(hold, item.path)
        return item

    def release(self, item: object, _: object = None) -> None:
        """Drop what was read ahead for an item. A callback of its result."""
        if isinstance(item, ImageRef) and (held := self._held.pop(item.name, None)) is not None and not held.cancel():
            held.result()
            self._fetching.discard(item.path)
            release(item.path)

    def close(self) -> None:
        """Stop reading ahead, and waiting for what was begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for path in list(self._fetching):
                abandon(path)
