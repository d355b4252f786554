"""The records of runs and of shards that have ended, read from their output folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tipsseg.append_log import lines_of, whole_lines
from tipsseg.claim import is_claimed
from tipsseg.errors import InputError
from tipsseg.files import is_folder
from tipsseg.images import reason_of
from tipsseg.journal import journals_in
from tipsseg.manifest import MANIFEST_FILE, Entry, parse_entry
from tipsseg.merge_stage import JOINED
from tipsseg.printable import shell_word
from tipsseg.record_values import actual_path, short, take
from tipsseg.run_record import CONVERTING, RUN_FILE, Counts, read_run
from tipsseg.shards import SHARDS_FOLDER, Shard, shards_in
from tipsseg.writers import FORMATS, link_path, relative_path
from tipsseg.writers.classes import FILE_NAME as CLASSES_FILE

#: What to do with a run that was broken off.
RUN_AGAIN = "Run the command that made it again; what is done there stays."


@dataclass(frozen=True, slots=True)
class Part:
    """The records of a run that has ended, or of a shard of one.

    output   its output folder, in which the files of images are
    records  the folder of the records; the output folder, but for a shard
    shard    None for a whole run
    record   the content of its run.json, of which the rest is a part
    """

    output: Path
    records: Path
    shard: Shard | None
    record: Mapping[str, object]
    formats: tuple[str, ...]
    counts: Counts
    started: str
    ended: str


def find_parts(folder: Path, own: Path) -> list[Part]:
    """The parts in an output folder: a run, or the shards that are there. `own` is the folder whose claim the caller has.

    There may be journals of a run, or of a conversion, that came later and was broken off. Raises InputError for what is no output
    folder, is at work, or has not ended.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder", "Give output folders of tipsseg label.")
    if (folder / JOINED).exists():
        raise InputError(f"{folder}: a merge into it was broken off", "Run that merge again first.")
    shards = shards_in(folder)
    if not shards:
        return [_read_part(folder, folder, None, own)]
    if any(os.path.lexists(folder / name) for name in (RUN_FILE, MANIFEST_FILE)):
        raise InputError(f"{folder}: it holds both a whole run and shards", check_hint(folder))
    return [_read_part(folder, folder / SHARDS_FOLDER / shard.folder, shard, own) for shard in shards]


def refuse_at_work(records: Path, own: Path) -> None:
    """Raise InputError where a run is at work in a folder of records."""
    if records != own and is_claimed(records):
        raise InputError(f"{records}: a run is at work there", "Wait for it to end.")


def read_entries(part: Part) -> Iterator[Entry]:
    """The entries of its manifest, as they come. Raises InputError for a manifest that is not as an ended run leaves it."""
    path = part.records / MANIFEST_FILE
    try:
        for number, (_, line) in enumerate(lines_of(path), start=1):
            entry = parse_entry(line)
            if entry is None or not _is_sound(entry):
                raise InputError(f"{path}: line {number} is no entry", check_hint(part.output))
            yield entry
    except OSError as error:
        raise unreadable(path, error, part.output) from error


def own_paths(part: Part, entry: Entry) -> Iterator[Path]:
    """Where the files of an image are."""
    for name in entry.files.values():
        yield actual_path(part.output, name)


def link_paths(part: Part, entry: Entry) -> Iterator[Path]:
    """Where there are links to an image."""
    for name in entry.formats:
        path = link_path(name, PurePosixPath(entry.image))
        if path is not None:
            yield actual_path(part.output, str(path))


def unreadable(path: Path, error: Exception, output: Path) -> InputError:
    """The InputError for a file of an output folder that cannot be read."""
    return InputError(f"{path}: {reason_of(error)}", check_hint(output))


def check_hint(output: Path) -> str:
    """What to do where the records of an output folder are not as a run leaves them."""
    return f"See what is wrong with it: tipsseg check {shell_word(str(output))}"


def conversion_begun(record: Mapping[str, object], records: Path) -> tuple[str, ...]:
    """The formats of a conversion that was begun in a folder of records, whose run.json is `record`, and has not ended."""
    noted = record.get(CONVERTING)
    named = [name for name in noted if name in FORMATS] if isinstance(noted, list) else []
    return tuple(dict.fromkeys((*named, *journals_in(records))))


def broken_conversion(output: Path, formats: Sequence[str]) -> InputError:
    """The InputError where `tipsseg convert` into these formats was broken off: the manifest has them, and no file does."""
    names = ",".join(formats)
    return InputError(
        f"{output}: a conversion into {names} was broken off",
        f"Run it again first: tipsseg convert {shell_word(str(output))} --format {names}",
    )


def _read_part(output: Path, records: Path, shard: Shard | None, own: Path) -> Part:
    refuse_at_work(records, own)
    path = records / RUN_FILE
    record = read_run(records)
    if record is None:
        if os.path.lexists(path):
            raise InputError(f"{path}: not by tipsseg, or damaged", check_hint(output))
        raise InputError(
            f"{records}: no {RUN_FILE} in it, so it is not what tipsseg label leaves",
            "Give output folders of tipsseg label.",
        )
    if shard is None and record.get("shard") is not None:
        raise InputError(
            f"{records}: these are the records of one shard, {record['shard']}", "Give the output folder that has them."
        )
    if record.get("ended") is None:
        raise InputError(f"{records}: the run was broken off", RUN_AGAIN)
    try:
        counts = take(record, "counts", dict)
        part = Part(
            output,
            records,
            shard,
            record,
            tuple(take(record, "formats", list)),
            Counts(**{key: take(counts, key, int) for key in ("labelled", "unchanged", "failed")}),
            take(record, "started", str),
            take(record, "ended", str),
        )
        if shard is not None and record.get("shard") != str(shard):
            raise ValueError(f"`shard` is {short(record.get('shard'))}, not as its folder's name says")
        if unknown := [name for name in part.formats if name not in tuple(FORMATS)]:
            raise ValueError(f"unknown format {short(unknown[0])}")
    except ValueError as error:
        raise InputError(f"{path}: not as this version of tipsseg writes it: {error}", check_hint(output)) from error
    _check_files(part)
    return part


def _check_files(part: Part) -> None:
    """Raise InputError where the manifest is cut off or gone, or nothing says what the ids mean."""
    path = part.records / MANIFEST_FILE
    try:
        if whole_lines(path) < path.stat().st_size:
            raise InputError(f"{path}: its last line is cut off", RUN_AGAIN)
    except OSError as error:
        # A run that labelled nothing has none.
        if not isinstance(error, FileNotFoundError) or part.counts.labelled + part.counts.unchanged:
            raise unreadable(path, error, part.output) from error
    if not (part.output / CLASSES_FILE).is_file():
        raise InputError(f"{part.output / CLASSES_FILE}: no such file", RUN_AGAIN)


def _is_sound(entry: Entry) -> bool:
    """Whether its files are named after the image, and are so below the output folder."""
    if any(part in ("", ".", "..") for part in entry.image.split("/")) or not FORMATS.keys() >= set(entry.formats):
        return False
    paths = {name: relative_path(name, PurePosixPath(entry.image)) for name in entry.formats}
    return entry.files == {name: str(path) for name, path in paths.items() if path is not None}
