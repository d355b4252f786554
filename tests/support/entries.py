"""Entries of images: made without a run, and read from the export of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tipsseg.store.exports import exported_entries
from tipsseg.store.manifest import ManifestEntry, ObjectScore
from tipsseg.util.fingerprint import Fingerprint


def read_entries(folder: Path) -> dict[str, ManifestEntry]:
    """The entries in manifest.jsonl, by image, in the order of the file."""
    return {entry.image: entry for entry, _ in exported_entries(folder) if entry is not None}


def entry_of(
    image: str,
    classes: Mapping[int, tuple[int, float]],
    *,
    background: tuple[int, float | None] = (0, None),
    ignored: int = 0,
    size: tuple[int, int] = (10, 10),
    objects: tuple[ObjectScore, ...] = (),
    corrected: str | None = None,
) -> ManifestEntry:
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
    print_of_file = Fingerprint(1, 1, "0" * 64)
    return ManifestEntry(image, f"/{image}", print_of_file, "0", summary, {}, (), 0.1, {}, objects, corrected)
