"""Make a vocabulary of the classes, the file and the background that a command got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import UsageError, VocabularyError, Words, named
from tipsseg.util.files import local_path
from tipsseg.vocabulary.files import read_vocabulary
from tipsseg.vocabulary.fitted import Classes, FittedVocabulary, as_vocabulary, is_fit
from tipsseg.vocabulary.phrases import PROTOCOL_TEMPLATES, find_templates
from tipsseg.vocabulary.vocabulary import Vocabulary, make_vocabulary, parse_background


def asked_vocabulary(
    classes: Classes | None,
    vocab: str | Path | None = None,
    background: str | Sequence[str] | None = None,
    templates: str | None = None,
) -> tuple[Vocabulary, FittedVocabulary | None]:
    """Return the vocabulary of the given classes, and the fit of a .fit file.

    Args:
        classes: The classes; None for the classes of `vocab`.
        vocab: A vocabulary file, a preset, or a .fit file.
        background: Replaces the background of `vocab`, or "auto" of `classes`.
        templates: The name or the file of prompt templates, which replace the templates of `vocab`.

    Raises:
        UsageError: Two arguments exclude each other.
        VocabularyError: There are no classes, or they are invalid.
    """
    if classes is None and vocab is None:
        raise VocabularyError("no classes given", Words('Pass the classes, for example: {classes}="panda leg,tree"'))
    if isinstance(background, str) and Path(background).suffix.lower() in (".txt", ".toml"):
        raise UsageError(
            Words("{background} takes phrases, but {path} is a file name", path=background),
            Words("Put the phrases into the vocabulary file, as `background`, or list them: {background}=sky,wall"),
        )
    made, why = classes, "is part of these classes"
    if vocab is not None and is_fit(vocab):
        made, why = read_fit(Path(vocab)), f"requires phrases to encode, but {vocab} has vectors"
    if isinstance(made, Vocabulary | FittedVocabulary):
        for name, value in (("templates", templates), ("background", background)):
            if value is not None:
                raise UsageError(
                    Words("{name} {why}", name=named(name), why=why),
                    Words("Remove {name}, or fit again with {name}.", name=named(name)),
                )
        return as_vocabulary(made)
    phrases = parse_background(background) if isinstance(background, str) else background
    prompts = None if templates is None else find_templates(templates)
    if made is None:
        assert vocab is not None
        return read_vocabulary(vocab, phrases, prompts), None
    return make_vocabulary(made, "auto" if phrases is None else phrases, prompts or PROTOCOL_TEMPLATES), None


def read_fit(path: Path) -> FittedVocabulary:
    """Read a .fit file, and set its name as the vocabulary's source. Raise VocabularyError if the file does not hold a fit."""
    fitted = FittedVocabulary.load(local_path(Words("{vocab}"), path))
    return replace(fitted, vocabulary=replace(fitted.vocabulary, source=path.name))
