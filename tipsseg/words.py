"""Texts that name options: with keywords in the library, with flags on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, Self

from tipsseg.address import without_secrets

#: Returns the name of an option as a reader writes it; the second argument is "no" if the option is to be off.
NameOf = Callable[[str, str], str]


class Words(str):
    """A text that names options by placeholders, as in "{min_confidence} must be at most 1, not {value}".

    A placeholder without a value names an option. As a str, the text is for readers of Python. What users wrote, and other Words,
    are values.
    """

    template: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, **values: object) -> Self:
        self = super().__new__(cls, _filled(template, values, _keyword))
        self.template, self.values = template, values
        return self

    def __add__(self, other: str, /) -> Words:
        return Words("{first}{second}", first=self, second=other)

    def __radd__(self, other: str, /) -> Words:
        return Words("{first}{second}", first=other, second=self)

    def __getnewargs_ex__(self) -> tuple[tuple[str], Mapping[str, Any]]:
        return (self.template,), self.values


def named(option: str) -> Words:
    """Return the name of an option."""
    return Words(f"{{{option}}}")


def worded(text: str, name_of: NameOf) -> str:
    """Return a text with the names of options that `name_of` returns."""
    return _filled(text.template, text.values, name_of) if isinstance(text, Words) else text


def _filled(template: str, values: Mapping[str, Any], name_of: NameOf) -> str:
    parts = []
    for text, field, state, _ in Formatter().parse(template):
        parts.append(text)
        if field is not None and field in values:
            value = values[field]
            parts.append(worded(value, name_of) if isinstance(value, str) else str(value))
        elif field is not None:
            parts.append(name_of(field, state or ""))
    return without_secrets("".join(parts))


def _keyword(option: str, state: str) -> str:
    return f"`{option}`{'=False' if state else ''}"
