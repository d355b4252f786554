"""What the values of options stand for: a vocabulary, options as records, formats; and common mistakes in them, told before they
are taken for something else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.cli.options import Question
from tipsseg.errors import UsageError, VocabularyError
from tipsseg.formats import FORMATS
from tipsseg.util.files import is_file
from tipsseg.util.printable import counted, listed, quoted, shell_word

if TYPE_CHECKING:
    from tipsseg.runs.common.progress import Progress
    from tipsseg.vocabulary.fitted import FittedVocabulary
    from tipsseg.vocabulary.vocabulary import Vocabulary

#: Names of classes in the first line of a run.
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be labelled; `fitted` are the vectors of the vocabulary where --vocab is the file of a fit."""

    vocabulary: Vocabulary
    fitted: FittedVocabulary | None = None


def parse_question(question: Question) -> Asked:
    """Return the vocabulary that is asked for; --vocab may be the file of a fit. Raise VocabularyError and UsageError."""
    from tipsseg.vocabulary.fitted import is_fit

    vocab = question.vocab
    if question.classes or vocab is None or not is_fit(vocab):
        return Asked(_parse_vocabulary(question))
    for option, value in (("--templates", question.templates), ("--background", question.background)):
        if value is not None:
            raise UsageError(
                f"{option} is for phrases that are still to be encoded, and {vocab} has their vectors",
                f"Leave it out, or fit again with {option}.",
            )
    fitted = read_fit(Path(vocab))
    return Asked(fitted.vocabulary, fitted)


def read_fit(path: Path) -> FittedVocabulary:
    """The fit in a file, with the file as the source of its vocabulary. Raises VocabularyError."""
    from tipsseg.vocabulary.fitted import FittedVocabulary

    fitted = FittedVocabulary.load(path)
    return replace(fitted, vocabulary=replace(fitted.vocabulary, source=path.name))


def _parse_vocabulary(question: Question) -> Vocabulary:
    from tipsseg.vocabulary.files import read_vocabulary
    from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES, find_templates
    from tipsseg.vocabulary.vocabulary import make_vocabulary, parse_background, split_names

    classes, vocab, background = question.classes, question.vocab, question.background
    if classes and vocab is not None:
        raise UsageError("--classes and --vocab both say what to label", "Give one of them.")
    for value in classes or ():
        if Path(value).suffix in (".txt", ".csv", ".json", ".toml", ".names") and is_file(Path(value)):
            raise UsageError(f"--classes takes names, and {value} is a file", f"Give it as --vocab {value}")
    if background is not None and Path(background).suffix.lower() in (".txt", ".toml"):
        raise UsageError(
            f"--background takes phrases, and {background} is the name of a file",
            "Put the phrases into the vocabulary file, as `background`, or name them: --background sky,wall",
        )
    if not classes and vocab is None:
        raise VocabularyError("no classes given", 'Name what to label, for example: --classes "panda leg,tree"')
    refuse_semicolons(classes or ())
    prompts = None if question.templates is None else find_templates(question.templates)
    phrases = None if background is None else parse_background(background)
    if vocab is not None:
        return read_vocabulary(vocab, phrases, prompts)
    names = split_names(classes or ())
    for number, name in enumerate(names, start=1):
        if not name.strip(" _"):
            raise VocabularyError(
                f"class {number} of {len(names)} is empty",
                "Remove the extra comma. If a name has a comma in it, repeat the option, once for each name: "
                '-c "salt, pepper" -c tree',
            )
    return make_vocabulary(
        names, "auto" if phrases is None else phrases, PROTOCOL_TEMPLATES if prompts is None else prompts
    )


def note_vocabulary(progress: Progress, classes: Sequence[str] | None, vocabulary: Vocabulary) -> None:
    """What is looked for, as the first line of a run; and notes on what was made of the names."""
    progress.head(classes_line(vocabulary))
    with_comma = [entry.name for entry in vocabulary.classes if "," in entry.name]
    if with_comma and vocabulary.source and not vocabulary.source.lower().endswith(".toml"):
        progress.note(f"{vocabulary.source} has one class a line, commas and all, such as {with_comma[0]!r}.")
    if classes and len(classes) > 1 and any("," in value for value in classes):
        progress.note("--classes was given several times, so each value is one class, commas and all.")


def classes_line(vocabulary: Vocabulary) -> str:
    """The names of the classes in a line, as many as a person reads."""
    names = [f'"{entry.name}"' if "," in entry.name else entry.name for entry in vocabulary.classes]
    source = f" of {vocabulary.source}" if vocabulary.source else ""
    return f"{counted(len(names), 'class', 'classes')}{source}: {listed(names, _NAMED)}."


#: How a list is given in one piece.
_IN_QUOTES = "Put the list into quotes, so that the shell keeps it in one piece"


def refuse_split_lists(paths: Sequence[str], classes: Sequence[str] | None, formats: Sequence[str] | None) -> None:
    """Raise UsageError where a part of --classes or --format stands among the paths, as a space divides it from the rest."""
    strays = [path for path in paths if path != "-" and not os.path.lexists(path)]
    if formats:
        refuse_stray_formats(strays, formats)
    for value in classes or ():
        rest = strays if value.rstrip().endswith(",") else [stray for stray in strays if stray.startswith(",")]
        if rest:
            names = ", ".join(part for each in (value, *rest) if (part := each.strip(" ,")))
            raise UsageError(
                f"{quoted(rest[0])} is no file, and --classes {shell_word(value)} seems to go on there",
                f"{_IN_QUOTES}: -c {shell_word(names)}",
            )


def refuse_stray_formats(arguments: Sequence[str], formats: Sequence[str]) -> None:
    """Raise UsageError where there are formats among the arguments."""
    strays = [argument for argument in arguments if argument.strip(" ,") in FORMATS]
    if strays:
        names = ",".join(part for each in (*formats, *strays) if (part := each.strip(" ,")))
        raise UsageError(
            f"{quoted(strays[0])} is a format, and stands where a path belongs",
            f"Join formats with commas, without spaces: -f {shell_word(names)}",
        )


def refuse_semicolons(classes: Sequence[str]) -> None:
    """Raise UsageError where a list of classes is separated by semicolons."""
    if len(classes) == 1 and ";" in classes[0]:
        names = ",".join(part for each in classes[0].split(";") if (part := each.strip()))
        raise UsageError(
            f"classes are separated by commas, and --classes {shell_word(classes[0])} has a semicolon",
            f"Use commas: -c {shell_word(names)}. A name with a semicolon in it is given in a vocabulary file.",
        )
