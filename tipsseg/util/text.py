"""Word messages: escape what strangers write; format numbers, names, lists and tables; describe faults.

Names of files and classes are untrusted. A name with an escape sequence or a line end could clear the screen, or imitate a
message of the program.
"""

from __future__ import annotations

import difflib
import io
import re
import shlex
import unicodedata
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from tipsseg.address import without_secrets
from tipsseg.util.files import describe_error

# Control characters (C0, DEL, C1), line separators, bidirectional marks, surrogates (Python's form of file name bytes that are not
# UTF-8), and two noncharacters, which XML forbids as well.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
#: The maximum length of a value in a message, and of a message: longer than any path of a file.
_QUOTED, _MESSAGE = 80, 5000

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """Return text as a single line, with escapes for line ends, control characters and bytes that are not UTF-8: "a\\u001bb".

    The escapes follow JSON and TOML, so that a line of JSON or TOML keeps its value. URLs lose their secrets.
    """
    return _UNSAFE.sub(lambda match: _SHORT.get(match[0], f"\\u{ord(match[0]):04x}"), without_secrets(text))


def message_line(text: str) -> str:
    """Return a message as one `printable` line. If it is too long, its middle is cut: names come first, reasons last."""
    if len(text) > _MESSAGE:
        half = _MESSAGE // 2
        text = f"{text[:half]} ... ({len(text) - 2 * half:,} more characters) ... {text[-half:]}"
    return printable(text)


def printable_lines(text: str) -> str:
    """Escape text like `printable`, but keep line ends."""
    return "\n".join(map(printable, text.split("\n")))


def one_line(name: str) -> str:
    """Return a name without control characters and line ends, for images and tables."""
    return " ".join("".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in name).split())


def control_character(text: str) -> str:
    """Return the first control character or noncharacter of a text, escaped; "" if it has none."""
    match = _CONTROL.search(text)
    return printable(match[0]) if match else ""


def is_utf8(text: str) -> bool:
    return _SURROGATE.search(text) is None


def quote(value: object) -> str:
    """Return the repr of a value for a message, cut to 80 characters."""
    try:
        text = repr(without_secrets(value)[: _QUOTED + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # numbers with thousands of digits, deeply nested lists
        return f"a value of type {type(value).__name__}"
    return shorten(text)


def shorten(text: str) -> str:
    return text if len(text) <= _QUOTED + 2 else f"{text[: _QUOTED - 3]}..."


def shell_word(word: str) -> str:
    """Quote a word for a shell if necessary, as $'a\\nb' if it has unprintable characters."""
    if _UNSAFE.search(word) is None:
        return shlex.quote(word)
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_UNSAFE.sub(_octal, plain)}'"


def shell_line(words: Iterable[str]) -> str:
    return " ".join(map(shell_word, words))


def _octal(match: re.Match[str]) -> str:
    # An octal escape has exactly three digits; a hexadecimal one would absorb following digits.
    return "".join(f"\\{byte:03o}" for byte in match[0].encode("utf-8", "surrogateescape"))


def pluralize(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 image", "2 images". Pass `plural` for an irregular plural."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def join_first(texts: Sequence[str], most: int) -> str:
    """Join at most `most` texts, and count the others: "a, b, c and 2 more"."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "Did you mean 'x'? " for the most similar known name; "" if none is similar."""
    close = difflib.get_close_matches(shorten(name.lower()), known, n=1, cutoff=cutoff)
    return f"Did you mean {close[0]!r}? " if close else ""


def first_line(error: BaseException) -> str:
    """Return the first non-blank line of an error message, or else the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def format_duration(seconds: int) -> str:
    """Format seconds as "1:57" or "2:05:09"."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


# ---- tables ----


#: The minimum width of a column of numbers, and the maximum width of a cell.
_MIN_WIDTH, _MAX_WIDTH = 9, 40


def text_table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Container[int] = (0,)) -> str:
    """Return a table as text. The columns in `left` are left-aligned, all others right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2))
    for number, head in enumerate(heads):
        justify: Literal["left", "right"] = "left" if number in left else "right"
        width = None if number in left else _MIN_WIDTH
        table.add_column(head, justify=justify, no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*(_cut(one_line(text)) for text in row))
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None, markup=False, emoji=False, highlight=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _cut(text: str) -> str:
    """Cut text to the maximum width of a cell. Versions of rich differ in how they cut accents."""
    from rich.cells import cell_len

    if cell_len(text) <= _MAX_WIDTH:
        return text
    return text[: sum(end < _MAX_WIDTH for end in accumulate(map(cell_len, text)))] + "…"


# ---- faults in the files of a run ----


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault in a file of a run."""

    path: Path
    what: str

    def lines(self) -> list[str]:
        return [f"{self.path}: " + self.what]

    def __str__(self) -> str:
        return "\n".join(map(printable, self.lines()))


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """The result of one check.

    Attributes:
        state: "ok"; "note": worth knowing, but nothing is wrong; "fail": tipsseg does not work properly.
        what: The subject, for example "torch".
        detail: The finding.
        hint: The remedy, or "".
    """

    state: Literal["ok", "note", "fail"]
    what: str
    detail: str
    hint: str = ""

    def lines(self) -> list[str]:
        state = "FAIL" if self.state == "fail" else self.state
        first = f"{state:5} {self.what}: " + self.detail if self.what else self.detail
        return [first, *(["      " + self.hint] if self.hint else [])]

    def __str__(self) -> str:
        return "\n".join(map(printable, self.lines()))


def unreadable_problem(error: OSError, default: Path) -> Problem:
    """Return the problem for a file that cannot be read. Its path is `default` if the error does not name a file."""
    name = error.filename
    return Problem(Path(name) if isinstance(name, str | Path) else default, describe_error(error))


def size_text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"


def clean_name(name: str) -> str:
    """Replace underscores, which many tools write, with spaces, and remove surplus spaces."""
    return " ".join(name.replace("_", " ").split())


def fold(name: str) -> str:
    """Return a name without differences of case and spacing; nor of slashes, which some tools replace, from spaces."""
    return clean_name(name.replace("/", " ")).casefold()
