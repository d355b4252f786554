from __future__ import annotations

import pytest
from entries import entry_of

from tipsseg.runs.rank.expected import Reason, border_share, expected_error, mean_confidence, reasons
from tipsseg.store.manifest import ManifestEntry

#: A box of 4 x 6 in 64 x 64 pixels: 20 pixels of border, each 2 wide.
BOX = (1, 20, 0, 0, 4, 6, 0.5)

# name: (the entry, its expected error)
CASES: dict[str, tuple[ManifestEntry, float]] = {
    "one class": (entry_of("a", {1: (100, 0.75)}), 0.25),
    "two classes by their pixels": (entry_of("a", {1: (75, 1.0), 2: (25, 0.2)}), 0.2),
    "the background counts": (entry_of("a", {1: (50, 1.0)}, background=(50, 0.5)), 0.25),
    "an ignored pixel counts as wrong": (entry_of("a", {1: (90, 1.0)}, ignored=10), 0.1),
    "a background of unknown confidence, as of classes that overlap": (
        entry_of("a", {1: (50, 0.5)}, background=(50, None)),
        0.25,
    ),
    "a corrected image": (entry_of("a", {1: (100, 0.2)}, corrected="0"), 0.0),
    "borders": (entry_of("a", {1: (4096, 0.5)}, size=(64, 64), objects=(BOX,)), 0.5 * (1 + 20 * 2 / 4096)),
    "never above 1": (entry_of("a", {1: (100, 0.0)}, objects=(BOX,) * 1000), 1.0),
}


@pytest.mark.parametrize(("entry", "error"), CASES.values(), ids=list(CASES))
def test_expected_error(entry: ManifestEntry, error: float) -> None:
    assert expected_error(entry) == pytest.approx(error, abs=5e-5)


def test_the_reasons_are_parts_of_the_error_and_the_largest_comes_first() -> None:
    entry = entry_of("a", {1: (30, 0.9), 2: (30, 0.0), 3: (20, 0.95)}, background=(10, 0.5), ignored=10)
    # 3, 30, 1, 5 and 10 of 49 pixels.
    assert reasons(entry) == (
        Reason("class", "class 2", 0.61),
        Reason("ignored", "", 0.2),
        Reason("background", "", 0.1),
    )
    assert [each.record() for each in reasons(entry)][:2] == [
        {"kind": "class", "class": "class 2", "share": 0.61},
        {"kind": "ignored", "share": 0.2},
    ]


def test_an_image_without_an_error_has_no_reasons() -> None:
    assert reasons(entry_of("a", {1: (100, 1.0)})) == ()
    assert reasons(entry_of("a", {1: (100, 0.1)}, corrected="0")) == ()


def test_borders_are_a_reason() -> None:
    entry = entry_of("a", {1: (100, 0.5)}, objects=(BOX,) * 16)
    assert border_share(entry.objects or (), (10, 10)) == 1.0
    assert reasons(entry)[1] == Reason("borders", "", 0.5)


@pytest.mark.parametrize(
    ("entry", "confidence"),
    [
        (entry_of("a", {1: (10, 0.5)}, background=(30, 0.9), ignored=60), 0.8),
        (entry_of("a", {}, ignored=100), None),
        (entry_of("a", {}, background=(100, None)), None),
    ],
    ids=["by pixels, without ignored ones", "all ignored", "unknown"],
)
def test_mean_confidence(entry: ManifestEntry, confidence: float | None) -> None:
    assert mean_confidence(entry) == confidence
