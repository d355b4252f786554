"""Turn class names and a background into the phrases that compete for every pixel."""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field, fields, replace
from difflib import get_close_matches
from numbers import Real
from typing import Any, cast

from tipsseg.errors import VocabularyError
from tipsseg.options.fields import short_repr
from tipsseg.types import BACKGROUND, Colour, LabelClass
from tipsseg.util.text import did_you_mean, fold, join_first, pluralize, quote, shorten
from tipsseg.vocabulary.palette import colour
from tipsseg.vocabulary.phrases import (
    GENERAL_BACKGROUND,
    PROTOCOL_TEMPLATES,
    TEMPLATES,
    check_templates,
    check_text,
    drop_equal_words,
    locate_errors,
)

#: 16-bit masks store ids 1..65534, besides background 0 and ignore 65535.
MAX_CLASSES = 65534

#: The maximum number of names and synonyms, including negative classes. That many vectors take a gigabyte.
MAX_PHRASES = 200_000


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class to label, as the user describes it.

    Attributes:
        name: The name, which is also the first phrase unless `phrase` is set.
        synonyms: Further phrases. The score of the class is the maximum over all its phrases.
        colour: (red, green, blue), 0..255, or "#rrggbb". None for the default colour of the id.
        min_confidence: Pixels of this class below this confidence, 0..1, are ignored. None for the run's minimum.
        supercategory: The COCO supercategory. "" for the whole of a part, or for the class name.
        templates: The prompt templates for its phrases. None for the vocabulary's templates.
        negative: If True, the class competes like any other but is written as 0. It has neither id nor colour.
        part_of: The name of the class that this class is a part of. "" if it is not a part. A class that is not in the list is
            added at its end.
        phrase: The first phrase. "" for the name.
        thing: True for a countable thing, False for stuff such as sky, in panoptic files. None: as the format does by default.
    """

    name: str
    synonyms: Sequence[str] = ()
    colour: Colour | str | None = None
    min_confidence: float | None = None
    supercategory: str = ""
    templates: tuple[str, ...] | None = None
    negative: bool = False
    part_of: str = ""
    phrase: str = ""
    thing: bool | None = None
    _: KW_ONLY
    #: American spelling of `colour`.
    color: InitVar[Colour | str | None] = None

    def __post_init__(self, color: Colour | str | None) -> None:
        if color is not None:
            object.__setattr__(self, "colour", color)

    __repr__ = short_repr

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.phrase or self.name, *self.synonyms)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text that competes for pixels, with its templates. Label id 0 is background.

    `handicap` is True for a phrase that competes beside better ones of its class (see `Contest`).
    """

    text: str
    label_id: int
    templates: tuple[str, ...]
    handicap: bool = False


