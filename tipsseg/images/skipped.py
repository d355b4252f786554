"""Count files in folders that are not images, by their kinds, and hint at how to have some of them labelled."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

from tipsseg.util.printable import counted

#: The most kinds that a message names.
_NAMED = 8

#: The kind of pipes, sockets and devices.
_OTHER = "other"

_HEIC = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
_VIDEO = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts", ".3gp"})

#: What to do to have HEIC images read.
HEIC_HINT = ".heic: install the package that reads it: pip install 'tipsseg[heic]'"

#: What to do with a video.
VIDEO_HINT = "Video: take pictures from it, here one a second: ffmpeg -i VIDEO -vf fps=1 frames/%05d.png"


class Skipped:
    """Counts skipped files by their kind: the extension, in lower case."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()

    def add(self, name: str, *, file: bool) -> None:
        self._kinds[PurePath(name).suffix.lower() if file else _OTHER] += 1

    def __len__(self) -> int:
        return self._kinds.total()

    def __str__(self) -> str:
        """List the counts, the highest first, for example "3 .heic, 1 .mp4"."""
        kinds = sorted(self._kinds.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{number} {_called(kind)}" for kind, number in kinds[:_NAMED]]
        if kinds[_NAMED:]:
            rest = sum(number for _, number in kinds[_NAMED:])
            parts.append(f"{rest} of {counted(len(kinds) - _NAMED, 'other kind')}")
        return ", ".join(parts)

    @property
    def hints(self) -> tuple[str, ...]:
        hints = ((_HEIC, HEIC_HINT), (_VIDEO, VIDEO_HINT))
        return tuple(hint for kinds, hint in hints if kinds & self._kinds.keys())


def _called(kind: str) -> str:
    if kind == _OTHER:
        return "special file"
    return kind or "without an extension"
