"""The journal of annotations.json: what a run adds outlives the run, and the file appears at its end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows, RowsFile, RunContext
from tipsseg.formats.coco import FILE_NAME
from tipsseg.store.journal import Journal
from tipsseg.util import append_log
from tipsseg.util.files import json_bytes
from tipsseg.vocabulary.vocabulary import make_vocabulary

JOURNAL = ".tipsseg-coco"


@cache
def context_of(folder: Path) -> RunContext:
    """One for a folder, as what it wrote is its own."""
    return RunContext(folder, folder, make_vocabulary(["tree"], "none").classes, {"version": "0"})


def file_in(folder: Path) -> RowsFile:
    file = FORMATS["coco"].rows_file(context_of(folder))
    assert file is not None
    return file


def journal_in(folder: Path) -> Journal:
    return Journal("coco", file_in(folder), folder, ())


def records_of(name: str, *annotations: int) -> Rows:
    image = {"file_name": name, "width": 3, "height": 2, "license": 1}
    return tuple(map(json_bytes, (image, *({"category_id": 1, "area": number} for number in annotations))))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with an annotations.json of a.png and b.png."""
    file_in(tmp_path).write(["a.png", "b.png"], lambda name: records_of(name, 7))
    return tmp_path


def test_what_is_added_becomes_the_file(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    assert not journal.changed
    hard = "sub/ü \t\n.png"
    for name in ("b.png", "a.png", hard):
        journal.add(name, records_of(name, len(name)))
    journal.add("b.png", records_of("b.png"))
    assert journal.changed
    assert names(tmp_path) == [JOURNAL]
    assert journal.path == tmp_path / FILE_NAME
    journal.write(["a.png", "b.png", "not there.png", hard])
    assert names(tmp_path) == [FILE_NAME]
    assert dict(file_in(tmp_path).read(())) == {
        "a.png": records_of("a.png", 5),
        "b.png": records_of("b.png"),
        hard: records_of(hard, len(hard)),
    }


def test_a_run_that_adds_nothing_touches_nothing(written: Path) -> None:
    before = (written / FILE_NAME).stat()
    journal = journal_in(written)
    assert [journal.has(name) for name in ("a.png", "b.png", "c.png")] == [True, True, False]
    assert not journal.changed
    journal.close()
    assert names(written) == [FILE_NAME]
    assert (written / FILE_NAME).stat() == before


def test_what_the_file_has_is_kept_unless_it_is_replaced(written: Path) -> None:
    journal = journal_in(written)
    journal.add("c.png", records_of("c.png"))
    journal.add("a.png", records_of("a.png", 1, 2))
    assert [journal.has(name) for name in ("a.png", "b.png", "c.png")] == [True, True, True]
    journal.write(["a.png", "b.png", "c.png"])
    assert dict(file_in(written).read(())) == {
        "a.png": records_of("a.png", 1, 2),
        "b.png": records_of("b.png", 7),
        "c.png": records_of("c.png"),
    }


def test_a_run_that_was_killed_is_gone_on_from(written: Path) -> None:
    journal = journal_in(written)
    journal.add("c.png", records_of("c.png", 3))
    journal.close()  # as its end does, however it comes
    with (written / JOURNAL).open("ab") as file:
        file.write(b'"d.png"\t{"file_na')
    journal = journal_in(written)
    assert journal.changed
    assert [journal.has(name) for name in ("a.png", "b.png", "c.png", "d.png")] == [True, True, True, False]
    journal.add("d.png", records_of("d.png", 4))
    journal.write(["a.png", "b.png", "c.png", "d.png"])
    assert dict(file_in(written).read(()))["d.png"] == records_of("d.png", 4)
    assert len(list(file_in(written).names(()))) == 4


def test_an_image_without_records_is_known_all_the_same(tmp_path: Path) -> None:
    """As one without objects in results.json."""
    context = RunContext(tmp_path, tmp_path, (), {})
    file = FORMATS["coco-results"].rows_file(context)
    assert file is not None
    killed = Journal("coco-results", file, tmp_path, ())
    killed.add("empty.png", ())
    killed.add("full.png", (b'{"category_id": 1, "file_name": "full.png"}',))
    killed.close()
    journal = Journal("coco-results", file, tmp_path, ())
    assert journal.has("empty.png")
    journal.write(["empty.png", "full.png"])
    assert dict(file.read(["empty.png", "full.png"])) == {
        "empty.png": (),
        "full.png": (b'{"category_id": 1, "file_name": "full.png"}',),
    }


def test_a_journal_with_lines_that_are_none_keeps_the_others(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.add("a.png", records_of("a.png", 1))
    journal.close()
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b"\0" * 40 + b"\n" + b"7\t{}\n" + b"[]\t{}\n" + b'\0"c.png"\t{}\n' + b'"c.png"\n')
    journal = journal_in(tmp_path)
    assert [journal.has(name) for name in ("a.png", "c.png")] == [True, False]
    journal.write(["a.png", "c.png"])
    assert dict(file_in(tmp_path).read(())) == {"a.png": records_of("a.png", 1)}


def test_a_file_of_somebody_else_stays_and_so_does_the_journal(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("{}")
    journal = journal_in(tmp_path)
    assert not journal.has("a.png")
    journal.add("a.png", records_of("a.png"))
    with pytest.raises(OutputError, match=r"annotations.json: tipsseg did not write the file that is there"):
        journal.write(["a.png"])
    journal.close()
    assert names(tmp_path) == [JOURNAL, FILE_NAME]
    assert (tmp_path / FILE_NAME).read_text() == "{}"


def test_a_file_that_cannot_be_continued_is_left_as_it_is(written: Path) -> None:
    torn = (written / FILE_NAME).read_bytes()[:-20]
    (written / FILE_NAME).write_bytes(torn)
    journal = journal_in(written)
    assert journal.has("a.png")  # its images are whole
    with pytest.raises(OutputError, match="what is there cannot be continued: ") as caught:
        journal.add("c.png", records_of("c.png"))
    assert caught.value.hint == "Move that file away."
    assert names(written) == [FILE_NAME]
    assert (written / FILE_NAME).read_bytes() == torn


def test_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(OutputError, match="a folder has this name"):
        journal_in(tmp_path)


images = st.sampled_from(["a", "b", "c"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), images),
        *(st.tuples(st.just(step), st.just("")) for step in ("reopen", "torn", "write")),
    ),
    max_size=20,
)


