"""Entries of images: made without a run, and read from the record of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath

from tipsseg.run.entry import Correction, Entry, Facts, ObjectScore, make_entry
from tipsseg.run.state import State
from tipsseg.types import ImageRef
from tipsseg.util.files import Fingerprint


def read_entries(folder: Path) -> dict[str, Entry]:
    """The records of the images of a folder, by name."""
    with closing(State(folder)) as state:
        return {entry.image: entry for entry in state.entries()}


def entry_of(
    image: str,
    classes: Mapping[int, tuple[int, float]],
    *,
    background: tuple[int, float | None] = (0, None),
    ignored: int = 0,
    size: tuple[int, int] = (10, 10),
    objects: tuple[ObjectScore, ...] = (),
    corrected: bool = False,
) -> Entry:
    """The entry of an image: pixels and mean confidence of each class by id, and of the background."""
    records = [
        {"id": number, "name": f"class {number}", "pixels": pixels, "share": 0.0, "confidence": confidence}
        for number, (pixels, confidence) in classes.items()
    ]
    summary = {
        "height": size[0],
        "width": size[1],
        "classes": records,
        "background": {"pixels": background[0], "share": 0.0, "confidence": background[1]},
        "ignored": ignored,
    }
    ref = ImageRef(Path(f"/{image}"), PurePosixPath(image))
    entry = make_entry(ref, Fingerprint(1, 1, "0" * 64), Facts(summary, objects), (), ())
    return entry.with_correction(Correction()) if corrected else entry
