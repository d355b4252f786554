"""`tipsseg check --restore`: rebuild the record of an output folder from its masks, run.json and manifest.jsonl."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from tipsseg.address import as_address
from tipsseg.errors import ImageError, OtherSchemaError, OutputError, RecordError
from tipsseg.folder.mask import envelope
from tipsseg.images.access import below, exists, identify
from tipsseg.images.decoders import image_extensions
from tipsseg.regions.components import count_labels
from tipsseg.run.entry import (
    ERRORS_FILE,
    MANIFEST_FILE,
    ROWS,
    Correction,
    Entry,
    Facts,
    FileRow,
    ObjectScore,
    make_entry,
    object_scores,
    read_failure,
)
from tipsseg.run.files import Files, digest_of
from tipsseg.run.folder import clean_up_folder
from tipsseg.run.labels import RunContext, read_labels, scored_objects
from tipsseg.run.lock import FolderLock
from tipsseg.run.record import RUN_FILE, read_record, read_run_files, run_context, run_record, stored_run
from tipsseg.run.spec import RunInfo, check_hint
from tipsseg.run.state import STATE_FILE, STATE_FOLDER, State
from tipsseg.run.summary import CERTAIN, corrected_summary
from tipsseg.types import ImageRef
from tipsseg.util.files import (
    Fingerprint,
    actual_path,
    is_inside,
    open_regular,
    output_error,
    read_regular,
    remove_file,
    stamp,
)
from tipsseg.util.json import parse, take
from tipsseg.util.progress import Progress, Verbosity, progress_for
from tipsseg.util.text import join_first, pluralize

#: The record while it is rebuilt.
_REBUILT = f"{STATE_FOLDER}/rebuilt.db"


def restore_folder(folder: str | Path, *, images: str | Path | None = None, verbose: Verbosity = None) -> None:
    """Rebuild the record of an output folder. A mask that differs from its line of manifest.jsonl, or has none, is a person's.

    Args:
        folder: The output folder.
        images: The folder of the images, if they have moved.
        verbose: See `check_folder`.

    Raises:
        RecordError: The folder has a sound record, or run.json cannot be read.
        OutputError: The folder cannot be written.
    """
    with progress_for(verbose) as progress:
        _rebuild(Path(folder), None if images is None else as_address(images), progress)


def _rebuild(folder: Path, images: Path | None, progress: Progress) -> None:
    lock = FolderLock(folder)
    try:
        clean_up_folder(folder)
        if _is_sound(folder):
            raise RecordError(folder, "its record is sound", "A rebuild is not necessary.")
        info = read_record(folder / RUN_FILE, check_hint(folder))
        _remove(folder / _REBUILT)
        with closing(State(folder, _REBUILT)) as state:
            _restore(state, replace(info, ended=info.ended or datetime.now(UTC)), images, progress)
        path, number = folder / STATE_FILE, 1
        while os.path.lexists(aside := path.with_name(f"{path.name}.damaged{number}")):
            number += 1
        try:
            if os.path.lexists(path):
                path.replace(aside)
                progress.note(f"The damaged record is kept as {aside}.")
            _remove(path)  # its logs
            (folder / _REBUILT).replace(path)
        except OSError as error:
            raise output_error(path, error) from error
    finally:
        lock.give_back()


def _is_sound(folder: Path) -> bool:
    """Return True if a folder has a record. Raise OutputError if it cannot be opened, though it may be sound."""
    try:
        with closing(State(folder)) as state:
            state.verify()
            return stored_run(state) is not None
    except (RecordError, OtherSchemaError):  # of another version is what run.json says
        return False


def _remove(path: Path) -> None:
    """Remove a database with its logs."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        remove_file(path.with_name(path.name + suffix))


