"""Check the image records of a run: they must be complete, belong to the run, and match its vocabulary.

The records are read from the database; manifest.jsonl is compared with its last export.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tipsseg.formats import FORMATS, file_path, has_image_files, possible_paths
from tipsseg.formats.base import output_name
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, expected_files
from tipsseg.store.open_run import Run
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.spec import RunInfo
from tipsseg.store.stored_image import RunImage
from tipsseg.types import printable_path
from tipsseg.util.files import TEMPORARY_PREFIX
from tipsseg.util.json_values import short
from tipsseg.util.problem import Problem, size_text

_RUN_AGAIN = "run the original command again"
_ONE_NAME = "label it into another folder, under one name"


def check_records(run: Run) -> Iterator[Problem]:
    """Yield the faults of the records as a whole, for example missing images."""
    records, path = run.records, run.state / MANIFEST_FILE
    labelled = 0 if run.info.ended is None else run.info.images
    if records.unreadable:
        yield Problem(path, f"{records.unreadable}; {_RUN_AGAIN}, which writes the line again, or labels the image")
    elif len(records) < labelled:
        what = f"it has {len(records)} images, but {RUN_FILE} counts {labelled}"
        yield Problem(path, f"{what}; {_RUN_AGAIN}, which labels the missing ones")
    for image, first in records.same_paths():
        yield Problem(path, f"{image} and {first} are the same file, labelled under two names; {_ONE_NAME}")


def check_export(run: Run) -> Iterator[Problem]:
    """Yield a problem if manifest.jsonl differs from what a finished run exported."""
    records, path = run.records, run.state / MANIFEST_FILE
    if run.info.ended is not None and not (records.taken_over or records.broken_off or records.exported):
        what = "changed since it was written" if os.path.lexists(path) else "missing"
        yield Problem(path, f"{what}; {_RUN_AGAIN}, which writes it again")


def check_entry(image: RunImage) -> Iterator[str]:
    """Yield the ways in which an entry contradicts its run, the vocabulary or itself."""
    run, entry = image.run.info, image.entry
    if (shard := run.spec.shard) is not None and not shard.takes(entry.image):
        yield f"not an image of shard {shard}"
    expected, known = expected_files(entry, entry.formats, run.spec.files), known_files(run, entry)
    for key in sorted(expected.keys() | entry.files.keys()):
        if entry.files.get(key) != expected.get(key):
            moves = "; tipsseg convert moves it" if entry.files.get(key) == known.get(key) else ""
            yield f"its {key} file is {short(entry.files.get(key))}, not {short(expected.get(key))}{moves}"
    for shown in entry.numbers.classes:
        if image.stored.classes.get(shown.id) != shown.name:
            yield f"class {shown.id} ({shown.name}) is not in the vocabulary"
    height, width = image.stored.size
    number = sum(image.stored.pixels.values())
    if number != height * width and not run.spec.options.overlap:
        yield f"{number} pixels in total, but {size_text(image.stored.size)} has {height * width}"


def known_files(run: RunInfo, entry: ManifestEntry) -> dict[str, str]:
    """Return the files of an image by key: the recorded paths, or the expected ones if tipsseg puts none there."""
    files = expected_files(entry, entry.formats, run.spec.files)
    places = {key: possible_paths(key, PurePosixPath(entry.image), run.spec.files) for key in files}
    return files | {key: file for key, file in entry.files.items() if file in places.get(key, ())}


def check_shared_files(runs: Sequence[Run]) -> Iterator[Problem]:
    """Yield the images that share files with another image, because their names differ only in the suffix."""
    if len(_hashes(_output_name(run, name) for run in runs for name in run.records.names())) == sum(map(len, runs)):
        return
    owners: dict[str, tuple[str, Run]] = {}
    for run in runs:
        for name in run.records.names():
            owner, other = owners.setdefault(_output_name(run, name), (name, run))
            if owner != name and has_image_files(_formats(run, name) & _formats(other, owner)):
                yield Problem(run.state / MANIFEST_FILE, f"{name}: it shares its files with {owner}")


def _hashes(names: Iterable[str]) -> NDArray[np.int64]:
    """Return the different hashes of names, sorted. They take a tenth of the memory of the names.

    Two names have the same 64 bits once in 2^64 pairs.
    """
    return np.unique(np.fromiter(map(hash, names), np.int64))


def _output_name(run: Run, image: str) -> str:
    return str(output_name(PurePosixPath(image), run.info.spec.files.names))


def _formats(run: Run, name: str) -> set[str]:
    _, formats = run.records.path_and_formats(name) or ("", ())
    return set(formats)


def find_orphans(output: Path, runs: Sequence[Run], moved: Container[str]) -> Iterator[Problem]:
    """Yield the per-image files that belong to no image, except hidden files, which programs that read masks ignore.

    Args:
        output: The output folder.
        runs: All runs in it.
        moved: Per-image files at the paths of another version or another `val_fraction`.
    """
    for name, form in FORMATS.items():
        if form.folder is None:
            continue
        files = _hashes(file for run in runs for file in _files_of(name, run))
        for path in _walk(output / form.folder):
            file = printable_path(path.relative_to(output))
            if path.suffix != form.suffix or path.name.startswith(".") or file in moved:
                continue
            place = int(np.searchsorted(files, hash(file)))
            if place == len(files) or files[place] != hash(file):
                yield Problem(path, "it belongs to no image in the manifest")


def _files_of(name: str, run: Run) -> Iterator[str]:
    """Return the paths of a format's files of all images."""
    options = run.info.spec.files
    if FORMATS[name].has_parts:
        entries = (entry for entry in run.records.entries() if name in entry.formats)
        return (file for entry in entries for file in expected_files(entry, (name,), options).values())
    return (str(file_path(name, PurePosixPath(image), options)) for image in run.records.holding(name))


def find_temporaries(output: Path) -> Iterator[Problem]:
    """Yield temporary files and folders that a killed process left."""
    for folder, folders, names in os.walk(output):
        folders.sort()
        for name in sorted((*folders, *names)):
            if name.startswith(TEMPORARY_PREFIX):
                yield Problem(Path(folder, name), "left by a killed process; remove it")
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]


def _walk(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)
