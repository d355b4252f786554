"""Create the progress display of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipsseg.cli.wording import as_typed

if TYPE_CHECKING:
    from tipsseg.runs.common.progress import Progress


def open_progress(quiet: bool, *, results: bool = True, null: bool = False) -> Progress:
    """Silence the image decoders, and return a Progress that prints flags instead of the library's argument names."""
    from tipsseg.images.decoders import silence_decoders
    from tipsseg.runs.common.progress import Progress

    silence_decoders()
    return Progress(quiet, results=results, null=null, wording=as_typed)
