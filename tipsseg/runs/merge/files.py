"""Files of images, those of whole formats, manifest.jsonl and errors.jsonl of runs that are joined."""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError
from tipsseg.formats import FORMATS, Rows, RowsFile, RunContext, rows_file, run_files
from tipsseg.store.classes_file import FILE_NAME as CLASSES_FILE
from tipsseg.store.error_log import ERRORS_FILE
from tipsseg.store.journal import Journal
from tipsseg.store.manifest import MANIFEST_FILE, Manifest, ManifestEntry
from tipsseg.store.merge_stage import OWNER, SET_ASIDE, stranger_error, strangers_in_shards
from tipsseg.store.reader import FinishedRun, check_hint, image_paths, link_paths, read_entries, unreadable
from tipsseg.store.run_record import RUN_FILE, run_record
from tipsseg.store.spec import RunInfo
from tipsseg.types import ImageRef, name_order
from tipsseg.util.append_log import lines_of
from tipsseg.util.files import atomic_write, json_bytes, open_regular, read_regular
from tipsseg.util.fingerprint import file_record, fingerprint
from tipsseg.util.json_values import parse
from tipsseg.util.ownership import Ownership, write_ahead_logs


def run_paths(target: Path, formats: Sequence[str]) -> list[Path]:
    """Where the files are that these formats have for the whole run."""
    return [target / file for name in formats for file in FORMATS[name].files]


def copy_classes(source: Path, stage: Path) -> None:
    """Copy classes.json of an output folder. Raises InputError and OutputError."""
    try:
        data = read_regular(source / CLASSES_FILE)
    except OSError as error:
        raise unreadable(source / CLASSES_FILE, error, source) from error
    atomic_write(stage / CLASSES_FILE, data, OWNER)


def keep_asides(parts: Sequence[FinishedRun], target: Path, stage: Path) -> None:
    """Keep what only shards in `target`, which are removed, have: write-ahead logs, and lines that could not be read.

    Raises InputError and OutputError.
    """
    aside: dict[str, bytes] = {}
    for part in parts:
        if part.output == target:
            names = (*SET_ASIDE, *(log.name for log in write_ahead_logs(part.state)))
            for path in (part.state / name for name in names if os.path.lexists(part.state / name)):
                try:
                    aside[path.name] = aside.get(path.name, b"") + read_regular(path)
                except OSError as error:
                    raise unreadable(path, error, part.output) from error
    for name, data in aside.items():
        atomic_write(stage / name, data, OWNER)


def refuse_strangers(parts: Sequence[FinishedRun], target: Path) -> None:
    """Raise OutputError where there is a file in `target` that is not of the parts, and would be replaced or removed."""
    formats = {name for part in parts for entry in read_entries(part) for name in entry.formats}
    formats.update(parts[0].formats)
    names = [RUN_FILE, MANIFEST_FILE, ERRORS_FILE, *SET_ASIDE]
    names += [file for name in formats for file in FORMATS[name].files]
    if all(part.output != target for part in parts):
        names.append(CLASSES_FILE)
    for path in chain((target / name for name in names), strangers_in_shards(target)):
        if os.path.lexists(path):
            raise stranger_error(path)
    for part in parts:
        for entry in read_entries(part):
            for path, place in _places(part, entry, target):
                is_copied(path, place)


def copy_own_files(part: FinishedRun, entry: ManifestEntry, target: Path, ownership: Ownership) -> None:
    """Copy the files of an image as they are, but for those that are copied already. Raises InputError and OutputError."""
    ref = ImageRef(Path(), PurePosixPath(entry.image))
    links = set(link_paths(part, entry))
    for path, place in _places(part, entry, target):
        if is_copied(path, place):
            continue
        if path in links:
            ownership.link(replace(ref, path=path), place, ours=False)
            continue
        try:
            status, file = path.stat(), open_regular(path)
        except OSError as error:
            raise unreadable(path, error, part.output) from error
        with file:
            ownership.copy(ref, file, place, (status.st_atime_ns, status.st_mtime_ns))


