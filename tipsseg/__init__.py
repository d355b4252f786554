"""Dense open-vocabulary labelling with TIPSv2.

    import tipsseg
    from PIL import Image

    model = tipsseg.load("tiny")
    labeller = tipsseg.Labeller(model, ["panda leg", "tree"])
    result = labeller.label(Image.open("panda.jpg"))
    result.labels        # [H, W] uint8: 0 background, 1 panda leg, 2 tree
    result.confidence    # [H, W] float32
    result.classes       # (LabelClass(id=1, name="panda leg", ...), ...)

Importing tipsseg does not import torch; the first use of `load`, `Encoder` or `Labeller` does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tipsseg.encode import Encoder
    from tipsseg.errors import TipssegError
    from tipsseg.label_options import LabelOptions
    from tipsseg.labeller import Labeller
    from tipsseg.loading import load
    from tipsseg.records import LabelClass, LabelMap
    from tipsseg.vocabulary import Entry, Vocabulary, make_vocabulary
    from tipsseg.vocabulary_file import read_vocabulary

__version__ = "0.1.0"

__all__ = [
    "Encoder",
    "Entry",
    "LabelClass",
    "LabelMap",
    "LabelOptions",
    "Labeller",
    "TipssegError",
    "Vocabulary",
    "__version__",
    "load",
    "make_vocabulary",
    "read_vocabulary",
]

_HOMES = {
    "Encoder": "encode",
    "Entry": "vocabulary",
    "LabelClass": "records",
    "LabelMap": "records",
    "LabelOptions": "label_options",
    "Labeller": "labeller",
    "TipssegError": "errors",
    "Vocabulary": "vocabulary",
    "load": "loading",
    "make_vocabulary": "vocabulary",
    "read_vocabulary": "vocabulary_file",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
