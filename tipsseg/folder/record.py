"""Write a RunInfo to run.json, and read it back."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from tipsseg import types
from tipsseg._version import __version__
from tipsseg.errors import OtherSchemaError, RecordError, UsageError
from tipsseg.folder.labels import RunContext
from tipsseg.folder.spec import PARTS, Counts, Maker, RunInfo, RunSpec, vocabulary_record
from tipsseg.formats import FORMATS
from tipsseg.options import FeatureDtype
from tipsseg.options.fields import COMMAND, json_value, options_of
from tipsseg.types import printable_path
from tipsseg.util.files import actual_name, describe_error, read_regular
from tipsseg.util.json import json_bytes, parse, read_value, short, take
from tipsseg.util.text import shell_line
from tipsseg.vocabulary.vocabulary import make_vocabulary, parse_class

RUN_FILE = "run.json"

#: The version of all records in an output folder. Others are not read.
SCHEMA = 3

#: Objects of run.json that are there only if a place was given.
_GIVEN = ("features", "regions", "onto", "present")

#: Packages whose versions may affect labels or files.
_PACKAGES = ("torch", "numpy", "pillow", "opencv-python", "pycocotools", "sentencepiece", "safetensors")


@dataclass(frozen=True)
class _Model:
    id: str
    repository: str | None = None
    revision: str | None = None
    sha256: Mapping[str, object] | None = None


@dataclass(frozen=True)
class _Vocabulary:
    """See `spec.vocabulary_record`."""

    source: str
    classes: tuple[Mapping[str, object], ...]
    background: tuple[str, ...]
    templates: tuple[str, ...]
    auto: bool = False
    fit: str = ""


def run_context(info: RunInfo) -> RunContext:
    spec = info.spec
    model = Path(str(info.model["id"])).name  # label files must not depend on the folder of a local model
    facts = {
        "version": __version__ if info.noted is None else info.noted.version,
        "command": spec.question(model),
        "model": model,
        "revision": info.model["revision"],
        "vocabulary": [entry.name for entry in spec.vocabulary.classes],
    }
    return RunContext(
        output=spec.output,
        classes=spec.vocabulary.classes,
        info=facts,
        files=spec.files,
        formats=spec.formats,
        mask_format=spec.mask_format,
        question=info.digest,
    )


def run_record(info: RunInfo) -> dict[str, object]:
    """Return the content of run.json. `ended` and `counts` are null until the run ends."""
    spec = info.spec
    maker = info.noted or Maker(
        version=__version__,
        labels_version=types.LABELS_VERSION,
        digest=info.digest,
        command=spec.command,
        versions=_versions(),
        folder=printable_path(Path.cwd()),
        method_versions=types.METHOD_VERSIONS,
    )
    return {
        "tool": "tipsseg",
        "schema": SCHEMA,
        "version": maker.version,
        "labels_version": maker.labels_version,
        "method_versions": dict(maker.method_versions),
        "digest": maker.digest,
        "command": maker.command,
        "folder": maker.folder,
        "model": dict(info.model),
        "device": info.device,
        "dtype": info.dtype,
        "vocabulary": vocabulary_record(spec.vocabulary, info.vocabulary or spec.vocabulary),
        **_settings_record(spec),
        **({"added": list(info.added)} if info.added else {}),
        **({"overwriting": True} if info.overwriting else {}),
        **({"removed": list(info.removed)} if info.removed else {}),
        "image_root": info.image_root,
        "versions": dict(maker.versions),
        "started": info.started and info.started.isoformat(timespec="seconds"),
        "ended": info.ended and info.ended.isoformat(timespec="seconds"),
        "counts": None if info.ended is None else asdict(info.counts),
        **({} if info.batch_size is None else {"batch_size": info.batch_size}),
        **({"summary": dict(info.summary)} if info.summary else {}),
    }


def _settings_record(spec: RunSpec) -> dict[str, Any]:
    """Return the options of a run as run.json has them: `asked`, `options`, `formats`, `features`, `regions`, ..."""
    found: dict[str, Any] = {}
    for name, (value, _, about) in spec.settings():
        if about.recorded not in ("", COMMAND):
            group, key = about.place(name)
            own = found.setdefault(group, {}) if group else found
            own[key] = printable_path(value) if isinstance(value, Path) else json_value(value)
    for name in _GIVEN:
        if getattr(spec, name) is None:
            del found[name]
    if spec.features is not None:
        found["features"]["dtype"] = spec.labelled_in
    if spec.onto is not None:
        found["onto"]["added"] = list(spec.new_classes)
    return found


def _read_settings(record: type, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a record of options in the content of a run.json, by name. Raise ValueError if it is damaged.

    An option that run.json lacks did not exist when it was written: its default must mean what was done then.
    """
    found = {}
    for name, option in options_of(record).items():
        about = option.about
        if about.recorded in ("", COMMAND):
            continue
        group, key = about.place(name)
        own = (take(run, group, dict | None) or {}) if group else run
        if key in own:
            is_path = group in _GIVEN and isinstance(own[key], str)
            found[name] = Path(actual_name(own[key])) if is_path else own[key]
    return found


