"""The records of runs with a feature store: who may write them, what run.json says of the store, and how a run goes on from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from resuming import ALL, Run, contents, record, tree

from tipsseg.folder.lock import FolderLock
from tipsseg.folder.record import RUN_FILE, read_record

STORE = ("--features", "feats")


def encode(run: Run, *extra: object) -> str:
    ran = run.command("encode", "imgs", "-m", run.model, "--device", "cpu", "-o", "feats", *extra)
    run.code = ran.code
    return ran.err


def begin_store(run: Run, dtype: str, folder: str = "feats") -> None:
    """Begin a feature store of that dtype with one image."""
    encode(run, "--sample", "1", "--feature-dtype", dtype, "-o", folder)
    assert run.code == 0


def store_dtype() -> object:
    return json.loads(Path("feats/features.json").read_bytes())["dtype"]


def test_the_records_are_one_run_s_at_a_time(run: Run) -> None:
    encode(run, "--sample", "1")
    lock = FolderLock(Path("feats"))
    assert "cannot write feats: another tipsseg process is using it" in encode(run)
    assert run.code == 1
    # Labels add features all the same.
    run("--features", "feats")
    assert run.code == 0
    lock.give_back()
    assert "3 unchanged" in encode(run)
    assert sorted(path.name for path in Path("feats").iterdir()) == ["feats", "features.json"]


def test_run_json_names_the_store(run: Run) -> None:
    run()
    assert "features" not in record(Path("out"))
    begin_store(run, "int8")
    run(*STORE, output="stored")
    assert record(Path("stored"))["features"] == {"folder": "feats", "dtype": "int8"}
    spec = read_record(Path("stored", RUN_FILE), "").spec
    assert (spec.features, spec.feature_dtype) == (Path("feats"), "int8")
    assert run.command("convert", "stored", "-f", "yolo").code == 0
    assert record(Path("stored"))["features"] == {"folder": "feats", "dtype": "int8"}
    shutil.rmtree("feats")  # labels need it no more
    assert run.command("check", "stored").code == 0


@pytest.mark.parametrize("gone", [False, True], ids=["store", "no store any more"])
def test_a_run_goes_on_in_the_dtype_of_its_features(run: Run, gone: bool) -> None:
    begin_store(run, "int8")
    run(*STORE, "--sample", "1")
    if gone:
        shutil.rmtree("feats")
    run(*STORE)
    assert (run.labelled, store_dtype()) == (ALL[:1] + ALL[2:], "int8")
    run(*STORE, output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))


def test_labels_of_other_features_are_refused_until_the_run_starts_over(run: Run) -> None:
    begin_store(run, "int8")
    run("--sample", "2")
    found = tree("out")
    assert "features" in run(*STORE)
    assert (run.code, run.labelled, tree("out")) == (1, [], found)
    run(*STORE, "--overwrite")
    assert run.labelled == ALL
    run(*STORE, output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))


def test_a_run_that_is_repeated_without_its_store_says_so(run: Run) -> None:
    begin_store(run, "int8")
    run(*STORE)
    told = "The run of out/run.json used features in int8 (feats); this run uses float32."
    repeat = ("label", "imgs", "--from", "out", "--device", "cpu", "-o")
    assert told in run.command(*repeat, "again").err
    assert "used features in" not in run.command(*repeat, "third", "--features", "feats").err


def test_a_dry_run_adds_no_features(run: Run) -> None:
    err = run(*STORE, "--dry-run")
    assert "3 images to label, into out: panda leg, tree, sky. Nothing was written." in err
    assert not Path("feats").exists()
    encode(run, "--sample", "2")
    before = tree("feats")
    run("--features", "feats", "--dry-run")
    assert tree("feats") == before
