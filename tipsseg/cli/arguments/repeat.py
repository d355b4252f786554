"""`--from run.json`: what an earlier run was asked for, to ask for it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tipsseg._version import __version__
from tipsseg.errors import RecordError, UsageError
from tipsseg.store.differences import differences
from tipsseg.store.open_run import read_record
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.spec import RunInfo
from tipsseg.util.files import is_folder
from tipsseg.vocabulary.vocabulary import Vocabulary

_HINT = f"Give the {RUN_FILE} in the output folder of a run."


@dataclass(frozen=True, slots=True)
class RepeatedRun:
    """A run that is repeated, by its run.json."""

    path: Path
    info: RunInfo

    @property
    def vocabulary(self) -> Vocabulary:
        """What it was to label."""
        return self.info.spec.vocabulary

    @property
    def options(self) -> Mapping[str, object]:
        spec = self.info.spec
        shard = None if spec.shard is None else str(spec.shard)
        kept = {name: getattr(spec, name) for name in ("model", "formats", "device", "dtype", "batch_size")}
        return {**kept, "shard": shard, **spec.option_record()}

    def notes(self, info: RunInfo) -> list[str]:
        """Why the labels of a run with its options may still be others."""
        found = []
        version = None if self.info.noted is None else self.info.noted.version
        if version != __version__:
            found.append(f"{self.path} is of version {version} of tipsseg, and this is {__version__}.")
        for name in {} if self.info.noted is None else self.info.noted.gone:
            found.append(
                f"{self.path} asks for --{name.replace('_', '-')}, which is gone from this version; labels are made without it."
            )
        if "model" in differences(self.info, info):
            found.append(f"The model is not the one of {self.path}; it has other files.")
        there, here = self.info.spec, info.spec
        if there.labelled_in != here.labelled_in:
            of = "no folder" if there.features is None else str(there.features)
            found.append(
                f"{self.path} is of labels from features in {there.labelled_in} ({of}), and this run takes {here.labelled_in}."
            )
        return found


def read_run_file(path: Path) -> RepeatedRun:
    """Return the run with that run.json, or with that output folder. Raises UsageError."""
    path = path / RUN_FILE if is_folder(path) else path
    try:
        return RepeatedRun(path, read_record(path, _HINT))
    except RecordError as error:
        raise UsageError(f"--from {error.message}", error.hint) from error
