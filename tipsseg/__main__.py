"""Entry point of the command, also of `python -m tipsseg`."""

import atexit
import gc
import os
import signal
import sys
from contextlib import suppress

from tipsseg.util.cores import cpu_quota, usable_cores

TYPE_CHECKING = False  # importing `typing` takes time
if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the command. The first Ctrl-C or SIGTERM raises KeyboardInterrupt, the second one ends the process."""
    try:
        # Imports make many objects that stay: with Python's 700, looking at them is a tenth of the start.
        gc.set_threshold(20_000)
        _set_environment()
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # background jobs and nohup ignore signals
                signal.signal(number, _stop)
        from tipsseg.cli.main import main as run

        run()
    except SystemExit as end:
        _keep_exit_code(end.code)
        raise
    except KeyboardInterrupt as interrupt:  # outside of a command, which words it
        _end(interrupt.args[0] if interrupt.args else signal.SIGINT)


def _keep_exit_code(code: object) -> None:
    """Let no signal change the exit code of a command that has ended, while Python shuts down."""
    number = code if isinstance(code, int) else int(code is not None)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a reader has gone, or the stream is closed
            stream.flush()
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is _stop:
            signal.signal(each, lambda *_: os._exit(number))
            atexit.register(signal.signal, each, signal.SIG_IGN)  # for what follows when threads have ended


def _set_environment() -> None:
    """Set the defaults of libraries before they are imported; the user's settings stay.

    Threads of OpenMP that wait sleep. By default they spin, which is no faster on idle cores, and slows down all programs on busy
    ones. OpenCV's own lines on files that it cannot read are left out: errors say the same.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    if cpu_quota() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def _stop(number: int, frame: "FrameType | None") -> None:
    signal.signal(number, signal.SIG_DFL)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):  # libraries in C++ abort on an error there
            _end(number)
        frame = frame.f_back
    raise KeyboardInterrupt(number)


def _end(number: int) -> None:
    os.write(2, b"Interrupted.\n" if number == signal.SIGINT else b"Terminated.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
