"""What no model could use is refused before there is a model."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tipsseg.errors import UsageError
from tipsseg.options import LabelOptions, check_scales, device_name, dtype_name
from tipsseg.options.fields import text_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "tile"}, "unknown mode 'tile'"),
        ({"refine": "crf"}, "unknown refinement 'crf'"),
        ({"short_side": 0}, "argument `short_side`=0 is too small; the minimum is 1"),
        ({"min_confidence": -0.1}, "argument `min_confidence`=-0.1 is not between 0 and 1"),
        ({"min_confidence": 1.1}, "argument `min_confidence`=1.1 is not between 0 and 1"),
        ({"min_confidence": math.nan}, "argument `min_confidence`=nan is not between 0 and 1"),
        ({"scales": None}, "argument `scales` must be numbers, not None"),
        ({"scales": ()}, "argument `scales` is empty"),
        ({"scales": (1, "2")}, "argument `scales`: '2' is not a number"),
        ({"scales": (True, 2)}, "argument `scales`: True is not a number"),
        ({"scales": (1, math.nan)}, "argument `scales`: nan is not a number"),
        ({"scales": (1, 0)}, "argument `scales`: 0 is not positive"),
        ({"scales": (-0.5, 1)}, "argument `scales`: -0.5 is not positive"),
        ({"scales": (1, 1e9)}, "argument `scales`: 1000000000.0 is too large"),
        ({"scales": (1, math.inf)}, "argument `scales`: inf is too large"),
        ({"scales": (1, 10**20)}, "argument `scales`: 100000000000000000000 is too large"),
        ({"scales": (1, 8.01)}, "argument `scales`: 8.01 is too large"),
        ({"scales": (0.24, 1)}, "argument `scales`: 0.24 is too small"),
        ({"scales": (2, 1, 2.0)}, "argument `scales` contains 2 twice"),
        ({"scales": (1, 2, 3, 4, 5)}, "argument `scales` has 5 numbers; the maximum is 4"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LabelOptions(**options)
    assert caught.value.message == message


def test_options_at_their_ends() -> None:
    LabelOptions(mode="whole", short_side=1, min_confidence=0.0, refine="pamr")
    LabelOptions(mode="slide", short_side=None, min_confidence=1.0, refine="none")
    assert LabelOptions(scales=(8, 0.25, 1)).scales == (0.25, 1.0, 8.0)


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("1", (1.0,)),
        ("1,2", (1.0, 2.0)),
        (" 1.75 , 1 ", (1.0, 1.75)),
        ("1.,.5", (0.5, 1.0)),
        ("1e0,15e-1", (1.0, 1.5)),
        ("1,1.33333333333333", (1.0, 1.33333333333333)),
    ],
)
def test_scales_are_read_and_written(text: str, scales: tuple[float, ...]) -> None:
    assert check_scales(text) == scales
    assert check_scales(text_of(scales)) == scales


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "argument `scales`=: a number is missing"),
        ("1,", "argument `scales`=1,: a number is missing"),
        ("1,,2", "argument `scales`=1,,2: a number is missing"),
        ("1;2", "argument `scales`=1;2: '1;2' is not a number"),
        ("1 2", "argument `scales`=1 2: '1 2' is not a number"),
        ("fast", "argument `scales`=fast: 'fast' is not a number"),
        ("1,1_0", "argument `scales`=1,1_0: '1_0' is not a number"),
        ("1,٢", "argument `scales`=1,٢: '٢' is not a number"),
        ("0x1", "argument `scales`=0x1: '0x1' is not a number"),
        ("nan", "argument `scales`: nan is not a number"),
        ("0", "argument `scales`: 0 is not positive"),
        ("-1", "argument `scales`: -1 is not positive"),
        ("1e9", "argument `scales`: 1000000000.0 is too large"),
        ("1e999", "argument `scales`: inf is too large"),
        ("1e-999", "argument `scales`: 0.0 is not positive"),
        ("1,1", "argument `scales` contains 1 twice"),
        ("1,2,3,4,5", "argument `scales` has 5 numbers; the maximum is 4"),
    ],
)
def test_texts_that_are_no_scales(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_scales(text)
    assert caught.value.message == message


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12", "cpu:0", "mps:0"])
def test_names_of_devices(name: str) -> None:
    device_name(name)


@pytest.mark.parametrize(
    "name", ["", "gpu", "tpu", "auto:0", "cuda:", "cuda:x", "cuda:-1", "cuda:٣", "CUDA", "cuda\n", "cpu:7", "mps:1"]
)
def test_names_of_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        device_name(name)


@pytest.mark.parametrize("name", ["", "int4", "float", "fp16", "Float32"])
def test_names_of_no_dtype(name: str) -> None:
    with pytest.raises(UsageError, match="unknown dtype"):
        dtype_name(name)
