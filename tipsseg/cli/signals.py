"""Signals that end the command: at once while it loads, and with a message about what is done while it works."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM)

#: Seconds after an interrupted command in which threads may end.
_GRACE_SECONDS = 3

#: Seconds until a signal that came at a bad moment is sent again.
_SOON = 0.02

#: Signals that will be sent again.
_waiting: set[int] = set()


class Stopped(KeyboardInterrupt):
    """Raised if a signal ends a command at work.

    Attributes:
        number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def end_at_once_on_signals() -> None:
    """End the process on a signal: no command is at work."""
    for number in _STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # background jobs and nohup ignore signals
            signal.signal(number, _end_at_once)


def raise_on_signals() -> None:
    """Raise Stopped on a signal that ended the process so far: a command is at work."""
    for number in _STOPPING:
        if signal.getsignal(number) is _end_at_once:
            signal.signal(number, _stop)
            sys.unraisablehook = _stop_again


def end_on_signals() -> None:
    """End the process on a signal without a word: the command has ended, or was told once before."""
    for number in _STOPPING:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)


def _end_at_once(number: int, frame: object) -> None:
    os.write(2, b"Interrupted.\n" if number == signal.SIGINT else b"Terminated.\n")
    os._exit(128 + number)


def _stop(number: int, frame: FrameType | None) -> None:
    if number in _waiting:
        _end_at_once(number, frame)
    if _is_importing(frame):  # libraries in C++ abort the process on an error there
        return _send_again(number)
    end_on_signals()
    raise Stopped(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _stop_again(lost: sys.UnraisableHookArgs) -> None:
    """Stop after all if Stopped was raised in a destructor or a callback, where Python ignores errors."""
    if not isinstance(lost.exc_value, Stopped):
        return sys.__unraisablehook__(lost)
    signal.signal(lost.exc_value.number, _stop)
    return _send_again(lost.exc_value.number)


def _send_again(number: int) -> None:
    import threading

    def send() -> None:
        _waiting.discard(number)
        os.kill(os.getpid(), number)

    _waiting.add(number)
    timer = threading.Timer(_SOON, send)
    timer.daemon = True
    timer.start()


def end_soon(code: int) -> None:
    """End the process in a few seconds if it does not end by itself.

    Python waits for its threads, but an interrupt may come at a moment that leaves one waiting for a lock or a server for ever.
    """
    import atexit
    import threading
    from contextlib import suppress

    with suppress(OSError):
        sys.stdout.flush()

    def end() -> None:
        atexit._run_exitfuncs()  # removes temporary folders
        os._exit(code)

    timer = threading.Timer(_GRACE_SECONDS, end)
    timer.daemon = True
    timer.start()
