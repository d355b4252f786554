"""Run-length codes are read as pycocotools writes them, and text that is none is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from mask_codes import encode_rle

from tipsseg.regions.shapes import decode_runs, shape_from_rle

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)


@given(arrays(np.bool_, SHAPES).filter(lambda mask: bool(mask.any())))
def test_a_code_is_read_back(mask: np.ndarray) -> None:
    shape = shape_from_rle(1, encode_rle(mask), (mask.shape[0], mask.shape[1]))
    assert (shape.within((0, 0, *mask.shape)) == mask).all()


@given(st.text(st.characters(min_codepoint=40, max_codepoint=130), max_size=12))
def test_any_text_is_runs_of_the_picture_or_refused(counts: str) -> None:
    try:
        runs = decode_runs(counts, (4, 3))
    except ValueError:
        return
    assert runs[0, 0] >= 0
    assert (np.diff(runs.reshape(-1))[::2] > 0).all()
    assert runs[-1, 1] <= 12


def test_long_runs_are_read() -> None:
    mask = np.zeros((7, 40_000), np.bool_)
    mask[:, 20_000:] = True
    assert decode_runs(encode_rle(mask)["counts"], (7, 40_000)).tolist() == [[140_000, 280_000]]
    all_of_it = encode_rle(np.ones((4200, 4200), np.bool_))
    assert len(all_of_it["counts"]) == 1 + 6
    assert decode_runs(all_of_it["counts"], (4200, 4200)).tolist() == [[0, 4200 * 4200]]


REFUSED: dict[str, tuple[str, str]] = {
    "nothing": ("", "invalid or missing characters"),
    "a character below": ("/", "invalid or missing characters"),
    "a character above": ("p", "invalid or missing characters"),
    "a character of another alphabet": ("ä", "invalid or missing characters"),
    "half a character": ("\ud800", "invalid or missing characters"),
    "cut off": ("o", "invalid or missing characters"),
    "a number of seven digits": ("oooooo0", "a number is too large"),
    "a negative number": ("O", "its runs do not add up to 4 x 3 pixels"),
    "a negative number that makes up for too large a one": ("0=O", "its runs do not add up to 4 x 3 pixels"),
    "a pixel less": ("0;", "its runs do not add up to 4 x 3 pixels"),
    "a pixel more": ("0=", "its runs do not add up to 4 x 3 pixels"),
    "all outside": ("<", "no pixels"),
    "none inside": ("<0", "no pixels"),
}


@pytest.mark.parametrize(("counts", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_text_that_is_no_code_is_refused(counts: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_runs(counts, (4, 3))
    assert decode_runs("0<", (4, 3)).tolist() == [[0, 12]]
