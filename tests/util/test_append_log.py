"""Files that grow by whole lines, however writing ends."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipsseg.errors import OutputError
from tipsseg.util import append_log
from tipsseg.util.append_log import AppendLog, lines_of, whole_lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def read(path: Path) -> list[bytes]:
    return [line for _, line in lines_of(path)]


def test_lines_are_read_back_by_their_offsets(tmp_path: Path) -> None:
    lines = [b"one", b"", "zwei ü".encode(), b"\xff\t\r", b"x" * 100_000]
    with AppendLog(tmp_path / "new/folder/log") as log:
        offsets = [log.append(line) for line in lines]
        assert [log.read(offset) for offset in reversed(offsets)] == lines[::-1]
        assert list(lines_of(log.path)) == list(zip(offsets, lines, strict=True))
    with AppendLog(log.path) as log:
        assert log.append(b"more") == log.path.stat().st_size - 5
        assert [log.read(offset) for offset in offsets] == lines


def test_nothing_is_made_before_the_first_line(path: Path) -> None:
    AppendLog(path).close()
    assert not path.exists()
    assert read(path) == []


BLOCK = 1 << 16
TAILS: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "whole": (b"a\nb\n", b"a\nb\n"),
    "a torn line": (b"a\nb\nto", b"a\nb\n"),
    "a torn line alone": (b"torn", b""),
    "an empty line": (b"\n", b"\n"),
    "a torn line of one byte": (b"a\nt", b"a\n"),
    "a torn line of just a block": (b"a\n" + b"t" * BLOCK, b"a\n"),
    "a torn line of several blocks": (b"a\n" + b"t" * (3 * BLOCK + 7), b"a\n"),
    "a torn line of several blocks alone": (b"t" * (2 * BLOCK), b""),
}


@pytest.mark.parametrize(("found", "whole"), TAILS.values(), ids=TAILS.keys())
def test_a_line_that_is_cut_off_counts_for_nothing(path: Path, found: bytes, whole: bytes) -> None:
    path.write_bytes(found)
    assert whole_lines(path) == len(whole)
    assert read(path) == whole.splitlines()
    assert path.read_bytes() == found  # who only reads changes nothing
    with AppendLog(path) as log:
        assert log.append(b"new") == len(whole)
    assert path.read_bytes() == whole + b"new\n"


def test_closing_twice_is_no_harm(path: Path) -> None:
    log = AppendLog(path)
    log.append(b"a")
    log.read(0)
    log.close()
    log.close()


class _Faulty(FileIO):
    """Takes a few bytes at a time, and fails when there is no room for more."""

    room = 10
    failure: Callable[[], BaseException] = KeyboardInterrupt

    def write(self, data: object) -> int:
        part = bytes(data)[: min(3, self.room)]  # type: ignore[call-overload]
        if not part:
            raise type(self).failure()
        type(self).room -= len(part)
        return super().write(part)


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(lambda: OSError(errno.ENOSPC, "full"), OutputError), (KeyboardInterrupt, KeyboardInterrupt)],
    ids=["a full disk", "an interrupt"],
)
def test_a_line_that_cannot_be_written_whole_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException], raised: type[BaseException]
) -> None:
    monkeypatch.setattr(_Faulty, "failure", failure)
    monkeypatch.setattr(_Faulty, "room", 10)
    monkeypatch.setattr(append_log, "FileIO", _Faulty)
    with AppendLog(path) as log:
        assert log.append(b"first") == 0  # by threes
        with pytest.raises(raised):
            log.append(b"second")
        assert path.read_bytes() == b"first\n"
        assert log.read(0) == b"first"
        _Faulty.room = 100
        assert log.append(b"third") == 6
        assert log.read(6) == b"third"
    assert path.read_bytes() == b"first\nthird\n"


def test_a_file_that_may_not_grow_keeps_its_whole_lines(path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from tipsseg.util.append_log import AppendLog
from tipsseg.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = AppendLog(Path(sys.argv[1]))
try:
    while True:
        log.append(b"x" * 299)
except OutputError as error:
    print(error.reason, "|", error.hint, "|", error.only_this)
log.append(b"y" * 99)
"""
    ran = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert ran.stdout == "the system allows no larger file | See `ulimit -f`, and run the same command again. | False\n"
    assert path.read_bytes() == 3 * (b"x" * 299 + b"\n") + b"y" * 99 + b"\n"


def test_a_process_may_be_killed_at_any_moment(path: Path) -> None:
    script = """
import sys
from pathlib import Path
from tipsseg.util.append_log import AppendLog
log = AppendLog(Path(sys.argv[1]))
for number in range(10**9):
    log.append(b"%d" % number * 50)
    if number == 100:
        print("going", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    lines = read(path)
    assert len(lines) > 100
    assert lines == [b"%d" % number * 50 for number in range(len(lines))]


REFUSED: dict[str, tuple[str, str]] = {
    "a folder of that name": (".", "a folder has this name"),
    "a file in place of the folder": ("file/log", "one of its parent folders is a file"),
    "a name that is too long": ("x" * 300, "the name is too long"),
}


@pytest.mark.parametrize(("name", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_system_refuses(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    log = AppendLog(tmp_path / name)
    for _ in range(2):
        with pytest.raises(OutputError, match=reason):
            log.append(b"a")
    log.close()


def test_a_file_that_is_gone_cannot_be_read(path: Path) -> None:
    with AppendLog(path) as log, pytest.raises(OutputError, match="No such file"):
        log.read(0)


def test_another_thread_may_read_while_lines_are_added(path: Path) -> None:
    offsets: list[int] = []
    wrong: list[bytes] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for number in range(max(0, len(offsets) - 20), len(offsets)):
                if (line := log.read(offsets[number])) != b"<%d>" % number:
                    wrong.append(line)

    with AppendLog(path) as log:
        reader = threading.Thread(target=look)
        reader.start()
        for number in range(2000):
            offsets.append(log.append(b"<%d>" % number))
        done.set()
        reader.join()
    assert wrong == []


texts = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"_"))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), texts),
        st.tuples(st.just("reopen"), st.just(b"")),
        st.tuples(st.just("torn"), texts.filter(bool)),
    ),
    max_size=20,
)


@settings(max_examples=200)
@given(steps)
def test_a_log_is_a_list_of_lines(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bytes]]) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log, model = AppendLog(path), dict[int, bytes]()
    for step, text in steps:
        if step == "append":
            model[log.append(text)] = text
        else:
            log.close()
            if step == "torn":
                with path.open("ab") as file:
                    file.write(text)
            log = AppendLog(path)
        assert dict(lines_of(path)) == model
        assert {offset: log.read(offset) for offset in model} == model
    log.close()


def test_a_reader_that_saw_half_a_line_reads_what_came_in_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(FileIO):
        """Fails in the middle of the second line, after another thread has read ahead."""

        def write(self, data: object) -> int:
            if bytes(data) != b"second\n":  # type: ignore[call-overload]
                return super().write(data)  # type: ignore[arg-type]
            super().write(b"sec")
            assert log.read(0) == b"first"
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(append_log, "FileIO", Watched)
    with AppendLog(path) as log:
        log.append(b"first")
        with pytest.raises(OutputError):
            log.append(b"second")
        assert log.append(b"third") == 6
        assert log.read(6) == b"third"
