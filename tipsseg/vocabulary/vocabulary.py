"""Turn class names and a background into the phrases that compete for every pixel."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from numbers import Real
from typing import Any, cast

import numpy as np

from tipsseg.errors import VocabularyError
from tipsseg.options.fields import short_repr
from tipsseg.types import BACKGROUND, Colour, LabelClass
from tipsseg.util.printable import counted, listed, quoted, shortened
from tipsseg.vocabulary.background import GENERAL_BACKGROUND, without_words_of
from tipsseg.vocabulary.palette import colour
from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES, check_templates
from tipsseg.vocabulary.texts import check_text, in_place

#: 16-bit masks hold ids 1..65534 beside background 0 and ignore 65535.
MAX_CLASSES = 65534

#: Names and synonyms, of classes and of what is negative: their vectors take a gigabyte.
MAX_PHRASES = 200_000


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class as it is asked for.

    Attributes:
        name: What the class is called; also the first phrase that stands for it.
        synonyms: Further phrases; the score of the class is the maximum over all its phrases.
        colour: (red, green, blue), 0..255, or "#rrggbb"; None: a colour by the id.
        min_confidence: Pixels of this class with less confidence, 0..1, are ignored; None: the minimum of the run.
        supercategory: The COCO supercategory; "" stands for the name.
        templates: The sentences for its phrases; None: the templates of the vocabulary.
        negative: The class competes like any other and is written as 0; it has neither id nor colour.
    """

    name: str
    synonyms: Sequence[str] = ()
    colour: Colour | str | None = None
    min_confidence: float | None = None
    supercategory: str = ""
    templates: tuple[str, ...] | None = None
    negative: bool = False
    _: KW_ONLY
    #: American for `colour`.
    color: InitVar[Colour | str | None] = None

    def __post_init__(self, color: Colour | str | None) -> None:
        if color is not None:
            object.__setattr__(self, "colour", color)

    __repr__ = short_repr

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.name, *self.synonyms)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text that competes for pixels, filled into each of its templates; label id 0 is background."""

    text: str
    label_id: int
    templates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The classes and the background, whose phrases compete for every pixel.

    Attributes:
        specs: All classes as they were asked for, negative ones among them, in order.
        classes: The classes that are not negative, by id 1..N.
        background: Phrases that are written as 0, beside the negative classes.
        templates: The sentences for every phrase whose class has no templates of its own.
        auto: `background` is the general background, whose phrases are still to be compared with the classes by meaning.
        source: The preset or the file that the classes come from; "" where they were named one by one.
        fit: The digest of vectors that were fitted to masks, see FittedVocabulary; "" where the text tower makes the vectors.
    """

    specs: tuple[ClassSpec, ...]
    classes: tuple[LabelClass, ...]
    background: tuple[str, ...]
    templates: tuple[str, ...] = PROTOCOL_TEMPLATES
    auto: bool = False
    source: str = ""
    fit: str = ""

    def __repr__(self) -> str:
        names = listed([entry.name for entry in self.classes], 6)
        return f"Vocabulary({names}; {counted(len(self.background_texts), 'background phrase')})"

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """The phrases of the classes by id, then the phrases that are written as 0."""
        ids = iter(range(1, len(self.classes) + 1))
        own = [
            Phrase(text, label_id, spec.templates or self.templates)
            for spec in self.specs
            for label_id in [BACKGROUND if spec.negative else next(ids)]
            for text in spec.texts
        ]
        own.sort(key=lambda phrase: phrase.label_id == BACKGROUND)  # stable
        return (*own, *(Phrase(text, BACKGROUND, self.templates) for text in self.background))

    @property
    def background_texts(self) -> tuple[str, ...]:
        """All texts that are written as 0: the texts of negative classes, then `background`."""
        return tuple(phrase.text for phrase in self.phrases if phrase.label_id == BACKGROUND)

    def resolved(self, dropped: Collection[str]) -> Vocabulary:
        """Return the same vocabulary without these phrases of the background, and with `auto` False."""
        left = tuple(text for text in self.background if text not in dropped)
        return replace(self, background=left, auto=False)


