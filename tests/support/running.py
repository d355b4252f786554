"""Run `tipsseg` in this process, and what that gives back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

from typer.testing import CliRunner

from tipsseg.cli.main import app


@dataclass(frozen=True)
class Ran:
    """Exit code, stdout and stderr."""

    code: int
    out: str
    err: str


class Command(Protocol):
    """`tipsseg` with these arguments."""

    def __call__(self, *arguments: object, stdin: bytes | None = None, cwd: Path | None = None) -> Ran: ...


def run_command(*arguments: object, stdin: bytes | None = None) -> Ran:
    """Run `tipsseg` in this process and folder; an error that is not an expected one is raised."""
    words = [str(argument) for argument in arguments]
    with patch.object(sys, "argv", ["tipsseg", *words]):
        result = CliRunner().invoke(app, words, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)
