"""The plugin for FiftyOne, against a stand-in for FiftyOne; tests/readers has the real one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image

import tipsseg

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin, whose base classes are empty."""
    fiftyone = MagicMock(**{"core.models.Model": object, "operators.Operator": object})
    for name in ("", ".core", ".core.labels", ".core.models", ".operators", ".operators.types"):
        monkeypatch.setitem(sys.modules, f"fiftyone{name}", fiftyone)
    spec = importlib.util.spec_from_file_location("tipsseg_plugin", EXAMPLES / "fiftyone" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plugin_has_a_minimum_confidence(plugin: Any) -> None:
    plugin.Label().resolve_input(MagicMock())
    form = plugin.foot.Object.return_value
    assert "min_confidence" in [call.args[0] for call in form.float.call_args_list]
    context = MagicMock(params={"classes": "panda,tree", "model": "tiny", "min_confidence": 0.5})
    plugin.Label().execute(context)
    image = np.asarray(Image.open(EXAMPLES / "scenes/desert.png").convert("RGB"))
    (model,) = context.view.apply_model.call_args.args
    model.predict(image)
    labels = plugin.fol.Segmentation.call_args.kwargs["mask"]
    assert (labels == 255).any()
    expected = tipsseg.label(image, ["panda", "tree"], model="tiny", min_confidence=0.5)
    assert np.array_equal(labels, expected.labels)