def make_vocabulary(
    classes: Sequence[str | ClassSpec] | Mapping[str, Sequence[str]],
    background: str | Sequence[str] = "auto",
    templates: Sequence[str] = PROTOCOL_TEMPLATES,
    source: str = "",
) -> Vocabulary:
    """Check and number classes.

    Args:
        classes: Names, ClassSpecs, or a dict of names with their synonyms, in the order of their ids 1..N; negative classes have no
            id. Names are trimmed, and underscores are read as spaces.
        background: "auto": general background phrases, without the phrases that mean the same as a class (the words decide here,
            the text tower once there is a model); "none": the classes divide every pixel among themselves; or a list of phrases.
        templates: Sentences with one `{}` for the phrase.
        source: What to call the vocabulary in records.

    Returns:
        The vocabulary, with classes numbered 1..N.

    Raises:
        VocabularyError: For empty or doubled names, for a background phrase that is a class, and for impossible values; its
            `class_index` says which class is at fault.
    """
    if isinstance(classes, str):
        names = ", ".join(f'"{name.strip()}"' for name in classes.split(",") if name.strip())
        raise VocabularyError("classes must be a list of names, not a string", f"Use [{shortened(names)}].")
    if isinstance(classes, set | frozenset):
        raise VocabularyError("classes must be in an order, as their ids follow it", "Use a list of names.")
    if isinstance(classes, Mapping):
        classes = [ClassSpec(name, synonyms) for name, synonyms in classes.items()]
    if not isinstance(classes, Iterable):
        raise VocabularyError(
            f"classes must be a list of names, not {quoted(classes)}", 'For example: ["panda leg", "tree"]'
        )
    given = list(classes)
    specs = tuple(_check_class(value, index, len(given)) for index, value in enumerate(given))
    check_number(sum(len(spec.texts) for spec in specs))
    positive = [spec for spec in specs if not spec.negative]
    if not positive:
        raise VocabularyError("no classes given", 'Name what to label, for example "panda leg" and "tree".')
    if len(positive) > MAX_CLASSES:
        raise VocabularyError(f"{len(positive)} classes are more than a 16-bit mask can hold ({MAX_CLASSES})")
    named = _require_distinct(specs)
    common = check_templates(templates)
    numbered = tuple(
        LabelClass(
            id=number,
            name=spec.name,
            colour=cast(Colour | None, spec.colour) or colour(number),  # `_check_class` has read it
            synonyms=tuple(spec.synonyms),
            supercategory=spec.supercategory or spec.name,
            min_confidence=spec.min_confidence,
        )
        for number, spec in enumerate(positive, start=1)
    )
    phrases = _check_background(background, named)
    if not isinstance(source, str):
        raise VocabularyError(f"source must be a text, not {quoted(source)}")
    return Vocabulary(specs, numbered, phrases, common, background == "auto", source)


def with_min_confidences(vocabulary: Vocabulary, least: Sequence[float | None]) -> Vocabulary:
    """Return the same vocabulary with other minimum confidences, one for each class by its id; None: that of the run."""
    classes = tuple(
        replace(entry, min_confidence=value) for entry, value in zip(vocabulary.classes, least, strict=True)
    )
    values = iter(least)
    specs = tuple(spec if spec.negative else replace(spec, min_confidence=next(values)) for spec in vocabulary.specs)
    return replace(vocabulary, specs=specs, classes=classes)


