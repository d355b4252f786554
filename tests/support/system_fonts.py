"""A system with other fonts than this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import pytest

from tipsseg.util import lettering

#: A font that is everywhere, with a watch and without most accents.
WATCH = Path(matplotlib.get_data_path()) / "fonts/ttf/STIXGeneral.ttf"


@contextmanager
def system_font(folder: Path, font: Path | None) -> Iterator[None]:
    """A system with this font alone, named by its fontconfig, which is a script in the folder; None for no fontconfig."""
    folder.mkdir(parents=True, exist_ok=True)
    if font is not None:
        (folder / "fc-match").write_text(f"#!/bin/sh\nprintf '{font}\\t0'\n")
        (folder / "fc-match").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder))
        lettering._system_fonts.cache_clear()
        yield
    lettering._system_fonts.cache_clear()
