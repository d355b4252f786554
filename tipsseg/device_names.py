"""What devices and dtypes are called; without torch, which takes its time."""

from __future__ import annotations

import re

from tipsseg.errors import UsageError
from tipsseg.printable import quoted

DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16")

_DEVICE = re.compile("auto|(cpu|cuda|mps)(:[0-9]+)?")


def check_device_name(name: str) -> None:
    """Raise UsageError for what cannot be a device, whether this machine has it or not."""
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        raise UsageError(f"unknown device {quoted(name)}", "Use auto, cpu, cuda, cuda:N or mps.")


def check_dtype_name(name: str) -> None:
    """Raise UsageError for what is no dtype to compute in."""
    if name not in DTYPE_NAMES:
        raise UsageError(f"unknown dtype {quoted(name)}", f"Use one of {', '.join(DTYPE_NAMES)}.")
