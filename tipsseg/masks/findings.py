"""Read the findings of an audit, which the review page lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tipsseg.errors import InputError
from tipsseg.util.files import describe_error, read_regular
from tipsseg.util.json import parse, take, take_share

#: The number of findings that the page lists for an image.
_LISTED = 50

#: A finding: kind, label, what the model sees, score, and box (x, y, w, h) in pixels. Label and seen are names or None.
ListedDoubt = tuple[str, object, object, float, list[int]]


def read_doubts(path: Path) -> Mapping[str, list[ListedDoubt]]:
    """Return the findings by image, the most doubtful first. Raise InputError if the file is not one of `tipsseg audit`."""
    found: dict[str, list[ListedDoubt]] = defaultdict(list)
    try:
        for number, line in enumerate(read_regular(path).splitlines(), start=1):
            try:
                record = parse(line)
                box = take(record, "bbox", list)
                if len(box) != 4 or not all(type(side) is int for side in box):
                    raise ValueError("`bbox` is not four whole numbers")
                names = record.get("label"), record.get("seen")
                if not all(name is None or isinstance(name, str) for name in names):
                    raise ValueError("`label` and `seen` must be strings or null")
                score = take_share(record, "score")
                found[take(record, "image", str)].append((take(record, "kind", str), *names, score, box))
            except ValueError as error:
                raise InputError(
                    f"{path}: line {number}: {error}", "Write it with: tipsseg audit OUT --labels LABELS --jsonl"
                ) from error
    except OSError as error:
        raise InputError(f"{path}: {describe_error(error)}", "Check the path.") from error
    return {image: sorted(own, key=lambda doubt: -doubt[3])[:_LISTED] for image, own in found.items()}
