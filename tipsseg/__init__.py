"""Dense open-vocabulary labelling with TIPSv2.

    import tipsseg
    from PIL import Image

    model = tipsseg.load("tiny")
    labeller = tipsseg.Labeller(model, ["panda leg", "tree"])
    result = labeller.label(Image.open("panda.jpg"))
    result.labels        # [H, W] uint8: 0 background, 1 panda leg, 2 tree
    result.confidence    # [H, W] float32
    result.classes       # (LabelClass(id=1, name="panda leg", ...), ...)

Importing tipsseg does not import torch; the first use of `load`, `Model` or `Labeller` does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tipsseg.errors import TipssegError
    from tipsseg.labelling.features import Features
    from tipsseg.labelling.labeller import Labeller
    from tipsseg.labelling.model import Model, load
    from tipsseg.options import LabelOptions
    from tipsseg.types import LabelClass, LabelMap
    from tipsseg.vocabulary.files import read_vocabulary
    from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary

__version__ = "0.1.0"

__all__ = [
    "ClassSpec",
    "Features",
    "LabelClass",
    "LabelMap",
    "LabelOptions",
    "Labeller",
    "Model",
    "TipssegError",
    "Vocabulary",
    "__version__",
    "load",
    "make_vocabulary",
    "read_vocabulary",
]

_HOMES = {
    "Features": "labelling.features",
    "ClassSpec": "vocabulary.vocabulary",
    "LabelClass": "types",
    "LabelMap": "types",
    "LabelOptions": "options",
    "Labeller": "labelling.labeller",
    "TipssegError": "errors",
    "Vocabulary": "vocabulary.vocabulary",
    "load": "labelling.model",
    "Model": "labelling.model",
    "make_vocabulary": "vocabulary.vocabulary",
    "read_vocabulary": "vocabulary.files",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
