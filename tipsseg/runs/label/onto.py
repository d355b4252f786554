"""Find the classes of a run that adds to existing labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tipsseg.errors import UsageError
from tipsseg.formats.corrections import fold
from tipsseg.formats.given import class_names
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary, parse_background


def join_classes(onto: Path, vocabulary: Vocabulary) -> tuple[Vocabulary, tuple[str, ...]]:
    """Return a vocabulary of the classes of existing labels and of new classes, and the names of the classes to add.

    The classes of the labels come first, in their order. A class of both keeps the settings of `vocabulary`.

    Raises:
        UsageError: The vocabulary was fitted, so it has no phrases for the classes of the labels.
        InputError, ImageError: The labels cannot be read.
    """
    names = class_names(onto)
    if not names:
        raise _unnamed(onto)
    return _join(names, vocabulary), tuple(entry.name for entry in vocabulary.classes)


def _join(names: Sequence[str], vocabulary: Vocabulary) -> Vocabulary:
    """Return a vocabulary of the classes with these names, then the others of `vocabulary`."""
    if vocabulary.fit:
        raise UsageError(
            "existing labels need phrases for their classes, but this vocabulary was fitted", "Pass class names."
        )
    own = {fold(spec.name): spec for spec in vocabulary.specs if not spec.negative}
    specs = [own.get(fold(name)) or ClassSpec(name) for name in names]
    taken = set(map(id, specs))
    others = [spec for spec in vocabulary.specs if id(spec) not in taken]
    background = "auto" if vocabulary.auto else vocabulary.background or "none"
    return make_vocabulary([*specs, *others], background, vocabulary.templates, vocabulary.source)


def classes_of_labels(labels: Path, vocabulary: Vocabulary | None, background: str | None = None) -> Vocabulary:
    """Return the classes of existing labels, with the settings of `vocabulary`, and the classes that only it has.

    Args:
        labels: The labels.
        vocabulary: Classes by name, with synonyms and other settings; None for the names alone.
        background: The background as a user types it, for names alone; None for the general background.

    Raises:
        UsageError: The labels name no classes, and `vocabulary` is None; or it was fitted.
        InputError, ImageError: The labels cannot be read.
    """
    names = class_names(labels)
    if vocabulary is not None:
        return _join(names, vocabulary)
    if not names:
        raise _unnamed(labels)
    return make_vocabulary(names, "auto" if background is None else parse_background(background))


def _unnamed(labels: Path) -> UsageError:
    return UsageError(
        f"{labels} does not name its classes",
        'Write a classes.json into it: {"classes": [{"id": 1, "name": "tree"}, {"id": 2, "name": "car"}]}',
    )