def split_names(values: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the values of a repeatable option: a single value is split at commas and line ends."""
    return tuple(re.split(r"[,\n]", values[0].strip("\r\n"))) if len(values) == 1 else tuple(values)


def parse_background(value: str) -> str | tuple[str, ...]:
    """Read the background in a text: "auto" and "none" stand for themselves, anything else is a list with commas.

    Raises VocabularyError for a single phrase that is one slip away from "auto" or "none", unless things are called so.
    """
    word = value.strip().lower()
    if word in ("auto", "none"):
        return word
    for meant in ("auto", "none"):
        if word not in _THINGS and _is_slip(word, meant):
            raise VocabularyError(
                f"the background {quoted(value)} is one slip away from {quoted(meant)}",
                f'Give {meant}. If the phrase itself is meant, give it in a vocabulary file: background = ["{word}"].',
            )
    return split_names([value])


#: What is one letter away from "auto" or "none", and may be meant.
_THINGS = frozenset({"alto", "autos", "bone", "cone", "node", "nose", "note", "tone", "zone"})


def _is_slip(text: str, word: str) -> bool:
    """Tell whether a text is a word with one letter too many, too few or another, or with two neighbours swapped."""
    short, long = sorted((text, word), key=len)
    if len(long) > len(short):
        return any(long[:at] + long[at + 1 :] == short for at in range(len(long)))
    wrong = [at for at in range(len(word)) if text[at] != word[at]]
    return len(wrong) == 1 or (len(wrong) == 2 and text[wrong[0] : wrong[1] + 1] == word[wrong[0] : wrong[1] + 1][::-1])


def check_number(phrases: int) -> None:
    """Raise VocabularyError for more phrases than a vocabulary may have."""
    if phrases > MAX_PHRASES:
        raise VocabularyError(f"{phrases} names and synonyms are too many; the most is {MAX_PHRASES}")


def _check_background(background: str | Sequence[str], named: dict[str, int]) -> tuple[str, ...]:
    if background == "auto":
        return without_words_of(GENERAL_BACKGROUND, named)
    if background == "none":
        return ()
    if isinstance(background, str | Mapping) or not isinstance(background, Iterable):
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


def _check_class(value: object, index: int, count: int) -> ClassSpec:
    """Return the class that item `index`, from 0, of `count` stands for, with clean names, once all its values are possible."""
    spec = ClassSpec(value) if isinstance(value, str) else value
    with in_place(class_index=index):
        if not isinstance(spec, ClassSpec):
            raise VocabularyError(f"class {index + 1} must be a name or a ClassSpec, not {quoted(value)}")
        name = _clean(spec.name, f"the name of class {index + 1}")
        if not name:
            raise VocabularyError(f"class {index + 1} of {count} is empty", "Leave it out, or give it a name.")
        called = quoted(name)
        if isinstance(spec.synonyms, str) or not isinstance(spec.synonyms, Sequence):
            raise VocabularyError(f"synonyms of {called} must be a list of texts, not {quoted(spec.synonyms)}")
        synonyms = tuple(_clean(text, f"a synonym of {called}") for text in spec.synonyms)
        if "" in synonyms:
            raise VocabularyError(f"a synonym of {called} is empty")
        confidence = _check_confidence(spec.min_confidence, called)
        own_colour = _check_colour(spec.colour, called)
        supercategory = _clean(spec.supercategory, f"the supercategory of {called}")
        if not isinstance(spec.negative, bool):
            raise VocabularyError(f"negative of {called} must be true or false, not {quoted(spec.negative)}")
        if spec.negative and (own_colour or confidence is not None or supercategory):
            raise VocabularyError(
                f"{called} is negative, so it is written as 0 and has no colour, minimum confidence or supercategory",
                "Leave those out, or leave out `negative`.",
            )
        try:
            templates = None if spec.templates is None else check_templates(spec.templates)
        except VocabularyError as error:
            raise VocabularyError(f"{called}: {error.reason}", error.hint) from error
    return ClassSpec(name, synonyms, own_colour, confidence, supercategory, templates, spec.negative)


def _check_confidence(value: object, called: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise VocabularyError(f"the minimum confidence of {called} must be a number, not {quoted(value)}")
    number: Any = value  # which of all kinds of numbers it is, is not known
    if not 0 <= number <= 1:
        raise VocabularyError(f"the minimum confidence {quoted(value)} of {called} is not between 0 and 1")
    return value if isinstance(value, int | float) else float(number)


def _check_colour(value: object, called: str) -> Colour | None:
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        value = tuple(bytes.fromhex(value[1:]))
    parts = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(parts, Sequence) and len(parts) == 3 and all(_is_byte(part) for part in parts):
        red, green, blue = map(int, parts)
        return red, green, blue
    raise VocabularyError(
        f"the colour {quoted(value)} of {called} is not three numbers from 0 to 255",
        'Use [red, green, blue] or "#rrggbb".',
    )


def _is_byte(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) <= 255


def _require_distinct(specs: Sequence[ClassSpec]) -> dict[str, int]:
    """Return the index of the class of each name, by the name's key. Raises VocabularyError for a name that is given twice."""
    seen: dict[str, int] = {}
    for index, text in [(index, text) for index, spec in enumerate(specs) for text in spec.texts]:
        first = seen.setdefault(_key(text), index)
        if first == index:
            continue
        names = (specs[first].name, specs[index].name)
        if {_key(text)} == {_key(name) for name in names}:
            reason = f"class {quoted(text)} is given twice, as number {first + 1} and number {index + 1}"
        else:
            reason = f"{quoted(text)} stands for two classes, {quoted(names[0])} and {quoted(names[1])}"
        raise VocabularyError(reason, _SAME, class_index=index)
    for index, spec in enumerate(specs):
        if len({_key(text) for text in spec.texts}) < len(spec.texts):
            texts = shortened(", ".join(spec.texts))
            raise VocabularyError(f"{quoted(spec.name)} has a name twice: {texts}", _SAME, class_index=index)
    return seen


def _clean(name: object, what: str) -> str:
    return " ".join(check_text(name, what).replace("_", " ").split())


def _key(name: str) -> str:
    return name.lower()  # the model lower-cases
