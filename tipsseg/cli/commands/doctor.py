"""The `tipsseg doctor` command: check the installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import as_typed
from tipsseg.options.fields import MODEL, option
from tipsseg.options.run import ComputeOptions
from tipsseg.util.progress import print_text
from tipsseg.util.text import pluralize, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    # fmt: off
    model: str | None = option(None, short="m", metavar="ID|DIR", group=MODEL, choices="models",
        help="Also compare this model's outputs with its outputs on the CPU in float32.")
    # fmt: on


@command(no_args_is_help=False)
def doctor(compute: Annotated[ComputeOptions, Only("device", "dtype")], comparing: Comparing) -> int:
    """Check this installation: packages, devices, their results, and weights. Uses no network.

    Exit code: 0 if all checks pass, 1 if a check fails.
    """
    from tipsseg.commands.doctor import examine

    failed = 0
    for diagnostic in examine(compute.device, compute.dtype, comparing.model):
        failed += diagnostic.state == "fail"
        state = "FAIL" if diagnostic.state == "fail" else diagnostic.state
        print_text(f"{printable(f'{state:5} {diagnostic.what}: {as_typed(diagnostic.detail)}')}\n")
        if diagnostic.hint:
            print_text(f"      {printable(as_typed(diagnostic.hint))}\n")
    print_text(f"{pluralize(failed, 'check')} failed.\n" if failed else "All checks passed.\n")
    return failed
