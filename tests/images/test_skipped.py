from __future__ import annotations

from collections.abc import Sequence

import pytest

from tipsseg.images.decoding import HEIC_HINT, VIDEO_HINT
from tipsseg.images.finding import Skipped


@pytest.mark.parametrize(
    ("names", "text", "hints"),
    {
        "nothing": ([], "", ()),
        "the most frequent first": (["a.MP4", "x.heic", "b.HEIC", "c.txt"], "2 .heic, 1 .mp4, 1 .txt", (HEIC_HINT, VIDEO_HINT)),
        "HEIC": (["a.heif"], "1 .heif", (HEIC_HINT,)),
        "a video": (["clip.mov"], "1 .mov", (VIDEO_HINT,)),
        "no extension": (["README", "LICENSE"], "2 without an extension", ()),
        "the last extension": (["a.tar.gz"], "1 .gz", ()),
        "many kinds": (
            [f"a.{letter}" for letter in "hgfedcbaij"] + ["b.i"],
            "2 .i, 1 .a, 1 .b, 1 .c, 1 .d, 1 .e, 1 .f, 1 .g, 2 of 2 other kinds",
            (),
        ),
        "eight kinds": ([f"a.{letter}" for letter in "hgfedcba"], "1 .a, 1 .b, 1 .c, 1 .d, 1 .e, 1 .f, 1 .g, 1 .h", ()),
    }.values(),
)  # fmt: skip
def test_what_was_skipped(names: Sequence[str], text: str, hints: Sequence[str]) -> None:
    skipped = Skipped()
    for name in names:
        skipped.add(name, file=True)
    assert (str(skipped), skipped.hints, len(skipped)) == (text, hints, len(names))


def test_pipes_are_no_files() -> None:
    skipped = Skipped()
    skipped.add("a.png", file=False)
    assert str(skipped) == "1 special file"