def _restore(state: State, info: RunInfo, images: Path | None, progress: Progress) -> None:
    """Record the images of the manifest, then masks that it lacks, then the failures."""
    context, files = run_context(info), Files(info.spec.output)
    lines, failures = _lines(state.folder / MANIFEST_FILE), _lines(state.folder / ERRORS_FILE)
    state.begin()  # it writes these files again
    state.set_meta("run", run_record(info))
    state.set_files("", read_run_files(state.folder))
    theirs, unknown, seen, former = list[str](), list[str](), set[str](), dict[str, tuple[str, ...]]()
    for line in lines:
        with suppress(ValueError):
            entry, rows = _read_line(line)
            if names := take(parse(line), "former", tuple[str, ...] | None):
                former[entry.image] = names
            own = [row for row in rows if row.name == context.mask_format]
            seen |= {row.place for row in own}
            if any(digest_of(files.path(row.place)) not in ("", row.digest) for row in own) and not entry.corrected:
                theirs.append(entry.image)  # the first command that writes adopts it
            state.add(replace(entry, sealed=_sealed(files, own)), rows, {})
    for path in () if info.spec.is_raster else sorted((context.output / "masks").rglob("*.png")):
        if files.place(path) in seen:
            continue
        found = _adopt(path, info, context, files, images)
        if found is None:
            unknown.append(str(path))
        else:
            state.add(*found, {})
            theirs.append(found[0].image)
    if former:
        state.set_meta("former", former)
    for line in failures:
        failure = read_failure(line)
        if failure is not None and failure.image not in state:
            state.fail(failure)
    state.end()
    command = info.noted.command if info.noted else ""
    progress.note(
        f"Rebuilt the record of {pluralize(len(state), 'image')} in {state.folder}. To complete it, run: {command}"
    )
    for paths, what in (
        (theirs, "not as the manifest lists them, so taken as corrected by you"),
        (unknown, "without an image, which were left alone"),
    ):
        if paths:
            progress.note(f"{pluralize(len(paths), 'mask')} {what}: {join_first(paths, 20)}.")


def _lines(path: Path) -> list[bytes]:
    """Return the complete lines of a file; none if it is missing."""
    with suppress(FileNotFoundError), open_regular(path) as file:
        return [line for line in file if line.endswith(b"\n")]
    return []


def _read_line(line: bytes) -> tuple[Entry, list[FileRow]]:
    """Parse a line of manifest.jsonl. Raise ValueError if it is invalid, or names places outside the folder."""
    record = parse(line)
    image, rows = take(record, "image", str), take(record, "written", tuple[FileRow, ...])
    if not all(is_inside(place) for place in (image, *(row.place for row in rows))):
        raise ValueError("a name leads out of the folder")
    keys = ("height", "width", "classes", "background", "ignored", "present", "transform", "epsg")
    summary = {key: record[key] for key in keys if key in record}
    entry = make_entry(
        ImageRef(actual_path(Path(), take(record, "path", str)), PurePosixPath(image)),
        Fingerprint(take(record, "size", int), take(record, "mtime_ns", int), take(record, "sha256", str | None)),
        Facts(summary, take(record, "objects", tuple[ObjectScore, ...])),
        next((str(row.digest) for row in rows if not row.shows), ""),
        take(record, "formats", tuple[str, ...]),
        given=take(record, "given", str | None),
        seconds=take(record, "seconds", float),
    )
    _ = entry.numbers
    correction = take(record, "corrected", Correction | None)
    if correction is not None:
        entry = entry.with_correction(correction)
    return replace(entry, version=take(record, "version", str)), [row for row in rows if row.digest != ROWS]


def _sealed(files: Files, rows: Iterable[FileRow]) -> bytes:
    """Return what the mask of an image says of itself; empty for a mask that says nothing, or cannot be read."""
    with suppress(OSError, ValueError):
        return next((envelope(read_regular(files.path(row.place))) for row in rows), b"")
    return b""


def _adopt(
    path: Path, info: RunInfo, context: RunContext, files: Files, images: Path | None
) -> tuple[Entry, list[FileRow]] | None:
    """Return the record of a mask that no line names, as a person's; None if its image is not found, or it is invalid."""
    root = images or (None if info.image_root is None else actual_path(Path(), info.image_root))
    if root is None:
        return None
    stem = path.relative_to(context.output / "masks").with_suffix("")
    suffixes = [""] if context.files.names == "full" else ["", *image_extensions()]  # a frame of a video has none
    names = [PurePosixPath(stem.with_name(stem.name + suffix)) for suffix in suffixes]
    ref = next((ref for name in names if exists((ref := ImageRef(below(root, str(name)), name)).path)), None)
    if ref is None:
        return None
    try:
        labels = read_labels(path, info.spec.reader.size(ref.path), context, by_hand=True)
        written, fingerprint = stamp(path), identify(ref.path)[0]
    except (ImageError, OSError, OutputError):
        return None
    height, width = labels.labels.shape
    before = {"height": height, "width": width, "classes": [], "background": {"confidence": None}}
    certain = dict.fromkeys(range(1, len(context.classes) + 1), CERTAIN)
    facts = Facts(
        corrected_summary(count_labels(labels.labels), context.classes, before),
        object_scores(scored_objects(labels, context.classes, (), certain, None)),
    )
    entry = make_entry(ref, fingerprint, facts, str(written.sha256), context.formats)
    row = FileRow(
        place=files.place(path), name="png", digest=written.sha256, size=written.size, mtime_ns=written.mtime_ns
    )
    return entry.with_correction(Correction()), [row]