@dataclass(frozen=True, slots=True)
class Contest:
    """The phrases that compete for the pixels of the image or of a whole.

    For the image, the classes that are not parts compete with the background. The phrases of a class are its own, and with a
    handicap the phrases of its parts. Inside a whole, its parts compete in the same way; what they do not win stays the whole: the
    phrases of the background compete for it, and with a handicap its own. Without a background, its parts win all of it.

    Attributes:
        whole: The label id of the whole; 0 for the image.
        phrases: The phrases, by class, those for `whole` last. Their `label_id` is what they win.
        unlikely: The label ids of classes that are probably not in the image.
    """

    whole: int
    phrases: tuple[Phrase, ...]
    unlikely: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Present:
    """The classes that are in an image, as somebody says.

    Attributes:
        ids: Their label ids, and the label ids of their parts and wholes.
        surely: True if no other class is in the image. If False, the others have a handicap.
    """

    ids: frozenset[int]
    surely: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Classes and background phrases that compete for every pixel.

    Attributes:
        specs: All classes in the given order, including negative ones.
        classes: The classes that are not negative, by id 1..N.
        background: Phrases that are written as 0, in addition to the negative classes.
        templates: The prompt templates for the phrases of classes without their own, and for the background.
        auto: True if `background` is the general background and still contains synonyms of classes.
        closed: True if no background was requested. An automatic background may have lost all its phrases to classes.
        source: The preset or file that defines the classes; "" for neither.
        fit: The digest of the fitted vectors (see FittedVocabulary); "" if the text tower computes the vectors.
        listed: The number of `specs` in the list that it was made of; those after them are wholes that only their parts name.
    """

    specs: tuple[ClassSpec, ...]
    classes: tuple[LabelClass, ...]
    background: tuple[str, ...]
    templates: tuple[str, ...] = PROTOCOL_TEMPLATES
    auto: bool = False
    source: str = ""
    fit: str = ""
    closed: bool = field(default=False, compare=False)
    listed: int = field(default=0, compare=False)

    def __repr__(self) -> str:
        names = join_first([entry.name for entry in self.classes], 6)
        return f"Vocabulary({names}; {pluralize(len(self.background_texts), 'background phrase')})"

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """The phrases of the classes by id, then the background phrases, whose pixels are written as 0."""
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
        """The texts of all background phrases: of negative classes, then `background`."""
        return tuple(phrase.text for phrase in self.phrases if phrase.label_id == BACKGROUND)

    @property
    def has_background(self) -> bool:
        """True if an image may have none of the classes."""
        return bool(self.background_texts) or not self.closed

    def find_classes(self, names: Iterable[str]) -> frozenset[int]:
        """Return the label ids of classes by name or phrase; case, "_", "/" and spaces do not matter, unless they are needed.

        Raise VocabularyError for a name that is not a class.
        """
        exact = {entry.name: entry.id for entry in self.classes}
        folded = {
            fold(text): entry.id for entry in self.classes for text in (*entry.synonyms, *entry.phrases, entry.name)
        }
        found = set[int]()
        for name in names:
            known = exact.get(name, folded.get(fold(name)) if isinstance(name, str) else None)
            if known is None:
                raise VocabularyError(
                    f"{quote(name)} is not a class",
                    f"{did_you_mean(str(name), list(exact))}The classes are: {join_first(list(exact), 20)}.",
                )
            found.add(known)
        return frozenset(found)

    def with_relatives(self, ids: Iterable[int]) -> frozenset[int]:
        """Return label ids with the ids of the wholes that these classes are in, and of their parts."""
        asked, found = set(ids), set[int]()
        for entry in self.classes:
            chain = [entry.id]
            while above := self.classes[chain[-1] - 1].part_of:
                chain.append(above)
            if asked.intersection(chain):
                found.add(entry.id)
            if entry.id in asked:
                found.update(chain)
        return frozenset(found)

    @property
    def contests(self) -> tuple[Contest, ...]:
        """See `contests_of`, for all classes."""
        return self.contests_of(None)

    def present(self, names: Iterable[str], *, surely: bool = False) -> Present:
        """Return what names say of an image. No names say that no class is there. Raise VocabularyError as `find_classes` does."""
        ids = self.with_relatives(self.find_classes(names))
        return Present(ids, surely or not ids)

    def contests_of(self, said: Present | None) -> tuple[Contest, ...]:
        """Return the contest for the image, then those for wholes with parts, each after the one that its whole competes in.

        `said` are the classes that are in the image; None if nothing is known. If the other classes are surely not there, they
        compete as background, unless the vocabulary is closed: what they win is 0, and inside a whole that may be there, the whole.
        """
        present = said.ids if said is not None and said.surely else None
        unlikely = frozenset(each.id for each in self.classes if said is not None and each.id not in said.ids)
        own: dict[int, list[Phrase]] = defaultdict(list)
        for phrase in self.phrases:
            own[phrase.label_id].append(phrase)
        parts: dict[int, list[int]] = defaultdict(list)
        for entry in self.classes:
            if present is None or entry.id in present or not self.closed:
                parts[entry.part_of].append(entry.id)

        def inherited(class_id: int) -> Iterator[Phrase]:
            for part in parts.get(class_id, ()):
                yield from own[part]
                yield from inherited(part)

        contests, wholes = list[Contest](), [BACKGROUND]
        for whole in wholes:
            phrases, others = list[Phrase](), list[Phrase]()
            for class_id in parts[whole]:
                its = [*own[class_id], *(replace(each, handicap=True) for each in inherited(class_id))]
                if present is None or class_id in present:
                    phrases += (replace(each, label_id=class_id) for each in its)
                else:
                    others += its
            others += own[BACKGROUND]
            if whole != BACKGROUND and own[BACKGROUND]:  # without a background, parts claim the whole
                others += (replace(each, handicap=True) for each in own[whole])
            if phrases or whole == BACKGROUND:
                contests.append(
                    Contest(whole, (*phrases, *(replace(each, label_id=whole) for each in others)), unlikely)
                )
            wholes += (each for each in parts[whole] if each in parts and (present is None or each in present))
        return tuple(contests)

    def drop_background(self, phrases: Collection[str]) -> Vocabulary:
        """Return the vocabulary without these background phrases, and with `auto` set to False."""
        return replace(self, background=tuple(text for text in self.background if text not in phrases), auto=False)


def make_vocabulary(
    classes: Sequence[str | ClassSpec] | Mapping[str, Sequence[str]],
    background: str | Sequence[str] = "auto",
    templates: Sequence[str] = PROTOCOL_TEMPLATES,
    source: str = "",
) -> Vocabulary:
    """Check classes, assign their ids, and return the vocabulary.

    Args:
        classes: Names, ClassSpecs, or a dict of names with their synonyms, in the order of their ids 1..N. Negative classes get no
            id. Names are trimmed, and underscores become spaces. In a name, but not in a ClassSpec, a slash separates a
            whole from its part, as in "panda/hind leg". A whole that is not in the list is added at its end.
        background: "auto" for general background phrases: those that equal a class phrase are dropped now, those close to one
            when a model is loaded, "none" to assign every pixel to a class, or a list of phrases.
        templates: Prompt templates with one `{}` for the phrase.
        source: The name of the vocabulary in records.

    Raises:
        VocabularyError: A name is empty or given twice, a background phrase is a class, or a value is invalid. Its `class_index` is
            the index of the class at fault.
    """
    if isinstance(classes, str | set | frozenset) or not isinstance(classes, Iterable):
        raise VocabularyError(
            f"classes must be a list of names (ids follow its order), not {quote(classes)}",
            'For example: ["panda leg", "tree"]',
        )
    if isinstance(classes, Mapping):
        classes = [_with_synonyms(name, synonyms) for name, synonyms in classes.items()]
    given = list(classes)
    specs = _with_wholes([_check_class(value, index, len(given)) for index, value in enumerate(given)])
    check_phrase_count(sum(len(spec.texts) for spec in specs))
    positive = [spec for spec in specs if not spec.negative]
    if not positive:
        raise VocabularyError("no classes given", 'Pass at least one, for example: ["panda leg", "tree"]')
    if len(positive) > MAX_CLASSES:
        raise VocabularyError(f"{len(positive)} classes; the limit of 16-bit masks is {MAX_CLASSES}")
    names = _require_distinct(specs)
    common = check_templates(templates)
    ids = {_key(spec.name): number for number, spec in enumerate(positive, start=1)}
    numbered = tuple(
        LabelClass(
            id=number,
            name=spec.name,
            colour=cast(Colour | None, spec.colour) or colour(number),  # `_check_class` has parsed it
            synonyms=tuple(spec.synonyms),
            supercategory=spec.supercategory or spec.part_of or spec.name,
            min_confidence=spec.min_confidence,
            part_of=ids[_key(spec.part_of)] if spec.part_of else BACKGROUND,
            phrase=spec.phrase,
            thing=spec.thing,
        )
        for number, spec in enumerate(positive, start=1)
    )
    phrases = _check_background(background, names)
    auto = background == "auto"
    closed = not (auto or phrases)
    return Vocabulary(specs, numbered, phrases, common, auto, source, closed=closed, listed=len(given))


def parse_name(name: str) -> ClassSpec:
    """Parse a name as a user types it: in "panda/hind leg", a slash separates a whole from its part.

    Raise VocabularyError if the name of a whole or of a part is empty.
    """
    if "/" not in name:
        return ClassSpec(name)
    parts = [_clean(part, "a class name") for part in name.split("/")]
    if {"", ".", ".."}.intersection(parts):
        raise VocabularyError(
            f"{quote(name)} has an empty name before or after a slash"
            if "" in parts
            else f"{quote(name)} looks like a path",
            'A slash separates a whole from its part, as in "panda/head". For a name with a slash, use a .toml file.',
        )
    return ClassSpec("/".join(parts), part_of="/".join(parts[:-1]), phrase=" ".join(parts))


def listed_classes(names: Sequence[str], others: Iterable[str] = ()) -> list[ClassSpec]:
    """Return the classes of names in a list of labels. A class is a part if its name before the last slash is in the list too.

    `others` are further names of wholes.
    """
    known = {fold(name): name for name in (*names, *others)}
    specs = []
    for name in names:
        whole = known.get(fold(name.rpartition("/")[0]))
        specs.append(
            ClassSpec(name) if whole is None else ClassSpec(name, part_of=whole, phrase=name.replace("/", " "))
        )
    return specs


def _with_synonyms(name: str, synonyms: Sequence[str]) -> ClassSpec:
    return replace(parse_name(name), synonyms=synonyms) if isinstance(name, str) else ClassSpec(name, synonyms)


def _with_wholes(specs: Sequence[ClassSpec]) -> tuple[ClassSpec, ...]:
    """Return checked classes, with the wholes that are not among them. Raise VocabularyError if a class is a part of itself."""
    known = {_key(spec.name): spec for spec in specs}
    every = list(specs)
    for spec in specs:
        missing = list[ClassSpec]()
        name = spec.part_of
        while name and _key(name) not in known:
            missing.append(parse_name(name))
            known[_key(name)] = missing[-1]
            name = missing[-1].part_of
        every += reversed(missing)
    for index, spec in enumerate(every):
        above, names = spec, [spec.name]
        while above.part_of:
            above = known[_key(above.part_of)]
            if above.negative:
                reason = f"{quote(spec.name)} is a part of {quote(above.name)}, which is negative"
                raise VocabularyError(reason, "A negative class has no parts.", class_index=index)
            if above.name in names:
                reason = f"{quote(spec.name)} is a part of itself: {' is a part of '.join([*names, above.name])}"
                raise VocabularyError(reason, "Remove one `part_of`.", class_index=index)
            names.append(above.name)
    return tuple(every)


def split_phrases(values: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the values of a repeatable option. A single value is split at commas and line ends."""
    return tuple(re.split(r"[,\n]", values[0].strip("\r\n"))) if len(values) == 1 else tuple(values)


