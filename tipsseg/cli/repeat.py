"""Read the run that `--from run.json` repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tipsseg._version import __version__
from tipsseg.errors import RecordError, UsageError
from tipsseg.options.fields import options_of
from tipsseg.options.run import RegionOptions
from tipsseg.run.record import RUN_FILE, read_record
from tipsseg.run.spec import RunInfo, model_identity
from tipsseg.util.files import is_folder

_HINT = f"Name an output folder, or its {RUN_FILE}."


@dataclass(frozen=True, slots=True)
class RepeatedRun:
    """An earlier run, read from its run.json, that a new run repeats."""

    path: Path
    info: RunInfo

    @property
    def options(self) -> Mapping[str, object]:
        spec = self.info.spec
        shard = None if spec.shard is None else str(spec.shard)
        names = ("model", "formats", "device", "dtype", "batch_size", "onto", *options_of(RegionOptions))
        return {**{name: getattr(spec, name) for name in names}, "shard": shard, **spec.option_record()}

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
        raise UsageError(f"--from {error.message}", error.hint) from error
