"""Runs `tipsseg` again and again in processes that are killed, without warning, as by kill -9 or the system's lack of memory.

    python killing.py copies SOURCE COMMANDS
        the first of these commands, lists of arguments in JSON, before each change of a file in turn: the n-th run is in a copy of
        the folder SOURCE, named n, is killed before its n-th change, and the other commands follow
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
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import Any

#: What Python tells before it does it; of these, those that change files.
_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}

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
    streams: tuple[int, int] | None = None,
    counter: mmap.mmap | None = None,
    limit: int | None = None,
    saved: tuple[str, str] | None = None,
) -> int:
    """The number of a new process that runs `tipsseg` with these arguments; `streams` are its stdout and stderr.

    With `limit`, it is killed in the middle of writing a file beyond that size in bytes: the cache, as others are small. With
    `saved`, it is not killed, but the second file takes the place of the first, as if a person saved it at that time.
    """
    child = os.fork()
    if child:
        return child
    out, err = streams or (os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(out, 1)
    os.dup2(err, 2)
    try:
        from tipsseg.cli.main import main

        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if kill_before is not None:
            kill_at_operation(kill_before, counter, saved)
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


def kill_at_operation(number: int, counter: mmap.mmap | None = None, saved: tuple[str, str] | None = None) -> None:
    """Kill this process before it changes a file for that time, counted from 1, or see `start` for `saved`.

    `counter` holds the count. SQLite tells Python nothing of its files. Its statements count.
    """
    here = os.fsencode(Path.cwd())
    changed = 0

    def count(target: object = None) -> None:
        nonlocal changed, number
        changed += 1
        if counter is not None:
            counter[:] = changed.to_bytes(8)
        if changed != number:
            return
        if saved is None:
            os.kill(os.getpid(), signal.SIGKILL)
        elif isinstance(target, str | os.PathLike) and Path(target).absolute() == Path(saved[0]).absolute():
            number += 1  # compared a moment ago: no program can tell what is saved between that and the renaming
        elif Path(saved[0]).exists():
            number = 0
            os.replace(saved[1], saved[0])  # noqa: PTH105

    def hook(event: str, details: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = details
            changes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path, changes = (details or (None,))[0], event in _CHANGES
        if not changes or not isinstance(path, str | bytes | os.PathLike):
            return
        if os.fsencode(os.path.abspath(os.fsdecode(path))).startswith(here):  # noqa: PTH100
            count(details[1] if event == "os.rename" else None)

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql.startswith(_STATEMENTS):
                count()
            return super().execute(sql, *values)

    sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]
    sys.addaudithook(hook)


def ended(child: int) -> bool:
    """Wait for a process; whether it ended by itself. Whatever else went wrong ends the test."""
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1: an image failed, as in the undisturbed run
        raise SystemExit(f"the run failed: {os.waitstatus_to_exitcode(status)}")
    return True


def copy_with_caches(source: Path, target: Path) -> None:
    """Copy a folder; the caches in it are of the copies."""
    from tipsseg.folder.cache import CACHE_FOLDER, _identity

    shutil.copytree(source, target, symlinks=True)
    for path in target.rglob(f"{CACHE_FOLDER}/*.db"):
        with contextlib.closing(sqlite3.connect(path)) as cache, cache:
            cache.execute("UPDATE meta SET folder = ?", (_identity(path.parents[1]),))


def in_copies(source: Path, killed: list[str], *after: list[str]) -> int:
    top = Path.cwd()
    for step in itertools.count(1):
        copy_with_caches(source, top / str(step))
        os.chdir(top / str(step))
        whole = ended(start(killed, step))
        if not all(ended(start(arguments)) for arguments in after):
            raise SystemExit("killed by another")
        if whole:
            return step - 1
    return 0


def serve() -> None:
    """Run `tipsseg` as stdin asks, a line of JSON a run: {"arguments": [...], "cwd": "...", "kill_before": null or a number}.

    It may have a `limit` and files to be `saved` too, see `start`. Answer each line with {"code": exit code or null for a killed
    run, "out": stdout, "err": stderr, "changes": number of changes of files}.
    """
    for line in sys.stdin:
        asked = json.loads(line)
        os.chdir(asked["cwd"])
        counter = mmap.mmap(-1, 8)  # shared with the process that counts
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            streams = (out.fileno(), err.fileno())
            more = {name: asked.get(name) for name in ("limit", "saved")}
            child = start(asked["arguments"], asked["kill_before"] or 0, streams=streams, counter=counter, **more)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = [stream.seek(0) or stream.read().decode() for stream in (out, err)]
        answer = {
            "code": None if code in (-signal.SIGKILL, -signal.SIGXFSZ) else code,
            "out": texts[0],
            "err": texts[1],
        }
        print(json.dumps({**answer, "changes": int.from_bytes(counter[:])}), flush=True)


if __name__ == "__main__":
    how, *rest = sys.argv[1:]
    prepare()
    if how == "serve":
        serve()
    else:
        print(in_copies(Path(rest[0]).resolve(), *json.loads(rest[1])))
