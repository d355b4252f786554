"""Spell out characters that would control a terminal, or break a line in two; put numbers and names into messages.

Names of files and classes come from anywhere. A name with an escape sequence or a line end in it could clear the screen, or
look like a line of the program.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

# Control characters (C0, DEL, C1), separators of lines, marks that change the direction of writing, bytes of file names that are
# no UTF-8, which Python holds as surrogates, and two codes that are no characters, and that XML forbids like control characters.
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
#: Characters of a value that a message shows.
_QUOTED = 80

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """Return the text as one line: line ends, control characters and bytes that are no UTF-8 are spelled out, as in "a\\u001bb".

    They are spelled as JSON and TOML spell them, so that a line of those keeps its value.
    """
    return _STEERING.sub(lambda found: _SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), text)


def printable_lines(text: str) -> str:
    """As `printable`, but line ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def one_line(name: str) -> str:
    """Return the name without control characters and line ends, which no picture and no table can show."""
    return " ".join("".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in name).split())


def control_character(text: str) -> str:
    """Return the first control character of a text, or code that is no character, spelled out; or ""."""
    found = _CONTROL.search(text)
    return printable(found[0]) if found else ""


def is_utf8(text: str) -> bool:
    return _SURROGATE.search(text) is None


def quoted(value: object) -> str:
    """Write a value for a message as Python does, cut to 80 characters."""
    try:
        text = repr(value[: _QUOTED + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists in lists in lists
        return f"a value of type {type(value).__name__}"
    return shortened(text)


def shortened(text: str) -> str:
    return text if len(text) <= _QUOTED + 2 else f"{text[: _QUOTED - 3]}..."


def shell_word(word: str) -> str:
    """Quote a word for a shell if it has to be, as $'a\\nb' if it cannot be printed as it is."""
    if _STEERING.search(word) is None:
        return shlex.quote(word)
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_STEERING.sub(_octal, plain)}'"


def shell_line(words: Iterable[str]) -> str:
    return " ".join(map(shell_word, words))


def _octal(found: re.Match[str]) -> str:
    # Three digits end by themselves, whatever follows; the bytes of hexadecimal digits would run into what follows.
    return "".join(f"\\{byte:03o}" for byte in found[0].encode("utf-8", "surrogateescape"))


def counted(number: int, noun: str, plural: str = "") -> str:
    """Write a number and its noun: "1 image", "2 images"; give `plural` if it takes more than an "s"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(texts: Sequence[str], most: int) -> str:
    """List the first texts, `most` at most, and count the others: "a, b, c and 2 more"."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that is not blank, or else the type of the error."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def clock(seconds: int) -> str:
    """Write seconds as "1:57" or "2:05:09"."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
