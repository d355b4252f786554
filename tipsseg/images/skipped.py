"""Count the skipped files of folders by kind, and give hints for kinds that can be converted."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

from tipsseg.images.sources.address import VIDEOS
from tipsseg.util.printable import pluralize

#: Maximum number of kinds that a message lists.
_LISTED = 8

#: Kind for pipes, sockets and devices.
_OTHER = "other"

_HEIC = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})

HEIC_HINT = ".heic: install HEIC support: pip install 'tipsseg[heic]'"
VIDEO_HINT = "Video: set argument `every`, for example to 1s for one frame per second."


class Skipped:
    """Counts of skipped files by kind: the extension, in lower case."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()

    def add(self, name: str, *, file: bool) -> None:
        self._kinds[PurePath(name).suffix.lower() if file else _OTHER] += 1

    def __len__(self) -> int:
        return self._kinds.total()

    def __str__(self) -> str:
        """Return the counts as text, highest first, for example "3 .heic, 1 .mp4"."""
        kinds = sorted(self._kinds.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{number} {_kind_name(kind)}" for kind, number in kinds[:_LISTED]]
        if kinds[_LISTED:]:
            rest = sum(number for _, number in kinds[_LISTED:])
            parts.append(f"{rest} of {pluralize(len(kinds) - _LISTED, 'other kind')}")
        return ", ".join(parts)

    @property
    def hints(self) -> tuple[str, ...]:
        hints = ((_HEIC, HEIC_HINT), (VIDEOS, VIDEO_HINT))
        return tuple(hint for kinds, hint in hints if kinds & self._kinds.keys())


def _kind_name(kind: str) -> str:
    if kind == _OTHER:
        return "special file"
    return kind or "without an extension"