def parse_background(value: str) -> str | tuple[str, ...]:
    """Parse a background option: "auto", "none", or comma-separated phrases.

    Raise VocabularyError for a likely typo of "auto" or "none".
    """
    word = value.strip().lower()
    if word in ("auto", "none"):
        return word
    close = get_close_matches(word, ("auto", "none"), n=1, cutoff=0.75)
    if close and word not in _THINGS:
        raise VocabularyError(
            f"the background {quote(value)} looks like a typo of {quote(close[0])}",
            f'Use {close[0]}. If you mean the phrase, write it in a vocabulary file: background = ["{word}"].',
        )
    return split_phrases([value])


#: Names of things that resemble "auto" or "none".
_THINGS = (
    "alto", "aunt", "autos", "bone", "cone", "neon", "node", "noon", "nose", "note", "noun", "tone", "zone",
)  # fmt: skip


def parse_class(value: object) -> ClassSpec:
    """Parse an item of `classes`: a name, or a table; see `class_record`. A slash in a name has no meaning.

    Raise VocabularyError for unknown keys.
    """
    if isinstance(value, str):
        return ClassSpec(value)
    if not isinstance(value, dict):
        raise VocabularyError(
            f"a class must be a string or a table, not {quote(value)}", 'For example: { name = "tree" }'
        )
    table: dict[str, Any] = value
    require_known(
        table,
        [field.name for field in fields(ClassSpec)],
        f" of {quote(table['name'])}" if isinstance(table.get("name"), str) else "",
    )
    if "name" not in table:
        raise VocabularyError("a class has no name", 'For example: name = "tree"')
    return ClassSpec(**{**table, "templates": resolve_templates(table)})


