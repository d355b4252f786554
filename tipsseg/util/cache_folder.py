"""The folder of files that only save time: `$TIPSSEG_CACHE`, else `$XDG_CACHE_HOME/tipsseg`, else `~/.cache/tipsseg`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The path of the folder, which may still be absent. Raises RuntimeError where the user has no home folder."""
    own = os.environ.get("TIPSSEG_CACHE")
    if own:
        return Path(own)
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "tipsseg"