def is_copied(path: Path, place: Path) -> bool:
    """Whether a file of an image has been copied to its place. Raises OutputError where another file is there."""
    if not os.path.lexists(place):
        return False
    if not _is_same(path, place):
        raise stranger_error(place)
    return True


def write_run_files(parts: Sequence[FinishedRun], manifest: Manifest, context: RunContext) -> None:
    """Write the files that formats have for the whole run, in the order of the names. Raises InputError and OutputError."""
    for name in FORMATS:
        images = manifest.holding(name)
        # Where images are left from a run in a format that later runs did not have, the files go on too.
        if not images and name not in parts[0].formats:
            continue
        for file in run_files(name, context):
            if not isinstance(file, RowsFile):
                file.write(images, lambda _: ())
                continue
            with closing(Journal(name, file, context.state, ())) as journal:
                for part in parts:
                    for image, records in _records(name, part):
                        journal.add(image, records)
                journal.write(images)


def write_joined_run(parts: Sequence[FinishedRun], info: RunInfo, stage: Path, ownership: Ownership) -> None:
    """Write run.json of the whole into the stage; its `files` are where they will be. Raises InputError and OutputError."""
    begin = f"{stage.name}/"
    files = {place.removeprefix(begin): file for place, file in ownership.record().items()}
    classes = (stage if (stage / CLASSES_FILE).exists() else parts[0].output) / CLASSES_FILE
    try:
        files[CLASSES_FILE] = file_record(fingerprint(classes))
    except OSError as error:
        raise unreadable(classes, error, parts[0].output) from error
    atomic_write(stage / RUN_FILE, json_bytes({**run_record(info), "files": files}, indent=2) + b"\n", OWNER)


def join_errors(parts: Sequence[FinishedRun], labelled: Manifest, stage: Path) -> int:
    """Write errors.jsonl, one line an image, none for those that are labelled; returns how many lines.

    There is no such file where there are none. Raises InputError and OutputError.
    """
    failed: dict[str, bytes] = {}
    for part in parts:
        path = part.state / ERRORS_FILE
        try:
            for _, line in lines_of(path):
                with suppress(ValueError, KeyError, TypeError):  # as a run does, what is no record is passed over
                    failed.setdefault(str(parse(line)["image"]), line)
        except OSError as error:
            raise unreadable(path, error, part.output) from error
    left = sorted((image for image in failed if image not in labelled), key=name_order)
    if left:
        atomic_write(stage / ERRORS_FILE, b"".join(failed[image] + b"\n" for image in left))
    return len(left)


def _records(name: str, part: FinishedRun) -> Iterator[tuple[str, Rows]]:
    """The records that a part has of its images in a format that keeps some. Raises InputError."""
    images = list(dict.fromkeys(entry.image for entry in read_entries(part) if name in entry.formats))
    wanted = set(images)
    file = rows_file(name, RunContext(part.output, part.state, (), {}))
    if file is None or not wanted:
        return
    try:
        for image, records in file.read(images):
            if image in wanted:
                wanted.discard(image)
                yield image, records
    except (OSError, ValueError) as error:
        raise unreadable(file.path, error, part.output) from error
    if wanted:
        raise InputError(f"{file.path}: {min(wanted, key=name_order)} is not in it", check_hint(part.output))


def _places(part: FinishedRun, entry: ManifestEntry, target: Path) -> Iterator[tuple[Path, Path]]:
    """The files of an image that are to be copied, each with its place in `target`."""
    if part.output != target:
        # Where the image is gone there is nothing to link to.
        links = (path for path in link_paths(part, entry) if path.exists())
        for path in chain(links, image_paths(part, entry)):
            yield path, target / path.relative_to(part.output)


def _is_same(path: Path, place: Path) -> bool:
    """Whether a link leads to the same file as another, or a file has the content of another."""
    try:
        if place.is_symlink():
            return path.is_symlink() and place.samefile(path)
        one, other = path.stat(), place.stat()
        if not stat.S_ISREG(other.st_mode) or one.st_size != other.st_size:
            return False
        return one.st_mtime_ns == other.st_mtime_ns or filecmp.cmp(path, place, shallow=False)
    except OSError:
        return False
