"""What no model could use is refused before there is a model."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tipsseg.errors import UsageError
from tipsseg.options import LabelOptions, check_device_name, check_dtype_name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "tile"}, "unknown mode 'tile'"),
        ({"refine": "crf"}, "unknown refinement 'crf'"),
        ({"short_side": 0}, "short side 0 is not positive"),
        ({"min_confidence": -0.1}, "minimum confidence -0.1 is not between 0 and 1"),
        ({"min_confidence": 1.1}, "minimum confidence 1.1 is not between 0 and 1"),
        ({"min_confidence": math.nan}, "minimum confidence nan is not between 0 and 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LabelOptions(**options)
    assert caught.value.message == message


def test_options_at_their_ends() -> None:
    LabelOptions("whole", 1, 0.0, "pamr")
    LabelOptions("slide", None, 1.0, "none")


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12", "cpu:0", "mps:0"])
def test_names_of_devices(name: str) -> None:
    check_device_name(name)


@pytest.mark.parametrize(
    "name", ["", "gpu", "tpu", "auto:0", "cuda:", "cuda:x", "cuda:-1", "cuda:٣", "CUDA", "cuda\n", "cpu:7", "mps:1"]
)
def test_names_of_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        check_device_name(name)


@pytest.mark.parametrize("name", ["", "int8", "float", "fp16", "Float32"])
def test_names_of_no_dtype(name: str) -> None:
    with pytest.raises(UsageError, match="unknown dtype"):
        check_dtype_name(name)
