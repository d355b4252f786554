"""What a shell completes the values of options to."""

from __future__ import annotations

from collections.abc import Callable

from tipsseg.formats import FORMATS


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Completes to one of these."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def formats(incomplete: str) -> list[str]:
    """Completes the last name of a list with commas to a format that is not in the list."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in FORMATS if name.startswith(last) and name not in taken]


def models(incomplete: str) -> list[str]:
    """Completes to an id in weights.lock."""
    from tipsseg.weights.lock import read_lock

    return [name for name in read_lock() if name.startswith(incomplete)]


def presets(incomplete: str) -> list[str]:
    """Completes to the name of a preset vocabulary."""
    from tipsseg.vocabulary.files import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]
