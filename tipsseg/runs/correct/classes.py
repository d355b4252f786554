"""Further classes of a run that has ended: in classes.json first, then in run.json."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, VocabularyError
from tipsseg.formats import check_formats
from tipsseg.store.classes_file import read_classes, write_classes
from tipsseg.store.reader import FinishedRun
from tipsseg.store.run_record import read_run, run_context, write_run
from tipsseg.store.spec import RunInfo
from tipsseg.store.writing import RunContext
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary


def add_classes(run: FinishedRun, context: RunContext, names: Sequence[str]) -> None:
    """Give a run further classes. Raises InputError for names that cannot be, and OutputError."""
    info = _with_classes(run.info, names)
    vocabulary = info.vocabulary or info.spec.vocabulary
    check_formats(run.formats, vocabulary.classes)
    write_classes(context.ownership, context.output, vocabulary.classes, vocabulary.background_texts)
    write_run(context.ownership, info)


def finish_adding(output: Path) -> None:
    """Let run.json have the further classes that classes.json has: adding them was broken off between the two. Raises OutputError.

    What is wrong with the files otherwise is told by who reads the run.
    """
    with suppress(OSError, ValueError, InputError):
        info, classes = read_run(output), read_classes(output)
        known = [each.name for each in info.spec.vocabulary.classes]
        names = [each.name for each in classes]
        if len(names) > len(known) and names[: len(known)] == known:
            info = _with_classes(info, names[len(known) :])
            context = run_context(info)
            context.ownership.load(info.files, lambda *_: True)
            write_run(context.ownership, info)
            context.ownership.end(lambda *_: True)


def _with_classes(info: RunInfo, names: Sequence[str]) -> RunInfo:
    return replace(
        info,
        spec=replace(info.spec, vocabulary=_extended(info.spec.vocabulary, names)),
        vocabulary=None if info.vocabulary is None else _extended(info.vocabulary, names),
    )


def _extended(vocabulary: Vocabulary, names: Sequence[str]) -> Vocabulary:
    """The vocabulary with further classes at its end; its background stays."""
    specs = [*vocabulary.specs, *(ClassSpec(name) for name in names)]
    try:
        made = make_vocabulary(specs, "none", vocabulary.templates, vocabulary.source)
    except VocabularyError as error:
        raise InputError(f"a new class cannot be: {error.message}", error.hint) from error
    return replace(made, background=vocabulary.background, auto=vocabulary.auto, fit=vocabulary.fit)
