"""How the joined records come into the target: written in a hidden folder first, then moved to their places.

A merge may be killed at any moment, and be run again:

    before the manifest is in its place    the hidden folder is dropped, and all begins anew; no part has lost anything
    after that                             the rest is moved, and the shards that were joined are removed
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from tipsseg.claim import LOCK_FILE
from tipsseg.error_log import ERRORS_FILE
from tipsseg.files import TEMPORARY_PREFIX, output_error, sweep, sweep_below
from tipsseg.journal import Journal
from tipsseg.manifest import MANIFEST_FILE
from tipsseg.run_record import RUN_FILE
from tipsseg.shards import SHARDS_FOLDER
from tipsseg.writers import FOLDERS, FORMATS

#: Begins the temporary names of a merge: in the target shards may be at work, which have temporary files too.
OWNER = "merge-"

#: The hidden folder while records are written into it.
JOINING = f"{TEMPORARY_PREFIX}{OWNER}joining"

#: The hidden folder once they are all written.
JOINED = f"{TEMPORARY_PREFIX}{OWNER}joined"

_KEPT = frozenset({LOCK_FILE, *(Journal.file_name(name) for name in FORMATS)})
_LAST = (MANIFEST_FILE, ERRORS_FILE, RUN_FILE)


def make_stage(target: Path) -> Path:
    """A new folder for the joined records of `target`, whose claim the caller has. Raises OutputError."""
    stage = target / JOINING
    try:
        stage.mkdir()
        (stage / MANIFEST_FILE).touch()  # also where no image was labelled
    except OSError as error:
        raise output_error(stage, error) from error
    return stage


def commit(target: Path) -> None:
    """Move the records of the stage, all of _LAST among them, to their places, and remove joined shards. Raises OutputError."""
    joined = target / JOINED
    try:
        (target / JOINING).rename(joined)
        for place in sorted(each for each in joined.rglob("*") if each.is_file() and each.name not in _LAST):
            there = target / place.relative_to(joined)
            there.parent.mkdir(parents=True, exist_ok=True)
            place.replace(there)
        (joined / MANIFEST_FILE).replace(target / MANIFEST_FILE)
    except OSError as error:
        raise output_error(target, error) from error
    settle(target)


def settle(target: Path) -> None:
    """Finish a merge that was broken off after its manifest was in its place; undo another. Raises OutputError.

    The caller has the claim of `target`.
    """
    joined = target / JOINED
    if joined.is_dir() and not (joined / MANIFEST_FILE).exists() and (target / MANIFEST_FILE).exists():
        try:
            _finish(target)
        except OSError as error:
            raise output_error(target, error) from error
    drop_stage(target)


def drop_stage(target: Path) -> None:
    """Remove the stage, and what else a merge that was killed left beside it.

    Where there are no shards, which may be at work, that is all that has a temporary name, but the journals of a run.
    """
    sweep([target], OWNER if (target / SHARDS_FOLDER).exists() else "", _KEPT)


def sweep_files(target: Path) -> None:
    """Remove what a merge that was killed left among the files of images."""
    sweep_below((target / folder for folder in FOLDERS), OWNER)


def _finish(target: Path) -> None:
    for name in _LAST:
        with suppress(FileNotFoundError):  # in its place already
            (target / JOINED / name).replace(target / name)
    errors = target / ERRORS_FILE
    if errors.exists() and not errors.stat().st_size:  # no such file where no image failed
        errors.unlink()
    shards = target / SHARDS_FOLDER
    if shards.exists():
        shards.rename(target / f"{TEMPORARY_PREFIX}{OWNER}{secrets.token_hex(8)}")  # `sweep` removes it