@settings(max_examples=200)
@given(steps)
def test_a_journal_is_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = journal_in(folder)
    here: dict[str, Rows] = {}
    for number, (step, image) in enumerate(steps):
        if step == "add":
            here[image] = records_of(image, *range(number % 4))
            journal.add(image, here[image])
        elif step == "write":
            journal.write(["c", "a", "b"])
            assert dict(file_in(folder).read(())) == here
            assert list(file_in(folder).names(())) == [image for image in ("c", "a", "b") if image in here]
            journal = journal_in(folder)  # one is for one run
        else:
            journal.close()
            if step == "torn" and (folder / JOURNAL).exists():
                with (folder / JOURNAL).open("ab") as file:
                    file.write(b'"b"\t{"file'[: 1 + number])
            journal = journal_in(folder)
        assert {image for image in "abc" if journal.has(image)} == set(here)
    journal.write(["a", "b", "c"])
    assert dict(file_in(folder).read(())) == here


def test_an_image_is_known_while_others_are_added(written: Path) -> None:
    """Also at the first of them, when the journal takes up what the file has."""
    interval = sys.getswitchinterval()
    asked, lost = 0, 0
    try:
        sys.setswitchinterval(1e-6)
        for _ in range(40):
            journal = journal_in(written)
            begun, done = threading.Event(), threading.Event()

            def ask(journal: Journal = journal, begun: threading.Event = begun, done: threading.Event = done) -> None:
                nonlocal asked, lost
                while not done.is_set():
                    begun.set()
                    for _ in range(100):
                        asked += 2
                        lost += (not journal.has("a.png")) + (not journal.has("b.png"))

            asking = threading.Thread(target=ask)
            asking.start()
            begun.wait()
            for number in range(20):
                journal.add("c.png", records_of("c.png", number))
            done.set()
            asking.join()
            journal.close()
            (written / JOURNAL).unlink()
    finally:
        sys.setswitchinterval(interval)
    assert lost == 0
    assert asked > 0


def test_what_the_file_has_is_known_while_the_journal_takes_it_up(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread would see it, between the lines."""
    journal = journal_in(written)
    plain, seen = append_log.lines_of, []

    def watched(path: Path) -> Iterator[tuple[int, bytes]]:
        for line in plain(path):
            seen.append([journal.has(name) for name in ("a.png", "b.png")])
            yield line

    monkeypatch.setattr("tipsseg.store.journal.lines_of", watched)
    journal.add("c.png", records_of("c.png", 1))
    journal.close()
    assert seen == [[True, True]] * 2
