"""errors.jsonl: what failed, until it is mended."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

import pytest

from tipsseg.errors import ImageError, OutputError
from tipsseg.store.error_log import ERRORS_FILE, UNREADABLE_ERRORS, ErrorLog, read_failed
from tipsseg.store.results import Failed
from tipsseg.types import ImageRef
from tipsseg.util.append_log import AppendLog


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "imgs"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).touch()
    return folder


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "out"


def failed(images: Path, name: str, reason: str = "broken") -> Failed:
    ref = ImageRef(images / name, PurePosixPath(name))
    return Failed(ref, ImageError(ref.path, reason, "Mend it."))


def run(records: Path, *failures: Failed, labelled: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """A run in which these failed and those were labelled; the images in the file at its end."""
    log = ErrorLog(records)
    for each in failures:
        log.add(each)
    for name in labelled:
        log.mend(name)
    log.finish()
    return [each.name for each in read_failed(records)]


def lines(records: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (records / ERRORS_FILE).read_bytes().splitlines()]


def test_a_failure_is_a_line(images: Path, records: Path) -> None:
    log = ErrorLog(records)
    log.add(failed(images, "sub/ü.png"))
    assert lines(records) == [  # at once, not only at the end
        {"image": "sub/ü.png", "path": str(images / "sub/ü.png"), "reason": "broken", "hint": "Mend it."}
    ]
    log.close()
    log.close()


def test_failures_are_kept_in_the_order_of_names_one_an_image(images: Path, records: Path) -> None:
    given = [failed(images, name) for name in ("b.png", "sub/x.png", "a.png", "b.png")]
    assert run(records, *given, failed(images, "b.png", "worse")) == ["a.png", "b.png", "sub/x.png"]
    assert [line["reason"] for line in lines(records)] == ["broken", "worse", "broken"]


def test_without_failures_there_is_no_file(records: Path) -> None:
    assert run(records) == []
    assert not records.exists()
    log = ErrorLog(records)
    log.clear()
    assert not records.exists()


def test_what_failed_before_stays_until_it_is_labelled_or_gone(images: Path, records: Path) -> None:
    assert run(records, *(failed(images, name) for name in ("a.png", "b.png", "c.png"))) == ["a.png", "b.png", "c.png"]
    (images / "b.png").unlink()
    assert run(records, labelled={"a.png", "d.png"}) == ["c.png"]
    assert run(records, failed(images, "a.png")) == ["a.png", "c.png"]
    assert run(records, labelled={"a.png", "c.png"}) == []
    assert not (records / ERRORS_FILE).exists()


def test_a_file_that_may_be_run_is_still_a_file(images: Path, records: Path) -> None:
    (images / "a.png").chmod(0o755)
    run(records, failed(images, "a.png"))
    assert run(records) == ["a.png"]


def test_a_folder_that_can_be_listed_again_fails_no_more(images: Path, records: Path) -> None:
    (images / "sub").mkdir()
    assert run(records, failed(images, "sub")) == ["sub"]
    assert run(records) == []


def test_what_failed_now_is_told_of_even_if_it_is_gone(images: Path, records: Path) -> None:
    assert run(records, failed(images, "gone.png")) == ["gone.png"]
    assert run(records) == []


def test_clearing_forgets_all(images: Path, records: Path) -> None:
    run(records, failed(images, "a.png"))
    log = ErrorLog(records)
    log.add(failed(images, "b.png"))
    log.clear()
    assert not (records / ERRORS_FILE).exists()
    log.add(failed(images, "c.png"))
    log.finish()
    assert [each.name for each in read_failed(records)] == ["c.png"]


def test_names_that_are_no_text_come_back(images: Path, records: Path) -> None:
    name = os.fsdecode(b"sub-\xff/\xe4.png")
    run(records, failed(images, name))
    (records / ERRORS_FILE).read_bytes().decode("utf-8")
    (ref,) = read_failed(records)
    assert ref == ImageRef(images / name, PurePosixPath(name))
    assert ref.name == "sub-\\udcff/\\udce4.png"


def test_names_that_look_like_such_are_taken_as_they_are(images: Path, records: Path) -> None:
    name = "\\udcff.png"
    (images / name).touch()
    run(records, failed(images, name))
    (ref,) = read_failed(records)
    assert (ref.path, ref.name) == (images / name, name)


def test_a_run_that_was_killed_leaves_what_it_had(images: Path, records: Path) -> None:
    log = ErrorLog(records)
    log.add(failed(images, "a.png"))
    log.close()
    with (records / ERRORS_FILE).open("ab") as file:
        file.write(b'{"image": "b.p')
    assert [each.name for each in read_failed(records)] == ["a.png"]
    assert run(records, failed(images, "c.png")) == ["a.png", "c.png"]
    assert len(lines(records)) == 2


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"\xff", b"[]", b"7", b'{"image": "x"}', b'{"image": 7, "path": "x"}', b'{"image": "x", "path": 7}'),
        *(b'{"image": "../../x", "path": "x"}', b'{"image": "/x", "path": "x"}', b'{"image": "x", "path": "\\u0000"}'),
    ],
    ids=repr,
)
def test_lines_that_are_none_are_passed_over(images: Path, records: Path, line: bytes) -> None:
    with AppendLog(records / ERRORS_FILE) as log:
        log.append(line)
    assert run(records, failed(images, "a.png")) == ["a.png"]
    assert len(lines(records)) == 1
    assert (records / UNREADABLE_ERRORS).read_bytes() == line + b"\n"  # nobody else has it


def test_a_log_that_cannot_be_read_or_written(images: Path, records: Path) -> None:
    (records / ERRORS_FILE).mkdir(parents=True)
    with pytest.raises(OutputError, match=r"errors.jsonl: it cannot be read: Is a directory"):
        read_failed(records)
    with pytest.raises(OutputError, match=r"errors.jsonl: it cannot be read: Is a directory"):
        ErrorLog(records)
    (records / ERRORS_FILE).rmdir()
    log = ErrorLog(records)
    (records / ERRORS_FILE).mkdir()
    for attempt in (lambda: log.add(failed(images, "a.png")), log.clear):
        with pytest.raises(OutputError, match=r"errors.jsonl: a folder has this name"):
            attempt()


def test_failures_are_kept_folder_by_folder(images: Path, records: Path) -> None:
    order = ["a/x.png", "a-b.png", "b.png"]
    assert run(records, *(failed(images, name) for name in reversed(order))) == order
    assert [line["image"] for line in lines(records)] == order
    log = ErrorLog(records)
    log.add(failed(images, "a/w.png"))
    log.close()  # killed: what it had stands at the end
    assert [each.name for each in read_failed(records)] == ["a/w.png", *order]


def test_names_that_are_no_text_stay_until_they_are_mended(images: Path, records: Path) -> None:
    name = os.fsdecode(b"sub-\xff.png")
    (images / name).touch()
    run(records, failed(images, name))
    assert run(records, failed(images, "a.png")) == ["a.png", "sub-\\udcff.png"]


@pytest.mark.parametrize("lacking", [os.R_OK, os.X_OK], ids=["not to be listed", "nothing in it to be opened"])
def test_a_folder_that_still_cannot_be_listed_fails_still(
    images: Path, records: Path, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    (images / "sub").mkdir()
    assert run(records, failed(images, "sub")) == ["sub"]
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & lacking)  # root may do all
    assert run(records) == ["sub"]


def test_the_input_is_noted_where_an_output_could_not_be_written(images: Path, records: Path) -> None:
    ref = ImageRef(images / "a.png", PurePosixPath("a.png"))
    run(records, Failed(ref, ImageError(records / "masks/a.png", "the name is too long")))
    assert read_failed(records) == (ref,)  # what --retry-failed labels


def test_what_failed_and_is_labelled_after_all_leaves_no_file(images: Path, records: Path) -> None:
    assert run(records, failed(images, "a.png"), labelled={"a.png"}) == []
    assert not (records / ERRORS_FILE).exists()
