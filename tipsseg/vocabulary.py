"""Class names and background -> the phrases that compete for every pixel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tipsseg.errors import VocabularyError
from tipsseg.palette import colour
from tipsseg.records import BACKGROUND, LabelClass

#: 16-bit masks hold ids 1..65534 beside background 0 and ignore 65535.
MAX_CLASSES = 65534

#: The prompt templates of the published protocol (reference: the authors' zero-shot segmentation notebook).
PROTOCOL_TEMPLATES: tuple[str, ...] = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "a photo of {}s.",
)

#: General stuff that competes for pixels under `--background auto`, and is written as 0.
GENERAL_BACKGROUND: tuple[str, ...] = (
    "sky",
    "wall",
    "tree",
    "wood",
    "grass",
    "road",
    "sea",
    "river",
    "mountain",
    "sand",
    "desk",
    "bed",
    "building",
    "cloud",
    "lamp",
    "door",
    "window",
    "ceiling",
    "shelf",
    "curtain",
    "stair",
    "floor",
    "hill",
    "rail",
    "fence",
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What competes for every pixel: the classes, then background phrases, which are written as 0.

    A phrase is filled into each of `templates`, at its `{}`.
    """

    classes: tuple[LabelClass, ...]
    background: tuple[str, ...]
    templates: tuple[str, ...] = PROTOCOL_TEMPLATES

    @property
    def phrases(self) -> tuple[str, ...]:
        """All P phrases: those of the classes in order, then those of the background."""
        return (*(entry.name for entry in self.classes), *self.background)

    @property
    def label_ids(self) -> tuple[int, ...]:
        """The label id that each of the P phrases is written as."""
        return (*(entry.id for entry in self.classes), *(BACKGROUND for _ in self.background))


def make_vocabulary(classes: Sequence[str], background: str | Sequence[str] = "auto") -> Vocabulary:
    """Check and number class names.

    classes     names in the order of their ids 1..N; trimmed, underscores read as spaces
    background  "auto": general stuff phrases, less those that the classes name; "none": the classes divide every pixel
                among themselves; or a sequence of phrases

    Raises VocabularyError for empty or doubled names, and for a background phrase that is a class.
    """
    if isinstance(classes, str):
        raise VocabularyError("classes must be a list of names, not a string", f"For one class: [{classes!r}].")
    names = _clean(classes, "class")
    if not names:
        raise VocabularyError("no classes given", 'Name what to label, for example: --classes "panda leg,tree"')
    if len(names) > MAX_CLASSES:
        raise VocabularyError(f"{len(names)} classes are more than a 16-bit mask can hold ({MAX_CLASSES})")
    named = {_key(name) for name in names}
    if background == "auto":
        phrases = tuple(phrase for phrase in GENERAL_BACKGROUND if not named & {_key(phrase), _key(phrase + "s")})
    elif background == "none":
        phrases = ()
    elif isinstance(background, str):
        raise VocabularyError(
            f"background {background!r} is neither 'auto' nor 'none'", "Give phrases as a list of strings."
        )
    else:
        phrases = _clean(background, "background phrase")
        both = [phrase for phrase in phrases if _key(phrase) in named]
        if both:
            raise VocabularyError(
                f"{both[0]!r} is both a class and a background phrase", "Leave it out of one of the two."
            )
    entries = tuple(LabelClass(number, name, colour(number)) for number, name in enumerate(names, start=1))
    return Vocabulary(entries, phrases)


def split_names(values: Sequence[str]) -> tuple[str, ...]:
    """The names in the values of a repeatable option: one value is split at commas and line ends, of several each is a name."""
    return tuple(re.split(r"[,\n]", values[0].strip("\r\n"))) if len(values) == 1 else tuple(values)


def parse_background(value: str) -> str | tuple[str, ...]:
    """The value of --background: "auto" and "none" stand for themselves, anything else is a list with commas."""
    word = value.strip().lower()
    return word if word in ("auto", "none") else split_names([value])


def _clean(names: Sequence[str], what: str) -> tuple[str, ...]:
    cleaned = tuple(" ".join(name.replace("_", " ").split()) for name in names)
    seen: dict[str, int] = {}
    for number, name in enumerate(cleaned, start=1):
        if not name:
            raise VocabularyError(
                f"{what} {number} of {len(cleaned)} is empty",
                "Remove the extra comma. If a name has a comma in it, repeat the option, once for each name: "
                '-c "salt, pepper" -c tree'
                if what == "class"
                else "Remove the extra comma, or use --background none.",
            )
        first = seen.setdefault(_key(name), number)
        if first != number:
            raise VocabularyError(
                f"{what} {name!r} is given twice, as number {first} and number {number}",
                "Names that differ only in case or spacing are the same to the model.",
            )
    return cleaned


def _key(name: str) -> str:
    """What the model makes of a name: case does not matter."""
    return name.lower()
