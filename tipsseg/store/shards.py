"""Shards: the parts of a run that is shared out among several processes, by a hash of the images' names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tipsseg.errors import InputError
from tipsseg.options.shard import Shard

#: The folder, in the output folder, that has the records of each shard in a folder of its own.
SHARDS_FOLDER = "shards"


def state_folder(output: Path, shard: Shard | None) -> Path:
    """The folder of a run's records: the output folder, or for a shard its own folder below that."""
    return output if shard is None else output / SHARDS_FOLDER / shard.folder


def parse_folder(name: str) -> Shard | None:
    """The shard whose folder has that name; None for the name of another folder."""
    if not (match := re.fullmatch(r"([1-9][0-9]{0,8})-of-([1-9][0-9]{0,8})", name)):
        return None
    index, count = int(match[1]), int(match[2])
    return Shard(index, count) if index <= count else None


def shards_in(output: Path) -> list[Shard]:
    """The shards that have a state folder in an output folder, in their order. Raises InputError where it cannot be listed."""
    place = output / SHARDS_FOLDER
    try:
        found = [parse_folder(name) for name in os.listdir(place)]  # noqa: PTH208  names are enough
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}", "Check its permissions.") from error
    return sorted((shard for shard in found if shard is not None), key=lambda shard: (shard.count, shard.index))


def state_folders(output: Path) -> list[Path]:
    """The state folders of the shards in an output folder, in the order of the shards. Raises InputError as `shards_in` does."""
    return [state_folder(output, shard) for shard in shards_in(output)]


def missing_shards(there: Sequence[int], count: int) -> str:
    """Which of `count` shards are not there, as "2, 5-7"; "" where none is missing."""
    gaps: list[str] = []
    before = 0
    for index in [*sorted(there), count + 1]:
        first, last = before + 1, index - 1
        if first <= last:
            gaps.append(str(first) if first == last else f"{first}-{last}")
        before = index
    return ", ".join(gaps)
