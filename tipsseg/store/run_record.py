"""Write a RunInfo to run.json, and read it back."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from contextlib import suppress
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
from tipsseg.store import spec as specs
from tipsseg.store.ownership import MOVE, Ownership
from tipsseg.store.shards import output_folder
from tipsseg.store.spec import Counts, Maker, RunInfo, RunSpec, vocabulary_record
from tipsseg.store.writing import RunContext
from tipsseg.types import BACKGROUND, printable_path
from tipsseg.util.files import atomic_write, describe_error, json_bytes, read_regular
from tipsseg.util.fingerprint import Fingerprint, parse_file
from tipsseg.util.json_values import parse, short, take
from tipsseg.util.printable import shell_line
from tipsseg.util.record_paths import actual_name, is_inside
from tipsseg.vocabulary.toml_file import parse_class
from tipsseg.vocabulary.vocabulary import Vocabulary, make_vocabulary

RUN_FILE = "run.json"

#: The version of all records in an output folder. Others are not read.
SCHEMA = 1

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
        output=spec.output,
        state=spec.state,
        classes=spec.vocabulary.classes,
        info=facts,
        files=spec.files,
        owner=spec.owner,
    )


def run_record(info: RunInfo) -> dict[str, object]:
    """Return the content of run.json, except `files`. `ended` and `counts` are null until the run ends."""
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
        **({"converting": list(info.converting)} if info.converting else {}),
        **({"lost": True} if info.lost else {}),
        **({"kept": list(info.kept)} if info.kept else {}),
        **({"summary": dict(info.summary)} if info.summary else {}),
    }


def write_run(ownership: Ownership, info: RunInfo) -> Path:
    """Write run.json into the state folder of a run and return its path.

    Its key `files` lists the files for the whole run with size, time and digest, from `ownership`.
    """
    path = info.spec.state / RUN_FILE
    refuse_other_record(info.spec.state)
    ownership.refuse_outside(path)
    atomic_write(path, json_bytes({**run_record(info), "files": ownership.record()}, indent=2) + b"\n")
    return path


def refuse_other_record(state: Path) -> None:
    """Raise OutputError if the folder has a run.json that tipsseg did not write."""
    path = state / RUN_FILE
    if not os.path.lexists(path):
        return
    try:
        record = parse(read_regular(path))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or record.get("tool") != "tipsseg":
        raise OutputError(path, "not a tipsseg record, or unreadable", MOVE)


def find_run(state: Path) -> RunInfo | None:
    """Return the run.json of a state folder; None if it is missing or invalid. Raise OtherSchemaError if it has another schema."""
    try:
        return read_record(state / RUN_FILE, "")
    except RecordError:
        return None


def read_record(path: Path, hint: str) -> RunInfo:
    """Read a run.json. Raise RecordError with `hint` if the file is unreadable or invalid, OtherSchemaError for another schema."""
    try:
        record = parse(read_regular(path))
        if not isinstance(record, dict) or record.get("tool") != "tipsseg":
            raise RecordError(path, "not written by tipsseg, or damaged", hint)
        if record.get("schema") != SCHEMA:
            folder = output_folder(path.parent)
            raise OtherSchemaError(folder, command(record.get("command"), f"{folder}-2"))
        return _parse_run(record, path.parent)
    except OSError as error:
        raise RecordError(path, describe_error(error), hint) from error
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
        summary={} if _get(record, "summary") is None else take(record, "summary", dict),
        files=parse_files(take(record, "files", dict)),
        converting=tuple(name for name in _texts(record, "converting") if name in FORMATS),
        lost=bool(_get(record, "lost")),
        kept=tuple(place for place in _texts(record, "kept") if is_inside(place)),
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


def _texts(record: object, key: str) -> list[str]:
    found = _get(record, key)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


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


def parse_files(record: Mapping[str, object]) -> dict[str, Fingerprint]:
    """Parse the files for the whole run; ignore damaged entries."""
    found: dict[str, Fingerprint] = {}
    for place, file in record.items():
        with suppress(ValueError):
            if is_inside(place):
                found[place] = parse_file(file)
    return found


@cache
def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # opencv has several package names
            continue
    return found
