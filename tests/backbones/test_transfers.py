"""What crosses between host and device: nothing waits for it that need not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tipsseg.backbones.devices import HostCopy
from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import DeviceError
from tipsseg.features.file import FeatureRecord, Origin, Recipe
from tipsseg.features.folder import FeatureFiles, FeatureStore
from tipsseg.labelling.features import Features, features_of, round_features
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.labelling.view import View
from tipsseg.options import FEATURE_DTYPES, FeatureDtype
from tipsseg.types import WindowPlan

PLAN = WindowPlan((56, 98), 56, ((0, 0), (0, 42)))


def features() -> Features:
    numbers = torch.Generator().manual_seed(1)
    patches, tokens = (torch.randn(2, *shape, 9, generator=numbers) for shape in ((4, 4), (2,)))
    unit = torch.nn.functional.normalize
    return Features((60, 105), PLAN, unit(patches, dim=-1), unit(tokens, dim=-1))


def test_tensors_of_a_cpu_have_arrived() -> None:
    one, two = HostCopy(torch.ones(2), torch.zeros(3, dtype=torch.int8)).arrays()
    assert (one.tolist(), two.tolist()) == ([1, 1], [0, 0, 0])
    assert two.dtype == np.int8


@pytest.mark.parametrize("dtype", FEATURE_DTYPES)
def test_rounded_features_are_those_that_are_read_again(dtype: FeatureDtype) -> None:
    rounded = round_features(features(), dtype)
    record = rounded.record()
    again = features_of(record.to_float32(), torch.device("cpu"))
    assert record.dtype == dtype
    assert record.patches.dtype == np.dtype(dtype)
    assert (rounded.features.size, rounded.features.plan) == (again.size, again.plan) == ((60, 105), PLAN)
    assert torch.equal(rounded.features.patches, again.patches)
    assert torch.equal(rounded.features.class_tokens, again.class_tokens)
    assert again.patches.dtype == again.class_tokens.dtype == torch.float32


def keeping(features: Features, dtype: FeatureDtype) -> tuple[Callable[[], FeatureRecord], Features]:
    """As features are kept in a store of that dtype; the model only makes its error."""
    recipe = Recipe({}, "float32", "slide", 56, 1)
    store = SimpleNamespace(at=lambda _: SimpleNamespace(record=SimpleNamespace(dtype=dtype, recipe=recipe)))
    loaded = SimpleNamespace(sha256="a" * 64, ref=SimpleNamespace(name="a.png"), stored=())
    backbone = SimpleNamespace(device_name="cpu", dtype_name="float32")
    view = View(native_size=56, patch_size=14, mode="slide", base=56, short_sides=(56,))
    source = FeatureSource(
        cast(Backbone, backbone), view, cast(FeatureStore, store), FeatureFiles.find, max_pixels=1_000_000
    )
    (kept,), (unsaved,) = source.merge(cast("Loaded[FeatureRecord]", loaded), features)
    assert isinstance(kept, Features)
    return unsaved, kept


@pytest.mark.parametrize("dtype", FEATURE_DTYPES)
def test_the_thread_of_the_model_waits_for_no_features(monkeypatch: pytest.MonkeyPatch, dtype: FeatureDtype) -> None:
    def wait(*_: Any) -> Any:
        raise AssertionError("it waits")

    with monkeypatch.context() as at_work:
        for owner, name in ((HostCopy, "arrays"), *((torch.Tensor, each) for each in ("cpu", "numpy", "item"))):
            at_work.setattr(owner, name, wait)
        unsaved, kept = keeping(features(), dtype)
    record = unsaved()
    assert record.origin == Origin("a" * 64, "a.png", Recipe({}, "float32", "slide", 56, 1))
    assert torch.equal(features_of(record.to_float32(), torch.device("cpu")).patches, kept.patches)


@pytest.mark.parametrize("dtype", FEATURE_DTYPES)
@pytest.mark.parametrize("name", ["patches", "class_tokens"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.0])
def test_what_is_no_unit_vector_is_not_kept(dtype: FeatureDtype, name: str, value: float) -> None:
    broken = features()
    getattr(broken, name)[1, 1, ..., 0] = value
    unsaved, _ = keeping(broken, dtype)
    with pytest.raises(DeviceError, match="infinity or NaN in float32 on cpu"):
        unsaved()
