"""What writers have to know of a run that has ended, by its records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tipsseg.formats.base import RunContext
from tipsseg.options import FileOptions, parse_file_options
from tipsseg.store.reader import FinishedRun, other_version
from tipsseg.store.run_record import RUN_FILE
from tipsseg.util.json_values import take


def run_context(part: FinishedRun, record: Mapping[str, object], output: Path, records: Path) -> RunContext:
    """The context for writing into these folders, whose run.json is `record`, what `part` wrote into its own. Raises InputError."""
    info = {**_info(record), "vocabulary": [each.name for each in part.classes]}
    return RunContext(output, records, part.classes, info, file_options(part))


def file_options(part: FinishedRun) -> FileOptions:
    """The options of files that the run of a part had. Raises InputError."""
    try:
        return parse_file_options(take(part.record, "options", dict))
    except ValueError as error:
        raise other_version(part.state / RUN_FILE, error, part.output) from error


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
