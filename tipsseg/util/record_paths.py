"""Check that paths in records stay in their folder, and convert them to file paths.

Records are UTF-8, but file names may contain other bytes: `types.printable_path` escapes them as "\\udc80" and so on.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath, PurePosixPath

_ESCAPE = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def is_inside(name: str) -> bool:
    """Return True if a name in a record is a relative path inside its folder."""
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
    """Return the file path for a name in a record, below `folder`; see `actual_name`."""
    literal = folder / name
    return literal if "\\udc" not in name or os.path.lexists(literal) else folder / actual_name(name)


def actual_name(name: str) -> str:
    """Convert a name in a record to a file name. Reverses `types.printable_path`."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)
