"""Find classes that compete for the same pixels, by their words alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from tipsseg.types import LabelClass
from tipsseg.util.text import fold, join_first
from tipsseg.vocabulary.vocabulary import Vocabulary


def part_beside_whole(vocabulary: Vocabulary) -> tuple[str, str] | None:
    """Return a class and another whose name begins with its name, such as panda and panda leg; None if there are none."""
    names = {entry.name for entry in vocabulary.classes if not entry.part_of}
    for part in (entry.name for entry in vocabulary.classes if not entry.part_of):
        words = part.split(" ")
        for count in range(1, len(words)):
            if (whole := " ".join(words[:count])) in names:
                return whole, part
    return None


#: The number of sentences of `describe_rivals`.
_MOST = 3


def describe_rivals(vocabulary: Vocabulary) -> list[str]:
    """Return a sentence, with a better list, for each part that another class of the list takes the pixels of; at most three.

    That is a class with the phrase of a part, such as tree/trunk and trunk; and a part whose name ends like that of a larger part
    beside it, such as panda/front leg and panda/leg.
    """
    return [*islice(_find_rivals(vocabulary), _MOST)]


def _find_rivals(vocabulary: Vocabulary) -> Iterator[str]:
    own = {entry.id: _own_words(entry, vocabulary) for entry in vocabulary.classes}
    alone = {fold(text): entry.name for entry in vocabulary.classes if not entry.part_of for text in entry.phrases}
    beside: dict[int, list[LabelClass]] = defaultdict(list)
    for entry in vocabulary.classes:
        if entry.part_of:
            beside[entry.part_of].append(entry)
            if rival := alone.get(fold(own[entry.id])):
                yield f'"{rival}" takes the pixels of "{entry.name}". Write "{entry.name}", without "{rival}".'
    for whole, parts in beside.items():
        for larger in parts:
            ending = f" {fold(own[larger.id])}"
            smaller = [own[part.id] for part in parts if fold(own[part.id]).endswith(ending)]
            if smaller:
                name = f"{vocabulary.classes[whole - 1].name}/{own[larger.id]}"
                better = ",".join(f"{name}/{words}" for words in smaller)
                names = join_first([f'"{words}"' for words in smaller], 3)
                yield f'"{larger.name}" competes with {names} for the same pixels. Write "{better}".'


def _own_words(entry: LabelClass, vocabulary: Vocabulary) -> str:
    """Return the name of a class without that of its whole."""
    whole = vocabulary.classes[entry.part_of - 1].name if entry.part_of else ""
    rest = entry.name[len(whole) :] if whole and entry.name.startswith(whole) else entry.name
    return rest.strip("/ ") or entry.name
