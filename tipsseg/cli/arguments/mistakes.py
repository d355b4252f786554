"""Common mistakes in a command line, told before they are taken for something else: a path, a name, a list of paths."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tipsseg.errors import UsageError
from tipsseg.formats import FORMATS
from tipsseg.util.printable import quoted, shell_word

_IN_QUOTES = "Put the list into quotes, so that the shell keeps it in one piece"


def refuse_split_lists(paths: Sequence[str], classes: Sequence[str] | None, formats: Sequence[str] | None) -> None:
    """Raise UsageError where a part of --classes or --format stands among the paths, as a space divides it from the rest."""
    strays = [path for path in paths if path != "-" and not os.path.lexists(path)]
    if formats:
        refuse_stray_formats(strays, formats)
    for value in classes or ():
        rest = strays if value.rstrip().endswith(",") else [stray for stray in strays if stray.startswith(",")]
        if rest:
            names = ", ".join(part for each in (value, *rest) if (part := each.strip(" ,")))
            raise UsageError(
                f"{quoted(rest[0])} is no file, and --classes {shell_word(value)} seems to go on there",
                f"{_IN_QUOTES}: -c {shell_word(names)}",
            )


def refuse_stray_formats(arguments: Sequence[str], formats: Sequence[str]) -> None:
    """Raise UsageError where there are formats among the arguments."""
    strays = [argument for argument in arguments if argument.strip(" ,") in FORMATS]
    if strays:
        names = ",".join(part for each in (*formats, *strays) if (part := each.strip(" ,")))
        raise UsageError(
            f"{quoted(strays[0])} is a format, and stands where a path belongs",
            f"Join formats with commas, without spaces: -f {shell_word(names)}",
        )


def refuse_semicolons(classes: Sequence[str]) -> None:
    """Raise UsageError where a list of classes is separated by semicolons."""
    if len(classes) == 1 and ";" in classes[0]:
        names = ",".join(part for each in classes[0].split(";") if (part := each.strip()))
        raise UsageError(
            f"classes are separated by commas, and --classes {shell_word(classes[0])} has a semicolon",
            f"Use commas: -c {shell_word(names)}. A name with a semicolon in it is given in a vocabulary file.",
        )
