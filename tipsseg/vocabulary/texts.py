"""Read and check texts that people write: small files, and single phrases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tipsseg.errors import VocabularyError
from tipsseg.util.files import reason_of
from tipsseg.util.printable import control_character, is_utf8, quoted

_BLANKS = str.maketrans(dict.fromkeys("\t\n\r\v\f", " "))

#: Bytes of a file; the largest vocabulary that a mask can hold takes about as many.
MAX_BYTES = 8_000_000

#: Characters of a phrase: many more than the text towers read of it.
MAX_TEXT = 1000

#: A comment begins a line, or stands apart: "#" in "item #5" is a part of the name.
_COMMENT = re.compile(r"(^|\s)#(\s.*)?$|^\s*#.*$")


def read_text(path: Path, what: str) -> str:
    """Read a small file in UTF-8, with or without a byte order mark, with "\\n" for line ends of any kind.

    Raises VocabularyError, which calls the file `what`, such as "a vocabulary file".
    """
    try:
        with path.open("rb") as file:  # which may be a pipe, or have no end
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise VocabularyError(f"{path}: a folder, not {what}") from error
    except (OSError, ValueError) as error:
        raise VocabularyError(f"{path}: {reason_of(error)}") from error
    if len(data) > MAX_BYTES:
        raise VocabularyError(f"{path}: more than {MAX_BYTES // 1_000_000} MB, which is too much for {what}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8")  # both without the byte order mark
        line = _plain_ends(before).count("\n") + 1
        raise VocabularyError("not UTF-8 text", "Save the file as UTF-8.", path=path, line=line) from error
    text = _plain_ends(text)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise VocabularyError("a NUL character, so this is no text", "Save the file as UTF-8.", path=path, line=line)
    return text


def check_text(text: object, what: str) -> str:
    """Check a phrase or a template, and trim it; tabs and line ends become spaces.

    Raises VocabularyError, which calls the text `what`, such as "a synonym". Control characters are refused, as they mean nothing
    to the model, and files and terminals do not take them.
    """
    if not isinstance(text, str):
        raise VocabularyError(f"{what} must be a text, not {quoted(text)}")
    text = text.translate(_BLANKS).strip(" ")
    if len(text) > MAX_TEXT:
        raise VocabularyError(f"{what} has {len(text)} characters; the most is {MAX_TEXT}: {quoted(text)}")
    if not is_utf8(text):
        raise VocabularyError(f"{what} is no UTF-8 text: {quoted(text)}", "Use a terminal, or a file, in UTF-8.")
    if character := control_character(text):
        raise VocabularyError(
            f"{what} has the control character {character} in it: {quoted(text)}", "Leave that character out."
        )
    return text


def content_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that have content, trimmed and without comments, with their numbers from 1.

    A comment begins with "#" at the start of a line, or with a "#" between blanks further on.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        content = _COMMENT.sub("", line).strip()
        if content:
            yield number, content


@contextmanager
def in_place(path: Path | None = None, line: int | None = None, class_index: int | None = None) -> Iterator[None]:
    """Add the place to a VocabularyError that is raised inside."""
    try:
        yield
    except VocabularyError as error:
        index = error.class_index if class_index is None else class_index
        raise VocabularyError(
            error.reason, error.hint, path=path or error.path, line=line or error.line, class_index=index
        ) from error


def _plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
