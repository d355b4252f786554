"""The threads of the command fit the cores that it may use, and sleep while they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tipsseg.options import default_jobs
from tipsseg.util import cores

COMMAND = """
import os, sys
import tipsseg.cli.main
from tipsseg.__main__ import main

tipsseg.cli.main.main = lambda: print(os.environ["OMP_WAIT_POLICY"])
main()
"""


@pytest.mark.parametrize(
    ("texts", "jobs"),
    [
        (["max 100000"], 8),
        (["250000 100000"], 3),
        (["1600000 100000"], 8),
        (["200000", "100000"], 2),
        (["-1", "100000"], 8),
        (["nonsense"], 8),
        ([], 8),
    ],
)
def test_a_container_limits_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], jobs: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_text(f"{text}\n")
    files = tuple(str(tmp_path / str(number)) for number in range(len(texts))) or (str(tmp_path / "absent"),)
    monkeypatch.setattr(cores, "QUOTA_FILES", (("/absent",), files))
    assert default_jobs() == jobs


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_the_command_sleep_while_they_wait_unless_the_user_says_otherwise(
    given: str | None, found: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}

    def run(code: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    assert run(COMMAND) == found
    assert run("import os, tipsseg; tipsseg.load; print(os.environ.get('OMP_WAIT_POLICY'))") == str(given)
