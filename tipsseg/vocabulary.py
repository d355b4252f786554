"""Class names and background -> the phrases that compete for every pixel."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from tipsseg.background import GENERAL_BACKGROUND, same_words
from tipsseg.errors import VocabularyError
from tipsseg.palette import colour
from tipsseg.records import BACKGROUND, Colour, LabelClass
from tipsseg.templates import PROTOCOL_TEMPLATES, check_templates

#: 16-bit masks hold ids 1..65534 beside background 0 and ignore 65535.
MAX_CLASSES = 65534


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing of a vocabulary, as it is asked for.

    name            what it is called; also the first phrase that stands for it
    synonyms        further phrases; the score of the class is the maximum over all of them
    colour          (red, green, blue), 0..255; None: by the id
    min_confidence  pixels of this class with less confidence are ignored; None: what the run says
    supercategory   "" : the name
    templates       None: those of the vocabulary
    negative        competes like a class and is written as 0; has neither id nor colour
    """

    name: str
    synonyms: tuple[str, ...] = ()
    colour: Colour | None = None
    min_confidence: float | None = None
    supercategory: str = ""
    templates: tuple[str, ...] | None = None
    negative: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """All phrases that stand for it."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text that competes for pixels, filled into each of its templates; label id 0 is background."""

    text: str
    label_id: int
    templates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What competes for every pixel.

    entries     what was asked for, in order
    classes     the entries that are not negative, by id 1..N
    background  phrases that are written as 0, beside the negative entries
    templates   of all phrases whose entry has none of its own
    auto        whether `background` is the general one, still to be held against the classes by its meaning
    source      the preset or the file that the classes come from; "" where they were named one by one
    """

    entries: tuple[Entry, ...]
    classes: tuple[LabelClass, ...]
    background: tuple[str, ...]
    templates: tuple[str, ...] = PROTOCOL_TEMPLATES
    auto: bool = False
    source: str = ""

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """All that competes: the phrases of the classes by id, then those that are written as 0."""
        ids = iter(range(1, len(self.classes) + 1))
        own = [
            Phrase(text, label_id, entry.templates or self.templates)
            for entry in self.entries
            for label_id in [BACKGROUND if entry.negative else next(ids)]
            for text in entry.texts
        ]
        own.sort(key=lambda phrase: phrase.label_id == BACKGROUND)  # stable
        return (*own, *(Phrase(text, BACKGROUND, self.templates) for text in self.background))

    @property
    def background_texts(self) -> tuple[str, ...]:
        """All texts that are written as 0: those of negative entries, then `background`."""
        return tuple(phrase.text for phrase in self.phrases if phrase.label_id == BACKGROUND)

    def resolved(self, dropped: Collection[str]) -> Vocabulary:
        """The same without these phrases of the background; nothing is left to be decided."""
        left = tuple(text for text in self.background if text not in dropped)
        return replace(self, background=left, auto=False)


def make_vocabulary(
    classes: Sequence[str | Entry],
    background: str | Sequence[str] = "auto",
    templates: Sequence[str] = PROTOCOL_TEMPLATES,
    source: str = "",
) -> Vocabulary:
    """Check and number classes.

    classes     names, or entries that say more, in the order of their ids 1..N; negative entries take no id. Names are
                trimmed, underscores read as spaces
    background  "auto": general stuff phrases, less those that mean the same as a class (told by the words here, by the text
                tower once there is a model); "none": the classes divide every pixel among themselves; or a list of phrases
    templates   sentences with one `{}` for the phrase
    source      what to call the vocabulary in records

    Raises VocabularyError for empty or doubled names, for a background phrase that is a class, and for values that cannot be;
    its `entry` says which entry is meant, its `key` what of it.
    """
    if isinstance(classes, str):
        raise VocabularyError("classes must be a list of names, not a string", f"For one class: [{classes!r}].")
    given = [Entry(each) if isinstance(each, str) else each for each in classes]
    if not any(not each.negative for each in given):
        raise VocabularyError("no classes given", 'Name what to label, for example: --classes "panda leg,tree"')
    entries = tuple(_checked(each, index, len(given)) for index, each in enumerate(given))
    positive = [each for each in entries if not each.negative]
    if len(positive) > MAX_CLASSES:
        raise VocabularyError(f"{len(positive)} classes are more than a 16-bit mask can hold ({MAX_CLASSES})")
    named = _require_distinct(entries)
    common = check_templates(templates)
    records = tuple(
        LabelClass(
            number,
            each.name,
            each.colour or colour(number),
            each.synonyms,
            each.supercategory or each.name,
            each.min_confidence,
        )
        for number, each in enumerate(positive, start=1)
    )
    stuff = _background(background, named)
    return Vocabulary(entries, records, stuff, common, background == "auto", source)


def split_names(values: Sequence[str]) -> tuple[str, ...]:
    """The names in the values of a repeatable option: one value is split at commas and line ends, of several each is a name."""
    return tuple(re.split(r"[,\n]", values[0].strip("\r\n"))) if len(values) == 1 else tuple(values)


def parse_background(value: str) -> str | tuple[str, ...]:
    """The value of --background: "auto" and "none" stand for themselves, anything else is a list with commas."""
    word = value.strip().lower()
    return word if word in ("auto", "none") else split_names([value])


def _background(background: str | Sequence[str], named: dict[str, int]) -> tuple[str, ...]:
    """The background phrases; `named` has the names of the classes."""
    if background == "auto":
        return tuple(phrase for phrase in GENERAL_BACKGROUND if not any(same_words(phrase, name) for name in named))
    if background == "none":
        return ()
    if isinstance(background, str):
        raise VocabularyError(
            f"background {background!r} is neither 'auto' nor 'none'", "Give phrases as a list of strings."
        )
    phrases = tuple(_clean(phrase) for phrase in background)
    seen: set[str] = set()
    for number, phrase in enumerate(phrases, start=1):
        if not phrase:
            raise VocabularyError(
                f"background phrase {number} of {len(phrases)} is empty",
                "Remove the extra comma, or use --background none.",
            )
        if _key(phrase) in named:
            raise VocabularyError(
                f"{phrase!r} is both a class and a background phrase", "Leave it out of one of the two."
            )
        if _key(phrase) in seen:
            raise VocabularyError(f"background phrase {phrase!r} is given twice", _SAME)
        seen.add(_key(phrase))
    return phrases


_SAME = "Names that differ only in case or spacing are the same to the model."


def _checked(entry: Entry, index: int, count: int) -> Entry:
    """The entry with clean names; `index` of `count`, from 0."""
    name = _clean(entry.name)
    if not name:
        raise VocabularyError(
            f"class {index + 1} of {count} is empty",
            "Remove the extra comma. If a name has a comma in it, repeat the option, once for each name: "
            '-c "salt, pepper" -c tree',
            entry=index,
        )
    synonyms = tuple(_clean(synonym) for synonym in entry.synonyms)
    if "" in synonyms:
        raise VocabularyError(f"a synonym of {name!r} is empty", entry=index, key="synonyms")
    confidence = entry.min_confidence
    if confidence is not None and not 0 <= confidence <= 1:
        raise VocabularyError(
            f"the minimum confidence {confidence} of {name!r} is not between 0 and 1", entry=index, key="min_confidence"
        )
    if entry.colour is not None and not all(0 <= value <= 255 for value in entry.colour):
        raise VocabularyError(
            f"the colour {entry.colour} of {name!r} is not three numbers from 0 to 255", entry=index, key="colour"
        )
    if entry.negative and (entry.colour or confidence is not None or entry.supercategory):
        raise VocabularyError(
            f"{name!r} is negative, so it is written as 0 and has no colour, minimum confidence or supercategory",
            "Leave those out, or leave out `negative`.",
            entry=index,
        )
    try:
        templates = None if entry.templates is None else check_templates(entry.templates)
    except VocabularyError as error:
        raise VocabularyError(f"{name!r}: {error.reason}", error.hint, entry=index, key="templates") from error
    return replace(entry, name=name, synonyms=synonyms, supercategory=_clean(entry.supercategory), templates=templates)


def _require_distinct(entries: Sequence[Entry]) -> dict[str, int]:
    """The key of each name with the index of its entry."""
    seen: dict[str, int] = {}
    for index, text in [(index, text) for index, entry in enumerate(entries) for text in entry.texts]:
        first = seen.setdefault(_key(text), index)
        if first == index:
            continue
        names = (entries[first].name, entries[index].name)
        if {_key(text)} == {_key(name) for name in names}:
            reason = f"class {text!r} is given twice, as number {first + 1} and number {index + 1}"
        else:
            reason = f"{text!r} stands for two classes, {names[0]!r} and {names[1]!r}"
        raise VocabularyError(reason, _SAME, entry=index)
    for index, entry in enumerate(entries):
        if len({_key(text) for text in entry.texts}) < len(entry.texts):
            raise VocabularyError(f"{entry.name!r} has a name twice: {', '.join(entry.texts)}", _SAME, entry=index)
    return seen


def _clean(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _key(name: str) -> str:
    """What the model makes of a name: case does not matter."""
    return name.lower()
