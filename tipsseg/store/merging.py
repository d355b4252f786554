"""A merge that has not ended, as whoever meets its target can tell: a hidden file is there from its beginning to its end."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.shards import state_folders
from tipsseg.types import printable_path
from tipsseg.util.files import TEMPORARY_PREFIX, atomic_write, is_file, json_bytes
from tipsseg.util.printable import shell_word
from tipsseg.util.record_paths import actual_name

#: The file. It names the folders that are joined; null stands for the target itself.
MERGE_FILE = f"{TEMPORARY_PREFIX}merging.json"


def begin_merge(target: Path, folders: Sequence[Path]) -> None:
    """Say in `target` that a merge of these folders has begun. Raises OutputError."""
    named = [None if folder == target else printable_path(folder.absolute()) for folder in folders]
    atomic_write(target / MERGE_FILE, json_bytes(named))


def is_begun(folder: Path) -> bool:
    """Whether a merge into a folder has begun and has not ended."""
    return is_file(folder / MERGE_FILE)


def is_unfinished(folder: Path) -> bool:
    """Whether a merge into a folder has begun and has not ended, and the folder is of no use until then.

    While the folder has shards and no run.json, the shards can be used as if no merge had begun: it will read them again.
    """
    if not is_begun(folder):
        return False
    beside_shards = any(is_file(state / RUN_FILE) for state in state_folders(folder))
    return os.path.lexists(folder / RUN_FILE) or not beside_shards


def finish_command(folder: Path) -> str:
    """The command that finishes the merge into a folder."""
    target = shell_word(str(folder))
    whole = os.path.lexists(folder / RUN_FILE)
    named = [target] if whole else [shell_word(str(each)) for each in folders_of(folder)]
    return f"tipsseg merge {' '.join(named) or 'OUT...'} -o {target}"


def folders_of(target: Path) -> list[Path]:
    """The folders of the merge that has begun in `target`; empty where they are not known."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        named = json.loads((target / MERGE_FILE).read_bytes())
        return [target if name is None else Path(actual_name(name)) for name in named]
    return []
