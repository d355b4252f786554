"""Write a RunInfo to run.json, and read it back."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from tipsseg._version import __version__
from tipsseg.errors import OtherSchemaError, OutputError, RecordError, UsageError, VocabularyError
from tipsseg.formats import FORMATS
from tipsseg.options import FEATURE_DTYPES, FileOptions, LabelOptions
from tipsseg.options.fields import options_of, read_options
from tipsseg.options.run import RasterOptions
from tipsseg.options.shard import parse_shard
from tipsseg.run import spec as specs
from tipsseg.run.entry import FileRow
from tipsseg.run.files import MOVE
from tipsseg.run.labels import RunContext
from tipsseg.run.shards import output_folder
from tipsseg.run.spec import Counts, Maker, RunInfo, RunSpec, check_hint, vocabulary_record
from tipsseg.run.state import STATE_FILE, State
from tipsseg.types import BACKGROUND, printable_path
from tipsseg.util.files import atomic_write, describe_error, json_bytes, read_regular
from tipsseg.util.json_values import parse, short, take
from tipsseg.util.printable import shell_line
from tipsseg.util.record_paths import actual_name, is_inside
from tipsseg.vocabulary.files import parse_class
from tipsseg.vocabulary.vocabulary import Vocabulary, make_vocabulary

RUN_FILE = "run.json"

#: The version of all records in an output folder. Others are not read.
SCHEMA = 2

#: The reason for refusing a record that this version would not write.
OTHER_VERSION = "not as this version of tipsseg writes it"

#: Options that run.json records although labels do not depend on them.
_WISHES = {"device": str, "dtype": str, "batch_size": int}

#: Packages whose versions may affect labels or files.
_PACKAGES = ("torch", "numpy", "pillow", "opencv-python", "pycocotools", "sentencepiece", "safetensors")


def run_context(info: RunInfo) -> RunContext:
    spec = info.spec
    model = Path(
        str(info.model["id"])
    ).name  # without the folder, because label files must not depend on a local model's path
    facts = {
        "version": __version__ if info.noted is None else info.noted.version,
        "command": spec.question(model),
        "model": model,
        "revision": info.model["revision"],
        "vocabulary": [entry.name for entry in spec.vocabulary.classes],
    }
    return RunContext(
        output=spec.folder,
        classes=spec.vocabulary.classes,
        info=facts,
        files=spec.files,
        formats=spec.formats,
        labels=spec.label_names,
    )


def run_record(info: RunInfo) -> dict[str, object]:
    """Return the content of run.json. `ended` and `counts` are null until the run ends."""
    spec = info.spec
    maker = info.noted or Maker(
        __version__,
        specs.LABELS_VERSION,
        info.digest,
        spec.command(),
        {"python": platform.python_version(), **_versions()},
    )
    return {
        "tool": "tipsseg",
        "schema": SCHEMA,
        "version": maker.version,
        "labels_version": maker.labels_version,
        "digest": maker.digest,
        "command": maker.command,
        "model": dict(info.model),
        "device": info.device,
        "dtype": info.dtype,
        "asked": {name: getattr(spec, name) for name in _WISHES},
        "options": spec.option_record(),
        "vocabulary": vocabulary_record(spec.vocabulary, info.vocabulary or spec.vocabulary),
        "formats": list(spec.formats),
        **({"added": list(info.added)} if info.added else {}),
        **({} if spec.features is None else {"features": _feature_record(spec.features, spec.labelled_in)}),
        **({} if spec.regions is None else {"regions": _region_record(spec.regions, only=spec.regions_only)}),
        **({} if spec.onto is None else {"onto": {"source": printable_path(spec.onto), "added": list(spec.added)}}),
        "shard": None if spec.shard is None else str(spec.shard),
        "image_root": info.image_root,
        "versions": dict(maker.versions),
        "started": _text(info.started),
        "ended": _text(info.ended),
        "counts": None if info.ended is None else asdict(info.counts),
        **({} if info.batch_size is None else {"batch_size": info.batch_size}),
        **({"summary": dict(info.summary)} if info.summary else {}),
    }


def write_run(info: RunInfo, files: Iterable[FileRow] = ()) -> Path:
    """Write run.json, with the files for the whole run, into the folder of a run and return its path. Raises OutputError."""
    path = info.spec.folder / RUN_FILE
    if os.path.lexists(path) and not _is_ours(path):
        raise OutputError(path, "not a tipsseg record, or unreadable", MOVE)
    record = {**run_record(info), "files": [asdict(row) for row in files]}
    atomic_write(path, json_bytes(record, indent=2) + b"\n")
    return path


def read_run_files(folder: Path) -> list[FileRow]:
    """Return the files for the whole run that run.json lists; none if it is invalid."""
    with suppress(OSError, ValueError, TypeError):
        rows = [FileRow(**each) for each in take(parse(read_regular(folder / RUN_FILE)), "files", list)]
        return [row for row in rows if is_inside(row.place)]
    return []


def _is_ours(path: Path) -> bool:
    try:
        record = parse(read_regular(path))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("tool") == "tipsseg"


def stored_run(state: State) -> RunInfo | None:
    """Return the run that a folder's record holds; None for a new folder.

    Raises:
        RecordError: It is invalid.
        OtherSchemaError: Another version of tipsseg wrote it.
    """
    value = state.meta("run")
    return None if value is None else parse_record(value, state.folder, check_hint(output_folder(state.folder)))


def find_run(folder: Path) -> RunInfo | None:
    """Return the run in a folder; None if there is none, or its record is damaged. Raise OtherSchemaError for another schema."""
    if not os.path.lexists(folder / STATE_FILE):
        return None
    try:
        with closing(State(folder)) as state:
            return stored_run(state)
    except RecordError:
        return None


def read_record(path: Path, hint: str) -> RunInfo:
    """Read a run.json. Raise RecordError with `hint` if the file is unreadable or invalid, OtherSchemaError for another schema."""
    try:
        return parse_record(parse(read_regular(path)), path.parent, hint, path)
    except OSError as error:
        raise RecordError(path, describe_error(error), hint) from error
    except ValueError as error:
        raise RecordError(path, f"{OTHER_VERSION}: {error}", hint) from error


def parse_record(record: object, folder: Path, hint: str, path: Path | None = None) -> RunInfo:
    """Parse the JSON value of a run in a folder, which `path` has. Raises as `read_record` does."""
    path = path or folder / RUN_FILE
    if not isinstance(record, dict) or record.get("tool") != "tipsseg":
        raise RecordError(path, "not written by tipsseg, or damaged", hint)
    if record.get("schema") != SCHEMA:
        output = output_folder(folder)
        raise OtherSchemaError(output, command(record.get("command"), f"{output}-2"))
    try:
        return _parse_run(record, folder)
    except ValueError as error:
        raise RecordError(path, f"{OTHER_VERSION}: {error}", hint) from error


def command(recorded: object, output: str) -> str:
    """Return a recorded command line with another output folder, and without its shard; "" if there is none."""
    if not isinstance(recorded, str):
        return ""
    words = pairwise(["", *shlex.split(recorded)])
    others = [word for before, word in words if not {before, word} & {"--output", "--shard"}]
    return shell_line([*others, "--output", output])


def _parse_run(record: object, state: Path) -> RunInfo:
    """Parse the JSON value of a run.json. Raises ValueError for content that tipsseg would not write."""
    digest = take(record, "digest", str)
    asked, used = _parse_vocabulary(take(record, "vocabulary", dict))
    formats = _parse_formats(record)
    options = take(record, "options", dict)
    known = {name for record in (LabelOptions, FileOptions, RasterOptions) for name in options_of(record)}
    if unknown := set(options) - known:
        raise ValueError(f"unknown option {short(min(unknown))}")  # its effect on labels is unknown
    labelling, files = read_options(LabelOptions, options), read_options(FileOptions, options)
    raster = read_options(RasterOptions, options)
    features, feature_dtype = _parse_features(record)
    wishes = take(record, "asked", dict)
    model = take(record, "model", dict)
    try:
        shard = None if _get(record, "shard") is None else parse_shard(take(record, "shard", str))
        spec = RunSpec(
            model=take(model, "id", str),
            vocabulary=asked,
            options=labelling,
            files=files,
            raster=raster,
            formats=formats,
            output=state if shard is None else state.parent.parent,
            shard=shard,
            **{name: take(wishes, name, kind) for name, kind in _WISHES.items()},
            features=features,
            feature_dtype=feature_dtype,
            **_parse_regions(record),
            **_parse_onto(record),
        )
    except UsageError as error:
        raise ValueError(error.message) from error
    ended = _parse_time(record, "ended")
    return RunInfo(
        spec,
        {key: model.get(key) for key in ("id", "repository", "revision", "sha256")},
        take(record, "dtype", str),
        take(record, "device", str),
        vocabulary=used,
        image_root=None if _get(record, "image_root") is None else take(record, "image_root", str),
        started=_parse_time(record, "started"),
        ended=ended,
        counts=Counts() if ended is None else _parse_counts(take(record, "counts", dict)),
        batch_size=None if _get(record, "batch_size") is None else take(record, "batch_size", int),
        added=tuple(_all_texts(record, "added")) if isinstance(record, dict) and "added" in record else (),
        summary={} if _get(record, "summary") is None else take(record, "summary", dict),
        noted=Maker(
            take(record, "version", str),
            take(record, "labels_version", int),
            digest,
            take(record, "command", str),
            take(record, "versions", dict),
        ),
    )


def _get(record: object, key: str) -> object:
    return record.get(key) if isinstance(record, dict) else None


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")


def _parse_time(record: object, key: str) -> datetime | None:
    if _get(record, key) is None:
        return None
    time = datetime.fromisoformat(take(record, key, str))
    if time.tzinfo is None:
        raise ValueError(f"`{key}` has no time zone")
    return time


def _parse_vocabulary(record: Mapping[str, object]) -> tuple[Vocabulary, Vocabulary]:
    """Return the vocabulary as requested, and with its background resolved."""
    classes = take(record, "classes", list)
    ids = [take(each, "id", int) for each in classes]
    positive = [each for each in ids if each != BACKGROUND]  # negative classes have id 0
    if positive != list(range(1, len(positive) + 1)):
        raise ValueError("the class ids are not 1, 2, ...")
    background = _all_texts(record, "background")
    auto = record.get("auto") is True
    try:
        asked = make_vocabulary(
            [parse_class({key: value for key, value in each.items() if key != "id"}) for each in classes],
            "auto" if auto else background or "none",
            _all_texts(record, "templates"),
            take(record, "source", str),
        )
    except VocabularyError as error:
        raise ValueError(error.message) from error
    if [BACKGROUND if each.negative else 1 for each in asked.specs] != [min(each, 1) for each in ids]:
        raise ValueError("id 0 must mark the negative classes, and no others")
    fit = take(record, "fit", str) if "fit" in record else ""
    return replace(asked, fit=fit), replace(asked, background=tuple(background), auto=False, fit=fit)


def _all_texts(record: Mapping[str, object], key: str) -> list[str]:
    found = take(record, key, list)
    if not all(isinstance(each, str) for each in found):
        raise ValueError(f"`{key}` is {short(found)}")
    return found


def _parse_formats(record: object) -> tuple[str, ...]:
    formats = take(record, "formats", list)
    for name in formats:
        if not isinstance(name, str) or name not in FORMATS:
            raise ValueError(f"unknown format {short(name)}")
    return tuple(formats)


def _feature_record(folder: Path, dtype: str) -> dict[str, str]:
    return {"folder": printable_path(folder), "dtype": dtype}


def _parse_features(record: object) -> tuple[Path | None, str | None]:
    """Return a run's feature store and the dtype of its features."""
    if _get(record, "features") is None:
        return None, None
    found = take(record, "features", dict)
    dtype = take(found, "dtype", str)
    if dtype not in FEATURE_DTYPES:
        raise ValueError(f"`dtype` of features is {short(dtype)}")
    return Path(actual_name(take(found, "folder", str))), dtype


def _region_record(source: Path, *, only: bool) -> dict[str, object]:
    return {"source": printable_path(source), "only": only}


def _parse_regions(record: object) -> dict[str, Any]:
    """Return the fields of RegionOptions."""
    if _get(record, "regions") is None:
        return {}
    found = take(record, "regions", dict)
    return {"regions": Path(actual_name(take(found, "source", str))), "regions_only": found.get("only") is True}


def _parse_onto(record: object) -> dict[str, Any]:
    if _get(record, "onto") is None:
        return {}
    found = take(record, "onto", dict)
    return {"onto": Path(actual_name(take(found, "source", str))), "added": tuple(_all_texts(found, "added"))}


def _parse_counts(record: Mapping[str, object]) -> Counts:
    return Counts(
        take(record, "labelled", int),
        take(record, "unchanged", int),
        take(record, "failed", int),
        take(record, "edited", int) if "edited" in record else 0,
    )


@cache
def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # opencv has several package names
            continue
    return found
