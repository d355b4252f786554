"""What writers have to know of a run that has ended, by its records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tipsseg.errors import InputError
from tipsseg.file_options import FileOptions, parse_file_options
from tipsseg.parts import Part, check_hint, unreadable
from tipsseg.record_values import take
from tipsseg.records import LabelClass
from tipsseg.run_record import RUN_FILE
from tipsseg.writers import RunContext
from tipsseg.writers.classes import FILE_NAME as CLASSES_FILE
from tipsseg.writers.classes import read_classes


def run_context(part: Part, record: Mapping[str, object], output: Path, records: Path) -> RunContext:
    """The context for writing into these folders, whose run.json is `record`, what `part` wrote into its own. Raises InputError."""
    classes = _classes(part)
    info = {**_info(record), "vocabulary": [each.name for each in classes]}
    return RunContext(output, records, classes, info, file_options(part))


def _classes(part: Part) -> tuple[LabelClass, ...]:
    path = part.output / CLASSES_FILE
    try:
        return read_classes(part.output)
    except OSError as error:
        raise unreadable(path, error, part.output) from error
    except ValueError as error:
        raise _other_version(path, error, part.output) from error


def file_options(part: Part) -> FileOptions:
    """The options of files that the run of a part had. Raises InputError."""
    try:
        return parse_file_options(take(part.record, "options", dict))
    except ValueError as error:
        raise _other_version(part.records / RUN_FILE, error, part.output) from error


def _info(record: Mapping[str, object]) -> dict[str, object]:
    model = record.get("model")
    of_model = model if isinstance(model, dict) else {}
    found = [
        (record, "version", "version"),
        (record, "command", "command"),
        (of_model, "id", "model"),
        (of_model, "revision", "revision"),
    ]
    return {name: source[key] for source, key, name in found if key in source}


def _other_version(path: Path, error: ValueError, output: Path) -> InputError:
    return InputError(f"{path}: not as this version of tipsseg writes it: {error}", check_hint(output))
