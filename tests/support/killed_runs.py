"""Kill runs without warning, and compare what they leave."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

KILLING = Path(__file__).resolve().with_name("killing.py")

#: What of run.json is of the run that came last, which may have had nothing to label.
OF_THE_LAST = ("started", "ended", "counts", "batch_size")


def contents(folder: Path) -> dict[str, bytes]:
    """All files, but for times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != ".tipsseg")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    entries = list(map(json.loads, found["manifest.jsonl"].splitlines()))
    run = json.loads(found["run.json"])
    assert run["ended"] is not None
    for written in (run["files"], *(entry["written"] for entry in entries)):
        for each in written.values():
            del each["mtime_ns"]
    found["manifest.jsonl"] = json.dumps([{**entry, "seconds": 0} for entry in entries]).encode()
    # The folders that are compared have other paths, and their inputs may have.
    run["command"] = re.sub(r" --output \S+", "", re.sub(r"(?<= )\S*/", "", run["command"]))
    found["run.json"] = json.dumps({key: run[key] for key in run if key not in OF_THE_LAST}, sort_keys=True).encode()
    return found


def killing(folder: Path, *arguments: object) -> int:
    """How many processes were killed."""
    ran = subprocess.run(
        [sys.executable, KILLING, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=1500
    )
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)
