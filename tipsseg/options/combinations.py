"""Which options cannot be combined, and which require another: one table for commands, the library and help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tipsseg.errors import UsageError, Words
from tipsseg.options.fields import Declared


class _Excludes(NamedTuple):
    """Two options that exclude each other, and what to do."""

    first: str
    second: str
    hint: str = "Use one of them."


class _Requires(NamedTuple):
    """An option that works only with another option, and what to do."""

    name: str
    other: str
    hint: str


_EXCLUDES = (
    _Excludes("classes", "vocab"),
    _Excludes("overwrite", "shard", "Choose another output folder, or start over without {shard}."),
    _Excludes("overwrite", "prune", "A run that starts over keeps no labels of images that are gone."),
    _Excludes("ray", "shard", "Remove one of them."),
    _Excludes("ground_resolution", "scales"),
    _Excludes("formats", "drop", "Run one after the other."),
    _Excludes("extra", "drop", "Run one after the other."),
    _Excludes("extra", "to", "A data set has no options of formats."),
    _Excludes("corrections", "undo", "Run one after the other."),
    _Excludes("corrections", "remove", "Run one after the other."),
    _Excludes("undo", "remove", "Run one after the other."),
    _Excludes("layout", "ignore_index", "A layout defines the ids of ground truth."),
    _Excludes("layout", "reduce_zero_label", "A layout defines the ids of ground truth."),
    _Excludes("layout", "zero_based", "A layout defines the ids of ground truth."),
    _Excludes(
        "reduce_zero_label",
        "zero_based",
        "Use the first if 0 marks ignored pixels, the second if 0 is the first class.",
    ),
)

_REQUIRES = (
    _Requires("regions_only", "regions", "Set {regions}."),
    _Requires("regions_margin", "regions", "Set {regions}."),
    _Requires("regions_margin", "refine", "Set {refine}=pamr-guided."),
    _Requires("shard_size", "to", "Pass the folder of the data set with {to}."),
    _Requires("overwrite", "to", "Pass the folder of the data set with {to}."),
)


def check_combinations(options: Mapping[str, Declared], values: Mapping[str, Any]) -> None:
    """Raise UsageError if options cannot be combined, or if one lacks an option that it requires."""
    used = {name for name, option in options.items() if values[name] is not None and values[name] != option.default}
    for first, second, hint in _EXCLUDES:
        if {first, second} <= used:
            raise UsageError(Words(f"{{{first}}} and {{{second}}} exclude each other"), Words(hint))
    for name, other, hint in _REQUIRES:
        if name in used and other in options and other not in used:
            raise UsageError(Words(f"{{{name}}} requires {{{other}}}"), Words(hint))


def combinations_of(name: str, options: Iterable[str]) -> Words:
    """Return what users read in the help about an option: the options that it excludes, or requires."""
    excluded = [other for rule in _EXCLUDES if name in rule[:2] for other in rule[:2] if other != name]
    required = [rule.other for rule in _REQUIRES if rule.name == name]
    texts = [("Not with", " or ", excluded), ("Requires", " and ", required)]
    found = [(what, word.join(f"{{{each}}}" for each in names if each in options)) for what, word, names in texts]
    return Words(" ".join(f"{what} {names}." for what, names in found if names))
