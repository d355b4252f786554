"""A system with other fonts than this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import pytest

from tipsseg.util import lettering

#: Fonts that are everywhere: DejaVu Sans has accents, and STIX a watch too.
ACCENTS, WATCH = (
    Path(matplotlib.get_data_path()) / "fonts/ttf" / name for name in ("DejaVuSans.ttf", "STIXGeneral.ttf")
)


@contextmanager
def system_fonts(folder: Path, *fonts: Path) -> Iterator[None]:
    """A system with these fonts in this order; its fontconfig is a script in the folder."""
    lines = "".join(f"{font}\\t0\\tTrue\\tFalse\\n" for font in fonts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fc-match").write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    (folder / "fc-match").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=":")
        forget()
        yield
    forget()


def forget() -> None:
    """Let the fonts be asked for again."""
    lettering._font_files.cache_clear()
