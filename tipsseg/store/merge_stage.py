"""How a merge comes into its target, so that it may be stopped at any moment and be run again.

    joining   the joined records are written into a hidden folder, then the files of images are copied
    joined    the hidden folder has its second name: all is there. The records are moved to their places, and the shards removed

A merge that was stopped before it was joined begins anew: no part has lost anything, and files that were copied stay. One that was
stopped after that is finished from the hidden folder alone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS, image_folders
from tipsseg.store.error_log import ERRORS_FILE
from tipsseg.store.error_log import UNREADABLE_FILE as UNREADABLE_ERRORS
from tipsseg.store.lock import LOCK_FILE
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.manifest import UNREADABLE_FILE as UNREADABLE_ENTRIES
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.shards import SHARDS_FOLDER, parse_folder, shards_in, state_folders
from tipsseg.types import printable_path
from tipsseg.util.files import (
    TEMPORARY_PREFIX,
    atomic_write,
    clean_up_below,
    is_file,
    is_folder,
    json_bytes,
    output_error,
)
from tipsseg.util.json_values import actual_name, parse, take
from tipsseg.util.ownership import LOG_PREFIX
from tipsseg.util.printable import shell_word

#: Begins the temporary names of a merge: in the target shards may be at work, which have temporary files too.
OWNER = "merge-"

#: The hidden folder while records are written into it, or files copied.
JOINING = f"{TEMPORARY_PREFIX}{OWNER}joining"

#: The hidden folder once all is there.
JOINED = f"{TEMPORARY_PREFIX}{OWNER}joined"

#: The file in JOINING that names the folders of the merge: null for the target itself.
_FOLDERS_FILE = "folders.json"

#: Temporary files of shards, see `RunContext.owner`.
_SHARD_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}[0-9]+-of-[0-9]+-")

#: Lines of records that could not be read.
SET_ASIDE = (UNREADABLE_ENTRIES, UNREADABLE_ERRORS)

#: What there may be in the folder of a shard, but for temporary files.
_SHARD_FILES = frozenset(
    {RUN_FILE, MANIFEST_FILE, ERRORS_FILE, *SET_ASIDE, *(file for form in FORMATS.values() for file in form.files)}
)


def is_unfinished(folder: Path) -> bool:
    """Whether a merge into a folder was begun and has not ended, so that the folder is no use to others.

    Where the shards are still there, they can be used as if no merge had been begun.
    """
    if is_folder(folder / JOINED):
        return True
    runs = (state / RUN_FILE for state in state_folders(folder))
    return is_folder(folder / JOINING) and not any(is_file(run) for run in runs)


def finish_command(folder: Path) -> str:
    """The command that finishes an unfinished merge into a folder."""
    target = shell_word(str(folder))
    named = [target] if is_folder(folder / JOINED) else [shell_word(str(each)) for each in _folders_of(folder)]
    return f"tipsseg merge {' '.join(named) or 'OUT...'} -o {target}"


@contextmanager
def new_stage(target: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """A folder for the joined records of `target`, whose claim the caller has, from these folders; removed where the block raises.

    Raises OutputError.
    """
    stage = target / JOINING
    try:
        _sweep(target)
        stage.mkdir()
        named = [None if folder == target else printable_path(folder.absolute()) for folder in folders]
        atomic_write(stage / _FOLDERS_FILE, json_bytes(named))
        (stage / MANIFEST_FILE).touch()  # also where no image was labelled
        yield stage
    except BaseException as error:
        with suppress(OSError):
            _sweep(target)
        if isinstance(error, OSError):
            raise output_error(stage, error) from error
        raise


def refuse_another(target: Path, folders: Sequence[Path]) -> None:
    """Raise OutputError where a merge of other folders into `target` was begun: files of those are in it."""
    begun = {os.path.realpath(folder) for folder in _folders_of(target)}
    if begun and begun != {os.path.realpath(folder) for folder in folders}:
        raise OutputError(
            target,
            "a merge of other folders into it has not ended",
            f"To give that merge up, remove {target / JOINING} and what was copied. To finish it: {finish_command(target)}",
        )


def sweep_files(target: Path) -> None:
    """Remove what a merge that was stopped left among the files of images."""
    clean_up_below((target / folder for folder in image_folders()), OWNER)


def commit(target: Path) -> None:
    """Let the stage, with all of the records in it, count; `finish` does the rest. Raises OutputError."""
    stage = target / JOINING
    try:
        for place in _files_in(stage):  # on the disk, before what they were made of is removed
            with place.open("rb+") as file:
                os.fsync(file.fileno())
        stage.rename(target / JOINED)
    except OSError as error:
        raise output_error(stage, error) from error


def take_back(target: Path) -> None:
    """Undo `commit`, before `finish`. Raises OutputError."""
    try:
        (target / JOINED).rename(target / JOINING)
    except OSError as error:
        raise output_error(target / JOINED, error) from error


def settle(target: Path) -> bool:
    """Finish a merge that was stopped after `commit`; whether there was one.

    The caller has the claim of `target`. Raises OutputError.
    """
    joined = target / JOINED
    if not is_folder(joined):
        return False
    try:
        whole = _is_whole(joined, target)
    except OSError as error:
        raise output_error(joined, error) from error
    if whole:
        finish(target)
    else:  # somebody took of it: the parts are all that there is
        take_back(target)
    return whole


def finish(target: Path) -> None:
    """Move the records of the stage to their places and remove the shards. Can be stopped and called again.

    Raises OutputError, also for what others put where the records belong, or among the shards.
    """
    joined = target / JOINED
    try:
        places = {place: target / place.relative_to(joined) for place in _files_in(joined)}
        for path in (*(there for there in places.values() if os.path.lexists(there)), *strangers_in_shards(target)):
            raise stranger_error(path)
        for place, there in places.items():
            there.parent.mkdir(parents=True, exist_ok=True)
            place.rename(there)
        if shards_in(target):  # under another name first: a part of the shards must not be taken for all
            (target / SHARDS_FOLDER).rename(target / f"{TEMPORARY_PREFIX}{OWNER}{secrets.token_hex(8)}")
        _sweep(target)
        shutil.rmtree(joined)
    except OSError as error:
        raise output_error(target, error) from error


def strangers_in_shards(target: Path) -> Iterator[Path]:
    """What is among the shards of `target`, with which it would be removed, and is not theirs. Raises OutputError."""
    shards = target / SHARDS_FOLDER
    if not shards_in(target):
        return
    try:
        for path in _below(shards):
            shard, *inner = path.relative_to(shards).parts
            known = path.name.startswith(TEMPORARY_PREFIX) or "/".join(inner) in _SHARD_FILES
            if parse_folder(shard) is None or not known:
                yield path
    except OSError as error:
        raise output_error(shards, error) from error


def stranger_error(path: Path) -> OutputError:
    """The OutputError for a file that is not of the run, and would be replaced or removed."""
    return OutputError(
        path, "what is there is not of the runs that are joined", "Move it away, or merge into another folder with -o."
    )


def _is_whole(joined: Path, target: Path) -> bool:
    """Whether there is all that makes a whole run, in the stage or in its place already. Raises OSError."""
    run, manifest = (
        next((folder / name for folder in (joined, target) if (folder / name).is_file()), None)
        for name in (RUN_FILE, MANIFEST_FILE)
    )
    if run is None or manifest is None:
        return False
    try:
        return take(parse(run.read_bytes()), "ended", str) != ""
    except ValueError:
        return False


def _files_in(stage: Path) -> list[Path]:
    """The records in a stage. Raises OSError."""
    return [path for path in _below(stage) if not path.is_symlink() and path != stage / _FOLDERS_FILE]


def _below(top: Path) -> Iterator[Path]:
    """The files, and the links to folders, below a folder, in a fixed order. Raises OSError."""
    for folder, folders, names in os.walk(top, onerror=_fail):
        folders.sort()
        for name in sorted((*names, *(each for each in folders if Path(folder, each).is_symlink()))):
            yield Path(folder, name)


def _fail(error: OSError) -> None:
    raise error


def _sweep(target: Path) -> None:
    """Remove what was left in `target` under temporary names, but write-ahead logs, and what is of shards, which may be at work.

    Raises OSError.
    """
    for name in os.listdir(target):  # noqa: PTH208  names are enough
        path = target / name
        kept = name in (LOCK_FILE, JOINED) or name.startswith(LOG_PREFIX) or _SHARD_TEMPORARY.match(name)
        if kept or not name.startswith(TEMPORARY_PREFIX):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _folders_of(target: Path) -> list[Path]:
    """The folders of the merge that was begun in `target`; none where that is not known."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        named = json.loads((target / JOINING / _FOLDERS_FILE).read_bytes())
        return [target if name is None else Path(actual_name(name)) for name in named]
    return []
