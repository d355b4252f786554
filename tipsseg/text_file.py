"""Small text files that people write: UTF-8 with or without a byte order mark, any line ends, comments."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from tipsseg.errors import VocabularyError
from tipsseg.images import reason_of

#: A comment begins a line, or stands apart: "#" in "item #5" is a part of the name.
_COMMENT = re.compile(r"(^|\s)#(\s.*)?$|^\s*#.*$")


def read_text(path: Path, what: str) -> str:
    """The text of a file; `what` says in an error what it should have been, for example "a vocabulary file".

    Raises VocabularyError where the file cannot be read or is no UTF-8 text; then it names the line.
    """
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise VocabularyError(f"{path}: a folder, not {what}") from error
    except (OSError, ValueError) as error:
        raise VocabularyError(f"{path}: {reason_of(error)}") from error
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


def is_there(path: Path) -> bool:
    """Whether there is a file or a folder; a text that is too long for a name of one, such as a list of names, is none."""
    try:
        return path.exists()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG


def content_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line that has content, trimmed and without its comment, with its number from 1.

    A comment begins with "#" at the start of a line, or with a "#" between blanks further on.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        content = _COMMENT.sub("", line).strip()
        if content:
            yield number, content


def _plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
