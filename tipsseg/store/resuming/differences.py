"""Compare two runs: the meaning of their ids, and the options that affect their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from tipsseg.options.fields import text_of
from tipsseg.store.spec import RunInfo, RunSpec, model_identity, vocabulary_identity, vocabulary_record
from tipsseg.util.printable import join_first

#: The keys of a vocabulary's record, as messages name them. "auto" and "background" are the same option.
_PARTS = {
    "classes": "class settings",
    "background": "background",
    "auto": "background",
    "templates": "templates",
    "fit": "fitted vectors",
}


def differences(one: RunInfo, other: RunInfo) -> list[str]:
    """Return the differences between two runs, such as "model", "vocabulary" or "rasters".

    If the model or the vocabulary differs, ids have different meanings.
    """
    found = []
    if model_identity(one.model) != model_identity(other.model):
        found.append("model")
    if _vocabulary_of(one) != _vocabulary_of(other):
        found.append("vocabulary")
    if one.spec.files.names != other.spec.files.names:
        found.append("choice of argument `names`")
    if one.spec.options.overlap != other.spec.options.overlap:
        found.append("overlap")
    if one.spec.formats and other.spec.formats and one.spec.is_raster != other.spec.is_raster:
        found.append("rasters")
    return found


def difference_texts(one: RunInfo, other: RunInfo) -> list[str]:
    """Describe the `differences` between two runs, for example "the classes differ: panda leg, tree / car"."""
    found = differences(one, other)
    texts = []
    if "model" in found:
        models = [str(info.model["id"]) for info in (one, other)]
        texts.append(
            f"the models differ: {' / '.join(models)}" + (" (with different files)" * (models[0] == models[1]))
        )
    if "vocabulary" in found:
        names = [[entry.name for entry in info.spec.vocabulary.specs] for info in (one, other)]
        if names[0] != names[1]:
            texts.append(f"the classes differ: {' / '.join(join_first(classes, 5) for classes in names)}")
        else:
            first, second = _vocabulary_of(one), _vocabulary_of(other)
            parts = dict.fromkeys(text for key, text in _PARTS.items() if first.get(key) != second.get(key))
            texts.append(f"the classes are the same, but differ in {', '.join(parts)}")
    if "choice of argument `names`" in found:
        texts.append(f"the file names differ: argument `names`={one.spec.files.names} / {other.spec.files.names}")
    if "overlap" in found:
        texts.append(f"its classes {'' if one.spec.options.overlap else 'do not '}overlap")
    if "rasters" in found:
        texts.append(f"its images are {'' if one.spec.is_raster else 'not '}labelled as rasters")
    return texts


def of_same_phrases(info: RunInfo) -> RunInfo:
    """Return the run without class properties that the model does not see: colour, supercategory, minimum confidence."""
    vocabulary = info.spec.vocabulary
    plain = tuple(replace(spec, colour=None, supercategory="", min_confidence=None) for spec in vocabulary.specs)
    return replace(info, spec=replace(info.spec, vocabulary=replace(vocabulary, specs=plain)))


def other_options(one: RunInfo, other: RunInfo) -> tuple[list[str], list[str]]:
    """Return the label options that differ, with the values of `one` and of `other`: ["scales 1"], ["scales 1,1.75"]."""
    pairs = [
        (option.name, getattr(first, option.name), getattr(second, option.name))
        for first, second in (
            (one.spec.options, other.spec.options),
            (one.spec.files, other.spec.files),
            (one.spec.raster, other.spec.raster),
        )
        for option in fields(first)
        if option.name != "val_fraction"  # labels do not depend on the validation split
    ]
    pairs += [("dtype", one.dtype, other.dtype)]
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    theirs, ours = ([f"{pair[0].replace('_', '-')} {_value_text(pair[side])}" for pair in differing] for side in (1, 2))
    for describe in (_regions_text, _onto_text):
        if describe(one.spec) != describe(other.spec):
            theirs, ours = [*theirs, describe(one.spec)], [*ours, describe(other.spec)]
    if one.spec.labelled_in != other.spec.labelled_in:
        theirs, ours = [*theirs, kept_features(one.spec)], [*ours, kept_features(other.spec)]
    return theirs, ours


def kept_features(spec: RunSpec) -> str:
    """Describe the features that a run labels from."""
    return "no stored features" if spec.features is None else f"features stored in {spec.labelled_in}"


def _regions_text(spec: RunSpec) -> str:
    if spec.regions is None:
        return "no regions"
    return "regions only" if spec.regions_only else "regions"


def _onto_text(spec: RunSpec) -> str:
    return "no labels to keep" if spec.onto is None else f"labels to keep, with {', '.join(spec.added)} added"


def _value_text(value: object) -> str:
    """Return the value of an option for a message."""
    if value is None or isinstance(value, bool):
        return "on" if value else "not given"
    return text_of(value)


def _vocabulary_of(info: RunInfo) -> Mapping[str, object]:
    return vocabulary_identity(vocabulary_record(info.spec.vocabulary, info.spec.vocabulary))
