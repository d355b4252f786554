"""`--from run.json`: what an earlier run was asked for, to ask for it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipsseg import __version__
from tipsseg.errors import UsageError, VocabularyError
from tipsseg.store.run_record import RUN_FILE, RunInfo, asked_record, differences
from tipsseg.util.files import is_folder, read_regular, reason_of
from tipsseg.util.json_values import parse
from tipsseg.vocabulary.toml_file import parse_class
from tipsseg.vocabulary.vocabulary import Vocabulary, make_vocabulary

_HINT = f"Give the {RUN_FILE} in the output folder of a run."


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """The run.json of a run.

    options  values of the command line's options by the names of their parameters, as texts and numbers
    """

    path: Path
    record: Mapping[str, object]
    options: Mapping[str, object]
    vocabulary: Vocabulary

    def notes(self, info: RunInfo) -> list[str]:
        """Why the labels of a run with its options may still be others."""
        found = []
        if self.record.get("version") != __version__:
            found.append(
                f"{self.path} is of version {self.record.get('version')} of tipsseg, and this is {__version__}."
            )
        if "model" in differences(self.record, asked_record(info)):
            found.append(f"The model is not the one of {self.path}; it has other files.")
        return found


def read_run_file(path: Path) -> EarlierRun:
    """What the run with that run.json, or that output folder, was asked for. Raises UsageError."""
    path = path / RUN_FILE if is_folder(path) else path
    try:
        record = parse(read_regular(path))
    except OSError as error:
        raise UsageError(f"--from {path}: {reason_of(error)}", _HINT) from error
    except ValueError as error:
        raise UsageError(f"--from {path}: not JSON: {error}", _HINT) from error
    if not isinstance(record, dict) or record.get("tool") != "tipsseg":
        raise UsageError(f"--from {path}: not the record of a run of tipsseg label", _HINT)
    try:
        return EarlierRun(path, record, _options(record), _vocabulary(record["vocabulary"]))
    except (KeyError, TypeError, AttributeError, VocabularyError) as error:
        what = error.message if isinstance(error, VocabularyError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"--from {path}: not as this version of tipsseg writes it ({what})", _HINT) from error


def _options(record: Any) -> dict[str, object]:
    options, asked = record["options"], record["asked"]
    found = {
        "model": record["model"]["id"],
        "formats": [str(name) for name in record["formats"]],
        "shard": record["shard"],
        **{
            key: options[key]
            for key in ("mode", "short_side", "min_confidence", "refine", "instances", "min_area", "png_mode")
        },
        **{key: options[key] for key in ("simplify", "val_fraction", "names") if key in options},
        **{key: asked[key] for key in ("device", "dtype", "batch_size")},
    }
    return {key: value for key, value in found.items() if value is not None}


def _vocabulary(record: Any) -> Vocabulary:
    specs = [parse_class({key: value for key, value in each.items() if key != "id"}) for each in record["classes"]]
    background = "auto" if record["auto"] else (list(record["background"]) or "none")
    return make_vocabulary(specs, background, record["templates"], record["source"])