def resolve_templates(table: Mapping[str, Any]) -> Any:
    """Return the templates in a table; a name, such as "plain", stands for a list of them."""
    value = table.get("templates")
    return TEMPLATES.get(value, value) if isinstance(value, str) else value


def require_known(keys: Iterable[str], known: Sequence[str], of_class: str = "") -> None:
    """Raise VocabularyError for a key that is not known."""
    for key in keys:
        if key not in known:
            hint = f"{did_you_mean(key, known)}The keys are: {', '.join(known)}."
            if key == "background":
                hint = "Move it above the first [[classes]], where it applies to all classes."
            raise VocabularyError(f"unknown key `{shorten(key)}`{of_class}", hint)


def class_record(spec: ClassSpec) -> dict[str, object]:
    """Return a class as a table for a vocabulary file, without unset values. `parse_class` reads it."""
    record = {each.name: getattr(spec, each.name) for each in fields(ClassSpec)}
    record |= {
        "synonyms": list(spec.synonyms),
        "templates": list(spec.templates or ()),
        "negative": spec.negative or None,
    }
    if not isinstance(spec.colour, str | None):
        record["colour"] = "#" + bytes(spec.colour).hex()
    return {key: value for key, value in record.items() if value not in (None, "", [])}


def check_phrase_count(phrases: int) -> None:
    """Raise VocabularyError if a vocabulary would have more than MAX_PHRASES phrases."""
    if phrases > MAX_PHRASES:
        raise VocabularyError(f"{phrases} names and synonyms; the limit is {MAX_PHRASES}")


