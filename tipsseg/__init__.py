"""Open-vocabulary segmentation with TIPSv2: name what to find, get a mask for every image.

    import tipsseg

    tipsseg.label("photo.jpg", ["panda/leg", "tree"])   # the labels of one image, by the default model

    model = tipsseg.load("l14")                         # "tiny" is a demo model that needs no download
    result = model.label("photo.jpg", ["panda/leg", "tree"], min_confidence=0.5)

    result.labels                                       # [H, W] uint8: 0 background, 1 panda/leg, 2 tree, 3 the rest of panda
    result.mask("panda")                                # [H, W] bool, with its parts
    result.objects                                      # name, class_id, score, area, xyxy, mask, polygons
    result.save_mask("mask.png")
    result.save_overlay("overlay.jpg")

Many images                                             help(tipsseg.Labeller)
    labeller = model.labeller(["panda/leg", "tree"])
    labeller.label("photo.jpg", names=["tree"])         # what somebody says is in this image
    for result in labeller.label_many(paths, errors="yield"): ...    # yields the error of an image that fails

A folder: writes files, resumes, keeps corrections      help(tipsseg.label_folder), help(tipsseg.iter_label_folder)
    tipsseg.label_folder("photos/", ["car", "road"], output="labels", formats=["png", "coco"])

A data set for training, in Parquet or tar files         help(tipsseg.write_dataset)
    tipsseg.write_dataset("labels", "set")

Many lists of classes for one image                     help(tipsseg.Model.encode), help(tipsseg.encode_folder)
    features = model.encode("photo.jpg")
    model.label(features, ["sky", "grass"])

Synonyms, colours, thresholds, background               help(tipsseg.ClassSpec), help(tipsseg.make_vocabulary)
The labels of an image                                  help(tipsseg.LabelMap)
Rank images, import corrections, score                  help(tipsseg.review)
Learn from corrected masks                              help(tipsseg.learn)
Errors (all derive from TipssegError)                   help(tipsseg.errors)
"""

from __future__ import annotations

from tipsseg._version import __version__ as __version__

TYPE_CHECKING = False  # importing it from typing would take most of the time of `import tipsseg`

if TYPE_CHECKING:
    from tipsseg import errors as errors
    from tipsseg import learn as learn
    from tipsseg import review as review
    from tipsseg.errors import DeviceError as DeviceError
    from tipsseg.errors import ImageError as ImageError
    from tipsseg.errors import OutputError as OutputError
    from tipsseg.errors import TipssegError as TipssegError
    from tipsseg.errors import UsageError as UsageError
    from tipsseg.errors import WeightsError as WeightsError
    from tipsseg.label_map import LabelMap as LabelMap
    from tipsseg.labelling.features import Features as Features
    from tipsseg.labelling.labeller import Labeller as Labeller
    from tipsseg.labelling.model import Model as Model
    from tipsseg.labelling.model import label as label
    from tipsseg.labelling.model import load as load
    from tipsseg.options.records import LabelOptions as LabelOptions
    from tipsseg.plugins.datasets.verb import write_dataset as write_dataset
    from tipsseg.verbs.encode import encode_folder as encode_folder
    from tipsseg.verbs.label import iter_label_folder as iter_label_folder
    from tipsseg.verbs.label import label_folder as label_folder
    from tipsseg.vocabulary.files import read_vocabulary as read_vocabulary
    from tipsseg.vocabulary.vocabulary import ClassSpec as ClassSpec
    from tipsseg.vocabulary.vocabulary import Vocabulary as Vocabulary
    from tipsseg.vocabulary.vocabulary import make_vocabulary as make_vocabulary

#: Names imported on first use, by module, so that `import tipsseg` stays fast.
_LAZY = {
    "errors": ("DeviceError", "ImageError", "OutputError", "TipssegError", "UsageError", "WeightsError"),
    "label_map": ("LabelMap",),
    "labelling.features": ("Features",),
    "labelling.labeller": ("Labeller",),
    "labelling.model": ("Model", "label", "load"),
    "options.records": ("LabelOptions",),
    "plugins.datasets.verb": ("write_dataset",),
    "verbs.encode": ("encode_folder",),
    "verbs.label": ("iter_label_folder", "label_folder"),
    "vocabulary.files": ("read_vocabulary",),
    "vocabulary.vocabulary": ("ClassSpec", "Vocabulary", "make_vocabulary"),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}
_MODULES = ("errors", "learn", "review")

#: Names that users may look for here, by the module that has them.
_ELSEWHERE = {
    "learn": ("FittedVocabulary", "fit", "fit_folder"),
    "review": ("audit", "correct_folder", "rank", "score_masks"),
}


# Without `__all__`, help() shows this page and leads on to the names; with it, help() would print all of them.
def __dir__() -> list[str]:
    return sorted([*_MODULE_OF, *_MODULES, "__version__"])


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    module = next((module for module, names in _ELSEWHERE.items() if name in names), None)
    if name.endswith("Error") and hasattr(import_module(f"{__name__}.errors"), name):
        module = "errors"
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}" + (f"; use tipsseg.{module}.{name}" if module else "")
    )
