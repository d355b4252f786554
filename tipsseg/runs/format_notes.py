"""What there is to say of formats that cannot hold labels as they are."""

from __future__ import annotations

from collections.abc import Iterable

from tipsseg.formats import FORMATS
from tipsseg.options import FileOptions
from tipsseg.regions.quality import PolygonQuality
from tipsseg.runs.progress import Progress
from tipsseg.util.printable import counted


def note_parts(formats: Iterable[str], options: FileOptions, progress: Progress) -> None:
    """Say which formats cannot hold objects of several parts, where there may be some."""
    unfit = [name for name in formats if not FORMATS[name].parts]
    if unfit and options.instances == "class":
        progress.note(f"In {' and '.join(unfit)} an object has one part, so each part of a class is an object there.")


def note_polygon_quality(progress: Progress, fidelity: PolygonQuality) -> None:
    """Say how well the polygons fit that were made."""
    if fidelity.objects:
        progress.note(
            f"Polygons of {counted(fidelity.objects, 'object')}: IoU with their pixels {fidelity.total / fidelity.objects:.4f} "
            f"on average, {fidelity.worst:.4f} at worst."
        )