def _check_background(background: str | Sequence[str], names: dict[str, int]) -> tuple[str, ...]:
    if background == "auto":
        return drop_equal_words(GENERAL_BACKGROUND, names)
    if background == "none":
        return ()
    if isinstance(background, str | Mapping) or not isinstance(background, Iterable):
        raise VocabularyError(f"background must be 'auto', 'none' or a list, not {quote(background)}")
    phrases = tuple(_clean(phrase, "a background phrase") for phrase in background)
    check_phrase_count(len(phrases))
    seen: set[str] = set()
    for number, phrase in enumerate(phrases, start=1):
        if not phrase:
            raise VocabularyError(
                f"background phrase {number} of {len(phrases)} is empty",
                "Remove it. For no background, use 'none'.",
            )
        if _key(phrase) in names:
            raise VocabularyError(
                f"{quote(phrase)} is both a class and a background phrase", "Remove it from one of the lists."
            )
        if _key(phrase) in seen:
            raise VocabularyError(f"duplicate background phrase {quote(phrase)}", _SAME)
        seen.add(_key(phrase))
    return phrases


_SAME = "The model does not distinguish names that differ only in case, spacing or slashes."


def _check_class(value: object, index: int, count: int) -> ClassSpec:
    """Return class `index` (from 0) of `count` with normalized names. Raise VocabularyError for invalid values."""
    with locate_errors(class_index=index):
        spec = parse_name(value) if isinstance(value, str) else value
        if not isinstance(spec, ClassSpec):
            raise VocabularyError(f"class {index + 1} must be a name or a ClassSpec, not {quote(value)}")
        name = _clean(spec.name, f"the name of class {index + 1}")
        if not name:
            raise VocabularyError(f"class {index + 1} of {count} is empty", "Remove it, or give it a name.")
        called = quote(name)
        if isinstance(spec.synonyms, str) or not isinstance(spec.synonyms, Sequence):
            raise VocabularyError(f"synonyms of {called} must be a list of strings, not {quote(spec.synonyms)}")
        synonyms = tuple(_clean(text, f"a synonym of {called}") for text in spec.synonyms)
        if "" in synonyms:
            raise VocabularyError(f"a synonym of {called} is empty")
        confidence = _check_confidence(spec.min_confidence, called)
        own_colour = _check_colour(spec.colour, called)
        supercategory = _clean(spec.supercategory, f"the supercategory of {called}")
        if not isinstance(spec.negative, bool):
            raise VocabularyError(f"`negative` of {called} must be true or false, not {quote(spec.negative)}")
        part_of, phrase = (
            _clean(text, f"`{key}` of {called}") for key, text in (("part_of", spec.part_of), ("phrase", spec.phrase))
        )
        if not isinstance(spec.thing, bool | None):
            raise VocabularyError(f"`thing` of {called} must be true or false, not {quote(spec.thing)}")
        if spec.negative and (own_colour or confidence is not None or supercategory or part_of):
            raise VocabularyError(
                f"{called} is negative: it must not have a colour, a minimum confidence, a supercategory or a whole",
                "Remove these values, or remove `negative`.",
            )
        try:
            templates = None if spec.templates is None else check_templates(spec.templates)
        except VocabularyError as error:
            raise VocabularyError(f"{called}: " + error.reason, error.hint) from None
    return ClassSpec(
        name, synonyms, own_colour, confidence, supercategory, templates, spec.negative, part_of, phrase, spec.thing
    )


