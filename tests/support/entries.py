"""What the exports of a folder say of its images."""

from __future__ import annotations

from pathlib import Path

from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.takeover import exported_entries


def read_entries(folder: Path) -> dict[str, ManifestEntry]:
    """The entries in manifest.jsonl, by image, in the order of the file."""
    return {entry.image: entry for _, entry in exported_entries(folder) if entry is not None}
