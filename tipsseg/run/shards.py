"""Find the state folders of shards. Shards divide a run among several processes by a hash of the image names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tipsseg.errors import InputError
from tipsseg.options.values import Shard

#: The folder in the output folder that contains the state folders of shards.
SHARDS_FOLDER = "shards"


def state_folder(output: Path, shard: Shard | None) -> Path:
    """Return the state folder of a run: the output folder, or the shard's own folder in it."""
    return output if shard is None else output / SHARDS_FOLDER / shard.folder


def output_folder(state: Path) -> Path:
    """Return the output folder that a state folder belongs to."""
    return state.parents[1] if state.parent.name == SHARDS_FOLDER else state


def parse_folder(name: str) -> Shard | None:
    """Return the shard with this folder name; None for other names."""
    if not (match := re.fullmatch(r"([1-9][0-9]{0,8})-of-([1-9][0-9]{0,8})", name)):
        return None
    index, count = int(match[1]), int(match[2])
    return Shard(index, count) if index <= count else None


def shards_in(output: Path) -> list[Shard]:
    """Return the shards in an output folder, in order. Raise InputError if the folder cannot be listed."""
    place = output / SHARDS_FOLDER
    try:
        found = [parse_folder(name) for name in os.listdir(place)]  # noqa: PTH208  names are enough
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}", "Check its permissions.") from error
    return sorted((shard for shard in found if shard is not None), key=lambda shard: (shard.count, shard.index))


def state_folders(output: Path) -> list[Path]:
    """Return the state folders of the shards in an output folder, in order. Raise InputError as `shards_in` does."""
    return [state_folder(output, shard) for shard in shards_in(output)]


def missing_shards(present: Sequence[int], count: int) -> str:
    """Return the numbers of missing shards, out of `count`, as text: "2, 5-7"; "" if all are present."""
    gaps: list[str] = []
    before = 0
    for index in [*sorted(present), count + 1]:
        first, last = before + 1, index - 1
        if first <= last:
            gaps.append(str(first) if first == last else f"{first}-{last}")
        before = index
    return ", ".join(gaps)
