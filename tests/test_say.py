from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tipsseg.errors import ImageError, Words
from tipsseg.say import Progress
from tipsseg.util.text import format_duration, pluralize


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (9, "0:09"), (117, "1:57"), (3600, "1:00:00"), (7509, "2:05:09")]
)
def test_durations_are_shown_as_a_clock(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("total", "done", "seconds", "lines"),
    [
        (
            40,
            40,
            2,
            ["15 of 40 images, 0.5 images/s, about 0:50 left", "30 of 40 images, 0.5 images/s, about 0:20 left"],
        ),
        (
            10,
            3,
            40,
            [
                "1 of 10 images, 0.0 images/s",
                "2 of 10 images, 0.0 images/s",
                "3 of 10 images, 0.0 images/s, about 4:40 left",
            ],
        ),
    ],
    ids=["every half minute", "slow images"],
)
def test_lines_come_now_and_then_when_nobody_watches(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    total: int,
    done: int,
    seconds: float,
    lines: list[str],
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Progress(quiet=False) as shown:
        shown.begin("joining", total, what=f"{total} images")
        for _ in range(done):
            now[0] += seconds
            shown.advance()
    assert capsys.readouterr().err.splitlines() == [f"Joining {total} images.", *lines]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


#: The seconds before each image of 1,000 that are done: the first one waits for the model.
WARMING, IN_BATCHES = [72.0, *[0.5] * 90], [72.0, *[0.0] * 30, 40.0, *[0.0] * 30]


@pytest.mark.parametrize(
    ("waits", "lines"),
    {
        "one by one": (WARMING, ["1 of 1000 images, 0.0 images/s", "61 of 1000 images, 0.6 images/s, about 7:50 left"]),
        "in batches": (
            IN_BATCHES,
            ["1 of 1000 images, 0.0 images/s", "32 of 1000 images, 0.3 images/s, about 20:49 left"],
        ),
    }.values(),
)
@pytest.mark.parametrize("watched", [False, True])
def test_the_time_left_is_not_told_of_the_first_images(
    monkeypatch: pytest.MonkeyPatch, waits: list[float], lines: list[str], watched: bool
) -> None:
    now = [100.0]
    screen = Terminal() if watched else io.StringIO()
    for name in ("time.monotonic", "tqdm.std.time"):
        monkeypatch.setattr(name, lambda: now[0])
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(quiet=False) as shown:
        shown.begin("joining", 1000, what="1000 images")
        for number, wait in enumerate(waits):
            now[0] += wait
            shown.advance()
            if number == 8:
                early = screen.getvalue()
        late = screen.getvalue()[len(early) :]
    assert "left" not in early
    assert "<" not in early  # as tqdm has it
    if watched:
        assert lines[-1].rpartition(", ")[2] in late
    else:
        assert screen.getvalue().splitlines() == ["Joining 1000 images.", *lines]


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(quiet=False) as shown:
        shown.begin("joining", 3, what="3 images")
        for _ in range(3):
            shown.advance()
        shown.error(ImageError(Path("b.jpg"), "empty file (0 bytes)"))
    assert "Error: b.jpg: empty file (0 bytes)\n" in screen.getvalue()
    assert "3/3" in screen.getvalue()
    assert "image/s" in screen.getvalue()


def test_quiet_says_errors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(quiet=True) as shown:
        shown.begin("joining", 1, what="1 image")
        shown.note("none_removed")
        shown.error(ImageError(Path("b.jpg"), "truncated", "Fetch it again."))
        shown.advance()
    assert screen.getvalue() == "Error: b.jpg: truncated (Fetch it again.)\n"


def test_lines_name_options_as_the_reader_does(capsys: pytest.CaptureFixture[str]) -> None:
    error = ImageError(Path("b.jpg"), "too large", Words("Set {max_pixels}."))
    with Progress(quiet=False, name_of=lambda option: option.upper()) as shown:
        shown.say(Words("{classes}"))
        shown.say("a note")
        shown.error(error)
        printed = shown.printed(error)
    assert capsys.readouterr().err == "CLASSES\na note\nError: b.jpg: too large (Set MAX_PIXELS.)\n"
    assert (printed.path, printed.reason, printed.hint) == (Path("b.jpg"), "too large", "Set MAX_PIXELS.")


def test_details_are_printed_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    for detailed in (False, True):
        with Progress(quiet=False, detailed=detailed) as shown:
            shown.note("phrases_dropped", pairs="sky (close to heaven)")
    assert capsys.readouterr().err.count("sky (close to heaven)") == 1


def test_paths_of_results_go_to_stdout_unless_something_else_does(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    for results in (True, False):
        with Progress(quiet=False, results=results) as shown:
            shown.results([Path("a\udcff.png"), Path("b.png")])
    assert capsysbinary.readouterr().out == b"a\xff.png\nb.png\n"


@pytest.mark.parametrize(
    ("number", "plural", "text"), [(1, "", "1 class"), (2, "classes", "2 classes"), (0, "", "0 classs")]
)
def test_nouns_are_counted(number: int, plural: str, text: str) -> None:
    assert pluralize(number, "class", plural) == text
