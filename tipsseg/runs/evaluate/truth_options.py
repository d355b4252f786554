"""Choose the layout of truth masks from TruthOptions."""

from __future__ import annotations

from collections.abc import Sequence

from tipsseg.errors import UsageError, VocabularyError
from tipsseg.evaluation.truth import Layout, get_layout, plain_ids, plain_layout
from tipsseg.options.run import TruthOptions
from tipsseg.runs.evaluate.predictions import in_other_order
from tipsseg.vocabulary.files import read_vocabulary


def preset_of(truth: TruthOptions) -> str:
    """Return the layout's preset vocabulary. Raises VocabularyError if no layout is set."""
    preset = None if truth.layout is None else get_layout(truth.layout).vocabulary
    if preset is None:
        raise VocabularyError("no classes given", 'Name the things to label, for example ["panda leg", "tree"].')
    return preset


def layout_of(truth: TruthOptions, names: Sequence[str]) -> Layout:
    """Return the layout for these classes. Raises UsageError if they do not match the layout."""
    if truth.layout is None:
        return plain_layout(plain_ids(len(names), truth.ignore_index, truth.reduce_zero_label, truth.zero_based))
    layout = get_layout(truth.layout)
    hint = f"Leave out argument `classes` and argument `vocabulary` to use the preset {layout.vocabulary}."
    if len(names) != layout.classes:
        raise UsageError(
            f"the layout {truth.layout} has {layout.classes} classes, but the vocabulary has {len(names)}", hint
        )
    if in_other_order(names, [entry.name for entry in read_vocabulary(truth.layout).classes]):
        raise UsageError(f"the vocabulary lists the classes of {truth.layout} in a different order", hint)
    return layout
