"""Lines of a manifest, made without a run."""

from __future__ import annotations

from collections.abc import Mapping

from tipsseg.store.manifest import ManifestEntry, ObjectScore
from tipsseg.util.fingerprint import Fingerprint


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
