"""Write the records of joined runs: the database and its exports, classes.json, and the files for the whole run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import RecordError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows
from tipsseg.formats.classes_file import CLASSES_FILE
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.merge.images import copy_image_files
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.open_run import Run
from tipsseg.store.ownership import Ownership
from tipsseg.store.run_record import write_run
from tipsseg.store.spec import Counts, RunInfo, check_hint
from tipsseg.store.state import State
from tipsseg.store.summary import TotalsSum
from tipsseg.store.writing import RunContext, write_run_files
from tipsseg.util.files import describe_error, read_regular

#: Prefix of a merge's temporary files, to tell them from those of shard runs in the target.
OWNER = "merge-"


def merged_run(runs: Sequence[Run], target: Path) -> RunInfo:
    """Return the joined run: the first run as a whole run in `target`, with the summed counts of all runs."""
    infos = [run.info for run in runs]
    return replace(
        infos[0],
        spec=replace(infos[0].spec, output=target, shard=None),
        image_root=infos[0].image_root if _one_root(runs) else None,
        started=min((info.started for info in infos if info.started is not None), default=None),
        ended=max((info.ended for info in infos if info.ended is not None), default=None),
        counts=Counts(
            labelled=sum(info.counts.labelled for info in infos),
            unchanged=sum(info.counts.unchanged for info in infos),
            failed=sum(info.counts.failed for info in infos),
            edited=sum(info.counts.edited for info in infos),
        ),
    )


def notes(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a line for each harmless difference between the runs."""
    first = runs[0]
    settings = [_settings(run.info) for run in runs]
    for name in dict.fromkeys(name for each in settings for name in each):
        values = [each.get(name) for each in settings]
        other = next((number for number, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            yield (
                f"The runs differ in {name}: "
                f"{_text(values[0])} in {first.state}, {_text(values[other])} in {runs[other].state}."
            )
    if not _one_root(runs):
        yield "The images are from several folders, so `image_root` in run.json is null."


def write_all(runs: Sequence[Run], info: RunInfo, context: RunContext, records: State, progress: Progress) -> int:
    """Copy per-image files and write all records, run.json last. Return the number of failed images.

    Args:
        runs: The runs.
        info: The joined run, see `merged_run`.
        context: Context of the target.
        records: State of the target.
        progress: Shows the progress.

    Raises:
        InputError: A record of a run cannot be read.
        OutputError: A file cannot be written.
    """
    totals = TotalsSum(context.classes)
    # Record no pending files: copied files may be hand-edited, and later runs must not replace those.
    copies = Ownership(context.output, OWNER)

    def joined() -> Iterator[tuple[ManifestEntry, Mapping[str, Rows]]]:
        for run, image in ((each, image) for each in runs for image in each.images()):
            copy_image_files(image, context.output, copies)
            totals.add(image.entry.summary)
            progress.advance()
            yield image.entry, _rows(run, image.entry)

    records.replace(joined())
    for run in runs:
        if run.output == context.output and (left := run.records.ahead()):
            records.note_ahead(left)
    for name in FORMATS:
        # Images may have formats of an earlier run that later runs did not write.
        if name in runs[0].formats or records.holding(name):
            write_run_files(name, context, records, rewrite=True)
    for failure in (failure for run in reversed(runs) for failure in run.records.failures()):
        if failure.image not in records:
            records.fail(failure)
    _write_classes(runs[0], context)
    write_run(context.ownership, replace(info, summary=totals.result().record()))
    return len(records.failures())


def run_paths(target: Path, formats: Sequence[str]) -> list[Path]:
    return [target / file for name in formats for file in FORMATS[name].files]


def _rows(run: Run, entry: ManifestEntry) -> Mapping[str, Rows]:
    found = {}
    for name in entry.formats:
        if FORMATS[name].has_rows:
            if (rows := run.records.rows(name, entry.image)) is None:
                path = run.state / FORMATS[name].files[0]
                raise RecordError(path, f"{entry.image} is not in it", check_hint(run.output))
            found[name] = rows
    return found


def _write_classes(run: Run, context: RunContext) -> None:
    """Copy classes.json, unless it is already in place."""
    path, place = run.output / CLASSES_FILE, context.output / CLASSES_FILE
    if path == place:
        context.ownership.adopt(place)
        return
    try:
        data = read_regular(path)
    except OSError as error:
        raise RecordError(path, describe_error(error), check_hint(run.output)) from error
    context.ownership.write_run_file(place, data)


def _one_root(runs: Sequence[Run]) -> bool:
    return all(run.info.image_root == runs[0].info.image_root for run in runs)


def _settings(info: RunInfo) -> dict[str, object]:
    found: dict[str, object] = {f"option {name}": value for name, value in info.spec.option_record().items()}
    found["requested dtype"] = info.spec.dtype
    if info.noted is not None:
        found["tipsseg version"] = info.noted.version
        found |= {f"{name} version": value for name, value in info.noted.versions.items()}
    return found


def _text(value: object) -> str:
    return "none" if value is None else str(value)
