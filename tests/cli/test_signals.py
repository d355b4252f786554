"""A run that is told to stop: what is finished is whole, and nothing else is there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

STOPS = {"Ctrl-C": (signal.SIGINT, 130, "Interrupted"), "SIGTERM": (signal.SIGTERM, 143, "Terminated")}


@pytest.mark.parametrize("case", ["Ctrl-C", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_leaves_whole_files(mlp_checkpoint: Path, tmp_path: Path, case: str) -> None:
    number, code, message = STOPS[case]
    for index in range(400):
        Image.effect_noise((64, 80), 60).convert("RGB").save(tmp_path / f"{index:03}.jpg")
    command = [sys.executable, *f"-m tipsseg label . -c a,b -m {mlp_checkpoint} -o out -f png".split()]
    with subprocess.Popen(
        [*command, "--device", "cpu", "--jobs", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == "out/masks/000.png\n"
        run.send_signal(number)
        out, err = run.stdout.read(), run.stderr.read()  # `communicate` would lose what `readline` has read ahead
    assert run.returncode == code
    told = re.fullmatch(message + r": (\d+) images? done; run the same command to resume\.", err.splitlines()[-1])
    assert "Traceback" not in err
    done = ["out/masks/000.png", *out.splitlines()]
    assert told is not None
    assert len(done) <= int(told[1]) < 400
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    masks = [path for path in files if path.parent.name == "masks"]
    # Of those in memory, 2 * jobs + 1, files may be in place and not told of.
    assert len(done) <= len(masks) <= len(done) + 3
    for path in masks:
        with Image.open(path) as mask:
            mask.load()
            assert mask.size == (64, 80)
    others = {path.name for path in files if path not in masks}
    assert others == {"run.json", "cache.db"}
    assert int(told[1]) <= len(masks)


#: Runs the command, and sends it a signal when it imports a module or opens a file.
SIGNALLED = """
import os, signal, sys
from tipsseg.__main__ import main

moment, name, number, way = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1)), sys.argv.pop(1)
sent = []

def send():
    sent.append(os.kill(os.getpid(), number))
    for _ in range(9):  # Python runs the handler in here
        pass

def watch(event, arguments):
    if event == moment and str(arguments[0]).endswith(name) and not sent:
        try:
            send()
        finally:
            if way == "twice":
                send()
                print("tidied up")

if way == "ignored":
    signal.signal(number, signal.SIG_IGN)
sys.addaudithook(watch)
main()
"""


def signalled(folder: Path, case: str, moment: str, way: str = "once") -> subprocess.CompletedProcess[str]:
    (folder / "classes.txt").write_text("tree\n")
    Image.new("RGB", (64, 80)).save(folder / "a.png")
    kind, name = moment.split()
    command = ["label", "a.png", "-m", "tiny", "--vocab", "classes.txt", "-f", "png", "--device", "cpu", "-o", "out"]
    return subprocess.run(
        [sys.executable, "-c", SIGNALLED, kind, name, str(int(STOPS[case][0])), way, *command],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("case", STOPS)
@pytest.mark.parametrize("moment", ["import typer", "open classes.txt"])
def test_a_signal_ends_a_command_that_loads_or_works(tmp_path: Path, case: str, moment: str) -> None:
    ran = signalled(tmp_path, case, moment)
    assert (ran.returncode, ran.stdout) == (STOPS[case][1], "")
    assert re.fullmatch(f"(1 (class|image) .*\n)*{STOPS[case][2]}[.:].*\n", ran.stderr)


#: Runs the command, and sends it SIGTERM at a call of a function, counted since its handler stands.
AT_A_CALL = """
import os, signal, sys
from tipsseg.__main__ import main

left = int(sys.argv.pop(1))

def watch(frame, event, what):
    global left
    if event == "call" and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        left -= 1
        if left == 0:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGTERM)

sys.setprofile(watch)
main()
"""


@pytest.mark.parametrize("call", [1, 2, 7, 30, 20_000, 60_000, 120_000, 200_000])
def test_a_signal_at_any_call_ends_with_a_line(tmp_path: Path, call: int) -> None:
    Image.effect_noise((64, 80), 60).convert("RGB").save(tmp_path / "a.png")
    command = [sys.executable, "-c", AT_A_CALL, str(call), "label", "a.png", "-c", "tree", "-m", "tiny"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 143
    assert re.fullmatch(r"(1 class: tree\.\n)?(1 image .*\n)?Terminated[:.].*\n", ran.stderr), ran.stderr


#: Runs the command, which is sent a signal while Python shuts down: before its threads have ended, and last of all.
AT_THE_END = """
import atexit, os, sys, threading
from tipsseg.__main__ import main

number = int(sys.argv.pop(1))
atexit.register(os.kill, os.getpid(), number)
if sys.argv.pop(1) == "threads":
    threading._register_atexit(os.kill, os.getpid(), number)
main()
"""


@pytest.mark.parametrize("moment", ["threads", "last"])
@pytest.mark.parametrize("case", STOPS)
def test_a_signal_after_the_work_changes_nothing(tmp_path: Path, case: str, moment: str) -> None:
    command = [sys.executable, "-c", AT_THE_END, str(int(STOPS[case][0])), moment, "vocab", "list"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr, "cityscapes" in ran.stdout) == (0, "", True)


@pytest.mark.parametrize("case", STOPS)
def test_a_second_signal_ends_at_once(tmp_path: Path, case: str) -> None:
    ran = signalled(tmp_path, case, "open classes.txt", "twice")
    assert (ran.returncode, ran.stdout) == (-STOPS[case][0], "")


def test_a_signal_that_the_caller_ignores_is_ignored(tmp_path: Path) -> None:
    """As after nohup, and in background jobs of a shell script."""
    ran = signalled(tmp_path, "Ctrl-C", "open classes.txt", "ignored")
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, "out/masks/a.png")


def test_a_run_that_waits_for_more_of_a_list_stops_at_once(mlp_checkpoint: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 80)).save(tmp_path / "a.png")
    command = [sys.executable, *f"-m tipsseg label - -c a,b -m {mlp_checkpoint} -o out -f png".split()]
    with subprocess.Popen(
        [*command, "--device", "cpu"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdin.write("a.png\n")
        run.stdin.flush()
        assert run.stdout.readline() == "out/masks/a.png\n"
        run.terminate()
        try:
            assert run.wait(timeout=60) == 143
        finally:
            run.kill()
        assert run.stderr.read().endswith("Terminated: 1 image done; run the same command to resume.\n")
