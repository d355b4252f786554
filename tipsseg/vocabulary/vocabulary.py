"""Class names and background -> the phrases that compete for every pixel."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from tipsseg.errors import VocabularyError
from tipsseg.types import BACKGROUND, Colour, LabelClass
from tipsseg.util.printable import quoted, shortened
from tipsseg.util.text_file import check_text
from tipsseg.vocabulary.background import GENERAL_BACKGROUND, without_words_of
from tipsseg.vocabulary.palette import colour
from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES, check_templates

#: 16-bit masks hold ids 1..65534 beside background 0 and ignore 65535.
MAX_CLASSES = 65534

#: Names and synonyms, of classes and of what is negative: their vectors take a gigabyte.
MAX_PHRASES = 200_000


@dataclass(frozen=True, slots=True)
class ClassSpec:
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

    entries: tuple[ClassSpec, ...]
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
    classes: Sequence[str | ClassSpec],
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
        raise VocabularyError("classes must be a list of names, not a string", f"For one class: [{quoted(classes)}].")
    if not isinstance(classes, Iterable):
        raise VocabularyError(
            f"classes must be a list of names, not {quoted(classes)}", 'For example: ["panda leg", "tree"]'
        )
    given = [_entry(each, index) for index, each in enumerate(classes)]
    if not any(not each.negative for each in given):
        raise VocabularyError("no classes given", 'Name what to label, for example "panda leg" and "tree".')
    entries = tuple(_checked(each, index, len(given)) for index, each in enumerate(given))
    check_number(sum(len(each.texts) for each in entries))
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
    if not isinstance(source, str):
        raise VocabularyError(f"source must be a text, not {quoted(source)}")
    return Vocabulary(entries, records, stuff, common, background == "auto", source)


def split_names(values: Sequence[str]) -> tuple[str, ...]:
    """The names in the values of a repeatable option: one value is split at commas and line ends, of several each is a name."""
    return tuple(re.split(r"[,\n]", values[0].strip("\r\n"))) if len(values) == 1 else tuple(values)


def parse_background(value: str) -> str | tuple[str, ...]:
    """The value of --background: "auto" and "none" stand for themselves, anything else is a list with commas."""
    word = value.strip().lower()
    return word if word in ("auto", "none") else split_names([value])


def check_number(phrases: int) -> None:
    """Raise VocabularyError for more phrases than a vocabulary may have."""
    if phrases > MAX_PHRASES:
        raise VocabularyError(f"{phrases} names and synonyms are too many; the most is {MAX_PHRASES}")


def _background(background: str | Sequence[str], named: dict[str, int]) -> tuple[str, ...]:
    """The background phrases; `named` has the names of the classes."""
    if background == "auto":
        return without_words_of(GENERAL_BACKGROUND, named)
    if background == "none":
        return ()
    if isinstance(background, str) or not isinstance(background, Iterable):
        raise VocabularyError(
            f"background {quoted(background)} is neither 'auto' nor 'none'", "Give phrases as a list of strings."
        )
    phrases = tuple(_clean(phrase, "a background phrase") for phrase in background)
    check_number(len(phrases))
    seen: set[str] = set()
    for number, phrase in enumerate(phrases, start=1):
        if not phrase:
            raise VocabularyError(
                f"background phrase {number} of {len(phrases)} is empty",
                "Leave it out; 'none' in place of the list stands for no background.",
            )
        if _key(phrase) in named:
            raise VocabularyError(
                f"{quoted(phrase)} is both a class and a background phrase", "Leave it out of one of the two."
            )
        if _key(phrase) in seen:
            raise VocabularyError(f"background phrase {quoted(phrase)} is given twice", _SAME)
        seen.add(_key(phrase))
    return phrases


_SAME = "Names that differ only in case or spacing are the same to the model."


def _entry(value: object, index: int) -> ClassSpec:
    """The entry that an item of a list stands for; `index` from 0."""
    if isinstance(value, ClassSpec):
        return value
    if isinstance(value, str):
        return ClassSpec(value)
    raise VocabularyError(f"class {index + 1} must be a name or a ClassSpec, not {quoted(value)}", entry=index)


def _checked(entry: ClassSpec, index: int, count: int) -> ClassSpec:
    """The entry with clean names, and values that can be; `index` of `count`, from 0."""
    key = "name"
    try:
        name = _clean(entry.name, f"the name of class {index + 1}")
        if not name:
            key = ""
            raise VocabularyError(f"class {index + 1} of {count} is empty", "Leave it out, or give it a name.")
        key = "synonyms"
        synonyms = tuple(_clean(text, f"a synonym of {quoted(name)}") for text in _texts(entry.synonyms, key, name))
        if "" in synonyms:
            raise VocabularyError(f"a synonym of {quoted(name)} is empty")
        key = "min_confidence"
        confidence = _confidence(entry.min_confidence, name)
        key = "colour"
        own_colour = _colour(entry.colour, name)
        key = "supercategory"
        supercategory = _clean(entry.supercategory, f"the supercategory of {quoted(name)}")
        key = "negative"
        if not isinstance(entry.negative, bool):
            raise VocabularyError(f"negative of {quoted(name)} must be True or False, not {quoted(entry.negative)}")
        key = ""
        if entry.negative and (own_colour or confidence is not None or supercategory):
            raise VocabularyError(
                f"{quoted(name)} is negative, so it is written as 0 and has no colour, minimum confidence or supercategory",
                "Leave those out, or leave out `negative`.",
            )
        key = "templates"
        templates = None if entry.templates is None else _own_templates(entry.templates, name)
    except VocabularyError as error:
        raise VocabularyError(error.reason, error.hint, entry=index, key=key) from error
    return ClassSpec(name, synonyms, own_colour, confidence, supercategory, templates, entry.negative)


def _texts(value: object, key: str, name: str) -> Sequence[object]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise VocabularyError(f"{key} of {quoted(name)} must be a list of texts, not {quoted(value)}")
    return value


def _confidence(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise VocabularyError(f"the minimum confidence of {quoted(name)} must be a number, not {quoted(value)}")
    number: Any = value  # which of all kinds of numbers it is, is not known
    if not 0 <= number <= 1:
        raise VocabularyError(f"the minimum confidence {quoted(value)} of {quoted(name)} is not between 0 and 1")
    return value if isinstance(value, int | float) else float(number)


def _colour(value: object, name: str) -> Colour | None:
    if value is None:
        return None
    if (
        not isinstance(value, Sequence)
        or len(value) != 3
        or not all(type(each) is int and 0 <= each <= 255 for each in value)
    ):
        raise VocabularyError(f"the colour {quoted(value)} of {quoted(name)} is not three numbers from 0 to 255")
    return value[0], value[1], value[2]


def _own_templates(templates: Sequence[str], name: str) -> tuple[str, ...]:
    try:
        return check_templates(templates)
    except VocabularyError as error:
        raise VocabularyError(f"{quoted(name)}: {error.reason}", error.hint) from error


def _require_distinct(entries: Sequence[ClassSpec]) -> dict[str, int]:
    """The key of each name with the index of its entry."""
    seen: dict[str, int] = {}
    for index, text in [(index, text) for index, entry in enumerate(entries) for text in entry.texts]:
        first = seen.setdefault(_key(text), index)
        if first == index:
            continue
        names = (entries[first].name, entries[index].name)
        if {_key(text)} == {_key(name) for name in names}:
            reason = f"class {quoted(text)} is given twice, as number {first + 1} and number {index + 1}"
        else:
            reason = f"{quoted(text)} stands for two classes, {quoted(names[0])} and {quoted(names[1])}"
        raise VocabularyError(reason, _SAME, entry=index)
    for index, entry in enumerate(entries):
        if len({_key(text) for text in entry.texts}) < len(entry.texts):
            texts = shortened(", ".join(entry.texts))
            raise VocabularyError(f"{quoted(entry.name)} has a name twice: {texts}", _SAME, entry=index)
    return seen


def _clean(name: object, what: str) -> str:
    return " ".join(check_text(name, what).replace("_", " ").split())


def _key(name: str) -> str:
    """What the model makes of a name: case does not matter."""
    return name.lower()
