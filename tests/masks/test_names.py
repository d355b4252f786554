"""Names in a source of regions or labels, and the images that they belong to."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from tipsseg.errors import ImageError
from tipsseg.masks.names import SourceNames
from tipsseg.types import ImageRef

#: Names in the source, and the name for each image of imgs/; an image has the path imgs/<name>.
CASES: dict[str, tuple[list[str], dict[str, str | None]]] = {
    "the same folders": (["day1/a", "day2/a"], {"day1/a.jpg": "day1/a", "day2/a.png": "day2/a", "day3/a.jpg": None}),
    "flat": (["a", "b"], {"a.jpg": "a", "day1/b.jpg": "b", "c.jpg": None}),
    "a shared folder": (["export 3/day1/a", "export 3/day2/b"], {"day1/a.jpg": "export 3/day1/a", "day2/a.jpg": None}),
    "folders of tools": (["train/masks/a", "val/masks/b"], {"a.jpg": "train/masks/a", "day1/b.jpg": "val/masks/b"}),
    "one name in another folder": (["A/a"], {"B/a.jpg": None, "A/a.jpg": "A/a"}),
    "the folder of all images": (["imgs/a", "imgs/day1/b"], {"a.jpg": "imgs/a", "day1/b.jpg": "imgs/day1/b"}),
    "the last folder": (["x/day1/a", "y/day2/a"], {"day1/a.jpg": "x/day1/a", "day2/a.jpg": "y/day2/a"}),
    "suffixes": (["a.jpg", "a.png"], {"a.jpg": "a.jpg", "a.png": "a.png"}),
    "a dot in a name": (["scan.0041", "scan"], {"scan.0041.jpg": "scan.0041", "scan.jpg": "scan"}),
    "the most folders": (["a", "day1/a"], {"day1/a.jpg": "day1/a", "day2/a.jpg": "a"}),
    "names of Windows": (["photos\\day1\\a.jpg", "photos\\day2\\b.jpg"], {"day1/a.jpg": "photos\\day1\\a.jpg"}),
    "renamed on upload": (["0123abcd-a.jpg"], {"a.jpg": "0123abcd-a.jpg"}),
    "no names": (["", ".", "/", ".."], {"a.jpg": None}),
}


def ref(name: str) -> ImageRef:
    return ImageRef(Path("imgs", name), PurePosixPath(name))


@pytest.mark.parametrize("case", CASES)
def test_sources_are_matched_by_name(case: str) -> None:
    names, images = CASES[case]
    assert {image: SourceNames(names).find(ref(image)) for image in images} == images


def test_names_that_match_equally_are_refused() -> None:
    with pytest.raises(ImageError, match=r"ambiguous: x/day1/a, y/day1/a"):
        SourceNames(["x/day1/a", "y/day1/a", "b"]).find(ref("day1/a.jpg"))
