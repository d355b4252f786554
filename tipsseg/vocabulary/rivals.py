"""Find classes that compete for the same pixels, by their words alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from tipsseg.types import LabelClass
from tipsseg.util.text import fold, join_first
from tipsseg.vocabulary.vocabulary import Vocabulary

#: The number of sentences of `describe_rivals`.
_MOST = 3


def part_beside_whole(vocabulary: Vocabulary) -> tuple[str, str] | None:
    """Return a class and another whose name begins with its name, such as panda and panda leg; None if there are none."""
    names = {entry.name for entry in vocabulary.classes if not entry.part_of}
    for part in (entry.name for entry in vocabulary.classes if not entry.part_of):
        words = part.split(" ")
        for count in range(1, len(words)):
            if (whole := " ".join(words[:count])) in names:
                return whole, part
    return None


def describe_rivals(vocabulary: Vocabulary) -> list[str]:
    """Return a sentence, with a better list, for each class that takes the pixels of parts; at most three.

    That is a class that is no part, and has the words of a part or their end, such as trunk and tree/trunk, or leg and panda/front
    leg; and a part whose words another part beside it ends with, such as panda/leg and panda/front leg.
    """
    return [*islice(_find_rivals(vocabulary), _MOST)]


def _find_rivals(vocabulary: Vocabulary) -> Iterator[str]:
    own = {entry.id: _own_words(entry, vocabulary) for entry in vocabulary.classes}
    ending: dict[str, list[LabelClass]] = defaultdict(list)  # parts by their last words
    for part in vocabulary.classes:
        words = fold(own[part.id]).split(" ") if part.part_of else []
        for start in range(len(words)):
            ending[" ".join(words[start:])].append(part)
    for rival in vocabulary.classes:
        if rival.part_of:
            last = fold(own[rival.id])
            beside = [part for part in ending[last] if part.part_of == rival.part_of]
            taken = [part for part in beside if fold(own[part.id]) != last]
        else:
            found = [part for text in rival.phrases for part in ending.get(fold(text), ())]
            taken = [part for part in found if _outermost(part, vocabulary) is not rival]
        if not taken:
            continue
        names = _names(taken)
        said = f'"{rival.name}" takes the pixels of {names}.'
        parts = [each for each in vocabulary.classes if each.part_of == rival.id]
        if rival.part_of and "/" in rival.name:
            yield f'{said} Write "{",".join(f"{rival.name}/{own[each.id]}" for each in taken)}" instead.'
        elif rival.part_of:
            yield f'{said} Set part_of = "{rival.name}" for {names}.'
        elif parts:
            better = ",".join(f"{taken[0].name}/{own[part.id]}" for part in parts)
            yield f'{said} Write "{better}", without {_names(parts)}.'
        else:
            yield f"{said} Leave it out, or make it a part of another class too."


def _names(classes: Sequence[LabelClass]) -> str:
    return join_first([f'"{each.name}"' for each in classes], 3)


def _outermost(entry: LabelClass, vocabulary: Vocabulary) -> LabelClass:
    while entry.part_of:
        entry = vocabulary.classes[entry.part_of - 1]
    return entry


def _own_words(entry: LabelClass, vocabulary: Vocabulary) -> str:
    """Return the name of a class without the name of its whole."""
    whole = vocabulary.classes[entry.part_of - 1].name if entry.part_of else ""
    rest = entry.name[len(whole) :] if whole and entry.name.startswith(whole) else entry.name
    return rest.strip("/ ") or entry.name
