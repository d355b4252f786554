"""Open the progress of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipsseg.cli.wording import as_typed

if TYPE_CHECKING:
    from tipsseg.runs.common.progress import Progress


def open_progress(quiet: bool, *, results: bool = True, null: bool = False) -> Progress:
    """Return a Progress that prints options in place of the library's arguments; silence the decoders of images."""
    from tipsseg.images.pillow import silence_decoders
    from tipsseg.runs.common.progress import Progress

    silence_decoders()
    return Progress(quiet, results=results, null=null, wording=as_typed)
