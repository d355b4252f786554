"""Check this installation."""

from __future__ import annotations

from typing import Annotated

from tipsseg.ask import Ask, Opt, verb
from tipsseg.options.fields import MODEL
from tipsseg.verbs.shared import Device, Dtype

EPILOG = """Exit code: 0 if all checks pass, 1 if a check fails."""

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


@verb("doctor", EPILOG)
def doctor(ask: Ask, *, device: Device = "auto", dtype: Dtype = "auto", model: _Compared = None) -> int:
    """Check this installation: packages, devices, their results, and weights. Uses no network.

    Returns:
        The number of checks that failed.
    """
    from tipsseg.cli.wording import as_typed
    from tipsseg.commands.doctor import examine
    from tipsseg.util.progress import print_text
    from tipsseg.util.text import pluralize, printable

    failed = 0
    for diagnostic in examine(str(device), dtype, model):
        failed += diagnostic.state == "fail"
        state = "FAIL" if diagnostic.state == "fail" else diagnostic.state
        print_text(f"{printable(f'{state:5} {diagnostic.what}: {as_typed(diagnostic.detail)}')}\n")
        if diagnostic.hint:
            print_text(f"      {printable(as_typed(diagnostic.hint))}\n")
    print_text(f"{pluralize(failed, 'check')} failed.\n" if failed else "All checks passed.\n")
    return failed
