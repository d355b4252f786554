"""The images of a run are shared out, the same way for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tipsseg.errors import UsageError
from tipsseg.options.values import Shard, parse_shard

image_names = st.text(st.characters(codec="utf-8"))
shards = st.integers(1, 999_999_999).flatmap(lambda count: st.builds(Shard, st.integers(1, count), st.just(count)))


@pytest.mark.parametrize(
    ("text", "shard", "folder"),
    [
        ("3/8", Shard(3, 8), "3-of-8"),
        ("1/1", Shard(1, 1), "1-of-1"),
        ("8/8", Shard(8, 8), "8-of-8"),
        ("03/08", Shard(3, 8), "3-of-8"),  # as array jobs may count
        ("12/1000", Shard(12, 1000), "12-of-1000"),
    ],
)
def test_a_shard_is_parsed(text: str, shard: Shard, folder: str) -> None:
    assert parse_shard(text) == shard
    assert shard.folder == folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/8", "the part must be in 1 to 8"),
        ("9/8", "the part must be in 1 to 8"),
        ("3/0", "the part must be in 1 to 0"),
        *((text, "is not a part of a run") for text in ("3", "", "a/b", "-1/8", "1/2/3", "3/8\n", "1.0/8")),
        ("\u0663/8", "is not a part of a run"),  # a digit, but not one of ours
        (f"1/{'9' * 5000}", "is not a part of a run"),  # int() has a limit too
    ],
)
def test_texts_that_are_no_shard_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard(text)


@given(st.lists(image_names), st.integers(1, 20))
def test_every_image_belongs_to_exactly_one_shard(names: list[str], count: int) -> None:
    for name in names:
        assert sum(Shard(index, count).takes(name) for index in range(1, count + 1)) == 1


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("a.jpg", {2: 1, 3: 2, 8: 3, 1000: 27}),
        ("meadow/a.jpg", {2: 2, 3: 1, 8: 8, 1000: 240}),
        ("\u00e9.png", {2: 2, 3: 3, 8: 4, 1000: 4}),
        ("caf\\udce9.png", {2: 1, 3: 1, 8: 1, 1000: 225}),
    ],
)
def test_which_shard_never_changes(name: str, indices: dict[int, int]) -> None:
    """Another version that shared out otherwise would leave out some images of a run that is half done, and label others twice."""
    for count, index in indices.items():
        assert Shard(index, count).takes(name)


@pytest.mark.parametrize("count", [2, 3, 8, 16])
def test_shards_are_of_about_one_size(count: int) -> None:
    names = [f"camera-1/frame-{number:06}.jpg" for number in range(4000)]
    sizes = Counter(index for name in names for index in range(1, count + 1) if Shard(index, count).takes(name))
    assert len(sizes) == count
    assert max(sizes.values()) < 1.25 * len(names) / count
    assert min(sizes.values()) > 0.75 * len(names) / count
