"""The records of runs and of shards that have ended, read from their output folders."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, OutputError
from tipsseg.formats import FORMATS
from tipsseg.formats.problem import class_faults
from tipsseg.options import FileOptions
from tipsseg.store.classes_file import CLASSES_FILE, read_classes
from tipsseg.store.journal import journals_in
from tipsseg.store.lock import finish_command, is_begun, is_locked, is_unfinished
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, parse_entry
from tipsseg.store.results import link_of
from tipsseg.store.run_record import RUN_FILE, read_run, refuse_other_record, run_context
from tipsseg.store.shards import Shard, shards_in, state_folder
from tipsseg.store.spec import RunInfo
from tipsseg.store.writing import RunContext, rows_file
from tipsseg.types import LabelClass
from tipsseg.util.append_log import lines_of, whole_lines
from tipsseg.util.files import is_folder, reason_of
from tipsseg.util.json_values import short
from tipsseg.util.printable import listed, shell_word
from tipsseg.util.record_paths import actual_path

#: What to do with a run that was broken off.
RUN_AGAIN = "Run the command that made it again; what is done there stays."

#: What to do where classes.json gives ids another meaning than run.json.
OTHER_CLASSES = f"Restore {CLASSES_FILE}. Or remove it and run the command that labelled the images again."


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The records of a run that has ended, or of a shard of one.

    Attributes:
        info: What its run.json says.
        classes: The classes in classes.json of its output folder, with the ids and names that run.json has.
    """

    info: RunInfo
    classes: tuple[LabelClass, ...]

    @property
    def output(self) -> Path:
        """Its output folder, in which the per-image files are."""
        return self.info.spec.output

    @property
    def state(self) -> Path:
        """The state folder; the output folder, but for a shard."""
        return self.info.spec.state

    @property
    def shard(self) -> Shard | None:
        """The shard; None for a whole run."""
        return self.info.spec.shard

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the run."""
        return self.info.spec.formats

    @property
    def names(self) -> str:
        """How the files of images are named, see FileOptions."""
        return self.info.spec.files.names


def find_runs(folder: Path, own: Path) -> list[FinishedRun]:
    """The finished runs in an output folder: a whole run, or its shards. `own` is the folder whose lock the caller has.

    There may be journals of a run, or of a conversion, that came later and was broken off. Raises InputError for what is no output
    folder, is at work, or has not ended.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder", "Give output folders of tipsseg label.")
    if is_unfinished(folder):
        raise InputError(f"{folder}: a merge into it has not ended", f"Finish it first: {finish_command(folder)}")
    whole = any(os.path.lexists(folder / name) for name in (RUN_FILE, MANIFEST_FILE))
    if whole and shards_in(folder) and not is_begun(folder):
        raise InputError(f"{folder}: it holds both a whole run and shards", check_hint(folder))
    return find_shards(folder, own) or [_read_run(folder, None, own)]


def find_shards(folder: Path, own: Path) -> list[FinishedRun]:
    """The shards in an output folder; see `find_runs`."""
    return [_read_run(folder, shard, own) for shard in shards_in(folder)]


def refuse_at_work(state: Path, own: Path) -> None:
    """Raise InputError where a run is at work in a state folder."""
    if state != own and is_locked(state):
        raise InputError(f"{state}: a run is at work there", "Wait for it to end.")


def read_entries(run: FinishedRun) -> Iterator[ManifestEntry]:
    """The entries of its manifest, as they come. Raises InputError for a manifest that is not as an ended run leaves it."""
    path = run.state / MANIFEST_FILE
    try:
        for number, (_, line) in enumerate(lines_of(path), start=1):
            entry = parse_entry(line)
            if entry is None or not _is_sound(entry, run.info.spec.files):
                raise InputError(f"{path}: line {number} is no entry", check_hint(run.output))
            yield entry
    except OSError as error:
        raise unreadable(path, error, run.output) from error


def image_paths(run: FinishedRun, entry: ManifestEntry) -> Iterator[Path]:
    """Where the files of an image are."""
    for name in entry.files.values():
        yield actual_path(run.output, name)


def link_paths(run: FinishedRun, entry: ManifestEntry) -> Iterator[Path]:
    """Where there are links to an image."""
    for name in entry.formats:
        link = link_of(entry, name, run.info.spec.files)
        if link is not None:
            yield actual_path(run.output, str(link))


def unreadable(path: Path, error: Exception, output: Path) -> InputError:
    """The InputError for a file of an output folder that cannot be read."""
    return InputError(f"{path}: {reason_of(error)}", check_hint(output))


def other_version(path: Path, error: ValueError, output: Path) -> InputError:
    """The InputError for a record of an output folder that is not as this version writes it."""
    return InputError(f"{path}: not as this version of tipsseg writes it: {error}", check_hint(output))


