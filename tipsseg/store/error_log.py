"""errors.jsonl: one line per image that failed. Without failures there is no such file."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from tipsseg.store.results import Failed
from tipsseg.types import ImageRef, name_order
from tipsseg.util.append_log import AppendLog, lines_of
from tipsseg.util.files import atomic_write, is_folder, json_bytes, read_error, remove_file
from tipsseg.util.json_values import parse
from tipsseg.util.record_paths import actual_name, actual_path, is_inside

ERRORS_FILE = "errors.jsonl"

#: What of it could not be read, kept beside it.
UNREADABLE_ERRORS = "errors-unreadable.jsonl"


class ErrorLog:
    """The failures of a run, and the failures of earlier runs in the same folder that are not mended."""

    def __init__(self, state: Path) -> None:
        """Raises OutputError where the file cannot be read."""
        self.path = state / ERRORS_FILE
        self._log: AppendLog | None = None
        self._own: set[str] = set()
        self._before = {record["image"] for record, _ in _lines(self.path)}

    def add(self, failed: Failed) -> None:
        """Note a failure. Raises OutputError."""
        self._log = self._log or AppendLog(self.path)
        self._log.append(json_bytes(_record(failed)))
        self._own.add(failed.ref.name)

    def mend(self, image: str) -> None:
        """Note that an image is labelled, whatever an earlier run said of it."""
        self._before.discard(image)
        self._own.discard(image)

    def finish(self) -> None:
        """Leave one line per image, without images that are mended, or that failed in an earlier run and are gone.

        Lines that cannot be read go to UNREADABLE_ERRORS. Raises OutputError.
        """
        self.close()
        _set_aside(self.path)
        left = {
            record["image"]: line
            for record, line in _lines(self.path)
            if record["image"] in self._own
            or (record["image"] in self._before and _may_fail(actual_path(Path(), record["path"])))
        }
        if left:
            atomic_write(self.path, b"".join(left[image] + b"\n" for image in sorted(left, key=name_order)))
        else:
            self.clear()

    def clear(self) -> None:
        """Forget all failures. Raises OutputError."""
        self.close()
        remove_file(self.path)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._log is not None:
            self._log.close()
            self._log = None


def read_failed(state: Path) -> tuple[ImageRef, ...]:
    """The images in errors.jsonl of a state folder, in the order of their names. Raises OutputError."""
    path = state / ERRORS_FILE
    found = {record["image"]: record["path"] for record, _ in _lines(path)}
    return tuple(
        ImageRef(actual_path(Path(), found[image]), PurePosixPath(actual_name(image)))
        for image in sorted(found, key=name_order)
    )


def read_reasons(state: Path) -> dict[str, tuple[str, str]]:
    """The path and the reason of each image in errors.jsonl of a state folder, by its name. Raises OutputError."""
    return {
        record["image"]: (record["path"], str(record.get("reason", ""))) for record, _ in _lines(state / ERRORS_FILE)
    }


def _may_fail(path: Path) -> bool:
    """Whether what failed in an earlier run may be as it was: it is still there, and no folder that can be listed by now."""
    return path.exists() and not (is_folder(path) and os.access(path, os.R_OK | os.X_OK))


def _record(failed: Failed) -> dict[str, str]:
    error = failed.error
    return {
        "image": failed.ref.name,
        "path": str(failed.ref.path),
        "reason": error.reason,
        "hint": error.hint,
    }


def _set_aside(path: Path) -> None:
    """Keep lines that cannot be read beside the file, as nobody else has them. Raises OutputError."""
    try:
        strange = [line for _, line in lines_of(path) if _parsed(line) is None]
    except OSError as error:
        raise read_error(path, error) from error
    if strange:
        with AppendLog(path.with_name(UNREADABLE_ERRORS)) as log:
            for line in strange:
                log.append(line)


def _parsed(line: bytes) -> dict[str, str] | None:
    """The record in a line; None for a line that cannot be read, or that names a path outside of an output folder."""
    try:
        record = parse(line)
    except ValueError:
        return None
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("image"), str)
        or not isinstance(record.get("path"), str)
    ):
        return None
    return record if is_inside(actual_name(record["image"])) and "\0" not in record["path"] else None


def _lines(path: Path) -> list[tuple[dict[str, str], bytes]]:
    try:
        return [(record, line) for _, line in lines_of(path) if (record := _parsed(line)) is not None]
    except OSError as error:
        raise read_error(path, error) from error
