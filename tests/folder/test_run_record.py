"""run.json, and the question that it records; options are tested through the command, in cli/test_question.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tipsseg import types
from tipsseg.errors import RecordError
from tipsseg.folder import record as module
from tipsseg.folder.folder import open_folder
from tipsseg.folder.question import question_differences
from tipsseg.folder.record import RUN_FILE, run_record, stored_run
from tipsseg.folder.spec import Counts, Maker, RunInfo, RunSpec
from tipsseg.options.records import LabelOptions
from tipsseg.options.values import Shard
from tipsseg.vocabulary.vocabulary import ClassSpec, make_vocabulary

HUB = {"id": "l14", "repository": "owner/l14", "revision": "1" * 40, "sha256": {"config.json": "a"}}
LOCAL = {"id": "/models/l14", "repository": None, "revision": None, "sha256": {"config.json": "a"}}
VOCABULARY = make_vocabulary(["panda leg", "tree", ClassSpec("wall", negative=True)], "auto", ["a {}", "the {}"])
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
SPEC = RunSpec(model="l14", vocabulary=VOCABULARY)
PLANNED = RunInfo(SPEC, HUB, "auto")
INFO = replace(
    PLANNED,
    device="cpu",
    dtype="float32",
    vocabulary=replace(VOCABULARY, background=("sky",)),
    image_root="/data/imgs",
    started=STARTED,
)

Change = Callable[[RunInfo], RunInfo]


def spec(**values: Any) -> Change:
    return lambda info: replace(info, spec=replace(info.spec, **values))


def model(**values: object) -> Change:
    return lambda info: replace(info, model={**info.model, **values})


def vocabulary(
    classes: list[str | ClassSpec], background: str | list[str], templates: list[str], source: str = ""
) -> Change:
    return spec(vocabulary=make_vocabulary(classes, background, templates, source))


WALL = ClassSpec("wall", negative=True)
TEMPLATES = ["a {}", "the {}"]

#: Changes that make another question, and their names in messages.
DECIDING: dict[str, tuple[Change, list[str]]] = {
    "labels to keep": (spec(onto=Path("old"), new_classes=("tree",)), ["onto"]),
    "a raster": (spec(formats=("geotiff",)), ["raster"]),
    "revision": (model(revision="2" * 40), ["model"]),
    "a local model": (model(**LOCAL), ["model"]),
    "a synonym": (vocabulary(["panda leg", ClassSpec("tree", ("bush",)), WALL], "auto", TEMPLATES), ["classes"]),
    "a confidence of a class": (
        vocabulary(["panda leg", ClassSpec("tree", min_confidence=0.0), WALL], "auto", TEMPLATES), ["classes"],
    ),
    "no negative class": (vocabulary(["panda leg", "tree"], "auto", TEMPLATES), ["classes"]),
    "templates": (vocabulary(["panda leg", "tree", WALL], "auto", ["a {}"]), ["templates"]),
}  # fmt: skip


@pytest.mark.parametrize(("change", "names"), DECIDING.values(), ids=DECIDING.keys())
def test_changes_of_labels_change_the_digest(change: Change, names: list[str]) -> None:
    changed = change(PLANNED)
    assert changed.digest != PLANNED.digest
    assert [name for name, _, _ in question_differences(changed, PLANNED)] == names


#: Changes that do not.
INDIFFERENT: dict[str, Change] = {
    "the name of a model": model(id="other"),
    "hashes beside a revision": model(sha256={}),
    "where the classes come from": vocabulary(["panda leg", "tree", WALL], "auto", TEMPLATES, "classes.txt"),
    "a supercategory": vocabulary(["panda leg", ClassSpec("tree", supercategory="a"), WALL], "auto", TEMPLATES),
    "what an automatic background came to": spec(vocabulary=replace(VOCABULARY, background=("sky",))),
    "a shard": spec(shard=Shard(1, 2)),
    "exact features": spec(features=Path("feats"), feature_dtype="float32"),
}


@pytest.mark.parametrize("change", INDIFFERENT.values(), ids=INDIFFERENT.keys())
def test_changes_of_other_options_keep_the_digest(change: Change) -> None:
    changed = change(PLANNED)
    assert changed.digest == PLANNED.digest
    assert question_differences(changed, PLANNED) == []


def test_another_release_gives_the_same_labels_until_their_version_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PLANNED.digest
    monkeypatch.setattr(module, "__version__", "99")
    assert PLANNED.digest == before
    monkeypatch.setattr(types, "LABELS_VERSION", types.LABELS_VERSION + 1)
    assert PLANNED.digest != before
    assert run_record(INFO)["labels_version"] == types.LABELS_VERSION


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("refinement", spec(options=LabelOptions(refine="guided"))),
        ("parts", vocabulary(["panda/leg", "tree"], "none", TEMPLATES)),
        ("names", spec(present=Path("names.csv"))),
    ],
)
def test_the_version_of_a_method_counts_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch, method: str, change: Change
) -> None:
    plain = spec(options=LabelOptions())(PLANNED)
    used = change(plain)
    before = plain.digest, used.digest
    monkeypatch.setitem(types.METHOD_VERSIONS, method, 99)
    assert (plain.digest == before[0], used.digest == before[1]) == (True, False)
    older = replace(used, noted=Maker("1", types.LABELS_VERSION, "", "", {}))
    assert question_differences(older, used) == [(f"version of {method}", "1", "99")]


ENDED = replace(
    INFO,
    spec=replace(SPEC, formats=("png",)),
    ended=datetime(2026, 1, 2, 4, tzinfo=UTC),
    counts=Counts(labelled=3, unchanged=4, failed=5, edited=2),
)


NO_RUNS: dict[str, bytes] = {
    "nothing": b"",
    "torn": b'{"tool": "tipss',
    "no UTF-8": b'{"tool": "\xff"}',
    "of another tool": b'{"tool": "other"}',
}


@pytest.mark.parametrize("data", NO_RUNS.values(), ids=NO_RUNS.keys())
def test_a_foreign_run_json_is_neither_read_nor_replaced(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / RUN_FILE
    path.write_bytes(data)
    with pytest.raises(RecordError, match=r"run\.json"):
        stored_run(tmp_path)
    with pytest.raises(RecordError, match=r"run\.json"), open_folder(replace(SPEC, model="tiny", output=tmp_path)):
        pass
    assert ([*tmp_path.iterdir()], path.read_bytes()) == ([path], data)


#: Faults of a record of another version, or a damaged one: the key and its value, which may be gone.
GONE = object()
FAULTS: dict[str, tuple[str, object, str]] = {
    "no digest": ("digest", GONE, "no `digest`"),
    "no formats": ("formats", GONE, "no `formats`"),
    "a format of the future": ("formats", ["png", "voc"], 'unknown format "voc"'),
    "an option of the future": ("options", {"new": 3}, 'unknown option "new"'),
    "no vocabulary": ("vocabulary", None, "no `vocabulary`"),
    "a time of nowhere": ("ended", "2026-01-02T04:00:00", "`ended` has no time zone"),
    "a count that is none": ("counts", {"labelled": 1, "unchanged": 0, "failed": "2"}, '`counts.failed` is "2"'),
    "a feature dtype that is none": ("features", {"folder": "f", "dtype": "int4"}, '`dtype` is "int4"'),
}


@pytest.mark.parametrize(("key", "value", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_a_damaged_run_json_is_refused(tmp_path: Path, key: str, value: object, fault: str) -> None:
    record = {**run_record(ENDED), key: value}
    if value is GONE:
        del record[key]
    (tmp_path / RUN_FILE).write_text(json.dumps(record))
    with pytest.raises(RecordError, match=re.escape(fault)):
        stored_run(tmp_path)
