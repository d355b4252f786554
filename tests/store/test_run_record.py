"""run.json: what decides labels changes the digest, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest

from tipsseg.errors import OutputError
from tipsseg.options import FileOptions, LabelOptions, MinArea
from tipsseg.store import run_record as module
from tipsseg.store.run_record import (
    RUN_FILE,
    Counts,
    Decides,
    RunFacts,
    differences,
    ended,
    model_identity,
    read_run,
    run_record,
    write_run,
)
from tipsseg.util.ownership import Ownership
from tipsseg.vocabulary.vocabulary import ClassSpec, make_vocabulary

HUB = {"id": "l14", "repository": "owner/l14", "revision": "1" * 40, "sha256": {"config.json": "a"}}
LOCAL = {"id": "/models/l14", "repository": None, "revision": None, "sha256": {"config.json": "a"}}
VOCABULARY = make_vocabulary(["panda leg", "tree", ClassSpec("wall", negative=True)], "auto", ["a {}", "the {}"])
DECIDES = Decides(HUB, VOCABULARY, LabelOptions(), FileOptions(), "auto")
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
FACTS = RunFacts(
    decides=DECIDES,
    command="tipsseg label -c 'panda leg,tree'",
    device="cpu",
    dtype="float32",
    sha256={"config.json": "a"},
    vocabulary=replace(VOCABULARY, background=("sky",)),
    asked={"device": "auto", "dtype": "auto"},
    formats=("png", "coco"),
    image_root="/data/imgs",
    shard=None,
    started=STARTED,
)

Change = Callable[[Decides], Decides]


def options(**values: object) -> Change:
    return lambda decides: replace(decides, options=replace(decides.options, **values))  # type: ignore[arg-type]


def model(**values: object) -> Change:
    return lambda decides: replace(decides, model={**decides.model, **values})


def vocabulary(
    classes: list[str | ClassSpec], background: str | list[str], templates: list[str], source: str = ""
) -> Change:
    return lambda decides: replace(decides, vocabulary=make_vocabulary(classes, background, templates, source))


WALL = ClassSpec("wall", negative=True)
TEMPLATES = ["a {}", "the {}"]

#: What changes the digest; and what of these makes ids mean something else.
DECIDING: dict[str, tuple[Change, list[str]]] = {
    "mode": (options(mode="whole"), []),
    "short side": (options(short_side=448), []),
    "least confidence": (options(min_confidence=0.1), []),
    "refinement": (options(refine="pamr"), []),
    "least area": (lambda decides: replace(decides, files=FileOptions(min_area=MinArea(2))), []),
    "dtype": (lambda decides: replace(decides, dtype="float32"), []),
    "revision": (model(revision="2" * 40), ["model"]),
    "repository": (model(repository="other/l14"), ["model"]),
    "a local model": (model(**LOCAL), ["model"]),
    "another class": (vocabulary(["panda leg", "bush", WALL], "auto", TEMPLATES), ["vocabulary"]),
    "another order": (vocabulary(["tree", "panda leg", WALL], "auto", TEMPLATES), ["vocabulary"]),
    "a class more": (vocabulary(["panda leg", "tree", "sky", WALL], "auto", TEMPLATES), ["vocabulary"]),
    "a synonym": (vocabulary(["panda leg", ClassSpec("tree", ("bush",)), WALL], "auto", TEMPLATES), ["vocabulary"]),
    "a colour": (vocabulary(["panda leg", ClassSpec("tree", colour=(0, 0, 1)), WALL], "auto", TEMPLATES), ["vocabulary"]),
    "a confidence of a class": (
        vocabulary(["panda leg", ClassSpec("tree", min_confidence=0.0), WALL], "auto", TEMPLATES), ["vocabulary"],
    ),
    "no negative class": (vocabulary(["panda leg", "tree"], "auto", TEMPLATES), ["vocabulary"]),
    "a background": (vocabulary(["panda leg", "tree", WALL], ["sky"], TEMPLATES), ["vocabulary"]),
    "no background": (vocabulary(["panda leg", "tree", WALL], "none", TEMPLATES), ["vocabulary"]),
    "templates": (vocabulary(["panda leg", "tree", WALL], "auto", ["a {}"]), ["vocabulary"]),
}  # fmt: skip


@pytest.mark.parametrize(("change", "other"), DECIDING.values(), ids=DECIDING.keys())
def test_what_decides_labels(change: Change, other: list[str]) -> None:
    changed = change(DECIDES)
    assert changed.digest != DECIDES.digest
    assert differences(changed.record(), DECIDES.record()) == other


#: What does not.
INDIFFERENT: dict[str, Change] = {
    "the name of a model": model(id="other"),
    "hashes beside a revision": model(sha256={}),
    "where the classes come from": vocabulary(["panda leg", "tree", WALL], "auto", TEMPLATES, "classes.txt"),
    "what an automatic background came to": lambda decides: replace(
        decides, vocabulary=replace(decides.vocabulary, background=("sky",))
    ),
}


@pytest.mark.parametrize("change", INDIFFERENT.values(), ids=INDIFFERENT.keys())
def test_what_does_not_decide_labels(change: Change) -> None:
    changed = change(DECIDES)
    assert changed.digest == DECIDES.digest
    assert differences(changed.record(), DECIDES.record()) == []


def test_another_release_gives_the_same_labels_until_their_version_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    before = DECIDES.digest
    monkeypatch.setattr(module, "__version__", "99")
    assert DECIDES.digest == before
    monkeypatch.setattr(module, "LABELS_VERSION", module.LABELS_VERSION + 1)
    assert DECIDES.digest != before
    assert run_record(FACTS)["labels_version"] == module.LABELS_VERSION


def test_a_dtype_that_is_settled_is_that_of_the_labels() -> None:
    assert DECIDES.settle("float32").digest == replace(DECIDES, dtype="float32").digest != DECIDES.digest


def test_a_local_model_is_known_by_its_files_alone() -> None:
    assert model_identity(LOCAL) == model_identity({**LOCAL, "id": "moved"}) == {"sha256": {"config.json": "a"}}
    assert model_identity(LOCAL) != model_identity({**LOCAL, "sha256": {"config.json": "b"}})


def test_the_record_of_a_run_is_told_from_another_by_what_it_was_asked_for() -> None:
    assert differences(run_record(FACTS), DECIDES.record()) == []
    assert differences({}, DECIDES.record()) == ["model", "vocabulary"]
    assert differences({"model": 7, "vocabulary": []}, {}) == []


def test_the_record_says_what_was_asked_for_and_what_it_came_to() -> None:
    record = run_record(FACTS)
    assert record["digest"] == DECIDES.digest
    assert record["options"] == {
        "mode": "slide",
        "short_side": None,
        "min_confidence": 0.0,
        "refine": "none",
        "instances": "component",
        "min_area": "1",
        "png_mode": "L",
    }
    assert record["vocabulary"] == {
        "source": "",
        "classes": [
            {"id": 1, "name": "panda leg"},
            {"id": 2, "name": "tree"},
            {"id": 0, "name": "wall", "negative": True},
        ],
        "background": ["sky"],
        "auto": True,
        "templates": ["a {}", "the {}"],
    }
    assert (record["dtype"], record["asked"]) == ("float32", {"device": "auto", "dtype": "auto"})
    assert (record["formats"], record["shard"], record["image_root"]) == (["png", "coco"], None, "/data/imgs")
    assert (record["started"], record["ended"], record["counts"]) == ("2026-01-02T03:04:05+00:00", None, None)
    versions = record["versions"]
    assert isinstance(versions, dict)
    assert {"python", "torch", "numpy"} <= versions.keys()


def test_the_record_has_the_hashes_of_the_files_that_were_used() -> None:
    facts = replace(FACTS, decides=replace(DECIDES, model={**HUB, "sha256": {}}), sha256={"model.safetensors": "b"})
    assert run_record(facts)["model"] == {**HUB, "sha256": {"model.safetensors": "b"}}


def test_versions_of_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV comes under several names."""
    plain = metadata.version

    def version(name: str) -> str:
        if name == "opencv-python":
            raise metadata.PackageNotFoundError(name)
        return plain(name)

    monkeypatch.setattr(metadata, "version", version)
    versions = run_record(FACTS)["versions"]
    assert isinstance(versions, dict)
    assert "opencv-python" not in versions
    assert {"pycocotools", "safetensors"} <= versions.keys()


