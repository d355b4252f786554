"""Read and check user text: small files and phrases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tipsseg.errors import VocabularyError
from tipsseg.util.files import describe_error
from tipsseg.util.printable import control_character, is_utf8, quote

_BLANKS = str.maketrans(dict.fromkeys("\t\n\r\v\f", " "))

#: The size limit of a file in bytes. The largest vocabulary for 16-bit masks has about this size.
MAX_BYTES = 8_000_000

#: The maximum length of a phrase in characters, far above the maximum input of the text towers.
MAX_TEXT = 1000

#: "#" starts a comment at the beginning of a line or between blanks: "item #5" is a name.
_COMMENT = re.compile(r"(^|\s)#(\s.*)?$|^\s*#.*$")


def read_text(path: Path, what: str) -> str:
    """Read a small UTF-8 file, with or without a byte order mark, and convert line ends to "\\n".

    `what` describes the file in messages, such as "a vocabulary file". Raises VocabularyError if the file cannot be read, is too
    large or is not text.
    """
    try:
        with path.open("rb") as file:  # may be an endless pipe
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise VocabularyError(f"{path} is a folder, not {what}") from error
    except (OSError, ValueError) as error:
        raise VocabularyError(f"{path}: {describe_error(error)}") from error
    if len(data) > MAX_BYTES:
        raise VocabularyError(f"{path}: larger than {MAX_BYTES // 1_000_000} MB, the limit of {what}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8")  # error.object has no byte order mark
        line = _normalize_line_ends(before).count("\n") + 1
        raise VocabularyError("not UTF-8 text", "Save the file as UTF-8.", path=path, line=line) from error
    text = _normalize_line_ends(text)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise VocabularyError("a NUL character: the file is not text", "Save the file as UTF-8.", path=path, line=line)
    return text


def check_text(text: object, what: str) -> str:
    """Trim a phrase or a template, and replace tabs and line ends with spaces.

    `what` describes the text in messages, such as "a synonym". Raises VocabularyError for invalid text. Control characters are
    invalid: the model does not know them, and they break files and terminals.
    """
    if not isinstance(text, str):
        raise VocabularyError(f"{what} must be a string, not {quote(text)}")
    text = text.translate(_BLANKS).strip(" ")
    if len(text) > MAX_TEXT:
        raise VocabularyError(f"{what} has {len(text)} characters; the limit is {MAX_TEXT}: {quote(text)}")
    if not is_utf8(text):
        raise VocabularyError(f"{what} is not UTF-8 text: {quote(text)}", "Use a UTF-8 terminal or file.")
    if character := control_character(text):
        raise VocabularyError(
            f"{what} contains the control character {character}: {quote(text)}", "Remove that character."
        )
    return text


def content_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the non-blank lines, trimmed and without comments, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), start=1):
        content = _COMMENT.sub("", line).strip()
        if content:
            yield number, content


@contextmanager
def locate_errors(path: Path | None = None, line: int | None = None, class_index: int | None = None) -> Iterator[None]:
    """Add path, line and class index to a VocabularyError that the block raises."""
    try:
        yield
    except VocabularyError as error:
        index = error.class_index if class_index is None else class_index
        raise VocabularyError(
            error.reason, error.hint, path=path or error.path, line=line or error.line, class_index=index
        ) from error


def _normalize_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
