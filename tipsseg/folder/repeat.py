"""Read the run that a command repeats."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from tipsseg._version import __version__
from tipsseg.errors import RecordError, UsageError, Words, named
from tipsseg.folder.record import RUN_FILE, read_record
from tipsseg.folder.spec import RunInfo, model_identity
from tipsseg.masks.present import FOLDERS
from tipsseg.util.files import actual_name, is_folder, is_same
from tipsseg.weights.lock import read_lock

_HINT = f"Pass an output folder, or its {RUN_FILE}."


@dataclass(frozen=True, slots=True)
class RepeatedRun:
    """An earlier run, read from its run.json, that a new run repeats."""

    path: Path
    info: RunInfo

    def options(self, given: Container[str]) -> dict[str, object]:
        """Return the values of the options that a repeated run gives, except for the `given` options.

        Raise UsageError if a file or folder among them is missing.
        """
        settings = self.info.spec.settings()
        return {
            name: self._found(name, value)
            for name, (value, _, about) in settings
            if (about.repeated or name == "model") and name not in given
        }

    def _found(self, name: str, value: object) -> object:
        """Return a value; a path as it leads from here to the file that it named where the run was started."""
        is_model = name == "model" and isinstance(value, str) and value not in read_lock()
        if not is_model and (not isinstance(value, Path) or value == FOLDERS):
            return value
        home = "" if self.info.noted is None else actual_name(self.info.noted.folder)
        typed = Path(str(value))
        there = Path(home, typed)
        if there.exists() or typed.exists():
            found = typed if not there.exists() or is_same(typed, there) else there
            return str(found) if is_model else found
        raise UsageError(
            Words(
                "{option}={value}: no such file or folder, but the run of {path} used it",
                option=named(name),
                value=value,
                path=self.path,
            ),
            Words("Set {option} to where it is now.", option=named(name)),
        )

    def notes(self, info: RunInfo) -> list[str]:
        """Return reasons why the new run may write different labels despite the same options."""
        notes = []
        version = None if self.info.noted is None else self.info.noted.version
        if version != __version__:
            notes.append(f"{self.path} was written by tipsseg {version}; this is {__version__}.")
        if model_identity(self.info.model) != model_identity(info.model):
            notes.append(f"The model's files differ from those in {self.path}.")
        earlier, new = self.info.spec, info.spec
        if earlier.labelled_in != new.labelled_in:
            store = "no feature folder" if earlier.features is None else str(earlier.features)
            notes.append(
                f"The run of {self.path} used features in {earlier.labelled_in} ({store}); this run uses {new.labelled_in}."
            )
        return notes


def read_run_file(path: Path) -> RepeatedRun:
    """Read a run.json, or the run.json of an output folder. Raise UsageError if it cannot be read."""
    path = path / RUN_FILE if is_folder(path) else path
    try:
        return RepeatedRun(path, read_record(path, _HINT))
    except RecordError as error:
        raise UsageError(Words("{from_run} {message}", message=error.message), error.hint) from None
