"""run.json and errors.jsonl: what was run, on what, with which result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tipsseg import __version__
from tipsseg.errors import ImageError
from tipsseg.files import atomic_write, json_bytes, output_error
from tipsseg.records import BACKGROUND, ImageRef, LabelOptions
from tipsseg.vocabulary import Vocabulary
from tipsseg.vocabulary_file import entry_record

RUN_FILE = "run.json"
ERRORS_FILE = "errors.jsonl"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What decides the labels of a run, and where it ran; all values fit into JSON.

    model     id or folder, repository and revision (None for a folder), and sha256 of each file where known
    """

    command: str
    model: Mapping[str, object]
    device: str
    dtype: str
    options: LabelOptions
    min_area: int
    vocabulary: Vocabulary
    formats: tuple[str, ...]
    started: datetime


def write_run(output: Path, facts: RunFacts, counts: Mapping[str, int] | None) -> Path:
    """Write run.json; `counts` None says that the run is still going, or was broken off. Raises OutputError."""
    path = output / RUN_FILE
    atomic_write(path, json_bytes(run_record(facts, counts, datetime.now(UTC)), indent=2) + b"\n")
    return path


def other_run(output: Path, facts: RunFacts) -> str | None:
    """The command of the run that `output` holds the labels of, where it asked for other labels than this one."""
    try:
        record = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(earlier := record.get("command"), str):
        return None
    same = earlier == facts.command and record.get("vocabulary") == vocabulary_record(facts.vocabulary)
    return None if same else earlier


def run_record(facts: RunFacts, counts: Mapping[str, int] | None, now: datetime) -> dict[str, object]:
    """The content of run.json."""
    return {
        "tool": "tipsseg",
        "version": __version__,
        "command": facts.command,
        "model": dict(facts.model),
        "device": facts.device,
        "dtype": facts.dtype,
        "options": {**asdict(facts.options), "min_area": facts.min_area},
        "vocabulary": vocabulary_record(facts.vocabulary),
        "formats": list(facts.formats),
        "started": facts.started.isoformat(timespec="seconds"),
        "ended": now.isoformat(timespec="seconds") if counts is not None else None,
        "counts": dict(counts) if counts is not None else None,
    }


def vocabulary_record(vocabulary: Vocabulary) -> dict[str, object]:
    """What competed: `classes` as the entries of a vocabulary file, with the ids that they were given (0: written as background),
    `background` and `templates`.
    """
    ids = iter(range(1, len(vocabulary.classes) + 1))
    return {
        "source": vocabulary.source,
        "classes": [
            {"id": BACKGROUND if entry.negative else next(ids), **entry_record(entry)} for entry in vocabulary.entries
        ],
        "background": list(vocabulary.background),
        "templates": list(vocabulary.templates),
    }


def write_errors(output: Path, failures: list[tuple[ImageRef, ImageError]]) -> None:
    """Write errors.jsonl, one failed image a line; a run without failures removes the file of an earlier one.

    Raises OutputError.
    """
    path = output / ERRORS_FILE
    if not failures:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(path, error) from error
        return
    lines = [
        json_bytes(
            {"image": ref.relative.as_posix(), "path": str(ref.path), "reason": error.reason, "hint": error.hint}
        )
        for ref, error in failures
    ]
    atomic_write(path, b"\n".join(lines) + b"\n")