def _check_confidence(value: object, called: str) -> float | None:
    if value is None:
        return None
    number: Any = value  # any numeric type, including numpy's
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= number <= 1:
        raise VocabularyError(f"the minimum confidence of {called} must be between 0 and 1, not {quote(value)}")
    return number if isinstance(number, int | float) else float(number)


def _check_colour(value: Any, called: str) -> Colour | None:
    if value is None:
        return None
    try:
        parts = bytes.fromhex(value[1:]) if isinstance(value, str) and value.startswith("#") else value
        red, green, blue = bytes(map(operator.index, parts))
    except (TypeError, ValueError) as error:
        raise VocabularyError(
            f"the colour of {called} must be three numbers from 0 to 255, not {quote(value)}",
            'Use [red, green, blue] or "#rrggbb".',
        ) from error
    return red, green, blue


def _require_distinct(specs: Sequence[ClassSpec]) -> dict[str, int]:
    """Return the class index for each name, as `_key` writes it. Raise VocabularyError for duplicate names."""
    seen: dict[str, int] = {}
    names: dict[str, int] = {}
    for index, spec in enumerate(specs):
        if (number := names.setdefault(_key(spec.name), index)) != index:
            reason = f"duplicate class {quote(spec.name)}: numbers {number + 1} and {index + 1}"
            raise VocabularyError(reason, _SAME, class_index=index)
        for text in spec.texts:
            number = seen.setdefault(_key(text), index)
            first = specs[number]
            if number == index:
                continue
            reason = f"{quote(text)} belongs to two classes, {quote(first.name)} and {quote(spec.name)}"
            raise VocabularyError(reason, _SAME, class_index=index)
        if len(set(map(_key, spec.texts))) < len(spec.texts):
            reason = f"{quote(spec.name)} has duplicate names: {shorten(', '.join(spec.texts))}"
            raise VocabularyError(reason, _SAME, class_index=index)
    return seen


def _clean(name: object, what: str) -> str:
    return " ".join(check_text(name, what).replace("_", " ").split())


def _key(name: str) -> str:
    return name.lower()  # the tokenizer lower-cases too
