"""The run.json of runs that were joined, and what is worth knowing of how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tipsseg.store.reader import FinishedRun
from tipsseg.store.spec import Counts, RunInfo


def merged_info(parts: Sequence[FinishedRun], target: Path) -> RunInfo:
    """What the whole run came to: as the first of the parts, in the folder `target`, with their counts summed."""
    infos = [part.info for part in parts]
    counts = Counts(
        sum(info.counts.labelled for info in infos),
        sum(info.counts.unchanged for info in infos),
        sum(info.counts.failed for info in infos),
        sum(info.counts.edited for info in infos),
    )
    return replace(
        infos[0],
        spec=replace(infos[0].spec, output=target, shard=None),
        image_root=infos[0].image_root if _one_root(parts) else None,
        started=min((info.started for info in infos if info.started is not None), default=None),
        ended=max((info.ended for info in infos if info.ended is not None), default=None),
        counts=counts,
    )


def notes(parts: Sequence[FinishedRun]) -> Iterator[str]:
    """A line for each way in which the parts differ that does not keep them from being joined."""
    first = parts[0]
    settings = [_settings(part.info) for part in parts]
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
    return all(part.info.image_root == parts[0].info.image_root for part in parts)


def _settings(info: RunInfo) -> dict[str, object]:
    """What may differ, by what to call it."""
    noted = info.noted
    return {
        **{f"option {name}": value for name, value in info.spec.option_record().items()},
        "dtype asked for": info.spec.dtype,
        **({} if noted is None else {"version of tipsseg": noted.version}),
        **({} if noted is None else {f"version of {name}": value for name, value in noted.versions.items()}),
    }


def _text(value: object) -> str:
    return "none" if value is None else str(value)
