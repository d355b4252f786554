"""Measure a command of tipsseg in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time

#: Runs a command, and prints the most memory that it took: if this process started it, the memory of this process would count.
_MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measure_command(*arguments: object) -> tuple[float, float]:
    """Run `tipsseg` with these arguments, and return its seconds and its peak memory in MB."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "tipsseg", *map(str, arguments)]
    ran = subprocess.run([sys.executable, "-c", _MEASURED, *command], check=True, capture_output=True, text=True)
    return time.perf_counter() - began, int(ran.stdout) / (1 << 20 if sys.platform == "darwin" else 1 << 10)
