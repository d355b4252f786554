"""Check that paths in records stay in their folder, and find the files that they name.

A record is UTF-8, and the name of a file need not be: `types.printable_path` spells such bytes out as "\\udc80" and the like.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath, PurePosixPath

_SPELLED_OUT = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def is_inside(name: str) -> bool:
    """Tell whether a name in a record is a relative path that does not lead out of its folder."""
    path = PurePosixPath(name)
    return (
        bool(name)
        and "\0" not in name
        and not PurePath(name).is_absolute()
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name
        and name != "."
    )


def actual_path(folder: Path, name: str) -> Path:
    """Return the path below `folder` that a record names; see `actual_name`."""
    literal = folder / name
    return literal if "\\udc" not in name or os.path.lexists(literal) else folder / actual_name(name)


def actual_name(name: str) -> str:
    """Turn the name in a record back into the name of a file: the reverse of `types.printable_path`."""
    return _SPELLED_OUT.sub(lambda match: chr(int(match[1], 16)), name)