@cache
def _versions() -> dict[str, str]:
    """Return the versions of Python and of packages."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # opencv has several package names
            found[name] = metadata.version(name)
    return found


def run_json(info: RunInfo) -> bytes:
    """Return the content of run.json."""
    return json_bytes(run_record(info), indent=2) + b"\n"


def stored_run(folder: Path) -> RunInfo | None:
    """Return the run that a folder's run.json holds; None for a folder without one.

    Raises:
        RecordError: It is invalid.
        OtherSchemaError: Another version of tipsseg wrote it.
    """
    path = folder / RUN_FILE
    hint = "Move it elsewhere, and run the original command again, which writes it; finished images are kept."
    return read_record(path, hint) if os.path.lexists(path) else None


def read_record(path: Path, hint: str) -> RunInfo:
    """Read a run.json. Raise RecordError with `hint` if the file is unreadable or invalid, OtherSchemaError for another schema."""
    try:
        record = parse(read_regular(path))
    except (OSError, ValueError) as error:
        raise RecordError(path, describe_error(error), hint) from error
    return _parse_record(record, path, hint)


def _parse_record(record: object, path: Path, hint: str) -> RunInfo:
    """Parse the JSON value of a run; `path` is its run.json. Raise as `read_record` does."""
    if not isinstance(record, dict) or record.get("tool") != "tipsseg":
        raise RecordError(path, "not written by tipsseg, or damaged", hint)
    if record.get("schema") != SCHEMA:
        output = path.parent
        raise OtherSchemaError(output, command_with_output(record.get("command"), f"{output}-2"))
    try:
        return _parse_run(record, path.parent)
    except (ValueError, UsageError) as error:
        raise RecordError(path, f"not as this version of tipsseg writes it: {error}", hint) from error


def command_with_output(recorded: object, output: str) -> str:
    """Return a recorded command line with another output folder, and without its shard; "" if there is none."""
    if not isinstance(recorded, str):
        return ""
    # Earlier versions wrote a flag and its value as two words.
    words = pairwise(["", *shlex.split(recorded)])
    flags = {"--output", "--shard"}
    others = [word for before, word in words if before not in flags and word.partition("=")[0] not in flags]
    return shell_line([*others, f"--output={output}"])


def _parse_run(record: dict[str, object], folder: Path) -> RunInfo:
    """Parse the JSON value of a run.json. Raise ValueError or UsageError for content that tipsseg would not write."""
    options = take(record, "options", dict)
    known = {name for kind in PARTS for name, each in options_of(kind).items() if each.about.recorded == "options"}
    if unknown := set(options) - known:
        raise ValueError(f"unknown option {short(min(unknown))}")  # its effect on labels is unknown
    formats = take(record, "formats", tuple[str, ...])
    if others := set(formats) - FORMATS.keys():
        raise ValueError(f"unknown format {short(min(others))}")
    maker = read_value(Maker, record, "")
    kept = take(record, "vocabulary", _Vocabulary)
    classes = [parse_class({key: value for key, value in each.items() if key != "id"}) for each in kept.classes]
    background = "auto" if kept.auto else kept.background or "none"
    asked = make_vocabulary(classes, background, kept.templates, kept.source)
    asked = replace(asked, fit=kept.fit)
    model, ended = take(record, "model", _Model), take(record, "ended", datetime | None)
    more: dict[str, Any] = {}
    more |= {place: kind(**_read_settings(kind, record)) for kind, place in PARTS.items()}
    more |= _read_settings(RunSpec, record)
    if "features" in more:
        more["feature_dtype"] = take(take(record, "features", dict), "dtype", FeatureDtype)
    if "onto" in more:
        more["new_classes"] = take(take(record, "onto", dict), "added", tuple[str, ...])
    spec = RunSpec(**more | {"model": model.id, "vocabulary": asked, "formats": formats, "output": folder})
    return RunInfo(
        spec,
        asdict(model),
        take(record, "dtype", str),
        take(record, "device", str),
        vocabulary=replace(asked, background=kept.background, auto=False),
        image_root=take(record, "image_root", str | None),
        started=take(record, "started", datetime | None),
        ended=ended,
        counts=Counts() if ended is None else take(record, "counts", Counts),
        batch_size=take(record, "batch_size", int | None),
        summary=take(record, "summary", dict | None) or {},
        added=take(record, "added", tuple[str, ...] | None) or (),
        overwriting=take(record, "overwriting", bool | None) or False,
        removed=take(record, "removed", tuple[str, ...] | None) or (),
        noted=maker,
    )
