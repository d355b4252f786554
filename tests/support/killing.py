"""Runs `tipsseg` again and again in processes that are killed, without warning, as by kill -9 or the system's lack of memory.

    python killing.py random SEED KILLS ARGUMENTS...
        `tipsseg label` at random moments, until so many were killed and the last run ended by itself
    python killing.py each FOLDER ARGUMENTS...
        `tipsseg label` before each change of a file below the current folder in turn: the n-th run goes to FOLDER/n, is killed
        before its n-th, and then goes on undisturbed
    python killing.py copies SIGNAL SOURCE ARGUMENTS...
        `tipsseg` before each change of a file in turn, by this signal: the n-th run is in a copy of the folder SOURCE, named n
    python killing.py serve
        `tipsseg` once for each line of JSON on stdin, see `serve`

Processes are forked from one that has imported all they need, so that they begin to work at once. Prints the number of kills.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import mmap
import os
import pkgutil
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

#: What Python tells before it does it; of these, those that change files.
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}

#: Statements by which SQLite changes what others see; what is between two of them is nothing to anybody else.
_STATEMENTS = ("COMMIT", "PRAGMA journal_mode")


def prepare() -> None:
    """Import all that a run imports: of the time of a short run it is the larger part."""
    from PIL import Image

    import tipsseg
    from tipsseg.cli.main import main

    Image.init()
    for module in pkgutil.walk_packages(tipsseg.__path__, "tipsseg."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # What is imported when arguments are read: a command that goes no further than that.
    sys.argv = ["tipsseg", "label", "no-such-folder", "--classes", "tree", "--model", "tiny", "--quiet"]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main()


def start(
    arguments: list[str],
    kill_before: int | None = None,
    number: int = signal.SIGKILL,
    streams: tuple[int, int] | None = None,
    counter: mmap.mmap | None = None,
) -> int:
    """The number of a new process that runs `tipsseg` with these arguments; `streams` are its stdout and stderr."""
    child = os.fork()
    if child:
        return child
    out, err = streams or (os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(out, 1)
    os.dup2(err, 2)
    try:
        from tipsseg.cli.main import main

        if kill_before is not None:
            kill_at_operation(kill_before, number, counter)
        sys.argv = ["tipsseg", *arguments]
        main()
    except SystemExit as end:
        _flush()
        os._exit(int(end.code or 0))
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(70)  # an error; its traceback is on stderr
    return 0


def _flush() -> None:
    """Write what Python holds of stdout and stderr, which `os._exit` would drop."""
    sys.stdout.flush()
    sys.stderr.flush()


def kill_at_operation(number: int, by: int, counter: mmap.mmap | None = None) -> None:
    """Kill this process by a signal before it changes a file for that time, counted from 1; `counter` holds the count.

    SQLite tells Python nothing of its files. Its statements count.
    """
    here = os.fsencode(Path.cwd())
    changed = 0

    def count() -> None:
        nonlocal changed
        changed += 1
        if counter is not None:
            counter[:] = changed.to_bytes(8)
        if changed == number:
            os.kill(os.getpid(), by)

    def hook(event: str, details: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = details
            changes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path, changes = (details or (None,))[0], event in _CHANGES
        if not changes or not isinstance(path, str | bytes | os.PathLike):
            return
        if os.fsencode(os.path.abspath(os.fsdecode(path))).startswith(here):  # noqa: PTH100
            count()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql.startswith(_STATEMENTS):
                count()
            return super().execute(sql, *values)

    sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]
    sys.addaudithook(hook)


def ended(child: int, number: int = signal.SIGKILL) -> bool:
    """Wait for a process; whether it ended by itself. Whatever else went wrong ends the test."""
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) in (-number, 128 + number):
        return False
    if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1: an image failed, as in the undisturbed run
        raise SystemExit(f"the run failed: {os.waitstatus_to_exitcode(status)}")
    return True


def at_random(seed: int, kills: int, arguments: list[str]) -> int:
    generator = random.Random(seed)
    killed, longest = 0, 2.0
    while True:
        child = start(["label", *arguments])
        began = time.monotonic()
        if killed < kills:
            time.sleep(generator.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        if ended(child):
            if killed >= kills:
                return killed
            # It was too fast. What comes is in the time that it takes, and there is work again.
            longest = min(longest, time.monotonic() - began) / 2
            arguments = [*arguments, "--no-resume"] if "--no-resume" not in arguments else arguments
        else:
            killed += 1
            arguments = [each for each in arguments if each != "--no-resume"]


def at_each(folder: Path, arguments: list[str]) -> int:
    number = 1
    while True:
        to = ["label", *arguments, "-o", str(folder / str(number))]
        if ended(start(to, number)):
            return number - 1
        if not ended(start(to)):
            raise SystemExit("killed by another")
        number += 1


def in_copies(number: int, source: Path, arguments: list[str]) -> int:
    top = Path.cwd()
    for step in itertools.count(1):
        shutil.copytree(source, top / str(step), symlinks=True)
        os.chdir(top / str(step))
        if ended(start(arguments, step, number), number):
            return step - 1
        if not ended(start(arguments)):
            raise SystemExit("killed by another")
    return 0


def serve() -> None:
    """Run `tipsseg` as stdin asks, a line of JSON a run: {"arguments": [...], "cwd": "...", "kill_before": null or a number}.

    Answer each line with {"code": exit code or null for a killed run, "out": stdout, "err": stderr, "changes": number of changes
    of files}.
    """
    for line in sys.stdin:
        asked = json.loads(line)
        os.chdir(asked["cwd"])
        counter = mmap.mmap(-1, 8)  # shared with the process that counts
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            streams = (out.fileno(), err.fileno())
            child = start(asked["arguments"], asked["kill_before"] or 0, streams=streams, counter=counter)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = [stream.seek(0) or stream.read().decode() for stream in (out, err)]
        answer = {"code": None if code == -signal.SIGKILL else code, "out": texts[0], "err": texts[1]}
        print(json.dumps({**answer, "changes": int.from_bytes(counter[:])}), flush=True)


if __name__ == "__main__":
    how, *rest = sys.argv[1:]
    prepare()
    if how == "serve":
        serve()
    elif how == "copies":
        print(in_copies(signal.Signals[rest[0]], Path(rest[1]).resolve(), rest[2:]))
    elif how == "random":
        print(at_random(int(rest[0]), int(rest[1]), rest[2:]))
    else:
        print(at_each(Path(rest[0]), rest[1:]))
