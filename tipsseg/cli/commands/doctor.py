"""The `tipsseg doctor` command: check the installation."""

from __future__ import annotations

from typing import Annotated

from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import as_typed
from tipsseg.commands.progress import print_text
from tipsseg.options.fields import MODEL, Option
from tipsseg.options.run import ComputeOptions
from tipsseg.util.text import pluralize, printable


@command(no_args_is_help=False)
def doctor(
    compute: Annotated[ComputeOptions, Only("device", "dtype")],
    model: Annotated[
        str | None,
        Option(
            help="Also compare this model's numbers with those on the cpu in float32.",
            flag="model",
            short="m",
            metavar="ID|DIR",
            group=MODEL,
            choices="models",
        ),
    ] = None,
) -> int:
    """Check this installation: versions, devices, numbers and weights. Uses no network.

    Exit code: 0 if all checks pass, 1 if a check fails.
    """
    from tipsseg.commands.doctor import examine

    failed = 0
    for diagnostic in examine(compute.device, compute.dtype, model):
        failed += diagnostic.state == "fail"
        state = "FAIL" if diagnostic.state == "fail" else diagnostic.state
        print_text(f"{printable(f'{state:5} {diagnostic.what}: {as_typed(diagnostic.detail)}')}\n")
        if diagnostic.hint:
            print_text(f"      {printable(as_typed(diagnostic.hint))}\n")
    print_text(f"{pluralize(failed, 'check')} failed.\n" if failed else "All checks passed.\n")
    return failed