def check_hint(output: Path) -> str:
    """What to do where the records of an output folder are not as a run leaves them."""
    return f"See what is wrong with it: tipsseg check {shell_word(str(output))}"


def conversion_begun(info: RunInfo) -> tuple[str, ...]:
    """Return the formats of a conversion that was begun and has not ended; formats that only follow a correction are left out."""
    return info.converting or tuple(journals_in(info.spec.state))


def broken_conversion(output: Path, formats: Sequence[str]) -> InputError:
    """The InputError where `tipsseg convert` into these formats was broken off: the manifest has them, and no file does."""
    names = ",".join(formats)
    return InputError(
        f"{output}: a conversion into {names} was broken off",
        f"Run it again first: tipsseg convert {shell_word(str(output))} --format {names}",
    )


def finished_context(run: FinishedRun) -> RunContext:
    """What the writers of the formats have to know to go on with a run that has ended."""
    context = run_context(run.info)
    return replace(context, classes=run.classes, owner="")


def _read_run(output: Path, shard: Shard | None, own: Path) -> FinishedRun:
    state = state_folder(output, shard)
    refuse_at_work(state, own)
    path = state / RUN_FILE
    if not os.path.lexists(path):
        raise InputError(
            f"{state}: no {RUN_FILE} in it, so it is not what tipsseg label leaves",
            "Give output folders of tipsseg label.",
        )
    try:
        refuse_other_record(state)
        info = read_run(state)
    except OutputError as error:
        raise InputError(f"{path}: not by tipsseg, or damaged", check_hint(output)) from error
    except OSError as error:
        raise unreadable(path, error, output) from error
    except ValueError as error:
        raise other_version(path, error, output) from error
    noted = info.spec.shard
    if shard is None and noted is not None:
        raise InputError(
            f"{state}: these are the records of one shard, {noted}", "Give the output folder that has them."
        )
    if noted != shard:
        what = "null" if noted is None else short(str(noted))
        raise other_version(path, ValueError(f"`shard` is {what}, not as its folder's name says"), output)
    if info.ended is None:
        raise InputError(f"{state}: the run was broken off", RUN_AGAIN)
    run = FinishedRun(info, ())
    check_manifest(run)
    if not (run.output / CLASSES_FILE).is_file():
        raise InputError(f"{run.output / CLASSES_FILE}: no such file", RUN_AGAIN)
    return replace(run, classes=_read_classes(run))


def check_manifest(run: FinishedRun) -> None:
    """Raise InputError where the manifest is cut off or gone, or has lost lines."""
    path = run.state / MANIFEST_FILE
    done = run.info.images
    try:
        if whole_lines(path) < path.stat().st_size:
            raise InputError(f"{path}: its last line is cut off", RUN_AGAIN)
    except OSError as error:
        # A run that labelled nothing has none.
        if not isinstance(error, FileNotFoundError) or done:
            raise unreadable(path, error, run.output) from error
    images = {entry.image for entry in read_entries(run)}
    if len(images) < done:
        lost = _lost(run, images)
        raise InputError(
            f"{path}: {done - len(images)} of {done} images are lost from it: {RUN_FILE} counts more than it has"
            + (f" ({listed(lost, 3)})" if lost else ""),
            RUN_AGAIN,
        )


def _lost(run: FinishedRun, images: Container[str]) -> list[str]:
    """The images that files of the whole run have and the manifest has not, as far as such files are there."""
    found: dict[str, None] = {}
    for name in run.formats:
        file = rows_file(name, run_context(run.info))
        with suppress(OSError, ValueError):
            found.update(dict.fromkeys(() if file is None else file.names(())))
    return [image for image in found if image not in images]


def _read_classes(run: FinishedRun) -> tuple[LabelClass, ...]:
    """The classes in classes.json. Raises InputError where run.json gives the ids another meaning."""
    path = run.output / CLASSES_FILE
    try:
        classes = read_classes(run.output)
    except OSError as error:
        raise unreadable(path, error, run.output) from error
    except ValueError as error:
        raise other_version(path, error, run.output) from error
    for what in class_faults([(each.id, each.name) for each in classes], run.info.names):
        raise InputError(f"{path}: {what}", OTHER_CLASSES)
    return classes


def _is_sound(entry: ManifestEntry, options: FileOptions) -> bool:
    """Whether its files are where this version or an earlier one puts files of that image."""
    if any(part in ("", ".", "..") for part in entry.image.split("/")) or not FORMATS.keys() >= set(entry.formats):
        return False
    places = {name: FORMATS[name].places(PurePosixPath(entry.image), options) for name in entry.formats}
    return entry.files.keys() == {name for name, known in places.items() if known} and all(
        file in places[name] for name, file in entry.files.items()
    )
