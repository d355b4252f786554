"""Entry point of the command, also of `python -m tipsseg`."""

import gc
import os
import signal

TYPE_CHECKING = False  # importing `typing` takes time
if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the command. The first Ctrl-C or SIGTERM raises KeyboardInterrupt, the second one ends the process."""
    gc.set_threshold(
        20_000
    )  # imports make many objects that stay: with Python's 700, looking at them is a tenth of the start
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # background jobs and nohup ignore signals
            signal.signal(number, _stop)
    from tipsseg.cli.main import main as run

    run()


def _stop(number: int, frame: "FrameType | None") -> None:
    signal.signal(number, signal.SIG_DFL)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):  # libraries in C++ abort on an error there
            os.write(2, b"Interrupted.\n" if number == signal.SIGINT else b"Terminated.\n")
            os._exit(128 + number)
        frame = frame.f_back
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    main()
