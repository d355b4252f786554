"""Find the classes of a run that adds to existing labels."""

from __future__ import annotations

from pathlib import Path

from tipsseg.errors import UsageError
from tipsseg.formats.reading.ids import fold
from tipsseg.formats.reading.labels import class_names
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary


def join_classes(onto: Path, vocabulary: Vocabulary) -> tuple[Vocabulary, tuple[str, ...]]:
    """Return a vocabulary of the classes of existing labels and of new classes, and the names of the classes to add.

    The classes of the labels come first, in their order. A class of both keeps the settings of `vocabulary`.

    Raises:
        UsageError: The vocabulary was fitted, so it has no phrases for the classes of the labels.
        InputError, ImageError: The labels cannot be read.
    """
    if vocabulary.fit:
        raise UsageError("argument `onto` needs phrases, but this vocabulary was fitted", "Pass class names.")
    own = {fold(spec.name): spec for spec in vocabulary.specs}
    specs = [own.pop(fold(name), ClassSpec(name)) for name in class_names(onto)]
    background = "auto" if vocabulary.auto else vocabulary.background or "none"
    joined = make_vocabulary([*specs, *own.values()], background, vocabulary.templates, vocabulary.source)
    return joined, tuple(entry.name for entry in vocabulary.classes)
