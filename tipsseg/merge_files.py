"""Files of images, those of whole formats, manifest.jsonl and errors.jsonl of runs that are joined."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from tipsseg.append_log import lines_of
from tipsseg.error_log import ERRORS_FILE
from tipsseg.errors import InputError
from tipsseg.files import atomic_path, atomic_write
from tipsseg.journal import Journal
from tipsseg.links import link_image
from tipsseg.manifest import Entry, Manifest
from tipsseg.merge_stage import OWNER
from tipsseg.parts import Part, check_hint, link_paths, own_paths, read_entries, unreadable
from tipsseg.records import name_order
from tipsseg.writers import FORMATS, RecordFile, Records, RunContext, record_file, run_files
from tipsseg.writers.classes import FILE_NAME as CLASSES_FILE


def run_paths(target: Path, formats: Sequence[str]) -> list[Path]:
    """Where the files are that these formats have for the whole run."""
    return [target / file for name in formats for file in FORMATS[name].files]


def copy_classes(source: Path, target: Path) -> None:
    """Copy classes.json from one output folder to another, which may be the same. Raises InputError and OutputError."""
    if source != target:
        try:
            data = (source / CLASSES_FILE).read_bytes()
        except OSError as error:
            raise unreadable(source / CLASSES_FILE, error, source) from error
        atomic_write(target / CLASSES_FILE, data, OWNER)


def copy_own_files(part: Part, entry: Entry, target: Path) -> None:
    """Copy the files of an image, but for those that an earlier merge has copied. Raises InputError and OutputError."""
    for path in link_paths(part, entry):
        if path.exists():  # where the image is gone there is nothing to link to
            link_image(path, target / path.relative_to(part.output), OWNER)
    for path in own_paths(part, entry):
        try:
            status, file = path.stat(), path.open("rb")
        except OSError as error:
            raise unreadable(path, error, part.output) from error
        with file:
            _copy(file, status, target / path.relative_to(part.output))


def write_run_files(parts: Sequence[Part], manifest: Manifest, context: RunContext) -> None:
    """Write the files that formats have for the whole run, in the order of the names. Raises InputError and OutputError."""
    for name in FORMATS:
        images = manifest.holding(name)
        # Where images are left from a run in a format that later runs did not have, the files go on too.
        if not images and name not in parts[0].formats:
            continue
        for file in run_files(name, context):
            if not isinstance(file, RecordFile):
                file.write(images, lambda _: ())
                continue
            with closing(Journal(name, file, context.records, ())) as journal:
                for part in parts:
                    for image, records in _records(name, part):
                        journal.add(image, records)
                journal.write(images)


def join_errors(parts: Sequence[Part], labelled: Manifest, stage: Path) -> int:
    """Write errors.jsonl, one line an image, none for those that are labelled; returns how many lines.

    It is written even where it is empty. Raises InputError and OutputError.
    """
    failed: dict[str, bytes] = {}
    for part in parts:
        path = part.records / ERRORS_FILE
        try:
            for _, line in lines_of(path):
                with suppress(ValueError, KeyError, TypeError):  # as a run does, what is no record is passed over
                    failed.setdefault(str(json.loads(line)["image"]), line)
        except OSError as error:
            raise unreadable(path, error, part.output) from error
    left = sorted((image for image in failed if image not in labelled), key=name_order)
    atomic_write(stage / ERRORS_FILE, b"".join(failed[image] + b"\n" for image in left))
    return len(left)


def _records(name: str, part: Part) -> Iterator[tuple[str, Records]]:
    """The records that a part has of its images in a format that keeps some. Raises InputError."""
    images = list(dict.fromkeys(entry.image for entry in read_entries(part) if name in entry.formats))
    wanted = set(images)
    file = record_file(name, RunContext(part.output, part.records, (), {}))
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


def _copy(file: IO[bytes], status: os.stat_result, target: Path) -> None:
    """Copy a file with its time, unless that is done already."""
    with suppress(OSError):
        there = target.stat()
        if (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            return
    with atomic_path(target, OWNER) as temporary:
        with temporary.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
