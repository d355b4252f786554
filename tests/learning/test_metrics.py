"""The confusion matrix and the scores, worked out by hand and against a plain loop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tipsseg.errors import InputError, UsageError
from tipsseg.learning.metrics import Confusion, count_kept, find_swapped_classes, kept, record, scores, table
from tipsseg.learning.truth import IGNORED
from tipsseg.types import LabelArray, LabelClass


def classes_of(*names: str, wholes: dict[int, int] | None = None) -> tuple[LabelClass, ...]:
    """Classes with these names; `wholes` has the whole of each part."""
    return tuple(
        LabelClass(number, name, (0, 0, 0), part_of=(wholes or {}).get(number, 0))
        for number, name in enumerate(names, start=1)
    )


NAMES = ("cat", "dog", "cow")
CLASSES = classes_of(*NAMES)


def truth_of(*rows: list[int]) -> NDArray[np.uint16]:
    return np.array(rows, np.uint16)


def labels_of(*rows: list[int]) -> NDArray[np.uint8]:
    return np.array(rows, np.uint8)


def confusion_of(
    truth: NDArray[np.uint16], labels: LabelArray, background: bool = True, classes: int = len(NAMES)
) -> Confusion:
    confusion = Confusion(classes, background)
    confusion.add(truth, labels)
    return confusion


# Three classes with background, worked out by hand: cow is nowhere, one pixel does not count, one has no label.
TRUTH = truth_of([0, 0, 0, 1, 1], [1, 1, 2, 2, IGNORED])
LABELS = labels_of([0, 0, 1, 1, 1], [2, 255, 2, 0, 3])


def test_without_background_its_pixels_have_no_label() -> None:
    truth = truth_of([1, 1, 2, IGNORED])
    confusion = confusion_of(truth, labels_of([1, 0, 255, 0]), background=False)
    assert confusion.ids == (1, 2, 3)
    assert confusion.counts.tolist() == [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    result = scores(confusion, CLASSES)
    assert result.names == NAMES
    assert result.iou[:2].tolist() == [0.5, 0.0]
    assert math.isnan(result.precision[1])
    assert (result.mean_iou, result.mean_accuracy) == (0.25, 0.25)
    assert result.pixel_accuracy == pytest.approx(1 / 3)


def test_a_class_that_is_only_predicted_counts_in_the_mean_iou_alone() -> None:
    result = scores(confusion_of(truth_of([1, 1]), labels_of([1, 3]), background=False), CLASSES)
    assert result.iou.tolist()[::2] == [0.5, 0.0]
    assert math.isnan(result.iou[1])
    assert math.isnan(result.recall[2])
    assert (result.mean_iou, result.mean_accuracy) == (0.25, 0.5)


def test_scores_without_pixels() -> None:
    result = scores(confusion_of(truth_of([IGNORED]), labels_of([1])), CLASSES)
    assert result.counted == 0
    assert np.isnan([result.mean_iou, result.pixel_accuracy, result.mean_accuracy, *result.iou]).all()
    made = record(result)
    assert (made["mean_iou"], made["pixel_accuracy"], made["mean_accuracy"], made["pixels"]) == (None, None, None, 0)
    assert "mean IoU                  -   over the 0 of 4 that occur in ground truth or labels\n" in table(result)


@st.composite
def cases(
    draw: st.DrawFn, several: tuple[int, ...] = (1, 2, 3, 300)
) -> tuple[int, bool, NDArray[np.uint16], LabelArray]:
    classes = draw(st.sampled_from(several))
    background = draw(st.booleans())
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=8))
    top = min(classes, 4)
    truths = [*range(0 if background else 1, top + 1), classes, IGNORED]
    predictions = [*range(top + 1), classes, 255 if classes < 255 else 65535]
    truth = draw(hnp.arrays(np.uint16, shape, elements=st.sampled_from(truths)))
    labels = draw(hnp.arrays(np.uint8 if classes < 255 else np.uint16, shape, elements=st.sampled_from(predictions)))
    return classes, background, truth, labels


def plain_iou(classes: int, background: bool, truth: NDArray[np.uint16], labels: LabelArray) -> dict[int, float]:
    """Intersection over union by sets of pixels."""
    counted = truth != IGNORED
    ious = {}
    for number in range(0 if background else 1, classes + 1):
        one, other = (truth == number) & counted, (labels == number) & counted
        union = (one | other).sum()
        ious[number] = float((one & other).sum() / union) if union else math.nan
    return ious


@given(cases())
def test_counts_and_scores_are_those_of_a_plain_loop(case: tuple[int, bool, NDArray[np.uint16], LabelArray]) -> None:
    classes, background, truth, labels = case
    confusion = confusion_of(truth, labels, background, classes)
    first = 0 if background else 1
    rows = classes + 1 - first
    expected = np.zeros((rows, rows + 1), np.int64)
    for wanted, got in zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if wanted != IGNORED:
            expected[wanted - first, got - first if first <= got <= classes else rows] += 1
    assert np.array_equal(confusion.counts, expected)

    result = scores(confusion, classes_of(*map(str, range(1, classes + 1))))
    ious = plain_iou(classes, background, truth, labels)
    assert result.ids == tuple(ious)
    assert np.array_equal(result.iou, list(ious.values()), equal_nan=True)
    defined = [iou for iou in ious.values() if not math.isnan(iou)]
    assert result.mean_iou == pytest.approx(sum(defined) / len(defined) if defined else math.nan, nan_ok=True)
    json.dumps(record(result), allow_nan=False)


def test_an_image_of_many_pixels_is_counted_in_pieces() -> None:
    truth, labels = TRUTH.repeat(600, 0).repeat(400, 1), LABELS.repeat(600, 0).repeat(400, 1)  # 2.4 million pixels
    assert np.array_equal(confusion_of(truth, labels).counts, 240_000 * confusion_of(TRUTH, LABELS).counts)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        Confusion(3, True).add(truth_of([0, 1, 2]), labels_of([0], [1]))
    assert caught.value.message == "the labels are 2 x 1 (height x width), but the ground truth is 1 x 3"
    assert "upright" in caught.value.hint


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="3001 classes cannot be scored"):
        Confusion(3001, True)


# ---- names in another order ----

# Pixels by truth 1..N (rows) and label 1..N, then none (columns) -> (truth, label) of the classes that are find_swapped_classes.
MISPLACED: dict[str, tuple[list[list[int]], list[tuple[int, int]]]] = {
    "all well": ([[9, 0, 1, 0], [2, 5, 0, 0], [0, 0, 7, 3]], []),
    "swap of two": ([[0, 9, 0, 0], [8, 1, 0, 0], [0, 1, 7, 0]], [(1, 2), (2, 1)]),
    "cyclic shift": ([[0, 9, 0, 0], [0, 1, 6, 1], [7, 0, 0, 2]], [(1, 2), (2, 3), (3, 1)]),
    "one wrong class": ([[9, 0, 0, 0], [8, 1, 0, 0], [0, 1, 7, 0]], []),
    "swap of two among five": (
        [[1, 9, 0, 0, 0, 0], [8, 1, 0, 0, 0, 0], [0, 0, 5, 0, 0, 0], [0, 0, 0, 5, 0, 0], [0, 0, 0, 0, 1, 0]],
        [],
    ),
    # Those without truth are none of the five.
    "swap of two where others have no truth": (
        [[1, 9, 0, 0, 0, 0], [8, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 0, 5, 0, 0], [0] * 6],
        [(1, 2), (2, 1)],
    ),
    "half of the pixels is not most": ([[5, 5, 0, 0], [5, 0, 5, 0], [0, 0, 9, 0]], []),
    "one pixel more than half": ([[5, 6, 0, 0], [6, 0, 5, 0], [0, 0, 9, 0]], [(1, 2), (2, 1)]),
    "pixels without a label count": ([[0, 5, 0, 5], [5, 0, 0, 5], [0, 0, 9, 0]], []),
    "all is one class": ([[9, 0, 0, 0], [9, 0, 0, 0], [9, 0, 0, 0]], []),
}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", MISPLACED)
def test_classes_in_another_order_are_found(name: str, background: bool) -> None:
    counts, pairs = MISPLACED[name]
    confusion = Confusion(len(counts), background)
    first = 1 if background else 0
    confusion.counts[first:, first:] = counts
    # The rows of the matrix begin with background, where it is scored.
    assert find_swapped_classes(confusion, ()) == [(truth - 1 + first, label - 1 + first) for truth, label in pairs]


def test_background_is_not_looked_at_but_its_labels_are_not_those_of_a_class() -> None:
    confusion = Confusion(2, background=True)
    confusion.counts[:] = [[0, 99, 0, 0], [0, 0, 9, 0], [0, 9, 0, 0]]
    assert find_swapped_classes(confusion, ()) == [(1, 2), (2, 1)]
    confusion.counts[1:, 0] = 9  # then the other class has no more than half
    assert find_swapped_classes(confusion, ()) == []
    confusion.counts[:] = [[0, 99, 0, 0], [9, 0, 0, 0], [0, 9, 0, 0]]
    assert find_swapped_classes(confusion, ()) == []


@given(st.permutations(range(1, 7)), st.booleans())
def test_misplaced_finds_the_order_of_the_names(order: list[int], background: bool) -> None:
    truth = np.repeat(np.arange(1, 7), range(1, 7)).astype(np.uint16)[None]
    labels = np.array([0, *order], np.uint8)[truth]
    confusion = confusion_of(truth, labels, background, 6)
    moved = [(number, label) for number, label in enumerate(order, start=1) if label != number]
    found = [(confusion.ids[row], confusion.ids[column]) for row, column in find_swapped_classes(confusion, ())]
    assert found == (moved if len(moved) >= 3 else [])


# ---- records ----


def test_the_json_record_of_eval_pred() -> None:
    made = record(scores(confusion_of(TRUTH, LABELS), CLASSES))
    assert made == {
        "mean_iou": 0.411111,
        "pixel_accuracy": 0.555556,
        "mean_accuracy": 0.555556,
        "pixels": 9,
        "classes": [
            {"id": 0, "name": "background", "iou": 0.5, "precision": 0.666667, "recall": 0.666667, "pixels": 3},
            {"id": 1, "name": "cat", "iou": 0.4, "precision": 0.666667, "recall": 0.5, "pixels": 4},
            {"id": 2, "name": "dog", "iou": 0.333333, "precision": 0.5, "recall": 0.5, "pixels": 2},
            {"id": 3, "name": "cow", "iou": None, "precision": None, "recall": None, "pixels": 0},
        ],
    }
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_scores_are_shown_as_a_table() -> None:
    assert table(scores(confusion_of(TRUTH, LABELS), CLASSES)) == (
        "in %              IoU  precision     recall      share\n"
        "background      50.00      66.67      66.67      33.33\n"
        "cat             40.00      66.67      50.00      44.44\n"
        "dog             33.33      50.00      50.00      22.22\n"
        "cow                 -          -          -          -\n"
        "\n"
        "mean IoU              41.11   over the 3 of 4 that occur in ground truth or labels\n"
        "mean class accuracy   55.56\n"
        "pixel accuracy        55.56   of 9 pixels\n"
    )


@pytest.mark.parametrize(
    ("name", "shown", "spaces"),
    [
        ("tree", "tree", 0),
        ("cat", "cat", 1),
        ("猫", "猫", 2),  # two columns wide
        (
            "e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}",
            "e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}",
            1,
        ),
        ("a\nb\tc", "a b c", 0),
        ("[red]x[/]", "[red]x[/]", 0),
        ("x" * 40, "x" * 40, 0),
        ("x" * 41, "x" * 39 + "…", 0),
        ("\n", "class 1", 0),
        ("a\u0301" * 40, "a\u0301" * 40, 0),
        ("a\u0301" * 41, "a\u0301" * 39 + "…", 0),
    ],
)
def test_names_of_any_length_and_width(name: str, shown: str, spaces: int) -> None:
    result = scores(confusion_of(truth_of([1]), labels_of([1]), background=False, classes=1), classes_of(name))
    assert table(result).splitlines()[1] == shown + " " * spaces + 4 * "     100.00"


# ---- parts ----


def test_wholes_are_scored_by_their_unions_and_parts_apart() -> None:
    classes = classes_of("panda", "panda/head", "panda/leg", "tree", wholes={2: 1, 3: 1})
    truth = truth_of([0, 1, 2, 2, 3, 4])
    result = scores(confusion_of(truth, labels_of([1, 2, 2, 3, 1, 4]), classes=4), classes)
    assert result.iou.tolist() == [0, 4 / 5, 1 / 3, 0, 1]
    assert result.truth_pixels.tolist() == [1, 4, 2, 1, 1]
    assert result.mean_iou_wholes == pytest.approx((0 + 4 / 5 + 1) / 3)
    assert result.mean_iou_parts == pytest.approx(1 / 6)
    assert result.pixel_accuracy == 2 / 6
    assert "  of parts            16.67\n" in table(result)


def test_labels_of_parts_where_the_truth_has_wholes_are_no_other_order() -> None:
    classes = classes_of("panda", "panda/head", "tree", "tree/crown", wholes={2: 1, 4: 3})
    confusion = confusion_of(truth_of([1, 1, 1, 3, 3, 3]), labels_of([2, 2, 2, 4, 4, 3]), classes=4)
    assert find_swapped_classes(confusion, classes) == []
    assert len(find_swapped_classes(confusion, classes_of(*"abcd"))) == 2


def test_the_precision_by_confidence() -> None:
    """A leg is panda too. The third pixel has no ground truth, the fourth no label, the fifth too low a confidence."""
    parts = classes_of("panda", "panda/leg", wholes={2: 1})
    labels, truth = labels_of([1, 2, 1, 255, 2, 0]), truth_of([1, 1, IGNORED, 1, 2, 1])
    confidence = np.array([[0.96, 0.91, 0.71, 1.0, 0.4, 0.5]], np.float32)
    counts = count_kept(truth, labels, confidence, parts, 0)
    confusion = Confusion(2, background=True)
    confusion.add(truth, labels)
    found = kept(counts + counts, 2, scores(confusion, parts))
    assert (found.images, found.names) == (2, ("background", "panda", "panda/leg", "all labels"))
    share = [[1.0, 0, 0, 0], [3 / 4, 3 / 4, 1 / 2, 1 / 4], [1 / 2, 1 / 2, 1 / 2, 0], [4 / 5, 3 / 5, 2 / 5, 1 / 5]]
    precision = [[0.0, *[math.nan] * 3], [1.0, 1, 1, 1], [0.0, 0, 0, math.nan], [1 / 3, 1 / 2, 1 / 2, 1.0]]
    np.testing.assert_array_equal(found.share, np.array(share))
    np.testing.assert_array_equal(found.precision, np.array(precision))
    without = kept(count_kept(truth, labels, confidence, parts, 1), 1, scores(Confusion(2, background=False), parts))
    np.testing.assert_array_equal(without.share[-1], np.array([3 / 4, 3 / 4, 1 / 2, 1 / 4]))
    assert found.table().splitlines()[2].split() == [
        "panda",
        *["100.00", "75.00", "100.00", "75.00", "100.00", "50.00", "100.00", "25.00"],
    ]
    assert found.record()["all"] == {"precision": [0.333333, 0.5, 0.5, 1.0], "kept": [0.8, 0.6, 0.4, 0.2]}
