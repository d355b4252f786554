"""Images beside their labels, for tools that look for them there: linked, or copied where the file system has no links."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from tipsseg.files import atomic_path

#: What the system says where it has no links, or the user may make none.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})


def restore_link(image: Path, place: Path, owner: str = "") -> None:
    """`link_image`, unless `place` leads to the image already, or is a copy. Raises OutputError."""
    with suppress(OSError):
        if place.samefile(image) or not place.is_symlink():
            return
    link_image(image, place, owner)


def link_image(image: Path, place: Path, owner: str = "") -> None:
    """Let `place` stand for the image, instead of the file that was there; `owner` is as for `atomic_path`. Raises OutputError.

    The link is relative and leads to the file itself, so that both can be moved together.
    """
    with atomic_path(place, owner) as temporary:
        try:
            temporary.symlink_to(os.path.relpath(os.path.realpath(image), os.path.realpath(place.parent)))
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(image, temporary)
