"""Check this installation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from tipsseg.ask import Ask, verb
from tipsseg.options import declared as opt
from tipsseg.options.fields import MODEL, Opt
from tipsseg.util.text import Diagnostic, pluralize

_EPILOG = """Exit code: 0 if all checks pass, 1 if a check fails."""

_Compared = Annotated[
    str | None,
    Opt(
        short="m",
        metavar="ID|DIR",
        group=MODEL,
        choices="models",
        help="Also compare this model's outputs with its outputs on the CPU in float32.",
    ),
]


@verb("doctor", _EPILOG)
def doctor(
    ask: Ask, *, device: opt.Device = "auto", dtype: opt.Dtype = "auto", model: _Compared = None
) -> Iterator[Diagnostic]:
    """Check this installation: packages, devices, their results, and weights. Uses no network.

    Yields:
        What each check found, and at the end the number of checks that failed.
    """
    from tipsseg.labelling.doctor import examine

    failed = 0
    for diagnostic in examine(str(device), dtype, model):
        failed += diagnostic.state == "fail"
        yield diagnostic
    yield Diagnostic("note", "", f"{pluralize(failed, 'check')} failed." if failed else "All checks passed.")