def test_a_run_that_ended_says_how(tmp_path: Path) -> None:
    counts = Counts(labelled=3, unchanged=4, failed=5, edited=2)
    assert counts.done == 12
    record = ended(run_record(FACTS), ("png",), counts, datetime(2026, 1, 2, 4, tzinfo=UTC))
    assert record == {
        **run_record(FACTS),
        "formats": ["png"],
        "ended": "2026-01-02T04:00:00+00:00",
        "counts": {"labelled": 3, "unchanged": 4, "failed": 5, "edited": 2},
    }
    assert write_run(Ownership(tmp_path, tmp_path), tmp_path, record) == tmp_path / RUN_FILE
    assert read_run(tmp_path) == {**record, "files": {}}
    assert [path.name for path in tmp_path.iterdir()] == [RUN_FILE]


def test_names_that_are_no_text_do_not_spoil_the_file(tmp_path: Path) -> None:
    write_run(Ownership(tmp_path, tmp_path), tmp_path, run_record(replace(FACTS, image_root="/data/\udcff")))
    found = read_run(tmp_path)
    assert found is not None
    assert found["image_root"] == "/data/\\udcff"


NO_RUNS: dict[str, bytes] = {
    "nothing": b"",
    "torn": b'{"tool": "tipss',
    "no UTF-8": b'{"tool": "\xff"}',
    "a list": b'["tipsseg"]',
    "of another tool": b'{"tool": "other"}',
    "of no tool": b"{}",
}


@pytest.mark.parametrize("data", NO_RUNS.values(), ids=NO_RUNS.keys())
def test_what_is_no_run_is_none(tmp_path: Path, data: bytes) -> None:
    assert read_run(tmp_path) is None
    (tmp_path / RUN_FILE).write_bytes(data)
    assert read_run(tmp_path) is None
    (tmp_path / RUN_FILE).write_text(json.dumps({"tool": "tipsseg"}))
    assert read_run(tmp_path) == {"tool": "tipsseg"}


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).mkdir()
    with pytest.raises(OutputError, match=r"run.json: the file that is there is not the record of a run"):
        write_run(Ownership(tmp_path, tmp_path), tmp_path, {})
    assert read_run(tmp_path) is None
