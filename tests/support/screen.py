"""A program in a pseudo-terminal, and what a person sees of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_in_terminal(
    command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None, columns: int = 80
) -> tuple[int, bytes]:
    """The exit code of a program whose stdout and stderr are one terminal, and the bytes that the terminal got."""
    # Its size is the terminal's own, whatever the tests were started with.
    sized = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=inside, stderr=inside, cwd=cwd, env=sized | dict(env or {})
    ) as process:
        os.close(inside)
        got = b""
        while True:
            try:
                block = os.read(terminal, 1 << 16)
            except OSError:  # nobody is left on the other side
                break
            if not block:
                break
            got += block
        os.close(terminal)
        return process.wait(300), got


def seen(data: bytes) -> list[str]:
    """The lines that are left on a screen of endless height."""
    lines = [""]
    row = column = 0
    for part in re.findall(r"\x1b\[A|\r|\n|[^\r\n\x1b]+|\x1b", data.decode("utf-8", "backslashreplace")):
        if part == "\x1b[A":
            row = max(row - 1, 0)
        elif part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip() for line in lines]
