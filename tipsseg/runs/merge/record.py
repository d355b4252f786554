"""The run.json of runs that were joined, and what is worth knowing of how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from tipsseg.store.reader import FinishedRun
from tipsseg.store.run_record import Counts

Record = Mapping[str, object]


def merged_record(parts: Sequence[FinishedRun]) -> dict[str, object]:
    """The content of run.json for all parts: that of the first, of a whole run, with their counts summed."""
    counts = Counts(
        sum(part.counts.labelled for part in parts),
        sum(part.counts.unchanged for part in parts),
        sum(part.counts.failed for part in parts),
        sum(part.counts.edited for part in parts),
    )
    first = parts[0].record
    return {
        **first,
        "shard": None,
        "image_root": first.get("image_root") if _one_root(parts) else None,
        # Texts of one form, in UTC: their order is that of the times.
        "started": min(part.started for part in parts),
        "ended": max(part.ended for part in parts),
        "counts": asdict(counts),
    }


def notes(parts: Sequence[FinishedRun]) -> Iterator[str]:
    """A line for each way in which the parts differ that does not keep them from being joined."""
    first = parts[0]
    settings = [_settings(part.record) for part in parts]
    for name in dict.fromkeys(name for each in settings for name in each):
        values = [each.get(name) for each in settings]
        other = next((number for number, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            yield (
                f"Not all was labelled with the same {name}: "
                f"{_text(values[0])} in {first.state}, {_text(values[other])} in {parts[other].state}."
            )
    if not _one_root(parts):
        yield "Not all images are from one folder, so `image_root` in run.json is null."


def _one_root(parts: Sequence[FinishedRun]) -> bool:
    return all(part.record.get("image_root") == parts[0].record.get("image_root") for part in parts)


def _settings(record: Record) -> dict[str, object]:
    """What may differ, by what to call it."""
    return {
        **{f"option {name}": value for name, value in _mapping(record, "options").items()},
        "dtype asked for": _mapping(record, "asked").get("dtype"),
        "version of tipsseg": record.get("version"),
        **{f"version of {name}": value for name, value in _mapping(record, "versions").items()},
    }


def _mapping(record: Record, key: str) -> Record:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return "none" if value is None else str(value)
