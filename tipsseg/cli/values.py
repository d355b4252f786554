"""Read class names from words, and reject common mistakes that would otherwise be misread."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from tipsseg.errors import UsageError, VocabularyError
from tipsseg.formats import FORMATS
from tipsseg.util.files import is_file, path_exists
from tipsseg.util.text import quote, shell_word


def typed_classes(words: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the values of --classes. Raise UsageError or VocabularyError for what seems to be something else."""
    from tipsseg.vocabulary.vocabulary import split_phrases

    for word in words:
        path = word.removeprefix("@")
        if Path(path).suffix in (".txt", ".csv", ".json", ".toml", ".names"):
            is_or_looks = "is a file" if is_file(Path(path)) else "looks like a file, but does not exist"
            raise UsageError(
                f"--classes takes names, but {quote(word)} {is_or_looks}", f"Write --vocab {shell_word(path)}"
            )
        if word.startswith(("[", "{")):
            raise UsageError(
                f"--classes takes names separated by commas, not {quote(word)}", 'Write --classes "panda leg,tree".'
            )
    names = split_phrases(words)
    for number, name in enumerate(names, start=1):
        if not name.strip(" _"):
            raise VocabularyError(
                f"class {number} of {len(names)} is empty",
                'Remove the extra comma. If a name contains a comma, pass -c once per name: -c "salt, pepper" -c tree',
            )
        if "/" in name and all(part.strip(" _.") for part in name.split("/")) and path_exists(Path(name.strip())):
            raise UsageError(
                f"--classes takes names, but {quote(name.strip())} is a path, and a slash separates a whole from its part",
                f"For classes in a file, write --vocab {shell_word(name.strip())}. For a part of this name, put a space around "
                f'the slash: -c "{name.strip().replace("/", " / ")}"',
            )
    return names


def refuse_split_lists(paths: Sequence[str], classes: Sequence[str] | None, formats: Sequence[str] | None) -> None:
    """Raise UsageError if the shell split the list of --classes or --format at a space, which turns the rest into paths."""
    strays = [path for path in paths if path != "-" and "://" not in path and not os.path.lexists(path)]
    if formats:
        refuse_stray_formats(strays, formats)
    for number, flag in enumerate(sys.argv[1:] if classes else (), start=2):
        rest = list(takewhile(strays.__contains__, sys.argv[number + 1 :]))
        if flag not in ("-c", "--classes") or not rest:
            continue
        words = " ".join([sys.argv[number], *rest]).replace(" ,", ",").rstrip(", ")
        apart = re.sub(r"(?<!,) ", ",", words)  # each word a class
        if "," in words or not any("." in word or os.sep in word for word in rest):
            one = "" if apart == words else f". If each word is a class: --classes {shell_word(apart)}"
            raise UsageError(
                f"{quote(rest[0])} is not a file, and seems to belong to --classes",
                f"Quote the list: --classes {shell_word(words)}{one}",
            )


def refuse_stray_formats(arguments: Sequence[str], formats: Sequence[str]) -> None:
    """Raise UsageError if an argument is the name of a format."""
    strays = [argument for argument in arguments if argument.strip(" ,") in FORMATS]
    if strays:
        names = ",".join(part for name in (*formats, *strays) if (part := name.strip(" ,")))
        raise UsageError(
            f"{quote(strays[0])} is a format, not a path",
            f"Join formats with commas, without spaces: -f {shell_word(names)}",
        )
