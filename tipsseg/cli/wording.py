"""How the command says what the library says: an argument of the library is an option of the command line.

Texts of the library name "argument `max_pixels`", and with a value "argument `max_pixels`=0". Whoever typed a command gave
"--max-pixels", and "--max-pixels 0".
"""

from __future__ import annotations

import re

from tipsseg.options.fields import options_of
from tipsseg.options.run import CorrectOptions, OutputOptions

#: The flags of arguments that are not `--` and the name of the argument.
_FLAGS = {
    **{
        name: option.long(name)
        for name, (_, option) in {**options_of(CorrectOptions), **options_of(OutputOptions)}.items()
    },
    "output": "-o",
    "predicted": "--pred",
    "target": "-o",
    "truths": "--gt",
    "vocabulary": "--vocab",
}

#: Arguments of functions that no command calls so.
LIBRARY_ONLY = frozenset({"first_id", "guide", "image_id"})

_ARGUMENT = re.compile(r"[Aa]rgument `(\w+)`(=False\b|=?)")


def as_typed(text: str) -> str:
    """Return a text of the library with options in place of arguments."""
    return _ARGUMENT.sub(_option, text)


def _option(found: re.Match[str]) -> str:
    name, value = found.groups()
    if name in LIBRARY_ONLY:
        return found[0]
    flag = f"--{name.replace('_', '-')}"
    if value == "=False":
        return f"--no-{flag[2:]}"
    return _FLAGS.get(name, flag) + " " * bool(value)
