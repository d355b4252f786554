"""Print the library's texts in the words of the command line: replace argument names with flags.

The library writes "argument `max_pixels`", or "argument `max_pixels`=0" with a value. The command prints "--max-pixels" and
"--max-pixels 0".
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tipsseg.util.progress import Progress


#: Arguments whose flag differs from their name.
_FLAGS = {
    "everything": "--all",
    "formats": "--format",
    "from_run": "--from",
    "output": "-o",
    "source": "--from",
    "source_format": "--format",
    "target": "-o",
    "truths": "--gt",
    "vocabulary": "--vocab",
}

#: Arguments without a flag.
LIBRARY_ONLY = frozenset({"first_id", "guide", "image_id"})

_ARGUMENT = re.compile(r"[Aa]rgument `(\w+)`(=False\b|=?)")


def as_typed(text: str) -> str:
    """Replace the library's argument names in a text with flags."""
    return _ARGUMENT.sub(_option, text)


def _option(match: re.Match[str]) -> str:
    name, value = match.groups()
    if name in LIBRARY_ONLY:
        return match[0]
    flag = f"--{name.replace('_', '-')}"
    if value == "=False":
        return f"--no-{flag[2:]}"
    return _FLAGS.get(name, flag) + " " * bool(value)


def prints_paths(null: bool) -> bool:
    """Return True if a command prints the paths of the files that it writes.

    It does to a pipe or a file, and with `null`, which separates them, also on a terminal.
    """
    return null or not sys.stdout.isatty()


def open_progress(*, quiet: bool, results: bool, null: bool, jsonl: bool, detailed: bool) -> Progress:
    """Silence the image decoders, and return a Progress that prints flags instead of the library's argument names."""
    from tipsseg.images.decoders import silence_decoders
    from tipsseg.util.progress import Progress

    silence_decoders()
    return Progress(quiet, results=results, null=null, jsonl=jsonl, detailed=detailed, wording=as_typed)
