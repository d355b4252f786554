"""Count the cores that this process may use."""

import os
from contextlib import suppress

#: Where Linux tells the CPU time that a container may use in a period, in microseconds: cgroups version 2, then version 1.
QUOTA_FILES = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def usable_cores() -> int:
    """Return the number of cores that the scheduler and the limits of the container allow, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, cpu_quota() or cores)


def cpu_quota() -> int | None:
    """Return the limit of the container in whole cores, rounded up; None without a limit."""
    for names in QUOTA_FILES:
        with suppress(OSError, ValueError):
            texts = list[str]()
            for name in names:
                with open(name, encoding="ascii") as file:  # noqa: PTH123  importing pathlib takes time
                    texts += file.read().split()
            quota, period = map(int, texts)
            if quota > 0 and period > 0:
                return -(-quota // period)
    return None
