"""The folder of files that only save time: `$TIPSSEG_CACHE`, else `$XDG_CACHE_HOME/tipsseg`, else `~/.cache/tipsseg`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Return the folder, which may not exist yet; None where the user has no home folder."""
    own = os.environ.get("TIPSSEG_CACHE")
    if own:
        return Path(own)
    user = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(user) if user else Path.home() / ".cache") / "tipsseg"
    except RuntimeError:
        return None
