"""Label the pixels of images with phrases, using TIPSv2: no training, no server, no account.

A guide in five steps:

    import tipsseg

    model = tipsseg.load("l14")                                # "tiny" needs no download
    labeller = tipsseg.Labeller(model, ["panda leg", "tree"])
    result = labeller.label("panda.jpg")                       # a path, a Pillow image, or pixels [H, W, 3] uint8

    result.labels                                              # [H, W] uint8: 0 background, 1 panda leg, 2 tree
    result.confidence                                          # [H, W] float32, 0..1
    result.save_mask("panda.png")
    result.overlay("panda.jpg").save("overlay.png")

Many images share batches of the model, and come back in their order:

    for result in labeller.label_many(paths):
        ...

A second question about the same image costs next to nothing, as the model sees the image once:

    features = model.encode("panda.jpg")
    tipsseg.Labeller(model, ["sky", "grass"]).label(features)
    features.save("panda.safetensors")                         # and tipsseg.Features.load reads it

A folder of images becomes a folder of label files. `label_folder` has the options of the command `tipsseg label`. It goes on where
it was broken off, and keeps what a person changed:

    for result in tipsseg.label_folder("photos/", ["car", "road"], output="labels", formats=("png", "coco")):
        print(result.ref.path)

Masks of a few images improve the labels of the others, and teach words that the model does not know:

    fitted = tipsseg.fit(model, features, masks, ["panda leg", "defect type B"])    # features and masks of each image
    tipsseg.Labeller(model, fitted)
    tipsseg.fit_folder("labels").fitted                                             # from masks of a run that you edited

`encode_folder` keeps the features of images; `label_folder(..., features=...)` takes them from there.

`rank` says which images a person looks at first, and why. `correct_folder` takes labels back that were corrected in CVAT, LabelMe,
Label Studio and others. `evaluate` and `score_masks` score labels against truth masks.

A class may have synonyms, a colour or a threshold of its own, see ClassSpec and make_vocabulary; LabelOptions says how images are
labelled. Everything that is raised on purpose is a TipssegError. Importing tipsseg does not import torch; the first use of `load`,
`Model` or `Labeller` does. Nothing is written but what is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tipsseg._version import __version__
from tipsseg.errors import (
    CheckpointError,
    DeviceError,
    DownloadError,
    FeatureFileError,
    FileError,
    ImageError,
    InputError,
    IntegrityError,
    LabelIdError,
    LockError,
    OtherRunError,
    OutputError,
    RecordError,
    TipssegError,
    UsageError,
    VocabularyError,
    WeightsError,
)

if TYPE_CHECKING:
    from tipsseg.api import correct_folder, encode_folder, evaluate, label_folder, score_masks
    from tipsseg.fitting.fit import fit
    from tipsseg.label_map import LabelMap
    from tipsseg.labelling.features import Features
    from tipsseg.labelling.labeller import Labeller
    from tipsseg.labelling.model import Model, load
    from tipsseg.learn import fit_folder, fit_truths, tune_folder
    from tipsseg.options import FileOptions, LabelOptions, MinArea
    from tipsseg.regions.components import Region
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.runs.correct.folder import Corrections
    from tipsseg.runs.evaluate.run import Evaluation
    from tipsseg.runs.fit.run import Fit
    from tipsseg.runs.rank.rank import Ranked, rank
    from tipsseg.runs.tune.run import Tuning
    from tipsseg.store.results import Encoded, Failed, Labelled, Unchanged
    from tipsseg.types import LabelClass, TopClasses
    from tipsseg.vocabulary.files import read_vocabulary
    from tipsseg.vocabulary.fitted import FittedVocabulary
    from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary

__all__ = [
    "CheckpointError",
    "ClassSpec",
    "Corrections",
    "DeviceError",
    "DownloadError",
    "Encoded",
    "Evaluation",
    "Failed",
    "FeatureFileError",
    "Features",
    "FileError",
    "FileOptions",
    "Fit",
    "FittedVocabulary",
    "ImageError",
    "InputError",
    "IntegrityError",
    "LabelClass",
    "LabelIdError",
    "LabelMap",
    "LabelOptions",
    "Labelled",
    "LabelledObject",
    "Labeller",
    "LockError",
    "MinArea",
    "Model",
    "OtherRunError",
    "OutputError",
    "Ranked",
    "RecordError",
    "Region",
    "TipssegError",
    "TopClasses",
    "Tuning",
    "Unchanged",
    "UsageError",
    "Vocabulary",
    "VocabularyError",
    "WeightsError",
    "__version__",
    "correct_folder",
    "encode_folder",
    "evaluate",
    "fit",
    "fit_folder",
    "fit_truths",
    "label_folder",
    "load",
    "make_vocabulary",
    "rank",
    "read_vocabulary",
    "score_masks",
    "tune_folder",
]

#: The modules of the names that are imported at their first use.
_HOMES = {
    "ClassSpec": "vocabulary.vocabulary",
    "Corrections": "runs.correct.folder",
    "Encoded": "store.results",
    "Evaluation": "runs.evaluate.run",
    "Failed": "store.results",
    "Features": "labelling.features",
    "FileOptions": "options",
    "Fit": "runs.fit.run",
    "FittedVocabulary": "vocabulary.fitted",
    "LabelClass": "types",
    "LabelMap": "label_map",
    "LabelOptions": "options",
    "Labelled": "store.results",
    "LabelledObject": "regions.objects",
    "Labeller": "labelling.labeller",
    "MinArea": "options",
    "Model": "labelling.model",
    "Ranked": "runs.rank.rank",
    "Region": "regions.components",
    "TopClasses": "types",
    "Tuning": "runs.tune.run",
    "Unchanged": "store.results",
    "Vocabulary": "vocabulary.vocabulary",
    "correct_folder": "api",
    "encode_folder": "api",
    "evaluate": "api",
    "fit": "fitting.fit",
    "fit_folder": "learn",
    "fit_truths": "learn",
    "label_folder": "api",
    "load": "labelling.model",
    "make_vocabulary": "vocabulary.vocabulary",
    "rank": "runs.rank.rank",
    "read_vocabulary": "vocabulary.files",
    "score_masks": "api",
    "tune_folder": "learn",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
