"""Read ahead the images of a run that take long to reach: files behind URLs, several at a time; frames of videos, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Generic, TypeVar

from tipsseg.images.sources.access import abandon, hold, needs_hold, release
from tipsseg.types import ImageRef
from tipsseg.util.threads import Feeder

_Item = TypeVar("_Item")

#: Images read ahead, beyond those that are loading.
_AHEAD = 16


class ReadAhead(Generic[_Item]):
    """Iterate over items, and read the images among them ahead.

    Call `release` after the work on each item, and `close` at the end.
    """

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = iter(items)
        self._held: set[ImageRef] = set()

    def __iter__(self) -> Iterator[_Item]:
        for item in self._items:
            if isinstance(item, ImageRef) and needs_hold(item.path):
                yield from self._read_ahead(chain([item], self._items))
                return
            yield item

    def _read_ahead(self, items: Iterable[_Item]) -> Iterator[_Item]:
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
        if isinstance(item, ImageRef) and needs_hold(item.path):
            hold(item.path)
            self._held.add(item)
        return item

    def release(self, item: object, _: object = None) -> None:
        """Drop what was read ahead for an item. A callback of its result."""
        if isinstance(item, ImageRef):
            with suppress(KeyError):  # not read ahead, or released by `close`
                self._held.remove(item)
                release(item.path)

    def close(self) -> None:
        """Stop waiting for what was begun, and drop it."""
        for ref in tuple(self._held):
            abandon(ref.path)
            self.release(ref)
