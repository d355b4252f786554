"""What no model could use is refused before there is a model."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tipsseg.errors import UsageError
from tipsseg.options import check_scales, device_name, dtype_name
from tipsseg.options.fields import text_of
from tipsseg.options.records import ComputeOptions, LabelOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "tile"}, "`mode` must be one of slide, whole, not 'tile'"),
        ({"short_side": 0}, "`short_side`=0 is too small; the minimum is 1"),
        ({"min_confidence": -0.1}, "`min_confidence` must be at least 0 and at most 1, not -0.1"),
        ({"min_confidence": math.nan}, "`min_confidence` must be at least 0 and at most 1, not nan"),
        ({"scales": None}, "`scales`=None is not a list of numbers"),
        ({"scales": ()}, "`scales` must be 1 to 4 numbers, not 0"),
        ({"scales": (1, math.nan)}, "`scales` must be at least 0.25 and at most 8, not nan"),
        ({"scales": (0.24, 1)}, "`scales` must be at least 0.25 and at most 8, not 0.24"),
        ({"scales": 10**400}, f"`scales`=(1{'0' * 75}... is not a list of numbers"),
        ({"scales": (2, 1, 2.0)}, "`scales` contains 2 twice"),
        ({"scales": (1, 2, 3, 4, 5)}, "`scales` must be 1 to 4 numbers, not 5"),
        ({"scales": "1,,2"}, "`scales`='1,,2' is not a list of numbers"),
        ({"scales": "fast"}, "`scales`='fast' is not a list of numbers"),
    ],
)
def test_values_beyond_the_limits_are_refused(options: dict[str, Any], message: str) -> None:
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


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12", "cpu:0", "mps:0"])
def test_names_of_devices(name: str) -> None:
    device_name(name)


def test_a_number_is_a_gpu() -> None:
    assert ComputeOptions(device=0).device == "cuda:0"  # type: ignore[arg-type]


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
