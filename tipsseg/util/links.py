"""Make relative links to images."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

#: Error numbers if the file system does not support links, or the user may not make them.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})


def leads_to(place: Path, image: Path) -> bool:
    """Return True if a link leads to an image."""
    with suppress(OSError):
        return place.samefile(image)
    return False


def make_link(image: Path, place: Path, temporary: Path) -> bool:
    """Make a link at `temporary` that becomes valid when renamed to `place`. Return False if links are not supported."""
    try:
        temporary.symlink_to(os.path.relpath(os.path.realpath(image), os.path.realpath(place.parent)))
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True
