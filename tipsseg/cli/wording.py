"""How the command says what the library says: an argument of the library is an option of the command line.

Texts of the library name "argument `max_pixels`", and with a value "argument `max_pixels`=0". Whoever typed a command gave
"--max-pixels", and "--max-pixels 0".
"""

from __future__ import annotations

import re

#: The options by the arguments that the library's texts name.
OPTIONS = {
    "add_classes": "--add-classes",
    "actors": "--actors",
    "batch_size": "--batch-size",
    "classes": "--classes",
    "device": "--device",
    "dtype": "--dtype",
    "emptied": "--emptied",
    "engine": "--engine",
    "everything": "--all",
    "exact": "--exact",
    "features": "--features",
    "formats": "--format",
    "gpus": "--gpus",
    "ignore_index": "--ignore-index",
    "jobs": "--jobs",
    "images": "--images",
    "layout": "--layout",
    "limit": "--limit",
    "max_pixels": "--max-pixels",
    "min_area": "--min-area",
    "model": "--model",
    "names": "--names",
    "only": "--only",
    "output": "-o",
    "overwrite": "--overwrite",
    "png_mode": "--png-mode",
    "precision": "--precision",
    "predicted": "--pred",
    "reduce_zero_label": "--reduce-zero-label",
    "replace_edited": "--replace-edited",
    "retry_failed": "--retry-failed",
    "sample": "--sample",
    "scales": "--scales",
    "shard": "--shard",
    "simplify": "--simplify",
    "source_format": "--format",
    "target": "-o",
    "templates": "--templates",
    "temperature": "--temperature",
    "truths": "--gt",
    "val_fraction": "--val-fraction",
    "vocabulary": "--vocab",
    "zero_based": "--zero-based",
}

#: The options that set an argument to False.
NEGATIVE_OPTIONS = {"emptied": "--no-emptied", "resume": "--no-resume"}

_ARGUMENT = re.compile(r"[Aa]rgument `(\w+)`(=False\b|=?)")


def as_typed(text: str) -> str:
    """Return a text of the library with options in place of arguments; other arguments stay as they are."""
    return _ARGUMENT.sub(_option, text)


def _option(found: re.Match[str]) -> str:
    name, value = found.groups()
    if value == "=False":
        return NEGATIVE_OPTIONS.get(name, found[0])
    option = OPTIONS.get(name)
    if option is None:
        return found[0]
    return f"{option} " if value else option
